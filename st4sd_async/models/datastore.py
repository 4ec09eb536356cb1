"""Documents of the datastore about a run, its components and the metadata of its user."""

from __future__ import annotations

import ast
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self

from pydantic import BeforeValidator, ConfigDict, Field, field_validator, model_validator

from .._render.displayable import Displayable
from ._base import Reply, Word
from .interface import Interface
from .outputs import KeyOutput
from .runs import Meta, Status, is_rest_uid, of_run, status_summary

if TYPE_CHECKING:
    from .._render.cards import Badge, Card


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


_OF_THE_SERVICE = frozenset({"rest-uid", "experiment-id", "workflow"})
"""Metadata that the service adds to that of the user, beside names with the prefix ``st4sd-``."""


def _string_items(value: Any) -> list[str]:
    """Return the strings in a list, which may be written as a Python literal."""
    if isinstance(value, str):
        try:
            value = ast.literal_eval(value)
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            return []
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


def _object_values(value: Any) -> dict[str, Any]:
    """Return the values of an object that are objects."""
    items = value.items() if isinstance(value, dict) else ()
    return {name: item for name, item in items if isinstance(item, dict)}


def _string_lists(value: Any) -> dict[str, list[str]]:
    """Return an object whose values are lists of strings."""
    return {name: _string_items(item) for name, item in value.items()} if isinstance(value, dict) else {}


def _time(value: Any) -> datetime | None:
    """Return a time that is written as ``2026-11-22T10:05:23.059164``; None if it is not, as in "N/A"."""
    try:
        time = value if isinstance(value, datetime) else datetime.fromisoformat(value)
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

    @model_validator(mode="after")
    def _without_duplicate(self) -> Self:
        # Documents have this time twice. In JSON by the names of fields, the other one would replace `updated`.
        (self.__pydantic_extra__ or {}).pop("updated", None)
        return self

    @field_validator("stages", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        return _string_items(value)


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


class ExperimentDocument(Displayable, Document):
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
    outputs: Annotated[dict[str, DocumentOutput], BeforeValidator(_object_values)] = Field(default={}, alias="output")
    """Key-outputs by name."""
    interface: Interface = Field(default_factory=Interface)
    """Inputs and properties of the experiment, with those of the run; empty if it has no interface."""

    @model_validator(mode="after")
    def _name_run(self) -> Self:
        of_run(self.status, self.rest_uid)
        return self

    @property
    def rest_uid(self) -> str | None:
        """rest-uid of the run; None if it is missing, as without the runtime service, or invalid."""
        return _rest_uid(self.metadata.user_metadata.get("rest-uid"))

    @property
    def property_table(self) -> dict[str, list[Any]] | None:
        """Measured properties, column -> values; None if they were not requested or nothing was measured."""
        table = self.interface.raw.get("propertyTable")
        return table if isinstance(table, dict) else None

    def _card(self) -> Card:
        from .._render.cards import Card, facts_of, joined, shortened_list

        summary = status_summary(self.status)
        facts = {
            "package": self.name,
            "metadata": joined(
                f"{name} = {value}"
                for name, value in self.metadata.user_metadata.items()
                if name not in _OF_THE_SERVICE and not name.startswith("st4sd-")
            ),
            "platform": self.metadata.platform,
            "outputs": joined(self.outputs),
            "inputs": shortened_list(self.interface.input_ids),
            "measures": joined(self.interface.property_names),
            "location": self.instance,
        }
        title = self.rest_uid or self.uid or "a run"
        return Card(title, kind="experiment document", badge=summary.badge, bar=summary.bar, facts=facts_of(facts))


class ComponentDocument(Displayable, Document):
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
    files: Annotated[list[str], BeforeValidator(_string_items)] = []
    """Absolute paths of the files in it, at the gateway; [] until the component is over."""
    producers: Annotated[dict[str, list[str]], BeforeValidator(_string_lists)] = {}
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

    def _card(self) -> Card:
        from .._render.cards import Card, facts_of, joined, shortened_list

        names = [file.removeprefix(self.location).lstrip("/") for file in self.files]
        command = self.flowir.get("command")
        words = command if isinstance(command, dict) else {}
        facts = {
            "command": " ".join(str(words.get(name) or "") for name in ("executable", "arguments")).strip(),
            "uses": joined(name.rpartition("&")[2] for name in self.producers),
            "files": shortened_list(names),
            "location": self.location,
        }
        badge = component_badge(self.state)
        return Card(self.reference or self.name, kind="component document", badge=badge, facts=facts_of(facts))


def component_badge(state: ComponentState | None) -> Badge:
    """Return the state of a component as a coloured word."""
    from .._render.cards import Badge, Tone

    tones = {
        ComponentState.FINISHED: Tone.GOOD,
        ComponentState.FAILED: Tone.BAD,
        ComponentState.RUNNING: Tone.BUSY,
        ComponentState.COMPONENT_SHUTDOWN: Tone.QUIET,
    }
    return Badge(str(state or "no state yet"), Tone.WAITING if state is None else tones.get(state, Tone.WAITING))


class UserMetadata(Document):
    """
    The document with the metadata of a run: ``metadata`` of its start, what the service added, and tags.

    Source: ``POST documents/api/v1.0/query`` of the datastore's MongoDB proxy.
    """

    # Keys of the user may be equal to our names of fields, so neither JSON has these names.
    model_config: ClassVar[ConfigDict] = ConfigDict(populate_by_name=False, serialize_by_alias=True)

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
