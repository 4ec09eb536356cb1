"""The memory in a folder."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import anyio
import pytest

from st4sd_async import ConfigError, FolderMemory
from tests.tries import tries

pytestmark = pytest.mark.anyio

COUNTING = """
import asyncio, os, sys
from st4sd_async import FolderMemory

async def main():
    memory = FolderMemory(sys.argv[1])
    for _ in range(int(sys.argv[2])):
        while True:
            text = await memory.get("count")
            if await memory.compare_and_set("count", text, str(int(text or 0) + 1)):
                break

counters = []
for _ in range(2):
    counters.append(os.fork())
    if counters[-1] == 0:
        sys.exit(asyncio.run(main()))
sys.exit(any([os.waitpid(counter, 0)[1] for counter in counters]))
"""


@pytest.fixture
def memory(tmp_path: Path) -> FolderMemory:
    return FolderMemory(tmp_path / "not" / "there")


async def test_a_record_is_replaced_only_if_it_has_not_changed(memory: FolderMemory) -> None:
    """None means that there is no record."""
    assert await memory.get("a") is None
    assert not await memory.compare_and_set("a", "old", "new")
    assert await memory.compare_and_set("a", None, "1")
    assert not await memory.compare_and_set("a", None, "2")
    assert await memory.compare_and_set("a", "1", "2")
    assert not await memory.compare_and_set("a", "1", "3")

    assert await memory.get("a") == await FolderMemory(memory.path).get("a") == "2"


@pytest.mark.parametrize("name", ["key/../../a", "A", "ü / ☃", "x" * 5000, ".", "con", "a\nb"])
async def test_any_name_is_a_record_of_its_own(memory: FolderMemory, name: str) -> None:
    """It stays in the folder, and differs from a name with other case."""
    assert await memory.compare_and_set("a", None, "another")

    assert await memory.compare_and_set(name, None, f"text of {name}")

    assert await memory.get(name) == f"text of {name}"
    assert await memory.get("a") == "another"
    assert {path.name for path in memory.path.parent.iterdir()} == {"there"}


@pytest.mark.slow
def test_two_processes_lose_no_change(memory: FolderMemory) -> None:
    """Each adds to the same record."""
    times = tries(50, 20)

    subprocess.run([sys.executable, "-c", COUNTING, str(memory.path), str(times)], check=True, timeout=60)

    assert anyio.run(memory.get, "count") == str(2 * times)


async def test_a_leftover_of_a_crash_changes_nothing(memory: FolderMemory) -> None:
    """A process died before it made the link."""
    await memory.compare_and_set("a", None, "1")
    (folder,) = memory.path.iterdir()
    (folder / "0123456789abcdef.new").write_text("half")

    assert await memory.get("a") == "1"
    assert await memory.compare_and_set("a", "1", "2")


async def test_files_are_private(memory: FolderMemory) -> None:
    """A record has the names of experiments."""
    await memory.compare_and_set("a", None, "1")

    (folder,) = memory.path.iterdir()
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}


async def test_a_file_system_without_links_is_refused(memory: FolderMemory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing else creates a file with its content in one step."""

    def link(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", link)

    with pytest.raises(ConfigError, match="has no hard links: use a folder on another one"):
        await memory.compare_and_set("a", None, "1")
    assert await memory.get("a") is None
