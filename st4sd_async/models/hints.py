"""Explain why a run does not run. Pure rules on the fields of a status; the service's text only adds details."""

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

MAX_LINE_LENGTH = 200
"""Characters of a hint on one line."""
MAX_WORDS_LENGTH = 4000
"""Characters of the service's text in a card."""


@document_fields
class Reason(StrEnum):
    """Why a run is not running, or did not succeed."""

    PENDING = "pending"
    """The service has no status of the run yet."""
    INITIALISING = "initialising"
    """The orchestrator is setting the run up."""
    UNSCHEDULED = "unscheduled"
    """The run waits until the cluster has the resources."""
    UNSCHEDULABLE = "unschedulable"
    """An image cannot be pulled; the run starts if that is repaired."""
    WAITING_ON_RESOURCE = "waiting_on_resource"
    """The orchestrator runs and waits for resources for a component."""
    SUSPENDED = "suspended"
    """The orchestrator runs, but its components are suspended."""
    SETUP_FAILED = "setup_failed"
    """The orchestrator refused its arguments or the package."""
    PACKAGE_NOT_FETCHED = "package_not_fetched"
    """The init container that fetches the package failed, for example in a git clone."""
    INPUTS_NOT_FETCHED = "inputs_not_fetched"
    """The init container that fetches files from S3 failed."""
    ORCHESTRATOR_KILLED = "orchestrator_killed"
    """The orchestrator's container ended before the run did; the text mentions it if memory ran out."""
    ORCHESTRATOR_FAILED = "orchestrator_failed"
    """The orchestrator ended with an internal error."""
    COMPONENT_FAILED = "component_failed"
    """A component ended with an error."""
    STOPPED = "stopped"
    """The run was stopped by a user."""
    NO_EXIT_STATUS = "no_exit_status"
    """The run ended, and the service has no exit-status for it, or not yet."""
    DELETED = "deleted"
    """The instance was deleted."""
    UNKNOWN = "unknown"
    """The service used a word that this client does not know."""


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
"""Reasons that may pass without any action while the run is not over."""
FAILED = frozenset(
    {
        Reason.SETUP_FAILED,
        Reason.PACKAGE_NOT_FETCHED,
        Reason.INPUTS_NOT_FETCHED,
        Reason.ORCHESTRATOR_KILLED,
        Reason.ORCHESTRATOR_FAILED,
        Reason.COMPONENT_FAILED,
        Reason.STOPPED,
    }
)
"""Reasons of runs that failed or were stopped, even if they are not over yet."""
STUCK = frozenset({Reason.UNSCHEDULABLE, Reason.SUSPENDED})
"""Waiting reasons that an administrator may have to resolve."""

