"""
Status calls: raw aiohttp, plain httpx, the incumbent, `st4sd_async` and its blocking client, in one run.

    python benchmarks/bench_requests.py [--calls 1000] [--repeats 3] [--json FILE]

Each client and the server run in their own processes. The incumbent has no concurrency: it is measured in sequence,
once per delay. The blocking client is compared with the asynchronous one, called in sequence, and with a function of a
few lines that hands a call to an event loop in another thread.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

from _shared import headline, incumbent, serving, versions

REST_UID = "demo-c52cd4-76k4hf87"
DELAYS = (0.0, 0.05)
IN_FLIGHT = (1, 8, 100)
CLIENTS = ("aiohttp", "httpx", "st4sd_async", "incumbent")
BOUNDS = {8: 2.0, 100: 2.3}
"""Requests in flight -> most wall time beside aiohttp's if the server answers at once, by minima."""
MOST_OF_FIRST_OPEN = 0.25
"""Most CPU of a second opening, beside the first."""
MOST_OF_ASYNC, MOST_OF_HAND_OVER = 1.6, 1.1
"""Most CPU of a blocking call, beside the same call of the asynchronous client, and handed over by hand."""
OPENINGS = 20
SLOW = 20.0
"""Seconds; a longer measurement is not repeated."""

OneCall = Callable[[], Awaitable[object]]


async def _bounded(call: OneCall, calls: int, in_flight: int) -> None:
    """Make calls with a number of workers."""
    left = iter(range(calls))

    async def work() -> None:
        for _ in left:
            await call()

    await asyncio.gather(*(work() for _ in range(in_flight)))


async def _aiohttp(port: int, calls: int, in_flight: int) -> tuple[float, float]:
    import aiohttp

    url = f"http://127.0.0.1:{port}/rs/instances/{REST_UID}/status"
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def call() -> object:
            async with session.get(url) as reply:
                return json.loads(await reply.read())

        return await _timed(call, calls, in_flight)


async def _httpx(port: int, calls: int, in_flight: int) -> tuple[float, float]:
    import httpx

    url = f"http://127.0.0.1:{port}/rs/instances/{REST_UID}/status"
    async with httpx.AsyncClient(timeout=httpx.Timeout(20, pool=None)) as client:

        async def call() -> object:
            return (await client.get(url)).json()

        return await _timed(call, calls, in_flight)


async def _st4sd_async(port: int, calls: int, in_flight: int) -> tuple[float, float]:
    from st4sd_async import Client, Config

    config = Config(concurrency=in_flight)
    async with Client(f"http://127.0.0.1:{port}", api_key="benchmark", config=config) as client:

        async def call() -> object:
            return await client.status(REST_UID)

        return await _timed(call, calls, in_flight)


async def _timed(call: OneCall, calls: int, in_flight: int) -> tuple[float, float]:
    """Return the wall and CPU seconds of the calls, after a few that open connections."""
    await _bounded(call, in_flight, in_flight)
    gc.collect()
    wall, cpu = time.perf_counter(), time.process_time()
    await _bounded(call, calls, in_flight)
    return time.perf_counter() - wall, time.process_time() - cpu


def _incumbent(port: int, calls: int) -> tuple[float, float]:
    api = incumbent(f"http://127.0.0.1:{port}", "benchmark")
    api.api_rest_uid_status(REST_UID, print_too=False, _api_verbose=False)
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(calls):
        api.api_rest_uid_status(REST_UID, print_too=False, _api_verbose=False)
    return time.perf_counter() - wall, time.process_time() - cpu


def _blocking(port: int, calls: int) -> tuple[float, float]:
    """Return the wall and CPU seconds of calls of the blocking client, in sequence."""
    from st4sd_async.sync import Client

    with Client(f"http://127.0.0.1:{port}", api_key="benchmark") as client:
        return _timed_blocking(lambda: client.status(REST_UID), calls)


def _hand_over(port: int, calls: int) -> tuple[float, float]:
    """Return the same of calls that are handed to an event loop in another thread, as one does it by hand."""
    from st4sd_async import Client

    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()

    def run(work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, loop).result()

    client = Client(f"http://127.0.0.1:{port}", api_key="benchmark")
    run(client.open())
    try:
        return _timed_blocking(lambda: run(client.status(REST_UID)), calls)
    finally:
        run(client.close())


def _timed_blocking(call: Callable[[], object], calls: int) -> tuple[float, float]:
    call()
    gc.collect()
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(calls):
        call()
    return time.perf_counter() - wall, time.process_time() - cpu


async def _opening(url: str) -> tuple[float, float]:
    """Return the CPU seconds of opening and closing a client: the first, and the least of those that follow."""
    from st4sd_async import Client, Config

    times = []
    for _ in range(OPENINGS):
        began = time.process_time()
        async with Client(url, config=Config(validate=False)):
            pass
        times.append(time.process_time() - began)
    return times[0], min(times[1:])


def measure(client: str, port: int, calls: int, in_flight: int) -> tuple[float, float]:
    """Return the wall and CPU seconds of one cell, in this process."""
    if client == "opening":
        return asyncio.run(_opening(f"{'https' if in_flight else 'http'}://127.0.0.1:{port}"))
    if client == "incumbent":
        return _incumbent(port, calls)
    if client in ("blocking", "by hand"):
        return {"blocking": _blocking, "by hand": _hand_over}[client](port, calls)
    run = {"aiohttp": _aiohttp, "httpx": _httpx, "st4sd_async": _st4sd_async}[client]
    return asyncio.run(run(port, calls, in_flight))


