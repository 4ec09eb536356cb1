"""
Scale: what many instances, many launches and a failing service cost.

    python benchmarks/bench_scale.py [--rows doubt lists ...] [--json FILE]

Each row has its bound. The service and each client run in processes of their own. The memory of a process is measured
on Linux only. All rows together take less than ten minutes.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from _shared import HERE, headline, versions

Result = dict[str, Any]

REPEATS = 2
PATIENCE = 300.0
"""Seconds after which a client is ended, and its row is missed."""
MINUTE, HOUR = 60.0, 3600.0
RUNS = 10_000
"""Runs watched, where many are."""
WATCHED = 222
"""Runs watched on a service with many old ones."""
LIMIT = 3000
"""Requests after which their rate is known."""
ITEM_BYTES = 4000
"""Length of an item of the list: 100,000 are 400 MB."""
BAD_LISTS = ["ok", "504", "html", "broken"]

X_DOUBT = 1.2
X_REQUESTS = 2.0
MIB_ABOVE_WATCHED, STALL_SECONDS = 64.0, 0.1
X_SETTLE = 1.1
REQUESTS_A_SECOND = 5.0
"""To a service that is down, while runs join."""
HOURS_TO_FIND = 4.0
X_PAUSE = 12.0
"""A pause is ten times what the list took the service."""
X_SERVER, MIB_LAUNCHES = 1.3, 120.0
IN_FLIGHT = 64
"""Starts in flight of aiohttp, as many as a batch has at most."""
START_SECONDS = 0.01
"""What a start costs the real service, which handles about 100 in a second."""
INPUTS, X_PROCESS = 200, 0.5
JOURNAL, X_FETCH, MIB_JOURNAL = 1_000_000, 4.0, 1024.0
"""Launches of a journal; bounds for its opening."""


class Report:
    """The results, printed and saved as JSON."""

    def __init__(self) -> None:
        self.result: Result = {"rows": {}, "bars": []}

    def line(self, text: str) -> None:
        """Print a line."""
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()

    def keep(self, key: str, value: Result) -> Result:
        """Save a measurement."""
        self.result["rows"][key] = value
        return value

    def bar(self, what: str, value: float | None, most: float) -> None:
        """Print whether a bound is met; None means that the value is too large to be measured."""
        is_met = value is not None and value <= most
        self.result["bars"].append({"what": what, "value": value, "most": most, "is_met": is_met})
        shown = "never" if value is None else f"{value:.4g}"
        self.line(f"{what}: {shown}, at most {most:.4g}: {'ok' if is_met else 'MISSED'}")


@contextmanager
def serving(**options: object) -> Iterator[str]:
    """Run the service of ``_scale_server.py`` in its own process, and yield its url."""
    command = [sys.executable, str(HERE / "_scale_server.py"), json.dumps(options)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.terminate()


def ask(client: str, **task: object) -> Result:
    """
    Run a client of ``_scale_clients.py`` in its own process, and return what it measured.

    Raises:
        subprocess.TimeoutExpired: It takes longer than `PATIENCE`.
    """
    command = [sys.executable, str(HERE / "_scale_clients.py"), client, json.dumps(task)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=PATIENCE)
    result: Result = json.loads(done.stdout)
    return result


def measure_doubt(report: Report) -> None:
    """One start in doubt: the CPU of the others."""
    seconds: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(REPEATS):
        for has_doubt, values in seconds.items():
            with serving(dropped=10 if has_doubt else -1) as url:
                row = ask("doubt", url=url, launches=RUNS, first=50, starts=300)
            if row["in_doubt"] != has_doubt:
                raise RuntimeError(f"{row['in_doubt']} launches are in doubt")
            values.append(row["cpu_s"])
    without, with_doubt = (min(values) for values in seconds.values())
    report.keep("doubt", {"without_s": without, "with_s": with_doubt})
    report.line(f"one start in doubt: {1000 * with_doubt:.2f} ms of CPU a start, without {1000 * without:.2f} ms")
    report.bar("one start in doubt, CPU a start, x without", with_doubt / without, X_DOUBT)


def measure_lists(report: Report) -> None:
    """Bad lists: requests a minute beside those to a healthy service."""
    seconds = 30 * MINUTE
    rates = {}
    for name, lists in (("healthy", ["ok"]), ("three", [*BAD_LISTS, "ok"]), ("always", ["ok", "504"])):
        with serving(runs=RUNS, lists=lists) as url:
            requests = ask("quiet", url=url, runs=RUNS, seconds=seconds, limit=LIMIT)["requests"]
        first = next(at for at, kind in requests if kind == "list")
        last = requests[-1][0] if len(requests) >= LIMIT else seconds
        rates[name] = sum(at > first for at, _ in requests) / (last - first) * MINUTE
    report.keep("lists", rates)
    report.line(
        f"bad lists of {RUNS} runs: {rates['healthy']:.1f} requests a minute with a healthy service,"
        f" {rates['three']:.1f} with three bad lists, {rates['always']:.1f} with bad lists only"
    )
    report.bar("three bad lists in a row, requests a minute, x healthy", rates["three"] / rates["healthy"], X_REQUESTS)
    report.bar("bad lists only, requests a minute, x healthy", rates["always"] / rates["healthy"], X_REQUESTS)


def measure_old(report: Report) -> None:
    """Many old instances: memory and stalls of the event loop."""
    base = _old(0)
    for count in (10_000, 100_000):
        row = report.keep(f"old {count}", _old(count))
        report.line(
            f"{WATCHED} runs among {count} old ones, MiB above import (without old ones): at most"
            f" {row['peak_mib']:.1f} ({base['peak_mib']:.1f}), not watched {row['unwatched_mib']:.1f}"
            f" ({base['unwatched_mib']:.1f}), closed {row['closed_mib']:.1f} ({base['closed_mib']:.1f})"
        )
        for what in ("peak", "unwatched", "closed"):
            above = row[f"{what}_mib"] - base[f"{what}_mib"]
            report.bar(f"{count} old instances, MiB above what is watched, {what}", above, MIB_ABOVE_WATCHED)
        report.bar(f"{count} old instances, longest stall of the loop, s", row["stall_s"], STALL_SECONDS)


def _old(count: int) -> Result:
    with serving(old=count, runs=WATCHED, item_bytes=ITEM_BYTES) as url:
        return ask("old", url=url, runs=WATCHED, lists=1 if count > 10_000 else 2, rest=2)


def measure_never(report: Report) -> None:
    """A list that never comes: when a new batch begins."""
    with serving(lists=["504"]) as url:
        row = report.keep("never", ask("never", url=url, factor=25, windows=2))
    report.bar("a list that never comes, s until a batch begins", row["seconds"], X_SETTLE * row["settle"])


def measure_outage(report: Report) -> None:
    """An outage while runs join: requests to the dead service."""
    with serving(runs=RUNS) as url:
        row = report.keep("outage", ask("outage", url=url, runs=100, joining=20, seconds=20))
    report.bar("outage while 20 runs a second join, requests a second", row["requests_s"], REQUESTS_A_SECOND)


def measure_killed(report: Report) -> None:
    """Killed orchestrators among quiet runs: when all runs were requested once."""
    seconds = 2 * HOUR
    with serving(runs=RUNS) as url:
        requests = ask("quiet", url=url, runs=RUNS, seconds=seconds, limit=10 * LIMIT)["requests"]
        looked = int(_tally(url)["looked"])
    seconds = min(seconds, requests[-1][0])  # it ends early at the limit
    hours = RUNS / looked * seconds / HOUR if looked < RUNS else seconds / HOUR
    minute = len(requests) / seconds * MINUTE
    report.keep("killed", {"hours": hours, "looked": looked, "requests_a_minute": minute})
    report.line(f"{RUNS} quiet runs: {looked} requested in {seconds / HOUR:.0f} h, {minute:.1f} requests a minute")
    report.bar(f"killed orchestrators among {RUNS} quiet runs, h until all are found", hours, HOURS_TO_FIND)


def _tally(url: str) -> Result:
    import urllib.request

    with urllib.request.urlopen(f"{url}/tally") as reply:
        result: Result = json.load(reply)
        return result


def measure_pause(report: Report) -> None:
    """The pause after a list: ten times the service's time, not the client's."""
    runs, delay = 1000, 1.0
    with serving(runs=runs, item_bytes=ITEM_BYTES, list_delay=delay, is_changing=True) as url:
        row = report.keep("pause", ask("pause", url=url, runs=runs, lists=4, toil=0.02))
    report.bar("pause after a list, x what it took the service", min(row["pauses_s"]) / delay, X_PAUSE)


def measure_many(report: Report) -> None:
    """Many launches: time and memory."""
    with serving(ends_at_once=True) as url:
        row = report.keep("many", ask("many", url=url, launches=RUNS))
    with serving(ends_at_once=True) as url:
        bare = report.keep("bare", ask("bare", url=url, counts=row["counts"], in_flight=IN_FLIGHT))
    report.line(
        f"{RUNS} launches run: {row['seconds']:.1f} s, client CPU {row['cpu_s']:.1f} s, server CPU"
        f" {row['server_s']:.1f} s, requests {row['counts']}; the same requests by aiohttp: {bare['seconds']:.1f} s,"
        f" CPU {bare['cpu_s']:.1f} s; the starts alone at the real service: about {RUNS * START_SECONDS:.0f} s (est.)"
    )
    report.bar(f"{RUNS} launches run, x the server's own time", row["seconds"] / bare["seconds"], X_SERVER)
    report.bar(f"{RUNS} launches run, MiB above import", row["above_import_mib"], MIB_LAUNCHES)


def measure_inputs(report: Report) -> None:
    """Distinct inputs on the simulator: its processes."""
    one, row = (report.keep(f"inputs {runs}", ask("inputs", runs=runs, seconds=15)) for runs in (1, INPUTS))
    share = row["runs"] / INPUTS
    seconds, spent = row["seconds"] / share, row["cpu_s"] / share
    report.line(
        f"{INPUTS} distinct inputs on the simulator: {seconds:.1f} s, {spent:.1f} s of CPU in processes;"
        f" one {one['cpu_s']:.2f} s"
    )
    value = spent / INPUTS / one["cpu_s"]
    report.bar(f"{INPUTS} distinct inputs on the simulator, CPU of each, x one alone", value, X_PROCESS)


def measure_journal(report: Report) -> None:
    """A large journal: memory and CPU of its opening, beside those of reading all of its rows."""
    with TemporaryDirectory(prefix="bench-") as folder:
        task = {"journal": f"{folder}/campaign.db", "launches": JOURNAL}
        ask("write_journal", **task)
        opened, fetched = (
            [ask(client, **task) for _ in range(REPEATS)] for client in ("open_journal", "fetch_journal")
        )
    cpu, bare = (min(row["cpu_s"] for row in rows) for rows in (opened, fetched))
    peak = max(row["peak_mib"] for row in opened)
    report.keep("journal", {"open_s": cpu, "fetch_s": bare, "peak_mib": peak})
    report.line(f"a journal of {JOURNAL} launches: {cpu:.1f} s of CPU to open it, {bare:.1f} s to fetch its rows")
    report.bar(f"opening a journal of {JOURNAL} launches, CPU, x a bare fetchall of its tables", cpu / bare, X_FETCH)
    report.bar(f"opening a journal of {JOURNAL} launches, peak MiB", peak, MIB_JOURNAL)


ROWS: dict[str, Callable[[Report], None]] = {
    "doubt": measure_doubt,
    "lists": measure_lists,
    "old": measure_old,
    "never": measure_never,
    "outage": measure_outage,
    "killed": measure_killed,
    "pause": measure_pause,
    "many": measure_many,
    "inputs": measure_inputs,
    "journal": measure_journal,
}


def main() -> None:
    """Measure the rows, and print them."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[1])
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS), metavar="ROW", help=", ".join(ROWS))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    used = versions("aiohttp", "httpx", "st4sd_async")
    headline(used, f"rows {' '.join(options.rows)}")
    report = Report()
    report.result["versions"] = used
    for row in options.rows:
        try:
            ROWS[row](report)
        except subprocess.TimeoutExpired:
            report.bar(f"{row}, s until a client has ended", None, PATIENCE)
    if options.json:
        options.json.write_text(json.dumps(report.result, indent=1))


if __name__ == "__main__":
    main()
