"""The launches of a batch as the command shows them: in a table, on a board, in JSON, in the exit status."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from .._batch.item import Item
from .._errors import RunFailed
from ..models import Status
from ._board import Rank, Row
from ._exits import Exit, exit_of
from ._print import print_table
from ._watching import row as row_of_run
from ._watching import why
from ._words import gist, told

COLUMNS = ("key", "state", "attempt", "rest-uid", "exit-status", "files", "error")
TELLING = (0, 1, 3, 6)
"""Those of them that a terminal gets."""
DETAILS = ("rest-uid", "stage")
"""Columns of the board beside key and state."""
RANKS = {
    "planned": Rank.WAITS,
    "sending": Rank.GOES_ON,
    "started": Rank.GOES_ON,
    "succeeded": Rank.GOOD,
    "collected": Rank.GOOD,
}
"""State of a launch -> what a row with it is about; the others are bad."""


def rank_of(state: str) -> Rank:
    """What a launch in a state is about."""
    return RANKS.get(state, Rank.BAD)


def settled_row(item: Item) -> Row:
    """A launch that is settled, for the board."""
    # One that is in an end state with an error is bad, however good its run was.
    rank = Rank.BAD if item.error is not None else rank_of(item.state)
    return Row(item.key, item.state, rank, (str(item.run or "-"), "-"), gist(error_of(item) or ""))


def running_row(item: Item) -> Row:
    """A launch whose run goes on, for the board."""
    status = item.status or Status.pending()
    return replace(row_of_run(item.key, status), details=(str(item.run or "-"), status.current_stage or "-"))


def print_launches(items: Iterable[Item]) -> None:
    """Print all that is known of launches; in a terminal what is telling, each on one line."""
    print_table(COLUMNS, map(_cells, items), telling=TELLING, gist=gist)


def _cells(item: Item) -> tuple[object, ...]:
    exit_status = item.status.exit_status if item.status is not None else None
    return item.key, item.state, item.attempt, item.run, exit_status, len(item.files) or None, error_of(item)


def error_of(item: Item) -> str | None:
    """What went wrong with a launch; of a run that failed, why."""
    if isinstance(item.error, RunFailed) and item.status is not None:
        return why(item.status)
    return None if item.error is None else told(item.error, item.experiment)


def document_of(item: Item) -> dict[str, Any]:
    """A launch for JSON."""
    return {
        "key": item.key,
        "experiment": item.experiment,
        "state": item.state,
        "attempt": item.attempt,
        "rest-uid": None if item.run is None else item.run.id,
        "exit-status": item.status.exit_status if item.status is not None else None,
        "files": item.files,
        "error": error_of(item),
    }


def exit_status(items: Iterable[Item]) -> Exit:
    """How the command must end on account of launches."""
    exits = (
        # An earlier process may have met it: then the status of its answer is not known any more.
        Exit.SERVICE if item.state == "refused" else exit_of(item.error)
        for item in items
        if item.error is not None
    )
    return max(exits, default=Exit.DONE)
