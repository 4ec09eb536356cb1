"""Run blocking code in a worker thread."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import anyio
from anyio.to_thread import run_sync

T = TypeVar("T")


async def in_thread(work: Callable[..., T], *arguments: object, abandon: bool = False) -> T:
    """
    Return the result of blocking code, called in a worker thread.

    On cancellation it waits for the thread, even if `asyncio.timeout` or ``Task.cancel()`` cancels, which a shield
    alone does not stop. The result may be a secret: it is kept from asyncio, whose debug mode logs the results of
    threads.

    Args:
        work: The code.
        arguments: Arguments for the code.
        abandon: Abandon the thread on cancellation instead.
    """
    result: list[T] = []
    failure: Exception | None = None

    def collect() -> None:
        result.append(work(*arguments))

    async def child() -> None:
        nonlocal failure
        with anyio.CancelScope(shield=True):
            try:
                await run_sync(collect)
            except Exception as error:  # the task group would wrap it
                failure = error

    if abandon:
        await run_sync(collect, abandon_on_cancel=True)
        return result[0]
    async with anyio.create_task_group() as group:
        group.start_soon(child)
    if failure is not None:
        raise failure
    return result[0]
