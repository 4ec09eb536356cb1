"""The public view of a launch in a batch."""

from __future__ import annotations

import builtins
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, overload

from .. import _errors as errors
from .._render.displayable import Displayable, mark_shown
from .._util.field_docs import document_fields
from .._util.redact import redact
from ..models import Status
from ..models.failures import with_failure
from ..models.hints import with_hint
from ..models.runs import of_run, status_summary
from .reasons import from_json
from .state import FAILURES, LaunchRecord, State, StateName

if TYPE_CHECKING:
    from .._render.cards import Badge, Card, Summary
    from .._run import Run
    from ..models import Failure

S = TypeVar("S")
T = TypeVar("T")


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
    state: StateName
    """
    Its state in one word: one of the keys of `Batch.counts`.

    | word | meaning |
    |---|---|
    | ``planned`` | It is not sent yet, or will be sent again. |
    | ``sending`` | It is being sent. |
    | ``unknown`` | It may or may not have been started. |
    | ``refused`` | The service refused it, or it could not be sent. It has no run. |
    | ``started`` | It has a run that is not over. `Status.state` says what the run does. |
    | ``succeeded`` | Its run succeeded. |
    | ``collected`` | Its run succeeded, and its files were downloaded. |
    | ``failed`` | Its run failed. |
    | ``stopped`` | A user stopped its run. |
    | ``deleted`` | Its run was deleted. |
    """
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

    `RunFailed` or `RunDeleted`: how its run ended. The ``reasons`` of `RunFailed` have the failed components, with the
    last lines of what they wrote, once they were read: see `Batch.failure`. `StartOutcomeUnknown`: it may have been
    started, and is not sent again before that is resolved. An `APIError`: the service refused it. Any other error
    prevented sending it, watching it or downloading its files.
    """
    files: tuple[Path, ...]
    """Paths of the downloaded files. Empty if none were downloaded."""
    never_executed: tuple[str, ...] = ()
    """
    rest-uids of instances that may come from a start of this launch whose response was lost. They ended or were deleted
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
            card, reason = with_hint(card, hint, Tone.BAD), fetched_reason(self)
            return card if reason is None else with_failure(card, reason)
        return card if self.error is None else with_error(card, self.error, errors.plain_message(self.error))


class ItemView(Sequence[T]):
    """
    Launches of a batch as they were at one moment. Each `Item` is created on access.

        batch.items[0]                      # an item
        batch.items[-10:]                   # a view of the last ten
        batch.items.by_key("mol-1")         # the item with this key
        batch.items.in_state("failed")      # a view of those in this state

    A pickled or copied view is a list.
    """

    def __init__(self, records: Sequence[LaunchRecord], make: Callable[[LaunchRecord], T]) -> None:
        self._records, self._make = records, make

    def __len__(self) -> int:
        return len(self._records)

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> ItemView[T]: ...
    def __getitem__(self, index: int | slice) -> T | ItemView[T]:
        """Return an item, or a view of some."""
        if isinstance(index, slice):
            return ItemView(self._records[index], self._make)
        return self._make(self._records[index])

    def by_key(self, key: str) -> T:
        """Return the item with this key. Raises KeyError if there is none."""
        for record in self._records:
            if record.key == key:
                return self._make(record)
        raise KeyError(key)

    def in_state(self, *states: str) -> ItemView[T]:
        """Return a view of the launches that are in one of these states, such as ``"failed"``; see `Batch.counts`."""
        wanted = {State(state) for state in states}
        return ItemView([record for record in self._records if record.state in wanted], self._make)

    def converted(self, convert: Callable[[T], S]) -> ItemView[S]:
        """Return a view whose items are converted on access."""
        return ItemView(self._records, lambda record: convert(self._make(record)))

    def __eq__(self, other: object) -> bool:
        return list(self) == list(other) if isinstance(other, ItemView | list) else NotImplemented

    __hash__ = None  # type: ignore[assignment] # like a list

    def __reduce__(self) -> tuple[type[list[T]], tuple[list[T]]]:
        return list, (list(self),)

    def __repr__(self) -> str:
        counts = Counter(record.state for record in self._records)
        states = ", ".join(f"{count:,} {state}" for state, count in counts.most_common())
        return f"<{len(self):,} launches{states and ': '}{states}>"


class Items(list[Item], Displayable):
    """Launches that `Batch.show` returns. A notebook shows them as a table, but not again below the live one."""

    def __init__(self, items: Iterable[Item]) -> None:
        super().__init__(items)
        mark_shown(self)

    def _card(self) -> Card:
        from .._render.cards import summaries_card

        return summaries_card("launch", {item.key: item_summary(item) for item in self})


