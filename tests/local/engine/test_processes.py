"""Helper processes have a time limit and end with the engine."""

from __future__ import annotations

import subprocess
import threading
import time

import pytest

from st4sd_async.local.engine.processes import ChildProcesses, GitFailed, git


def test_child_processes_that_take_too_long_are_killed() -> None:
    """The time limit also applies to processes that they started."""
    before = time.monotonic()

    with pytest.raises(subprocess.TimeoutExpired):
        ChildProcesses().run(["sh", "-c", "sleep 30 & wait"], timeout=0.05)

    assert time.monotonic() - before < 15


def test_closing_kills_child_processes_and_rejects_new_ones() -> None:
    """After close none is running, and none can be started."""
    processes = ChildProcesses()
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(processes.run(["sleep", "30"], timeout=30).returncode))
    thread.start()
    while not processes._running:
        time.sleep(0.01)

    processes.close()
    thread.join(15)

    assert codes == [-9]
    with pytest.raises(GitFailed, match="git cannot be started: closed"):
        git("version", processes=processes, timeout=1)
