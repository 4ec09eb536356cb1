"""A client or batch that is used in another event loop or process says so, before anything is sent."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest

from st4sd_async import Client, Launch, St4sdError, sync
from st4sd_async.local import LocalServer
from tests.tries import sample

pytestmark = pytest.mark.slow

INPUTS = {"inputs": [{"filename": "molecules.csv", "content": "smiles\nCO\n"}]}
ENDED = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
"""For tests that leave connections to an event loop that ends."""


async def first(client: Client) -> None:
    """The first status that is watched for."""
    async for _ in client.watch("demo-abcdef-12345678"):
        break


USES: dict[str, Callable[[Client], Awaitable[Any]]] = {
    "start": lambda client: client.start("demo", INPUTS),
    "list": lambda client: client.instances.list(),
    "watch": first,
    "wait": lambda client: client.wait("demo-abcdef-12345678"),
    "with_options": lambda client: client.with_options(timeout=3).instances.list(),
    "download": lambda client: client.download_outputs("demo-abcdef-12345678", "/nowhere"),
    "open": lambda client: client.open(),
}


@pytest.mark.parametrize("use", USES)
def test_a_client_in_another_loop_sends_nothing(server: LocalServer, use: str) -> None:
    """While the first loop goes on, in another thread; which can use it as before."""
    errors: list[BaseException] = []

    async def elsewhere(client: Client) -> None:
        with pytest.raises(St4sdError, match="this client was opened in another event loop") as caught:
            await USES[use](client)
        errors.append(caught.value)

    async def main() -> None:
        async with Client(server.url, api_key=server.api_key) as client:
            before = len(server.requests)
            thread = threading.Thread(target=lambda: asyncio.run(elsewhere(client)))
            thread.start()
            await asyncio.to_thread(thread.join, 20)
            assert len(server.requests) == before
            assert await client.instances.list() == []

    asyncio.run(main())
    assert len(errors) == 1


@ENDED
@pytest.mark.parametrize("use", sample(USES, 4))
def test_a_client_whose_loop_has_ended_sends_nothing(server: LocalServer, use: str) -> None:
    """As by two calls of asyncio.run(); it can be closed then, and opened again."""
    client = Client(server.url, api_key=server.api_key)
    asyncio.run(_opened(client))
    before = len(server.requests)

    async def main() -> None:
        with pytest.raises(St4sdError, match=r"was opened in an event loop that has ended: .* same asyncio\.run"):
            await USES[use](client)

    asyncio.run(main())
    assert len(server.requests) == before

    async def again() -> None:
        await client.close()
        async with client:
            assert await client.instances.list() == []

    asyncio.run(again())
    gc.collect()  # while the warnings of asyncio about them are ignored


async def _opened(client: Client) -> None:
    await client.open()


def test_a_client_is_not_closed_from_another_loop(server: LocalServer) -> None:
    """Its connections belong to a loop that goes on."""

    async def elsewhere(client: Client) -> None:
        with pytest.raises(St4sdError, match="opened in another event loop"):
            await client.close()

    async def main() -> None:
        async with Client(server.url, api_key=server.api_key) as client:
            await asyncio.to_thread(lambda: asyncio.run(elsewhere(client)))
            assert await client.instances.list() == []

    asyncio.run(main())


def test_a_batch_in_another_loop_does_nothing(server: LocalServer) -> None:
    """Each of its verbs says so at once."""

    async def elsewhere(batch: Any) -> None:
        verbs: dict[str, Callable[[], Awaitable[Any]]] = {
            "add": lambda: batch.add([Launch("b", "demo", INPUTS)]),
            "run": lambda: anext(batch.run()),
            "retry_failed": batch.retry_failed,
            "adopt": lambda: batch.adopt("a", "demo-abcdef-12345678"),
            "forget": lambda: batch.forget("a"),
            "cancel": batch.cancel,
            "enter": batch.__aenter__,
        }
        for verb in verbs.values():
            with anyio.fail_after(5), pytest.raises(St4sdError, match="this batch was opened in another event loop"):
                await verb()

    async def main() -> None:
        async with Client(server.url, api_key=server.api_key) as client, client.batch() as batch:
            await batch.add([Launch("a", "demo", INPUTS)])
            before = len(server.requests)
            await asyncio.to_thread(lambda: asyncio.run(elsewhere(batch)))
            assert len(server.requests) == before
            assert batch.counts["planned"] == sum(batch.counts.values()) == 1

    asyncio.run(main())


def test_a_client_without_asyncio_says_what_it_needs() -> None:
    """As under trio, where no asyncio event loop runs; driven by hand here, as trio would."""
    client = Client("https://st4sd.example", api_key="fake-key-0001")

    with pytest.raises(St4sdError, match=r"client needs a running asyncio event loop; trio"):
        client.__aenter__().send(None)

    with pytest.raises(St4sdError, match=r"batch needs a running asyncio event loop; trio"):
        client.batch().__aenter__().send(None)


FORKS = """
    import anyio._backends._asyncio, asyncio, gc, multiprocessing, os, sys, tenacity, time
    import st4sd_async._http.engine, st4sd_async._results.properties, st4sd_async._watch  # as an open client does
    from st4sd_async import Client, Config, St4sdError, sync

    url, key, *scripts = sys.argv[1:]

    def said(use):
        began = time.monotonic()
        try:
            use()
        except St4sdError as error:
            assert "before this process was forked" in str(error), error
            assert time.monotonic() - began < 2
            return True
        return False

    def child(body):
        sys.stdout.flush()
        number = os.fork()
        if number == 0:
            try:
                body()
            except SystemExit:
                raise
            except BaseException as error:
                print("child:", repr(error), file=sys.stderr)
                os._exit(9)
            os._exit(0)
        return os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])

    gc.freeze()  # what was imported is not looked through at the end of each process
    # Each in a process of its own, without importing the package again.
    for script in scripts:
        if os.fork() == 0:
            exec(script)
            break
        if os.wait()[1]:
            sys.exit(f"this script failed: {script}")
