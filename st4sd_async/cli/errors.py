"""How the command fails: messages on standard error, advice to type, exit statuses and signals."""

from __future__ import annotations

import logging
import os
import re
import shlex
import signal
import sys
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from functools import cache
from types import FrameType
from typing import TextIO

import typer

from .._errors import (
    ConfigError,
    InvalidPackage,
    InvalidPayload,
    JournalCorrupt,
    JournalError,
    LaunchConflict,
    MissingCredentials,
    PayloadTooLarge,
    RunDeleted,
    RunFailed,
    St4sdError,
    StartOutcomeUnknown,
    UnknownExperiment,
    UnknownRun,
    WaitTimeout,
)
from .._util.printable import LAYOUT, one_line, printable, shorten

COMMAND = "st4sd-async"
MAX_COMMAND_LINE = 300
"""Characters of a command line that is repeated in a message; a longer one is not."""
TERMINATION_SIGNALS = ("SIGTERM", "SIGHUP")
"""Signals that end a command as Ctrl-C does; not every system has them."""


class Exit(IntEnum):
    """The exit statuses; if several apply, the highest one counts."""

    DONE = 0
    RUN_FAILED = 1
    USAGE = 2
    SERVICE = 3
    UNKNOWN_START = 4
    INTERRUPTED = 130
    CLOSED_PIPE = 141


class UsageError(Exception):
    """Wrong arguments or files, or something that is not installed. The text says what to do."""


def exit_of(error: BaseException) -> Exit:
    """
    Return the exit status for an error.

    Errors of files count as wrong usage, because the user named them. So does a payload or a package that the client
    refused before sending it.
    """
    if isinstance(error, StartOutcomeUnknown):
        return Exit.UNKNOWN_START
    if isinstance(error, RunFailed | RunDeleted | WaitTimeout) or isinstance(error.__cause__, RunFailed):
        return Exit.RUN_FAILED
    if isinstance(error, ConfigError | JournalError | MissingCredentials):
        return Exit.USAGE
    if isinstance(error, InvalidPayload | InvalidPackage) and error.status is None:
        return Exit.USAGE
    if isinstance(error, St4sdError):
        return Exit.SERVICE
    return Exit.INTERRUPTED if isinstance(error, KeyboardInterrupt | typer.Abort) else Exit.USAGE


# The library's advice names Python methods. On the command line, it names a command to type.
_ADVICE: dict[type, str] = {
    UnknownExperiment: f"list the experiments with: {COMMAND} list",
    UnknownRun: f"list the runs with: {COMMAND} list runs",
    PayloadTooLarge: "pass large files through a bucket, a dataset or a volume",
    InvalidPayload: f"see what a start takes with: {COMMAND} show {{experiment}}",
    RunFailed: f"see why with: {COMMAND} status RUN --why",
    StartOutcomeUnknown: f"look for the run before you start it again: {COMMAND} list runs",
    JournalCorrupt: "restore a copy of the journal; before you begin a new one, look for the runs of this one: "
    f"{COMMAND} list runs",
    LaunchConflict: "use another key or, if that launch failed or was not sent, correct it: "
    f"{COMMAND} batch retry TABLE {{experiment}} --corrected",
}
_COMMANDS = (
    (re.compile(r"`await run\.failure\(\)`"), f"`{COMMAND} status RUN --why`"),
    (re.compile(r"Config\(verify='ca\.pem'\) or ST4SD_CA_FILE"), "ST4SD_CA_FILE"),
    (re.compile(r"output\(run, '([^']*)'\) returns all of it"), rf"all of it: {COMMAND} outputs RUN \1"),
    (
        re.compile(r"download_component\(run, (\d+), '([^']*)', to\) has it too, from another service"),
        rf"another service may have it: {COMMAND} download RUN --stage \1 --component '^\2$'",
    ),
    (re.compile(r"return to one with client\.run\(rest_uid\)\.wait\(\)"), f"follow one with: {COMMAND} watch RUN"),
    (
        re.compile(r"run\.components\(\) lists the files of the components that are over"),
        "only files of components that are over can be downloaded",
    ),
    (re.compile(r"; or give fields instead of a payload, such as \w+=\{[^}]*\}"), ""),
    (re.compile(r"add the launch again, then run\(\)"), "run the batch with a script that adds them"),
)
"""Call in a text of the library -> the command for it."""
_CALL = re.compile(r"\b(?:client|run|batch)\.\w+|\bawait |Config\(|allow_missing=")
"""A call of Python in advice."""


@cache
def _log_messages() -> dict[str, str]:
    """Return log message of the library -> the one to show; "" if the command reports it itself."""
    from .._batch.batch import FAILED_EARLIER, LEFT_UNFINISHED  # lazily: most commands need no batch
    from .._batch.reconciler import UNDECIDABLE

    return {
        LEFT_UNFINISHED: "",
        UNDECIDABLE: "starts that may or may not have arrived: %d (%s); each may be one of the runs %s: delete those "
        f"that executed nothing with {COMMAND} delete RUN, or name the run of a launch that you know with "
        f"{COMMAND} batch adopt TABLE KEY RUN; then run the batch again",
        FAILED_EARLIER: "launches that failed before: %d; they are not started again",
    }


def message_of(error: BaseException, experiment: str = "") -> str:
    """Return what to report of an error, on one line; ``experiment`` is what was to be started."""
    return one_line(_message_of(error, shlex.quote(experiment) if experiment else "EXPERIMENT"))


