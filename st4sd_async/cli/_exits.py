"""How the command ends: exit statuses, messages, signals."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from types import FrameType
from typing import TextIO

import typer

from .._errors import (
    ConfigError,
    InvalidPackage,
    InvalidPayload,
    JournalError,
    MissingCredentials,
    RunDeleted,
    RunFailed,
    St4sdError,
    StartOutcomeUnknown,
    WaitTimeout,
)
from .._util.printable import LAYOUT, printable
from ._words import told

ENDING_SIGNALS = ("SIGTERM", "SIGHUP")
"""Signals that end a command as Ctrl-C does; not every system has them."""
EXITS = (
    "Exit status: 0 done; 1 a run failed, was deleted or is not over in time; 2 wrong usage, settings or files; "
    "3 the service refused, failed or cannot be reached; 4 a run may or may not have been started; 130 interrupted. "
    "Where several apply, the highest counts."
)
"""What the help of each command says at its end."""


class Exit(IntEnum):
    """The exit statuses; where several apply, the highest counts."""

    DONE = 0
    RUN_FAILED = 1
    USAGE = 2
    SERVICE = 3
    UNKNOWN_START = 4
    INTERRUPTED = 130
    CLOSED_PIPE = 141


class Unusable(Exception):
    """Something that this machine lacks; the text says what to do."""


def exit_of(error: BaseException) -> Exit:
    """
    The exit status for an error.

    All that neither the service nor an interrupt caused is wrong usage: files go where the user said. So is a
    payload or a package that was not sent.
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


def say(text: str) -> None:
    """Write printable text to standard error; a closed stream is no error, because the work goes on."""
    try:
        typer.echo(printable(text, LAYOUT), err=True)
    except OSError:
        silence(sys.stderr)


def silence(stream: TextIO) -> None:
    """Let nothing be written any more that nobody reads, not even what is left of it at the exit of the interpreter."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def complain(text: str) -> None:
    """Write a line about something that went wrong to standard error."""
    say(f"st4sd-async: {text}")


@dataclass
class Ending:
    """What is known of how a command ends, while it goes on."""

    farewell: str = "nothing is left running"
    """What is said after an interrupt: what goes on, and how to come back to it; "": nothing."""
    is_lasting: bool = False
    """Whether that holds, and is said, after an error too."""
    experiment: str = ""
    """What is to be started, for messages."""


@contextmanager
def ends_cleanly(*, advice: str = "") -> Generator[Ending]:
    """
    Turn the errors that a user can do something about into a line and an exit status, for the block.

    SIGTERM and SIGHUP end the block as Ctrl-C does, so that what it opened is closed.

    Args:
        advice: Another way, said after an error about something that is not installed.

    Raises:
        typer.Exit: Instead of `St4sdError`, `Unusable`, OSError, KeyboardInterrupt, and ImportError where a package
            is to be installed.
    """
    ending = Ending()
    try:
        with _signals_interrupt():
            yield ending
    except BrokenPipeError:
        # Whoever reads the output has enough; the command line framework ends quietly.
        raise
    except (St4sdError, Unusable, OSError) as error:
        farewell = ending.farewell if ending.is_lasting else ""
        message = "; ".join(filter(None, (told(error, ending.experiment), farewell)))
        raise _failed(message, exit_of(error)) from error
    except ImportError as error:
        # A module that is broken, not missing, deserves its traceback.
        if "pip install" not in str(error):
            raise
        raise _failed("; ".join(filter(None, (str(error), advice))), Exit.USAGE) from error
    except (KeyboardInterrupt, typer.Abort) as error:  # the latter at a prompt
        raise _failed("; ".join(filter(None, ("interrupted", ending.farewell))), Exit.INTERRUPTED) from error


def _failed(message: str, status: Exit) -> typer.Exit:
    complain(message)
    return typer.Exit(status)


@contextmanager
def _signals_interrupt() -> Generator[None]:
    """Let the signals that end a process interrupt the block instead, and leave the ignored ones ignored."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        handler = signal.getsignal(signal.SIGINT)
        # An event loop handles interrupts by cancelling its main task. Without a handler, as in
        # the background of a shell script, they are ignored, but this signal is not.
        if callable(handler):
            handler(number, frame)
        else:
            raise KeyboardInterrupt

    numbers = [getattr(signal, name) for name in ENDING_SIGNALS if hasattr(signal, name)]
    changed = [number for number in numbers if signal.getsignal(number) is signal.SIG_DFL]
    for number in changed:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number in changed:
            signal.signal(number, signal.SIG_DFL)
