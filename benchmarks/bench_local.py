"""
What the embedded server costs: opening it, and the processor time of its requests, with and without reading a package.

    python benchmarks/bench_local.py [--requests 1000] [--repeats 5] [--json FILE]

The floor of a request is an application on the same listener that always sends the same 1.8 KB. Servers run in their
own processes; the processor time is that of the whole process, not only of the handlers. Each opening is measured in a
new process.
"""

from __future__ import annotations

import argparse
import http.client
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from _shared import HERE, headline, versions

RUNS = 10
"""Runs in the list of instances."""
SECOND_OPENING_BAR, REQUEST_BAR = 2.0, 1.0
"""Milliseconds of a second opening, and of processor time of a status; each is twice what was promised."""

OPENING = """
import json, statistics, time
now = time.perf_counter
began = now()
from st4sd_async.local import LocalServer
imported = now()
with LocalServer(speed=0):
    opened = now()
closed = now()
seconds = []
for _ in range(20):
    again = now()
    with LocalServer(speed=0):
        seconds.append(now() - again)
print(json.dumps([imported - began, opened - imported, closed - opened, statistics.median(seconds)]))
"""
OPENING_PARTS = ("import", "first opening", "first closing", "second opening")


class Server:
    """A server in another process, and one connection to it."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        facts = json.loads(self._line())
        self.run: str = facts["run"]
        self.start: dict[str, Any] = facts["start"]
        self.push_seconds: float = facts["push"]
        self._headers = {"Authorization": f"Bearer {facts['key']}", "Content-Type": "application/json"}
        self._connection = http.client.HTTPConnection(urlsplit(facts["url"]).netloc, timeout=60)

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()

    def cpu(self) -> float:
        """Return the seconds of processor time that the process has used."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return float(self._line())

    def request(self, method: str, path: str) -> None:
        """Send a request, with the payload of a start if it is a POST, and read the response."""
        body = json.dumps(self.start) if method == "POST" else None
        self._connection.request(method, path.format(run=self.run), body, self._headers)
        response = self._connection.getresponse()
        content = response.read()
        assert response.status == 200, content


Request = tuple[str, str, str]
REQUESTS: Sequence[Request] = (
    ("status", "GET", "/rs/instances/{run}/status"),
    ("instance", "GET", "/rs/instances/{run}"),
    (f"list of {RUNS}", "GET", "/rs/instances/"),
    ("start", "POST", "/rs/experiments/demo/start"),
)


@contextmanager
def serving(*arguments: object) -> Iterator[Server]:
    """Run a server of ``_local_server.py`` in its own process."""
    command = [sys.executable, str(HERE / "_local_server.py"), *map(str, arguments)]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as process:
        try:
            yield Server(process)
        finally:
            if process.stdin is not None:
                process.stdin.close()


def measure(server: Server, request: Request, count: int) -> tuple[float, float]:
    """Return the milliseconds of processor time and of wall time of one request."""
    _, method, path = request
    for _ in range(20):
        server.request(method, path)
    cpu, began = server.cpu(), time.perf_counter()
    for _ in range(count):
        server.request(method, path)
    wall = time.perf_counter() - began
    return (server.cpu() - cpu) / count * 1000, wall / count * 1000


def package(folder: Path) -> Path:
    """Create a git repository with the package of the example "demo", which the server does not recognise."""
    spec = find_spec("st4sd_async.local.examples")
    assert spec is not None
    assert spec.origin is not None
    repository = folder / "molecules"
    shutil.copytree(Path(spec.origin).parent / "demo", repository)
    identity = ["-c", "user.name=benchmark", "-c", "user.email=benchmark@example.com"]
    for arguments in (["init", "-q", "-b", "main"], ["add", "."], [*identity, "commit", "-q", "-m", "package"]):
        subprocess.run(["git", *arguments], cwd=repository, check=True)
    return repository


def openings(repeats: int) -> dict[str, list[float]]:
    """Return the milliseconds of each part of opening, once per new process."""
    rows = []
    for _ in range(repeats):
        done = subprocess.run([sys.executable, "-c", OPENING], check=True, capture_output=True, text=True)
        rows.append(json.loads(done.stdout))
    return {name: [row[index] * 1000 for row in rows] for index, name in enumerate(OPENING_PARTS)}


def requests(repeats: int, count: int, folder: Path) -> tuple[dict[str, list[tuple[float, float]]], dict[str, Any]]:
    """Return the milliseconds of processor and wall time of each kind of request, and those of the first push."""
    rows: dict[str, list[tuple[float, float]]] = {}
    pushes: dict[str, list[float]] = {}
    servers = {"bare": ("bare",), "example": ("embedded", RUNS), "package": ("embedded", RUNS, folder)}
    for _ in range(repeats):
        for name, arguments in servers.items():
            with serving(*arguments) as server:
                for request in REQUESTS[:1] if name == "bare" else REQUESTS:
                    rows.setdefault(f"{name}, {request[0]}", []).append(measure(server, request, count))
                if name != "bare":
                    pushes.setdefault(f"{name}, first push", []).append(server.push_seconds * 1000)
    return rows, pushes


def table(title: str, rows: dict[str, list[float]]) -> None:
    """Print the median and minimum of each row."""
    sys.stdout.write(f"\n{title:<26}   median     min\n")
    for name, values in rows.items():
        sys.stdout.write(f"{name:<26}{statistics.median(values):>9.3f}{min(values):>8.3f}\n")


def bar(what: str, value: float, limit: float) -> None:
    """Print whether a figure is within its bound."""
    sys.stdout.write(f"bar: {what}: {value:.3f}, at most {limit:g}: {'met' if value <= limit else 'MISSED'}\n")


def main() -> None:
    """Measure openings, then requests, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[1])
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    headline(versions("st4sd_async", "starlette", "uvicorn"), f"{options.repeats} repeats")

    opened = openings(options.repeats)
    table("opening a server, ms", opened)
    bar("ms of a second opening", statistics.median(opened["second opening"]), SECOND_OPENING_BAR)
    with tempfile.TemporaryDirectory() as scratch:
        measured, pushes = requests(options.repeats, options.requests, package(Path(scratch)))
    cpus = {name: [cpu for cpu, _ in pairs] for name, pairs in measured.items()}
    table("a request, ms of CPU", cpus)
    table("a request, ms", {name: [wall for _, wall in pairs] for name, pairs in measured.items()})
    table("reading a package, ms", pushes)
    bar("ms of CPU of a status", statistics.median(cpus["example, status"]), REQUEST_BAR)
    if options.json:
        options.json.write_text(json.dumps({"opening": opened, "requests": measured, "pushes": pushes}, indent=1))


if __name__ == "__main__":
    main()