def fetched_reason(item: Item) -> Failure | None:
    """Return why the run of a launch failed; None if it did not, or if the reason was not fetched."""
    reasons = item.error.reasons if isinstance(item.error, errors.RunFailed) else {}
    return next(iter(reasons.values()), None)


def with_reason(item: Item, reason: Failure) -> Item:
    """Return a launch whose run failed, with the reason in its error."""
    return replace(
        item, error=errors.RunFailed({reason.rest_uid: item.status or reason.status}, {reason.rest_uid: reason})
    )


def item_summary(item: Item) -> Summary:
    """Return what to show of a launch among many."""
    from .._render.cards import Summary

    failure = fetched_reason(item)
    reason = status_summary(item.status).reason if item.status and item.state in FAILURES else ""
    reason = failure.gist if failure else reason
    return Summary(state_badge(item.state), reason=reason or (errors.plain_message(item.error) if item.error else ""))


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


def item_of(
    record: LaunchRecord, run: Run | None, error: Exception | None, reason: Failure | str | None = None
) -> Item:
    """
    Return a launch for the user.

    Args:
        record: The launch.
        run: The handle on its run.
        error: Its error in this process. None means the error in the journal, if there is one.
        reason: Why its run failed, as fetched or as in the journal. None means that this is unknown.
    """
    status = None if record.status is None else _read_status(record)
    if isinstance(reason, str):
        reason = None if status is None else from_json(record.rest_uid or "", status, reason)
    return Item(
        record.key,
        record.experiment,
        record.state.value,
        record.attempt,
        run,
        status,
        error or _error_of(record, status, reason),
        tuple(map(Path, record.files)),
        record.ended_unexecuted,
    )


def status_to_json(status: Status, secrets: Iterable[str]) -> str:
    """Return a status as stored in the journal. Credentials of the launch in the error description are masked."""
    kept = {name: value for name, value in status.raw.items() if name != "meta"}
    problem = kept.get("error-description")
    if problem and isinstance(problem, str):
        kept["error-description"] = redact(problem, secrets)
    return json.dumps(kept)


def _read_status(record: LaunchRecord) -> Status:
    status = of_run(Status.model_validate(json.loads(record.status or "{}")), record.rest_uid)
    return status.concluded(deleted=record.state is State.DELETED)


def _error_of(record: LaunchRecord, status: Status | None, reason: Failure | None) -> Exception | None:
    if record.state is State.DELETED:
        return errors.RunDeleted(record.rest_uid or "", status)
    if record.state in (State.FAILED, State.STOPPED):
        rest_uid = record.rest_uid or ""
        return errors.RunFailed(
            {rest_uid: status or of_run(Status.pending(), rest_uid)}, {rest_uid: reason} if reason else None
        )
    if record.state is State.UNKNOWN:
        what = f"an instance of {record.experiment!r} was started for {record.key!r}"
        return errors.StartOutcomeUnknown(what, record.error or "", key=record.key, candidates=record.candidates)
    return None if record.error is None else restore_error(record.error_class, record.error)


def restore_error(name: str | None, message: str) -> Exception:
    """
    Return an error of an earlier process, so that a batch shows the same before and after a restart.

    It has its original class and message. Attributes that are not in the message are missing.
    """
    cls = getattr(errors, name or "", None) or getattr(builtins, name or "", None)
    if isinstance(cls, type) and issubclass(cls, errors.APIError):
        refusal = cls(message)
        refusal.advice = ""
        return refusal
    if isinstance(cls, type) and issubclass(cls, Exception):
        with suppress(Exception):  # it needs other arguments
            error = cls(*_arguments_of(cls, message))
            if str(error) == message:
                return error
    return errors.St4sdError(f"{name}: {message}")


def _arguments_of(cls: type[Exception], message: str) -> tuple[str, ...]:
    """Return the arguments of an error that made its message; those of other classes are only the message."""
    plain = message.removesuffix(f"; {getattr(cls, 'advice', '')}")
    if issubclass(cls, errors.TransportError):
        found = _TRANSPORT_MESSAGE.fullmatch(message.removeprefix(f"{cls.situation}: "))
        return found.group("method", "url", "reason") if found else ()
    if issubclass(cls, errors.DownloadError):
        found = _DOWNLOAD_MESSAGE.fullmatch(plain)
        return found.group("path", "problem") if found else ()
    return (plain,)


_TRANSPORT_MESSAGE = re.compile(r"(?P<reason>.*) \((?P<method>[A-Z]+) (?P<url>\S+)\)", re.DOTALL)
"""The message of a `TransportError`, without its beginning."""
_DOWNLOAD_MESSAGE = re.compile(r"'(?P<path>[^'\\]*)': (?P<problem>.*)", re.DOTALL)
"""The message of a `DownloadError`, without its advice."""
