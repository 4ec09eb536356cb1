"""The command's options, and the table of its subcommands."""

from __future__ import annotations

import inspect
import logging
import re
from collections.abc import Callable, Iterator, MutableMapping
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Any

import typer
import typer.core
import typer.main

from .._display.live_display import is_outage_shown
from .connect import keeps_connection, with_client
from .errors import COMMAND, message_of_log, write_error

EXIT_STATUSES = (
    "Exit status: 0 success; 1 a run failed, was deleted or did not end in time, or check found a problem; "
    "2 wrong usage, settings or files; "
    "3 the service failed, refused a request or cannot be reached; 4 a run may or may not have been started; "
    "130 interrupted. If several apply, the highest one."
)
"""The last paragraph of the command's help."""
WHERE_EXIT_STATUSES_ARE = f"Exit status: see {COMMAND} --help."
"""The last paragraph of each subcommand's help."""
_EXAMPLE = re.compile(r"^(?=Examples?:)", re.MULTILINE)


def help_of(function: Callable[..., object]) -> str:
    """Return the help in a docstring. The lines of its examples are not wrapped, so that they can be copied."""
    return _EXAMPLE.sub("\b\n", inspect.cleandoc(function.__doc__ or ""))


class Subcommands(MutableMapping[str, Any]):
    """
    The subcommands of a group by name, in order. Each is imported and made when it is first looked up.

    The modules of all of them, and their options, take longer than most of them run.

    Args:
        lazy: Name -> a function that makes it.
        others: Those that are made already, which come last.
    """

    def __init__(self, lazy: dict[str, Callable[[], Any]], others: dict[str, Any]) -> None:
        self._lazy, self._made = lazy, dict(others)
        self._names = dict.fromkeys((*lazy, *others))

    def __getitem__(self, name: str) -> Any:
        if name not in self._made:
            self._made[name] = self._lazy[name]()
        return self._made[name]

    def __setitem__(self, name: str, command: Any) -> None:
        self._names[name] = None
        self._made[name] = command

    def __delitem__(self, name: str) -> None:
        del self._names[name]
        self._made.pop(name, None)

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


class Group(typer.core.TyperGroup):
    """A group of `Subcommands`."""

    def __init__(self, *, name: str, commands: dict[str, Any], **others: Any) -> None:
        super().__init__(name=name, commands={}, **others)
        self.commands = Subcommands(LAZY[name], commands)


LAZY: dict[str, dict[str, Callable[[], Any]]] = {}
"""Name of a group -> name of each subcommand -> a function that makes it."""


def _typer(name: str, *, completion: bool = False) -> typer.Typer:
    return typer.Typer(
        name=name,
        cls=Group,
        no_args_is_help=True,
        add_completion=completion,
        rich_markup_mode=None,
        # Tracebacks with the values of variables would show credentials.
        pretty_exceptions_enable=False,
    )


app: typer.Typer = _typer("st4sd-async", completion=True)
batch_app: typer.Typer = _typer("batch")


class StandardErrorHandler(logging.Handler):
    """
    Writes the library's log records to standard error: warnings, and the beginning and end of outages.

    Args:
        is_verbose: Whether to write all records.
    """

    def __init__(self, *, is_verbose: bool) -> None:
        super().__init__()
        self._is_verbose = is_verbose

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether to write a record. If a display shows the outages, they are not written too."""
        if self._is_verbose:
            return True
        return not is_outage_shown() if hasattr(record, "outage") else record.levelno >= logging.WARNING

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        if message := message_of_log(record):
            write_error(message)


def _show_version(wanted: bool) -> None:
    if not wanted:
        return
    try:
        typer.echo(f"st4sd-async {version('st4sd_async')}")
    except PackageNotFoundError:
        typer.echo("st4sd-async, unknown version: the package is not installed")
    raise typer.Exit


@keeps_connection
def options(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Log each request to standard error.")] = False,
) -> None:
    """
    ST4SD, the Simulation Toolkit for Scientific Discovery, on the command line.

    Example: st4sd-async start demo -i molecules.csv --watch

    To connect, set ST4SD_URL to the address of the deployment, and ST4SD_API_KEY or ST4SD_AUTH_TOKEN to your
    credential. Set ST4SD_CA_FILE to the certificate of a private authority, if there is one. Without a deployment,
    try st4sd-async demo.

    Results go to standard output, progress and errors to standard error.
    """
    logger = logging.getLogger("st4sd_async")
    logger.handlers = [StandardErrorHandler(is_verbose=verbose)]
    logger.setLevel(logging.DEBUG if verbose else logging.INFO)


@keeps_connection
def batch_options() -> None:
    """
    Start many runs, each exactly once.

    Example: st4sd-async batch run launches.csv demo --output Energies

    Each line of a table is a launch. Its run is watched until it is over, and its results are downloaded.

    A journal beside the table records progress and survives a crash.
    """


def _lazy(name: str, path: str, *, client: bool = True, validate: bool = True) -> Callable[[], Any]:
    """
    Return a function that imports and makes a subcommand.

    Args:
        name: Its name.
        path: Module in this package and function, such as "runs.status".
        client: Whether the function gets a client; else it is a whole subcommand.
        validate: Whether the client checks the login first.
    """

    def make() -> Any:
        module, _, attribute = path.partition(".")
        verb = getattr(import_module(f".{module}", __package__), attribute)
        alone = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
        function = with_client(verb, validate=validate) if client else verb
        alone.command(name, help=help_of(verb), epilog=WHERE_EXIT_STATUSES_ARE)(function)
        return typer.main.get_command(alone)

    return make


app.callback(help=help_of(options), epilog=EXIT_STATUSES)(options)
batch_app.callback(help=help_of(batch_options), epilog=WHERE_EXIT_STATUSES_ARE)(batch_options)
app.add_typer(batch_app, name="batch")

LAZY["st4sd-async"] = {
    "push": _lazy("push", "experiments.push"),
    "list": _lazy("list", "experiments.list_"),
    "show": _lazy("show", "experiments.show"),
    "start": _lazy("start", "experiments.start"),
    "status": _lazy("status", "runs.status"),
    "watch": _lazy("watch", "runs.watch"),
    "outputs": _lazy("outputs", "runs.outputs"),
    "download": _lazy("download", "runs.download"),
    "properties": _lazy("properties", "runs.properties"),
    "logs": _lazy("logs", "runs.logs"),
    "delete": _lazy("delete", "runs.delete"),
    "init": _lazy("init", "packages.init", client=False),
    "check": _lazy("check", "packages.check", client=False),
    "demo": _lazy("demo", "demo.demo", client=False),
    "serve": _lazy("serve", "serve.serve", client=False),
}
LAZY["batch"] = {
    "run": _lazy("run", "batch.run"),
    "status": _lazy("status", "batch.status", validate=False),
    "watch": _lazy("watch", "batch.watch", validate=False),
    "retry": _lazy("retry", "batch.retry", validate=False),
    "properties": _lazy("properties", "batch.properties"),
    "report": _lazy("report", "report.report", client=False),
    "find": _lazy("find", "batch.find"),
    "adopt": _lazy("adopt", "batch.adopt"),
    "forget": _lazy("forget", "batch.forget", validate=False),
}
