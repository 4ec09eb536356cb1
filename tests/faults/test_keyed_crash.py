"""Workers that start keys, and are killed at any of their awaits."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from st4sd_async.local import DropAfter, DropBefore, Html, LocalServer, Reply, ShortList
from st4sd_async.local.http.faults import Fault
from tests.tries import tries

from . import keyed_child
from .forks import Scripts
from .processes import push

KILLS, KEYS = tries(1000, 50), tries(100, 20)
SPEED = 100.0
LIVES = (4, 30, 60, 400)
"""Most awaits of a worker in one round: before the first send, about then, and while its run is searched for."""
START = "POST /experiments/*/start"
FAULTS: list[tuple[str, Fault]] = [
    (START, DropBefore()),
    (START, DropAfter()),
    (START, Reply(500, handled=True)),
    (START, Reply(429, {"Retry-After": "1"})),
    ("GET /instances/$", ShortList(0.3)),
    ("GET /instances/$", Html(502)),
]


def round_of_workers(processes: Scripts, server: LocalServer, folder: Path, seed: int, longest: int) -> dict[str, Any]:
    arguments = [server.url, server.api_key, str(folder), *map(str, (KEYS, seed, longest))]
    child = processes.spawn(*arguments)
    output, errors = child.communicate(timeout=120)
    assert child.returncode == 0, errors
    found: dict[str, Any] = json.loads(output)
    return found


@pytest.mark.slow
@pytest.mark.timeout(60 + KILLS)
def test_keys_whose_workers_are_killed_are_started_once(tmp_path: Path) -> None:
    """Each is executed exactly once, or reported as unknown with its candidates."""
    died, rounds = 0, 0
    with LocalServer(speed=SPEED, slots=1000) as server, Scripts(keyed_child.__name__) as processes:
        push(server)
        while died < KILLS:
            for pattern, fault in FAULTS:
                server.faults.add(pattern, fault)
            died += round_of_workers(processes, server, tmp_path, rounds, LIVES[rounds % len(LIVES)])["died"]
            rounds += 1
            assert rounds < 20 * KILLS / KEYS
        unknown = round_of_workers(processes, server, tmp_path, rounds, 0)["unknown"]
        started = Counter(int(start.metadata["number"]) for start in server.started)

    sys.stdout.write(f"{died} kills in {rounds} rounds, {len(unknown)} of {KEYS} keys unknown\n")
    assert all(unknown.values())
    assert len(unknown) <= KEYS / 2  # else little was tried
    sure = [number for number in range(KEYS) if f"key {number}" not in unknown]
    assert {number: started[number] for number in sure} == dict.fromkeys(sure, 1)
