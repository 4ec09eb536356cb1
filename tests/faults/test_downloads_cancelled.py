"""Downloads that are cancelled at any step, or come twice at once: nothing half, nothing left, and the next is fine."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest

from st4sd_async import ProgressUpdate
from st4sd_async.local import LocalServer
from tests.tries import combinations, tries

from .gateways import archive, files_in, forward, gateway, is_part, leftovers, whole
from .raw import never
from .scenes import Outcomes, Scene, staged

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60), pytest.mark.slow]

Stop = Callable[[], None]


@pytest.mark.parametrize(("verb", "how"), combinations(["files", "component", "outputs"], ["scope", "task"]))
async def test_cancelled_at_any_step(shared_server: LocalServer, tmp_path: Path, verb: str, how: str) -> None:
    """Nothing is left, and the next call succeeds. Cancelled by anyio's scope or asyncio's task."""
    stop: Stop = lambda: None  # noqa: E731 -- replaced before each call
    left = 0

    def progress(_: ProgressUpdate) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            stop()

    async with staged(shared_server, tmp_path, progress=progress) as scene:
        scene.write("a.bin", os.urandom(700_000))
        scene.write("a.bin", os.urandom(700_000), "stages/stage1/Report/results")
        for step in range(1, 30, tries(1, 2)):
            left = step
            scene.folder = tmp_path / f"outside{step}"
            scene.folder.mkdir()
            if how == "scope":
                with anyio.CancelScope() as scope:
                    stop = scope.cancel
                    await getattr(scene, verb)()
                was_cancelled = scope.cancelled_caught
            else:
                task = asyncio.ensure_future(getattr(scene, verb)())
                stop = task.cancel
                await asyncio.wait([task])
                was_cancelled = task.cancelled()
            scene.check(verb)
            stop = lambda: None  # noqa: E731 -- as above
            if not was_cancelled:
                break
        assert step > 2
        whole(await getattr(scene, verb)())


def begun(target: Path) -> bool:
    """Whether there is a folder for what is not whole."""
    return target.is_dir() and any(map(is_part, os.listdir(target)))  # noqa: PTH208 -- only names


@pytest.mark.parametrize("how", ["scope", "task"])
async def test_cancelled_while_a_thread_works(scene: Scene, how: str) -> None:
    """Unpacking is waited for or undone: afterwards nothing appears, nothing is left."""
    for number in range(12):
        size = 1_000_000 if number % 2 else 1_100_000  # the larger ones are unpacked by several threads
        scene.write(f"{number}.bin", bytes(size), "stages/stage1/Report")
    for number in range(0, 12, tries(1, 2)):
        scene.folder = scene.folder.parent / f"outside{number}"
        scene.folder.mkdir()
        task_scope = anyio.CancelScope()

        async def download(scope: anyio.CancelScope = task_scope) -> None:
            with scope:
                await scene.component()

        task = asyncio.ensure_future(download())
        while not task.done() and not begun(scene.target):  # noqa: ASYNC110 -- there is no event
            await anyio.sleep(0.001)
        await anyio.sleep(number * 0.005)
        if how == "scope":
            task_scope.cancel()
        else:
            task.cancel()
        await asyncio.wait([task])
        before = files_in(scene.target)
        left = leftovers(scene.target)
        await anyio.sleep(0.02)
        assert (left, leftovers(scene.target)) == ([], [])
        assert files_in(scene.target) == before


@pytest.mark.parametrize("verb", ["files", "component"])
async def test_a_deadline_of_the_caller(scene: Scene, verb: str) -> None:
    """A gateway that sends half and no more is left when the caller's time is over, and the next call is fine."""
    async with gateway(scene.server, archive(missing=100, then=never())) as slow:
        with pytest.raises(TimeoutError), anyio.fail_after(0.1):
            await getattr(scene, verb)()
        scene.check(verb)
        await slow.until(lambda: slow.open_connections == 0)
        slow.answers = [forward(scene.server)]
        whole(await getattr(scene, verb)())

    assert files_in(scene.target) == scene.expected(verb)


async def test_a_cancelled_download_gives_its_turn_back(shared_server: LocalServer, tmp_path: Path) -> None:
    """With room for one body at a time, the next call does not wait for the one that was cancelled."""
    async with (
        staged(shared_server, tmp_path, downloads=1) as scene,
        gateway(scene.server, archive(missing=100, then=never()), forward(scene.server)) as slow,
    ):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(scene.files)
            await slow.until(lambda: slow.in_flight == 1)
            tasks.cancel_scope.cancel()
        with anyio.fail_after(15):
            whole(await scene.files())


async def test_two_calls_into_one_folder(scene: Scene) -> None:
    """At the same time, of the same files: both are right about all of them."""
    for number in range(100):
        scene.write(f"{number}.txt", os.urandom(100))
    found: list[Outcomes] = []

    async def download() -> None:
        found.append(await scene.files())

    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(download)

    for outcomes in found:
        whole(outcomes)
    scene.check("files")
    assert files_in(scene.target) == scene.expected("files")
