"""
The statuses of simulated runs over time: named outcomes from ``outcomes.json``, or statuses that a user recorded.

To add an outcome, add it to ``outcomes.json``, to the docstring of `LocalServer.outcome`, and to the table in
``tests/local/simulator/test_simulator.py``. Times are virtual seconds since the run was scheduled; runs are short.
Each moment has the status in responses about the run from then on and, if it differs, the status in the list.

Statuses have the keys of the service; `complete_status` adds missing keys with the values of recorded runs. It replaces
the values "{first stage}", "{last stage}", "{failure}" (the error description of a failed component of the package)
and "{escaped failure}" (the same with ``\\n`` for line feeds, as in the last status that the orchestrator writes).
"""

from __future__ import annotations

import json
import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

from st4sd_async.local.engine.instance_files import FROM_CLUSTER, NO_STATUS

Status = Mapping[str, Any] | None
"""A status. None means that the run has no status yet."""
Row = tuple[float, Status] | tuple[float, Status, Status]
"""Seconds since the run was scheduled; the status of the run from then on; the status in the list if it differs."""

_STOPPED = "Killed by user signal"
_FINAL_STATES = ("finished", "failed")
_FINAL_EXIT_STATUSES = ("Success", "Failed", "Stopped")


@dataclass(frozen=True)
class Moment:
    """The status of a run from some time on."""

    at: float
    """Virtual seconds since the run was scheduled."""
    status: Status
    """The status in responses about the run."""
    listed: Status
    """The status in the list of instances."""
    has_outputs: bool = False
    """Whether the key-outputs exist."""
    releases_slot: bool = False
    """Whether the run releases its slot."""
    is_recorded: bool = False
    """Whether a user recorded the status, which is then shown literally, even if it is None."""


Outcome = tuple[Moment, ...]
"""Moments in the order of time; the first one is at 0 s."""


@cache
def named_outcomes() -> Mapping[str, Outcome]:
    """Return the outcomes of ``outcomes.json`` by name."""
    data = json.loads(Path(__file__).with_suffix(".json").read_text(encoding="utf-8"))
    statuses: dict[str, Status] = data["statuses"]

    def moment(*, status: str, listed: str | None = None, **fields: Any) -> Moment:
        return Moment(status=statuses[status], listed=statuses[listed or status], **fields)

    return {name: tuple(moment(**entry) for entry in value["moments"]) for name, value in data["outcomes"].items()}


def parse_outcome(outcome: str | Sequence[Row]) -> Outcome:
    """
    Return a named outcome, or the outcome of recorded rows.

    Key-outputs exist while the exit-status is ``Success``. The run releases its slot at the last row with a final
    experiment-state and a final exit-status.

    Raises:
        ValueError: The name is unknown, there are no rows, a row is malformed, or the times do not rise from 0.
    """
    if isinstance(outcome, str):
        if outcome not in named_outcomes():
            raise ValueError(f"no outcome {outcome!r}: use one of {', '.join(named_outcomes())}, or rows of statuses")
        return named_outcomes()[outcome]
    moments = [_parse_row(row) for row in outcome]
    if not moments or moments[0].at != 0:
        raise ValueError(f"the first row must be at 0 s, got {outcome[0] if outcome else 'no rows'!r}")
    for before, after in pairwise(moments):
        if after.at <= before.at:
            raise ValueError(f"the times of rows must rise, but {after.at!r} s comes after {before.at!r} s")
    final = [index for index, moment in enumerate(moments) if _is_final(moment.status)]
    if final:
        moments[final[-1]] = replace(moments[final[-1]], releases_slot=True)
    return tuple(moments)


def with_error(name: str, description: str) -> Outcome:
    """Return a named outcome with another error description in its last moment."""
    *before, last = named_outcomes()[name]
    status = {**(last.status or {}), "error-description": description}
    listed = status if last.listed is last.status else last.listed
    return (*before, replace(last, status=status, listed=listed))


def current_moment(outcome: Outcome, seconds: float, stretch: float = 1.0) -> Moment:
    """Return the current moment of a run that was scheduled this many seconds ago."""
    past = bisect_right(outcome, seconds, key=lambda moment: moment.at * stretch)
    return outcome[max(0, past - 1)]


def duration(outcome: Outcome, stretch: float = 1.0) -> float:
    """Return the seconds from scheduling until the run releases its slot; infinity if it never does."""
    return next((moment.at * stretch for moment in outcome if moment.releases_slot), math.inf)


def complete_status(status: Status, stages: list[str], meta: dict[str, Any], failure: str) -> dict[str, Any] | None:
    """Return a status with all keys of the service, in the service's order; None if there is no status yet."""
    if status is None:
        return None
    placeholders = {
        "{first stage}": stages[0],
        "{last stage}": stages[-1],
        "{failure}": failure,
        "{escaped failure}": failure.replace("\n", "\\n"),
    }
    values = {key: placeholders.get(value, value) if isinstance(value, str) else value for key, value in status.items()}
    state = values.get("experiment-state")
    if "" in (values.get("exit-status"), values.get("stage-state")) or state in ("unscheduled", "unschedulable"):
        return {**FROM_CLUSTER, **values}
    # A run has no meta before its first status, or if it failed at set-up.
    known = {} if state in (None, "failed") else {"stages": stages, "meta": meta}
    return {**NO_STATUS, **known, **_usual_values(state, values.get("exit-status"), stages[-1], failure), **values}


def _usual_values(state: str | None, exit_status: str | None, last_stage: str, failure: str) -> dict[str, Any]:
    """Return the other values that the orchestrator writes in this state, as in recorded runs."""
    if state is None:
        return {}
    if state in ("Initialising", "failed"):
        usual_exit = "N/A" if state == "Initialising" else "Failed"
        return {"stage-state": "Initialising", "exit-status": usual_exit, "current-stage": "None"}
    usual = {"stage-state": state, "exit-status": "N/A", "current-stage": last_stage}
    if exit_status in ("Failed", "Stopped"):
        # The last status has line feeds escaped once more.
        text = failure if state == "running" else failure.replace("\n", "\\n")
        return {**usual, "stage-state": "failed", "error-description": text if exit_status == "Failed" else _STOPPED}
    if exit_status == "Success" or state == "finished":
        return {**usual, "stage-state": "finished", "total-progress": 1.0, "stage-progress": 1.0}
    return usual


def _parse_row(row: Row) -> Moment:
    if not isinstance(row, Sequence) or len(row) not in (2, 3):
        raise ValueError(f"a row must be (seconds, status) or (seconds, status, listed), not {row!r}")
    at, status, listed = row[0], row[1], row[-1]
    if not isinstance(at, int | float) or not math.isfinite(at):
        raise ValueError(f"a row must begin with seconds, not with {at!r}")
    for value in (status, listed):
        _check_status(value)
    has_outputs = status is not None and status.get("exit-status") == "Success"
    return Moment(float(at), status, listed, has_outputs, is_recorded=True)


def _check_status(status: Status) -> None:
    if status is None:
        return
    if not isinstance(status, Mapping):
        raise ValueError(f"a status must be a mapping or None, not {status!r}")
    for key in status:
        if key not in NO_STATUS:
            raise ValueError(f"a status has no {key!r}; its keys are {', '.join(NO_STATUS)}")


def _is_final(status: Status) -> bool:
    return (
        status is not None
        and status.get("experiment-state") in _FINAL_STATES
        and status.get("exit-status") in _FINAL_EXIT_STATUSES
    )
