"""Messages of the library in the words of the command line, and what to type to come back."""

from __future__ import annotations

import logging
import re
import shlex
import sys
from collections.abc import Iterable

from .._batch.batch import ENDED_BADLY, LEFT
from .._batch.reconciler import CANNOT_TELL
from .._errors import (
    InvalidPayload,
    JournalCorrupt,
    LaunchConflict,
    PayloadTooLarge,
    StartOutcomeUnknown,
    UnknownExperiment,
    UnknownRun,
)
from .._util.printable import one_line, shorten

COMMAND = "st4sd-async"
CORRECT = f"{COMMAND} batch retry TABLE {{experiment}} --corrected"
LONGEST_LINE = 300
"""Characters of a command line that is worth repeating."""

_ADVICE: dict[type, str] = {
    UnknownExperiment: f"list what there is with: {COMMAND} list",
    UnknownRun: f"list what there is with: {COMMAND} list runs",
    PayloadTooLarge: "bring big files through a bucket, a dataset or a volume",
    InvalidPayload: f"see what a start takes with: {COMMAND} show {{experiment}}",
    StartOutcomeUnknown: f"look for it before you start it again: {COMMAND} list runs",
    JournalCorrupt: f"restore a copy; with a new journal, first look for the runs of this one: {COMMAND} list runs",
    LaunchConflict: f"use another key, or have that one corrected, if it failed or was not sent: {CORRECT}",
}
"""What to do next, where the library names methods of Python."""
_LOGGED = {
    LEFT: "",
    CANNOT_TELL: "it cannot be told whether %d of the starts arrived (%s), because each may be one of the instances "
    f"%s: {COMMAND} delete RUN those that executed nothing, or {COMMAND} batch adopt TABLE KEY RUN where you know "
    "whose one is; then run again",
    ENDED_BADLY: f"launches that ended badly before: %d; plan another attempt with: {COMMAND} batch retry TABLE",
}
"""What is said in place of what the library logs."""
_TRIED = re.compile(r"[A-Z]+ \S+ was refused with \d+: ")
"""How an error of the service begins."""


def told(error: BaseException, experiment: str = "") -> str:
    """What to say of an error on one line; ``experiment``: what was to be started."""
    return one_line(_told(error, shlex.quote(experiment) if experiment else "EXPERIMENT"))


def gist(text: str) -> str:
    """The same without what was tried, for a line that is cut at its end."""
    return _TRIED.sub("", text)


def logged(record: logging.LogRecord) -> str:
    """What to say of what the library logs; "" if the command has words of its own for it."""
    words = "" if getattr(record, "is_outcome_unknown", False) else _LOGGED.get(record.msg)
    return one_line(record.getMessage() if words is None else words and words % record.args)


def _told(error: BaseException, experiment: str) -> str:
    text = str(error)
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return shorten(f"{str(error.filename)!r}: {error.strerror}")
    if isinstance(error, StartOutcomeUnknown) and error.key is not None:
        return shorten(text.removesuffix(error.advice) + _way_out(error.key, error.candidates))
    for cls in type(error).__mro__:
        advice = cls.__dict__.get("advice")
        if cls in _ADVICE and advice and text.endswith(advice):
            text = text.removesuffix(advice) + _ADVICE[cls].format(experiment=experiment)
    return shorten(text)


def _way_out(key: str, candidates: Iterable[str]) -> str:
    """How to settle a launch in doubt."""
    name, found = shlex.quote(key), " or ".join(candidates)
    idle = f"it may be {found}: {COMMAND} delete RUN those that executed nothing, and run again; " if found else ""
    yours = "you know whose one is" if found else "you know its run"
    adopt, forget = f"{COMMAND} batch adopt TABLE {name} REST-UID", f"{COMMAND} batch forget TABLE {name}"
    return f"{idle}if {yours}: {adopt}; if there is none: {forget}"


def way_back(what: str = "come back") -> str:
    """What to type to go on after the process of this command line."""
    line = shlex.join([COMMAND, *sys.argv[1:]])
    return f"{what} with: {line}" if len(line) <= LONGEST_LINE else f"{what} with the same command"
