"""Documents of the datastore about a run, its components and the metadata of its user."""

from __future__ import annotations

import ast
from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, ConfigDict, Field, field_validator

from ._base import Reply, Word
from .interface import Interface
from .outputs import KeyOutput
from .runs import Meta, Status, is_rest_uid


class ComponentState(Word):
    """State of a component."""

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
    """Return the texts in a list, which may be written as a Python literal."""
    if isinstance(value, str):
        try:
            value = ast.literal_eval(value)
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            return []
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


def _objects(value: Any) -> dict[str, Any]:
    """Return the objects in an object."""
    items = value.items() if isinstance(value, dict) else ()
    return {name: item for name, item in items if isinstance(item, dict)}


def _lists(value: Any) -> dict[str, list[str]]:
    """Return an object of lists of texts."""
    return {name: _texts(item) for name, item in value.items()} if isinstance(value, dict) else {}


def _time(value: Any) -> datetime | None:
    """Return a time that is written as ``2026-11-22T10:05:23.059164``; None if it is not, as in "N/A"."""
    try:
        time = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return None
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _rest_uid(value: Any) -> str | None:
    return value if is_rest_uid(value) else None


_Time = Annotated[datetime | None, BeforeValidator(_time)]


class DocumentStatus(Status):
    """
    Status of a run in its document; the orchestrator updates it every 10 to 20 s and at the end.

    Documents have all values as text; here they have the types of `Status`.
    """

    _vital: ClassVar[frozenset[str]] = frozenset()

    created: _Time = Field(default=None, alias="created-on")
    """When the run began, in UTC."""
    updated: _Time = Field(default=None, alias="updated-on")
    """When this status was written, in UTC."""
    completed: _Time = Field(default=None, alias="completed-on")
    """When the run ended, in UTC; None until then."""

    @field_validator("stages", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        return _texts(value)


class DocumentMeta(Meta):
    """Settings of the orchestrator in the document of a run."""


class DocumentOutput(KeyOutput):
    """A key-output in the document of a run."""


class Document(Reply):
    """Fields of all documents; unknown fields and those of the user are kept, also in `raw`."""

    instance: str = ""
    """Location of the run's files, the same in all documents of a run: ``file://<id of a gateway>/<path>``."""
    uid: str = ""
    """Id of the document."""
    type: str = ""
    """Kind of the document: ``experiment``, ``component`` or ``user-metadata``."""


class ExperimentDocument(Document):
    """
    The document of a run; it stays when the run is deleted.

    Source: ``POST documents/api/v1.0/query`` of the datastore's MongoDB proxy.
    """

    name: str = ""
    """Name of the experiment's package."""
    metadata: DocumentMeta = Field(default_factory=DocumentMeta)
    """Settings of the orchestrator, options of the start, and tags."""
    status: DocumentStatus = Field(default_factory=DocumentStatus)
    """Status of the run when the document was written."""
    outputs: Annotated[dict[str, DocumentOutput], BeforeValidator(_objects)] = Field(default={}, alias="output")
    """Key-outputs by name."""
    interface: Interface = Field(default_factory=Interface)
    """Inputs and properties of the experiment, with those of the run; empty if it has no interface."""

    @property
    def rest_uid(self) -> str | None:
        """rest-uid of the run; None if it is missing, as without the runtime service, or invalid."""
        return _rest_uid(self.metadata.user_metadata.get("rest-uid"))

    @property
    def property_table(self) -> dict[str, list[Any]] | None:
        """Measured properties, column -> values; None if they were not requested or nothing was measured."""
        table = self.interface.raw.get("propertyTable")
        return table if isinstance(table, dict) else None


class ComponentDocument(Document):
    """
    The document of a component of a run.

    Source: ``POST documents/api/v1.0/query`` of the datastore's MongoDB proxy.
    """

    name: str = ""
    """Name of the component."""
    stage: int | None = None
    """Index of its stage, from 0."""
    reference: str = Field(default="", alias="component-identifier")
    """Stage and name, as in ``stage0.Compute``."""
    state: ComponentState | None = Field(default=None, alias="component-state")
    """State of the component."""
    location: str = ""
    """Absolute path of its working directory, at the gateway."""
    files: Annotated[list[str], BeforeValidator(_texts)] = []
    """Absolute paths of the files in it, at the gateway; [] until the component is over."""
    producers: Annotated[dict[str, list[str]], BeforeValidator(_lists)] = {}
    """Components whose files it used: ``<instance>&<reference>`` -> files."""
    flowir: dict[str, Any] = {}
    """Definition of the component."""
    memoization_hash: str = Field(default="", alias="memoization-hash")
    """Equal for components that compute the same from the same inputs; "" until it has succeeded."""
    memoization_hash_fuzzy: str = Field(default="", alias="memoization-hash-fuzzy")
    """Like `memoization_hash`, by looser rules."""

    @property
    def is_over(self) -> bool:
        """Whether the component is over, so that its files no longer change."""
        return self.state in (ComponentState.FINISHED, ComponentState.FAILED, ComponentState.COMPONENT_SHUTDOWN)


class UserMetadata(Document):
    """
    The document with the metadata of a run: ``metadata`` of its start, what the service added, and tags.

    Source: ``POST documents/api/v1.0/query`` of the datastore's MongoDB proxy.
    """

    model_config = ConfigDict(populate_by_name=False)  # keys of the user may be equal to our names of fields

    rest_uid: Annotated[str | None, BeforeValidator(_rest_uid)] = Field(default=None, alias="rest-uid")
    """rest-uid of the run; None if it is missing, as without the runtime service, or invalid."""
    experiment_id: str | None = Field(default=None, alias="experiment-id")
    """Experiment, as ``name@digest``."""
    package_name: str | None = Field(default=None, alias="st4sd-package-name")
    """Name of the package."""
    package_digest: str | None = Field(default=None, alias="st4sd-package-digest")
    """Digest of the package."""

    @property
    def metadata(self) -> dict[str, Any]:
        """All fields but those of every document: name -> value; values are texts unless a tag is not."""
        return {name: value for name, value in self.raw.items() if name not in Document.model_fields}
