"""
Batches: many starts with a journal on disk, against a bare aiohttp loop and the incumbent, and a large journal.

    python benchmarks/bench_batch.py [--starts 1000] [--repeats 3] [--json FILE]

Each client and server runs in a new process. The journals are in TMPDIR, which should be on a disk; the first line
shows what a sync takes there. The memory of a process is measured on Linux only.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from _shared import HERE, headline, versions

QUICK, SLOW = (0.05, 0), (0.012, 2)
"""Seconds of a start, and starts handled at a time (0: all)."""
X_BARE, X_LIMIT = 1.5, 1.1
"""Bounds, as multiples of the time of the bare loop, and of the server's limit."""
X_FULL, X_CPU = 1.25, 5.0
"""With 64 in flight: bounds as multiples of the time of the bare loop, and of its CPU."""
LAUNCHES, OPENING, MEMORY = 10_000, 2.0, 100.0
"""Launches of a large journal; bounds for the seconds to open it and add them again, and for MiB above the import."""
SEQUENCE = 100
"""Number of starts of the incumbent."""
SYNCS = 200
ENDS = {"last": "runs end when all are started", "once": "each run ends at once"}
"""When runs are over."""

Result = dict[str, Any]


@dataclass(frozen=True)
class Cell:
    """A client that starts."""

    who: str
    in_flight: int
    """Starts in flight; for a batch, at first."""
    ends: str = "-"
    """A key of `ENDS`, for a batch."""

    def __str__(self) -> str:
        return f"{self.who} {self.in_flight} {self.ends}"


class Report:
    """The results, printed and saved as JSON."""

    def __init__(self, used: dict[str, str]) -> None:
        self.result: Result = {"versions": used, "cells": {}, "bars": []}

    def line(self, text: str) -> None:
        """Print a line."""
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()

    def show(self, what: str, rows: dict[Cell, Result], limit: float | None) -> None:
        """Print and save the cost of starts; `limit` is the server's limit in seconds."""
        self.result["cells"][what] = {str(cell): row for cell, row in rows.items()}
        self.line(f"\n{what}")
        self.line(
            "client       at first  most  runs end  repeats  median s  min s  x aiohttp  x limit  CPU ms  all ended s"
        )
        for cell, row in rows.items():
            ratio = f"{row['x_bare']:.2f}" if "x_bare" in row else "-"
            beside = f"{row['median_s'] / limit:.3f}" if limit else "-"
            ended = f"{row['ended_s']:.2f}" if "ended_s" in row else "-"
            self.line(
                f"{cell.who:<12} {cell.in_flight:>8} {row['most']:>5} {cell.ends:>9} {row['repeats']:>8}"
                f" {row['median_s']:>9.3f} {row['minimum_s']:>6.3f} {ratio:>10} {beside:>8}"
                f" {row['cpu_ms']:>7.2f} {ended:>12}"
            )

    def bar(self, what: str, value: float, most: float) -> None:
        """Print whether a bound is met."""
        is_met = value <= most
        self.result["bars"].append({"what": what, "value": value, "most": most, "is_met": is_met})
        self.line(f"bar: {what}: {value:.4g}, at most {most:.4g}: {'met' if is_met else 'MISSED'}")


