"""
Lives of runs as they were recorded, to be played again word for word.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

from st4sd_async.local.engine.instance_files import NO_STATUS
from st4sd_async.local.simulator.sequences import Moment, Recorded

Status = Mapping[str, Any] | None
Row = tuple[float, Status] | tuple[float, Status, Status]
"""Seconds since the run got its slot; what a request for the run shows from then on, and what the list shows."""

_STATES = ("finished", "failed")
_EXITS = ("Success", "Failed", "Stopped")


def script(rows: Sequence[Row]) -> tuple[Moment, ...]:
    """
    The sequence that shows some rows.

    The key-outputs are there while the exit-status is ``Success``; the run has given its place to the next
    one at the last row in which both of the final words stand.

    Raises:
        ValueError: There are no rows, one is malformed, or their times do not rise from 0.
    """
    moments = [_moment(row) for row in rows]
    if not moments or moments[0].at != 0:
        raise ValueError(f"a life must begin with a row at 0 s, not with {rows[0] if rows else 'nothing'!r}")
    for before, after in pairwise(moments):
        if after.at <= before.at:
            raise ValueError(f"the times of a life must rise, but {after.at!r} s comes after {before.at!r} s")
    final = [index for index, row in enumerate(rows) if _is_final(row[1])]
    if final:
        moments[final[-1]] = replace(moments[final[-1]], over=True)
    return tuple(moments)


def _moment(row: Row) -> Moment:
    if not isinstance(row, Sequence) or len(row) not in (2, 3):
        raise ValueError(f"a row must be (seconds, status) or (seconds, status, listed), not {row!r}")
    at, detail, listed = row[0], row[1], row[-1]
    if not isinstance(at, int | float) or not math.isfinite(at):
        raise ValueError(f"a row must begin with seconds, not with {at!r}")
    for status in (detail, listed):
        _check(status)
    outputs = detail is not None and detail.get("exit-status") == "Success"
    return Moment(float(at), Recorded(detail), Recorded(listed), outputs)


def _check(status: Status) -> None:
    if status is None:
        return
    if not isinstance(status, Mapping):
        raise ValueError(f"a status must be a mapping or None, not {status!r}")
    for key in status:
        if key not in NO_STATUS:
            raise ValueError(f"a status has no {key!r}: there are {', '.join(NO_STATUS)}")


def _is_final(status: Status) -> bool:
    return status is not None and status.get("experiment-state") in _STATES and status.get("exit-status") in _EXITS
