"""The guard of every asynchronous test: it stops the library, and nobody else, when the event loop would block."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from blockbuster import BlockingError

import st4sd_async

LIBRARY = Path(st4sd_async.__file__).parent


def function_of(file: Path) -> Callable[[], object]:
    """Return a function that blocks, as if a file contained it."""
    names: dict[str, Callable[[], object]] = {}
    exec(compile("import os\ndef block(): return os.stat('/')\n", str(file), "exec"), names)
    return names["block"]


@pytest.mark.anyio
@pytest.mark.parametrize("name", ["_client.py", "_http/session.py"])
async def test_the_library_cannot_block(name: str) -> None:
    """Neither itself nor through a function of somebody else."""
    with pytest.raises(BlockingError):
        function_of(LIBRARY / name)()


@pytest.mark.anyio
async def test_servers_and_tests_can_block() -> None:
    """They have no event loop to share with a program."""
    assert function_of(LIBRARY / "local" / "server.py")()
    assert os.stat("/")  # noqa: PTH116


def test_without_an_event_loop_all_can_block() -> None:
    """The guard is for asynchronous tests."""
    assert function_of(LIBRARY / "_client.py")()
