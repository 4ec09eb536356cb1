"""Why does a run not run? Pure rules on the words of a status; the texts of the servers only refine them."""

from __future__ import annotations

import re
from dataclasses import replace
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

from .._util.field_docs import document_fields
from .._util.printable import printable, shorten
from .finality import IMAGE_PULL

if TYPE_CHECKING:
    from .._render.cards import Card, Tone

LONGEST_LINE = 200
"""Characters of a hint on one line."""
MAX_WORDS_LENGTH = 4000
"""Characters of the service's text in a card."""


@document_fields
class Reason(StrEnum):
    """Why a run does not run, or did not end well."""

    PENDING = "pending"
    """The service has no status of it yet."""
    INITIALISING = "initialising"
    """The orchestrator sets it up."""
    UNSCHEDULED = "unscheduled"
    """It waits until the cluster has room for it."""
    UNSCHEDULABLE = "unschedulable"
    """An image cannot be pulled; it may come back."""
    WAITING_ON_RESOURCE = "waiting_on_resource"
    """The orchestrator runs, and waits for resources for a component."""
    SUSPENDED = "suspended"
    """The orchestrator runs, and its components are suspended."""
    SETUP_FAILED = "setup_failed"
    """The orchestrator refused its arguments or the package."""
    PACKAGE_NOT_FETCHED = "package_not_fetched"
    """The init container that brings the package failed, as in a git clone."""
    INPUTS_NOT_FETCHED = "inputs_not_fetched"
    """The init container that brings files from S3 failed."""
    ORCHESTRATOR_KILLED = "orchestrator_killed"
    """The orchestrator's container ended before the run did; the text tells if memory was short."""
    ORCHESTRATOR_FAILED = "orchestrator_failed"
    """The orchestrator ended on an error of its own."""
    COMPONENT_FAILED = "component_failed"
    """A component ended with an error."""
    STOPPED = "stopped"
    """It was told to stop."""
    NO_EXIT_STATUS = "no_exit_status"
    """It ended, and the service does not say how: not yet, or never."""
    DELETED = "deleted"
    """The instance was deleted."""
    UNKNOWN = "unknown"
    """The service says a word that this client does not know."""


WAITING = frozenset(
    {
        Reason.PENDING,
        Reason.INITIALISING,
        Reason.UNSCHEDULED,
        Reason.UNSCHEDULABLE,
        Reason.WAITING_ON_RESOURCE,
        Reason.SUSPENDED,
        Reason.UNKNOWN,
    }
)
"""Reasons that may pass; nothing is wrong with the run while it is not over."""
STUCK = frozenset({Reason.UNSCHEDULABLE, Reason.SUSPENDED})
"""Those of them that may need somebody to act."""

_ADVICE = {
    Reason.PENDING: "no status yet, as in the first seconds of a run; if it stays so, ask your administrator",
    Reason.INITIALISING: "the orchestrator sets it up; no component runs yet",
    Reason.UNSCHEDULED: "waits for resources",
    Reason.UNSCHEDULABLE: "an image cannot be pulled; the cluster keeps trying, ask your administrator to repair it",
    Reason.WAITING_ON_RESOURCE: "a component waits for resources; it goes on when there are some",
    Reason.SUSPENDED: "its components are suspended; if it stays so, ask your administrator",
    Reason.SETUP_FAILED: "no component ran; correct the start payload or the package and start again",
    Reason.PACKAGE_NOT_FETCHED: "check the address of the package, its branch or commit, and the access to it",
    Reason.INPUTS_NOT_FETCHED: "check the S3 bucket, the names of the files, and the access to them",
    Reason.ORCHESTRATOR_KILLED: "its container ended too early; start again, or ask your administrator",
    Reason.ORCHESTRATOR_FAILED: "it met an error of its own; show this to your administrator",
    Reason.COMPONENT_FAILED: "a component ended with an error; its own files tell more",
    Reason.STOPPED: "it was told to stop before it was done",
    Reason.NO_EXIT_STATUS: "it ended, and the service does not say how; if it stays so, look at its outputs",
    Reason.DELETED: "the service has no such run: it was deleted, or its rest-uid is mistyped",
    Reason.UNKNOWN: "the service says what this client does not know; a newer version may",
}
_OUT_OF_MEMORY = re.compile("OOMKilled", re.IGNORECASE)
_MORE_MEMORY = "it ran out of memory; start again with more in orchestrator_resources"

_WHOLE = re.compile("(.*)")
_GIST = {
    Reason.PENDING: re.compile(r"(there is no Pod for it)|does not have a status yet"),
    Reason.UNSCHEDULED: re.compile(r"nodes are available: (.*?)\.?(?: preemption:.*)?$"),
    Reason.UNSCHEDULABLE: re.compile(r"pull images? (.+)", re.IGNORECASE),
    Reason.PACKAGE_NOT_FETCHED: re.compile(r" and message (.+)"),
    Reason.INPUTS_NOT_FETCHED: re.compile(r" and message (.+)"),
    Reason.ORCHESTRATOR_KILLED: re.compile(r"elaunch-primary (.+)"),
    Reason.COMPONENT_FAILED: re.compile(r"(Job: .+)"),
}
"""The part of a text that is worth showing beside the reason; without a match it is the whole."""

