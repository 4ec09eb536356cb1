"""What the service says about an instance: its status, and all it keeps of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self

from pydantic import AfterValidator, AliasChoices, BeforeValidator, Field, PrivateAttr, field_validator, model_validator

from .._render.displayable import Displayable
from .._util.printable import MAX_REPR_LENGTH, shorten
from ._base import Reply, Word
from .finality import FINAL_EXITS, is_final
from .hints import STUCK, WAITING, Hint, Reason, explain, with_hint, with_lines
from .outputs import KeyOutput
from .packages import Experiment
from .rest_uid import check_rest_uid

if TYPE_CHECKING:
    from .._render.cards import Card, Summary

_IN_PLACE = ("warning", "message")
"""Keys of what the service says in place of a status."""
LONGEST_WHY = 120
"""Characters of an error's text beside a state on one line."""


class ExperimentState(Word):
    """Where an instance is in its life, as the orchestrator or the service reports it."""

    UNSCHEDULED = "unscheduled"
    """Waits for resources; may resolve."""
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
    """Over, successful or not: see the exit-status."""
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


class StageState(Word):
    """The state of the active stage with the lowest index."""

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
    """The service writes the string "None" before the first stage starts."""
    return None if value in ("None", "") else value


def _mapping(value: Any) -> Any:
    return {} if value is None else value


_Name = Annotated[str | None, BeforeValidator(_absent)]
_Names = Annotated[list[str], BeforeValidator(lambda value: [] if value is None else value)]
_Table = Annotated[dict[str, Any], BeforeValidator(_mapping)]


class Meta(Reply):
    """What the orchestrator says of itself once it has written its first status."""

    arguments: str | None = None
    """Command line of the orchestrator."""
    data: _Names = []
    """Files that override data files of the package."""
    input: _Names = Field(default=[], validation_alias=AliasChoices("inputs", "input"))
    """Input files, as paths inside the instance's pod."""
    pid: int | None = None
    """Process id of the orchestrator."""
    platform: str | None = None
    """Platform on which the experiment executes."""
    user_variables: _Table = Field(default={}, alias="userVariables")
    """Variables that the user gave: ``{"global": {name: value}, "stages": {index: {name: value}}}``, values as text."""
    variables: _Table = {}
    """Variables in force, in the same shape."""
    hybrid_platform: str | None = Field(default=None, alias="hybridPlatform")
    """Hybrid platform for LSF, if any."""
    user_metadata: _Table = Field(default={}, alias="userMetadata")
    """The ``metadata`` of the start payload, and what the service added to it."""
    instance_name: str | None = Field(default=None, alias="instanceName")
    """Name of the instance's directory."""
    version: str | None = None
    """Version of the orchestrator."""


