"""If a process is killed with SIGKILL, its child processes end and its folders are removed."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from st4sd_async.local.engine.guard import Cleanup, Guard
from st4sd_async.local.engine.processes import ChildProcesses, git
from tests.local.engine.test_elaunch import LONG

CLEANUP_TIMEOUT = 15.0
"""Seconds within which cleanup must finish; 2 are usual."""

OWNER = """
import os, subprocess, sys, time
from pathlib import Path
from st4sd_async.local.engine.guard import Guard

guard, folder = Guard(), Path(sys.argv[1])
guard.add_folders(str(folder / "scr*"))
for name in ("scratch", "other"):
    (folder / name).mkdir()
sleeping = subprocess.Popen(["sh", "-c", "sleep 100 & sleep 100"], start_new_session=True)
guard.add_group(sleeping.pid)
spared = subprocess.Popen(["sleep", "100"], start_new_session=True)
guard.add_group(spared.pid)
guard.remove_group(spared.pid)
child = os.fork() if "fork" in sys.argv else 1
if child == 0:
    time.sleep(100)
if "close" in sys.argv:
    guard.close()
print(sleeping.pid, spared.pid, child, flush=True)
time.sleep(100)
"""

SERVER = """
import sys, time, httpx
from st4sd_async.local import LocalServer

with LocalServer(engine="elaunch") as server:
    web = httpx.Client(base_url=server.url + "/rs", headers={"Authorization": f"Bearer {server.api_key}"}, timeout=60)
    package = {"source": {"git": {"location": {"url": sys.argv[1], "branch": "main"}}}}
    definition = {"base": {"packages": [package]}, "metadata": {"package": {"name": "long"}}}
    web.post("/experiments/", json=definition).raise_for_status()
    rest_uid = web.post("/experiments/long/start", json={}).json()
    while not (meta := (web.get(f"/instances/{rest_uid}").json()["status"].get("meta") or {})):
        time.sleep(0.1)
    while not (server.directory(rest_uid) / "stages/stage0/Sleep/out.stdout").exists():
        time.sleep(0.1)
    print(meta["pid"], rest_uid, flush=True)
    time.sleep(200)
"""


def is_alive(group: int) -> bool:
    """Return whether a process group has a member that is not a zombie."""
    for file in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, its_group = file.read_text().rpartition(")")[2].split()[:3]
            if int(its_group) == group and state != "Z":
                return True
    return False


def eventually(condition: Callable[[], bool]) -> bool:
    """Return whether a condition becomes true in time."""
    deadline = time.monotonic() + CLEANUP_TIMEOUT
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


@pytest.fixture
def run_and_kill() -> Iterator[Callable[..., list[str]]]:
    """Return a function that runs a program until it prints a line, kills it, and returns the words of the line."""
    owners: list[subprocess.Popen[str]] = []

    def run(program: str, *arguments: str, **environment: str) -> list[str]:
        owner = subprocess.Popen(
            [sys.executable, "-c", program, *arguments],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment},
        )
        owners.append(owner)
        assert owner.stdout is not None
        words = owner.stdout.readline().split()
        owner.kill()
        return words

    yield run
    for owner in owners:
        owner.kill()
        owner.communicate()


@pytest.mark.slow
@pytest.mark.parametrize("how", ["kill", "fork"])
def test_cleanup_after_a_killed_process(how: str, tmp_path: Path, run_and_kill: Callable[..., list[str]]) -> None:
    """Guarded groups are killed, even if a forked child keeps the pipe open; removed groups are not."""
    sleeping, spared, child = map(int, run_and_kill(OWNER, str(tmp_path), how))

    try:
        assert eventually(lambda: not (tmp_path / "scratch").exists())
        assert not is_alive(sleeping)
        assert is_alive(spared)
        assert (tmp_path / "other").exists()
    finally:
        os.killpg(spared, signal.SIGKILL)
        if how == "fork":
            os.kill(child, signal.SIGKILL)


@pytest.mark.slow
def test_a_closed_guard_removes_no_folders(tmp_path: Path, run_and_kill: Callable[..., list[str]]) -> None:
    """It still kills the remaining groups."""
    sleeping, spared, _ = map(int, run_and_kill(OWNER, str(tmp_path), "close"))
    os.killpg(spared, signal.SIGKILL)

    assert eventually(lambda: not is_alive(sleeping))
    assert (tmp_path / "scratch").exists()


def test_orders_to_a_dead_guard_are_ignored(tmp_path: Path) -> None:
    """This includes orders after it was closed."""
    guard = Guard()
    guard.close()
    guard.add_group(1)
    guard = Guard()
    guard.add_folders(str(tmp_path))
    process = guard._process
    assert process is not None
    process.kill()
    process.wait()

    guard.remove_group(1)
    guard.close()
    guard.close()

    assert tmp_path.exists()


@pytest.mark.slow
def test_cleanup_kills_groups_and_removes_folders(tmp_path: Path) -> None:
    """Groups that were removed are left alone."""
    (tmp_path / "a.shadow").mkdir()
    sleeping = subprocess.Popen(["sleep", "100"], start_new_session=True)
    cleanup = Cleanup()
    orders = [
        {"add_group": sleeping.pid},
        {"add_group": 1},
        {"remove_group": 1},
        {"add_folders": f"{tmp_path}/*.shadow"},
    ]
    for order in orders:
        cleanup.receive(json.dumps(order).encode())

    cleanup.run()

    assert sleeping.wait() == -signal.SIGKILL
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow(seconds=8)
@pytest.mark.timeout(240)
def test_a_killed_server_leaves_no_processes_or_files(tmp_path: Path, run_and_kill: Callable[..., list[str]]) -> None:
    """Its run is killed within seconds, and the temporary directory is empty."""
    repository, temporary = tmp_path / "long", tmp_path / "temporary"
    (repository / "conf").mkdir(parents=True)
    temporary.mkdir()
    (repository / "conf" / "flowir_package.yaml").write_text(LONG)
    for arguments in (("init", "--quiet", "--initial-branch=main"), ("add", "--all"), ("commit", "--quiet", "-mx")):
        git(*arguments, folder=repository, processes=ChildProcesses(), timeout=50)

    pid, rest_uid = run_and_kill(SERVER, repository.as_uri(), TMPDIR=str(temporary))
    began = time.monotonic()

    assert eventually(lambda: not is_alive(int(pid)) and not list(temporary.iterdir()))
    assert time.monotonic() - began < CLEANUP_TIMEOUT
    stem = rest_uid.rpartition("-")[0]
    assert eventually(lambda: not list(Path("/tmp").glob(f"chpc-*-shadow/{stem}-*.shadow")))
