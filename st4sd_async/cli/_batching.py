"""``st4sd-async batch``: the launches of a table, each started exactly once, watched and collected."""

from __future__ import annotations

import shlex
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path
from typing import Annotated

import typer

from .._batch.batch import Batch
from .._batch.item import Item, item_of
from .._batch.journal_snapshot import glance
from .._batch.limiter import MAX_RUNNING
from .._batch.state import State
from .._errors import JournalLocked, LaunchConflict
from .._render.cards import counted
from ._board import Board, Tally, is_live, shown
from ._collecting import Formulas, Names, print_properties
from ._connect import Here, Json
from ._exits import Exit, Unusable, say
from ._launched import DETAILS, document_of, exit_status, print_launches, rank_of, running_row, settled_row
from ._launches import read_launches
from ._print import print_document, print_line
from ._words import COMMAND, told, way_back

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
    here.ending.farewell = f"the runs go on; {way_back('go on')}"
    async with here.client.batch(_journal(table, journal), max_running=most) as batch:
        try:
            new = await batch.add(launches)
        except LaunchConflict as error:
            raise Unusable(told(error, experiment or "").replace(" TABLE ", f" {shlex.quote(str(table))} ")) from error
        say(f"{counted(len(batch.items), 'launch')}, {new} of them new, in {str(_journal(table, journal))!r}")
        here.ending.is_lasting = True
        board = Board("launch", "key", DETAILS, _tally(batch), lambda: map(running_row, batch.running))
        with shown(board, is_data_here=as_json) as show:
            async with aclosing(batch.run(outputs, to if outputs else None)) as settled:
                async for item in settled:
                    show(settled_row(item))
                    if as_json:
                        print_line(document_of(item))
        items = batch.items
    if not as_json and not (is_live() and sys.stdout.isatty()):
        print_launches(items)
    failed = sum(item.error is not None for item in items)
    say(f"{counted(len(items), 'launch')}, {failed} of them failed")
    return exit_status(items)


async def status(here: Here, table: TableFile, journal: JournalFile = None, as_json: Json = False) -> Exit:
    """
    Tell what became of each launch, from the journal alone.

    While the batch runs, elsewhere, this is how far it is.
    """
    try:
        async with _opened(here, table, journal) as batch:
            items = batch.items
    except JournalLocked:
        items = await _glanced(here, _journal(table, journal))
    if as_json:
        print_document([document_of(item) for item in items])
    else:
        print_launches(items)
    counts = Counter(item.state for item in items)
    say(", ".join(f"{counts[state]} {state}" for state in State if counts[state]) or "no launches")
    return exit_status(items)


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
    here: Here,
    table: TableFile,
    names: Names = None,
    has_formulas: Formulas = False,
    journal: JournalFile = None,
    as_json: Json = False,
) -> Exit:
    """Print what the runs measured, as one table."""
    async with _opened(here, table, journal) as batch:
        found = await batch.properties(names)
    return print_properties(found, as_json=as_json, has_formulas=has_formulas)


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


async def _glanced(here: Here, path: Path) -> list[Item]:
    """The launches of a journal that another process has open."""
    rows = await glance(path)
    say(f"{str(path)!r} is in use: this is what was written down by now")
    return [item_of(row, here.client.run(row.rest_uid) if row.rest_uid else None, None) for row in rows]


def _tally(batch: Batch) -> Callable[[], Tally]:
    return lambda: {(state, rank_of(state)): count for state, count in batch.counts.items()}
