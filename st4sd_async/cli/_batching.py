"""``st4sd-async batch``: the launches of a table, each started exactly once, watched and collected."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from contextlib import aclosing
from pathlib import Path
from typing import Annotated, Any

import typer

from .._batch import MAX_RUNNING, Batch
from .._errors import APIError, RunFailed, shorten
from .._item import Item
from ._board import Board, Rank, Row, Tally, is_live, shown
from ._collecting import Names, print_properties
from ._connect import Here, Json
from ._exits import Exit, Unusable, exit_of, say
from ._launches import read_launches
from ._print import print_document, print_line, print_table
from ._watching import why
from ._words import COMMAND, told, way_back

COLUMNS = ("key", "state", "attempt", "rest-uid", "exit-status", "files", "error")
RANKS = {
    "planned": Rank.WAITS,
    "sending": Rank.GOES_ON,
    "started": Rank.GOES_ON,
    "succeeded": Rank.GOOD,
    "collected": Rank.GOOD,
}
"""State of a launch -> what a row with it is about; the others are bad."""

TableFile = Annotated[
    Path,
    typer.Argument(metavar="TABLE", help="CSV with a header, or JSON lines (.jsonl); a launch in each line."),
]
Default = Annotated[
    str | None, typer.Argument(metavar="EXPERIMENT", help="What to start, where the table does not say.")
]
JournalFile = Annotated[
    Path | None,
    typer.Option("--journal", dir_okay=False, metavar="FILE", help="Where it is noted.  [default: TABLE.journal]"),
]
Key = Annotated[str, typer.Argument(metavar="KEY", help="Key of a launch in doubt.")]


async def run(
    here: Here,
    table: TableFile,
    experiment: Default = None,
    outputs: Annotated[
        list[str] | None, typer.Option("--output", "-o", metavar="NAME", help="Download this key-output of each run.")
    ] = None,
    to: Annotated[
        Path, typer.Option(file_okay=False, metavar="DIR", help="Folder for them, which gets a folder for each key.")
    ] = Path("results"),
    most: Annotated[
        int, typer.Option("--max-running", min=1, metavar="N", help="Runs in progress at once.")
    ] = MAX_RUNNING,
    journal: JournalFile = None,
    as_json: Json = False,
) -> Exit:
    """
    Start each launch of a table exactly once.

    Watches the runs, and downloads what is asked for of those that succeed.

    Columns of a CSV file: key (your name for the launch), experiment, platform, input:NAME and data:NAME (paths of
    files, from the folder of the table), metadata:NAME; any other column is a variable. A line of JSON lines is
    {"key": ..., "experiment": ..., "payload": {...}}.

    Killed at any moment, the same command goes on where it was. With --json a line for each launch that is settled.
    """
    launches = list(read_launches(table, experiment))  # all of it, so that a mistake in a line leaves no journal
    here.ending.farewell = way_back("go on")
    async with here.client.batch(_journal(table, journal), max_running=most) as batch:
        new = await batch.add(launches)
        say(f"{len(batch.items)} launches, {new} of them new, in {str(_journal(table, journal))!r}")
        with shown(Board("launches", "key", ("rest-uid",), _tally(batch)), is_data_here=as_json) as show:
            async with aclosing(batch.run(outputs, to if outputs else None)) as settled:
                async for item in settled:
                    show(_row(item))
                    if as_json:
                        print_line(_document(item))
        items = batch.items
    if not as_json and not (is_live() and sys.stdout.isatty()):
        print_table(COLUMNS, map(_cells, items))
    failed = sum(item.error is not None for item in items)
    say(f"{len(items)} launches, {failed} of them failed")
    return _exit(items)


async def status(here: Here, table: TableFile, journal: JournalFile = None, as_json: Json = False) -> Exit:
    """Tell what became of each launch, from the journal alone."""
    async with _opened(here, table, journal) as batch:
        counts, items = batch.counts, batch.items
    if as_json:
        print_document([_document(item) for item in items])
    else:
        print_table(COLUMNS, map(_cells, items))
    say(", ".join(f"{count} {state}" for state, count in counts.items() if count) or "no launches")
    return _exit(items)


async def retry(
    here: Here,
    table: TableFile,
    experiment: Default = None,
    is_corrected: Annotated[
        bool, typer.Option("--corrected", help="With the experiments and payloads that the table has now.")
    ] = False,
    journal: JournalFile = None,
    as_json: Json = False,
) -> None:
    """
    Plan a new attempt at each launch that failed.

    That is one that was refused, or whose run failed, was stopped or deleted; 'batch run' starts them.
    """
    launches = list(read_launches(table, experiment)) if is_corrected else []
    async with _opened(here, table, journal) as batch:
        count = await batch.retry_failed(launches)
    if as_json:
        print_document({"planned": count})
    way = f"; start them with the same '{COMMAND} batch run {table} ...' as before" if count else ""
    say(f"{count} launches are planned anew{way}")


async def properties(
    here: Here, table: TableFile, names: Names = None, journal: JournalFile = None, as_json: Json = False
) -> Exit:
    """Print what the runs measured, as one table."""
    async with _opened(here, table, journal) as batch:
        found = await batch.properties(names)
    return print_properties(found, as_json=as_json)


async def adopt(
    here: Here,
    table: TableFile,
    key: Key,
    run: Annotated[str, typer.Argument(metavar="RUN", help="Rest-uid of its run.")],
    journal: JournalFile = None,
) -> None:
    """Settle that a launch in doubt is this run."""
    async with _opened(here, table, journal) as batch:
        await batch.adopt(key, run)
    say(f"{key!r} is {run}; 'batch run' goes on with it")


async def forget(here: Here, table: TableFile, key: Key, journal: JournalFile = None) -> None:
    """Settle that a launch in doubt was not started."""
    async with _opened(here, table, journal) as batch:
        await batch.forget(key)
    say(f"{key!r} is planned; 'batch run' starts it")


def _journal(table: Path, journal: Path | None) -> Path:
    """The journal of a table: beside it, unless it is named."""
    return journal or table.with_name(f"{table.name}.journal")


def _opened(here: Here, table: Path, journal: Path | None) -> Batch:
    """The batch of a journal that is there, to be entered."""
    path = _journal(table, journal)
    if not path.exists():
        raise Unusable(f"there is no journal {str(path)!r}: {COMMAND} batch run makes it")
    return here.client.batch(path)


def _tally(batch: Batch) -> Callable[[], Tally]:
    return lambda: {(state, RANKS.get(state, Rank.BAD)): count for state, count in batch.counts.items()}


def _row(item: Item) -> Row:
    error = item.error
    # Where a row is cut, the beginning should tell.
    told_first = shorten(error.message) if isinstance(error, APIError) else _error(item)
    # A launch that is in an end state with an error is bad, however good its run was.
    rank = Rank.BAD if item.error is not None else RANKS.get(item.state, Rank.BAD)
    return Row(item.key, item.state, rank, (str(item.run or "-"),), told_first or "")


def _cells(item: Item) -> tuple[object, ...]:
    exit_status = item.status.exit_status if item.status is not None else None
    return item.key, item.state, item.attempt, item.run, exit_status, len(item.files) or None, _error(item)


def _error(item: Item) -> str | None:
    """What went wrong with a launch; of a run that failed, why."""
    if isinstance(item.error, RunFailed) and item.status is not None:
        return why(item.status)
    return None if item.error is None else told(item.error)


def _document(item: Item) -> dict[str, Any]:
    return {
        "key": item.key,
        "experiment": item.experiment,
        "state": item.state,
        "attempt": item.attempt,
        "rest-uid": None if item.run is None else item.run.id,
        "exit-status": item.status.exit_status if item.status is not None else None,
        "files": item.files,
        "error": _error(item),
    }


def _exit(items: Iterable[Item]) -> Exit:
    """How the command must end on account of launches."""
    exits = (
        # An earlier process may have met it: then the status of its answer is not known any more.
        Exit.SERVICE if item.state == "refused" else exit_of(item.error)
        for item in items
        if item.error is not None
    )
    return max(exits, default=Exit.DONE)
