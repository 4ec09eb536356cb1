"""
The clients that watch, each in its own process, and clocks that measure them.

    python benchmarks/_watchers.py {st4sd_async,incumbent} URL KEY INTERVAL ROUNDS

Reads the rest-uids from standard input, prints when it has seen each once, and prints at the end when it noticed each
change. ROUNDS ends only the incumbent; both end when all runs are over.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from contextlib import aclosing

from _shared import incumbent

from st4sd_async import Client, Config
from st4sd_async.local import LocalServer

READY = "ready\n"
FINAL = ("Success", "Failed", "Stopped")


class VirtualClock:
    """A clock that advances only in pauses, which take no real time; it advances the server's clock too."""

    def __init__(self, server: LocalServer) -> None:
        self._server = server
        self._time = 0.0

    def now(self) -> float:
        """Return the seconds of all pauses."""
        return self._time

    def wall(self) -> float:
        """Return the same seconds."""
        return self._time

    async def sleep(self, seconds: float) -> None:
        """Advance the clocks."""
        self._time += seconds
        await self._server.advance(seconds)
        await asyncio.sleep(0)


class CpuClock:
    """Such a clock, which measures the CPU seconds of each round and, in the pause, of parsing ``body``."""

    def __init__(self, body: bytes) -> None:
        self.rounds: list[float] = []
        self.parses: list[float] = []
        self._body = body
        self._time = 0.0
        self._mark = time.process_time()

    def now(self) -> float:
        """Return the seconds of all pauses."""
        return self._time

    def wall(self) -> float:
        """Return the same seconds."""
        return self._time

    async def sleep(self, seconds: float) -> None:
        """Parse the body, for comparison."""
        ended = time.process_time()
        json.loads(self._body)
        self.rounds.append(ended - self._mark)
        self._mark = time.process_time()
        self.parses.append(self._mark - ended)
        self._time += seconds


class Notebook:
    """The system clock, which records when each status was seen first, and the lengths of rounds and pauses."""

    def __init__(self, runs: int) -> None:
        self.seen: dict[tuple[str, float], float] = {}
        """rest-uid and progress -> monotonic time, which is the same in all processes of a machine."""
        self.rounds: list[float] = []
        self.pauses: list[float] = []
        self._runs = runs
        self._mark = time.monotonic()

    def now(self) -> float:
        """Return `time.monotonic`."""
        return time.monotonic()

    def wall(self) -> float:
        """Return `time.time`."""
        return time.time()

    async def sleep(self, seconds: float) -> None:
        """Sleep, and record the round and the pause."""
        self.lap(self.rounds)
        await asyncio.sleep(seconds)
        self.lap(self.pauses)

    def lap(self, laps: list[float]) -> None:
        """Record the time since the lap before."""
        now = time.monotonic()
        laps.append(now - self._mark)
        self._mark = now

    def note(self, rest_uid: str, progress: float) -> None:
        """Record a status, and print `READY` once each run has one."""
        self.seen.setdefault((rest_uid, progress), time.monotonic())
        if len(self.seen) == self._runs:
            sys.stdout.write(READY)
            sys.stdout.flush()


async def watch(url: str, key: str, interval: float, runs: list[str], notes: Notebook) -> None:
    """Watch with `st4sd_async`."""
    async with (
        Client(url, api_key=key, config=Config(clock=notes)) as client,
        aclosing(client.watch_many(runs, interval=interval)) as changes,
    ):
        async for run, status in changes:
            notes.note(run.id, status.total_progress or 0.0)


def loop(url: str, key: str, interval: float, rounds: int, runs: list[str], notes: Notebook) -> None:
    """Watch with the incumbent, as documented: request each run, sleep, and repeat until all have ended."""
    api = incumbent(url, key)
    for _ in range(rounds):
        for rest_uid in list(runs):
            status = api.api_rest_uid_status(rest_uid, print_too=False, _api_verbose=False)["status"]
            notes.note(rest_uid, status["total-progress"])
            if status["exit-status"] in FINAL:
                runs.remove(rest_uid)
        if not runs:
            return
        notes.lap(notes.rounds)
        time.sleep(interval)
        notes.lap(notes.pauses)


def main(who: str, url: str, key: str, interval: float, rounds: int) -> None:
    """Watch the runs named on standard input."""
    runs = json.loads(sys.stdin.readline())
    notes = Notebook(len(runs))
    if who == "incumbent":
        loop(url, key, interval, rounds, runs, notes)
    else:
        asyncio.run(watch(url, key, interval, runs, notes))
    seen = [[*what, when] for what, when in notes.seen.items()]
    # The first round includes an import or the opening of connections.
    sys.stdout.write(json.dumps({"seen": seen, "rounds": notes.rounds[1:], "pauses": notes.pauses}))


if __name__ == "__main__":
    who, url, key, interval, rounds = sys.argv[1:]
    main(who, url, key, float(interval), int(rounds))
