"""The command ``st4sd-async demo``: real virtual experiments on this machine, from the push to the properties."""

from __future__ import annotations

import asyncio
import shlex
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import anyio
import typer

from .._client import Client
from .._display.live_display import Row
from .._errors import St4sdError
from .._render.cards import Badge, Tone, counted
from .._run import Run
from .._util.clock import SystemClock
from .._util.file_names import folder_name
from .._util.threads import in_thread
from ..models import Experiment, Failure, Status
from .errors import COMMAND, Exit, UsageError, exit_of, exits_on_errors, message_of, write_message
from .output import print_document, print_table
from .runs import live_display, row_of
from .serve import EngineName, Keep, embedded

if TYPE_CHECKING:
    from ..local import LocalServer

EXPERIMENT = "demo"
"""The example experiment that is run."""
WITHOUT_ENGINE = "or simulate the runs: st4sd-async demo --engine simulator"
TEXT_OUTPUT = "Energies"
"""A key-output of it that is a text file."""
PORT = 8080
"""Port of the server in `NEXT_STEPS`."""
NEXT_STEPS = r"""
Look at a result:
  cat {file}
Serve an ST4SD that stays, in a second shell in this folder:
  {command} serve --port {port} --api-key-file st4sd.key
Start a run on it, in this shell:
  export ST4SD_URL=http://127.0.0.1:{port} ST4SD_API_KEY="$(cat st4sd.key)"
  printf 'smiles\nCO\nCCO\n' > molecules.csv
  {command} start demo -i molecules.csv -v scale=2 --watch
Write your own experiment:
  {command} init my-experiment"""
"""What to try after the demo: commands to copy."""
POLL_INTERVAL = 0.3
"""Seconds between two polls of a run; the server is on this machine."""
BASE_TIMEOUT = 120.0
"""Seconds to wait for the runs..."""
TIMEOUT_PER_RUN = 20.0
"""...and for each of them in addition, because they wait for one another."""
MOLECULES_PER_RUN = 3
MOLECULES = (
    ("O", "water"),
    ("CO", "methanol"),
    ("CCO", "ethanol"),
    ("N", "ammonia"),
    ("CC(=O)O", "acetic acid"),
    ("NCC(=O)O", "glycine"),
    ("c1ccccc1", "benzene"),
    ("c1ccncc1", "pyridine"),
    ("CC(C)=O", "acetone"),
    ("ClC(Cl)Cl", "chloroform"),
    ("CS(C)=O", "dimethyl sulfoxide"),
    ("CBr", "bromomethane"),
)
"""SMILES and names of molecules whose elements the example knows."""


def demo(
    engine: Annotated[
        EngineName, typer.Option(help="elaunch executes the runs on this machine, simulator only simulates them.")
    ] = EngineName.ELAUNCH,
    runs: Annotated[int, typer.Option(min=1, metavar="N", help="Number of runs, all started at once.")] = 3,
    to: Annotated[
        Path,
        typer.Option(file_okay=False, metavar="DIR", help="Target folder of key-outputs; each run gets a folder."),
    ] = Path("results"),
    keep: Keep = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document instead of a table.")] = False,
) -> None:
    """
    Run an example experiment a few times with different inputs, without a cluster.

    Example: st4sd-async demo

    Starts an embedded ST4SD, pushes the example, starts all runs at once, displays their progress, downloads their
    key-outputs, and prints the properties that they measured.
    """
    attempts = plan(runs)
    with exits_on_errors(install_advice=WITHOUT_ENGINE if engine is EngineName.ELAUNCH else ""):
        to.mkdir(parents=True, exist_ok=True)
        write_message(f"starting an embedded ST4SD (engine {engine.value})")
        with embedded(engine, keep=keep) as server:
            package = _example(server)
            write_message(f"experiment {EXPERIMENT!r}, {counted(runs, 'run')} at once, results go to {to}")
            experiment = asyncio.run(_run_all(server, package, attempts, to))
        report(engine, experiment, attempts, to, as_json=as_json)
    raise typer.Exit(attempts_exit(attempts))


def _example(server: LocalServer) -> dict[str, Any]:
    """Return the definition of the example, or raise `UsageError` if git, which it is made with, is missing."""
    try:
        return server.example(EXPERIMENT)
    except RuntimeError as error:
        raise UsageError(str(error)) from error


async def _run_all(
    server: LocalServer, package: Mapping[str, Any], attempts: Sequence[Attempt], to: Path
) -> Experiment:
    client = Client(server.url, api_key=server.api_key)
    display = live_display("run", ("run", "state", "rest-uid", "progress"), outage=lambda: client.outage)
    async with display.drawn(SystemClock()), client:
        return await run_attempts(client, package, attempts, to, lambda attempt: display.update(row(attempt)))


