"""
The cost of an import: `import st4sd_async` against `import experiment.service.db`, each in new processes.

    python benchmarks/bench_import.py [--repeats 7] [--json FILE]

Both are compiled beforehand, as pip does. A source tree would be compiled at each import if
``PYTHONDONTWRITEBYTECODE`` is set.
"""

from __future__ import annotations

import argparse
import compileall
import json
import os
import platform
import statistics
import subprocess
import sys
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

RIVAL, OURS = "experiment.service.db", "st4sd_async"
UNWANTED = ("pandas", "rich", "typer", "starlette", "uvicorn")

PROBE = """
import json, resource, sys, time
began = time.perf_counter()
import {module}
took = time.perf_counter() - began
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps([took, peak, [name for name in {unwanted!r} if name in sys.modules]]))
"""


def probe(module: str) -> tuple[float, float, list[str]]:
    """Return the seconds, the peak memory in MB, and the unwanted packages of one import in a new process."""
    code = PROBE.format(module=module, unwanted=UNWANTED)
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    took, peak, unwanted = json.loads(done.stdout)
    return took, peak, unwanted


def compile_ours() -> None:
    """Compile the modules of this package, which may be a source tree; pip has compiled the rival's."""
    spec = find_spec(OURS)
    for folder in (spec and spec.submodule_search_locations) or ():
        compileall.compile_dir(folder, quiet=1)


def main() -> None:
    """Measure both alternately, and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[1])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    compile_ours()
    seen: dict[str, list[tuple[float, float, list[str]]]] = {RIVAL: [], OURS: []}
    for _ in range(options.repeats):
        for module, probes in seen.items():
            probes.append(probe(module))
    result: dict[str, Any] = {
        module: {
            "median_s": statistics.median(one[0] for one in probes),
            "minimum_s": min(one[0] for one in probes),
            "peak_mb": statistics.median(one[1] for one in probes),
        }
        for module, probes in seen.items()
    }
    versions = {name: metadata.version(name) for name in ("st4sd_async", "st4sd-runtime-core")}
    sys.stdout.write(
        f"Python {platform.python_version()}, {os.cpu_count()} cores, {versions}, {options.repeats} runs\n"
    )
    for module, row in result.items():
        sys.stdout.write(
            f"{module:<22} median {row['median_s']:.3f} s  min {row['minimum_s']:.3f} s  {row['peak_mb']:.0f} MB\n"
        )
    time_ratio = result[OURS]["median_s"] / result[RIVAL]["median_s"]
    memory_ratio = result[OURS]["peak_mb"] / result[RIVAL]["peak_mb"]
    sys.stdout.write(f"ratio: {time_ratio:.2f} x the time, {memory_ratio:.2f} x the memory\n")
    sys.stdout.write(f"of {', '.join(UNWANTED)} it imports: {seen[OURS][0][2] or 'none'}\n")
    if options.json:
        options.json.write_text(json.dumps({"versions": versions, **result}, indent=1))


if __name__ == "__main__":
    main()
