"""Instances: their rest-uid, their status, and all that the service keeps of them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self, TypeVar

from pydantic import (
    AfterValidator,
    AliasChoices,
    BeforeValidator,
    Field,
    PrivateAttr,
    computed_field,
    field_serializer,
    field_validator,
    model_validator,
)

from .._render.displayable import Displayable
from .._util.printable import MAX_REPR_LENGTH, shorten
from .._util.redact import mask_environment
from ._base import JsonObject, NullAsDict, Reply, Strings, Word
from .finality import FINAL_EXITS, is_final
from .hints import STUCK, WAITING, Hint, Reason, explain, with_hint, with_lines
from .outputs import KeyOutput
from .packages import Experiment

if TYPE_CHECKING:
    from .._render.cards import Card, Summary

_INSTEAD_OF_STATUS = ("warning", "message")
"""Keys of the text that the service sends instead of a status."""
_LARGE = "meta"
"""Key of the field that is most of a status, and that rarely changes."""
NO_STATUS = "no status yet"
"""State of an instance that has no status."""
MAX_ERROR_LENGTH = 120
"""Characters of an error's text in the one line of a status."""

MAX_REST_UID_LENGTH = 253
"""Characters of a rest-uid: the limit of names in Kubernetes."""

_REST_UID = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{MAX_REST_UID_LENGTH - 1}}}")
_SUFFIX = re.compile(r"-([0-9a-z]{6})-[0-9a-z]{8}")
"""Six characters of the digest of the experiment, and eight random ones."""
_ENDS_IN_SUFFIX = re.compile(rf"{_SUFFIX.pattern}\Z")
_DASHED = str.maketrans({" ": "-", "_": "-"})


def is_rest_uid(value: Any) -> bool:
    """
    Return whether a value has the form of a rest-uid.

    It begins with a letter or digit and contains only ASCII letters, digits, dashes, dots and underscores, so that it
    is safe in a path, in a URL and on a command line.
    """
    return isinstance(value, str) and _REST_UID.fullmatch(value) is not None


def check_rest_uid(value: Any) -> str:
    """
    Return a rest-uid unchanged.

    Raises:
        ValueError: The value is not a rest-uid.
    """
    if is_rest_uid(value):
        return str(value)
    shown = ascii(value)
    shown = shown if len(shown) <= 80 else f"{shown[:80]}..."
    raise ValueError(
        f"not a rest-uid: {shown}; it must begin with a letter or digit and contain only letters, digits, "
        f"'-', '.' and '_', at most {MAX_REST_UID_LENGTH} characters"
    )


def is_of_package(rest_uid: str, package: str) -> bool:
    """
    Return whether a rest-uid has the form of the instances of a package.

    If a runtime policy is used, the service may start another package than requested; then this is False although the
    id is right.

    Args:
        rest_uid: The id of an instance.
        package: Name of the package, without tag and digest.

    Source: the runtime service builds the id from the name with dashes for spaces and underscores, six characters of
    the digest, and eight random lower-case letters or digits.
    """
    prefix = package.translate(_DASHED).lower()
    name = rest_uid.lower()
    return name.startswith(prefix) and _SUFFIX.fullmatch(rest_uid, len(prefix)) is not None


def version_of(rest_uid: str) -> str | None:
    """
    Return the six characters of the digest in a rest-uid, which identify the version; None if it has another form.

    Source: as for `is_of_package`.
    """
    found = _ENDS_IN_SUFFIX.search(rest_uid)
    return found and found[1]


class ExperimentState(Word):
    """State of an instance, as the orchestrator or the service reports it."""

    UNSCHEDULED = "unscheduled"
    """Waiting for resources; may still run."""
    UNSCHEDULABLE = "unschedulable"
    """An image cannot be pulled; an administrator can still repair it."""
    INITIALISING = "Initialising"
    """The orchestrator is setting the run up; no component runs yet."""
    RUNNING = "running"
    """Components are running."""
    WAITING_ON_RESOURCE = "waiting_on_resource"
    """A component waits for resources."""
    SUSPENDED = "suspended"
    """The components are suspended."""
    COMPONENT_SHUTDOWN = "component_shutdown"
    """Components are being stopped."""
    FINISHED = "finished"
    """Ended, successfully or not: see the exit-status."""
    FAILED = "failed"
    """Failed before any component ran, or the orchestrator was killed."""
    EMPTY = ""
    """No status yet."""


