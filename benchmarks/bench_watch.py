"""
Watching many runs: the cost for the service and the client, and the delay until a change is noticed.

    python benchmarks/bench_watch.py [--rounds 50] [--repeats 3] [--json FILE]

The embedded server counts requests, bytes and the CPU seconds of its handlers. The rival is the documented loop: the
incumbent requests one run after the other, sleeps, and repeats until all are over.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path

from _shared import headline, versions
from _watching import CHANGES, GROUP, INTERVAL, LISTED, OLD, PAUSE, Result, cost, cpu, few, notice

CROWDS = {1000: 3, 10_000: 1}
"""Number of runs -> rounds of the incumbent, which all cost the same."""
APART = 1000
"""Number of runs that are also watched by a task each."""
FEW = (3, 6)
SHARES = (0.1, 0.0, 1.0)
"""Share of a list that differs from the list before."""
CPU_ROUNDS = 30
X_LOADS, X_LOADS_ALL = {True: 0.8, False: 0.8}, {True: 0.7, False: 1.55}
"""
Bounds for the CPU of a round as a multiple of `json.loads`, by whether the garbage collector is on; and if all runs
have changed.
"""
DELAYS = (0.0, 0.05)
"""Seconds that each response is delayed, when the time to notice is measured."""


class Report:
    """The results, printed and saved as JSON."""

    def __init__(self) -> None:
        self.result: Result = {"bars": []}

    def line(self, text: str) -> None:
        """Print a line."""
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()

    def keep(self, section: str, key: str, value: Result) -> Result:
        """Save a measurement."""
        self.result.setdefault(section, {})[key] = value
        return value

    def bar(self, what: str, value: float, most: float) -> None:
        """Print whether a bound is met."""
        is_met = value <= most
        self.result["bars"].append({"what": what, "value": value, "most": most, "is_met": is_met})
        self.line(f"bar: {what}: {value:.4g}, at most {most:.4g}: {'met' if is_met else 'MISSED'}")


def compare_costs(report: Report, rounds: int) -> None:
    """Measure the service's cost of watching 1,000 and 10,000 runs."""
    report.line(
        f"\ncost of a round; {PAUSE / GROUP:.0%} of the runs change in each; pauses of {PAUSE:.0f} s that take none"
    )
    report.line("  runs  client       rounds  statuses  lists  details     MB  server s  real service s (est.)")
    cells = [(count, "watch_many", rounds) for count in CROWDS]
    cells += [(APART, "watch apart", rounds), *((count, "incumbent", loops) for count, loops in CROWDS.items())]
    rows = {}
    for count, who, its_rounds in sorted(cells, key=lambda cell: cell[0]):
        row = rows[count, who] = report.keep("cost", f"{count} {who}", cost(who, count, its_rounds))
        low, high = row["service_s"]
        report.line(
            f"{count:>6}  {who:<11} {its_rounds:>7} {row['statuses'] or '-':>9} {row['lists']:>6.2f}"
            f" {row['details']:>8.2f} {row['mb']:>6.2f} {row['server_s']:>9.3f} {low:>8.2f} - {high:.2f}"
        )
    for count in CROWDS:
        report.bar(f"lists a round, {count} runs", rows[count, "watch_many"]["lists"], 1.1)
        report.bar(f"details a round, {count} runs", rows[count, "watch_many"]["details"], count / 100)
    together, apart = (rows[APART, who]["requests"] for who in ("watch_many", "watch apart"))
    report.bar(f"requests of {APART} tasks, beside the {together} of one", abs(apart - together), 3)


def compare_few(report: Report, rounds: int) -> None:
    """Measure watching few runs among many old ones."""
    report.line(f"\nfew runs watched for {rounds} rounds on a service that lists {OLD}")
    result = few(FEW, rounds)
    for count in FEW:
        row = report.keep("few", str(count), result[str(count)])
        lists = round(row["lists"] * rounds)
        report.line(f"{count} runs: {lists} lists, {row['details']:.2f} details a round")
        report.bar(f"lists after the first, {count} runs", max(0, lists - 1), 0)
    took = report.keep("few", "list", result["list"])
    low, high = took["service_s"]
    report.line(f"one list there: median {took['median_s']:.2f} s, min {took['minimum_s']:.2f} s")
    report.line(f"at the real service: about {low:.0f} - {high:.0f} s")