def report(engine: EngineName, experiment: Experiment, attempts: Sequence[Attempt], to: Path, *, as_json: bool) -> None:
    """Print the properties; on standard error, what went wrong and where the files are."""
    for attempt in attempts:
        if attempt.error is not None:
            write_message(f"{attempt.name}: {message_of(attempt.error)}")
        elif attempt.failure is not None:
            write_message(f"{attempt.label}, {attempt.failure.excerpt()}")
        elif attempt.status is not None and not attempt.status.is_success:
            write_message(f"{attempt.name}: {attempt.status}")
    write_message(f"{sum(len(attempt.files) for attempt in attempts)} files in {to}, a folder for each run")
    if as_json:
        print_document(attempts_document(engine.value, experiment, attempts))
        return
    print_table(*table(attempts), is_spreadsheet=True)
    sys.stdout.flush()  # before the next lines, if both go to one file
    if attempts_exit(attempts) is Exit.DONE:
        file = shlex.quote(str(attempts[0].files.get(TEXT_OUTPUT, to)))
        write_message(NEXT_STEPS.format(file=file, port=_free_port(), command=COMMAND))


def _free_port() -> int:
    """Return `PORT`, or another one if it is in use."""
    with socket.socket() as listener:
        try:
            listener.bind(("127.0.0.1", PORT))
        except OSError:
            listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@dataclass
class Attempt:
    """A run of the demo, from its plan to its results; changes as the run proceeds."""

    label: str
    """Its name until it has a rest-uid."""
    inputs: Mapping[str, str]
    """filename -> text."""
    variables: Mapping[str, Any]
    """Variables to set."""
    rest_uid: str | None = None
    """Its rest-uid. None means it is not started yet."""
    status: Status | None = None
    """The last status. None means there is none yet."""
    files: dict[str, Path] = field(default_factory=dict)
    """key-output -> the file it was saved to."""
    properties: dict[str, list[Any]] = field(default_factory=dict)
    """column -> values; {} before they are measured."""
    failure: Failure | None = None
    """Why its run failed. None means it did not, or this is not known yet."""
    error: Exception | None = None
    """Why it could not be watched or collected. None means there was no error."""
    started_at: float | None = None
    """When its start was sent, on the monotonic clock."""
    ended_at: float | None = None
    """When its end was seen, on the same clock."""

    @property
    def name(self) -> str:
        """The rest-uid, or the label if there is none yet."""
        return self.rest_uid or self.label

    @property
    def seconds(self) -> float:
        """How long it has taken so far, or took."""
        return 0.0 if self.started_at is None else (self.ended_at or time.monotonic()) - self.started_at

    @property
    def payload(self) -> dict[str, Any]:
        """The start payload."""
        inputs = [{"filename": name, "content": text} for name, text in self.inputs.items()]
        return {"inputs": inputs, "variables": dict(self.variables)}

    @property
    def exit(self) -> Exit:
        """The exit status that it requires."""
        if self.error is not None:
            return exit_of(self.error)
        return Exit.DONE if self.status is not None and self.status.is_success else Exit.RUN_FAILED


def plan(runs: int) -> list[Attempt]:
    """
    Return what to start: each run has its own ``molecules.csv`` and its own ``scale``.

    The molecules repeat after a while, the scale (1, 2, 3...) does not.
    """
    return [
        Attempt(f"run {number}", {"molecules.csv": _molecules(number - 1)}, {"scale": number})
        for number in range(1, runs + 1)
    ]


def _molecules(index: int) -> str:
    """Return a CSV file with a few molecules."""
    first = index * MOLECULES_PER_RUN
    rows = [MOLECULES[number % len(MOLECULES)] for number in range(first, first + MOLECULES_PER_RUN)]
    return "".join(f"{smiles},{name}\n" for smiles, name in [("smiles", "name"), *rows])


OnChange = Callable[[Attempt], object]
"""Called with each attempt that changed."""


async def run_attempts(
    client: Client, package: Mapping[str, Any], attempts: Sequence[Attempt], to: Path, on_change: OnChange
) -> Experiment:
    """
    Push an experiment, start all attempts at once, and watch and collect their runs; errors are stored in them.

    An error of one attempt does not affect the others. Cancellation leaves the runs to the server.

    Args:
        client: An open client.
        package: The definition of the experiment.
        attempts: What to start; updated in place.
        to: Target folder of key-outputs; each run gets a folder, named by its rest-uid.
        on_change: Called with each change.

    Returns:
        The experiment.

    Raises:
        St4sdError: The package could not be pushed; nothing was started.
    """
    experiment = await client.push(package)
    timeout = BASE_TIMEOUT + TIMEOUT_PER_RUN * len(attempts)
    async with anyio.create_task_group() as tasks:
        for attempt in attempts:
            tasks.start_soon(_run_one, client, experiment, attempt, to, on_change, timeout)
    return experiment


