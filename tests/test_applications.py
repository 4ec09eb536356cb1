"""The examples of two pages run. Those of applications.md begin with two programs, of which one is a service."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import logging
import os
import re
import signal
from asyncio import gather
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from types import CodeType
from typing import Any

import anyio
import httpx
import pytest
from anyio import to_thread

import st4sd_async
from st4sd_async import Client, Config
from st4sd_async.local import Delay, LocalServer
from tests.forks import Forked, Forks
from tests.tries import tries

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
PAGE = Path(st4sd_async.__file__).parent / "docs" / "applications.md"
BLOCKS, OBSERVING = (
    re.findall(r"```python\n(.*?)```", page.read_text("utf-8"), re.DOTALL)
    for page in (PAGE, PAGE.with_name("observing.md"))
)
EXTRAS = ("opentelemetry", "respx")
COUNT = tries(200, 30)
"""Concurrent requests to the service: more than it has starts in flight."""
IMPORTED = (
    *("st4sd_async._batch.batch", "st4sd_async._batch.runner", "st4sd_async._http.engine", "pandas"),
    *("starlette.applications", "starlette.responses", "starlette.routing"),
    *("uvicorn.lifespan.on", "uvicorn.loops.auto", "uvicorn.protocols.http.auto", "uvicorn.server"),
)
"""Modules, with all that they import, that are imported before the programs are started."""
BODY = {"inputs": [{"filename": "molecules.csv", "content": "smiles\nCO\n"}]}


@pytest.fixture(autouse=True)
def uninstrumented() -> Iterator[None]:
    """Undo the example, which instruments all of aiohttp."""
    yield
    if is_installed("opentelemetry"):
        from opentelemetry.instrumentation.aiohttp_client import AioHttpClientInstrumentor

        AioHttpClientInstrumentor().uninstrument()


@pytest.fixture
def loud_logger() -> Iterator[logging.Logger]:
    logger = logging.getLogger("st4sd_async")
    level = logger.level
    yield logger
    logger.setLevel(level)


def compiled(source: str) -> CodeType:
    """Compile code with top-level await, as in a notebook."""
    code: CodeType = compile(source, str(PAGE), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    return code


def is_installed(block: str) -> bool:
    """Return whether the packages are installed that only these pages use."""
    return all(name not in block or importlib.util.find_spec(name) for name in EXTRAS)


@pytest.mark.anyio
async def test_every_block_of_python_runs(
    loud_logger: logging.Logger, nothing_blocks: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """One after the other, as in a notebook, with the address and key of a local server."""
    nothing_blocks.deactivate()  # httpx reads certificates in the event loop
    with LocalServer(speed=50) as server:
        async with Client(server.url, api_key=server.api_key, config=Config(poll_interval=0.02)) as client:
            await client.push(server.example("demo"))
        names: dict[str, Any] = {}
        for block in filter(is_installed, [*OBSERVING, *BLOCKS[2:]]):  # two are programs of their own
            source = block.replace('Path("st4sd.key")', repr(server.api_key)).replace(
                "poll_interval=1", "poll_interval=0.02"
            )
            if "validate=False" not in source:
                source = source.replace("https://st4sd.example", server.url)
            done = eval(compiled(source), names)
            if inspect.isawaitable(done):
                await done

    shown = capsys.readouterr().out
    assert "Counter({200: 2})" in shown  # the check of the login, and the list
    assert "demo-ab12cd-x7f3k2q9" in shown
    assert loud_logger.level == logging.DEBUG


@pytest.fixture(scope="module")
def programs() -> Iterator[Forks]:
    """Starts the file ``program.py`` in a folder."""
    with closing(Forks("program", IMPORTED, {**without_python(), "PYTHONPATH": str(ROOT)})) as forks:
        yield forks


@pytest.mark.timeout(60)  # a process that imports all of it anew, on a machine that may be busy
@pytest.mark.anyio
async def test_runs_are_evaluated_in_a_process_pool(tmp_path: Path, programs: Forks) -> None:
    """Each in one of several chunks; the credentials are those of the environment of the workers."""
    program = tmp_path / "program.py"
    program.write_text(BLOCKS[1].replace("CHUNK = 50", "CHUNK = 2").replace("Executor()", "Executor(1)"))
    with LocalServer(speed=0) as server:
        async with Client(server.url, api_key=server.api_key) as client:
            await client.push(server.example("demo"))
            uids = set(server.populate("demo", 3, payload=BODY))
            await client.wait(uids)
        with programs.start((), tmp_path, environment(server), errors=STDERR) as process:
            assert process.stdout is not None
            printed = await to_thread.run_sync(process.stdout.read)

    chunks = [ast.literal_eval(line) for line in printed.splitlines()]
    assert [len(chunk) for chunk in chunks] == [2, 1]
    assert {uid for chunk in chunks for uid in chunk} == uids


STDERR = 2
"""The file descriptor of standard error, where programs write errors."""


def without_python() -> dict[str, str]:
    """Return this environment without what only a new interpreter reads."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}


