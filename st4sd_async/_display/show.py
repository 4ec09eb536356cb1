"""Runs as rows of a live display, and `Client.show`, which displays them until they are over."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from .._errors import UnknownRun
from .._render.displayable import Displayable, mark_shown
from ..models import Status
from ..models.failures import Failure, with_failure
from ..models.hints import Reason
from ..models.runs import status_card, status_summary, statuses_card
from .live_display import LiveDisplay, Row
from .surfaces import default_surface

if TYPE_CHECKING:
    from .._render.cards import Card
    from .._util.clock import Clock
    from .._util.outage import Outage

STOPPED = "display stopped; the runs continue, call show() again to follow them"
"""Note below a display that ends before its runs."""
NEEDS_NO_REASON = {Reason.PENDING, Reason.INITIALISING}
"""Reasons that say no more than the state."""
WAITS_FOR_RESOURCES = {*NEEDS_NO_REASON, Reason.UNSCHEDULED, Reason.WAITING_ON_RESOURCE}
"""Reasons of runs that will start without action by the user."""
COLUMNS = ("run", "state", "stage", "progress")


class NamedRun(Protocol):
    """A run, identified by its rest-uid."""

    @property
    def id(self) -> str: ...


def run_row(name: str, status: Status, failure: Failure | None = None) -> Row:
    """Return the row of a run, with its progress as the only detail."""
    summary = status_summary(status)
    return Row(name, summary.badge, (summary.bar or "",), reason_of(status, failure))


def staged_row(row: Row, status: Status) -> Row:
    """Return the row of a run with its stage before the other details; "" if no stage is active."""
    stage = "" if status.is_final else status.current_stage or ""
    return replace(row, details=(stage, *row.details))


def reason_of(status: Status, failure: Failure | None = None) -> str:
    """Return why a run waits or failed; "" if the state says enough. `failure` is None if its reason is unknown."""
    hint = status.hint
    if hint is None or hint.reason in NEEDS_NO_REASON:
        return ""
    if failure is not None and failure.components:
        return failure.gist
    text = hint.gist or hint.advice
    return text if hint.reason in WAITS_FOR_RESOURCES else f"{hint.reason.replace('_', ' ')}: {text}"


class Statuses(list[Status], Displayable):
    """Final statuses of runs that were shown. A notebook shows them as a table with the rest-uids."""

    def __init__(self, rest_uids: Sequence[str], statuses: Mapping[str, Status]) -> None:
        super().__init__(statuses[rest_uid] for rest_uid in rest_uids)
        self._rest_uids = tuple(rest_uids)
        mark_shown(self, *self)

    def _card(self) -> Card:
        return statuses_card(dict(zip(self._rest_uids, self, strict=False)))


class StatusesByLabel(dict[str, Status], Displayable):
    """Final statuses of runs that were shown, by label. A notebook shows them as a table."""

    def __init__(self, statuses: Mapping[str, Status]) -> None:
        super().__init__(statuses)
        mark_shown(self, *self.values())

    def _card(self) -> Card:
        return statuses_card(self)


async def show(
    labels: Mapping[str, str],
    changes: AsyncGenerator[tuple[NamedRun, Status]],
    clock: Clock,
    explain: Callable[[Mapping[str, Status]], Awaitable[Mapping[str, Failure]]],
    outage: Callable[[], Outage | None],
) -> dict[str, Status]:
    """
    Show runs until all have ended, and return their final statuses by rest-uid; see `Client.show`.

    Args:
        labels: rest-uid -> the name of its row.
        changes: Yields each new status of one of them; closed at the end.
        clock: Source of time between drawings.
        explain: Returns the failures of runs by rest-uid, given their last statuses.
        outage: Returns the current outage of the service, or None.
    """
    statuses: dict[str, Status] = {}
    failures: dict[str, Failure] = {}
    began_at = time.time()
    ended_at: dict[str, float | None] = {}
    """rest-uid -> when its end was seen. None means before the display began."""

    def row(rest_uid: str, status: Status) -> Row:
        """Return a row with the time since the display began, unless the run was over before."""
        if status.is_final and rest_uid not in ended_at:
            ended_at[rest_uid] = time.time() if rest_uid in statuses else None
        has_time = ended_at.get(rest_uid, 0.0) is not None
        return replace(
            staged_row(run_row(labels[rest_uid], status, failures.get(rest_uid)), status),
            began_at=began_at if has_time else None,
            ended_at=ended_at.get(rest_uid),
        )

    def single() -> Card | None:
        if not len(labels) == len(statuses) == 1:
            return None
        rest_uid, status = next(iter(statuses.items()))
        card = status_card(status, labels[rest_uid])
        return with_failure(card, failures[rest_uid]) if rest_uid in failures else card

    display = LiveDisplay("run", COLUMNS, default_surface(), single=single, outage=outage)
    display.footer = STOPPED
    for rest_uid in labels:
        display.update(row(rest_uid, Status.pending()))
    async with display.drawn(clock), aclosing(changes):
        try:
            async for run, status in changes:
                display.update(row(run.id, status))
                statuses[run.id] = status
        except UnknownRun:  # no run continues
            display.footer = ""
            raise
        display.footer = ""
        failures |= await explain(statuses)
        for rest_uid in failures:
            display.update(row(rest_uid, statuses[rest_uid]))
    return statuses
