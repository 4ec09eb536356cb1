"""The commands about runs: ``status``, ``watch``, ``outputs``, ``download``, ``properties``, ``logs``, ``delete``."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import aclosing, contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from .._api.gateways import SCHEME
from .._client import Client, downloads_of, reasons_of
from .._display.live_display import LiveDisplay, Row
from .._display.show import reason_of, run_row
from .._display.surfaces import Log, Terminal, default_surface
from .._errors import St4sdError, WaitTimeout
from .._render.cards import Badge, Bar, Card, Tone, counted, format_size
from .._util.clock import SystemClock
from .._util.file_names import folder_name
from .._util.printable import one_line
from .._util.progress import SECONDS, Progress, ProgressUpdate
from ..models import Download, DownloadFailed, Failure, Properties, Status
from ..models.failures import has_failed
from ..models.runs import check_rest_uid
from . import completion
from .connect import MAX_ERRORS, Command, Json, for_each_run, rest_uids, write_errors
from .errors import (
    COMMAND,
    Exit,
    UsageError,
    exit_of,
    how_to_resume,
    message_of,
    with_commands,
    write_error,
    write_message,
)
from .output import print_document, print_line, print_table, print_text

STATUS_COLUMNS = ("rest-uid", "state", "progress", "why")
DATE_FORMAT = "%Y-%m-%d %H:%M:%S"
"""How times are printed, in UTC."""

Timeout = Annotated[
    float | None,
    typer.Option(min=0, metavar="SECONDS", help="Stop waiting after this time; the runs continue.  [default: never]"),
]
Interval = Annotated[
    float | None,
    typer.Option(metavar="SECONDS", help="Pause between two polls.  [default: 0.5 to 30, adapted to the runs]"),
]
RunIds = Annotated[
    list[str],
    typer.Argument(
        metavar="RUN...", help="Rest-uids; '-' reads them from standard input.", autocompletion=completion.runs
    ),
]
OneRun = Annotated[str, typer.Argument(metavar="RUN", help="Rest-uid of the run.", autocompletion=completion.runs)]
Component = Annotated[
    str | None,
    typer.Option(
        "--component", "-c", metavar="NAME", help="Only components whose name matches this regular expression."
    ),
]
Stage = Annotated[int | None, typer.Option(min=0, metavar="N", help="Only components of this stage.")]
OutputNames = Annotated[
    list[str] | None,
    typer.Option(
        "--name",
        "-n",
        metavar="NAME",
        help="Download only this key-output; repeat it for several.",
        autocompletion=completion.key_outputs,
    ),
]
PropertyNames = Annotated[
    list[str] | None,
    typer.Option("--name", "-n", metavar="NAME", help="Print only this property; repeat it for several."),
]
Formulas = Annotated[
    bool,
    typer.Option(
        "--formulas",
        help="Print =1+1 as it is. By default it becomes '=1+1, so that no spreadsheet computes it.",
    ),
]
Folder = Annotated[
    Path, typer.Option("--to", file_okay=False, metavar="DIR", help="Target folder; each run gets a folder in it.")
]


async def status(
    command: Command,
    runs: RunIds,
    has_reasons: Annotated[
        bool, typer.Option("--why", help="Add why runs failed: failed components and the last lines that they wrote.")
    ] = False,
    as_json: Json = False,
) -> Exit:
    """
    Show the status of runs, with the reason if one is stuck or failed.

    Example: st4sd-async status demo-ab12cd-x7f3k2q9 --why

    States: no status yet, unscheduled (waits for a slot), unschedulable (an image cannot be pulled), initialising,
    running, waiting_on_resource, suspended, component_shutdown, finished (how is not known yet), succeeded, failed,
    stopped, deleted. The other commands use the same words. With --json, print a list with an object for each run.
    """
    statuses, worst = await for_each_run(rest_uids(runs), command.client.status)
    failures: dict[str, Failure] = {}
    if has_reasons:
        failed = [run for run, status in statuses.items() if has_failed(status)]
        found, worst_reason = await for_each_run(failed, command.client.failure)
        failures = {run: failure for run, failure in found.items() if failure is not None}
        worst = max(worst, worst_reason)
    if statuses or as_json:
        print_statuses(statuses.items(), failures, as_json=as_json)
    if not as_json:
        for failure in failures.values():
            print_text(f"\n{with_commands(str(failure), failure.rest_uid)}")
    return max(worst, exit_status(statuses.values()))


async def watch(
    command: Command, runs: RunIds, timeout: Timeout = None, interval: Interval = None, as_json: Json = False
) -> Exit:
    """
    Watch runs until all are over.

    Watching hundreds of runs costs the service little more than watching one. Ctrl-C does not stop the runs. With
    --json, print a line for each change; the last line of a run is its final status.

    Example: st4sd-async watch demo-ab12cd-x7f3k2q9
    """
    order = rest_uids(runs)
    command.notes.interrupted = f"the runs continue; {how_to_resume()}"

    def print_change(run: str, status: Status) -> None:
        print_line(document(run, status))

    last = await follow(command, order, timeout, interval, print_change if as_json else None)
    failures = await reasons_of(command.client, last)
    if not as_json and not is_all_on_terminal():
        print_statuses(((run, last[run]) for run in order if run in last), failures, as_json=False)
    write_failures(failures)
    return exit_status(last.values(), expected=len(order))


async def follow(
    command: Command,
    runs: Sequence[str],
    timeout: float | None,
    interval: float | None,
    on_change: Callable[[str, Status], None] | None,
) -> dict[str, Status]:
    """
    Display runs until all are over or the time is up, and return their last statuses.

    Args:
        command: The command.
        runs: Rest-uids.
        timeout: Seconds for all runs together. None means no limit.
        interval: Seconds between two polls. None adapts it to the runs.
        on_change: Called with each change.
    """
    last: dict[str, Status] = {}
    display = live_display(
        "run", ("run", "state", "progress"), prints_data=on_change is not None, outage=lambda: command.client.outage
    )
    for run in runs:
        display.update(row_of(run, Status.pending(), run))
    try:
        async with (
            display.drawn(SystemClock()),
            aclosing(command.client.watch_many(runs, timeout=timeout, interval=interval)) as changes,
        ):
            async for handle, status in changes:
                last[handle.id] = status
                display.update(row_of(handle.id, status, handle.id))
                if on_change is not None:
                    on_change(handle.id, status)
        return last
    except WaitTimeout as error:
        left = list(error.last_statuses)
    resume = f"follow it again with: {COMMAND} watch {left[0]}" if len(left) == 1 else how_to_resume()
    write_error(f"not ended after {timeout:g} s: {len(left)} of {counted(len(runs), 'run')}; {resume}")
    return last


def row_of(name: str, status: Status, run: object = None, failure: Failure | None = None) -> Row:
    """Return a row of the display for a run. Its reason names commands to type."""
    row = run_row(name, status, failure)
    return replace(row, reason=with_commands(row.reason, str(run or "RUN")))


def live_display(noun: str, columns: Sequence[str], *, prints_data: bool = False, **options: Any) -> LiveDisplay:
    """
    Return a display on standard error.

    Args:
        noun: What a row stands for.
        columns: Headers.
        prints_data: Whether the command prints the changes to standard output. If that is a terminal, nothing is
            displayed.
        options: For `LiveDisplay`.
    """
    surface = None if prints_data and sys.stdout.isatty() else default_surface(log_rows=None, log_interval=0.25)
    return LiveDisplay(noun, columns, surface, **options)


def is_all_on_terminal() -> bool:
    """Return whether the display and standard output share a terminal, so that the display has shown the result."""
    return sys.stdout.isatty() and not isinstance(default_surface(), Log)


def write_failures(failures: Mapping[str, Failure]) -> None:
    """
    Write to standard error why runs failed, and how to learn more.

    Args:
        failures: Rest-uid, or what else the user calls the run -> its failure.
    """
    for name, failure in failures.items():
        title = "" if name == failure.rest_uid else f"{name}, "
        write_message(f"\n{title}{with_commands(failure.excerpt(), failure.rest_uid)}")
    if any(str(failure) != failure.excerpt() for failure in failures.values()):
        run = next(iter(failures.values())).rest_uid if len(failures) == 1 else "RUN"
        write_message(f"\nmore lines: {COMMAND} status {run} --why")
        if any(failure.components for failure in failures.values()):
            write_message(f"all lines:  {COMMAND} logs {run} --failed")


def exit_status(statuses: Iterable[Status], expected: int = 0) -> Exit:
    """Return the exit status for runs, of which at least ``expected`` should be over."""
    order = list(statuses)
    has_failed = any(status.is_final and not status.is_success for status in order)
    return Exit.RUN_FAILED if has_failed or sum(status.is_final for status in order) < expected else Exit.DONE


def print_statuses(statuses: Iterable[tuple[str, Status]], failures: Mapping[str, Failure], *, as_json: bool) -> None:
    """Print statuses, with the reasons that are known."""
    if as_json:
        print_document([document(run, status, failures.get(run)) for run, status in statuses])
    else:
        rows = [cells(run, status, _why(status, failures.get(run))) for run, status in statuses]
        print_table(STATUS_COLUMNS, rows)


def cells(run: str, status: Status, why: str) -> tuple[object, ...]:
    """Return a status in the order of `STATUS_COLUMNS`. The reason names commands to type."""
    return run, status.state, f"{status.total_progress or 0.0:.0%}", with_commands(why, run)


def _why(status: Status, failure: Failure | None) -> str:
    return str(status.hint or "") if failure is None else reason_of(status, failure)


def document(run: str, status: Status, failure: Failure | None = None) -> dict[str, Any]:
    """Return a status for JSON; with a failure, also why the run failed."""
    found = {
        "rest-uid": run,
        "state": status.state,
        "experiment-state": status.experiment_state,
        "exit-status": status.exit_status,
        "stage-state": status.stage_state,
        "current-stage": status.current_stage,
        "total-progress": status.total_progress,
        "error-description": status.error_description,
        "is-final": status.is_final,
        "is-success": status.is_success,
        "is-deleted": status.is_deleted,
        "hint": None if status.hint is None else with_commands(str(status.hint), run),
    }
    if failure is None:
        return found
    components = [
        {name.replace("_", "-"): value for name, value in asdict(component).items()} for component in failure.components
    ]
    return {**found, "failure": {"components": components, "log": failure.log, "note": failure.note}}


async def outputs(
    command: Command,
    run: OneRun,
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME", help="Print the content of this key-output.", autocompletion=completion.key_outputs
        ),
    ] = None,
    path: Annotated[str | None, typer.Argument(metavar="PATH", help="A file in it, if it is a folder.")] = None,
    as_json: Json = False,
) -> None:
    """
    List the key-outputs of a run, or print one of them.

    Examples:
      st4sd-async outputs demo-ab12cd-x7f3k2q9
      st4sd-async outputs demo-ab12cd-x7f3k2q9 Energies
    """
    if name is not None and as_json:
        raise UsageError("--json applies to the list; the content of a key-output is printed as it is")
    if name is not None:
        await _print_output(command, run, name, path)
        return
    found = await command.client.outputs(run)
    if as_json:
        print_document({name: output.raw for name, output in found.items()})
        return
    columns = ("name", "file", "version", "created", "final", "description")
    rows = [
        (
            name,
            output.filepath,
            output.version,
            output.created and f"{output.created:{DATE_FORMAT}}",
            output.final,
            output.description,
        )
        for name, output in found.items()
    ]
    if rows or not sys.stdout.isatty():
        print_table(columns, rows)
    if not rows:
        await _write_nothing_found(command.client, [run], "key-outputs")


async def _write_nothing_found(client: Client, runs: Sequence[str], what: str, *, is_warned: bool = False) -> None:
    """
    Report that runs have none of something, and why; of many runs, the first few.

    Args:
        client: The client.
        runs: The runs.
        what: What they have none of, in the plural.
        is_warned: Whether a log record has reported the runs that are not over.
    """
    for run in runs[:MAX_ERRORS]:
        with suppress(St4sdError):  # the run may be gone
            status = await client.status(run)
            if status.is_final or has_failed(status) or not is_warned:
                write_message(f"{run} has no {what}: {_why_nothing(run, status)}")
    if len(runs) > MAX_ERRORS:
        write_message(f"... and {len(runs) - MAX_ERRORS} more runs")


def _why_nothing(run: str, status: Status) -> str:
    if has_failed(status):
        return f"{with_commands(reason_of(status), run)}; see more with: {COMMAND} status {run} --why"
    if status.is_final:
        return f"it {status.state} without any"
    return f"it is not over yet ({status.state}); follow it with: {COMMAND} watch {run}"


async def _print_output(command: Command, run: str, name: str, path: str | None) -> None:
    output = await command.client.output(run, name, path)
    if output.is_folder and sys.stdout.isatty():
        advice = f"download it with: {COMMAND} download {run} --name {name} --unpack"
        raise UsageError(f"{name!r} is a folder, and its content a zip archive; {advice}")
    if sys.stdout.isatty():
        print_text(output.content.decode("utf-8", "surrogateescape"), end="")
    else:
        typer.echo(output.content, nl=False)


async def download(
    command: Command,
    runs: RunIds,
    to: Folder = Path("results"),
    names: OutputNames = None,
    unpack: Annotated[bool, typer.Option("--unpack", help="Unpack key-outputs that are folders.")] = False,
    files: Annotated[
        str | None,
        typer.Option(
            "--files",
            "-f",
            metavar="REGEX",
            help="Download files of components whose name matches this regular expression, instead of key-outputs.",
        ),
    ] = None,
    component: Component = None,
    stage: Stage = None,
    as_json: Json = False,
) -> Exit:
    r"""
    Download key-outputs of runs, or files of components.

    Examples:
      st4sd-async download demo-ab12cd-x7f3k2q9 --name Energies
      st4sd-async download demo-ab12cd-x7f3k2q9 --files '\.csv$' --component Compute

    Each run gets a folder in the target folder. To resume an interrupted download, type the same command again.
    """
    command.notes.interrupted = f"complete files are kept; {how_to_resume('resume')}"
    is_components = files is not None or component is not None or stage is not None
    if is_components and (names or unpack):
        raise UsageError("--name and --unpack select key-outputs; --files, --component and --stage select components")
    with download_bar(command.client) as progress:
        client = command.client.with_options(progress=progress)

        async def fetch(run: str) -> list[Download | DownloadFailed]:
            folder = to / folder_name(run)  # the user did not name this folder: if it is a link, it is not followed
            downloads = downloads_of(client)
            if not is_components:
                return await downloads.outputs(check_rest_uid(run), folder, names, unpack=unpack, is_chosen=False)
            rest_uid_or_uri = run if run.startswith(SCHEME) else check_rest_uid(run)
            return await downloads.files(rest_uid_or_uri, folder, component, stage, files, is_chosen=False)

        results, worst = await for_each_run(rest_uids(runs), fetch)
    every = [file for downloads in results.values() for file in downloads]
    failed = [file for file in every if isinstance(file, DownloadFailed)]
    for file in failed:
        write_error(message_of(file.error))
    complete = [file for file in every if isinstance(file, Download)]
    if as_json:
        print_document([asdict(file) for file in complete])
    elif complete:
        rows = [(file.path, file.size, file.sha256, file.source) for file in complete]
        print_table(("file", "bytes", "sha256", "source"), rows, shown=(0, 1))
    what = "such files" if is_components else "key-outputs"
    empty = [run for run, found in results.items() if not found]
    await _write_nothing_found(command.client, empty, what, is_warned=not is_components)
    return max([worst, *(exit_of(file.error) for file in failed)])


@contextmanager
def download_bar(client: Client) -> Generator[Progress | None]:
    """Display a bar while the block downloads; without a terminal, display nothing and yield None."""
    surface = default_surface(is_transient=True)
    if not isinstance(surface, Terminal):
        yield None
        return
    bar = DownloadBar()
    display = LiveDisplay("download", (), surface, single=lambda: bar.card, outage=lambda: client.outage)

    def progress(update: ProgressUpdate) -> None:
        bar.add(update)
        display.draw_if_due()

    display.draw()  # so that an outage is shown before anything is received
    try:
        yield progress
    finally:
        display.close()


class DownloadBar:
    """The progress of all downloads together: a bar for each of hundreds of runs would be useless."""

    def __init__(self) -> None:
        self._updates: dict[str, ProgressUpdate] = {}

    def add(self, update: ProgressUpdate) -> None:
        """Add progress; waits for a service that does not respond are left out, because the display shows these."""
        if update.unit != SECONDS:
            self._updates[update.work] = update

    @property
    def card(self) -> Card:
        """What to draw."""
        updates = list(self._updates.values())
        if not updates:
            return Card("")
        done, total = sum(update.done for update in updates), sum(update.total for update in updates)
        count = f"{done:,} of {total:,} {updates[-1].unit}, {format_size(sum(update.received for update in updates))}"
        title = updates[0].work if len(updates) == 1 else f"{updates[-1].unit} of {len(updates)} runs"
        return Card(title, badge=Badge(count, Tone.BUSY), bar=Bar(done / total if total else 0.0, Tone.BUSY))


async def properties(
    command: Command, runs: RunIds, names: PropertyNames = None, has_formulas: Formulas = False, as_json: Json = False
) -> Exit:
    """
    Print the measured properties of runs, as one table.

    Example: st4sd-async properties demo-ab12cd-x7f3k2q9 --name energy

    With --json, print a list with an object for each row; missing values are null.
    """
    order = rest_uids(runs)
    found = await command.client.properties(order[0] if len(order) == 1 else order, names)
    return print_properties(found, as_json=as_json, has_formulas=has_formulas)


def print_properties(found: Properties, *, as_json: bool, has_formulas: bool) -> Exit:
    """Print a table of properties, and report the runs that have none."""
    write_errors(found.problems)
    if as_json:
        print_document(list(found))
    elif found or not found.problems:
        print_table(found.columns, found.rows, is_spreadsheet=not has_formulas)
    return max(map(exit_of, found.problems.values()), default=Exit.DONE)


async def logs(
    command: Command,
    run: OneRun,
    component: Component = None,
    stage: Stage = None,
    is_stderr: Annotated[
        bool, typer.Option("--stderr", help="Print the standard error of components instead of their standard output.")
    ] = False,
    is_failed: Annotated[bool, typer.Option("--failed", help="Print both, of the components that failed.")] = False,
    as_json: Json = False,
) -> None:
    """
    Print the log of a run or, with --component, --stage, --stderr or --failed, what its components wrote.

    Example: st4sd-async logs demo-ab12cd-x7f3k2q9 --failed

    Only components that are over can be read. On Kubernetes, standard output also has what a component wrote to
    standard error.

    With --json, print an object: the log as "experiment", or the texts by component reference; with --failed, each is
    an object with "stderr" and "stdout".
    """
    if is_failed:
        if component is not None or stage is not None or is_stderr:
            raise UsageError("--failed selects the components itself: leave out --component, --stage and --stderr")
        await _print_failed(command, run, as_json=as_json)
        return
    if is_stderr:
        texts = await command.client.stderr(run, component, stage=stage)
    elif component is None and stage is None:
        texts = {"experiment": await command.client.log(run)}
    else:
        texts = await command.client.stdout(run, component, stage=stage)
    if as_json:
        print_document(texts)
    else:
        _print_texts(texts, has_names=len(texts) > 1)


async def _print_failed(command: Command, run: str, *, as_json: bool) -> None:
    """Print all that the failed components of a run wrote; if no component failed, why the run failed."""
    failure = await command.client.failure(run)
    texts: dict[str, dict[str, str]] = {}
    for component in failure.components if failure else ():
        reference = component.reference
        stage, _, name = reference.partition(".")
        selection = (run, f"{stage}.^{re.escape(name)}$")
        stderr, stdout = await command.client.stderr(*selection), await command.client.stdout(*selection)
        texts[reference] = {"stderr": stderr.get(reference, ""), "stdout": stdout.get(reference, "")}
    if as_json:
        print_document(texts)
    elif failure is None:
        write_message(f"{run} has not failed")
    elif not texts:
        print_text(str(failure))
    for reference, text in texts.items() if not as_json else ():
        names = {"stderr": "standard error", "stdout": "standard output"}
        _print_texts({f"{reference}, {names[kind]}": content for kind, content in text.items()}, has_names=True)


def _print_texts(texts: Mapping[str, str], *, has_names: bool) -> None:
    for what, text in texts.items():
        if has_names:
            print_text(f"==> {one_line(what)} <==")
        print_text(text, end="" if text[-1:] in ("", "\n") else "\n")


async def delete(
    command: Command,
    runs: RunIds,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Do not ask for confirmation. Without a terminal, never ask.")
    ] = False,
    as_json: Json = False,
) -> Exit:
    """
    Stop runs and delete them; their files stay.

    Example: st4sd-async delete demo-ab12cd-x7f3k2q9
    """
    order = rest_uids(runs)
    if sys.stdin.isatty() and not yes:
        what = order[0] if len(order) == 1 else f"{len(order)} runs"
        if not typer.confirm(f"stop and delete {what}?", err=True):
            write_error("nothing was deleted")
            return Exit.INTERRUPTED
    deleted, worst = await for_each_run(order, command.client.delete)
    if as_json:
        print_document(list(deleted))
    else:
        for run in deleted:
            print_text(run)
    return worst
