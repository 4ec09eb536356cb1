"""Many runs of one experiment at once: started, followed to their ends, collected. No output of its own."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import anyio

from .._client import Client
from .._errors import St4sdError
from .._run import Run
from .._util.file_names import folder_name
from ..models import Experiment, Status
from ._exits import Exit, exit_of

INTERVAL = 0.3
"""Seconds between two looks at a run: the server is this machine's own."""
PATIENCE = 120.0
"""Seconds that runs are waited for..."""
PATIENCE_PER_RUN = 20.0
"""...and those that each of them adds, because they wait for each other."""


@dataclass
class Attempt:
    """One run of a campaign, from its plan to what it left; changes while the campaign goes on."""

    label: str
    """What to call it until it has a rest-uid."""
    inputs: Mapping[str, str]
    """filename -> text."""
    variables: Mapping[str, Any]
    """Variables to set."""
    rest_uid: str | None = None
    """Its id, None until it was started."""
    status: Status | None = None
    """The last status seen, None until there is one."""
    files: dict[str, Path] = field(default_factory=dict)
    """key-output -> the file it was saved to."""
    properties: dict[str, list[Any]] = field(default_factory=dict)
    """column -> values; {} until it has measured them."""
    error: Exception | None = None
    """What kept the client from following or collecting it; None: nothing did."""
    began: float | None = None
    """When it was sent off, on the monotonic clock."""
    ended: float | None = None
    """When its end was seen, on the same clock."""

    @property
    def name(self) -> str:
        """The rest-uid, or the label while there is none."""
        return self.rest_uid or self.label

    @property
    def seconds(self) -> float:
        """How long it has taken so far, or took."""
        return 0.0 if self.began is None else (self.ended or time.monotonic()) - self.began

    @property
    def payload(self) -> dict[str, Any]:
        """What to start it with."""
        inputs = [{"filename": name, "content": text} for name, text in self.inputs.items()]
        return {"inputs": inputs, "variables": dict(self.variables)}

    @property
    def exit(self) -> Exit:
        """How the command must end on its account."""
        if self.error is not None:
            return exit_of(self.error)
        return Exit.DONE if self.status is not None and self.status.is_success else Exit.RUN_FAILED


Changed = Callable[[Attempt], object]
"""Told of every change of an attempt."""


async def conduct(
    client: Client, package: Mapping[str, Any], attempts: Sequence[Attempt], to: Path, changed: Changed
) -> Experiment:
    """
    The experiment, after all attempts at it have ended one way or the other; what became of each is in it.

    All are started at once. What goes wrong with one does not touch the others. Cancellation
    leaves the runs to the server.

    Args:
        client: An open client.
        package: The definition to push first.
        attempts: What to start.
        to: Where the key-outputs go: one folder a run, named by its rest-uid.
        changed: Told of every change.

    Raises:
        St4sdError: The package could not be pushed; nothing was started.
    """
    experiment = await client.push(package)
    deadline = PATIENCE + PATIENCE_PER_RUN * len(attempts)
    async with anyio.create_task_group() as tasks:
        for attempt in attempts:
            tasks.start_soon(_one, client, experiment, attempt, to, changed, deadline)
    return experiment


async def _one(
    client: Client, experiment: Experiment, attempt: Attempt, to: Path, changed: Changed, timeout: float
) -> None:
    """Start, follow and collect one run; its errors are kept in it."""
    try:
        attempt.began = time.monotonic()
        changed(attempt)
        run = await client.start(experiment, attempt.payload)
        attempt.rest_uid = run.id
        async with aclosing(run.watch(timeout=timeout, interval=INTERVAL)) as statuses:
            async for status in statuses:
                attempt.status = status
                attempt.ended = time.monotonic() if status.is_final else None
                changed(attempt)
        await _collect(run, attempt, to)
    except (St4sdError, OSError) as error:
        attempt.error = error
        attempt.ended = attempt.ended or time.monotonic()
        changed(attempt)


async def _collect(run: Run, attempt: Attempt, to: Path) -> None:
    """Save the key-outputs of a run that is over and, if it ended well, read the properties it must have."""
    folder = to / folder_name(run.id)

    async def save(name: str) -> None:
        output = await run.output(name)
        attempt.files[name] = await anyio.to_thread.run_sync(partial(output.save, folder))

    async def measure() -> None:
        attempt.properties = await run.client.instances.properties(run.id)

    names = sorted(await run.outputs())
    is_success = attempt.status is not None and attempt.status.is_success
    await _all([*(partial(save, name) for name in names), *([measure] if is_success else [])])


async def _all(steps: Iterable[Callable[[], Awaitable[None]]]) -> None:
    """Take the steps side by side, each to its end; then raises the first of their errors."""
    errors: list[Exception] = []

    async def take(step: Callable[[], Awaitable[None]]) -> None:
        try:
            await step()
        except (St4sdError, OSError) as error:
            errors.append(error)

    async with anyio.create_task_group() as tasks:
        for step in steps:
            tasks.start_soon(take, step)
    if errors:
        raise errors[0]


def exit_status(attempts: Iterable[Attempt]) -> Exit:
    """How the command must end: as the worst of the attempts says."""
    return max((attempt.exit for attempt in attempts), default=Exit.DONE)
