"""The live table of a batch: `Batch.show`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from .._display.live_display import Row
from .._display.show import run_row, staged_row
from .._render.cards import Badge, Tone
from .item import Item, item_summary, state_badge
from .state import OVER, StateChange

COLUMNS = ("launch", "state", "stage", "progress")
STOPPED = "display stopped; no more launches are started, and the runs continue: call show() again to resume"
"""Note below a display that ends before its batch."""


def counts_by_badge(counts: Mapping[str, int]) -> Mapping[Badge, int]:
    """Return the number of launches in each state, for a display."""
    return {state_badge(state): count for state, count in counts.items()}


def launch_row(item: Item, history: Sequence[StateChange]) -> Row:
    """
    Return the row of a launch.

    Args:
        item: The launch, with the latest status of its run if it is watched.
        history: The states that it has entered.
    """
    if item.state == "started" and item.status is not None:
        row = staged_row(run_row(item.key, item.status), item.status)
    else:
        summary = item_summary(item)
        # A launch whose run succeeded has failed nevertheless if its outputs could not be downloaded.
        has_failed = item.error is not None and summary.badge.tone is Tone.GOOD
        badge = Badge(summary.badge.word, Tone.BAD) if has_failed else summary.badge
        row = Row(item.key, badge, ("", ""), summary.reason)
    own = [change for change in history if change.attempt == item.attempt]
    began_at = next((change.since for change in own if change.state == "started"), None)
    ended_at = next((change.since for change in own if change.state in OVER), None)
    return replace(row, began_at=began_at, ended_at=ended_at)
