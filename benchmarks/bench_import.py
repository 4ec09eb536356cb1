"""
The cost of an import: `from st4sd_async import Client`, the incumbent's, and what of pydantic and anyio every client of
this kind needs. Each import runs in new processes, in turns.

    python benchmarks/bench_import.py [--repeats 7] [--json FILE]

All are compiled beforehand, as pip does. A source tree would be compiled at each import if ``PYTHONDONTWRITEBYTECODE``
is set.
"""

from __future__ import annotations

import argparse
import compileall
import json
import statistics
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from _shared import headline, versions

RIVAL, OURS, SYNC, FLOOR = "experiment.service.db", "st4sd_async", "st4sd_async.sync", "pydantic and anyio"
STATEMENTS = {
    RIVAL: f"import {RIVAL}",
    OURS: f"from {OURS} import Client",
    SYNC: f"from {SYNC} import Client",
    FLOOR: "import pydantic, anyio; pydantic.BaseModel, pydantic.TypeAdapter",
}
MOST_OF_FLOOR, MOST_OF_RIVAL, MOST_MEMORY = 2.2, 0.25, 0.4
"""Bounds: CPU beside that of the floor, and of the rival; memory beside the rival's."""
UNWANTED = ("pandas", "rich", "typer", "starlette", "uvicorn")

PROBE = """
import json, resource, sys, time
began, cpu = time.perf_counter(), time.process_time()
{statement}
took, cpu = time.perf_counter() - began, time.process_time() - cpu
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps([took, cpu, peak, [name for name in {unwanted!r} if name in sys.modules]]))
"""


class Probe(NamedTuple):
    """One import in a new process."""

    wall_s: float
    cpu_s: float
    """CPU seconds of the statement, without the start of Python."""
    peak_mb: float
    unwanted: list[str]
    """Packages that it imported in vain."""


def probe(module: str) -> Probe:
    """Measure one import in a new process."""
    code = PROBE.format(statement=STATEMENTS[module], unwanted=UNWANTED)
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return Probe(*json.loads(done.stdout))


def compile_ours() -> None:
    """Compile the modules of this package, which may be a source tree; pip has compiled the rival's."""
    spec = find_spec(OURS)
    for folder in (spec and spec.submodule_search_locations) or ():
        compileall.compile_dir(folder, quiet=1)


def _ratio(result: dict[str, Any], module: str, other: str) -> float:
    """Return the CPU of an import beside another's, by minima."""
    return float(result[module]["minimum_cpu_s"] / result[other]["minimum_cpu_s"])


def main() -> None:
    """Measure all alternately, and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[1])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    compile_ours()
    seen: dict[str, list[Probe]] = {module: [] for module in STATEMENTS}
    for _ in range(options.repeats):
        for module, probes in seen.items():
            probes.append(probe(module))
    result: dict[str, Any] = {
        module: {
            "median_s": statistics.median(one.wall_s for one in probes),
            "minimum_s": min(one.wall_s for one in probes),
            "median_cpu_s": statistics.median(one.cpu_s for one in probes),
            "minimum_cpu_s": min(one.cpu_s for one in probes),
            "peak_mb": statistics.median(one.peak_mb for one in probes),
        }
        for module, probes in seen.items()
    }
    used = versions("st4sd_async", "st4sd-runtime-core", "pydantic", "anyio")
    headline(used, f"{options.repeats} runs")
    sys.stdout.write(f"{'import':<22} median s  min s  CPU s  min s   MB  CPU x {FLOOR}\n")
    for module, row in result.items():
        sys.stdout.write(
            f"{module:<22} {row['median_s']:>8.3f} {row['minimum_s']:>6.3f} {row['median_cpu_s']:>6.3f}"
            f" {row['minimum_cpu_s']:>6.3f} {row['peak_mb']:>4.0f} {_ratio(result, module, FLOOR):>6.2f}\n"
        )
    memory = result[OURS]["peak_mb"] / result[RIVAL]["peak_mb"]
    for what, value, most in (
        (f"CPU x {FLOOR}", _ratio(result, OURS, FLOOR), MOST_OF_FLOOR),
        (f"CPU x {RIVAL}", _ratio(result, OURS, RIVAL), MOST_OF_RIVAL),
        (f"memory x {RIVAL}", memory, MOST_MEMORY),
    ):
        sys.stdout.write(f"bar: {what}: {value:.2f}, at most {most:g}: {'met' if value <= most else 'MISSED'}\n")
    sys.stdout.write(f"of {', '.join(UNWANTED)} it imports: {', '.join(seen[OURS][0].unwanted) or 'none'}\n")
    if options.json:
        options.json.write_text(json.dumps({"versions": used, **result}, indent=1))


if __name__ == "__main__":
    main()
