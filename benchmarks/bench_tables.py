"""
Tables of many runs: properties to Parquet, and outputs parsed by two workers, beside one process.

    python benchmarks/bench_tables.py [--runs 10000] [--repeats 3] [--json FILE]

The server and each client run in processes of their own. The memory of a process is measured on Linux only. The row of
Dask needs the extra ``dask``, and is left out without it.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from _shared import HERE, headline, versions

LINES = 2000
"""Lines of the log of a run: 100 kB, which take some milliseconds to parse in Python."""
ROWS = 1000
"""Rows of a part."""
X_TABLE = 1.5
"""Bound: writing in parts, as a multiple of the time of the whole table at once."""
MIB_ABOVE_TABLE = 0.0
"""Bound: memory of writing in parts above that of the whole table."""
X_WORKERS = 0.8
"""
Bound for two workers, without their start, as a multiple of the time of one process. The server shares their two cores.
"""
TABLES = ("open_only", "whole_table", "in_parts")
OUTPUTS = ("one_process", "process_pool", "dask_workers")

Result = dict[str, Any]


@contextmanager
def serving(runs: int) -> Iterator[Result]:
    """Run the server of ``_tables_server.py`` in its own process, and yield what it printed."""
    command = [sys.executable, str(HERE / "_tables_server.py"), str(runs), str(LINES)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield json.loads(process.stdout.readline())
        finally:
            process.stdin.close()


def ask(client: str, **task: object) -> Result:
    """Run a client of ``_tables_clients.py`` in its own process, and return what it measured."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        file = Path(folder, "task.json")
        file.write_text(json.dumps({"folder": folder, **task}))
        command = [sys.executable, str(HERE / "_tables_clients.py"), client, str(file)]
        result: Result = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
        return result


class Report:
    """The results, printed and saved as JSON."""

    def __init__(self) -> None:
        self.result: Result = {"rows": {}, "bars": []}

    def line(self, text: str) -> None:
        """Print a line."""
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()

    def show(self, name: str, results: Sequence[Result]) -> Result:
        """Print and save repeated measurements, and return them combined."""
        seconds = [one["seconds"] for one in results]
        row = {
            "repeats": len(results),
            "median_s": statistics.median(seconds),
            "minimum_s": min(seconds),
            "cpu_s": min(one["cpu_s"] for one in results),
            "peak_mib": max(one["peak_mib"] for one in results),
            "again_s": statistics.median(one.get("again_s", 0.0) for one in results),
            "workers_mib": max(one.get("workers_mib", 0.0) for one in results),
            "computing_s": min(one["computing_s"] for one in results),
        }
        self.result["rows"][name] = row
        worker = f"{row['workers_mib']:.0f}" if row["workers_mib"] else "-"
        self.line(
            f"{name:<14} {row['repeats']:>7} {row['median_s']:>9.2f} {row['minimum_s']:>7.2f}"
            f" {row['computing_s']:>12.2f} {row['cpu_s']:>7.2f} {row['peak_mib']:>9.0f} {worker:>15}"
        )
        return row

    def bar(self, what: str, value: float, most: float) -> None:
        """Print whether a bound is met."""
        is_met = value <= most
        self.result["bars"].append({"what": what, "value": value, "most": most, "is_met": is_met})
        self.line(f"bar: {what}: {value:.4g}, at most {most:.4g}: {'met' if is_met else 'MISSED'}")


def compare(report: Report, names: Sequence[str], repeats: int, rows: int, task: Result) -> dict[str, Result]:
    """Measure clients alternately, after checking that they had the same rows."""
    report.line("client         repeats  median s   min s  computing s   CPU s  peak MiB  a worker's MiB")
    seen: dict[str, list[Result]] = {name: [] for name in names}
    for _ in range(repeats):
        for name, results in seen.items():
            results.append(ask(name, **task))
            if name != "open_only" and results[-1]["rows"] != rows:
                raise RuntimeError(f"{name} had {results[-1]['rows']} rows, not {rows}")
    return {name: report.show(name, results) for name, results in seen.items()}


def measure_tables(report: Report, runs: int, repeats: int, task: Result) -> None:
    """Properties to Parquet."""
    report.line(f"\nproperties of {runs} runs, two rows each, to Parquet; parts of {ROWS} rows")
    ask("write_journal", **task)
    rows = compare(report, TABLES, repeats, 2 * runs, task)
    whole, parts = rows["whole_table"], rows["in_parts"]
    report.line(f"the same again, which changes nothing: {parts['again_s']:.2f} s")
    report.bar("x the time of the whole table, by minima", parts["minimum_s"] / whole["minimum_s"], X_TABLE)
    report.bar("MiB above the whole table", parts["peak_mib"] - whole["peak_mib"], MIB_ABOVE_TABLE)


def measure_outputs(report: Report, runs: int, repeats: int, task: Result) -> None:
    """Outputs to a table."""
    report.line(f"\nlogs of {runs} runs with {LINES} lines each, parsed in Python")
    names = [name for name in OUTPUTS if name != "dask_workers" or importlib.util.find_spec("distributed")]
    ask("one_process", **task)  # the server writes files when they are requested first
    rows = compare(report, names, repeats, runs * LINES, task)
    for name in names[1:]:
        value = rows[name]["computing_s"] / rows["one_process"]["minimum_s"]
        report.bar(f"x the time of one process, {name}, by minima, without the start of Dask", value, X_WORKERS)
    if "dask_workers" not in names:
        report.line("Dask is not installed: its row is left out")


def main() -> None:
    """Measure everything, and print it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[1])
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    packages = ["st4sd_async", "pandas", "pyarrow", *(["dask"] if importlib.util.find_spec("dask") else [])]
    used = versions(*packages)
    headline(used, f"{options.runs} runs")
    report = Report()
    report.result["versions"] = used
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, serving(options.runs) as served:
        key_file = Path(folder, "key")
        key_file.write_text(served["key"])
        task = {**served, "key_file": str(key_file), "journal": str(Path(folder, "campaign.db")), "rows": ROWS}
        measure_tables(report, options.runs, options.repeats, task)
        measure_outputs(report, options.runs, options.repeats, task)
    if options.json:
        options.json.write_text(json.dumps(report.result, indent=1))


if __name__ == "__main__":
    main()