def _cell(client: str, port: int, calls: int, in_flight: int, repeats: int) -> dict[str, Any]:
    walls, cpus = [], []
    for _ in range(repeats):
        wall, cpu = _run(client, port, calls, in_flight)
        walls.append(wall)
        cpus.append(cpu)
        if wall > SLOW:
            break
    return {
        "client": client,
        "in_flight": in_flight,
        "median_s": statistics.median(walls),
        "minimum_s": min(walls),
        "cpu_us_per_call": 1e6 * statistics.median(cpus) / calls,
        "repeats": len(walls),
    }


def _show(rows: list[dict[str, Any]], delay: float) -> None:
    base = {row["in_flight"]: row["median_s"] for row in rows if row["client"] == "aiohttp"}
    sys.stdout.write(f"\nserver answers after {1000 * delay:.0f} ms\n")
    sys.stdout.write("in flight  client        median s  min s   x aiohttp  CPU us/call\n")
    for row in rows:
        ratio = row["median_s"] / base[row["in_flight"]]
        sys.stdout.write(
            f"{row['in_flight']:>9}  {row['client']:<12} {row['median_s']:>9.3f} {row['minimum_s']:>6.3f}"
            f" {ratio:>10.2f} {row['cpu_us_per_call']:>12.0f}\n"
        )
    sys.stdout.flush()


def _run(client: str, port: int, calls: int, in_flight: int) -> tuple[float, float]:
    """Measure one cell in a new process."""
    command = [sys.executable, __file__, "--one", client, str(port), str(in_flight), "--calls", str(calls)]
    first, second = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return first, second


def _bar(what: str, value: float, most: float) -> None:
    sys.stdout.write(f"bar: {what}: {value:.2f}, at most {most:g}: {'met' if value <= most else 'MISSED'}\n")


def _bars(rows: list[dict[str, Any]]) -> None:
    """Print whether the status calls keep their bounds."""
    least = {(row["client"], row["in_flight"]): row["minimum_s"] for row in rows}
    for in_flight, most in BOUNDS.items():
        ratio = least["st4sd_async", in_flight] / least["aiohttp", in_flight]
        _bar(f"status calls, {in_flight} in flight, x aiohttp, by minima", ratio, most)


def _openings(repeats: int) -> dict[str, Any]:
    """Measure and print the opening of a client; nothing is sent."""
    sys.stdout.write("\nopen and close a client, CPU ms    first  later\n")
    result = {}
    for secure, scheme in enumerate(("http", "https")):
        probes = [_run("opening", 9, 0, secure) for _ in range(repeats)]
        first, later = (1000 * min(column) for column in zip(*probes, strict=True))
        result[scheme] = {"first_ms": first, "later_ms": later}
        sys.stdout.write(f"{scheme:<32} {first:>7.1f} {later:>6.2f}\n")
    _bar("a later opening of an https client, x the first", later / first, MOST_OF_FIRST_OPEN)
    return result


def _blocking_calls(port: int, calls: int, repeats: int) -> dict[str, float]:
    """Measure and print the CPU of blocking calls in sequence, in turns with that of asynchronous ones."""
    clients = ("st4sd_async", "by hand", "blocking")
    probes = [[_run(client, port, calls, 1)[1] for client in clients] for _ in range(repeats)]
    least = {client: min(column) for client, column in zip(clients, zip(*probes, strict=True), strict=True)}
    sys.stdout.write("\ncalls in sequence     CPU us/call, minima\n")
    for client, seconds in least.items():
        sys.stdout.write(f"{client:<21} {1e6 * seconds / calls:>6.0f}\n")
    _bar("a blocking call, x asynchronous, CPU by minima", least["blocking"] / least["st4sd_async"], MOST_OF_ASYNC)
    what = "a blocking call, x one handed over by hand, CPU by minima"
    _bar(what, least["blocking"] / least["by hand"], MOST_OF_HAND_OVER)
    return {client: 1e6 * seconds / calls for client, seconds in least.items()}


def main() -> None:
    """Measure all cells, and print them."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[1])
    parser.add_argument("--calls", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        client, port, in_flight = options.one
        sys.stdout.write(json.dumps(measure(client, int(port), options.calls, int(in_flight))))
        return
    used = versions("aiohttp", "httpx", "st4sd_async", "st4sd-runtime-core")
    headline(used, f"{options.calls} calls")
    result: dict[str, Any] = {"versions": used, "calls": options.calls, "delays": {}}
    result["openings"] = _openings(options.repeats)
    for delay in DELAYS:
        with serving(delay) as port:
            cells = [(client, n) for n in IN_FLIGHT for client in CLIENTS if client != "incumbent" or n == 1]
            rows = [_cell(client, port, options.calls, n, options.repeats) for client, n in cells]
        _show(rows, delay)
        if not delay:
            _bars(rows)
            with serving(delay) as port:
                result["blocking_cpu_us"] = _blocking_calls(port, options.calls, options.repeats)
        ours = next(row for row in rows if row["client"] == "st4sd_async" and row["in_flight"] == IN_FLIGHT[-1])
        theirs = next(row for row in rows if row["client"] == "incumbent")
        faster = theirs["median_s"] / ours["median_s"]
        sys.stdout.write(f"incumbent in sequence / st4sd_async with {IN_FLIGHT[-1]} in flight: {faster:.1f}\n")
        result["delays"][str(delay)] = rows
    if options.json:
        options.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