class ExitStatus(Word):
    """How an instance ended."""

    SUCCESS = "Success"
    """All components succeeded."""
    FAILED = "Failed"
    """A component failed, or the instance could not be set up."""
    STOPPED = "Stopped"
    """Stopped by a user before it was over."""
    NOT_AVAILABLE = "N/A"
    """Still running."""
    EMPTY = ""
    """It never ran, or its orchestrator was killed."""


STATES = (NO_STATUS, *(state.casefold() for state in ExperimentState if state), "succeeded", "stopped", "deleted")
"""The words of `Status.state`."""


class StageState(Word):
    """State of the active stage with the lowest index."""

    INITIALISING = "Initialising"
    """No component of the stage runs yet."""
    RUNNING = "running"
    """Components of the stage are running."""
    WAITING_ON_RESOURCE = "waiting_on_resource"
    """A component of the stage waits for resources."""
    COMPONENT_SHUTDOWN = "component_shutdown"
    """Components of the stage are being stopped."""
    FINISHED = "finished"
    """All components of the stage succeeded."""
    FAILED = "failed"
    """A component of the stage failed."""
    EMPTY = ""
    """No stage has started."""


def _absent(value: Any) -> Any:
    """Return None for a missing name: the service writes the string "None" before the first stage starts."""
    return None if value in ("None", "") else value


_Name = Annotated[str | None, BeforeValidator(_absent)]


class Meta(Reply):
    """Settings of the orchestrator, known once it has written its first status."""

    arguments: str | None = None
    """Command line of the orchestrator."""
    data: Strings = []
    """Files that replace data files of the package."""
    input: Strings = Field(default=[], validation_alias=AliasChoices("inputs", "input"))
    """Input files, as paths in the instance's pod."""
    pid: int | None = None
    """Process id of the orchestrator."""
    platform: str | None = None
    """Platform that the experiment executes on."""
    user_variables: JsonObject = Field(default={}, alias="userVariables")
    """Variables set by the user: ``{"global": {name: value}, "stages": {index: {name: value}}}``, values as text."""
    variables: JsonObject = {}
    """All variables, in the same shape."""
    hybrid_platform: str | None = Field(default=None, alias="hybridPlatform")
    """Hybrid platform for LSF; None if there is none."""
    user_metadata: JsonObject = Field(default={}, alias="userMetadata")
    """``metadata`` of the start payload, and what the service added to it."""
    instance_name: str | None = Field(default=None, alias="instanceName")
    """Name of the instance's directory."""
    version: str | None = None
    """Version of the orchestrator."""