_NO_WORDS = {"", "none", "n/a"}
_BY_STATE: dict[str, Reason | None] = {
    **dict.fromkeys(_NO_WORDS, Reason.PENDING),
    **dict.fromkeys(("initialising", "initializing"), Reason.INITIALISING),
    "unscheduled": Reason.UNSCHEDULED,
    "unschedulable": Reason.UNSCHEDULABLE,
    "waiting_on_resource": Reason.WAITING_ON_RESOURCE,
    "suspended": Reason.SUSPENDED,
    "component_shutdown": None,
    "finished": Reason.NO_EXIT_STATUS,
}
# The state of the stage is written a moment before the state of the experiment follows it.
_BY_STAGE = {
    "waiting_on_resource": Reason.WAITING_ON_RESOURCE,
    "suspended": Reason.SUSPENDED,
    "failed": Reason.COMPONENT_FAILED,
}
_UNEXPECTED = "Unexpected exception reached top level"
# The names of the containers are those that the operator of the cluster (st4sd-runtime-k8s) gives them.
_FAILURES = (
    (IMAGE_PULL, Reason.UNSCHEDULABLE),
    (re.compile(r"(?:git-sync|s3-package)(?:(?!git-sync|s3-package)\S)* failed"), Reason.PACKAGE_NOT_FETCHED),
    (re.compile(r"s3-fetch failed"), Reason.INPUTS_NOT_FETCHED),
    (re.compile(r"elaunch-primary|exitCode", re.IGNORECASE), Reason.ORCHESTRATOR_KILLED),
    (re.compile(r"\S"), Reason.SETUP_FAILED),
    (re.compile(""), Reason.NO_EXIT_STATUS),
)


def with_lines(text: str) -> str:
    """A text of the service with real line breaks; the final status has two characters in place of each."""
    return text.replace("\\n", "\n").strip()


@document_fields
class Hint(NamedTuple):
    """Why a run does not run, and what to do about it: ``print(hint)`` says it in one line."""

    reason: Reason
    """Why, for programs to look at."""
    text: str | None
    """What the service said, whole, with real line breaks; None if nothing."""

    @property
    def gist(self) -> str:
        """The part of the text that matters, on one line; "" if there is none."""
        line = printable(" ".join((self.text or "").split()))
        found = _GIST.get(self.reason, _WHOLE).search(line)
        return found[1] or "" if found else line

    @property
    def advice(self) -> str:
        """What it means, and what to do or whom to ask."""
        short = self.reason is Reason.ORCHESTRATOR_KILLED and _OUT_OF_MEMORY.search(self.text or "")
        return _MORE_MEMORY if short else _ADVICE[self.reason]

    def __str__(self) -> str:
        line = f"{self.reason.replace('_', ' ')}: {self.advice}"
        return f"{line} ({shorten(self.gist, LONGEST_LINE - len(line) - len(' ()'))})" if self.gist else line


def with_hint(card: Card, hint: Hint, tone: Tone) -> Card:
    """Return a card with a hint as its alert; the service's text is added if it says more than the hint."""
    reason, text = hint.reason.replace("_", " "), (hint.text or "").strip()
    return replace(
        card,
        alert=f"{reason}: {hint.gist}" if hint.gist else reason,
        advice=hint.advice,
        words="" if " ".join(text.split()) == hint.gist else text[:MAX_WORDS_LENGTH],
        tone=tone,
    )


def explain(state: str | None, exit_status: str | None, stage_state: str | None, text: str | None) -> Hint | None:
    """
    Why a run does not run, or did not end well; None while it runs as it should, and after Success.

    Args:
        state: The experiment-state.
        exit_status: The exit-status.
        stage_state: The stage-state.
        text: The error-description, or what the service said in place of a status.
    """
    said = with_lines(text or "")
    reason = _reason((state or "").casefold(), (exit_status or "").casefold(), (stage_state or "").casefold(), said)
    if reason is Reason.UNKNOWN:
        said = f"experiment-state {str(state)!r}, exit-status {str(exit_status)!r}\n{said}".strip()
    return Hint(reason, said or None) if reason else None


def _reason(state: str, exit_status: str, stage_state: str, text: str) -> Reason | None:
    if exit_status == "success":
        return None
    if exit_status == "stopped":
        return Reason.STOPPED
    if exit_status == "failed":
        if state == "failed":
            return Reason.SETUP_FAILED
        return Reason.ORCHESTRATOR_FAILED if text.startswith(_UNEXPECTED) else Reason.COMPONENT_FAILED
    if exit_status not in _NO_WORDS:
        return Reason.UNKNOWN
    if state == "failed":
        return next(reason for pattern, reason in _FAILURES if pattern.search(text))
    if state == "running":
        return _BY_STAGE.get(stage_state)
    return _BY_STATE.get(state, Reason.UNKNOWN)
