"""Documents of the datastore: what it keeps of a run, of its components and of its user's metadata."""

from __future__ import annotations

import ast
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import BeforeValidator, ConfigDict, Field, field_validator

from ._base import Tolerant, Word
from .interface import Interface
from .outputs import KeyOutput
from .rest_uid import is_rest_uid
from .runs import Meta, Status


class ComponentState(Word):
    """How a component is doing, or how it ended."""

    INITIALISING = "initialising"
    """The orchestrator is setting it up, or it waits for its producers."""
    RUNNING = "running"
    """Its program is running."""
    SUSPENDED = "suspended"
    """Suspended by its backend."""
    WAITING_ON_RESOURCE = "waiting_on_resource"
    """Waiting for resources."""
    WAITING_ON_OUTPUT_DATA_TRANSFER = "waiting_on_output_data_transfer"
    """Ended, and its files are still being copied."""
    CHECKING = "checking"
    """Ended, but whether it succeeded is not decided yet."""
    FINISHED = "finished"
    """Succeeded."""
    FAILED = "failed"
    """Ended with an error."""
    COMPONENT_SHUTDOWN = "component_shutdown"
    """Stopped, or never run because another component failed."""


def _texts(value: Any) -> list[str]:
    """The texts in a list, or in a text that is the list as Python writes it."""
    if isinstance(value, str):
        try:
            value = ast.literal_eval(value)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return []
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


def _mappings(value: Any) -> dict[str, Any]:
    """Of a mapping the entries that are mappings themselves."""
    entries = value.items() if isinstance(value, dict) else ()
    return {name: entry for name, entry in entries if isinstance(entry, dict)}


def _lists(value: Any) -> dict[str, list[str]]:
    """A mapping of names to texts."""
    return {name: _texts(entry) for name, entry in value.items()} if isinstance(value, dict) else {}


def _moment(value: Any) -> datetime | None:
    """A time as documents have it, ``2026-11-22T10:05:23.059164``; "N/A" is None."""
    try:
        moment = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _rest_uid(value: Any) -> str | None:
    return value if is_rest_uid(value) else None


_Moment = Annotated[datetime | None, BeforeValidator(_moment)]


class DocumentStatus(Tolerant, Status):
    """
    How a run was doing when the orchestrator last told the datastore: 10 to 20 s ago, or in the end.

    A document has every value as text; here they have the types of `Status`.
    """

    created: _Moment = Field(default=None, alias="created-on")
    """When the run began, in UTC."""
    updated: _Moment = Field(default=None, alias="updated-on")
    """When this was written, in UTC."""
    completed: _Moment = Field(default=None, alias="completed-on")
    """When the run ended, in UTC; None while it goes on."""

    @field_validator("stages", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        return _texts(value)


class DocumentMeta(Tolerant, Meta):
    """What the orchestrator says of itself, as a document has it."""


class DocumentOutput(Tolerant, KeyOutput):
    """A key-output, as a document has it."""


class Document(Tolerant):
    """What all documents have; fields that are new or of the user's own are kept, and are in `raw`."""

    instance: str = ""
    """Where the run's files are: ``file://<id of a gateway>/<path>``; it is the same in all documents of a run."""
    uid: str = ""
    """What the datastore calls the document."""
    type: str = ""
    """Which kind it is: ``experiment``, ``component`` or ``user-metadata``."""


class ExperimentDocument(Document):
    """
    What the datastore keeps of a run; it is still there when the run was deleted.

    Source: ``POST documents/api/v1.0/query`` of the datastore's MongoDB proxy.
    """

    name: str = ""
    """Name of the experiment's package."""
    metadata: DocumentMeta = Field(default_factory=DocumentMeta)
    """What the orchestrator says of itself, what the run was started with, and its tags."""
    status: DocumentStatus = Field(default_factory=DocumentStatus)
    """How the run was doing when the document was written."""
    outputs: Annotated[dict[str, DocumentOutput], BeforeValidator(_mappings)] = Field(default={}, alias="output")
    """Key-outputs by name."""
    interface: Interface = Field(default_factory=Interface)
    """What the experiment says of its inputs and properties, and what came of it; blank if it has no interface."""

    @property
    def rest_uid(self) -> str | None:
        """The run's rest-uid; None if it has none, as without the runtime service, or if the text is not a rest-uid."""
        return _rest_uid(self.metadata.user_metadata.get("rest-uid"))

    @property
    def property_table(self) -> dict[str, list[Any]] | None:
        """Measured properties, column -> values; None if they were not asked for, or nothing was measured."""
        table = self.interface.raw.get("propertyTable")
        return table if isinstance(table, dict) else None


class ComponentDocument(Document):
    """
    What the datastore keeps of a component of a run.

    Source: ``POST documents/api/v1.0/query`` of the datastore's MongoDB proxy.
    """

    name: str = ""
    """Name of the component."""
    stage: int | None = None
    """Index of its stage, from 0."""
    reference: str = Field(default="", alias="component-identifier")
    """Both together, as ``stage0.Compute``."""
    state: ComponentState | None = Field(default=None, alias="component-state")
    """How it is doing, or how it ended."""
    location: str = ""
    """Absolute path of its working directory, at its gateway."""
    files: Annotated[list[str], BeforeValidator(_texts)] = []
    """Absolute paths of the files in it, at its gateway; [] until the component is over."""
    producers: Annotated[dict[str, list[str]], BeforeValidator(_lists)] = {}
    """Whose files it used: ``<instance>&<reference>`` -> the files."""
    flowir: dict[str, Any] = {}
    """Its definition."""
    memoization_hash: str = Field(default="", alias="memoization-hash")
    """The same for components that compute the same from the same; "" until it has succeeded."""
    memoization_hash_fuzzy: str = Field(default="", alias="memoization-hash-fuzzy")
    """As `memoization_hash`, by looser rules."""

    @property
    def is_over(self) -> bool:
        """Whether it has ended, so that its files do not change any more."""
        return self.state in (ComponentState.FINISHED, ComponentState.FAILED, ComponentState.COMPONENT_SHUTDOWN)


class UserMetadata(Document):
    """
    What the user said of a run: the ``metadata`` of its start, what the service added to it, and its tags.

    Source: ``POST documents/api/v1.0/query`` of the datastore's MongoDB proxy.
    """

    model_config = ConfigDict(populate_by_name=False)  # the user's own keys may be spelt like our fields

    rest_uid: Annotated[str | None, BeforeValidator(_rest_uid)] = Field(default=None, alias="rest-uid")
    """The run's rest-uid; None if it has none, as without the runtime service, or if the text is not a rest-uid."""
    experiment_id: str | None = Field(default=None, alias="experiment-id")
    """The experiment, as ``name@digest``."""
    package_name: str | None = Field(default=None, alias="st4sd-package-name")
    """Name of its package."""
    package_digest: str | None = Field(default=None, alias="st4sd-package-digest")
    """Digest of its package."""

    @property
    def metadata(self) -> dict[str, Any]:
        """All of the document but what every document has: name -> value, texts unless a tag is something else."""
        return {name: value for name, value in self.raw.items() if name not in Document.model_fields}
