"""The examples of the README run."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from types import CodeType
from typing import Any

import pytest

from st4sd_async import Client
from st4sd_async.local import LocalServer

pytestmark = pytest.mark.slow

README = Path(__file__).parents[1] / "README.md"
TEXT = README.read_text("utf-8") if README.exists() else ""
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


def compiled(source: str) -> CodeType:
    """Compile code with top-level await, as in a notebook."""
    code: CodeType = compile(source, str(README), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    return code


@pytest.mark.timeout(60)  # many runs, on a machine that may be busy
@pytest.mark.anyio
async def test_every_block_of_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One after the other, as in a notebook, with the address and key of a local server."""
    monkeypatch.chdir(tmp_path)
    with LocalServer(speed=50) as server:
        async with Client(server.url, api_key=server.api_key) as client:
            await client.push(server.example("demo"))
        names: dict[str, Any] = {"print": lambda *shown, **options: None}
        for block in BLOCKS:
            source = block.replace('Path("st4sd.key")', repr(server.api_key))
            source = source.replace("https://st4sd.example", server.url).replace(
                "LocalServer()", "LocalServer(speed=50)"
            )
            await eval(compiled(source), names)
    assert len(BLOCKS) == 2
    assert list((tmp_path / "results").glob("ethanol/Energies/*.csv"))
    assert list((tmp_path / "results").glob("*/Folder/sub/b.bin"))


def test_it_stays_short() -> None:
    """It has less than 130 lines."""
    assert len(TEXT.splitlines()) < 130


def test_ci_runs_the_test_line_of_the_readme() -> None:
    """The script takes the command from the README."""
    (line,) = [line for line in TEXT.splitlines() if "-m pytest" in line]

    assert line.startswith("python3 -m venv .venv && .venv/bin/pip install")
    assert "README.md" in (README.parent / ".ci" / "run").read_text("utf-8")