@contextmanager
def serving(delay: float, parallel: int, until: int) -> Iterator[str]:
    """Run the server of ``_start_server.py`` in its own process, and yield its url."""
    command = [sys.executable, str(HERE / "_start_server.py"), *map(str, (delay, parallel, until))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.terminate()


def ask(who: str, url: str, count: int, journal: Path, in_flight: int = 1) -> Result:
    """Run a task in its own process, and return its result."""
    task = {"url": url, "count": count, "in_flight": in_flight, "journal": str(journal)}
    command = [sys.executable, str(HERE / "_starters.py"), who, json.dumps(task)]
    result: Result = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    if result["done"] != count:
        raise RuntimeError(f"{who} came to {result['done']}, not {count}")
    return result


def starts(cell: Cell, server: tuple[float, int], count: int) -> Result:
    """Return the cost of starts, after checking that the server received each once."""
    until = count if cell.ends == "last" else 0
    with serving(*server, until) as url, tempfile.TemporaryDirectory(prefix="bench-") as folder:
        result = ask(cell.who, url, count, Path(folder) / "campaign.db", cell.in_flight)
        with urllib.request.urlopen(f"{url}/tally") as reply:
            tally = json.load(reply)
    if (tally["starts"], tally["different"]) != (count, count):
        raise RuntimeError(f"{cell.who} made {tally['starts']} starts, {tally['different']} different, not {count}")
    return {**result, **tally}


def rivals(cells: Sequence[Cell], server: tuple[float, int], count: int, repeats: int) -> dict[Cell, Result]:
    """Measure all cells alternately, and the incumbent, whose result is scaled."""
    seen: dict[Cell, list[Result]] = {cell: [] for cell in cells}
    for _ in range(repeats):
        for cell, results in seen.items():
            results.append(starts(cell, server, count))
    rows = {cell: summary(results, 1.0, count) for cell, results in seen.items()}
    alone = Cell("incumbent", 1)
    rows[alone] = summary([starts(alone, server, SEQUENCE)], count / SEQUENCE, count)
    for cell, row in rows.items():
        base = rows.get(Cell("aiohttp", cell.in_flight))
        if base is not None:
            row["x_bare"] = row["median_s"] / base["median_s"]
            row["x_bare_minimum"] = row["minimum_s"] / base["minimum_s"]
    return rows


def summary(results: list[Result], scale: float, count: int) -> Result:
    """Combine repeated measurements."""
    row = {
        "repeats": len(results),
        "median_s": scale * statistics.median(one["seconds"] for one in results),
        "minimum_s": scale * min(one["seconds"] for one in results),
        "cpu_ms": 1000 * scale * min(one["cpu_s"] for one in results) / count,
        "most": max(one["most"] for one in results),
        "lists": max(one["lists"] for one in results),
        "peak_mib": max(one["peak_mib"] for one in results),
        "seconds": [one["seconds"] for one in results],
    }
    if "ended_s" in results[0]:
        row["ended_s"] = statistics.median(one["ended_s"] for one in results)
    return row


def show_disk(report: Report) -> None:
    """Print what a sync takes: a start needs two, which concurrent starts share."""
    walls = []
    with tempfile.TemporaryFile(prefix="bench-", buffering=0) as file:
        for _ in range(SYNCS):
            began = time.perf_counter()
            file.write(bytes(4096))
            os.fsync(file.fileno())
            walls.append(time.perf_counter() - began)
    report.result["sync_s"] = {"median": statistics.median(walls), "maximum": max(walls)}
    report.line(f"a sync of 4 KiB takes {1000 * statistics.median(walls):.2f} ms here, max {1000 * max(walls):.1f} ms")


def compare_quick(report: Report, count: int, repeats: int) -> None:
    """Measure a server that is never busy."""
    batches = [Cell("st4sd_async", *what) for what in ((32, "last"), (32, "once"), (64, "last"), (8, "last"))]
    cells, full = [Cell("aiohttp", 32), Cell("aiohttp", 64), *batches], batches[2]
    rows = rivals(cells, QUICK, count, repeats)
    report.show(f"{count} starts, each answered after {1000 * QUICK[0]:.0f} ms", rows, None)
    for cell in batches[:3]:
        what = f"x aiohttp, {cell.in_flight} in flight at first and {rows[cell]['most']} at most, {ENDS[cell.ends]}"
        report.bar(what, rows[cell]["x_bare"], X_FULL if cell == full else X_BARE)
        report.line(f"     by minima: {rows[cell]['x_bare_minimum']:.4g}")
    cpu = rows[full]["cpu_ms"] / rows[Cell("aiohttp", 64)]["cpu_ms"]
    report.bar("x CPU of aiohttp for a start, 64 in flight", cpu, X_CPU)


def compare_slow(report: Report, count: int, repeats: int) -> None:
    """Measure a server that handles two starts at a time, like the real one."""
    delay, parallel = SLOW
    batches = [Cell("st4sd_async", 8, ends) for ends in ("last", "once")]
    limit = count * delay / parallel
    rows = rivals([Cell("aiohttp", 8), *batches], SLOW, count, -(-repeats // 2))
    what = f"{count} starts, {parallel} at a time, {1000 * delay:.0f} ms each: at least {limit:.2f} s"
    report.show(what, rows, limit)
    for cell in batches:
        report.bar(f"x what the server can do, {ENDS[cell.ends]}", rows[cell]["median_s"] / limit, X_LIMIT)
        report.line(f"     by minima: {rows[cell]['minimum_s'] / limit:.4g}")


def compare_journals(report: Report, repeats: int) -> None:
    """Measure opening a journal and adding its launches again."""
    report.line(f"\na journal of {LAUNCHES} launches, and the same added to it")
    report.line("launches      repeats  median s  min s  open s   CPU s  peak MiB  above import  above open")
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, serving(0, 0, 0) as url:
        journal = Path(folder) / "campaign.db"
        kinds = {
            "new": [ask("add", url, LAUNCHES, journal)],
            "planned": [ask("add", url, LAUNCHES, journal) for _ in range(repeats)],
        }
        ask("collect", url, LAUNCHES, journal)
        kinds["collected"] = [ask("add", url, LAUNCHES, journal) for _ in range(repeats)]
    if [one["collected"] for one in kinds["collected"]] != [LAUNCHES] * repeats:
        raise RuntimeError("the launches are not collected")
    for kind, results in kinds.items():
        row = report.result["cells"][f"journal, {kind}"] = {
            "repeats": len(results),
            "median_s": statistics.median(one["seconds"] for one in results),
            "minimum_s": min(one["seconds"] for one in results),
            "open_s": statistics.median(one["open_s"] for one in results),
            "cpu_s": statistics.median(one["cpu_s"] for one in results),
            "peak_mib": max(one["peak_mib"] for one in results),
            "above_import_mib": max(one["peak_mib"] - one["imported_mib"] for one in results),
            "above_open_mib": max(one["peak_mib"] - one["opened_mib"] for one in results),
        }
        report.line(
            f"{kind:<12} {row['repeats']:>8} {row['median_s']:>9.3f} {row['minimum_s']:>6.3f} {row['open_s']:>7.3f}"
            f" {row['cpu_s']:>7.3f} {row['peak_mib']:>9.1f} {row['above_import_mib']:>13.1f}"
            f" {row['above_open_mib']:>11.1f}"
        )
    for kind in ("planned", "collected"):
        row = report.result["cells"][f"journal, {kind}"]
        report.bar(f"seconds to open {LAUNCHES} {kind} and add them again", row["median_s"], OPENING)
        report.bar(f"MiB above import with {LAUNCHES} {kind}", row["above_import_mib"], MEMORY)


def main() -> None:
    """Measure everything, and print it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[1])
    parser.add_argument("--starts", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=3, help="half as many with the slow server")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    used = versions("aiohttp", "httpx", "st4sd_async", "st4sd-runtime-core")
    headline(used, f"{options.starts} starts")
    report = Report(used)
    show_disk(report)
    compare_quick(report, options.starts, options.repeats)
    compare_slow(report, options.starts, options.repeats)
    compare_journals(report, options.repeats)
    if options.json:
        options.json.write_text(json.dumps(report.result, indent=1))


if __name__ == "__main__":
    main()
