"""The examples of the page about orchestrators run. That for Airflow is in ``integrations/test_airflow.py``."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest

import st4sd_async
from st4sd_async import Client, Config
from st4sd_async.local import LocalServer

PAGE = Path(st4sd_async.__file__).parent / "docs" / "orchestrators.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)


@pytest.mark.anyio
async def test_every_block_of_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One after the other, as in a notebook, with the address and key of a local server."""
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"config": Config(poll_interval=0.02)}
    with LocalServer(speed=200) as server:
        async with Client(server.url, api_key=server.api_key) as client:
            await client.push(server.example("demo"))
        for block in BLOCKS[:2]:
            source = block.replace('"https://st4sd.example", api_key=Path("st4sd.key")', "*address")
            source = source.replace("*address", f"{server.url!r}, api_key={server.api_key!r}, config=config")
            await eval(compile(source, str(PAGE), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), names)

        assert server.traffic["POST /experiments/*/start"].requests == 1
    assert len(BLOCKS) == 4


def test_the_script_with_a_fault_runs(capsys: pytest.CaptureFixture[str]) -> None:
    """It ends when the user presses Enter."""
    names: dict[str, Any] = {"input": print}

    exec(BLOCKS[3].replace("port=8099", "port=0"), names)

    assert capsys.readouterr().out.startswith("Trigger the dag")


def test_the_readme_links_to_the_page() -> None:
    """Readers find it."""
    readme = Path(__file__).parents[1] / "README.md"

    assert "(st4sd_async/docs/orchestrators.md)" in readme.read_text("utf-8")
