"""The measurements of `bench_download.py`. Clients and servers run in their own processes; this one is small."""

from __future__ import annotations

import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from _shared import HERE

MIB = 1 << 20
SMALL, SMALL_SIZE = 200, 1024
"""Number of small files of a component, and bytes of each."""
LARGE, LARGE_SIZE = 8, 16 * MIB
"""Number of large files of a component, and bytes of each."""
PARTS = 16
"""Number of files in the directory of a component."""
LESS = 64
"""MiB of the smaller of two directories and outputs."""
RIVALS = ("st4sd_async", "incumbent")
MEMORY = Path("/dev/shm")
PLACES: dict[str, Path | None] = {**({"in memory": MEMORY} if MEMORY.is_dir() else {}), "on disk": None}
"""Where files are written; None means TMPDIR."""

Result = dict[str, Any]
Task = dict[str, Any]


@contextmanager
def results(more: int) -> Iterator[dict[str, Task]]:
    """
    Yield tasks by name, for an embedded server whose runs have files.

    Args:
        more: MiB of the larger of two directories and outputs.
    """
    names = ("warm", "small", "large", str(LESS), str(more))
    command = [sys.executable, str(HERE / "_results_server.py"), str(len(names))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            ready = json.loads(process.stdout.readline())
            runs = dict(zip(names, ready.pop("runs"), strict=True))
            tasks = {name: {**ready, **run, "warm": runs["warm"]} for name, run in runs.items()}
            _leave_files(tasks, more)
            yield tasks
        finally:
            process.stdin.close()


def _leave_files(tasks: dict[str, Task], more: int) -> None:
    """
    Write the files of the runs.

    Small and large files are tables of random numbers, which zip compresses slowly to half the size. Directories and
    key-outputs repeat one text, which it compresses quickly to almost nothing.
    """
    draw = random.Random(4).random
    for name, count, size in (("small", SMALL, SMALL_SIZE), ("large", LARGE, LARGE_SIZE)):
        for index in range(count):
            path = Path(tasks[name]["folder"]) / f"stages/stage0/Compute/table{index}.dat"
            _write(path, size, lambda least: _numbers(least, draw))
    same = _numbers(1 << 10, draw)[: 1 << 10]
    for size in (LESS, more):
        stages = Path(tasks[str(size)]["folder"]) / "stages"
        _write(stages / "stage0/Compute/energies.csv", size * MIB, lambda _: same * 1024)
        for index in range(PARTS):
            _write(stages / f"stage1/Report/part{index}.csv", size * MIB // PARTS, lambda _: same * 1024)


def _numbers(least: int, draw: Callable[[], float]) -> bytes:
    """Return a table of random numbers with at least that many bytes."""
    return "".join(f"{draw():.6f},{-1000 * draw():.6f}\n" for _ in range(1 + least // 18)).encode()


def _write(path: Path, size: int, text: Callable[[int], bytes]) -> None:
    """Write a file in pieces, because a client's ``ru_maxrss`` begins with the peak of its parent."""
    with path.open("wb") as file:
        for left in range(size, 0, -MIB):
            file.write(text(min(left, MIB))[: min(left, MIB)])


@contextmanager
def body(size: int) -> Iterator[Task]:
    """Yield the task to fetch that many MiB from a server."""
    command = [sys.executable, str(HERE / "_body_server.py"), str(size * MIB)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            url = f"http://127.0.0.1:{int(process.stdout.readline())}"
            yield {"do": "stream", "url": url, "key": "benchmark"}
        finally:
            process.terminate()


def has_curl() -> bool:
    """Return whether the command is installed."""
    return shutil.which("curl") is not None


def rivals(
    task: Task, repeats: int, count: int | None, size: int, who: Sequence[str] = RIVALS, place: Path | None = None
) -> dict[str, Result]:
    """
    Return what a task costs each rival, run alternately, each time in a new process and a new folder.

    Args:
        task: For `_downloaders.py`.
        repeats: For each rival.
        count: Expected number of files. None means any number.
        size: Bytes that must come at least.
        who: The rivals.
        place: Where the new folders are.
    """
    seen: dict[str, list[Result]] = {one: [] for one in who}
    with tempfile.TemporaryDirectory(prefix="bench-", dir=place) as folder:
        for index, one in enumerate(islice(cycle(who), repeats * len(who))):
            came = _download(one, task, Path(folder) / str(index))
            if came["bytes"] < size or came["files"] != (count or came["files"]):
                raise RuntimeError(f"{one} got {came['files']} files of {came['bytes']} bytes, not {count} of {size}")
            seen[one].append(came)
    return {one: _summary(cells) for one, cells in seen.items()}


def _download(who: str, task: Task, folder: Path) -> Result:
    """
    Run one download, after a sync, and remove the large files that it wrote.

    Small files stay until the end: ext4 creates files slowly where many were removed in the last minutes.
    """
    os.sync()
    folder.mkdir()
    command = [sys.executable, str(HERE / "_downloaders.py"), who, json.dumps(task), str(folder)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    for path in list(folder.rglob("*")):
        if path.is_file() and path.stat().st_size >= MIB:
            path.unlink()
    result: Result = json.loads(done.stdout)
    return result


def create(repeats: int, place: Path | None, count: int, size: int, *, is_synced: bool) -> list[float]:
    """Return the seconds that a plain loop takes to write so many files of a size, the lower bound of all clients."""
    walls = []
    piece = bytes(min(size, MIB))
    with tempfile.TemporaryDirectory(prefix="bench-", dir=place) as folder:
        for repeat in range(repeats):
            target = Path(folder) / str(repeat)
            target.mkdir()
            began = time.perf_counter()
            for index in range(count):
                with (target / str(index)).open("wb", buffering=0) as file:
                    for _ in range(size // len(piece)):
                        file.write(piece)
                    if is_synced:
                        os.fsync(file)
            walls.append(time.perf_counter() - began)
            if size >= MIB:
                shutil.rmtree(target)
    return walls


def _summary(cells: Sequence[Result]) -> Result:
    """Combine repeated downloads; memory is the highest of all."""
    return {
        "repeats": len(cells),
        "median_s": statistics.median(one["seconds"] for one in cells),
        "minimum_s": min(one["seconds"] for one in cells),
        "cpu_s": statistics.median(one["cpu_s"] for one in cells),
        "files": cells[0]["files"],
        "bytes": cells[0]["bytes"],
        "imported_mib": statistics.median(one["imported_mib"] for one in cells),
        "peak_mib": max(one["peak_mib"] for one in cells),
        "maxrss_mib": max(one["maxrss_mib"] for one in cells),
        "above_import_mib": max(one["peak_mib"] - one["imported_mib"] for one in cells),
        "above_open_mib": max(one["peak_mib"] - one["opened_mib"] for one in cells),
    }
