"""The public view of a launch in a batch."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .. import _errors as errors
from .._render.displayable import Displayable
from .._util.field_docs import document_fields
from .._util.redact import redact
from ..models import Status
from ..models.hints import with_hint
from ..models.runs import status_summary
from .state import FAILURES, LaunchRecord, State

if TYPE_CHECKING:
    from .._render.cards import Badge, Card, Summary
    from .._run import Run


@document_fields
@dataclass(frozen=True)
class Item(Displayable):
    """
    One launch of a batch, at one moment.

        async for item in batch.run():
            print(item.key, item.run, item.status, item.error)
    """

    key: str
    """The key that the user gave it."""
    experiment: str
    """Identifier of the experiment."""
    state: str
    """Its state: one of the keys of `Batch.counts`."""
    attempt: int
    """1, plus 1 for each new attempt by `Batch.retry_failed`."""
    run: Run | None
    """The handle on its run. None means that it has no run, or that its run is unknown."""
    status: Status | None
    """
    The final status of its run, without ``meta``. In `Batch.running`, the latest status.

    None means that the run has not ended, or that no status was ever seen.
    """
    error: Exception | None
    """
    Its error. None means that it has none.

    `RunFailed` or `RunDeleted`: how its run ended. `StartOutcomeUnknown`: it may have been started, and is not sent
    again before that is settled. An `APIError`: the service refused it. Any other error prevented sending it, watching
    it or downloading its files.
    """
    files: tuple[Path, ...]
    """Paths of the downloaded files. Empty if none were downloaded."""
    never_executed: tuple[str, ...] = ()
    """
    rest-uids of instances that may come from a start of this launch whose answer was lost. They ended or were deleted
    before they executed anything, so you may delete them.
    """

    def _card(self) -> Card:
        from .._render.cards import Card, Tone, facts_of, joined, with_error

        facts = {
            "experiment": self.experiment,
            "run": self.run,
            "attempt": self.attempt if self.attempt > 1 else None,
            "files": joined(map(str, self.files)),
        }
        card = Card(self.key, kind="launch", badge=state_badge(self.state), facts=facts_of(facts))
        hint = self.status.hint if self.status and self.state in FAILURES else None
        if hint is not None:
            return with_hint(card, hint, Tone.BAD)
        return card if self.error is None else with_error(card, self.error)


def item_summary(item: Item) -> Summary:
    """Return what to show of a launch among many."""
    from .._render.cards import Summary, error_text

    reason = status_summary(item.status).reason if item.status and item.state in FAILURES else ""
    return Summary(state_badge(item.state), reason=reason or (error_text(item.error) if item.error else ""))


def state_badge(state: str) -> Badge:
    """Return a state as a coloured word."""
    from .._render.cards import Badge, Tone

    tones = {
        State.SUCCEEDED: Tone.GOOD,
        State.COLLECTED: Tone.GOOD,
        State.STARTED: Tone.BUSY,
        State.SENDING: Tone.BUSY,
        State.UNKNOWN: Tone.STUCK,
        State.PLANNED: Tone.QUIET,
    }
    return Badge(str(state), tones.get(State(state), Tone.BAD))


def item_of(record: LaunchRecord, run: Run | None, error: Exception | None) -> Item:
    """
    Return a launch for the user.

    Args:
        record: The launch.
        run: The handle on its run.
        error: Its error in this process. None means the error in the journal, if there is one.
    """
    status = None if record.status is None else _read_status(record)
    return Item(
        record.key,
        record.experiment,
        str(record.state),
        record.attempt,
        run,
        status,
        error or _error_of(record, status),
        tuple(map(Path, record.files)),
        record.ended_unexecuted,
    )


def status_to_json(status: Status, secrets: Iterable[str]) -> str:
    """Return a status as stored in the journal. Credentials in the error description are masked."""
    kept = {name: value for name, value in status.raw.items() if name != "meta"}
    problem = kept.get("error-description")
    if problem and isinstance(problem, str):
        kept["error-description"] = redact(problem, secrets)
    return json.dumps(kept)


def _read_status(record: LaunchRecord) -> Status:
    status = Status.model_validate(json.loads(record.status or "{}"))
    return status.concluded(deleted=record.state is State.DELETED)


def _error_of(record: LaunchRecord, status: Status | None) -> Exception | None:
    if record.state is State.DELETED:
        return errors.RunDeleted(record.rest_uid or "", status)
    if record.state in (State.FAILED, State.STOPPED):
        return errors.RunFailed({record.rest_uid or "": status or Status.pending()})
    if record.state is State.UNKNOWN:
        what = f"an instance of {record.experiment!r} was started for {record.key!r}"
        return errors.StartOutcomeUnknown(what, record.error or "", key=record.key, candidates=record.candidates)
    return None if record.error is None else _restore_error(record.error_class, record.error)


def _restore_error(name: str | None, message: str) -> Exception:
    """Return an error of an earlier process, in its original class if that class needs only a message."""
    error_class = getattr(errors, name or "", None)
    if isinstance(error_class, type) and issubclass(error_class, errors.APIError):
        refusal = error_class(message)
        refusal.advice = ""
        return refusal
    return errors.St4sdError(f"{name}: {message}")