def _message_of(error: BaseException, experiment: str) -> str:
    text = str(error)
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return shorten(f"{str(error.filename)!r}: {error.strerror}")
    if isinstance(error, StartOutcomeUnknown) and error.key is not None:
        return shorten(text.removesuffix(error.advice) + _how_to_resolve(error.key, error.candidates))
    for cls in type(error).__mro__:
        text = with_command(text, cls, experiment)
    advice = getattr(error, "advice", "")
    if _CALL.search(advice):  # no command does this
        text = text.replace(f"; {advice}", "")
    return shorten(with_commands(text))


def with_commands(text: str, run: str = "RUN") -> str:
    """Return a text of the library in which advice names commands to type, and not calls of Python."""
    for call, command in _COMMANDS:
        text = call.sub(command.replace(" RUN", f" {run}"), text)
    return text


def with_command(text: str, cls: type, experiment: str) -> str:
    """Return a message whose advice, if it is that of an error class, names a command to type."""
    advice = cls.__dict__.get("advice")
    return text.replace(advice, _ADVICE[cls].format(experiment=experiment)) if cls in _ADVICE and advice else text


def _how_to_resolve(key: str, candidates: Iterable[str]) -> str:
    """Return the advice for a launch that may or may not have been started."""
    name, found = shlex.quote(key), " or ".join(candidates)
    adopt, forget = f"{COMMAND} batch adopt TABLE {name} REST-UID", f"{COMMAND} batch forget TABLE {name}"
    if found:
        delete = (
            f"it may be {found}: delete those that executed nothing with {COMMAND} delete RUN, and run the batch again"
        )
        return f"{delete}; if one is its run: {adopt}; if there is none: {forget}"
    return f"if you know its run: {adopt}; if there is none: {forget}"


def message_of_log(record: logging.LogRecord) -> str:
    """Return what to report of a log record; "" if the command reports it itself."""
    text = "" if getattr(record, "is_outcome_unknown", False) else _log_messages().get(record.msg)
    return one_line(record.getMessage() if text is None else text and text % record.args)


def how_to_resume(what: str = "follow them again") -> str:
    """Return advice to type the command line of this process again."""
    line = shlex.join([COMMAND, *sys.argv[1:]])
    return f"{what} with: {line}" if len(line) <= MAX_COMMAND_LINE else f"{what} with the same command"


def write_message(text: str) -> None:
    """Write printable text to standard error. If the stream is closed, write nothing: the work goes on."""
    try:
        typer.echo(printable(text, LAYOUT), err=True)
    except OSError:
        discard(sys.stderr)


def write_error(text: str) -> None:
    """Write a line that begins with the name of the command to standard error."""
    write_message(f"{COMMAND}: {text}")


def discard(stream: TextIO) -> None:
    """Discard what is written to a stream from now on, and what is left in its buffer."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


@dataclass
class Notes:
    """What the last message of a command adds; commands change it as they proceed."""

    interrupted: str = "nothing is left running"
    """After an interrupt: what goes on, and how to resume; "" for nothing."""
    is_for_errors: bool = False
    """Whether it is added to errors too."""
    experiment: str = ""
    """The experiment to be started, for advice."""


@contextmanager
def exits_on_errors(*, install_advice: str = "") -> Generator[Notes]:
    """
    Turn expected errors of the block into a message and an exit status.

    SIGTERM and SIGHUP interrupt the block as Ctrl-C does, so that it closes what it opened.

    Args:
        install_advice: Added to the message if a package is not installed.

    Raises:
        typer.Exit: In place of `St4sdError`, `UsageError`, OSError, KeyboardInterrupt, and of ImportError if it names
            a package to install.
    """
    notes = Notes()
    try:
        with _signals_interrupt():
            yield notes
    except BrokenPipeError:
        # The reader of the output left; the command line framework handles that.
        raise
    except (St4sdError, UsageError, OSError) as error:
        note = notes.interrupted if notes.is_for_errors else ""
        raise _failed(exit_of(error), message_of(error, notes.experiment), note) from error
    except ImportError as error:
        # A module that is broken, not missing, is a defect and keeps its traceback.
        if "pip install" not in str(error):
            raise
        raise _failed(Exit.USAGE, str(error), install_advice) from error
    except (KeyboardInterrupt, typer.Abort) as error:  # the latter at a prompt
        raise _failed(Exit.INTERRUPTED, "interrupted", notes.interrupted) from error


def _failed(status: Exit, message: str, note: str) -> typer.Exit:
    write_error("; ".join(filter(None, (message, note))))
    return typer.Exit(status)


@contextmanager
def _signals_interrupt() -> Generator[None]:
    """Let termination signals interrupt the block; signals that are ignored stay ignored."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        handler = signal.getsignal(signal.SIGINT)
        # An event loop handles SIGINT by cancelling its main task. In the background of a shell script SIGINT is
        # ignored and has no handler, but this signal must end the command nevertheless.
        if callable(handler):
            handler(number, frame)
        else:
            raise KeyboardInterrupt

    numbers = [getattr(signal, name) for name in TERMINATION_SIGNALS if hasattr(signal, name)]
    changed = [number for number in numbers if signal.getsignal(number) is signal.SIG_DFL]
    for number in changed:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number in changed:
            signal.signal(number, signal.SIG_DFL)