class Status(Displayable, Reply):
    """
    How an instance is doing, at one moment.

    Before the service has a status, every field is None and `is_pending` is True. One reply proves
    the end only if both ``experiment_state`` and ``exit_status`` are final; `Client.watch` and
    `Client.wait` also judge by time, and the last status they give has `is_final` True.

    Source: ``GET instances/{id}/status`` of the runtime service.
    """

    # Without one of these it would say that the run is pending or about to end, so it is an error instead.
    _vital: ClassVar[frozenset[str]] = frozenset({"experiment-state", "exit-status"})

    experiment_state: ExperimentState | None = Field(default=None, alias="experiment-state")
    """Where the instance is in its life."""
    exit_status: ExitStatus | None = Field(default=None, alias="exit-status")
    """How it ended; ``N/A`` while it runs."""
    stage_state: StageState | None = Field(default=None, alias="stage-state")
    """State of the active stage with the lowest index."""
    current_stage: _Name = Field(default=None, alias="current-stage")
    """Name of a stage; not reliable: mostly the highest started one. None before the first."""
    stages: list[str] | None = None
    """Names of the stages, in order."""
    total_progress: float | None = Field(default=None, alias="total-progress")
    """0 to 1; mostly stays 0 until the end."""
    stage_progress: float | None = Field(default=None, alias="stage-progress")
    """0 to 1, of the active stage."""
    error_description: str | None = Field(default=None, alias="error-description")
    """Why it failed, or what it waits for, with real line breaks; its text changes between polls."""
    meta: Meta | None = None
    """What the orchestrator says of itself; None until it has written its first status."""

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

    @field_validator("error_description")
    @classmethod
    def _with_lines(cls, value: str | None) -> str | None:
        return with_lines(value) if value else value

    @classmethod
    def pending(cls, raw: Mapping[str, Any] | None = None) -> Self:
        """A status for an instance that has none yet; ``raw`` is what came instead."""
        status = cls()
        status._raw = dict(raw or {})
        return status

    def concluded(self, *, deleted: bool = False) -> Self:
        """This status with the verdict that the run is over (and, if so, deleted)."""
        status = self.model_copy()
        status._over, status._deleted = True, deleted
        return status

    def says_like(self, other: Status) -> bool:
        """Whether both say the same of the run, however it is written: a list has null for what is not there."""
        return self is other or _facts(self.raw) == _facts(other.raw)

    @property
    def pair(self) -> tuple[str | None, str | None]:
        """The two words that decide about the end."""
        return self.experiment_state, self.exit_status

    @property
    def is_final(self) -> bool:
        """Whether the run is over."""
        return self._over or is_final(self.pair)

    @property
    def is_success(self) -> bool:
        """Whether the run is over and its exit-status is Success."""
        return self.is_final and self.exit_status == ExitStatus.SUCCESS

    @property
    def is_pending(self) -> bool:
        """Whether the service has no status of the instance yet."""
        return self.experiment_state is None

    @property
    def is_deleted(self) -> bool:
        """Whether the instance was deleted, or is not known to the service; this is its last known status then."""
        return self._deleted

    @property
    def hint(self) -> Hint | None:
        """Why it does not run, and what to do about it; None while it runs as it should, and after Success."""
        text = self.error_description or self._in_place_of_a_status
        if self.is_deleted:
            return Hint(Reason.DELETED, text)
        return explain(self.experiment_state, self.exit_status, self.stage_state, text)

    @property
    def _in_place_of_a_status(self) -> str | None:
        words = (self.raw.get(key) for key in _IN_PLACE) if self.is_pending else ()
        return next((word for word in words if isinstance(word, str)), None)

    def __str__(self) -> str:
        state = str(self.experiment_state or "") or "no status yet"
        is_running = self.experiment_state == ExperimentState.RUNNING and self.exit_status == ExitStatus.NOT_AVAILABLE
        word = self.current_stage if is_running and self.current_stage else self.exit_status
        then = f", {word}" if word else ""
        told = (self.hint.gist if self.hint else self.error_description) if self.error_description else None
        why = f": {shorten(told, LONGEST_WHY)}" if told else ""
        return shorten(f"{'deleted, last seen ' if self.is_deleted else ''}{state}{then}{why}")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({shorten(str(self), MAX_REPR_LENGTH - 10)!r})"

    def _card(self, rest_uid: str = "") -> Card:
        from .._render.cards import Card, facts_of, joined  # not with the package: most programs show nothing

        stage = self.current_stage or ""
        if self.stages and stage in self.stages:
            stage = f"{stage} ({self.stages.index(stage) + 1} of {len(self.stages)})"
        variables = self.meta.user_variables.get("global") if self.meta else None
        facts = {
            "state": joined([self.experiment_state, self.exit_status]),
            "stage": stage,
            "variables": joined(f"{name} = {value}" for name, value in _items(variables)),
            "platform": self.meta.platform if self.meta else None,
        }
        summary, hint = self._summary(), self.hint
        kind = "run" if rest_uid else "status"
        card = Card(rest_uid, kind=kind, badge=summary.badge, bar=summary.bar, facts=facts_of(facts))
        return card if hint is None else with_hint(card, hint, summary.badge.tone)

    def _summary(self) -> Summary:
        """Return what to show of the run among many."""
        from .._render.cards import Badge, Bar, Summary, Tone

        hint, bar = self.hint, None
        if hint is None:
            tone = Tone.GOOD if self.is_success else Tone.BUSY
        elif hint.reason in (Reason.DELETED, Reason.STOPPED):
            tone = Tone.QUIET
        elif self.is_final or hint.reason not in WAITING:
            tone = Tone.BAD
        else:
            tone = Tone.STUCK if hint.reason in STUCK else Tone.WAITING
        has_ended = (self.exit_status or "").casefold() in FINAL_EXITS and tone is not Tone.BUSY
        state = (self.exit_status if has_ended else self.experiment_state) or "no status yet"
        share = 1.0 if self.is_success else self.total_progress or 0.0
        # The service reports a progress of 0 for runs that wait or failed: a bar would say nothing.
        if not self.is_deleted and (share > 0 or tone is Tone.BUSY):
            bar = Bar(min(max(0.0, share), 1.0), tone)
        reason = "" if hint is None else hint.gist or (hint.advice if tone is Tone.BAD else "")
        return Summary(Badge("deleted" if self.is_deleted else str(state), tone), bar, reason)


def _items(value: Any) -> Iterable[tuple[Any, Any]]:
    return value.items() if isinstance(value, dict) else ()


def _facts(raw: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in raw.items() if (value or value == 0) and name not in _IN_PLACE}


class Instance(Reply):
    """
    All the service keeps of one execution of an experiment.

    Source: ``GET instances/`` and ``GET instances/{id}`` of the runtime service. The list never
    consults the cluster: it shows neither waiting nor start-up failures, `Client.status` does.
    """

    id: Annotated[str, AfterValidator(check_rest_uid)]
    """The rest-uid; an instance whose id does not have the form of one is not read."""
    status: Status = Field(default_factory=Status.pending)
    """How it is doing; pending when the service has no status."""
    outputs: Annotated[dict[str, KeyOutput], BeforeValidator(_mapping)] = {}
    """Key-outputs that exist by now, by name."""
    labels: _Table = Field(default={}, alias="k8s-labels")
    """Labels of the instance: rest-uid, workflow, name and digest of the experiment."""
    experiment: Experiment | None = None
    """The experiment's definition; None if it was deleted since."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.id!r}, {self.status!r})"

    @property
    def property_table(self) -> dict[str, list[Any]] | None:
        """Measured properties, column -> values, if they were asked for; None if not."""
        table = self.experiment.metadata.registry.interface.raw.get("propertyTable") if self.experiment else None
        return table if isinstance(table, dict) else None

    @field_validator("status", mode="before")
    @classmethod
    def _no_status(cls, value: Any) -> Any:
        return {} if value is None else value

    @model_validator(mode="before")
    @classmethod
    def _no_experiment(cls, value: Any) -> Any:
        if isinstance(value, dict) and value.get("experiment") == {}:
            return {**value, "experiment": None}
        return value
