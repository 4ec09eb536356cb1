"""``st4sd-async status`` and ``watch``: how runs are doing."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import aclosing
from typing import Annotated, Any

import typer

from .._errors import WaitTimeout
from ..models import Status
from ..models.hints import Reason
from ._board import Board, Rank, Row, is_live, shown
from ._connect import Here, Json, RunIds, each, rest_uids
from ._exits import Exit, complain
from ._print import print_document, print_line, print_table
from ._words import COMMAND, way_back

COLUMNS = ("rest-uid", "experiment-state", "exit-status", "progress", "why")
WAITING = {Reason.PENDING, Reason.INITIALISING, Reason.UNSCHEDULED, Reason.WAITING_ON_RESOURCE}
"""Reasons for which a run does not run yet, and will."""

Timeout = Annotated[
    float | None,
    typer.Option(min=0, metavar="SECONDS", help="Stop waiting after that; the runs go on.  [default: never]"),
]
Interval = Annotated[
    float | None,
    typer.Option(metavar="SECONDS", help="Pause between two looks.  [default: 0.5 to 30, as things move]"),
]


async def status(here: Here, runs: RunIds, as_json: Json = False) -> Exit:
    """
    Tell how runs are doing, and why.

    With --json one list with an object for each run.
    """
    found, worst = await each(rest_uids(runs), here.client.status)
    if found or as_json:
        report(found.items(), as_json=as_json)
    return max(worst, exit_status(found.values()))


async def watch(
    here: Here, runs: RunIds, timeout: Timeout = None, interval: Interval = None, as_json: Json = False
) -> Exit:
    """
    Watch runs until all are over.

    Hundreds of runs cost the service little more than one. Ctrl-C leaves them alone. With --json a line for each
    change, the final one last.
    """
    order = rest_uids(runs)
    here.ending.farewell = f"the runs go on; {way_back()}"

    def tell(run: str, status: Status) -> None:
        print_line(document(run, status))

    last = await follow(here, order, timeout, interval, tell if as_json else None)
    if not as_json and not (is_live() and sys.stdout.isatty()):
        report(((run, last[run]) for run in order if run in last), as_json=False)
    return exit_status(last.values(), of=len(order))


async def follow(
    here: Here,
    runs: Sequence[str],
    timeout: float | None,
    interval: float | None,
    tell: Callable[[str, Status], None] | None,
) -> dict[str, Status]:
    """
    The last statuses of runs, after all are over or the time is; they are shown meanwhile.

    Args:
        here: The client.
        runs: The runs.
        timeout: Seconds for all of it, None for ever.
        interval: Seconds between two looks, None as things move.
        tell: Told of each change.
    """
    last: dict[str, Status] = {}
    board = Board("run", "run", ("progress",))
    for run in runs:
        board.put(Row(run, "not seen yet", Rank.WAITS, ("-",)))
    with shown(board, is_data_here=tell is not None) as show:
        try:
            async with aclosing(here.client.watch_many(runs, timeout=timeout, interval=interval)) as changes:
                async for one, status in changes:
                    last[one.id] = status
                    show(row(one.id, status))
                    if tell is not None:
                        tell(one.id, status)
            return last
        except WaitTimeout as error:
            left = list(error.last_statuses)
    again = f"come back with: {COMMAND} watch {left[0]}" if len(left) == 1 else way_back()
    complain(f"{len(left)} of {len(runs)} runs are not over after {timeout:g} s and go on; {again}")
    return last


def exit_status(statuses: Iterable[Status], of: int = 0) -> Exit:
    """
    How the command must end on account of runs.

    Args:
        statuses: How they are.
        of: How many there should be that are over.
    """
    order = list(statuses)
    is_bad = any(status.is_final and not status.is_success for status in order)
    return Exit.RUN_FAILED if is_bad or sum(status.is_final for status in order) < of else Exit.DONE


def report(statuses: Iterable[tuple[str, Status]], *, as_json: bool) -> None:
    """Print statuses on standard output."""
    if as_json:
        print_document([document(run, status) for run, status in statuses])
    else:
        print_table(COLUMNS, [cells(run, status) for run, status in statuses])


def cells(run: str, status: Status) -> tuple[object, ...]:
    """A status in the order of `COLUMNS`."""
    return run, state(status), status.exit_status, progress(status), status.hint


def document(run: str, status: Status) -> dict[str, Any]:
    """A status for JSON."""
    return {
        "rest-uid": run,
        "experiment-state": status.experiment_state,
        "exit-status": status.exit_status,
        "stage-state": status.stage_state,
        "current-stage": status.current_stage,
        "total-progress": status.total_progress,
        "error-description": status.error_description,
        "is-final": status.is_final,
        "is-success": status.is_success,
        "is-deleted": status.is_deleted,
        "hint": None if status.hint is None else str(status.hint),
    }


def state(status: Status) -> str:
    """The experiment-state in a word that is never empty."""
    if status.is_deleted:
        return "deleted"
    return "pending" if status.is_pending else str(status.experiment_state) or "-"


def progress(status: Status) -> str:
    """The total-progress, as ``40%``."""
    return f"{status.total_progress or 0.0:.0%}"


def row(run: str, status: Status) -> Row:
    """A status for a board, counted by how it ended or else by its state."""
    counted, rank = state(status).lower(), Rank.GOES_ON
    if status.is_final:
        rank = Rank.GOOD if status.is_success else Rank.BAD
        if not status.is_deleted:
            counted = "succeeded" if status.is_success else str(status.exit_status or "failed").lower()
    elif status.hint is not None:
        rank = Rank.WAITS if status.hint.reason in WAITING else Rank.STUCK
    return Row(run, counted, rank, (progress(status),), why(status))


def why(status: Status) -> str:
    """What keeps a run or went wrong with it, "" where its state says it all."""
    hint = status.hint
    if hint is None or hint.reason in (Reason.PENDING, Reason.INITIALISING):
        return ""
    reason, told = hint.reason.replace("_", " "), hint.gist or hint.advice
    return told if hint.reason in WAITING else f"{reason}: {told}"
