"""Workers that start keys, and are killed at any of their awaits."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from st4sd_async.local import Delay, DropAfter, DropBefore, Html, LocalServer, Reply, ShortList
from st4sd_async.local.http.faults import Fault
from tests.forks import Forked
from tests.tries import tries

from . import keyed_child
from .forks import Scripts
from .processes import push

pytestmark = pytest.mark.slow

KILLS, KEYS = tries(1000, 50), tries(100, 20)
SPEED = 100.0
LIVES = (4, 30, 60, 400)
"""Most awaits of a worker in one round: before the first send, about then, and while its run is searched for."""
START = "POST /experiments/*/start"
LIST = "GET /instances/$"
QUERY = "POST /ds-mongodb-proxy/*"
NO_DOCUMENTS = Reply(200, {"Content-Type": "application/json"}, b'{"document-descriptors": []}')
HIDDEN = 4
"""Lists, and queries of the datastore, that lack a run that was started. Five would prove that it is absent."""
FAULTS: list[tuple[str, Fault]] = [
    (START, DropBefore()),
    (START, DropAfter()),
    (START, Reply(500, handled=True)),
    (START, Reply(429, {"Retry-After": "1"})),
    (LIST, ShortList(0.3)),
    (LIST, Html(502)),
]


@pytest.fixture(scope="module")
def processes() -> Iterator[Scripts]:
    """Processes of workers."""
    with Scripts(keyed_child.__name__) as forks:
        yield forks


def spawn(
    processes: Scripts, server: LocalServer, folder: Path, *, keys: int = KEYS, seed: int = 0, longest: int = 0
) -> Forked:
    return processes.spawn(server.url, server.api_key, str(folder), *map(str, (keys, seed, longest)))


def round_of_workers(child: Forked) -> dict[str, Any]:
    output, errors = child.communicate(timeout=120)
    assert child.returncode == 0, errors
    found: dict[str, Any] = json.loads(output)
    return found


@pytest.mark.timeout(60 + KILLS)
def test_keys_whose_workers_are_killed_are_started_once(processes: Scripts, tmp_path: Path) -> None:
    """Each is executed exactly once, or reported as unknown with its candidates."""
    died, rounds = 0, 0
    with LocalServer(speed=SPEED, slots=1000) as server:
        push(server)
        while died < KILLS:
            for pattern, fault in FAULTS:
                server.faults.add(pattern, fault)
            child = spawn(processes, server, tmp_path, seed=rounds, longest=LIVES[rounds % len(LIVES)])
            died += round_of_workers(child)["died"]
            rounds += 1
            assert rounds < 20 * KILLS / KEYS
        unknown = round_of_workers(spawn(processes, server, tmp_path, seed=rounds))["unknown"]
        started = Counter(int(start.metadata["number"]) for start in server.started)

    sys.stdout.write(f"{died} kills in {rounds} rounds, {len(unknown)} of {KEYS} keys unknown\n")
    assert all(unknown.values())
    assert len(unknown) <= KEYS / 2  # else little was tried
    sure = [number for number in range(KEYS) if f"key {number}" not in unknown]
    assert {number: started[number] for number in sure} == dict.fromkeys(sure, 1)


def wait(condition: Callable[[], bool], deadline: float) -> None:
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


@pytest.mark.timeout(60)
def test_a_key_whose_workers_are_killed_before_the_response_is_started_once(
    processes: Scripts, tmp_path: Path, deadline: float
) -> None:
    """Also if the first responses that the next workers read lack its run."""
    with LocalServer(speed=SPEED) as server:
        push(server)
        server.faults.add(START, Delay(3.0))
        with spawn(processes, server, tmp_path, keys=1) as child:
            wait(lambda: server.traffic[START].requests > 0, deadline)
            child.kill()
        wait(lambda: bool(server.started), deadline)
        (run,) = server.started
        server.faults.add(LIST, ShortList({run.rest_uid}), HIDDEN)
        server.faults.add(QUERY, NO_DOCUMENTS, HIDDEN)

        unknown = round_of_workers(spawn(processes, server, tmp_path, keys=1))["unknown"]

        assert unknown == {}
        assert server.started == [run]
        assert server.faults.hits[f"{LIST} ShortList"] == HIDDEN
