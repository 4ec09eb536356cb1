"""Downloads under attack: what breaks, what is still true afterwards, and that a repeated call completes."""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import pytest

from st4sd_async import Client, Download, DownloadError, DownloadFailed, Run, St4sdError, Step
from st4sd_async.local import CutBody, DropAfter, DropBefore, Html, LocalServer, Reply
from st4sd_async.local._faults import Fault
from tests.unit.test_archive import Entry, build

from .gateways import (
    LEDGER,
    archive,
    asked,
    failed,
    files_in,
    finished,
    forward,
    gateway,
    instance_of,
    is_part,
    leftovers,
    register,
    when,
    whole,
    zipped,
)
from .raw import Answer, RawServer, close, cut, head, never, raw, reply, reset, sign_in
from .tools import SILENCE, assert_ours, settings

pytestmark = pytest.mark.anyio

COMPUTE = "stages/stage0/Compute"
Outcomes = list[Download | DownloadFailed]


@dataclass
class Scene:
    """A run that is over, with files of its own, and a client that is asked about it."""

    server: LocalServer
    client: Client
    run: Run
    instance: Path
    folder: Path
    """A folder that holds the target and nothing else."""

    @property
    def target(self) -> Path:
        """Where the files are to be."""
        return self.folder / "target"

    def write(self, name: str, content: bytes = b"content\n", component: str = COMPUTE) -> Path:
        """Let a component have left a file."""
        file = self.instance / component / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        return file

    async def files(self, **chosen: Any) -> Outcomes:
        """Download files of the first component."""
        return await self.client.download_files(self.run, self.target, component="Compute", **chosen)

    async def component(self) -> Outcomes:
        """Download the second component."""
        return await self.client.download_component(self.run, 1, "Report", self.target)

    async def outputs(self) -> Outcomes:
        """Download all key-outputs."""
        return await self.client.download_outputs(self.run, self.target, unpack=True)

    def expected(self, verb: str) -> dict[str, bytes]:
        """All files of the target in the end, by the verb that brings them."""
        report = self.instance / "stages/stage1/Report"
        if verb == "files":
            return {f"{COMPUTE}/{name}": data for name, data in files_in(self.instance / COMPUTE).items()}
        if verb == "component":
            return files_in(report)
        folder = {f"Folder/{name}": data for name, data in files_in(report / "results").items()}
        return {**folder, "Energies/energies.csv": (self.instance / COMPUTE / "energies.csv").read_bytes()}

    def check(self, verb: str, outcomes: Outcomes = []) -> None:  # noqa: B006 -- nobody changes it
        """What holds whatever happened: nothing half, nothing elsewhere, nothing left, errors of ours."""
        assert os.listdir(self.folder) in ([], ["target"])  # noqa: PTH208 -- names are all there is to see
        if self.target.is_dir():
            assert files_in(self.target).items() <= self.expected(verb).items()
            assert leftovers(self.target) == []
        for error in failed(outcomes):
            assert isinstance(error, St4sdError)
            assert_ours_or_system(error)
        whole(one for one in outcomes if isinstance(one, Download))
        gc.collect()  # what was not closed warns now


def assert_ours_or_system(error: BaseException) -> None:
    """Fail if an exception leads to one of the HTTP engine's; what the disk or the archive said may be its cause."""
    cause = error.__cause__
    if cause is None:
        assert_ours(error)


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    """A run that is over."""
    async with staged(tmp_path) as made:
        yield made


@asynccontextmanager
async def staged(tmp_path: Path, **changes: Any) -> AsyncIterator[Scene]:
    """A run that is over, and a client with other settings."""
    (folder := tmp_path / "outside").mkdir()
    async with (
        LocalServer(speed=0) as server,
        Client(server.url, api_key=server.api_key, config=settings(**changes)) as client,
    ):
        run = await finished(client, server)
        yield Scene(server, client, run, instance_of(server, run), folder)


def damaged(members: list[tuple[str, bytes]]) -> bytes:
    """An archive in which a byte of a content is wrong."""
    body = bytearray(zipped(members))
    body[60 + len(members[0][0])] ^= 1
    return bytes(body)


def hostile(*entries: Entry) -> Answer:
    """An archive that says what no honest one does, beside what was asked for."""

    def change(members: list[tuple[str, bytes]]) -> bytes:
        return build(*(Entry(name=name, content=content) for name, content in members), *entries)

    return archive(change)