_ADVICE = {
    Reason.PENDING: "no status yet, as in the first seconds of a run",
    Reason.INITIALISING: "the orchestrator is setting it up; no component runs yet",
    Reason.UNSCHEDULED: "waits for resources",
    Reason.UNSCHEDULABLE: "an image cannot be pulled; the cluster keeps trying, ask your administrator to repair it",
    Reason.WAITING_ON_RESOURCE: "a component waits for resources; it continues when they are available",
    Reason.SUSPENDED: "its components are suspended; if this persists, ask your administrator",
    Reason.SETUP_FAILED: "no component ran; correct the start payload or the package and start again",
    Reason.PACKAGE_NOT_FETCHED: "check the URL of the package, its branch or commit, and the access to it",
    Reason.INPUTS_NOT_FETCHED: "check the S3 bucket or dataset, the names of the files, and the access to them",
    Reason.ORCHESTRATOR_KILLED: "its container ended too early; start again, or ask your administrator",
    Reason.ORCHESTRATOR_FAILED: "it had an internal error; show this to your administrator",
    Reason.COMPONENT_FAILED: "see `await run.failure()`",
    Reason.STOPPED: "it was stopped before it ended",
    Reason.NO_EXIT_STATUS: "the run has ended; if this persists, check its outputs",
    Reason.DELETED: "the service has no such run: it was deleted, or its rest-uid is mistyped",
    Reason.UNKNOWN: "the service used a word that this client does not know; a newer version may know it",
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
"""The part of a text to show beside the reason; without a match, the whole text."""

_ESCAPED_LINE_BREAK = re.compile(r"(?<!\\)\\++n")
_NO_STATUS = {"", "none", "n/a"}
_BY_STATE: dict[str, Reason | None] = {
    **dict.fromkeys(_NO_STATUS, Reason.PENDING),
    **dict.fromkeys(("initialising", "initializing"), Reason.INITIALISING),
    "unscheduled": Reason.UNSCHEDULED,
    "unschedulable": Reason.UNSCHEDULABLE,
    "waiting_on_resource": Reason.WAITING_ON_RESOURCE,
    "suspended": Reason.SUSPENDED,
    "component_shutdown": None,
    "finished": Reason.NO_EXIT_STATUS,
}
# The state of the stage changes a moment before the state of the experiment.
_BY_STAGE = {
    "waiting_on_resource": Reason.WAITING_ON_RESOURCE,
    "suspended": Reason.SUSPENDED,
    "failed": Reason.COMPONENT_FAILED,
}
_UNEXPECTED = "Unexpected exception reached top level"
# Source: the operator of the cluster, st4sd-runtime-k8s, names the containers.
_FAILURES = (
    (IMAGE_PULL, Reason.UNSCHEDULABLE),
    (re.compile(r"(?:git-sync|s3-package)(?:(?!git-sync|s3-package)\S)* failed"), Reason.PACKAGE_NOT_FETCHED),
    (re.compile(r"s3-fetch failed"), Reason.INPUTS_NOT_FETCHED),
    (re.compile(r"elaunch-primary|exitCode", re.IGNORECASE), Reason.ORCHESTRATOR_KILLED),
    (re.compile(r"\S"), Reason.SETUP_FAILED),
    (re.compile(""), Reason.NO_EXIT_STATUS),
)


def with_lines(text: str) -> str:
    r"""
    Return a text of the service with real line breaks.

    The final status has ``\n`` in two characters instead. The orchestrator escapes them again each time it writes the
    status, so there may be more backslashes.
    """
    return _ESCAPED_LINE_BREAK.sub("\n", text).strip()


@document_fields
class Hint(NamedTuple):
    """Why a run does not run and what to do about it; ``print(hint)`` prints one line."""

    reason: Reason
    """Reason, for programs."""
    text: str | None
    """Text of the service, complete, with real line breaks; None if there is none."""

    @property
    def gist(self) -> str:
        """Most important part of the text on one line; "" if there is none."""
        line = printable(" ".join((self.text or "").split()))
        found = _GIST.get(self.reason, _WHOLE).search(line)
        return found[1] or "" if found else line

    @property
    def advice(self) -> str:
        """What the reason means, and what to do or whom to ask."""
        ran_out = self.reason is Reason.ORCHESTRATOR_KILLED and _OUT_OF_MEMORY.search(self.text or "")
        return _MORE_MEMORY if ran_out else _ADVICE[self.reason]

    def __str__(self) -> str:
        line = f"{self.reason.replace('_', ' ')}: {self.advice}"
        return f"{line} ({shorten(self.gist, MAX_LINE_LENGTH - len(line) - len(' ()'))})" if self.gist else line


def with_hint(card: Card, hint: Hint, tone: Tone) -> Card:
    """Return a card with a hint as its alert; the service's text is added if it says more than the hint."""
    reason, text = hint.reason.replace("_", " "), (hint.text or "").strip()
    if hint.reason is Reason.PENDING:
        # The service's text says to ask an administrator, even in the first second of a run.
        return replace(card, alert=reason, advice=hint.advice, tone=tone)
    return replace(
        card,
        alert=f"{reason}: {hint.gist}" if hint.gist else reason,
        advice=hint.advice,
        words="" if " ".join(text.split()) == hint.gist else text[:MAX_WORDS_LENGTH],
        tone=tone,
    )


def explain(state: str | None, exit_status: str | None, stage_state: str | None, text: str | None) -> Hint | None:
    """
    Return why a run does not run or did not succeed; None while it runs normally, and after Success.

    Args:
        state: The experiment-state.
        exit_status: The exit-status.
        stage_state: The stage-state.
        text: The error-description, or the text that the service sent instead of a status.
    """
    text = with_lines(text or "")
    reason = _reason((state or "").casefold(), (exit_status or "").casefold(), (stage_state or "").casefold(), text)
    if reason is Reason.UNKNOWN:
        text = f"experiment-state {str(state)!r}, exit-status {str(exit_status)!r}\n{text}".strip()
    return Hint(reason, text or None) if reason else None


def _reason(state: str, exit_status: str, stage_state: str, text: str) -> Reason | None:
    if exit_status == "success":
        return None
    if exit_status == "stopped":
        return Reason.STOPPED
    if exit_status == "failed":
        if state == "failed":
            return Reason.SETUP_FAILED
        return Reason.ORCHESTRATOR_FAILED if text.startswith(_UNEXPECTED) else Reason.COMPONENT_FAILED
    if exit_status not in _NO_STATUS:
        return Reason.UNKNOWN
    if state == "failed":
        return next(reason for pattern, reason in _FAILURES if pattern.search(text))
    if state == "running":
        return _BY_STAGE.get(stage_state)
    return _BY_STATE.get(state, Reason.UNKNOWN)
