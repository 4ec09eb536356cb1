"""
Downloads: small files, large files, directories and key-outputs against the incumbent, a stream against `httpx`.

    python benchmarks/bench_download.py [--size 1024] [--stream 512] [--repeats 9] [--json FILE]

Each client and server runs in a new process. The benchmark needs Linux, which reports the peak memory of a process, and
4 GB of space in TMPDIR. Where many files were removed in the last minutes, as in the /tmp of a busy machine, ext4
creates files ten times slower; the first line shows what a plain loop takes.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path

from _downloading import LARGE, LARGE_SIZE, LESS, MIB, SMALL, SMALL_SIZE, Result, Task, body, create, results, rivals
from _shared import headline, versions

SMALL_TIME, LARGE_TIME = 0.6, 0.7
"""Bounds, as multiples of the incumbent's time."""
LARGE_MEMORY, GROWTH = 64.0, 8.0
"""Bounds for MiB above the import, and for the difference between a large and a small download."""
RATE = 0.7
"""Lower bound of the rate, as a multiple of the rate of httpx."""


class Report:
    """The results, printed and saved as JSON."""

    def __init__(self, used: dict[str, str]) -> None:
        self.result: Result = {"versions": used, "cells": {}, "bars": []}

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

    def bar(self, what: str, value: float, bound: float, *, is_least: bool = False) -> None:
        """Print whether a bound is met."""
        is_met = value >= bound if is_least else value <= bound
        self.result["bars"].append({"what": what, "value": value, "bound": bound, "is_met": is_met})
        word = "least" if is_least else "most"
        self.line(f"bar: {what}: {value:.4g}, at {word} {bound:.4g}: {'met' if is_met else 'MISSED'}")


def show_disk(report: Report, repeats: int) -> None:
    """Print what a plain loop takes to write small files."""
    walls = report.result["disk"] = create(repeats)
    median, minimum = 1000 * statistics.median(walls), 1000 * min(walls)
    report.line(f"a plain loop writes {SMALL} files of 1 KiB here in {median:.1f} ms, min {minimum:.1f} ms")


def compare_files(report: Report, tasks: dict[str, Task], repeats: int) -> None:
    """Measure files of one component."""
    for name, count, size, times, most in (
        ("small", SMALL, SMALL_SIZE, repeats, SMALL_TIME),
        ("large", LARGE, LARGE_SIZE, -(-repeats // 2), LARGE_TIME),
    ):
        task = {**tasks[name], "do": "files", "filename": r"table\d+\.dat$"}
        what = f"{count} files of {size >> 10} KiB"
        cells = report.show(what, rivals(task, times, count, count * size))
        mine, other = cells.values()
        report.bar(f"{what}, x incumbent, median", mine["median_s"] / other["median_s"], most)
        report.line(f"     by minima: {mine['minimum_s'] / other['minimum_s']:.4g}")
        report.bar(f"{what}, MiB above import", mine["above_import_mib"], LARGE_MEMORY)


def compare_sizes(report: Report, tasks: dict[str, Task], more: int, repeats: int) -> None:
    """Measure a directory and a key-output, of both sizes."""
    for do, kind in (("component", "directory"), ("output", "key-output")):
        peaks = []
        for size in (LESS, more):
            task = {**tasks[str(size)], "do": do}
            cells = report.show(f"a {kind} of {size} MiB", rivals(task, repeats, None, size * MIB))
            peaks.append(cells["st4sd_async"]["above_import_mib"])
        report.bar(f"MiB of memory more for a {kind} of {more} MiB than of {LESS}", peaks[1] - peaks[0], GROWTH)


def compare_streams(report: Report, size: int, repeats: int) -> None:
    """Measure one body, to disk with its digest, and discarded without."""
    with body(size) as task:
        found = rivals(task, repeats, 1, size * MIB, ("st4sd_async", "httpx"))
    cells = report.show(f"a stream of {size} MiB: ours to disk without the sync, httpx to {Path('/dev/null')}", found)
    mine, other = cells.values()
    what = "rate of a stream, x httpx"
    report.bar(f"{what}, median", other["median_s"] / mine["median_s"], RATE, is_least=True)
    report.line(f"     by minima: {other['minimum_s'] / mine['minimum_s']:.4g}")


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
    show_disk(report, options.repeats)
    with results(options.size) as tasks:
        compare_files(report, tasks, options.repeats)
        compare_sizes(report, tasks, options.size, -(-options.repeats // 3))
    compare_streams(report, options.stream, -(-options.repeats // 2))
    if options.json:
        options.json.write_text(json.dumps(report.result, indent=1))


if __name__ == "__main__":
    main()
