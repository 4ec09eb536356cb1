"""Wait for one run or several, using the statuses that the poller yields."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from typing import TYPE_CHECKING

from .._errors import RunDeleted
from .._util.progress import ProgressReporter

if TYPE_CHECKING:
    from ..models import Status
    from .poller import Poller


async def watch_one(
    poller: Poller, rest_uid: str, timeout: float | None, interval: float | None
) -> AsyncGenerator[Status]:
    """Yield the statuses of a run until it is over; see `Client.watch`."""
    async with aclosing(poller.watch({rest_uid: rest_uid}, timeout, interval)) as changes:
        async for _, status in changes:
            if status.is_deleted:
                raise RunDeleted(rest_uid, status)
            yield status


async def wait_one(poller: Poller, rest_uid: str, timeout: float | None, interval: float | None) -> Status:
    """Return the final status of a run; see `Client.wait`."""
    with ProgressReporter(poller.progress, f"waiting for {rest_uid}", 1, "runs") as work:
        async with aclosing(watch_one(poller, rest_uid, timeout, interval)) as changes:
            async for status in changes:
                final = status
        work.finish()
    return final


async def wait_all(
    poller: Poller, rest_uids: Iterable[str], timeout: float | None, interval: float | None
) -> dict[str, Status]:
    """Return the final statuses of several runs by rest-uid, in their order; see `Client.wait`."""
    runs = {rest_uid: rest_uid for rest_uid in rest_uids}
    final: dict[str, Status] = {}
    with ProgressReporter(poller.progress, "waiting for runs", len(runs), "runs") as work:
        async with aclosing(poller.watch(runs, timeout, interval)) as changes:
            async for rest_uid, status in changes:
                final[rest_uid] = status
                work.finish(int(status.is_final))
    return {rest_uid: final[rest_uid] for rest_uid in runs}
