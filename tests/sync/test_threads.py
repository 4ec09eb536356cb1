"""One blocking client, many threads."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any

import pytest

from st4sd_async import Launch, St4sdError, Status
from st4sd_async.local import LocalServer
from st4sd_async.sync import Client, Item

from .conftest import FILES, connect, loops

pytestmark = pytest.mark.slow

MANY = 12
"""More runs than are requested one by one."""


def test_many_threads_open_one_client_once(server: LocalServer) -> None:
    """The others wait for that; then all work at the same time."""
    client = connect(server)
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda _: len(client.experiments.list()), range(24)))

    assert found == [0] * 24
    assert [path for _, path in server.requests].count("/rs/url-map/") == 1
    assert len(loops()) == 1
    client.close()


def test_threads_share_the_requests_of_watching(server: LocalServer, sync_client: Client) -> None:
    """As the tasks of an asynchronous client do."""
    runs = [sync_client.start("demo", {"inputs": FILES}) for _ in range(MANY)]
    one = sync_client.watch_many(runs, interval=60)
    first = dict(islice(one, MANY))
    count = len(server.requests)

    with ThreadPoolExecutor(1) as threads:
        other = threads.submit(next, sync_client.watch_many(runs, interval=60)).result()

    assert first[other[0]] == other[1]
    assert len(server.requests) == count
    one.close()


def test_each_waiting_thread_gets_its_final_statuses(server: LocalServer, sync_client: Client) -> None:
    """Whichever thread sends the requests."""
    runs = [sync_client.start("demo", {"inputs": FILES}) for _ in range(MANY)]
    with ThreadPoolExecutor(MANY) as threads:
        waits = [threads.submit(sync_client.wait, [run, runs[0]]) for run in runs]
        server.advance(60)
        ends: list[list[Status]] = [wait.result(timeout=10) for wait in waits]

    assert all(status.is_success for end in ends for status in end)


def test_a_call_is_handed_to_the_event_loop_once(
    server: LocalServer, sync_client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each time costs as much CPU as a third of a request."""
    run = sync_client.start("demo", {"inputs": FILES})
    handed_over: list[object] = []
    original = asyncio.BaseEventLoop.call_soon_threadsafe

    def count(loop: asyncio.BaseEventLoop, callback: Any, *args: Any, context: Any = None) -> asyncio.Handle:
        if threading.current_thread() is threading.main_thread():
            handed_over.append(callback)
        return original(loop, callback, *args, context=context)

    monkeypatch.setattr(asyncio.BaseEventLoop, "call_soon_threadsafe", count)
    sync_client.status(run)
    sync_client.instances.get(run.id)

    assert len(handed_over) == 2


def test_closing_cancels_the_calls_of_other_threads(server: LocalServer) -> None:
    """Promptly, with an error that says so."""
    client = connect(server)
    client.push(server.example("demo"))
    run = client.start("demo", {"inputs": FILES})
    statuses = client.watch(run, interval=60)
    next(statuses)
    with ThreadPoolExecutor(2) as threads:
        waits = [threads.submit(next, statuses), threads.submit(client.wait, run, interval=60)]
        threading.Event().wait(0.05)
        client.close()
        for wait in waits:
            with pytest.raises(St4sdError, match="this client is closed"):
                wait.result(timeout=5)


def test_launches_are_added_and_read_while_another_thread_runs_the_batch(quick_client: Client) -> None:
    """A batch may be shared: one thread runs it, others do the rest."""
    with quick_client.batch() as batch, ThreadPoolExecutor(1) as threads:
        batch.add([Launch("first", "demo", {"inputs": FILES})])
        is_going = threading.Event()

        def work() -> list[Item]:
            items = []
            for item in batch.run():
                items.append(item)
                is_going.set()
            return items

        working = threads.submit(work)
        for number in range(20):
            batch.add([Launch(f"C{number}", "demo", {"inputs": FILES})])
            assert len(batch.items) == number + 2
            assert sum(batch.counts.values()) == number + 2
        assert is_going.wait(10)
        settled = len(working.result(timeout=10))
        settled += sum(1 for _ in batch.run())

    assert settled == 21
    assert batch.counts["succeeded"] == 21
