"""
What the service shows in the course of a run, for every course a run was seen (or can be read) to take.

All of it is data: a sequence is a list of moments, each with what a detail request and what the list shows
from then on. The times are those of a short run, in virtual seconds from the moment it is scheduled.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from st4sd_async.local.engine.instance_files import FROM_CLUSTER, NO_STATUS

NO_POD = 0.3
"""Seconds from the start of a run until the cluster knows of it."""
_NOT_CLONED = (
    "initContainer failure: git-sync-package failed with exit code 128 and message "
    "fatal: could not read from remote repository.\n\nPlease make sure you have the correct access rights\n"
    "and the repository exists.\n"
)
IMAGE = "registry.example/st4sd-runtime-core:latest"


@dataclass(frozen=True)
class Reported:
    """A status that the orchestrator wrote."""

    state: str | None = None
    """``experiment-state``."""
    stage_state: str | None = None
    """``stage-state``."""
    exit_status: str | None = None
    """``exit-status``."""
    stage: int | str | None = None
    """``current-stage``: an index into the stages, or the text itself."""
    progress: float = 0.0
    """``total-progress`` and ``stage-progress``."""
    error: str = ""
    """``error-description``; ``{failure}`` stands for that of the package."""
    escaped: bool = False
    """Whether line feeds in the error are two characters, as in the last status that is written."""
    meta: bool = False
    """Whether ``meta`` and ``stages`` are there."""


@dataclass(frozen=True)
class Guessed:
    """A status that the service makes up from what the cluster says about the containers."""

    state: str
    """``experiment-state``."""
    error: str = ""
    """``error-description``."""
    exit_status: str = ""
    """``exit-status``."""
    progress: float = 0.0
    """``total-progress`` and ``stage-progress``."""


@dataclass(frozen=True)
class Recorded:
    """A status that was seen somewhere, to be shown word for word."""

    status: Mapping[str, Any] | None
    """In the words of the wire; what it leaves out is filled in. None: there is no status."""


View = Reported | Guessed | Recorded | None
"""What is shown; None: there is no status yet."""


@dataclass(frozen=True)
class Moment:
    """From a time on, this is shown."""

    at: float
    """Virtual seconds since the run was scheduled."""
    detail: View
    """What a request for this run shows."""
    listed: Reported | Recorded | None = None
    """What the list shows."""
    outputs: bool = False
    """Whether the key-outputs are there."""
    over: bool = False
    """Whether the run has given its place to the next one."""


def _both(at: float, view: Reported, **more: Any) -> Moment:
    return Moment(at, view, view, **more)


def _later(seconds: float, moments: Sequence[Moment]) -> tuple[Moment, ...]:
    return tuple(replace(moment, at=moment.at + seconds) for moment in moments)


EMPTY = Reported()
UNSCHEDULED = Guessed(
    "unscheduled",
    "Workflow scheduler is unscheduled, reason: 0/1 nodes are available: 1 Insufficient cpu. "
    "preemption: 0/1 nodes are available.",
)
_INITIALISING = Reported("Initialising", "Initialising", "N/A", "None", meta=True)
_FIRST = Reported("running", "running", "N/A", 0, meta=True)
_RUNNING = Reported("running", "running", "N/A", -1, meta=True)
_EXITED = Reported("running", "finished", "Success", -1, progress=1.0, meta=True)
_ENDED = Reported("finished", "finished", "N/A", -1, progress=1.0, meta=True)
_SUCCESS = Reported("finished", "finished", "Success", -1, progress=1.0, meta=True)
_FAILING = Reported("running", "failed", "Failed", -1, error="{failure}", meta=True)
_FAILED = Reported("finished", "failed", "Failed", -1, error="{failure}", escaped=True, meta=True)
_STOPPED = Reported("finished", "failed", "Stopped", -1, error="Killed by user signal", meta=True)
_NOT_SET_UP = Reported(
    "failed",
    "Initialising",
    "Failed",
    "None",
    error="During argument parsing of sys-args, ran into BadOptionError no such option: --no-such-option",
)
_NO_IMAGE = Guessed("failed", f"initContainer failure: failed to pull image {IMAGE}")

_BEGINNING = (Moment(0.0, None), _both(NO_POD, EMPTY))
_WORK = (_both(1.0, _INITIALISING), _both(1.5, _FIRST), _both(2.0, _RUNNING))
_GOOD_END = (_both(4.0, _EXITED, outputs=True), _both(5.0, _SUCCESS, outputs=True, over=True))

SEQUENCES: dict[str, tuple[Moment, ...]] = {
    # The normal life; exit-status is final a moment before experiment-state.
    "success": (*_BEGINNING, *_WORK, *_GOOD_END),
    # The other order of the two final values.
    "state-first": (
        *_BEGINNING,
        *_WORK,
        _both(4.0, _ENDED, outputs=True),
        _both(5.0, _SUCCESS, outputs=True, over=True),
    ),
    # A component exits with an error: the orchestrator itself finishes well.
    "component-failure": (*_BEGINNING, *_WORK, _both(4.0, _FAILING), _both(5.0, _FAILED, over=True)),
    # The orchestrator refuses its arguments, or the package is invalid.
    "setup-failure": (*_BEGINNING, _both(1.0, _NOT_SET_UP, over=True)),
    # The cluster is full for a while.
    "unscheduled": (
        Moment(0.0, None),
        Moment(NO_POD, UNSCHEDULED, EMPTY),
        _both(3.0, EMPTY),
        *_later(3.0, (*_WORK, *_GOOD_END)),
    ),
    # An init container cannot clone the package; nothing follows.
    "init-failure": (
        *_BEGINNING,
        Moment(
            1.0,
            Guessed("failed", _NOT_CLONED),
            EMPTY,
            over=True,
        ),
    ),
    # The container of the orchestrator is killed while all is well; the list never knows.
    "killed": (
        *_BEGINNING,
        *_WORK,
        Moment(3.0, Guessed("Failed", "elaunch-primary exitCode: 137, reason: OOMKilled"), _RUNNING, over=True),
    ),
    # An image cannot be pulled at first; between two tries the service forgets about it.
    "image-pull": (
        *_BEGINNING,
        Moment(0.6, _NO_IMAGE, EMPTY),
        _both(1.2, EMPTY),
        Moment(1.8, _NO_IMAGE, EMPTY),
        _both(2.4, EMPTY),
        *_later(2.0, (*_WORK, *_GOOD_END)),
    ),
    # The cluster has given up pulling an image, until an administrator repairs it.
    "unschedulable": (
        *_BEGINNING,
        Moment(0.6, Guessed("unschedulable", f"Unable to pull image {IMAGE}"), EMPTY),
        _both(3.0, EMPTY),
        *_later(3.0, (*_WORK, *_GOOD_END)),
    ),
    # The container is killed after a component failed; as there is an error, nobody looks at containers.
    "killed-after-failure": (
        *_BEGINNING,
        *_WORK,
        _both(3.0, _FAILING),
        _both(3.5, _FAILING, over=True),
    ),
    # The container that reports the status never starts; the service says at the end what it knows.
    "monitor-stuck": (
        *_BEGINNING,
        Moment(5.0, Guessed("finished", exit_status="Success", progress=1.0), EMPTY, over=True),
    ),
    # A component never ends.
    "stuck": (*_BEGINNING, *_WORK),
    # The orchestrator is told to stop, and does.
    "stopped": (*_BEGINNING, *_WORK, _both(4.0, _STOPPED, over=True)),
}
"""The name of an outcome -> its sequence."""


def not_begun(text: str) -> tuple[Moment, ...]:
    """The life of a run before which an init container failed."""
    return (*_BEGINNING, Moment(1.0, Guessed("failed", f"initContainer failure: {text}"), EMPTY, over=True))


def not_set_up(text: str) -> tuple[Moment, ...]:
    """The life of a run that the orchestrator gives up before it begins."""
    return (*_BEGINNING, _both(1.0, replace(_NOT_SET_UP, error=text), over=True))


def moment(sequence: Sequence[Moment], seconds: float, stretch: float = 1.0) -> Moment:
    """The moment of a sequence that holds some seconds after the run was scheduled."""
    past = bisect_right(sequence, seconds, key=lambda candidate: candidate.at * stretch)
    return sequence[max(0, past - 1)]


def duration(sequence: Sequence[Moment], stretch: float = 1.0) -> float:
    """Seconds until a run gives its place to the next one; infinite if it never does."""
    return next((candidate.at * stretch for candidate in sequence if candidate.over), float("inf"))


def written(view: View, stages: list[str], meta: dict[str, Any], failure: str) -> dict[str, Any] | None:
    """A view in the words and the order of the wire; None if there is no status yet."""
    if view is None:
        return None
    if isinstance(view, Recorded):
        return None if view.status is None else _filled(view.status, stages, meta)
    if isinstance(view, Guessed):
        words = {"experiment-state": view.state, "exit-status": view.exit_status, "error-description": view.error}
        return {**FROM_CLUSTER, **words, "stage-progress": view.progress, "total-progress": view.progress}
    error = view.error.replace("{failure}", failure)
    return {
        "experiment-state": view.state,
        "stage-state": view.stage_state,
        "stages": stages if view.meta else [],
        "current-stage": stages[view.stage] if isinstance(view.stage, int) else view.stage,
        "exit-status": view.exit_status,
        "meta": meta if view.meta else None,
        "total-progress": view.progress,
        "stage-progress": view.progress,
        "error-description": error.replace("\n", "\\n") if view.escaped else error,
    }


def _filled(status: Mapping[str, Any], stages: list[str], meta: dict[str, Any]) -> dict[str, Any]:
    """A recorded status with what it leaves out as it is in such a state."""
    state = status.get("experiment-state")
    if status.get("exit-status") == "" or state in (UNSCHEDULED.state, "unschedulable"):
        return {**FROM_CLUSTER, **status}
    # Neither before the first status nor after a failure at set-up is there a meta.
    known = {} if state in (None, "failed") else {"stages": stages, "meta": meta}
    return {**NO_STATUS, **known, **status}
