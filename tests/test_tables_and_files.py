"""The blocks of the page tables_and_files run. With Dask, which has an environment of its own, all of them do."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import re
import types
from pathlib import Path
from typing import Any

import anyio.to_thread
import pytest

import st4sd_async
from st4sd_async import Client, Config, Launch
from st4sd_async.local import LocalServer
from tests.integrations.filesystems import filesystems

pytestmark = pytest.mark.slow

PAGE = Path(st4sd_async.__file__).parent / "docs" / "tables_and_files.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
MOLECULES = {"molecules.csv": "smiles\nCO\nCCO\n"}
OPTIONAL = ("dask",)
"""Packages that may not be installed. The blocks that import them are left out."""


def is_installed(block: str) -> bool:
    return all(f"import {name}" not in block or importlib.util.find_spec(name) for name in OPTIONAL)


@pytest.mark.slow(seconds=7)
@pytest.mark.filterwarnings("ignore:Port 8787 is already in use:UserWarning")  # the dashboard of another cluster
@pytest.mark.timeout(180)  # processes that import all of it anew, on a machine that may be busy
@pytest.mark.anyio
async def test_every_block_of_python_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nothing_blocks: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """One after the other, as in a notebook, with the address and key of a local server, and a batch that is over."""
    nothing_blocks.deactivate()  # the code of the page reads files in the event loop
    monkeypatch.chdir(tmp_path)
    with filesystems(), LocalServer(speed=200) as server:
        monkeypatch.setenv("ST4SD_URL", server.url)
        monkeypatch.setenv("ST4SD_API_KEY", server.api_key)
        (tmp_path / "st4sd.key").write_text(server.api_key)
        async with Client(server.url, api_key=server.api_key, config=Config(poll_interval=0.02)) as client:
            await client.push(server.example("demo"))
            async with client.batch("campaign.db") as batch:
                await batch.add(Launch(f"mol {number}", "demo", inputs=MOLECULES) for number in range(3))
                async for _ in batch.run():
                    pass
            names: dict[str, Any] = {"client": client, "__name__": "__main__"}
            for block in filter(is_installed, BLOCKS):
                source = block.replace("https://st4sd.example", server.url)
                code: types.CodeType = compile(source, PAGE.name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
                if code.co_flags & inspect.CO_COROUTINE:
                    await eval(code, names)
                else:
                    await anyio.to_thread.run_sync(eval, code, names)

            assert len(names["energies"]) == 2

    assert (tmp_path / "folder" / "sub" / "b.bin").exists()
    assert "no energies" not in capsys.readouterr().out
    assert (tmp_path / "campaign.parquet" / "launches-000000000-000000002.parquet").exists()
