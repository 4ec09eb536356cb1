"""The handle on one instance."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ._resources.datastore import PATIENCE

if TYPE_CHECKING:
    from ._client import Client
    from .models import ComponentDocument, ExperimentDocument, KeyOutput, Output, Status


@dataclass(frozen=True)
class Run:
    """
    A handle on one instance: an id and a client, never data.

    Equal and alike in a set if the rest-uid is the same. ``str(run)`` is the rest-uid, from which
    ``client.run(rest_uid)`` makes the handle again, in this process or another.
    """

    id: str
    """The rest-uid."""
    client: Client = field(repr=False, compare=False)
    """The client through which it is reached."""

    def __str__(self) -> str:
        return self.id

    async def status(self) -> Status:
        """How it is doing now: see `Client.status`."""
        return await self.client.status(self)

    def watch(self, *, timeout: float | None = None, interval: float | None = None) -> AsyncGenerator[Status]:
        """Its statuses until it is over: see `Client.watch`."""
        return self.client.watch(self, timeout=timeout, interval=interval)

    async def wait(self, *, timeout: float | None = None, interval: float | None = None, check: bool = False) -> Status:
        """Its final status, once it is over: see `Client.wait`."""
        return await self.client.wait(self, timeout=timeout, interval=interval, check=check)

    async def outputs(self) -> dict[str, KeyOutput]:
        """Its key-outputs by name: see `Client.outputs`."""
        return await self.client.outputs(self)

    async def output(self, name: str, path: str | None = None) -> Output:
        """The contents of one of its key-outputs: see `Client.output`."""
        return await self.client.output(self, name, path)

    async def document(self, *, timeout: float = PATIENCE) -> ExperimentDocument:
        """What the datastore keeps of it, waited for if it is late: see `Datastore.document`."""
        return await self.client.datastore.document(self.id, timeout=timeout)

    async def components(self, *, timeout: float = PATIENCE) -> list[ComponentDocument]:
        """What the datastore keeps of its components, waited for: see `Datastore.components_of`."""
        return await self.client.datastore.components_of(self.id, timeout=timeout)

    async def delete(self) -> None:
        """Stop and delete it: see `Client.delete`."""
        await self.client.delete(self)


RunLike = Run | str
"""A handle on a run, or its rest-uid."""


def rest_uid_of(run: object) -> str:
    """The rest-uid of what was given as a run."""
    if isinstance(run, Run | str):
        return str(run)
    raise TypeError(f"a run is a Run or a rest-uid, not {type(run).__name__} (is an 'await' missing?)")


def several(runs: object) -> list[object]:
    """What was given as runs, one by one."""
    if isinstance(runs, Iterable) and not isinstance(runs, str):
        return list(runs)
    raise TypeError(f"runs are an iterable of Run or rest-uids, not {runs!r}: for one run there is watch()")
