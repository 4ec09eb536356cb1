"""
Downloads: small files, large files, directories and key-outputs against the incumbent, a stream against `httpx`, curl.

    python benchmarks/bench_download.py [--size 1024] [--stream 512] [--repeats 9] [--json FILE]

Each client and server runs in a new process. The benchmark needs Linux, which reports the peak memory of a process, and
4 GB of space in TMPDIR. Small files and directories are also written to a file system in memory, if there is /dev/shm,
because a disk may take longer than the clients: where many files were removed in the last minutes, as in the /tmp of a
busy machine, ext4 creates files ten times slower. A line shows what plain loops take to write and sync the same.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path

from _downloading import (
    LARGE,
    LARGE_SIZE,
    LESS,
    MIB,
    PARTS,
    PLACES,
    SMALL,
    SMALL_SIZE,
    Result,
    Task,
    body,
    create,
    has_curl,
    results,
    rivals,
)
from _shared import headline, versions

SMALL_TIME, LARGE_TIME, DIRECTORY_TIME = 0.75, 0.7, 1.1
"""Bounds, as multiples of the incumbent's time. That of small files is less the time of a plain loop if on a disk."""
LARGE_MEMORY, GROWTH = 64.0, 8.0
"""Bounds for MiB above the import, and for the difference between a large and a small download."""
RATE, STREAM_TIME = 0.7, 1.3
"""Lower bound of the rate, as a multiple of the rate of httpx; bound of the time, as a multiple of curl's."""


class Report:
    """The results, printed and saved as JSON."""

    def __init__(self, used: dict[str, str]) -> None:
        self.result: Result = {"versions": used, "cells": {}, "loops": {}, "bars": []}

    def line(self, text: str) -> None:
        """Print a line."""
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()

    def show(self, what: str, cells: dict[str, Result]) -> dict[str, Result]:
        """Print and save the cost of downloads."""
        self.result["cells"][what] = cells
        self.line(f"\n{what}")
        self.line(
            "client       repeats  median s  min s   CPU s   MiB/s  peak MiB  above import  above open  ru_maxrss"
        )
        for who, row in cells.items():
            rate = row["bytes"] / MIB / row["median_s"]
            self.line(
                f"{who:<12} {row['repeats']:>7} {row['median_s']:>9.3f} {row['minimum_s']:>6.3f} {row['cpu_s']:>7.3f}"
                f" {rate:>7.0f} {row['peak_mib']:>9.1f} {row['above_import_mib']:>13.1f}"
                f" {row['above_open_mib']:>11.1f} {row['maxrss_mib']:>10.1f}"
            )
        return cells

    def loop(self, what: str, walls: list[float]) -> Result:
        """Print, save and return what a plain loop takes to write the same files."""
        found = self.result["loops"][what] = {"median_s": statistics.median(walls), "minimum_s": min(walls)}
        self.line(f"\na plain loop writes {what} in {found['median_s']:.4f} s, min {found['minimum_s']:.4f} s")
        return found

    def ratio(self, what: str, cells: dict[str, Result], bound: float, less: Result | None = None) -> None:
        """Print whether the first of two rivals takes at most a multiple of the time of the other."""
        less = less or {"median_s": 0.0, "minimum_s": 0.0}
        (_, mine), (rival, other) = cells.items()
        median, minimum = ((mine[by] - less[by]) / other[by] for by in ("median_s", "minimum_s"))
        self.bar(f"{what}, x {rival}, median", median, bound)
        self.line(f"     by minima: {minimum:.4g}")

    def bar(self, what: str, value: float, bound: float, *, is_least: bool = False) -> None:
        """Print whether a bound is met."""
        is_met = value >= bound if is_least else value <= bound
        self.result["bars"].append({"what": what, "value": value, "bound": bound, "is_met": is_met})
        word = "least" if is_least else "most"
        self.line(f"bar: {what}: {value:.4g}, at {word} {bound:.4g}: {'met' if is_met else 'MISSED'}")