NAMELESS = raw(b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\n\r\nabc")
JSON = {"media": "application/json"}
BROKEN = {
    "refused": None,
    "closed": close(),
    "reset": reset(),
    "silent": never(),
    "cut in the middle of chunks": archive(missing=300),
    "cut inside the last mark": archive(missing=3),
    "cut before the last mark": archive(missing=5),
    "cut in the middle": archive(chunked=False, missing=200),
    "cut before the last byte": archive(chunked=False, missing=1),
    "reset in the middle": archive(missing=300, then=reset()),
    "silent in the middle": archive(missing=300, then=never()),
    **{str(status): reply(status, b"<html>", media="text/html") for status in (500, 502, 503, 504)},
    "500 in JSON": reply(500, {"message": "no"}),
    "the sign-in page": sign_in(),
    "the sign-in page as a success": reply(200, b"<html>Log in</html>", media="text/html; charset=utf-8"),
    "false": reply(200, False),
    "empty text": reply(200, ""),
    "cut JSON": cut(),
    "302": raw(head(302, {"Location": "https://elsewhere.example/", "Content-Length": "0"})),
    "308": raw(head(308, {"Location": "http://127.0.0.1:1/", "Content-Length": "0"})),
    "not HTTP": raw(b"SSH-2.0\r\n"),
    "until the end of the connection": NAMELESS,
    "nothing": archive(lambda _: b""),
    "no archive": archive(lambda _: b"<html>" * 100),
    "a cut tail": archive(lambda members: zipped(members)[:-30]),
    "a cut middle": archive(lambda members: zipped(members)[: len(zipped(members)) // 2]),
    "something after the end": archive(lambda members: zipped(members) + b"x"),
    "a wrong byte": archive(damaged),
    "the empty archive": archive(lambda _: []),
    "a name that leads out": hostile(Entry(name="/../../outside.txt")),
    "an absolute name": hostile(Entry(name="//etc/outside.txt")),
    "a name of Windows": hostile(Entry(name="C:\\outside.txt")),
    "a link": hostile(Entry(name="/link", content=b"/etc", mode=0o120777)),
    "a device": hostile(Entry(name="/device", mode=0o020666)),
    "a name that comes twice": archive(lambda members: [*members, (members[0][0], b"other")]),
    "names that differ in case": archive(lambda members: [*members, (members[0][0].upper(), b"other")]),
    "a file in a file": archive(lambda members: [*members, (f"{members[0][0]}/x", b"other")]),
    "a bomb": hostile(
        *(Entry(name=f"/bomb{n}", local={"size": 0xFFFFFFF0}, central={"size": 0xFFFFFFF0}) for n in range(2))
    ),
}
"""What a gateway does instead of sending files; None: it does not listen."""
HARMLESS = {"the empty archive": {"component"}}
"""Verbs to which it is an answer like others."""


@pytest.mark.parametrize("verb", ["files", "component"])
@pytest.mark.parametrize("broken", BROKEN)
async def test_a_gateway_that_fails_leaves_nothing_half(verb: str, broken: str, tmp_path: Path) -> None:
    """Each file is whole or failed with an error of ours; when the gateway is well again, the same call completes."""
    async with staged(tmp_path, timeout=SILENCE) as scene:
        if verb == "files":
            for number in range(8):
                scene.write(f"{number}.txt", b"%d\n" % number * 99)
        answer = BROKEN[broken]
        async with RawServer([answer or close()], listening=answer is not None) as bad:
            register(scene.server, bad.url)
            outcomes = await getattr(scene, verb)()
            scene.check(verb, outcomes)
            if verb not in HARMLESS.get(broken, ()):
                assert outcomes
                assert failed(outcomes), outcomes
            scene.server.faults.clear()

        async with Client(scene.server.url, api_key=scene.server.api_key, config=settings()) as scene.client:
            whole(await getattr(scene, verb)())
        scene.check(verb)
        assert files_in(scene.target) == scene.expected(verb)


ONCE = [name for name, answer in BROKEN.items() if answer and ("cut " in name or "reset" in name or "silent" in name)]
ONCE += ["closed", "502", "503", "504", "a wrong byte"]


@pytest.mark.parametrize("verb", ["files", "component"])
@pytest.mark.parametrize("broken", ONCE)
async def test_what_breaks_once_is_made_good_in_the_same_call(verb: str, broken: str, tmp_path: Path) -> None:
    """Nobody who calls notices."""
    async with staged(tmp_path, timeout=SILENCE) as scene:
        scene.write("a.txt", b"a" * 9999)
        answer = BROKEN[broken]
        assert answer
        async with gateway(scene.server, answer, forward(scene.server)):
            whole(await getattr(scene, verb)())

        scene.check(verb)
        assert files_in(scene.target) == scene.expected(verb)


OUTPUT = "GET /instances/*/outputs/*"
FAULTS: dict[str, Fault] = {
    "cut": CutBody(20),
    "cut at once": CutBody(0),
    "dropped before": DropBefore(),
    "dropped after": DropAfter(),
    **{str(status): Html(status) for status in (502, 503, 504, 500, 403, 200)},
    "false": Reply(200, {"Content-Type": "application/json"}, b"false"),
    "a wrong archive": Reply(200, {"Content-Type": "application/zip"}, b"PK"),
    "a hostile archive": Reply(200, {"Content-Type": "application/zip"}, zipped([("/../../outside.txt", b"")])),
    "308": Reply(308, {"Location": "http://elsewhere.example/"}),
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_service_that_fails_leaves_no_half_output(scene: Scene, fault: str) -> None:
    """As with gateways."""
    scene.server.faults.add(OUTPUT, FAULTS[fault], times=None)

    outcomes = await scene.outputs()

    scene.check("outputs", outcomes)
    assert len(failed(outcomes)) == 2
    scene.server.faults.clear()
    whole(await scene.outputs())
    assert files_in(scene.target) == scene.expected("outputs")


async def test_a_service_that_fails_once_is_asked_again(scene: Scene) -> None:
    """Of two key-outputs, whichever breaks off."""
    for fault in (CutBody(10), Html(502)):
        scene.server.faults.add(OUTPUT, fault)

    whole(await scene.outputs())

    assert files_in(scene.target) == scene.expected("outputs")


@pytest.mark.parametrize("verb", ["files", "component"])
async def test_a_renewed_credential_opens_the_door(verb: str, tmp_path: Path) -> None:
    """A sign-in page in place of an archive makes the provider be asked once more."""
    given: list[str] = []
    trusting = settings(trusted_hosts=("127.0.0.1",), downloads=1)

    async with staged(tmp_path) as scene:

        def provide() -> str:
            if given:
                scene.server.renew()
            given.append(scene.server.api_key)
            return given[-1]

        async with (
            gateway(scene.server, sign_in(), forward(scene.server)) as door,
            Client(scene.server.url, api_key=provide, config=trusting) as scene.client,
        ):
            whole(await getattr(scene, verb)())

    assert len(set(given)) == 2
    assert [seen.headers["authorization"] for seen in door.requests][:2] == [f"Bearer {key}" for key in given]


# Files ---------------------------------------------------------------------------------------------------------------


async def test_one_unreadable_file_among_many(scene: Scene) -> None:
    """Every answer with it breaks off: it fails, all others are there."""
    for number in range(60):
        scene.write(f"{number}.txt")
    bad = scene.write("bad.txt")
    bodies = when(lambda seen: b"bad.txt" in seen.body or seen.method == "GET", archive(missing=20), archive())
    async with gateway(scene.server, bodies):
        outcomes = await scene.files()

    scene.check("files", outcomes)
    assert [one.source.rpartition("/")[2] for one in outcomes if isinstance(one, DownloadFailed)] == [bad.name]
    assert files_in(scene.target).keys() == scene.expected("files").keys() - {f"{COMPUTE}/bad.txt"}


async def test_several_unreadable_files_among_many(scene: Scene) -> None:
    """However many they are, the others are there, with no more requests than it takes."""
    for number in range(100):
        scene.write(f"{number}{'.bad' * (number % 8 == 0)}")
    bodies = when(lambda seen: b".bad" in seen.body or seen.method == "GET", archive(missing=20), archive())
    async with gateway(scene.server, bodies):
        outcomes = await scene.files()

    scene.check("files", outcomes)
    assert {name for name in scene.expected("files") if ".bad" not in name} <= files_in(scene.target).keys()
    assert len(failed(outcomes)) == 13


async def test_one_file_at_which_the_gateway_falls_silent(tmp_path: Path) -> None:
    """It fails, all others are there."""
    async with staged(tmp_path, timeout=SILENCE) as scene:
        for number in range(20):
            scene.write(f"{number}.txt")
        scene.write("bad.txt")
        silent = archive(missing=20, then=never())
        bodies = when(lambda seen: b"bad.txt" in seen.body or seen.method == "GET", silent, archive())
        async with gateway(scene.server, bodies):
            outcomes = await scene.files()

        scene.check("files", outcomes)
        assert len(failed(outcomes)) == 1
        assert files_in(scene.target).keys() == scene.expected("files").keys() - {f"{COMPUTE}/bad.txt"}


async def test_many_folders_in_the_way(scene: Scene) -> None:
    """What cannot have its name fails, all others are there, and nobody asks for them again and again."""
    for number in range(100):
        scene.write(f"{number}.txt")
    blocked = {f"{COMPUTE}/{number}.txt" for number in range(0, 100, 10)}
    for name in blocked:
        (scene.target / name).mkdir(parents=True)

    outcomes = await scene.files()

    scene.check("files", outcomes)
    assert files_in(scene.target).keys() == scene.expected("files").keys() - blocked
    assert len(failed(outcomes)) == len(blocked)


async def test_names_of_all_kinds(scene: Scene) -> None:
    """Blanks, quotes, percents, other scripts, no content: all as they are. Only a line feed is refused."""
    names = ["a b", 'it\'s "q"', "100%.txt", "%2e%2e", "ä€😀.txt", "e\u0301", "#?&=+;", ".hidden", "-", "[x]*", "$(x)"]
    for name in names:
        scene.write(name, name.encode())
    scene.write("empty", b"")
    scene.write("two\nlines", b"x")

    outcomes = await scene.files()

    scene.check("files", outcomes)
    assert len(failed(outcomes)) == 1
    assert "control character" in str(failed(outcomes)[0])
    assert files_in(scene.target).keys() == scene.expected("files").keys() - {f"{COMPUTE}/two\nlines"}


async def test_names_that_differ_in_case(scene: Scene) -> None:
    """Where the disk tells them apart, both are there."""
    for name in ("a.txt", "A.txt", "A.TXT"):
        scene.write(name, name.encode())

    whole(await scene.files())

    assert files_in(scene.target) == scene.expected("files")


async def test_a_file_that_no_answer_holds_comes_with_its_component(scene: Scene) -> None:
    """One of 33 MiB among small ones; one that is gone is told."""
    scene.write("large.bin", os.urandom(1 << 20) * 33)
    gone = scene.write("gone.txt")
    async with gateway(scene.server, when(lambda _: gone.unlink(missing_ok=True), close(), forward(scene.server))):
        outcomes = await scene.files()

    scene.check("files", outcomes)
    assert files_in(scene.target) == scene.expected("files")
    assert [type(error).__name__ for error in failed(outcomes)] == ["NotFound"]


@pytest.mark.parametrize(("count", "size", "most"), [(1001, 10, 8), (12, 4 << 20, 8)])
async def test_what_does_not_fit_into_an_answer_is_asked_for_again(
    scene: Scene, count: int, size: int, most: int
) -> None:
    """1,001 files, or 48 MiB, with one worker, so that all are asked for at once."""
    for number in range(count):
        scene.write(f"{number}.bin", os.urandom(size))

    alone = Client(scene.server.url, api_key=scene.server.api_key, config=settings(downloads=1))
    async with alone as scene.client, gateway(scene.server) as asked_gateway:
        whole(await scene.files())

    assert files_in(scene.target) == scene.expected("files")
    assert 2 <= len(asked_gateway.requests) <= most
    assert {seen.method for seen in asked_gateway.requests} == {"POST"}
    assert max(map(len, asked(asked_gateway.requests))) <= 1000


# The target ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["files", "component", "outputs"])
@pytest.mark.parametrize(
    "way", ["a file", "below a file", "a link to a file", "a dangling link", "the ledger is a folder"]
)
async def test_there_can_be_no_such_folder(scene: Scene, verb: str, way: str) -> None:
    """It is an error before anything is fetched, and leaves what was there as it was."""
    (scene.folder / "other").write_bytes(b"mine")
    if way == "a file":
        scene.target.write_bytes(b"mine")
    elif way == "below a file":
        scene.folder /= "other"
    elif way == "a link to a file":
        scene.target.symlink_to(scene.folder / "other")
    elif way == "a dangling link":
        scene.target.symlink_to(scene.folder / "none/none")
    else:
        (scene.target / LEDGER).mkdir(parents=True)

    with pytest.raises(DownloadError):
        await getattr(scene, verb)()

    if way == "the ledger is a folder":
        assert os.listdir(scene.target) == [LEDGER]  # noqa: PTH208 -- names are all there is to see
    gc.collect()


@pytest.mark.parametrize("verb", ["files", "component", "outputs"])
@pytest.mark.parametrize("obstacle", ["a folder", "a link to a file", "a link to a folder", "a file for a folder"])
async def test_something_is_in_the_way(scene: Scene, verb: str, obstacle: str) -> None:
    """What belongs there fails, what is there stays, nothing is written through a link."""
    outside = scene.folder.parent / "elsewhere"
    outside.mkdir()
    (outside / "file").write_bytes(b"mine")
    first = next(iter(scene.expected(verb)))
    place = scene.target / first
    if obstacle in ("a folder", "a link to a file"):
        place.parent.mkdir(parents=True)
        place.mkdir() if obstacle == "a folder" else place.symlink_to(outside / "file")
    else:
        scene.target.mkdir()
        top = scene.target / first.partition("/")[0]
        top.write_bytes(b"mine") if obstacle == "a file for a folder" else top.symlink_to(outside)
        if verb == "component" and "/" not in first:
            pytest.skip("it has no folder there")

    outcomes = await getattr(scene, verb)()

    assert failed(outcomes)
    assert all(isinstance(error, DownloadError) for error in failed(outcomes))
    assert {path.name: path.read_bytes() for path in outside.iterdir()} == {"file": b"mine"}
    assert leftovers(scene.target) == []


async def test_the_ledger_is_a_link(scene: Scene) -> None:
    """Nothing is written where it leads."""
    elsewhere = scene.folder.parent / "elsewhere"
    elsewhere.write_bytes(b"mine\n")
    scene.target.mkdir()
    (scene.target / LEDGER).symlink_to(elsewhere)

    with suppress(DownloadError):
        await scene.files()

    assert elsewhere.read_bytes() == b"mine\n"


@pytest.mark.parametrize("name", [LEDGER, ".st4sd-x.part/file", f"results/{LEDGER}"])
async def test_a_component_has_left_files_of_our_names(scene: Scene, name: str) -> None:
    """A component that downloads by itself leaves a ledger: refused, or as it was whatever comes into the folder."""
    source = scene.write(name, b'{"source": "x", "stamp": "", "files": []}\n', "stages/stage1/Report")

    outcomes = await scene.component()
    whole(await scene.files())

    place = scene.target / name
    if any(isinstance(one, Download) and one.path == place for one in outcomes):
        assert place.is_file()
        assert place.read_bytes() == source.read_bytes()


@contextmanager
def room(size: int) -> Iterator[None]:
    """No file may get larger."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("verb", ["files", "component"])
async def test_no_room(scene: Scene, verb: str) -> None:
    """The large file fails, the others are there; with room the same call completes."""
    scene.write("large.bin", os.urandom(200_000))
    scene.write("large.bin", os.urandom(200_000), "stages/stage1/Report")

    with room(100_000):
        outcomes = await getattr(scene, verb)()

    scene.check(verb, outcomes)
    assert len(failed(outcomes)) == 1
    assert isinstance(failed(outcomes)[0], DownloadError)
    if verb == "files":
        assert files_in(scene.target).keys() == scene.expected(verb).keys() - {f"{COMPUTE}/large.bin"}
    whole(await getattr(scene, verb)())
    assert files_in(scene.target) == scene.expected(verb)


async def test_key_outputs_whose_folders_would_be_the_same(scene: Scene) -> None:
    """None overwrites another: each that is said to be there is what it is."""
    entries = {
        name: {"creationtime": "1795341529.33", "version": "1", "final": "yes", "filepath": "x", "filename": "same.txt"}
        for name in ("a:b", "a?b")
    }
    body = str(entries).replace("'", '"').encode()
    scene.server.faults.add("GET /instances/*/outputs$", Reply(200, {"Content-Type": "application/json"}, body))
    scene.server.faults.add("GET /instances/*/outputs", Reply(200, {"Content-Type": "application/json"}, body))
    for content in (b"first", b"second"):
        lead = {"Content-Type": "application/octet-stream", "Content-Disposition": 'attachment; filename="same.txt"'}
        scene.server.faults.add("GET /instances/*/outputs/*", Reply(200, lead, content))

    whole(await scene.client.download_outputs(scene.run, scene.target))


# Cancelled -----------------------------------------------------------------------------------------------------------

Stop = Callable[[], None]


@pytest.mark.parametrize("how", ["scope", "task"])
@pytest.mark.parametrize("verb", ["files", "component", "outputs"])
async def test_cancelled_at_any_step(tmp_path: Path, verb: str, how: str) -> None:
    """Nothing half, no workspace, no connection kept; the next call is fine. By anyio's scope or asyncio's task."""
    stop: Stop = lambda: None  # noqa: E731 -- replaced before each call
    left = 0

    def progress(_: Step) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            stop()

    async with staged(tmp_path, progress=progress) as scene:
        scene.write("a.bin", os.urandom(700_000))
        scene.write("a.bin", os.urandom(700_000), "stages/stage1/Report/results")
        for step in range(1, 30):
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
            stop = lambda: None  # noqa: E731
            if not was_cancelled:
                break
        assert step > 2
        whole(await getattr(scene, verb)())


@pytest.mark.parametrize("how", ["scope", "task"])
async def test_cancelled_while_a_thread_works(scene: Scene, how: str) -> None:
    """Unpacking is waited for or undone: afterwards nothing appears, nothing is left."""
    for number in range(40):
        scene.write(f"{number}.bin", b"\0" * 1_000_000, "stages/stage1/Report")
    for number in range(12):
        scene.folder = scene.folder.parent / f"outside{number}"
        scene.folder.mkdir()
        task_scope = anyio.CancelScope()

        async def download(scope: anyio.CancelScope = task_scope) -> None:
            with scope:
                await scene.component()

        task = asyncio.ensure_future(download())
        while not scene.target.is_dir() or not any(map(is_part, os.listdir(scene.target))):  # noqa: PTH208, ASYNC110
            await anyio.sleep(0.001)
        await anyio.sleep(number * 0.015)
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


async def test_a_cancelled_download_gives_its_turn_back(tmp_path: Path) -> None:
    """With room for one body at a time, the next call does not wait for the one that was cancelled."""
    async with (
        staged(tmp_path, downloads=1) as scene,
        gateway(scene.server, archive(missing=100, then=never()), forward(scene.server)) as slow,
    ):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(scene.files)
            await slow.until(lambda: slow.in_flight == 1)
            tasks.cancel_scope.cancel()
        with anyio.fail_after(5):
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


# What is read --------------------------------------------------------------------------------------------------------


async def test_an_archive_of_more_than_was_asked_for_does_not_fill_the_memory(scene: Scene) -> None:
    """A limit on a file is a limit on what is kept of the answer to it."""
    scene.write("a.txt")
    zeros = b"\0" * 1_000_000
    answer = archive(lambda members: [*members, *((f"/{n}", zeros) for n in range(60))])
    async with gateway(scene.server, answer):
        tracemalloc.start()
        with suppress(DownloadError):
            await scene.client.read_file(scene.run, f"{COMPUTE}/a.txt", limit=1_000_000)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()

    assert peak < 20_000_000


@pytest.mark.parametrize("broken", BROKEN)
async def test_a_file_is_not_read_from_a_broken_answer(broken: str, tmp_path: Path) -> None:
    """What comes is whole, or an error of ours comes."""
    async with staged(tmp_path, timeout=SILENCE) as scene:
        content = scene.write("a.txt", b"abc\n" * 500).read_bytes()
        answer = BROKEN[broken]
        async with RawServer([answer or close()], listening=answer is not None) as bad:
            register(scene.server, bad.url)
            try:
                assert await scene.client.read_file(scene.run, f"{COMPUTE}/a.txt") == content
            except St4sdError as error:
                assert_ours_or_system(error)
            else:
                pytest.fail("it was read")
        gc.collect()


ADDRESSES: list[Any] = ["", "nonsense", "ftp://127.0.0.1", "//", "http://", "http://a b/", "http://a\nb/", 7, None, {}]
ADDRESSES += ["http://[::1", "http://127.0.0.1:99999", "http://127.0.0.1:x", "http://user:word@127.0.0.1:1"]


@pytest.mark.parametrize("address", ADDRESSES, ids=repr)
async def test_a_registry_that_tells_nonsense(scene: Scene, address: Any) -> None:
    """It is an error of ours, of each file."""
    register(scene.server, address)

    with pytest.raises(St4sdError):
        await scene.client.read_file(scene.run, "output/experiment.log")
    with pytest.raises(St4sdError):
        await scene.files(strict=True)
    with pytest.raises(St4sdError):
        await scene.client.download_component(scene.run, 1, "Report", scene.target, strict=True)

    scene.check("files")
