"""The commands ``st4sd-async batch``: start each launch of a table exactly once, watch and collect the runs."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import anyio
import typer

from .._batch import MAX_RUNNING
from .._batch.batch import Batch, estimate, known_reasons, read_history
from .._batch.board import counts_by_badge
from .._batch.check import LaunchProblem
from .._batch.item import Item, fetched_reason, item_of, state_badge, with_reason
from .._batch.journal import JOURNAL_SUFFIX, RESULTS_SUFFIX
from .._batch.journal_file import Snapshot, is_sqlite_file, modification, read_snapshot, read_whole_snapshot
from .._batch.state import FAILURES, OVER, LaunchRecord, State
from .._batch.table import METADATA, VARIABLE, PayloadFacts, facts_of_launches, join
from .._batch.time_left import seconds_left, time_left
from .._display.live_display import Row
from .._display.show import reason_of
from .._errors import JournalError, JournalLocked, LaunchConflict, RunFailed, St4sdError
from .._render.cards import Badge, Tone, counted
from .._results.defaults import FAILURE_TIMEOUT
from .._results.downloads import for_each
from .._results.failure import MAX_EXPLAINED
from .._util.clock import SystemClock
from .._util.file_lock import is_locked
from .._util.threads import in_thread
from ..models import Properties, Status
from . import completion
from .connect import Command, Json
from .errors import (
    COMMAND,
    Exit,
    UsageError,
    exit_of,
    how_to_resume,
    message_of,
    with_commands,
    write_message,
)
from .experiments import InputFiles, file_of
from .launch_table import LaunchTable, journal_of, read_launches, read_table, write_sweep
from .output import print_document, print_line, print_table
from .problems import report
from .runs import Formulas, PropertyNames, is_all_on_terminal, live_display, row_of, write_failures

ITEM_COLUMNS = ("key", "state", "attempt", "rest-uid", "files", "error")
SHOWN_ITEM_COLUMNS = (0, 1, 3, 5)
"""Those that a terminal shows."""
FOUND_COLUMNS = ("rest-uid", "key", "state", "attempt", "error")
"""Columns of the runs of a campaign. The rest-uid comes first, so that other commands can read it from a pipe."""
FORMATS = (".csv", ".jsonl")
"""Suffixes of files to which tables are written."""
FOLLOW_INTERVAL = 1.0
"""Minimum number of seconds between two reads of a journal that another process writes."""
FOLLOW_SHARE = 10
"""The pause between two reads is at least this many times as long as a read."""
_SILENT = frozenset(State) - FAILURES - {State.UNKNOWN}
"""States that do not show whether a launch has an error, such as files that could not be downloaded."""
SHOWN_PREFIXES = ("experiment", "platform", VARIABLE, METADATA)
"""Columns of the table of a batch that a terminal shows if launches differ in them."""

TableFile = Annotated[
    Path,
    typer.Argument(metavar="TABLE", help="CSV with a header, or JSON lines (.jsonl); each line is a launch."),
]
TableOrJournal = Annotated[
    Path, typer.Argument(metavar="TABLE|JOURNAL", help="The table of launches, or the journal that a script made.")
]
DefaultExperiment = Annotated[
    str | None,
    typer.Argument(
        metavar="EXPERIMENT",
        help="Experiment of each launch that does not name one.",
        autocompletion=completion.experiments,
    ),
]
JournalFile = Annotated[
    Path | None,
    typer.Option("--journal", dir_okay=False, metavar="FILE", help="The journal.  [default: TABLE.journal]"),
]
Key = Annotated[
    str,
    typer.Argument(metavar="KEY", help="Key of a launch of unknown outcome.", autocompletion=completion.keys_in_doubt),
]


async def run(
    command: Command,
    table: TableFile,
    experiment: DefaultExperiment = None,
    outputs: Annotated[
        list[str] | None,
        typer.Option(
            "--output",
            "-o",
            metavar="NAME",
            help="Download this key-output of each run.",
            autocompletion=completion.outputs_of_experiment,
        ),
    ] = None,
    to: Annotated[
        Path | None,
        typer.Option(
            file_okay=False,
            metavar="DIR",
            help="Target folder; each key gets a folder in it.  [default: TABLE.results]",
        ),
    ] = None,
    max_running: Annotated[
        int, typer.Option("--max-running", min=1, metavar="N", help="Maximum number of runs in progress at once.")
    ] = MAX_RUNNING,
    sweeps: Annotated[
        list[str] | None,
        typer.Option(
            "--sweep",
            metavar="NAME=VALUES",
            help="Write TABLE first: a launch for each value (a,b or START:STOP:STEP); repeat it for a grid. "
            "One value sets the variable of all launches.",
        ),
    ] = None,
    inputs: InputFiles = None,
    campaign: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Name to store with each run; 'batch find' finds the runs by it.",
        ),
    ] = None,
    journal: JournalFile = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check all launches, list everything that is wrong, and start nothing.")
    ] = False,
    as_json: Json = False,
) -> Exit:
    """
    Start each launch of a table exactly once.

    Examples:
      st4sd-async batch run launches.csv demo --output Energies --dry-run
      st4sd-async batch run launches.csv demo --output Energies
      st4sd-async batch run grid.csv demo -i molecules.csv --sweep scale=1:3:0.1 --sweep method=a,b

    Watches the runs. If a run succeeds, downloads the key-outputs named by --output. If the command is interrupted or
    killed, type it again to resume.

    Columns of a CSV file: key (your name for the launch), experiment, platform, input:NAME and data:NAME (paths of
    files, relative to the folder of the table), metadata:NAME, variable:NAME. Any other column is a variable too.
    With JSON lines, each line is {"key": ..., "experiment": ..., "payload": {...}}.

    With --sweep, the table is written first, with a launch for each combination of values and the files of --input. A
    range includes STOP, is exact (1:3:0.1 is 1, 1.1, ... 3), and has the step 1 if STEP is missing. A table that has
    other launches is not replaced. With --dry-run, look at the written table before you start it; if there is a
    problem, it is removed again.

    With --json, print a line for each launch that is over; with --dry-run, a list of the problems. The exit status of
    a dry run is 2 if there are any.
    """
    if is_sqlite_file(table):
        look, resume = f"see it with: {COMMAND} batch status {shlex.quote(str(table))}", _how_to_continue(table, table)
        raise UsageError(f"{str(table)!r} is a journal, not a table; {look}; continue its batch with {resume}")
    if inputs and not sweeps:
        raise UsageError("--input belongs to --sweep; a table names its files in columns input:NAME")
    written = None
    if sweeps:
        written = write_sweep(table, experiment, map(file_of, inputs or ()), sweeps)
        if written is not None:
            write_message(f"{counted(written, 'launch')} written to {str(table)!r}")
    path = journal or table.with_name(f"{table.name}{JOURNAL_SUFFIX}")
    if dry_run:
        done = Exit.USAGE
        try:
            done = await _check(command, read_table(table, experiment), outputs, path, as_json=as_json)
        finally:
            if written is not None and done is not Exit.DONE:
                table.unlink()
                write_message(f"{str(table)!r} was removed again: correct the command, and repeat it")
        return done
    launches = read_launches(table, experiment)  # a mistake in any line must not leave a journal
    command.notes.interrupted = f"the runs continue; {how_to_resume('resume')}"
    async with command.client.batch(path, max_running=max_running, campaign=campaign) as batch:
        try:
            new = await batch.add(launches)
        except LaunchConflict as error:
            text = message_of(error, experiment or "").replace(" TABLE ", f" {shlex.quote(str(table))} ")
            text = text if experiment else text.replace(" EXPERIMENT ", " ")  # the table names experiments
            raise UsageError(text) from error
        write_message(f"{counted(len(batch.items), 'launch')}, {new} of them new, in {str(path)!r}")
        command.notes.is_for_errors = True
        await read_history(batch)
        explained: dict[str, Item] = {}  # the first failures, whose reasons arrive later

        def explained_rows() -> list[Row]:
            known = known_reasons(batch)
            return [_finished_row(with_reason(item, known[uid])) for uid, item in explained.items() if uid in known]

        display = live_display(
            "launch",
            ("key", "state", "rest-uid", "stage"),
            prints_data=as_json,
            count=lambda: counts_by_badge(batch.counts),
            running=lambda: [*map(_running_row, batch.running), *explained_rows()],
            outage=lambda: command.client.outage,
            time_left=lambda: time_left(estimate(batch)),
        )
        async with (
            display.drawn(SystemClock()),
            aclosing(batch.run(outputs or None, to if outputs else None)) as finished,
        ):
            async for item in finished:
                if item.state == "failed" and item.run is not None and len(explained) < MAX_EXPLAINED:
                    explained[item.run.id] = item
                for row in (_finished_row(item), *explained_rows()):
                    display.update(row)
                if as_json:
                    print_line(_document(item))
            await _explain(batch)
            for row in explained_rows():
                display.update(row)
        items = batch.items
    if not as_json and not is_all_on_terminal():
        _print_items(items)
    write_failures({item.key: failure for item in items if (failure := fetched_reason(item))})
    write_message(f"{counted(len(items), 'launch')}: {_summary(items)}")
    if not as_json:
        _write_next(
            items, table, journal, to or path.with_name(path.name.removesuffix(JOURNAL_SUFFIX) + RESULTS_SUFFIX)
        )
    return _exit_status(items)


def _write_next(items: Sequence[Item], table: Path, journal: Path | None, results: Path) -> None:
    """Write where the results of a batch are, and what to type next."""
    arguments = shlex.join([str(table), *(["--journal", str(journal)] if journal else [])])
    if any(item.files for item in items):
        write_message(f"outputs: {shlex.quote(str(results))}")
    if any(item.run is not None for item in items):
        write_message(f"table:   {COMMAND} batch properties {arguments}")
    if any(item.state in FAILURES for item in items):
        write_message(f"retry:   {COMMAND} batch retry {arguments}")


async def _check(
    command: Command, table: LaunchTable, outputs: Sequence[str] | None, journal: Path, *, as_json: bool
) -> Exit:
    """Print what is wrong with the launches of a table. A journal that exists is compared, and not changed."""
    try:
        problems, known = await _problems(_existing_or_empty(command, journal), table, outputs)
    except JournalLocked:
        write_message(f"{str(journal)!r} is in use by another process: the launches in it are not compared")
        problems, known = await _problems(command.client.batch(), table, outputs)
    new = sum(launch.key not in known for launch in table.launches)
    return report(
        table.mistakes_of(problems),
        of=str(table.file),
        summary=f"{counted(len(table.launches), 'launch')}, {new:,} of them new: no problem found",
        as_json=as_json,
    )


async def _problems(
    batch: Batch, table: LaunchTable, outputs: Sequence[str] | None
) -> tuple[list[LaunchProblem], set[str]]:
    """Return what is wrong with the launches of a table, and the keys that the batch has."""
    async with batch:
        return await batch.check(table.launches, outputs), {item.key for item in batch.items}


async def status(command: Command, table: TableOrJournal, journal: JournalFile = None, as_json: Json = False) -> Exit:
    """
    Show the state of each launch, as recorded in the journal.

    Examples:
      st4sd-async batch status launches.csv
      st4sd-async batch status campaign.db

    Sends no request. Works while another process runs the batch.
    """
    items = await _recorded(command, table, journal)
    if as_json:
        print_document([_document(item) for item in items])
    else:
        _print_items(items)
    write_message(_summary(items))
    return _exit_status(items)


async def watch(command: Command, table: TableOrJournal, journal: JournalFile = None, as_json: Json = False) -> Exit:
    """
    Follow a batch that another process runs.

    Example: st4sd-async batch watch campaign.db

    Reads the journal and sends no request. Ctrl-C does not affect the batch. Ends when that process ends. If no process
    runs the batch, shows its state, and how to continue it.

    With --json, print a line for each launch that is over, and again if its state changes or the reason of its failure
    becomes known. The exit status is 1 if launches are not over.
    """
    path = existing_journal(table, journal)
    command.notes.interrupted = f"the batch is not affected; {how_to_resume()}"
    if is_running := await in_thread(is_locked, path):
        await _follow(command, path, as_json=as_json)
    items = await _recorded(command, table, path)
    if as_json and not is_running:
        for item in items:
            if item.state in OVER:
                print_line(_document(item))
    elif not as_json and not (is_running and is_all_on_terminal()):
        _print_items(items)
    write_failures({item.key: failure for item in items if (failure := fetched_reason(item))})
    is_over = all(item.state in OVER for item in items)
    end = "the process that ran the batch has ended" if is_running else "no process runs this batch"
    advice = "" if is_over else f"; continue it with {_how_to_continue(table, path)}"
    write_message(f"{_summary(items)}; {end}{advice}")
    return max(_exit_status(items), Exit.DONE if is_over else Exit.RUN_FAILED)


async def _follow(command: Command, path: Path, *, as_json: bool) -> None:
    """Display a batch until the process that runs it ends."""
    clock, last, found = SystemClock(), None, Snapshot[Any]("", None, [], {}, {}, {})
    records: dict[str, LaunchRecord] = {}
    shown: set[str] = set()

    def in_progress() -> list[Row]:
        started = [one for one in records.values() if one.state == State.STARTED]
        return [Row(one.key, state_badge(one.state), (one.rest_uid or "",)) for one in started]

    def count() -> Mapping[Badge, int]:
        return Counter(state_badge(one.state) for one in records.values())

    display = live_display(
        "launch",
        ("key", "state", "rest-uid"),
        prints_data=as_json,
        count=count,
        running=in_progress,
        time_left=lambda: time_left(seconds_left(found.history.values(), clock.wall())),
    )
    async with display.drawn(clock):
        while True:
            is_running, began = await in_thread(is_locked, path), clock.now()
            changed, is_first = await in_thread(modification, path), last is None
            if changed != last or not is_running:
                with suppress(JournalLocked):  # it changed during each attempt to read it
                    known_reasons = found.reasons
                    found, last = await read_snapshot(path), changed
                    new = [
                        one
                        for one in found.records
                        if records.get(one.key) != one
                        or found.reasons.get(one.rest_uid or "") != known_reasons.get(one.rest_uid or "")
                    ]
                    records |= {one.key: one for one in new}
                    for item in _items_of(command, replace(found, records=new)):
                        # Of what was over before, a display shows failures, and counts the rest.
                        if item.key in shown or (item.state in OVER and (item.error is not None or not is_first)):
                            shown.add(item.key)
                            display.update(replace(row := _finished_row(item), details=row.details[:1]))
                        if as_json and item.state in OVER:
                            print_line(_document(item))
            if not is_running:
                return
            await clock.sleep(max(FOLLOW_INTERVAL, FOLLOW_SHARE * (clock.now() - began)))


async def retry(
    command: Command,
    table: TableOrJournal,
    experiment: DefaultExperiment = None,
    is_corrected: Annotated[
        bool, typer.Option("--corrected", help="Use the experiments and payloads that the table contains now.")
    ] = False,
    journal: JournalFile = None,
    as_json: Json = False,
) -> None:
    """
    Plan a new attempt for each launch that failed.

    Examples:
      st4sd-async batch retry launches.csv
      st4sd-async batch retry launches.csv demo --corrected

    A launch failed if it was refused, or if its run failed, was stopped or was deleted. 'batch run' starts the new
    attempts.
    """
    if is_corrected and is_sqlite_file(table):
        advice = f"{COMMAND} batch retry TABLE --corrected --journal {shlex.quote(str(table))}"
        raise UsageError(f"--corrected takes the new values from a table; name it too: {advice}")
    launches = read_launches(table, experiment) if is_corrected else []
    async with _existing(command, table, journal) as batch:
        count = await batch.retry_failed(launches)
    if as_json:
        print_document({"planned": count})
    advice = f"; start them with {_how_to_continue(table, journal_of(table, journal))}" if count else ""
    write_message(f"{counted(count, 'new attempt')} planned{advice}")


async def properties(
    command: Command,
    table: TableOrJournal,
    names: PropertyNames = None,
    to: Annotated[
        Path | None,
        typer.Option(dir_okay=False, metavar="FILE", help="Write the table to this file: .csv or .jsonl."),
    ] = None,
    has_formulas: Formulas = False,
    journal: JournalFile = None,
    as_json: Json = False,
) -> Exit:
    """
    Print all launches with the measured properties of their runs, as one table.

    Example: st4sd-async batch properties launches.csv --to campaign.csv

    A row is a measurement, or a launch without any. Columns: key, experiment, platform, variable:NAME, metadata:NAME,
    inputs, state, rest-uid, start (UTC), duration (seconds until the end was seen), why, input-id, and the properties.
    A property with the name of another column is property:NAME. A terminal shows the columns in which launches
    differ. Works while another process runs the batch.

    With --json, print a list with an object for each row; missing values are null.
    """
    if to is not None and to.suffix.lower() not in FORMATS:
        raise UsageError(f"the name of the table must end in {' or '.join(FORMATS)}, not {str(to)!r}")
    try:
        async with _existing(command, table, journal) as batch:
            items, found = list(batch.items), await batch.table(names)
    except JournalLocked:
        items, found = await _measured(command, journal_of(table, journal), names)
    found = _with_reasons(found, {item.key: error for item in items if (error := _error_of(item))})
    if to is not None:
        is_csv = to.suffix.lower() == ".csv"
        text = found.to_csv(formulas=has_formulas) if is_csv else found.to_json_lines()
        await in_thread(to.write_text, text, "utf-8")
        write_message(f"{counted(len(found), 'row')} in {str(to)!r}")
    elif as_json:
        print_document(list(found))
    else:
        _print_campaign(found, has_formulas=has_formulas)
    if found.problems:
        write_message(f"{counted(len(found.problems), 'run')} without properties: the column 'why' has the reasons")
    return max(map(exit_of, found.problems.values()), default=Exit.DONE)


def _with_reasons(found: Properties, reasons: Mapping[str, str]) -> Properties:
    """Return the table of a batch with the reasons of some launches replaced, by key."""
    key, why = found.columns.index("key"), found.columns.index("why")
    rows = tuple((*row[:why], reasons.get(row[key], row[why]), *row[why + 1 :]) for row in found.rows)
    return replace(found, rows=rows)


def _print_campaign(found: Properties, *, has_formulas: bool) -> None:
    """Print the table of a batch; in a terminal, the columns in which launches differ."""
    places = {name: place for place, name in enumerate(found.columns)}
    differing = [name for name in found.columns if len({str(value) for value in found[name]}) > 1]
    measured = found.columns[places["why"] + 1 :]
    chosen = ["key", *(name for name in differing if name.startswith(SHOWN_PREFIXES)), "state", *measured]
    why = ["why"] if any(found["why"]) else []
    print_table(
        found.columns,
        [["" if value != value else value for value in row] for row in found.rows],  # NaN is an empty cell
        shown=[places[name] for name in (*chosen, *why)],
        is_cut=bool(why),
        is_spreadsheet=not has_formulas,
    )


async def find(
    command: Command,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The campaign name.")],
    as_json: Json = False,
) -> Exit:
    """
    Show the runs of a campaign, without its table and journal.

    Example: st4sd-async batch find water-2026

    The name is that of 'batch run --campaign'. A run is found a few seconds after it began, and also after it was
    deleted. A run that failed during set-up is not found.

    To print the measured properties: st4sd-async batch find water-2026 | st4sd-async properties -

    With --json, print a list with an object for each run.
    """
    items = await command.client.find_batch(name)
    if as_json:
        print_document([_document(item) for item in items])
    else:
        rows = [(item.run, item.key, item.state, item.attempt, _error_of(item)) for item in items]
        print_table(FOUND_COLUMNS, rows, is_cut=True)
    write_message(f"{counted(len(items), 'run')} of the campaign {name!r}")
    return _exit_status(items)


async def adopt(
    command: Command,
    table: TableOrJournal,
    key: Key,
    run: Annotated[
        str,
        typer.Argument(metavar="RUN", help="Rest-uid of the run that it started.", autocompletion=completion.runs),
    ],
    journal: JournalFile = None,
) -> None:
    """
    Record that a launch of unknown outcome started this run.

    Example: st4sd-async batch adopt launches.csv ethanol demo-ab12cd-x7f3k2q9

    'batch run' then watches it.
    """
    async with _existing(command, table, journal) as batch:
        await batch.adopt(key, run)
    write_message(f"the run of {key!r} is {run}; watch it with {_how_to_continue(table, journal_of(table, journal))}")


async def forget(command: Command, table: TableOrJournal, key: Key, journal: JournalFile = None) -> None:
    """
    Record that a launch of unknown outcome was not started.

    Example: st4sd-async batch forget launches.csv ethanol

    'batch run' then starts it again. If it was started after all, this makes a second run.
    """
    async with _existing(command, table, journal) as batch:
        await batch.forget(key)
    write_message(f"{key!r} is planned; start it with {_how_to_continue(table, journal_of(table, journal))}")


def existing_journal(table: Path, journal: Path | None) -> Path:
    """Return the journal, or raise `UsageError` if there is none."""
    path = journal_of(table, journal)
    if not path.exists():
        raise UsageError(f"there is no journal {str(path)!r}: create it with {COMMAND} batch run")
    return path


def _existing(command: Command, table: Path, journal: Path | None) -> Batch:
    """Return the batch of a journal that exists, not entered yet."""
    return command.client.batch(existing_journal(table, journal))


def _how_to_continue(table: Path, journal: Path) -> str:
    """Return what to type, or to do, to continue a batch."""
    if is_sqlite_file(table):
        table = journal.with_name(journal.name.removesuffix(JOURNAL_SUFFIX))
    if table == journal or not table.exists():
        return "the script that made the journal"
    return f"the same '{COMMAND} batch run {shlex.quote(str(table))} ...' as before"


def _existing_or_empty(command: Command, journal: Path) -> Batch:
    """Return the batch of a journal, or one in memory if there is no journal yet. It is not entered yet."""
    return command.client.batch(journal if journal.exists() else None)


async def _recorded(command: Command, table: Path, journal: Path | None) -> list[Item]:
    """Return the launches of a journal that exists, even if another process has it open."""
    try:
        async with _existing(command, table, journal) as batch:
            return list(batch.items)
    except JournalLocked:
        _write_is_in_use(path := journal_of(table, journal))
        return _items_of(command, await read_snapshot(path))


async def _measured(command: Command, path: Path, names: Iterable[str] | None) -> tuple[list[Item], Properties]:
    """Return the launches and the table of a journal that another process has open."""
    found = await read_whole_snapshot(path, PayloadFacts.of)
    check_deployment(path, found, command.client.url)
    _write_is_in_use(path)
    items = _items_of(command, found)
    records = {record.key: record for record in found.records}
    measured = await command.client.properties([item.run for item in items if item.run is not None], names)
    return items, join(facts_of_launches(items, records, found.payload_parts, found.history), measured)


def check_deployment(path: Path, found: Snapshot[Any], url: str) -> None:
    """Check that a journal belongs to a deployment. Raises `JournalError` if it does not."""
    if found.server != url:
        problem = f"the journal {str(path)!r} belongs to a batch at {found.server}, not at {url}"
        raise JournalError(problem, f"connect with --url {found.server}")


def _write_is_in_use(path: Path) -> None:
    write_message(f"{str(path)!r} is in use by another process: these are the states recorded so far")


def _summary(items: Iterable[Item]) -> str:
    """Return the number of launches in each state. An error that the state does not show is counted separately."""
    counts: Counter[tuple[str, bool]] = Counter(
        (item.state, item.error is not None and item.state in _SILENT) for item in items
    )
    keys = [(state, has_error) for state in State for has_error in (False, True)]
    parts = [f"{counts[key]:,} {key[0]}{' with an error' if key[1] else ''}" for key in keys if counts[key]]
    return ", ".join(parts) or "no launches"


def _items_of(command: Command, found: Snapshot[Any]) -> list[Item]:
    return [
        item_of(record, command.client.run(uid) if uid else None, None, found.reasons.get(uid or ""))
        for record in found.records
        for uid in (record.rest_uid,)
    ]


async def _explain(batch: Batch) -> None:
    """Wait until it is known why the first few runs failed, or cannot be known in time."""

    async def explain(key: str) -> None:
        with suppress(St4sdError), anyio.move_on_after(FAILURE_TIMEOUT):  # the status is left
            await batch.failure(key)

    first = [item for item in batch.failures() if isinstance(item.error, RunFailed)][:MAX_EXPLAINED]
    await for_each([item.key for item in first if fetched_reason(item) is None], explain, MAX_EXPLAINED)


def _finished_row(item: Item) -> Row:
    # A launch whose run succeeded has failed nevertheless if its outputs could not be downloaded.
    badge = state_badge(item.state) if item.error is None else Badge(item.state, Tone.BAD)
    return Row(item.key, badge, (str(item.run or ""), ""), _error_of(item) or "")


def _running_row(item: Item) -> Row:
    status = item.status or Status.pending()
    return replace(row_of(item.key, status, item.run), details=(str(item.run or ""), status.current_stage or ""))


def _print_items(items: Iterable[Item]) -> None:
    print_table(ITEM_COLUMNS, map(_cells, items), shown=SHOWN_ITEM_COLUMNS, is_cut=True)


def _cells(item: Item) -> tuple[object, ...]:
    return item.key, item.state, item.attempt, item.run, len(item.files) or None, _error_of(item)


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
        return with_commands(reason_of(item.status, fetched_reason(item)), str(item.run or "RUN"))
    return None if item.error is None else message_of(item.error, item.experiment)


def _exit_status(items: Iterable[Item]) -> Exit:
    statuses = (
        # The journal does not record the HTTP status of a response that an earlier process received.
        Exit.SERVICE if item.state == "refused" else exit_of(item.error)
        for item in items
        if item.error is not None
    )
    return max(statuses, default=Exit.DONE)