def compare_small(report: Report, tasks: dict[str, Task], repeats: int) -> None:
    """Measure small files of one component, in memory and on disk."""
    task = {**tasks["small"], "do": "files", "filename": r"table\d+\.dat$"}
    for where, place in PLACES.items():
        what = f"{SMALL} files of {SMALL_SIZE >> 10} KiB {where}"
        loop = report.loop(what, create(repeats, place, SMALL, SMALL_SIZE, is_synced=False))
        loop = loop if where == "on disk" else {"median_s": 0.0, "minimum_s": 0.0}
        cells = report.show(what, rivals(task, repeats, SMALL, SMALL * SMALL_SIZE, place=place))
        report.ratio(f"{what}{' less the loop' if any(loop.values()) else ''}", cells, SMALL_TIME, loop)
        report.bar(f"{what}, MiB above import", cells["st4sd_async"]["above_import_mib"], LARGE_MEMORY)


def compare_large(report: Report, tasks: dict[str, Task], repeats: int) -> None:
    """Measure large files of one component."""
    task = {**tasks["large"], "do": "files", "filename": r"table\d+\.dat$"}
    what = f"{LARGE} files of {LARGE_SIZE >> 20} MiB on disk"
    cells = report.show(what, rivals(task, repeats, LARGE, LARGE * LARGE_SIZE))
    report.ratio(what, cells, LARGE_TIME)
    report.bar(f"{what}, MiB above import", cells["st4sd_async"]["above_import_mib"], LARGE_MEMORY)


def compare_directories(report: Report, tasks: dict[str, Task], more: int, repeats: int) -> None:
    """Measure a directory of both sizes, in memory and on disk."""
    for where, place in PLACES.items():
        peaks = []
        for size in (LESS, more):
            what = f"a directory of {size} MiB {where}"
            cells = report.show(
                what, rivals({**tasks[str(size)], "do": "component"}, repeats, None, size * MIB, place=place)
            )
            peaks.append(cells["st4sd_async"]["above_import_mib"])
        report.loop(what, create(repeats, place, PARTS, more * MIB // PARTS, is_synced=True))
        report.ratio(what, cells, DIRECTORY_TIME)
        report.bar(f"MiB of memory more for {what} than of {LESS}", peaks[1] - peaks[0], GROWTH)


def compare_outputs(report: Report, tasks: dict[str, Task], more: int, repeats: int) -> None:
    """Measure a key-output of both sizes."""
    peaks = []
    for size in (LESS, more):
        task = {**tasks[str(size)], "do": "output"}
        cells = report.show(f"a key-output of {size} MiB on disk", rivals(task, repeats, None, size * MIB))
        peaks.append(cells["st4sd_async"]["above_import_mib"])
    report.bar(f"MiB of memory more for a key-output of {more} MiB than of {LESS}", peaks[1] - peaks[0], GROWTH)


def compare_streams(report: Report, size: int, repeats: int) -> None:
    """Measure one body: ours to disk with its digest, by curl to disk, discarded by httpx."""
    who = ("st4sd_async", "httpx", *(["curl"] if has_curl() else []))
    with body(size) as task:
        found = rivals(task, repeats, 1, size * MIB, who)
    what = f"a stream of {size} MiB: ours and curl to disk without a sync, httpx to {Path('/dev/null')}"
    mine, other, *curl = report.show(what, found).values()
    what = "rate of a stream, x httpx"
    report.bar(f"{what}, median", other["median_s"] / mine["median_s"], RATE, is_least=True)
    report.line(f"     by minima: {other['minimum_s'] / mine['minimum_s']:.4g}")
    if curl:
        report.ratio("time of a stream", {"st4sd_async": mine, "curl": curl[0]}, STREAM_TIME)


def main() -> None:
    """Measure everything, and print it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[1])
    parser.add_argument("--size", type=int, default=1024, help=f"MiB of the larger directory and output; over {LESS}")
    parser.add_argument("--stream", type=int, default=512, help="MiB of the stream")
    parser.add_argument("--repeats", type=int, default=9, help="of small files; half as many of large ones and streams")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.size <= LESS:
        parser.error(f"--size must be over {LESS}")
    used = versions("aiohttp", "httpx", "st4sd_async", "st4sd-runtime-core")
    headline(used, f"{options.repeats} repeats")
    report = Report(used)
    with results(options.size) as tasks:
        compare_small(report, tasks, options.repeats)
        compare_large(report, tasks, -(-options.repeats // 2))
        compare_directories(report, tasks, options.size, -(-options.repeats // 3))
        compare_outputs(report, tasks, options.size, -(-options.repeats // 3))
    compare_streams(report, options.stream, -(-options.repeats // 2))
    if options.json:
        options.json.write_text(json.dumps(report.result, indent=1))


if __name__ == "__main__":
    main()
