"""Runs as rows of a live display, and `Client.show`, which displays them until they are over."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Protocol

from .._errors import UnknownRun
from ..models import Status
from ..models.hints import Reason
from ..models.runs import status_card, status_summary
from .live_display import LiveDisplay, Row
from .surfaces import default_surface

if TYPE_CHECKING:
    from .._render.cards import Card
    from .._util.clock import Clock

STOPPED = "display stopped; the runs continue, call show() again to follow them"
"""The note below a display that ends before its runs."""
NEEDS_NO_REASON = {Reason.PENDING, Reason.INITIALISING}
"""Reasons that add nothing to the state."""
WAITS_FOR_RESOURCES = {*NEEDS_NO_REASON, Reason.UNSCHEDULED, Reason.WAITING_ON_RESOURCE}
"""Reasons of runs that will start without any action."""


class NamedRun(Protocol):
    """A run, identified by its rest-uid."""

    @property
    def id(self) -> str: ...


def run_row(name: str, status: Status) -> Row:
    """Return the row of a run; its detail is the progress."""
    summary = status_summary(status)
    return Row(name, summary.badge, (summary.bar or "",), reason_of(status))


def reason_of(status: Status) -> str:
    """Return why a run waits or failed; "" if its state is enough."""
    hint = status.hint
    if hint is None or hint.reason in NEEDS_NO_REASON:
        return ""
    text = hint.gist or hint.advice
    return text if hint.reason in WAITS_FOR_RESOURCES else f"{hint.reason.replace('_', ' ')}: {text}"


async def show(
    rest_uids: Sequence[str], changes: AsyncGenerator[tuple[NamedRun, Status]], clock: Clock
) -> list[Status]:
    """
    Show runs until all have ended, and return their final statuses in the order given; see `Client.show`.

    Args:
        rest_uids: The runs.
        changes: Yields each new status of one of them; closed at the end.
        clock: Paces the drawing.
    """
    statuses: dict[str, Status] = {}

    def single() -> Card | None:
        if not len(rest_uids) == len(statuses) == 1:
            return None
        rest_uid, status = next(iter(statuses.items()))
        return status_card(status, rest_uid)

    display = LiveDisplay("run", ("run", "state", "progress"), default_surface(), single=single)
    display.footer = STOPPED
    for rest_uid in rest_uids:
        display.update(run_row(rest_uid, Status.pending()))
    async with display.drawn(clock), aclosing(changes):
        try:
            async for run, status in changes:
                statuses[run.id] = status
                display.update(run_row(run.id, status))
        except UnknownRun:  # no run continues
            display.footer = ""
            raise
        display.footer = ""
    return [statuses[rest_uid] for rest_uid in rest_uids]
