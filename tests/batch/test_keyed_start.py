"""Starts with a key: once over all processes that share a memory."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from st4sd_async import (
    Client,
    ConnectFailed,
    FolderMemory,
    InvalidPayload,
    JournalCorrupt,
    LaunchConflict,
    RateLimited,
    RetryPolicy,
    StartOutcomeUnknown,
    UnknownExperiment,
)
from st4sd_async.local import Delay, DropAfter, DropBefore, LocalServer, Reply

from .batches import START, QuickClock, connect, launch, until

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

UID = "demo-sha256x123456-abcdef"


@pytest.fixture
def memory(tmp_path: Path) -> FolderMemory:
    return FolderMemory(tmp_path / "memory")


def payload(number: int = 0, **parts: Any) -> dict[str, Any]:
    found = launch(number, **parts).payload
    assert isinstance(found, dict)
    return found


async def count(client: Client) -> Counter[Any]:
    """Return number in the metadata -> how many instances carry it."""
    return Counter(
        instance.status.meta.user_metadata.get("number") if instance.status.meta else None
        for instance in await client.instances.list()
    )


async def test_a_second_start_returns_the_run_of_the_first(
    server: LocalServer, client: Client, memory: FolderMemory
) -> None:
    """Also from another client, and it sends nothing."""
    first = await client.start("demo", payload(), key="a", memory=memory)
    async with connect(server) as other:
        second = await other.start("demo", payload(), key="a", memory=FolderMemory(memory.path))

    assert first == second
    assert server.traffic[START].requests == 1
    assert await client.find("a", memory=memory) == first


async def test_keys_are_independent(server: LocalServer, client: Client, memory: FolderMemory) -> None:
    """Keys may have any character, and differ by case."""
    keys = ["a", "A", "dag 1/task/0", "ü" * 300, "a:b"]

    runs = [await client.start("demo", payload(), key=key, memory=memory) for key in keys]

    assert len(set(runs)) == len(keys)
    assert [await client.find(key, memory=memory) for key in keys] == runs
    assert await client.find("b", memory=memory) is None


async def test_starts_at_the_same_time_make_one_instance(
    server: LocalServer, client: Client, memory: FolderMemory
) -> None:
    """From several clients. The others wait for the one that sends."""
    server.faults.add(START, Delay(0.3))
    found = []

    async def start() -> None:
        async with connect(server) as one:
            found.append(await one.start("demo", payload(), key="a", memory=memory))

    async with anyio.create_task_group() as tasks:
        for _ in range(10):
            tasks.start_soon(start)

    assert len(set(found)) == 1
    assert server.traffic[START].requests == 1


@pytest.mark.parametrize("fault", [DropAfter(), Reply(500, handled=True), Reply(500), DropBefore()], ids=str)
async def test_a_start_with_unknown_outcome_is_resolved(
    server: LocalServer, client: Client, memory: FolderMemory, fault: Any
) -> None:
    """A run that exists is found; a start that did not arrive is sent again, after the settle window."""
    server.faults.add(START, fault)

    run = await client.start("demo", payload(), key="a", memory=memory)

    assert await client.find("a", memory=memory) == run
    await client.wait(run)
    assert await count(client) == {"0": 1}


async def test_a_process_that_died_while_it_sent_is_replaced(
    server: LocalServer, client: Client, memory: FolderMemory, caplog: pytest.LogCaptureFixture
) -> None:
    """
    Its record must stand for the settle window first, then the window of the proof begins.

    The log says for how long its run is searched for, and whether it was found.
    """
    caplog.set_level("INFO", "st4sd_async")
    clock = QuickClock()
    killed = Killable(memory, kill_at=1)
    with pytest.raises(Killed):
        async with connect(server) as one:
            await one.start("demo", payload(), key="a", memory=killed)
    assert server.traffic[START].requests == 1

    async with connect(server, clock=clock) as other:
        run = await other.start("demo", payload(), key="a", memory=memory)

    await client.wait(run)
    assert await count(client) == {"0": 1}
    searching, adopted = (text for text in caplog.messages if "the key 'a'" in text)
    assert "searching for its run for up to 2 min" in searching  # one window of 30 s, and three
    assert adopted == f"adopted the run {run.id!r}, which was started with the key 'a'"


@pytest.mark.parametrize("is_native", [True, False], ids=["Task.cancel", "cancel scope"])
async def test_a_cancelled_start_is_in_doubt(
    server: LocalServer, client: Client, memory: FolderMemory, is_native: bool
) -> None:
    """If it was sent. It is not forgotten, and the next start finds its run."""
    server.faults.add(START, Delay(0.2))
    started = []

    async def start() -> None:
        started.append(asyncio.current_task())
        await client.start("demo", payload(), key="a", memory=memory)
        raise AssertionError("it was not cancelled")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(start)
        await until(lambda: server.traffic[START].requests == 1)
        if is_native:
            assert started[0] is not None
            started[0].cancel()
        else:
            tasks.cancel_scope.cancel()

    record = await memory.get("key/a")
    assert record is not None
    assert json.loads(record)["state"] == "unknown"
    run = await client.start("demo", payload(), key="a", memory=memory)

    await client.wait(run)
    assert await count(client) == {"0": 1}


async def test_a_run_of_another_key_is_never_adopted(server: LocalServer, client: Client, memory: FolderMemory) -> None:
    """Even if it has the token: the memory and the service contradict each other."""
    with pytest.raises(Killed):
        await client.start("demo", payload(), key="a", memory=Killable(memory, kill_at=1))
    (instance,) = await client.instances.list()
    await client.wait(instance.id)
    assert await memory.compare_and_set(f"run/{instance.id}", None, "b")

    message = f"the run {instance.id!r} belongs to the key 'b'"
    with pytest.raises(StartOutcomeUnknown, match=message):
        await client.find("a", memory=memory)
    with pytest.raises(StartOutcomeUnknown, match=message):
        await client.start("demo", payload(), key="a", memory=memory)


async def test_a_claimed_run_is_found_before_it_shows_its_token(memory: FolderMemory) -> None:
    """The process that sent died after it recorded whose run it is, and before it recorded the start."""
    with LocalServer(speed=0) as full:
        async with connect(full) as one:
            await one.push(full.example("demo"))
            with pytest.raises(Killed):
                await one.start("demo", payload(), key="a", memory=Killable(memory, kill_at=2))

            run = await one.find("a", memory=memory)

            assert [instance.id for instance in await one.instances.list()] == [str(run)]


async def test_a_run_that_existed_before_is_no_candidate(memory: FolderMemory) -> None:
    """Although nothing shows whose it is."""
    with LocalServer(speed=0) as full:
        async with connect(full) as one:
            await one.push(full.example("demo"))
            await one.start("demo", payload(1))
            full.faults.add(START, DropBefore())

            await one.start("demo", payload(), key="a", memory=memory)

            assert full.traffic[START].requests == 3
            assert len(await one.instances.list()) == 2


async def test_a_run_is_found_once_it_shows_its_token(memory: FolderMemory) -> None:
    """Until then its outcome is unknown: the process that sent it died before the response was recorded."""
    with LocalServer(speed=0) as frozen:
        async with connect(frozen) as client:
            await client.push(frozen.example("demo"))
            with pytest.raises(Killed):
                await client.start("demo", payload(), key="a", memory=Killable(memory, kill_at=1))
            with pytest.raises(StartOutcomeUnknown, match="the key 'a'"):
                await client.find("a", memory=memory)

            await frozen.advance(10)
            run = await client.find("a", memory=memory)

            assert [instance.id for instance in await client.instances.list()] == [str(run)]
            assert frozen.traffic[START].requests == 1


async def test_a_record_whose_send_never_happened_is_sent_after_two_windows(
    server: LocalServer, client: Client, memory: FolderMemory, caplog: pytest.LogCaptureFixture
) -> None:
    """One for which the record stands unchanged, and one of evidence. The log says that it was started again."""
    caplog.set_level("INFO", "st4sd_async")
    clock = QuickClock()
    with pytest.raises(Killed):
        async with connect(server) as one:
            await one.start("demo", payload(), key="a", memory=Killable(memory, kill_at=0, is_done=True))
    assert server.traffic[START].requests == 0

    async with connect(server, clock=clock) as other:
        began = clock.now()
        run = await other.start("demo", payload(), key="a", memory=memory)

    assert clock.now() - began >= 2 * 30.0
    assert server.traffic[START].requests == 1
    assert [text for text in caplog.messages if "the key 'a'" in text][1:] == [
        "the earlier start with the key 'a' has no run: starting one",
        f"started the run {run.id!r} with the key 'a'",
    ]


async def test_a_worker_that_waits_follows_the_record(
    server: LocalServer, client: Client, memory: FolderMemory
) -> None:
    """Another one may have finished the start meanwhile, although no list shows its run yet."""

    class Changing(FolderMemory):
        reads = 0

        async def get(self, name: str, /) -> str | None:
            self.reads += name == "key/a"
            if self.reads == 3:
                old = await memory.get(name)
                assert old is not None
                assert await memory.compare_and_set(
                    name, old, json.dumps({**json.loads(old), "state": "started", "rest_uid": UID})
                )
            return await super().get(name)

    with pytest.raises(Killed):
        await client.start("demo", payload(), key="a", memory=Killable(memory, kill_at=0, is_done=True))

    run = await client.start("demo", payload(), key="a", memory=Changing(memory.path))

    assert run.id == UID
    assert server.traffic[START].requests == 0


async def test_a_worker_with_a_shorter_settle_window_waits_for_the_permit(
    server: LocalServer, client: Client, memory: FolderMemory
) -> None:
    """The writer of the record may send until then, whatever the settle window of others is."""
    clock = QuickClock()
    with pytest.raises(Killed):
        async with connect(server, settle=600.0) as one:
            await one.start("demo", payload(), key="a", memory=Killable(memory, kill_at=0, is_done=True))

    async with connect(server, clock=clock, settle=5.0) as other:
        began = clock.now()
        await other.start("demo", payload(), key="a", memory=memory)

    assert clock.now() - began >= 30.0


@pytest.mark.parametrize("settle", [0.0, 0.0001])
async def test_a_tiny_settle_window_leaves_time_to_send(
    server: LocalServer, client: Client, memory: FolderMemory, settle: float
) -> None:
    """The permit is longer than it takes to write the record."""
    async with connect(server, settle=settle) as one:
        with anyio.fail_after(5):
            await one.start("demo", payload(), key="a", memory=memory)

    assert server.traffic[START].requests == 1


async def test_a_send_after_its_permit_needs_another(server: LocalServer, client: Client, memory: FolderMemory) -> None:
    """Also while the connection is refused: another process may have taken over meanwhile."""
    clock = QuickClock()
    taken = FolderMemory(memory.path)

    class Slow(FolderMemory):
        async def compare_and_set(self, name: str, old: str | None, new: str, /) -> bool:
            done = await super().compare_and_set(name, old, new)
            if done:
                await clock.sleep(31)  # for so long that the permit is over
                other = {**json.loads(new), "writer": "another", "state": "started", "rest_uid": UID}
                assert await taken.compare_and_set(name, new, json.dumps(other))
            return done

    async with connect(server, clock=clock) as one:
        run = await one.start("demo", payload(), key="a", memory=Slow(memory.path))

    assert run.id == UID
    assert server.traffic[START].requests == 0


async def test_the_same_key_with_another_start_is_a_conflict(
    server: LocalServer, client: Client, memory: FolderMemory
) -> None:
    """Nothing is sent. The message says what differs, and quotes no payload."""
    await client.start("demo", payload(), key="a", memory=memory)

    with pytest.raises(LaunchConflict, match=r"key 'a' .* the payload is another one"):
        await client.start("demo", payload(1), key="a", memory=memory)
    with pytest.raises(LaunchConflict, match="experiment was 'demo' and is 'demo:latest'"):
        await client.start("demo:latest", payload(), key="a", memory=memory)
    with LocalServer() as elsewhere, pytest.raises(LaunchConflict, match="deployment was"):
        async with connect(elsewhere) as other:
            await other.start("demo", payload(), key="a", memory=memory)
    assert server.traffic[START].requests == 1


async def test_a_key_is_not_found_in_another_deployment(client: Client, memory: FolderMemory) -> None:
    """Its run would be another run there, or none."""
    await client.start("demo", payload(), key="a", memory=memory)

    with LocalServer() as elsewhere:
        async with connect(elsewhere) as other:
            with pytest.raises(LaunchConflict, match="'a' was used for another start: deployment was"):
                await other.find("a", memory=memory)


async def test_a_run_that_its_memory_lost_is_found(client: Client, memory: FolderMemory) -> None:
    """By its token. But it is not the run of another start, which has the same key in another memory."""
    run = await client.start("demo", payload(), key="a", memory=memory)
    await client.wait(run)

    lost = FolderMemory(memory.path / "lost")
    assert await client.start("demo", payload(), key="a", memory=lost) == run
    with pytest.raises(LaunchConflict, match=rf"{run.id}.* was started with another experiment or payload"):
        await client.start("demo", payload(1), key="a", memory=FolderMemory(memory.path / "another"))


async def test_a_response_with_an_older_run_is_not_believed(
    client: Client, server: LocalServer, memory: FolderMemory
) -> None:
    """A proxy mixed up two responses. The run that was started is searched for."""
    older = await client.start("demo", payload(7))
    await client.wait(older)
    body = json.dumps(older.id).encode()
    server.faults.add(START, Reply(200, {"Content-Type": "application/json"}, body, handled=True))

    run = await client.start("demo", payload(), key="a", memory=memory)

    assert run != older
    assert await count(client) == {"7": 1, "0": 1}


async def test_an_error_of_the_memory_is_raised_as_it_is(memory: FolderMemory) -> None:
    """Also while a run is searched for."""

    class Down(FolderMemory):
        async def get(self, name: str, /) -> str | None:
            if name.startswith("run/"):
                raise OSError("down")
            return await super().get(name)

    with LocalServer(speed=0) as full:
        async with connect(full) as one:
            await one.push(full.example("demo"))
            full.faults.add(START, DropAfter())
            with pytest.raises(OSError, match="down"):
                await one.start("demo", payload(), key="a", memory=Down(memory.path))


async def test_a_refused_start_may_be_corrected(server: LocalServer, client: Client, memory: FolderMemory) -> None:
    """Nothing was started, so the same key may be used with another payload or experiment."""
    with pytest.raises(InvalidPayload):
        await client.start("demo", {}, key="a", memory=memory)
    with pytest.raises(UnknownExperiment, match="'demo'"):
        await client.start("dem", payload(), key="a", memory=memory)
    assert await client.find("a", memory=memory) is None

    run = await client.start("demo", payload(), key="a", memory=memory)

    assert await client.find("a", memory=memory) == run


async def test_a_start_that_was_turned_away_leaves_nothing_in_doubt(server: LocalServer, memory: FolderMemory) -> None:
    """A rate limit proves that nothing was started."""
    server.faults.add(START, Reply(429))
    async with connect(server, retry=RetryPolicy(attempts=1)) as client:
        await client.push(server.example("demo"))
        with pytest.raises(RateLimited):
            await client.start("demo", payload(), key="a", memory=memory)

        assert await client.find("a", memory=memory) is None
        assert await client.start("demo", payload(), key="a", memory=memory)


async def test_a_refused_connection_leaves_nothing_in_doubt(memory: FolderMemory) -> None:
    """It proves that nothing was sent."""

    class Closing(FolderMemory):
        async def compare_and_set(self, name: str, old: str | None, new: str, /) -> bool:
            await anyio.to_thread.run_sync(closing.close)
            return await super().compare_and_set(name, old, new)

    with ExitStack() as closing:
        server = closing.enter_context(LocalServer())
        async with connect(server, retry=RetryPolicy(attempts=2)) as client:
            with pytest.raises(ConnectFailed):
                await client.start("demo", payload(), key="a", memory=Closing(memory.path))

            assert await client.find("a", memory=memory) is None


async def test_a_run_of_another_key_is_no_candidate(server: LocalServer, client: Client, memory: FolderMemory) -> None:
    """Runs that wait for a slot have no metadata, so that only the memory knows whose they are."""
    with LocalServer(speed=0) as full:
        async with connect(full) as one:
            await one.push(full.example("demo"))
            full.faults.add(START, DropBefore())
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(lambda: one.start("demo", payload(), key="lost", memory=memory))
                for number in range(3):
                    await one.start("demo", payload(number), key=f"other {number}", memory=memory)

            assert full.traffic[START].requests == 5
            assert len(await one.instances.list()) == 4


async def test_a_candidate_that_never_shows_whose_it_is_is_reported(
    server: LocalServer, client: Client, memory: FolderMemory
) -> None:
    """It waits for a slot, and nothing in the memory says which key started it."""
    with LocalServer(speed=0) as full:
        async with connect(full) as one:
            await one.push(full.example("demo"))
            full.faults.add(START, DropAfter())

            with pytest.raises(StartOutcomeUnknown, match="delete those that executed nothing") as caught:
                await one.start("demo", payload(), key="a", memory=memory)
            with pytest.raises(StartOutcomeUnknown, match="'a'"):
                await one.find("a", memory=memory)
            (candidate,) = caught.value.candidates
            await one.delete(candidate)
            run = await one.start("demo", payload(), key="a", memory=memory)

            assert run.id != candidate


async def test_a_memory_that_repeats_its_requests_loses_no_permit(
    server: LocalServer, client: Client, memory: FolderMemory
) -> None:
    """The response to the first was lost, and the second finds what the first one wrote."""

    class Repeating(FolderMemory):
        async def compare_and_set(self, name: str, old: str | None, new: str, /) -> bool:
            await super().compare_and_set(name, old, new)
            return await super().compare_and_set(name, old, new)

    clock = QuickClock()
    async with connect(server, clock=clock) as one:
        began = clock.now()
        run = await one.start("demo", payload(), key="a", memory=Repeating(memory.path))

    assert clock.now() - began < 30.0
    assert await client.find("a", memory=memory) == run


async def test_a_memory_that_returns_old_records_is_read_with_pauses(
    server: LocalServer, client: Client, memory: FolderMemory
) -> None:
    """Its writes are refused meanwhile, because the record is another one."""
    reads: list[float] = []

    class Replica(FolderMemory):
        async def get(self, name: str, /) -> str | None:
            if not name.startswith("key/"):
                return await super().get(name)
            reads.append(clock.now())
            return None if clock.now() - reads[0] < 20.0 else await super().get(name)

    run = await client.start("demo", payload(), key="a", memory=memory)
    await client.delete(run)  # nothing but the memory has the run now
    clock = QuickClock()
    async with connect(server, clock=clock) as one:
        assert await one.start("demo", payload(), key="a", memory=Replica(memory.path)) == run

    assert len(reads) < 30
    assert server.traffic[START].requests == 1


RECORD: dict[str, Any] = {
    "url": "http://127.0.0.1/",
    "experiment": "demo",
    "payload": "0",
    "has_policy": False,
    "generation": 1,
    "state": "started",
    "known": [],
}
"""A record, of any deployment."""


DAMAGED = [
    *("", "{}", "null", "[" * 100_000, "\ud7ff"),
    *(
        json.dumps({**RECORD, "rest_uid": UID, **changes})
        for changes in (
            {"rest_uid": 5},
            {"rest_uid": "../secrets"},
            {"rest_uid": None},
            {"state": "planned"},
            {"state": "collected", "rest_uid": None},
            {"state": "planned", "rest_uid": None, "generation": "1"},
            {"state": "unknown", "rest_uid": None, "known": [["a"]]},
            {"state": "unknown", "rest_uid": None, "known": "abc"},
        )
    ),
]
"""Texts in place of a record."""


async def test_a_damaged_record_is_an_error(server: LocalServer, client: Client, memory: FolderMemory) -> None:
    """Nothing is started."""
    for number, text in enumerate(DAMAGED):
        key = f"a{number}"
        assert await memory.compare_and_set(f"key/{key}", None, text)

        with pytest.raises(JournalCorrupt, match=repr(key)):
            await client.start("demo", payload(), key=key, memory=memory)
        with pytest.raises(JournalCorrupt, match=repr(key)):
            await client.find(key, memory=memory)
        assert server.traffic[START].requests == 0, text[-40:]


async def test_a_record_that_is_no_text_is_an_error(client: Client, memory: FolderMemory) -> None:
    """As after a failure of the disk."""
    await memory.compare_and_set("key/a", None, "{}")
    (version,) = memory.path.rglob("1")
    version.write_bytes(b"\xff\xfe")

    with pytest.raises(JournalCorrupt, match="'a'"):
        await client.find("a", memory=memory)


@pytest.mark.parametrize(("key", "with_memory"), [("a", False), (None, True)])
async def test_a_key_needs_a_memory(client: Client, memory: FolderMemory, key: str | None, with_memory: bool) -> None:
    """And a memory needs a key."""
    with pytest.raises(TypeError, match="needs a memory"):
        await client.start("demo", payload(), key=key, memory=memory if with_memory else None)


async def test_a_memory_of_another_type_is_refused(client: Client) -> None:
    """Such as the path of the folder, before anything is sent."""
    memory: Any = "folder"

    with pytest.raises(TypeError, match=r"memory must be a Memory, such as FolderMemory\(path\), not 'folder'"):
        await client.start("demo", payload(), key="a", memory=memory)
    with pytest.raises(TypeError, match="memory must be a Memory"):
        await client.find("a", memory=memory)


async def test_no_credential_is_in_the_memory(client: Client, memory: FolderMemory) -> None:
    """As in a journal."""
    await client.start("demo", payload(environmentVariables={"TOKEN": "hush-hush"}), key="a", memory=memory)

    texts = [file.read_text() for file in memory.path.rglob("*") if file.is_file()]
    assert texts
    assert not any("hush-hush" in text for text in texts)


class Killed(BaseException):
    """The process died."""


class Killable:
    """A memory of a process that is killed at its n-th attempt to write, before or after it is done."""

    def __init__(self, memory: FolderMemory, kill_at: int, *, is_done: bool = False) -> None:
        self._memory, self._writes_left, self._is_done = memory, kill_at, is_done

    async def get(self, name: str, /) -> str | None:
        return await self._memory.get(name)

    async def compare_and_set(self, name: str, old: str | None, new: str, /) -> bool:
        self._writes_left -= 1
        if self._writes_left >= 0 or self._is_done:
            written = await self._memory.compare_and_set(name, old, new)
        if self._writes_left < 0:
            raise Killed
        return written
