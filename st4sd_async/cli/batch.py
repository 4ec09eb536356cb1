"""The commands ``st4sd-async batch``: start each launch of a table exactly once, watch and collect the runs."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from .._batch import MAX_RUNNING
from .._batch.batch import Batch
from .._batch.item import Item, item_of, state_badge
from .._batch.journal_file import read_snapshot
from .._batch.state import State
from .._display.live_display import Row
from .._display.show import reason_of, run_row
from .._errors import JournalLocked, LaunchConflict, RunFailed
from .._render.cards import Badge, Tone, counted
from .._util.clock import SystemClock
from ..models import Status
from .connect import Command, Json
from .errors import (
    COMMAND,
    Exit,
    UsageError,
    exit_of,
    how_to_resume,
    message_of,
    without_request,
    write_message,
)
from .launch_table import read_launches
from .output import print_document, print_line, print_table
from .runs import Formulas, PropertyNames, is_all_on_terminal, live_display, print_properties

ITEM_COLUMNS = ("key", "state", "attempt", "rest-uid", "exit-status", "files", "error")
SHOWN_ITEM_COLUMNS = (0, 1, 3, 6)
"""Those that a terminal shows."""

TableFile = Annotated[
    Path,
    typer.Argument(metavar="TABLE", help="CSV with a header, or JSON lines (.jsonl); each line is a launch."),
]
DefaultExperiment = Annotated[
    str | None, typer.Argument(metavar="EXPERIMENT", help="Experiment of each launch that does not name one.")
]
JournalFile = Annotated[
    Path | None,
    typer.Option("--journal", dir_okay=False, metavar="FILE", help="The journal.  [default: TABLE.journal]"),
]
Key = Annotated[str, typer.Argument(metavar="KEY", help="Key of a launch of unknown outcome.")]


async def run(
    command: Command,
    table: TableFile,
    experiment: DefaultExperiment = None,
    outputs: Annotated[
        list[str] | None, typer.Option("--output", "-o", metavar="NAME", help="Download this key-output of each run.")
    ] = None,
    to: Annotated[
        Path, typer.Option(file_okay=False, metavar="DIR", help="Target folder; each key gets a folder in it.")
    ] = Path("results"),
    max_running: Annotated[
        int, typer.Option("--max-running", min=1, metavar="N", help="Maximum number of runs in progress at once.")
    ] = MAX_RUNNING,
    journal: JournalFile = None,
    as_json: Json = False,
) -> Exit:
    """
    Start each launch of a table exactly once.

    Example: st4sd-async batch run launches.csv demo --output Energies

    Watches the runs. If a run succeeds, downloads the key-outputs named by --output. If the command is interrupted or
    killed, type it again to resume.

    Columns of a CSV file: key (your name for the launch), experiment, platform, input:NAME and data:NAME (paths of
    files, relative to the folder of the table), metadata:NAME, variable:NAME. Any other column is a variable too.
    With JSON lines, each line is {"key": ..., "experiment": ..., "payload": {...}}.

    With --json, print a line for each launch that is over.
    """
    launches = list(read_launches(table, experiment))  # a mistake in any line must not leave a journal
    path = _journal(table, journal)
    command.notes.interrupted = f"the runs continue; {how_to_resume('resume')}"
    async with command.client.batch(path, max_running=max_running) as batch:
        try:
            new = await batch.add(launches)
        except LaunchConflict as error:
            text = message_of(error, experiment or "").replace(" TABLE ", f" {shlex.quote(str(table))} ")
            raise UsageError(text) from error
        write_message(f"{counted(len(batch.items), 'launch')}, {new} of them new, in {str(path)!r}")
        command.notes.is_for_errors = True
        display = live_display(
            "launch",
            ("key", "state", "rest-uid", "stage"),
            prints_data=as_json,
            count=lambda: _counts(batch),
            running=lambda: map(_running_row, batch.running),
        )
        async with display.drawn(SystemClock()), aclosing(batch.run(outputs, to if outputs else None)) as finished:
            async for item in finished:
                display.update(_finished_row(item))
                if as_json:
                    print_line(_document(item))
        items = batch.items
    if not as_json and not is_all_on_terminal():
        _print_items(items)
    failed = sum(item.error is not None for item in items)
    write_message(f"{counted(len(items), 'launch')}, {failed} of them failed")
    return _exit_status(items)


async def status(command: Command, table: TableFile, journal: JournalFile = None, as_json: Json = False) -> Exit:
    """
    Show the state of each launch, as recorded in the journal.

    Sends no request. Works while another process runs the batch.
    """
    try:
        async with _existing(command, table, journal) as batch:
            items = batch.items
    except JournalLocked:
        items = await _snapshot(command, _journal(table, journal))
    if as_json:
        print_document([_document(item) for item in items])
    else:
        _print_items(items)
    counts = Counter(item.state for item in items)
    write_message(", ".join(f"{counts[state]} {state}" for state in State if counts[state]) or "no launches")
    return _exit_status(items)


async def retry(
    command: Command,
    table: TableFile,
    experiment: DefaultExperiment = None,
    is_corrected: Annotated[
        bool, typer.Option("--corrected", help="Use the experiments and payloads that the table contains now.")
    ] = False,
    journal: JournalFile = None,
    as_json: Json = False,
) -> None:
    """
    Plan a new attempt for each launch that failed.

    A launch failed if it was refused, or if its run failed, was stopped or was deleted. 'batch run' starts the new
    attempts.
    """
    launches = list(read_launches(table, experiment)) if is_corrected else []
    async with _existing(command, table, journal) as batch:
        count = await batch.retry_failed(launches)
    if as_json:
        print_document({"planned": count})
    advice = f"; start them with the same '{COMMAND} batch run {table} ...' as before" if count else ""
    write_message(f"{counted(count, 'new attempt')} planned{advice}")


async def properties(
    command: Command,
    table: TableFile,
    names: PropertyNames = None,
    has_formulas: Formulas = False,
    journal: JournalFile = None,
    as_json: Json = False,
) -> Exit:
    """Print the measured properties of the runs, as one table."""
    async with _existing(command, table, journal) as batch:
        found = await batch.properties(names)
    return print_properties(found, as_json=as_json, has_formulas=has_formulas)


async def adopt(
    command: Command,
    table: TableFile,
    key: Key,
    run: Annotated[str, typer.Argument(metavar="RUN", help="Rest-uid of the run that it started.")],
    journal: JournalFile = None,
) -> None:
    """
    Record that a launch of unknown outcome started this run.

    'batch run' then watches it.
    """
    async with _existing(command, table, journal) as batch:
        await batch.adopt(key, run)
    write_message(f"the run of {key!r} is {run}; 'batch run' watches it")


async def forget(command: Command, table: TableFile, key: Key, journal: JournalFile = None) -> None:
    """
    Record that a launch of unknown outcome was not started.

    'batch run' then starts it again. If it was started after all, this makes a second run.
    """
    async with _existing(command, table, journal) as batch:
        await batch.forget(key)
    write_message(f"{key!r} is planned; 'batch run' starts it")


def _journal(table: Path, journal: Path | None) -> Path:
    """Return the journal that is named, or the one beside the table."""
    return journal or table.with_name(f"{table.name}.journal")


def _existing(command: Command, table: Path, journal: Path | None) -> Batch:
    """Return the batch of a journal that exists, not entered yet."""
    path = _journal(table, journal)
    if not path.exists():
        raise UsageError(f"there is no journal {str(path)!r}: create it with {COMMAND} batch run")
    return command.client.batch(path)


async def _snapshot(command: Command, path: Path) -> list[Item]:
    """Return the launches of a journal that another process has open."""
    rows = await read_snapshot(path)
    write_message(f"{str(path)!r} is in use by another process: these are the states recorded so far")
    return [item_of(row, command.client.run(row.rest_uid) if row.rest_uid else None, None) for row in rows]


def _counts(batch: Batch) -> Mapping[Badge, int]:
    return {state_badge(state): count for state, count in batch.counts.items()}


def _finished_row(item: Item) -> Row:
    # A launch whose run succeeded has failed nevertheless if its outputs could not be downloaded.
    badge = state_badge(item.state) if item.error is None else Badge(item.state, Tone.BAD)
    return Row(item.key, badge, (str(item.run or "-"), "-"), without_request(_error_of(item) or ""))


def _running_row(item: Item) -> Row:
    status = item.status or Status.pending()
    return replace(run_row(item.key, status), details=(str(item.run or "-"), status.current_stage or "-"))


def _print_items(items: Iterable[Item]) -> None:
    print_table(ITEM_COLUMNS, map(_cells, items), shown=SHOWN_ITEM_COLUMNS, shorten=without_request)


def _cells(item: Item) -> tuple[object, ...]:
    exit_status = item.status.exit_status if item.status is not None else None
    return item.key, item.state, item.attempt, item.run, exit_status, len(item.files) or None, _error_of(item)


def _document(item: Item) -> dict[str, Any]:
    return {
        "key": item.key,
        "experiment": item.experiment,
        "state": item.state,
        "attempt": item.attempt,
        "rest-uid": None if item.run is None else item.run.id,
        "exit-status": item.status.exit_status if item.status is not None else None,
        "files": item.files,
        "error": _error_of(item),
    }


def _error_of(item: Item) -> str | None:
    """Return what went wrong with a launch; for a run that failed, the reason."""
    if isinstance(item.error, RunFailed) and item.status is not None:
        return reason_of(item.status)
    return None if item.error is None else message_of(item.error, item.experiment)


def _exit_status(items: Iterable[Item]) -> Exit:
    statuses = (
        # The journal does not record the status of an answer that an earlier process received.
        Exit.SERVICE if item.state == "refused" else exit_of(item.error)
        for item in items
        if item.error is not None
    )
    return max(statuses, default=Exit.DONE)
