"""Downloads that are killed at any moment and repeated end complete: nothing half, nothing whole fetched twice."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from subprocess import PIPE, Popen
from typing import Self

import anyio
import pytest

from st4sd_async import Client
from st4sd_async.local import LocalServer
from tests.forks import ROOT
from tests.tries import tries

from .clients import settings
from .forks import environment
from .gateways import another, files_in, forward, gateway, instance_of, leftovers, requested_paths
from .raw import RawServer

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(240), pytest.mark.slow]  # many deaths, on a machine that is busy

KILLS = tries(20, 4)
"""How often a process dies in each test."""


@pytest.fixture
def anyio_backend() -> str:
    """The loop of everybody: other processes have their own time."""
    return "asyncio"


@dataclass
class Job:
    """What a child downloads."""

    url: str
    api_key: str
    run: str


class Downloader:
    """A process whose children download runs. Used as ``with``."""

    def __enter__(self) -> Self:
        self._process = Popen(
            [sys.executable, "-m", "tests.faults.downloader"], stdin=PIPE, stdout=PIPE, cwd=ROOT, env=environment()
        )
        self._received = b""
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate(timeout=30)

    async def download(
        self, job: Job, target: Path, *, dies_at: int = 0, killed_after: float | None = None
    ) -> tuple[int, int]:
        """How a child ends, negative by a signal, and how many actions it took if it came to its end."""
        pid = await self.begin(job, target, dies_at)
        if killed_after is not None:
            await anyio.sleep(killed_after)
            os.kill(pid, signal.SIGKILL)  # an ended process is still waited for, so its id is not reused
        return await self.end(pid)

    async def begin(self, job: Job, target: Path, dies_at: int = 0) -> int:
        """The id of a child that downloads."""
        self._say(json.dumps([job.url, job.api_key, job.run, str(target), dies_at]))
        heard = await self._hear()
        while heard[0] != "pid":  # another child came to its end
            heard = await self._hear()
        return heard[1]

    async def end(self, pid: int) -> tuple[int, int]:
        """How a child ends, and how many actions it took if it came to its end alone."""
        self._say(f"{pid}")
        heard, actions = await self._hear(), 0
        while heard[0] != "exit":
            actions = heard[1]
            heard = await self._hear()
        return heard[1], actions

    def _say(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n".encode())
        self._process.stdin.flush()

    async def _hear(self) -> tuple[str, int]:
        assert self._process.stdout is not None
        while b"\n" not in self._received:
            await anyio.wait_readable(self._process.stdout)
            received = os.read(self._process.stdout.fileno(), 100)
            assert received, "the process ended"
            self._received += received
        line, _, self._received = self._received.partition(b"\n")
        word, number = line.decode().split()
        return word, int(number)


@pytest.fixture(scope="module")
def downloader() -> Iterator[Downloader]:
    """A process for all tests."""
    with Downloader() as running:
        yield running


@dataclass
class Scene:
    """A run with many files, whose gateway notes what it is asked and takes its time."""

    server: LocalServer
    gateway: RawServer
    instance: Path
    run: str
    downloader: Downloader

    async def download(self, target: Path, *, dies_at: int = 0, killed_after: float | None = None) -> tuple[int, int]:
        """How a child ends, negative by a signal, and how many actions it took if it came to its end."""
        return await self.downloader.download(self.job, target, dies_at=dies_at, killed_after=killed_after)

    @property
    def job(self) -> Job:
        """What children download."""
        return Job(self.server.url, self.server.api_key, self.run)

    def expected(self) -> dict[str, bytes]:
        """All files of a target in the end."""
        compute, report = (self.instance / "stages" / part for part in ("stage0/Compute", "stage1/Report"))
        wanted = {
            "files/stages/stage0/Compute": compute,
            "component": report,
            "outputs/Folder": report / "results",
        }
        found = {f"{at}/{name}": data for at, folder in wanted.items() for name, data in files_in(folder).items()}
        return {**found, "outputs/Energies/energies.csv": (compute / "energies.csv").read_bytes()}

    def asked_since(self, gateway: int, server: int) -> list[str]:
        """What was asked for since so many requests, named like the files and folders of a target."""
        files = [
            f"files{path.removeprefix(str(self.instance))}"
            for batch in requested_paths(self.gateway.requests[gateway:])
            for path in batch
        ]
        components = ["component" for seen in self.gateway.requests[gateway:] if seen.method == "GET"]
        outputs = [
            f"outputs/{path.rpartition('/')[2]}" for _, path in self.server.requests[server:] if "/outputs/" in path
        ]
        return files + components + outputs

    def complete(self, target: Path, expected: dict[str, bytes]) -> set[str]:
        """The files, and the folders that come as one, that are whole in a target; what is not whole fails."""
        found = files_in(target)
        assert {name for name, data in found.items() if expected.get(name) != data} == set()
        folders = ["component", "outputs/Folder", "outputs/Energies"]
        whole = [
            folder for folder in folders if all(name in found for name in expected if name.startswith(f"{folder}/"))
        ]
        return {*found, *whole}


@pytest.fixture
async def scene(shared_server: LocalServer, downloader: Downloader) -> AsyncIterator[Scene]:
    """A run that is over."""
    server = shared_server
    async with Client(server.url, api_key=server.api_key, config=settings()) as client:
        run = await another(client, server)
    instance = instance_of(server, run)
    data = random.Random(1)
    for number in range(tries(200, 60)):
        file = instance / f"stages/stage0/Compute/part {number // 20}/{number}.csv"
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(data.randbytes(data.randrange(600)))
    for number in range(20):
        (instance / f"stages/stage1/Report/results/sub/{number}.bin").write_bytes(data.randbytes(4000))
    (instance / "stages/stage1/Report/large.bin").write_bytes(data.randbytes(3 << 19))
    async with gateway(server, forward(server, piece=1 << 16, pause=0.001)) as asked_gateway:
        yield Scene(server, asked_gateway, instance, run.id, downloader)


Attempt = Callable[[Path], Awaitable[int]]


async def until_complete(scene: Scene, target: Path, attempt: Attempt, most: int) -> int:
    """Download into a target until it ends or has been killed so often; how often it was killed."""
    expected = scene.expected()
    done: set[str] = set()
    for kills in range(most + 1):
        before = len(scene.gateway.requests), len(scene.server.requests)
        code = await attempt(target) if kills < most else (await scene.download(target))[0]
        twice = done.intersection(scene.asked_since(*before))
        assert twice == set(), f"{len(twice)} fetched again after {kills} kills"
        done = scene.complete(target, expected)
        if code == 0:
            break
        assert code == -signal.SIGKILL
    assert files_in(target) == expected
    assert leftovers(target) == []
    return kills


async def test_killed_at_random_moments(scene: Scene, tmp_path: Path) -> None:
    """Whatever the time of death, before the first request or in the last rename, the next ones complete the work."""
    chance = random.Random(4)
    for name in ("first", "second"):  # which does not need to wait for what is made once
        began = anyio.current_time()
        assert (await scene.download(tmp_path / name))[0] == 0
        duration = anyio.current_time() - began

    async def attempt(target: Path) -> int:
        return (await scene.download(target, killed_after=chance.uniform(0, duration)))[0]

    kills = rounds = 0
    while kills < KILLS:
        kills += await until_complete(scene, tmp_path / f"{rounds}", attempt, most=8)
        rounds += 1


async def test_killed_between_any_two_actions(scene: Scene, tmp_path: Path) -> None:
    """A death before a file is opened, a folder made, a connection opened, a file renamed: seeded, over all of them."""
    chance = random.Random(5)
    code, actions = await scene.download(tmp_path / "undisturbed")
    assert (code, actions > tries(500, 200)) == (0, True)

    kills = 0
    for number, first in enumerate(spread(actions, KILLS // 2, chance)):
        moments = iter([first])

        async def attempt(target: Path, moments: Iterator[int] = moments) -> int:
            moment = next(moments, 0) or chance.randrange(1, actions // 2)
            return (await scene.download(target, dies_at=moment))[0]

        kills += await until_complete(scene, tmp_path / f"{number}", attempt, most=4)
    assert kills >= KILLS


async def test_after_the_end_there_is_nothing_to_do(scene: Scene, tmp_path: Path) -> None:
    """Called again when all is there, it asks for no file."""
    target = tmp_path / "target"
    assert (await scene.download(target))[0] == 0
    before = len(scene.gateway.requests), len(scene.server.requests)

    assert (await scene.download(target))[0] == 0

    assert scene.asked_since(*before) == []
    assert scene.complete(target, scene.expected()) >= set(scene.expected())


def spread(end: int, count: int, chance: random.Random) -> list[int]:
    """Numbers from 1 to ``end``, one from each of as many equal parts of it."""
    return [1 + int((part + chance.random()) * end / count) for part in range(count)]


async def test_two_processes_download_into_the_same_folders(scene: Scene, tmp_path: Path) -> None:
    """Both end well, while one takes nothing of the other for left behind; then all is there, once."""
    target, ends = tmp_path / "target", list[int]()

    pids = [await scene.downloader.begin(scene.job, target)]
    await scene.gateway.until(lambda: scene.gateway.in_flight > 0)
    pids.append(await scene.downloader.begin(scene.job, target))
    for pid in pids:
        code, _ = await scene.downloader.end(pid)
        ends.append(code)

    assert ends == [0, 0]
    assert files_in(target) == scene.expected()
    assert leftovers(target) == []
