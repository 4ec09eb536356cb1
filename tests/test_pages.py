"""Every block of Python in the pages of the documentation runs: here, or in the tests of a page of its own."""

from __future__ import annotations

import ast
import inspect
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from types import CodeType
from typing import Any

import httpx
import pytest
from anyio import to_thread

import st4sd_async
from st4sd_async import Client, Config
from st4sd_async.local import LocalServer
from tests.results.s3.conftest import serving

pytestmark = pytest.mark.slow

DOCS = Path(st4sd_async.__file__).parent / "docs"
HERE = ("batches", "connect", "get_started", "index", "notebooks", "results", "troubleshooting", "watching")
"""The pages whose blocks run here."""
ELSEWHERE = {
    "applications": "test_applications.py",
    "experiments": "cli/test_packages.py",
    "from_experiment_rest_api": "test_from_incumbent.py",
    "observing": "test_applications.py",
    "orchestrators": "test_orchestrators.py",
    "tables_and_files": "test_tables_and_files.py",
    "testing": "test_pytest_plugin.py",
}
"""Page -> the test file that runs its blocks."""
MOLECULES = "smiles\nCO\nCCO\n"


def blocks(page: str) -> list[str]:
    """Return the blocks of Python in a page."""
    return re.findall(r"```python\n(.*?)```", (DOCS / f"{page}.md").read_text("utf-8"), re.DOTALL)


def test_the_blocks_of_every_page_run_in_some_test() -> None:
    """Pages without Python need none."""
    pages = {page.stem for page in DOCS.rglob("*.md") if "```python" in page.read_text("utf-8")}

    assert pages == {"inputs", *HERE, *ELSEWHERE}
    for page, file in ELSEWHERE.items():
        assert page in (Path(__file__).parent / file).read_text("utf-8")


@pytest.fixture
def logger_as_before() -> Iterator[None]:
    """Undo what a page does to the logger and to the root logger."""
    logger, handlers = logging.getLogger("st4sd_async"), list(logging.getLogger().handlers)
    level = logger.level
    yield
    logger.setLevel(level)
    logging.getLogger().handlers[:] = handlers


def compiled(source: str, page: str) -> CodeType:
    """Compile code with top-level await, as in a notebook."""
    code: CodeType = compile(source, f"{page}.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    return code


async def run_blocks(page: str, folder: Path, monkeypatch: pytest.MonkeyPatch, s3_url: str = "") -> None:
    """Run the blocks of a page in order, as in a notebook, with a local server, an open client and a run of it."""
    monkeypatch.chdir(folder)
    (folder / "molecules.csv").write_text(MOLECULES)
    with LocalServer(speed=200) as server:
        (folder / "st4sd.key").write_text(server.api_key)
        monkeypatch.setenv("ST4SD_URL", server.url)
        monkeypatch.setenv("ST4SD_API_KEY", server.api_key)
        addresses = {"https://st4sd.example": server.url, "https://s3.example": s3_url}
        config = Config(poll_interval=0.02)
        async with Client(server.url, api_key=server.api_key, config=config) as client:
            await client.push(server.example("demo"))
            run = await client.start("demo", inputs={"molecules.csv": MOLECULES})
            await run.wait()
            names = {"client": client, "run": run, "print": lambda *shown, **options: None}
            for block in blocks(page):
                source = block.replace("LocalServer()", "LocalServer(speed=200)")
                for shown, address in addresses.items():
                    source = source.replace(shown, address)
                code = compiled(source, page)
                if code.co_flags & inspect.CO_COROUTINE:
                    await eval(code, names)
                else:
                    await to_thread.run_sync(eval, code, names)


@pytest.mark.timeout(120)  # many runs, on a machine that may be busy
@pytest.mark.anyio
@pytest.mark.parametrize(
    "page", [pytest.param(page, marks=pytest.mark.slow if page in ("batches", "notebooks") else ()) for page in HERE]
)
async def test_every_block_of_python_runs(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logger_as_before: None, nothing_blocks: Any
) -> None:
    """Without an error."""
    nothing_blocks.deactivate()  # the code of the pages reads small files in the event loop
    await run_blocks(page, tmp_path, monkeypatch)


@pytest.mark.timeout(120)
@pytest.mark.anyio
async def test_every_block_about_inputs_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nothing_blocks: Any
) -> None:
    """With an S3 service that has the bucket of the page."""
    nothing_blocks.deactivate()
    with serving() as s3_url:
        httpx.put(f"{s3_url}/mine").raise_for_status()  # noqa: ASYNC210 -- no other task runs
        await run_blocks("inputs", tmp_path, monkeypatch, s3_url)