def compare_cpu(report: Report) -> None:
    """Measure the client's cost of watching 1,000 runs."""
    report.line(
        f"\nclient CPU of a round, {LISTED} runs of 5 KB, beside json.loads of the same list; {CPU_ROUNDS} rounds"
    )
    report.line("changed  collector   ours ms   min  json.loads ms   min  x median  x min")
    rows = {}
    for is_on in (True, False):
        for share in SHARES:
            key = f"{share:.0%} changed, garbage collector {'on' if is_on else 'off'}"
            row = rows[key] = report.keep("cpu", key, cpu(share, CPU_ROUNDS, collects=is_on))
            report.line(
                f"{share:>7.0%}  {'on' if is_on else 'off':<9} {1000 * row['median_s']:>9.1f}"
                f" {1000 * row['minimum_s']:>5.1f} {1000 * row['loads_median_s']:>14.1f}"
                f" {1000 * row['loads_minimum_s']:>5.1f} {row['x_median']:>9.2f} {row['x_minimum']:>6.2f}"
            )
            row["most"] = (X_LOADS_ALL if share == 1 else X_LOADS)[is_on]
    for key, row in rows.items():
        report.bar(f"CPU x json.loads, {key}", row["x_median"], row["most"])


def compare_notices(report: Report, repeats: int) -> None:
    """Measure the delay until a change is noticed."""
    report.line(
        f"\ntime to notice {repeats * CHANGES} changes, each of another of {CHANGES} runs; interval {INTERVAL} s"
    )
    report.line(
        "answers after  client       median s  max s  interval s  longest s  list s  requests/s   MB/s  server s/s"
    )
    for delay in DELAYS:
        for who in ("st4sd_async", "incumbent"):
            row = report.keep("notice", f"{who} {delay}", _pooled([notice(who, delay) for _ in range(repeats)]))
            report.line(
                f"{1000 * delay:>10.0f} ms  {who:<11} {row['median_s']:>9.3f} {row['maximum_s']:>6.3f}"
                f" {row['interval_s']:>11.3f} {row['longest_s']:>10.3f} {row['list_s']:>7.3f}"
                f" {row['requests']:>11.1f} {row['mb']:>6.2f} {row['server_s']:>11.4f}"
            )
    for delay in DELAYS:
        row = report.result["notice"][f"st4sd_async {delay}"]
        what = f"longest time to notice, answers after {1000 * delay:.0f} ms, beside the longest interval and a list"
        report.bar(what, row["maximum_s"], row["longest_s"] + row["list_s"])


def _pooled(cells: list[Result]) -> Result:
    """Combine all repeats; costs are per second."""
    noticed = [seconds for cell in cells for seconds in cell["noticed_s"]]
    intervals = [
        pause + took for cell in cells for pause, took in zip(cell["pauses_s"], cell["rounds_s"], strict=False)
    ]
    seconds = sum(cell["seconds"] for cell in cells)
    return {
        "median_s": statistics.median(noticed),
        "maximum_s": max(noticed),
        "interval_s": statistics.median(intervals),
        "longest_s": max(intervals),
        "list_s": statistics.median(cell["list_s"] for cell in cells),
        **{key: sum(cell[key] for cell in cells) / seconds for key in ("requests", "mb", "server_s")},
    }


def main() -> None:
    """Measure everything, and print it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[1])
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    used = versions("aiohttp", "httpx", "st4sd_async", "st4sd-runtime-core")
    headline(used, f"{options.rounds} rounds")
    report = Report()
    report.result["versions"] = used
    compare_costs(report, options.rounds)
    compare_few(report, options.rounds)
    compare_cpu(report)
    compare_notices(report, options.repeats)
    if options.json:
        options.json.write_text(json.dumps(report.result, indent=1))


if __name__ == "__main__":
    main()