async def _run_one(
    client: Client, experiment: Experiment, attempt: Attempt, to: Path, on_change: OnChange, timeout: float
) -> None:
    try:
        attempt.started_at = time.monotonic()
        on_change(attempt)
        run = await client.start(experiment, attempt.payload)
        attempt.rest_uid = run.id
        async with aclosing(run.watch(timeout=timeout, interval=POLL_INTERVAL)) as statuses:
            async for status in statuses:
                attempt.status = status
                attempt.ended_at = time.monotonic() if status.is_final else None
                on_change(attempt)
        if attempt.status is not None and not attempt.status.is_success:
            attempt.failure = await run.failure()
            on_change(attempt)
        await _collect(run, attempt, to)
    except (St4sdError, OSError) as error:
        attempt.error = error
        attempt.ended_at = attempt.ended_at or time.monotonic()
        on_change(attempt)


async def _collect(run: Run, attempt: Attempt, to: Path) -> None:
    """Save the key-outputs of a run that is over and, if it succeeded, read its properties."""
    folder = to / folder_name(run.id)

    async def save(name: str) -> None:
        output = await run.output(name)
        attempt.files[name] = await in_thread(output.save, folder)

    async def measure() -> None:
        attempt.properties = await run.client.instances.properties(run.id)

    names = sorted(await run.outputs())
    is_success = attempt.status is not None and attempt.status.is_success
    await _finish_all([*(partial(save, name) for name in names), *([measure] if is_success else [])])


async def _finish_all(steps: Iterable[Callable[[], Awaitable[None]]]) -> None:
    """Take steps concurrently, each to its end; then raise the first of their errors."""
    errors: list[Exception] = []

    async def take(step: Callable[[], Awaitable[None]]) -> None:
        try:
            await step()
        except (St4sdError, OSError) as error:
            errors.append(error)

    async with anyio.create_task_group() as tasks:
        for step in steps:
            tasks.start_soon(take, step)
    if errors:
        raise errors[0]


def attempts_exit(attempts: Iterable[Attempt]) -> Exit:
    """Return the exit status that the worst of the attempts requires."""
    return max((attempt.exit for attempt in attempts), default=Exit.DONE)


def row(attempt: Attempt) -> Row:
    """Return an attempt as a row of the display."""
    known = row_of(attempt.label, attempt.status or Status.pending(), attempt.rest_uid, attempt.failure)
    details = (attempt.rest_uid or "-", *known.details)
    if attempt.error is None:
        return replace(known, details=details)
    return Row(attempt.label, Badge("error", Tone.BAD), details, message_of(attempt.error))


def attempts_document(engine: str, experiment: Experiment, attempts: Sequence[Attempt]) -> dict[str, Any]:
    """Return everything known about the attempts, for JSON."""
    return {
        "engine": engine,
        "experiment": experiment.identifier,
        "runs": [_run_document(attempt) for attempt in attempts],
    }


def _run_document(attempt: Attempt) -> dict[str, Any]:
    return {
        "rest-uid": attempt.rest_uid,
        "inputs": dict(attempt.inputs),
        "variables": dict(attempt.variables),
        "is-success": attempt.status is not None and attempt.status.is_success,
        "status": None if attempt.status is None else _status_document(attempt.status),
        "seconds": round(attempt.seconds, 1),
        "files": {name: str(path) for name, path in sorted(attempt.files.items())},
        "properties": attempt.properties,
        "error": None if attempt.error is None else str(attempt.error),
    }


def _status_document(status: Status) -> dict[str, Any]:
    return {
        "experiment-state": status.experiment_state,
        "exit-status": status.exit_status,
        "total-progress": status.total_progress,
        "error-description": status.error_description,
    }


def table(attempts: Sequence[Attempt]) -> tuple[list[str], list[list[str]]]:
    """
    Return the properties of all attempts as the columns and rows of one table.

    A row begins with the rest-uid and the variables that were set; properties that a run did not measure are "".
    """
    variables = list(dict.fromkeys(name for attempt in attempts for name in attempt.variables))
    measured = list(dict.fromkeys(name for attempt in attempts for name in attempt.properties))
    rows: list[list[str]] = []
    for attempt in attempts:
        head = [attempt.name, *(str(attempt.variables.get(name, "")) for name in variables)]
        columns = [attempt.properties.get(name, []) for name in measured]
        rows += [[*head, *map(str, values)] for values in zip_longest(*columns, fillvalue="")]
    return ["rest-uid", *variables, *measured], rows