"""
BLOCKING = """
    with sync.Client(url, api_key=key) as client:
        client.instances.list()
        group = client.instances
        stream = client.watch_many(["demo-abcdef-12345678"])

        def use():
            assert said(lambda: client.start("demo"))
            assert said(group.list)
            assert said(client.open)
            assert said(lambda: next(stream))

        assert child(use) == 0
        assert child(lambda: (client.close(), use())) == 0

        def leave():
            with client:
                pass

        assert child(lambda: said(leave)) == 0
        # Its own client works, with settings from the same place.
        def own():
            with sync.Client(url, api_key=key) as other:
                assert other.instances.list() == []

        assert child(own) == 0
        # Out of the block and through the end of the interpreter, with all that is destroyed then.
        number = os.fork()
        if number == 0:
            sys.exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(number, 0)[1]) == 7
        began = time.monotonic()
        for _ in range(5):
            assert client.instances.list() == []
        assert time.monotonic() - began < 5
    print("fine")
"""
MULTIPROCESSING = """
    def work(client, results):
        results.put(said(client.instances.list))
        client.close()

    with sync.Client(url, api_key=key) as client:
        client.instances.list()
        context = multiprocessing.get_context("fork")
        results = context.Queue()
        process = context.Process(target=work, args=(client, results))
        process.start()
        assert results.get(timeout=20)
        process.join(20)
        assert process.exitcode == 0
        assert client.instances.list() == []
    print("fine")
"""
ASYNCHRONOUS = """
    async def main():
        async with Client(url, api_key=key) as client:
            await client.instances.list()

            def use():
                for verb in (client.instances.list, lambda: client.start("demo"), client.open):
                    assert said(lambda: asyncio.run(verb()))
                asyncio.run(client.close())

            assert child(use) == 0
            number = os.fork()
            if number == 0:
                # In the middle of a coroutine, whose loop asyncio hides from the new process.
                try:
                    client.start("demo").send(None)
                except St4sdError as error:
                    os._exit(0 if "before this process was forked" in str(error) else 8)
                os._exit(9)
            assert os.waitstatus_to_exitcode(os.waitpid(number, 0)[1]) == 0
            began = time.monotonic()
            for _ in range(5):
                assert await client.instances.list() == []
            assert time.monotonic() - began < 5

    asyncio.run(main())
    print("fine")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_client_in_a_forked_process_sends_nothing(server: LocalServer) -> None:
    """It neither hangs nor closes the connections of the first process, however it ends. Blocking and asynchronous."""
    scripts = [textwrap.dedent(script) for script in (BLOCKING, MULTIPROCESSING, ASYNCHRONOUS)]
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", textwrap.dedent(FORKS)]

    done = subprocess.run(
        [*command, server.url, server.api_key, *scripts], capture_output=True, text=True, timeout=50, check=False
    )

    assert (done.stdout, done.returncode) == ("fine\n" * 3, 0), done.stderr
    assert {method for method, _ in server.requests} == {"GET"}


def test_a_blocking_client_works_in_any_thread(server: LocalServer) -> None:
    """It has one loop of its own, so this is not another loop."""
    with sync.Client(server.url, api_key=server.api_key) as client:
        found: list[Any] = []
        thread = threading.Thread(target=lambda: found.append(client.instances.list()))
        thread.start()
        thread.join(20)
        assert found == [[]]
