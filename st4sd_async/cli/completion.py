"""
What the shell proposes for an argument after Tab: names that the deployment or a journal knows.

Completion shows no message and does not wait long. Without a connection, after `TIME_LIMIT` or after an error, nothing
is proposed.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import signal
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from .._config import Config, RetryPolicy
from ..models.runs import STATES
from .connect import Connection

if TYPE_CHECKING:
    from .._client import Client

TIME_LIMIT = 2.0
"""Seconds after which there is no proposal."""
_SAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@:+-]*")
"""The text of a proposal. The scripts of typer evaluate it in the shell, so a server must not choose it freely."""

Proposals = list[str | tuple[str, str]]
"""Texts, some with an explanation, which zsh and fish show."""


def experiments(ctx: typer.Context, incomplete: str) -> Proposals:
    """Propose experiments; with their tags if a colon is typed."""

    async def read(client: Client) -> Proposals:
        found = [one for one in await client.experiments.list() if one.tags]
        if ":" in incomplete:
            return [f"{one.name}:{tag}" for one in found for tag in one.tags]
        return [str(one.name) for one in found]

    return _from_service(ctx, read)


def runs(ctx: typer.Context, incomplete: str) -> Proposals:
    """Propose the rest-uids of runs."""

    async def read(client: Client) -> Proposals:
        found = await client.instances.list()
        return [(one.id, one.status.state) for one in found]

    return _from_service(ctx, read)


def states(incomplete: str) -> Proposals:
    """Propose the states of runs that a shell takes without quotes."""
    return [state for state in STATES if _SAFE.fullmatch(state) and state.startswith(incomplete)]


def key_outputs(ctx: typer.Context, incomplete: str) -> Proposals:
    """Propose the key-outputs of the run that is named."""

    async def read(client: Client) -> Proposals:
        run = ctx.params.get("run") or _first(ctx.params.get("runs")) or _positional(ctx, 0)
        return list(await client.outputs(run)) if run else []

    return _from_service(ctx, read)


def outputs_of_experiment(ctx: typer.Context, incomplete: str) -> Proposals:
    """Propose the key-outputs of the experiment that is named after the table."""

    async def read(client: Client) -> Proposals:
        name = ctx.params.get("experiment") or _positional(ctx, 1)
        found = await client.experiments.get(name) if name else None
        return [] if found is None else [output.name for output in found.metadata.registry.output if output.name]

    return _from_service(ctx, read)


def platforms(ctx: typer.Context, incomplete: str) -> Proposals:
    """Propose the platforms of the experiment that is named."""

    async def read(client: Client) -> Proposals:
        name = ctx.params.get("experiment") or _positional(ctx, 0)
        return list((await client.draft(name)).platforms) if name else []

    return _from_service(ctx, read)


def keys_in_doubt(ctx: typer.Context, incomplete: str) -> Proposals:
    """Propose the keys of launches of unknown outcome, from the journal."""
    from .._batch.journal_file import read_snapshot  # lazily: most commands need no batch
    from .._batch.state import State
    from .launch_table import journal_of

    async def read() -> Proposals:
        table = ctx.params.get("table") or _positional(ctx, 0)
        if not table:
            return []
        found = await read_snapshot(journal_of(Path(table), ctx.params.get("journal")))
        return [record.key for record in found.records if record.state is State.UNKNOWN]

    return _proposals(read)


def _first(values: Any) -> Any:
    return values[0] if values else None


def _positional(ctx: typer.Context, place: int) -> str | None:
    """Return an argument that was not assigned to its parameter, because an option after it still lacks its value."""
    return ctx.args[place] if len(ctx.args) > place else None


def _from_service(ctx: typer.Context, read: Callable[[Client], Awaitable[Proposals]]) -> Proposals:
    """Return what is read with a client that has the settings of the command line."""

    async def connect() -> Proposals:
        connection = Connection()
        for place in (ctx, ctx.parent, ctx.parent and ctx.parent.parent):  # options before and after the names
            if place is not None:
                options = {field.name: place.params.get(field.name) for field in fields(Connection)}
                connection = connection.over(Connection(**options))
        if "-" in (str(connection.api_key_file), str(connection.auth_token_file)):
            return []  # it would prompt
        async with connection.client(Config(validate=False, retry=RetryPolicy(attempts=1))) as client:
            return await read(client)

    return _proposals(connect)


def _proposals(read: Callable[[], Awaitable[Proposals]]) -> Proposals:
    """Return what is read, without texts that are not safe in a shell; [] after an error."""

    async def call() -> Proposals:
        return await read()

    level = logging.root.manager.disable
    logging.disable()
    try:
        with _time_limit():
            found = asyncio.run(call())
    except Exception:  # the shell shows nothing; the command itself reports the error
        return []
    finally:
        logging.disable(level)
    return [one for one in found if _SAFE.fullmatch(one if isinstance(one, str) else one[0])]


@contextmanager
def _time_limit() -> Iterator[None]:
    """End this process silently if the block takes longer, even if it hangs in a thread, as in a name lookup."""
    if not hasattr(signal, "setitimer"):  # pragma: no cover -- Windows
        yield
        return
    before = signal.signal(signal.SIGALRM, lambda *_: os._exit(0))
    signal.setitimer(signal.ITIMER_REAL, TIME_LIMIT)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
