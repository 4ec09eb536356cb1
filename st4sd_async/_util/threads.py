"""Threads that are waited for, whoever is cancelled meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import anyio
from anyio.to_thread import run_sync

T = TypeVar("T")


async def in_thread(work: Callable[..., T], *arguments: object) -> T:
    """
    What some work that blocks gives, done in a worker thread.

    It is never abandoned: cancelling takes effect when it has ended. A shield alone would not hold against
    ``Task.cancel()``, which is how `asyncio.timeout` and `asyncio.wait_for` cancel.
    """
    done: list[T] = []
    failure: Exception | None = None

    async def child() -> None:
        nonlocal failure
        with anyio.CancelScope(shield=True):
            try:
                done.append(await run_sync(work, *arguments))
            except Exception as error:  # else it would come in a group
                failure = error

    async with anyio.create_task_group() as group:
        group.start_soon(child)
    if failure is not None:
        raise failure
    return done[0]
