"""A launch of a batch as its user sees it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .. import _errors as errors
from .._render.displayable import Displayable
from .._util.field_docs import document_fields
from .._util.redact import masked
from ..models import Status
from ..models.hints import with_hint
from .state import BAD_ENDS, Row, State

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
    """The user's name for it."""
    experiment: str
    """Identifier of the experiment."""
    state: str
    """Where it is: one of the words that `Batch.counts` counts."""
    attempt: int
    """1, and one more for each new attempt by `Batch.retry_failed`."""
    run: Run | None
    """The handle on its run; None if it has none, or it is not known."""
    status: Status | None
    """
    The final status of its run, without ``meta``; None if it is not over, or was never seen.

    In `Batch.running` the newest.
    """
    error: Exception | None
    """
    What went wrong; None if nothing did.

    `RunFailed` or `RunDeleted`: its run came to that. `StartOutcomeUnknown`: it may have been started, and it
    is never sent again before that is settled. An `APIError`: the service refused it. Else what kept the batch
    from sending it, from watching it or from downloading its files.
    """
    files: tuple[Path, ...]
    """Paths of what was downloaded; () if nothing was, or nothing was asked for."""
    never_executed: tuple[str, ...] = ()
    """
    rest-uids of instances that may come from a start of this launch whose answer was lost, and that ended or were
    deleted before they executed anything; () if there are none. They may be deleted.
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
        hint = self.status.hint if self.status and self.state in BAD_ENDS else None
        if hint is not None:
            return with_hint(card, hint, Tone.BAD)
        return card if self.error is None else with_error(card, self.error)

    def _summary(self) -> Summary:
        """Return what to show of the launch among many."""
        from .._render.cards import Summary, error_text

        reason = self.status._summary().reason if self.status and self.state in BAD_ENDS else ""
        return Summary(state_badge(self.state), reason=reason or (error_text(self.error) if self.error else ""))


def state_badge(state: str) -> Badge:
    """Return the word for a state, with its tone."""
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


def item_of(row: Row, run: Run | None, error: Exception | None) -> Item:
    """
    A launch for its user.

    Args:
        row: The launch.
        run: The handle on its run.
        error: What it came to in this process; None: what the journal knows of that.
    """
    status = None if row.status is None else _status(row)
    problem, files = error or _error(row, status), tuple(map(Path, row.files))
    return Item(row.key, row.experiment, str(row.state), row.attempt, run, status, problem, files, row.unexecuted)


def told(status: Status, secrets: Iterable[str]) -> str:
    """A status as the journal keeps it; what went wrong may quote credentials, which it does not keep."""
    kept = {name: value for name, value in status.raw.items() if name != "meta"}
    problem = kept.get("error-description")
    if isinstance(problem, str):
        kept["error-description"] = masked(problem, secrets)
    return json.dumps(kept)


def _status(row: Row) -> Status:
    status = Status.model_validate(json.loads(row.status or "{}"))
    return status.concluded(deleted=row.state is State.DELETED)


def _error(row: Row, status: Status | None) -> Exception | None:
    if row.state is State.DELETED:
        return errors.RunDeleted(row.rest_uid or "", status)
    if row.state in (State.FAILED, State.STOPPED):
        return errors.RunFailed({row.rest_uid or "": status or Status.pending()})
    if row.state is State.UNKNOWN:
        what = f"an instance of {row.experiment!r} was started for {row.key!r}"
        return errors.StartOutcomeUnknown(what, row.error or "", key=row.key, candidates=row.candidates)
    return None if row.error is None else _revived(row.error_class, row.error)


def _revived(name: str | None, text: str) -> Exception:
    """An error of an earlier process: of the same class if it says no more than its text."""
    cls = getattr(errors, name or "", None)
    if isinstance(cls, type) and issubclass(cls, errors.APIError):
        refusal = cls(text)
        refusal.advice = ""
        return refusal
    return errors.St4sdError(f"{name}: {text}")