def environment(server: LocalServer) -> dict[str, str]:
    """Return the environment of a program that uses a server."""
    return {
        **without_python(),
        "PYTHONPATH": str(ROOT),
        "ST4SD_URL": server.url,
        "ST4SD_API_KEY": server.api_key,
    }


@asynccontextmanager
async def service(
    folder: Path, server: LocalServer, programs: Forks
) -> AsyncIterator[tuple[httpx.AsyncClient, Forked]]:
    """Run the service of the page in a process of its own, and yield a client of it."""
    (folder / "service.py").write_text(BLOCKS[0].replace("max_running=50", "max_running=None"))
    (folder / "program.py").write_text(SERVE)
    with programs.start((), folder, environment(server), errors=STDERR) as process:
        assert process.stdout is not None
        try:
            port = int(await to_thread.run_sync(process.stdout.readline))
            limits = httpx.Limits(max_connections=COUNT)
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", limits=limits, verify=False) as client:
                yield client, process
        finally:
            process.terminate()


SERVE = """
import asyncio, socket, uvicorn
listening = socket.create_server(("127.0.0.1", 0), backlog=500)

class Server(uvicorn.Server):
    async def startup(self, sockets=None):
        await super().startup(sockets)
        print(listening.getsockname()[1], flush=True)

Server(uvicorn.Config("service:app", log_level="warning", timeout_keep_alive=60)).run([listening])
"""
"""Runs the service on a free port, which it prints once it accepts connections."""


@pytest.mark.anyio
async def test_the_service_starts_each_of_many_concurrent_requests_once(tmp_path: Path, programs: Forks) -> None:
    """Although SIGTERM stops it while it starts them, and all requests are sent again after a restart."""
    with LocalServer(speed=0, slots=COUNT) as server:
        async with Client(server.url, api_key=server.api_key) as client:
            await client.push(server.example("demo"))
            server.faults.add("POST /experiments/*/start", Delay(1.0), times=None)  # not all are started at SIGTERM
            async with service(tmp_path, server, programs) as (requests, process):
                first = await gather(*(requests.put(f"/runs/{number}", json=BODY) for number in range(COUNT)))
                conflict = await requests.put("/runs/0", json={**BODY, "variables": {"scale": 3}})
                invalid = await requests.put("/runs/x", json={"variable": 3})
                process.terminate()
                ended = await to_thread.run_sync(process.wait, 20)
            started = len(await client.instances.list())
            server.faults.clear()
            async with service(tmp_path, server, programs) as (requests, _):
                again = await gather(*(requests.put(f"/runs/{number}", json=BODY) for number in range(COUNT)))
                with anyio.fail_after(20):
                    while (counts := (await requests.get("/runs")).json())["started"] < COUNT:  # noqa: ASYNC110
                        await anyio.sleep(0.05)
            runs = await client.instances.list()

    assert {response.status_code for response in (*first, *again)} == {202}
    assert (conflict.status_code, invalid.status_code) == (409, 422)
    assert ended in (0, -signal.SIGTERM)
    assert started < COUNT
    assert counts == {**dict.fromkeys(counts, 0), "started": COUNT}
    assert len(runs) == COUNT