class Status(Displayable, Reply):
    """
    Status of an instance at one moment.

    While the service has no status yet, every field is None and `is_pending` is True. A single response proves that the
    run is over only if both ``experiment_state`` and ``exit_status`` are final. `Client.watch` and `Client.wait` also
    decide by time; the last status that they return has `is_final` True.

    Its JSON also has `rest_uid`, `state`, `is_final`, `is_success`, `is_deleted` and `hint`, an object with ``reason``,
    ``advice`` and ``text``. An application can therefore send it on. A status that is read from it is equal.

    Source: ``GET instances/{id}/status`` of the runtime service.
    """

    # If one of these were missing, the run would seem to be pending or about to end. So it must be readable.
    _vital: ClassVar[frozenset[str]] = frozenset({"experiment-state", "exit-status"})
    _computed: ClassVar[frozenset[str]] = frozenset({"state", "is_final", "is_success", "is_deleted", "hint"})
    _added: ClassVar[frozenset[str]] = frozenset({"rest_uid"})

    rest_uid: str | None = None
    """rest-uid of the run. None if the status was made without a run."""
    experiment_state: ExperimentState | None = Field(default=None, alias="experiment-state")
    """State of the instance; None if the service has no status yet."""
    exit_status: ExitStatus | None = Field(default=None, alias="exit-status")
    """How the instance ended; ``N/A`` while it runs."""
    stage_state: StageState | None = Field(default=None, alias="stage-state")
    """State of the active stage with the lowest index."""
    current_stage: _Name = Field(default=None, alias="current-stage")
    """Name of a stage, usually the highest that has started, but not reliable; None before the first."""
    stages: list[str] | None = None
    """Names of the stages, in order."""
    total_progress: float | None = Field(default=None, alias="total-progress")
    """Progress of the run, 0 to 1; usually 0 until the end."""
    stage_progress: float | None = Field(default=None, alias="stage-progress")
    """Progress of the active stage, 0 to 1."""
    error_description: str | None = Field(default=None, alias="error-description")
    """
    Why the run failed or what it waits for, with real line breaks. The text may change between polls.

    After a failed set-up it may have the whole environment. Secrets in it are masked: those of payloads that this
    process sent, and values whose names look like those of secrets.
    """
    meta: Meta | None = None
    """Settings of the orchestrator; None until it has written its first status."""

    _over: bool = PrivateAttr(default=False)
    _deleted: bool = PrivateAttr(default=False)

    @field_validator("stages", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        return [str(item) for item in value] if isinstance(value, list) else None

    @field_validator("error_description", "total_progress", "stage_progress", mode="before")
    @classmethod
    def _blank(cls, value: Any) -> Any:
        return None if value == "" else value

    @classmethod
    def _masked(cls, value: Any) -> Any:
        text = value.get("error-description") if isinstance(value, Mapping) else None
        masked = mask_environment(text) if isinstance(text, str) and text else text
        return value if masked == text else {**value, "error-description": masked}

    @field_validator("error_description")
    @classmethod
    def _with_lines(cls, value: str | None) -> str | None:
        return with_lines(value) if value else value

    @classmethod
    def pending(cls, raw: Mapping[str, Any] | None = None) -> Self:
        """Return the status of an instance that has none yet; ``raw`` is what the service sent instead."""
        texts = {name: raw[name] for name in _INSTEAD_OF_STATUS if isinstance(raw.get(name), str)} if raw else {}
        status = cls.model_validate(texts) if texts else cls()
        status._raw = dict(raw or {})
        return status

    def _restore(self, value: Mapping[str, Any]) -> None:
        self._over = value.get("is_final") is True and not is_final(self.pair)
        self._deleted = value.get("is_deleted") is True
        super()._restore(value)

    def concluded(self, *, deleted: bool = False) -> Self:
        """Return a copy of this status that marks the run as over, and as deleted if ``deleted``."""
        status = self.model_copy()
        status._over, status._deleted = not is_final(self.pair), deleted
        return status

    def says_like(self, other: Status) -> bool:
        """Return whether both have the same content; null and missing are the same, since lists have null."""
        if self is other:
            return True
        one, two = self.raw, other.raw
        return not _differs(one, two) and _content(one) == _content(two)

    @computed_field  # type: ignore[prop-decorator]  # mypy knows no decorator above that of a property
    @property
    def state(self) -> str:
        """
        State of the run in one word. All displays and commands use these words.

        | word | meaning |
        |---|---|
        | ``no status yet`` | The service knows the run and has no status of it. |
        | ``unscheduled`` | The run waits for a slot in the cluster. |
        | ``unschedulable`` | The run waits until an image can be pulled. |
        | ``initialising`` | The orchestrator sets the run up. |
        | ``running`` | Components run. |
        | ``waiting_on_resource`` | A component waits for resources. |
        | ``suspended`` | The components are suspended. |
        | ``component_shutdown`` | Components are being stopped. |
        | ``finished`` | The run is about to end. It is not known yet how. |
        | ``succeeded`` | The run has ended with success. |
        | ``failed`` | The set-up, a component or the orchestrator failed. |
        | ``stopped`` | A user stopped the run. |
        | ``deleted`` | The run was deleted, or never existed. |

        A word that this client does not know is shown unchanged. `Item.state` has the same words for the ends of
        runs, and words of its own for launches.
        """
        return "deleted" if self.is_deleted else self._last_state

    @property
    def _last_state(self) -> str:
        """The state, or the last one if the run was deleted."""
        exit_status = (self.exit_status or "").casefold()
        if self._over and not self.is_deleted and exit_status not in FINAL_EXITS:
            return "failed"
        if exit_status in FINAL_EXITS and (self.is_final or exit_status != "success"):
            return "succeeded" if exit_status == "success" else exit_status
        state = self.experiment_state or ExperimentState.EMPTY
        return str(state.casefold() if state.is_known else state) or NO_STATUS

    @property
    def pair(self) -> tuple[str | None, str | None]:
        """``(experiment_state, exit_status)``, which decide whether the run is over."""
        return self.experiment_state, self.exit_status

    @computed_field  # type: ignore[prop-decorator]
    @property
    def is_final(self) -> bool:
        """Whether the run is over."""
        return self._over or is_final(self.pair)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def is_success(self) -> bool:
        """Whether the run is over and its exit-status is Success."""
        return self.is_final and self.exit_status == ExitStatus.SUCCESS

    @property
    def is_pending(self) -> bool:
        """Whether the service has no status of the instance yet."""
        return self.experiment_state is None

    @computed_field  # type: ignore[prop-decorator]
    @property
    def is_deleted(self) -> bool:
        """Whether the instance was deleted or is unknown to the service; then this is its last known status."""
        return self._deleted

    # Without the type, pydantic would read the docstrings of `Hint`, and so the source of its module.
    @computed_field(return_type=dict[str, str | None] | None)  # type: ignore[prop-decorator]
    @property
    def hint(self) -> Hint | None:
        """Why the run does not run and what to do about it; None while it runs normally, and after Success."""
        text = self.error_description or self._text_instead_of_status
        if self.is_deleted:
            return Hint(Reason.DELETED, text)
        return explain(self.experiment_state, self.exit_status, self.stage_state, text)

    @field_serializer("hint")
    def _hint_as_object(self, hint: Hint | None) -> dict[str, str | None] | None:
        return None if hint is None else {"reason": hint.reason.value, "advice": hint.advice, "text": hint.text}

    @property
    def _text_instead_of_status(self) -> str | None:
        texts = (self.raw.get(key) for key in _INSTEAD_OF_STATUS) if self.is_pending else ()
        return next((text for text in texts if isinstance(text, str)), None)

    def __str__(self) -> str:
        state = self._last_state
        then = f", {self.current_stage}" if state == ExperimentState.RUNNING and self.current_stage else ""
        text = (self.hint.gist if self.hint else self.error_description) if self.error_description else None
        reason = f": {shorten(text, MAX_ERROR_LENGTH)}" if text else ""
        return shorten(f"{'deleted, last seen ' if self.is_deleted else ''}{state}{then}{reason}")

    def __repr__(self) -> str:
        return _repr(self, f", rest_uid={self.rest_uid!r}" if self.rest_uid else "")

    def _card(self) -> Card:
        return status_card(self)


def _repr(status: Status, more: str = "") -> str:
    return f"{type(status).__name__}({shorten(str(status), MAX_REPR_LENGTH - 10 - len(more))!r}{more})"


S = TypeVar("S", bound=Status)


def of_run(status: S, rest_uid: str | None) -> S:
    """Set the rest-uid of a status, and return the status."""
    if rest_uid is not None:
        status.__dict__["rest_uid"] = rest_uid
        status.__pydantic_fields_set__.add("rest_uid")
    return status


def status_card(status: Status, rest_uid: str = "") -> Card:
    """Return the card of a status, or of the run with this rest-uid."""
    from .._render.cards import Card, facts_of, joined  # not imported with the package: most programs show nothing

    stage = status.current_stage or ""
    if status.stages and stage in status.stages:
        stage = f"{stage} ({status.stages.index(stage) + 1} of {len(status.stages)})"
    variables = status.meta.user_variables.get("global") if status.meta else None
    facts = {
        "state": joined([status.experiment_state, status.exit_status]),
        "stage": stage,
        "variables": joined(f"{name} = {value}" for name, value in _items(variables)),
        "platform": status.meta.platform if status.meta else None,
    }
    summary, hint = status_summary(status), status.hint
    kind = "run" if rest_uid else "status"
    card = Card(rest_uid, kind=kind, badge=summary.badge, bar=summary.bar, facts=facts_of(facts))
    return card if hint is None else with_hint(card, hint, summary.badge.tone)


def statuses_card(statuses: Mapping[str, Status], noun: str = "run") -> Card:
    """Return the card of several runs: how many are in each state, and a table of them by name."""
    from .._render.cards import summaries_card

    return summaries_card(noun, {name: status_summary(status) for name, status in statuses.items()})


def status_summary(status: Status) -> Summary:
    """Return the row of the run in a table of many."""
    from .._render.cards import Badge, Bar, Summary, Tone

    hint, bar = status.hint, None
    if hint is None:
        tone = Tone.GOOD if status.is_success else Tone.BUSY
    elif hint.reason in (Reason.DELETED, Reason.STOPPED):
        tone = Tone.QUIET
    elif status.is_final or hint.reason not in WAITING:
        tone = Tone.BAD
    else:
        tone = Tone.STUCK if hint.reason in STUCK else Tone.WAITING
    share = 1.0 if status.is_success else status.total_progress or 0.0
    # The service reports a progress of 0 for runs that wait or failed: a bar would say nothing.
    if not status.is_deleted and (share > 0 or tone is Tone.BUSY):
        bar = Bar(min(max(0.0, share), 1.0), tone)
    reason = "" if hint is None else hint.gist or (hint.advice if tone is Tone.BAD else "")
    return Summary(Badge(status.state, tone), bar, reason)


def _items(value: Any) -> Iterable[tuple[Any, Any]]:
    return value.items() if isinstance(value, dict) else ()


def is_same_item(one: Any, other: Any) -> bool:
    """Return whether two raw statuses are equal. Compares ``meta`` last: it is most of a status, and rarely changes."""
    if isinstance(one, dict) and isinstance(other, dict):
        for name, value in one.items():
            if name != _LARGE and value != other.get(name):
                return False
    return bool(one == other)


def _differs(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Return whether a small field of the first has another content in the second: a check before the whole one."""
    for name, value in one.items():
        if name == _LARGE or value == (then := other.get(name)):
            continue
        if name not in _INSTEAD_OF_STATUS and (value or value == 0 or then or then == 0):
            return True
    return False


def _content(raw: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in raw.items() if (value or value == 0) and name not in _INSTEAD_OF_STATUS}


class Instance(Displayable, Reply):
    """
    All that the service keeps of one execution of an experiment.

    Source: ``GET instances/`` and ``GET instances/{id}`` of the runtime service. The list does not query the cluster,
    so it does not show that a run waits or failed to start; `Client.status` does.
    """

    id: Annotated[str, AfterValidator(check_rest_uid)]
    """rest-uid; an instance with an invalid rest-uid is left out of lists."""
    status: Status = Field(default_factory=Status.pending)
    """Status; pending if the service has none."""
    outputs: Annotated[dict[str, KeyOutput], NullAsDict] = {}
    """Key-outputs that exist, by name."""
    labels: JsonObject = Field(default={}, alias="k8s-labels")
    """Labels in the cluster: rest-uid, workflow, name and digest of the experiment."""
    experiment: Experiment | None = None
    """Experiment; None if it was deleted since."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.id!r}, {_repr(self.status)})"

    def _card(self) -> Card:
        from .._render.cards import facts_of, joined

        card = status_card(self.status, self.id)
        more = {"experiment": self.experiment, "outputs": joined(self.outputs)}
        return replace(card, kind="instance", facts=(*facts_of(more), *card.facts))

    @property
    def property_table(self) -> dict[str, list[Any]] | None:
        """Measured properties, column -> values; None if they were not requested."""
        table = self.experiment.metadata.registry.interface.raw.get("propertyTable") if self.experiment else None
        return table if isinstance(table, dict) else None

    @field_validator("status", mode="before")
    @classmethod
    def _no_status(cls, value: Any) -> Any:
        if isinstance(value, Status):
            return value.model_copy()  # the caller's own has no rest-uid
        return {} if value is None else value

    @model_validator(mode="after")
    def _name_run(self) -> Self:
        of_run(self.status, self.id)
        return self

    @model_validator(mode="before")
    @classmethod
    def _no_experiment(cls, value: Any) -> Any:
        if isinstance(value, dict) and value.get("experiment") == {}:
            return {**value, "experiment": None}
        return value


class Instances(list[Instance], Displayable):
    """The instances of a deployment. A notebook shows them as a table."""

    def _card(self) -> Card:
        return statuses_card({instance.id: instance.status for instance in self}, "instance")
