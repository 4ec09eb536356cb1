"""Displays and interrupts in a real kernel, which all tests of this module share."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import Empty
from textwrap import dedent
from typing import Any

import pytest
from jupyter_client.manager import start_new_kernel

from st4sd_async.local import LocalServer

pytestmark = [pytest.mark.timeout(120), pytest.mark.slow]  # the kernel imports everything anew, beside other tests

OUTPUTS = ("display_data", "update_display_data", "execute_result", "stream", "error")
SETUP = """
from st4sd_async import Client, Config, Launch, sync
client = await Client({url!r}, api_key={key!r}, config=Config(poll_interval=0.02)).open()
blocking = sync.Client({url!r}, api_key={key!r})
payload = {{"inputs": [{{"filename": "molecules.csv", "content": "smiles\\nCO"}}]}}
"""


class Kernel:
    """A kernel with an open client; each cell is executed to its end."""

    def __init__(self, folder: Path) -> None:
        settings = ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR")
        own = {name: str(folder / name) for name in settings}
        self.manager, self.channels = start_new_kernel(env={**os.environ, **own}, cwd=str(folder))

    def execute(self, source: str, interrupt_if: Callable[[], bool] | None = None) -> list[tuple[str, Any]]:
        """Return the outputs of a cell, kind -> content; interrupt it once a condition is true."""
        message_id, found = self.channels.execute(dedent(source)), []
        limit = time.monotonic() + 60
        while time.monotonic() < limit:
            try:
                message = self.channels.get_iopub_msg(timeout=0.02)
            except Empty:
                if interrupt_if is not None and interrupt_if():
                    interrupt_if = self.manager.interrupt_kernel()
                continue
            kind, content = message["header"]["msg_type"], message["content"]
            if message["parent_header"].get("msg_id") == message_id:
                found += [(kind, content)] if kind in OUTPUTS else []
                if kind == "status" and content["execution_state"] == "idle":
                    return found
        raise TimeoutError(f"the cell did not end: {found}")

    def result(self, source: str) -> dict[str, str]:
        """Return the only output of a cell, by media type."""
        ((_, content),) = self.execute(source)
        data: dict[str, str] = content["data"]
        return data

    def close(self) -> None:
        self.channels.stop_channels()
        self.manager.shutdown_kernel(now=True)


@pytest.fixture(scope="module")
def server() -> Iterator[LocalServer]:
    """A server whose clock stands still until a test advances it."""
    with LocalServer(speed=0) as running:
        yield running


@pytest.fixture(scope="module")
def kernel(server: LocalServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    running = Kernel(tmp_path_factory.mktemp("kernel"))
    setup = SETUP.format(url=server.url, key=server.api_key)
    push = [f"await client.push({server.example(name)!r});" for name in ("demo", "fail")]
    assert running.execute("\n".join([setup, *push])) == []
    yield running
    running.close()


def is_watched(server: LocalServer) -> Callable[[], bool]:
    """Return a condition: a status or the list was requested since now."""

    def count() -> int:
        return sum(path.endswith(("/status", "/instances/")) for method, path in server.requests if method == "GET")

    before = count()
    return lambda: count() > before + 1


BATCH = "async with client.batch() as batch:\n    await batch.add([Launch('a', 'demo', payload)])"
INTERRUPTED = {
    "wait": ("await run.wait()", "the run demo-"),
    "wait for several": ("await client.wait([run, await client.start('demo', payload)])", "2 of 2 runs continue"),
    "watch": ("async for status in run.watch(): pass", "the run demo-"),
    "show": ("await run.show()", "the run demo-"),
    "blocking wait": ("blocking.wait(str(run))", "the run demo-"),
    "blocking watch": ("for status in blocking.watch(str(run)): pass", "the run demo-"),
    "blocking show": ("blocking.show([str(run)])", "the run demo-"),
    "batch.run": (
        f"{BATCH}\n    async for item in batch.run(): pass",
        "1 started: no more launches are started",
    ),
    "batch.show": (
        f"{BATCH}\n    await batch.show()",
        "1 started: no more launches are started",
    ),
}


@pytest.mark.parametrize("verb", INTERRUPTED)
def test_an_interrupted_cell_says_what_continues(kernel: Kernel, server: LocalServer, verb: str) -> None:
    """On one line, without a traceback, and nothing else but the display."""
    source, expected = INTERRUPTED[verb]
    kernel.execute("run = await client.start('demo', payload)")

    outputs = kernel.execute(source, is_watched(server))

    (error,) = [content for kind, content in outputs if kind == "error"]
    (line,) = error["traceback"]
    assert "\n" not in line
    assert line.startswith(f"{error['ename']}: {expected}")
    assert "continue" in line
    assert [content for kind, content in outputs if kind == "stream"] == []
    if verb.endswith("show"):
        assert [kind for kind, _ in outputs].count("display_data") == 1
        assert "the runs continue" in outputs[-2][1]["data"]["text/html"]
    assert "no status yet" in kernel.result("await run.status()")["text/plain"]


def test_a_note_does_not_keep_a_cancellation_from_being_pickled(kernel: Kernel, server: LocalServer) -> None:
    """An exception that passed through this package can travel to another process."""
    source = """
        import asyncio, pickle
        task = asyncio.create_task(run.wait())
        await asyncio.sleep(0.05)
        task.cancel()
        try:
            await task
        except asyncio.CancelledError as error:
            print(pickle.loads(pickle.dumps(error)).__notes__)
    """
    kernel.execute("run = await client.start('demo', payload)")

    ((_, printed),) = kernel.execute(source)

    assert "continues; call this again" in printed["text"]


def shown(outputs: list[tuple[str, Any]]) -> list[str]:
    """Return the lines of the only display of a cell as it is in the end."""
    assert {kind for kind, _ in outputs} <= {"display_data", "update_display_data"}
    assert [kind for kind, _ in outputs].count("display_data") == 1
    text: str = outputs[-1][1]["data"]["text/plain"]
    return text.splitlines()


@pytest.fixture(scope="module")
def moving(kernel: Kernel) -> Iterator[None]:
    """A client ``fast`` in the kernel, whose runs end soon: one that succeeds and one that fails."""
    with LocalServer(speed=40) as server:
        push = [f"await fast.push({server.example(name)!r});" for name in ("demo", "fail")]
        connect = f"fast = await Client({server.url!r}, api_key={server.api_key!r}).open()"
        assert kernel.execute("\n".join([connect, *push])) == []
        yield
        kernel.execute("await fast.close()")


def advancing(server: LocalServer) -> Callable[[], bool]:
    """Return a condition that is never true, and lets time pass on the server once runs were seen."""
    is_seen = is_watched(server)

    def advance() -> bool:
        if is_seen():
            server.advance(10)
        return False

    return advance


def test_runs_are_shown_once_with_labels_stages_and_times(kernel: Kernel, server: LocalServer) -> None:
    """The value of the last expression is not shown below the table, but in other cells it is."""
    kernel.execute("runs = {'water': await client.start('demo', payload), 'broken': await client.start('fail')}")

    lines = shown(kernel.execute("statuses = await client.show(runs)\nstatuses", advancing(server)))
    again = kernel.result("statuses")["text/plain"]
    listed = shown(kernel.execute("final = await client.show(list(runs.values()))\nfinal"))
    later = kernel.result("final")["text/plain"].splitlines()
    honest = kernel.result("isinstance(statuses, dict), [*statuses], isinstance(final, list)")

    assert lines[0] == "2 runs  1 succeeded, 1 failed"
    assert lines[1].split() == ["run", "state", "stage", "progress", "elapsed", "why"]
    assert [line.split()[:2] for line in lines[2:]] == [["water", "succeeded"], ["broken", "failed"]]
    assert all("0:00:" in line for line in lines[2:])
    assert again.splitlines()[0] == listed[0] == later[0] == lines[0]
    assert honest["text/plain"] == "(True, ['water', 'broken'], True)"


@pytest.mark.usefixtures("moving")
def test_a_batch_is_shown_once_with_its_keys(kernel: Kernel) -> None:
    """Live, with the time of each run and why it failed."""
    lines = shown(
        kernel.execute(
            """
            async with fast.batch("campaign.db") as batch:
                await batch.add([Launch("water", "demo", payload), Launch("broken", "fail")])
                items = await batch.show(outputs=["Energies"], to="results")
            items
            """
        )
    )

    assert lines[0] == "2 launches  1 collected, 1 failed"
    assert lines[1].split() == ["launch", "state", "stage", "progress", "elapsed", "why"]
    assert [line.split()[:2] for line in lines[2:]] == [["water", "collected"], ["broken", "failed"]]
    assert "stage0.Boom" in lines[3]
    assert kernel.result("[item.key for item in items]")["text/plain"] == "['water', 'broken']"


@pytest.mark.usefixtures("moving")
def test_a_single_run_is_shown_once(kernel: Kernel) -> None:
    """`Run.show` returns a status, which is not shown again."""
    lines = shown(kernel.execute("await (await fast.start('fail')).show(interval=0.05)"))

    assert lines[0].endswith("failed")


PLEASANT = {
    "await done.outputs()": ("2 key-outputs", "energies.csv", "final"),
    "await done.output('Energies')": ("beginning of the content", "input-id,smiles"),
    "await done.output('Folder')": ("results.zip", "unpack()"),
    "await done.status_report()": ("2 components", "finished", "stage0.Compute"),
    "await done.document()": ("experiment document", "campaign = water", "Energies, Folder"),
    "(await done.components())[0]": ("stage0.Compute", "component document", "energies.csv"),
    "(await done.csv())[0]": ("energies.csv", "smiles", "-3.0"),
    "await fast.draft('demo')": ("inputs are missing", "molecules.csv", "scale"),
    "await fast.experiments.list()": ("2 experiments", "latest"),
    "await fast.instances.list()": ("instances", "succeeded"),
    "fast.experiments": ("group of endpoints", "history"),
}


@pytest.mark.usefixtures("moving")
def test_what_a_cell_returns_shows_itself(kernel: Kernel) -> None:
    """As HTML and as text, and what is a list or a dictionary still is one."""
    kernel.execute(
        """
        done = await fast.start("demo", payload | {"metadata": {"campaign": "water"}})
        _ = await done.wait(interval=0.02), await done.document(), await done.components()
        _ = await fast.start("fail")  # so that there are two instances
        """
    )
    cells = "\n".join(f"display({source})" for source in PLEASANT)

    outputs = kernel.execute(cells)
    honest = kernel.execute(
        """
        import json
        print(isinstance(await fast.instances.list(), list), isinstance(await fast.experiments.list(), list))
        print(sorted(json.loads(json.dumps(await done.outputs(), default=str))), repr(fast.instances)[:11])
        """
    )

    assert len(outputs) == len(PLEASANT)
    for (source, expected), (_, content) in zip(PLEASANT.items(), outputs, strict=True):
        assert all(text in content["data"]["text/html"] for text in expected), source
        assert expected[-1] in content["data"]["text/plain"], source
    assert honest[0][1]["text"] == "True True\n['Energies', 'Folder'] <Instances:\n"


def test_opening_a_client_again_leaves_no_message_in_another_cell(kernel: Kernel, server: LocalServer) -> None:
    """The connections of the client that was dropped are closed."""
    connect = f"""
        again = await Client({server.url!r}, api_key={server.api_key!r}).open()
        await again.experiments.list(); None
    """
    collect = """
        import asyncio, gc
        _ = gc.collect()
        from st4sd_async._http import session
        while session._closing:
            await asyncio.sleep(0)
        _ = gc.collect()
    """

    kernel.execute("import aiohttp, gc\ngc.collect()\ngc.freeze()")  # older objects are not searched below
    count = """
        sum(type(one) is aiohttp.ClientSession and not one.closed for one in gc.get_objects())
    """
    before = kernel.result(count)

    outputs = [kernel.execute(source) for source in (connect, connect, collect, "await again.close()", collect)]

    assert outputs == [[], [], [], [], []]
    assert kernel.result(count) == before


def test_a_wait_for_the_datastore_is_shown(kernel: Kernel, server: LocalServer) -> None:
    """By `ProgressBars`, although the run is over and nothing else happens."""
    kernel.execute(
        """
        from st4sd_async import NotReady, ProgressBars
        shown = client.with_options(progress=ProgressBars())
        run = await shown.start("demo", payload)
        try:
            await run.components(timeout=0)  # the first call imports for longer than the wait below
        except NotReady:
            pass
        """
    )

    outputs = kernel.execute(
        """
        try:
            await run.components(timeout=0.3)
        except NotReady:
            pass
        """
    )

    assert "waiting for the document of demo-" in outputs[0][1]["data"]["text/html"]
    assert "incomplete" in outputs[-1][1]["data"]["text/html"]
