"""A batch whose process is killed again and again, with a service that fails in many ways."""

from __future__ import annotations

import json
import random
import signal
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from st4sd_async.local import Delay, DropAfter, DropBefore, Html, LocalServer, Reply, ShortList
from st4sd_async.local.http.faults import Fault
from tests.forks import Forked
from tests.tries import tries

from . import crash_child
from .forks import Scripts, wait_until_ready
from .processes import instances as found
from .processes import push

pytestmark = pytest.mark.slow

KILLS, KEYS = tries(100, 6), tries(300, 24)
SPEED = 20.0
"""Virtual seconds per second: metadata shows 50 ms after a start, a run takes 250 ms."""
MAX_LIFE = 1.0
"""Seconds after which a process is killed at the latest."""
SHORT_TIMEOUT, LONG_TIMEOUT = 1.0, 20.0
"""Request timeouts in seconds: shorter than some answers take, or longer than all."""
START = "POST /experiments/*/start"
FAULTS: list[tuple[str, Fault]] = [
    (START, DropBefore()),
    (START, DropAfter()),
    (START, Reply(500, handled=True)),
    (START, Reply(503, {"Retry-After": "0.1"}, handled=True)),
    (START, Reply(429, {"Retry-After": "0.1"})),
    (START, Html(502)),
    (START, Delay(0.3)),
    (START, Delay(SHORT_TIMEOUT + 0.3)),
    ("GET /instances/$", ShortList(0.3)),
    ("GET /instances/$", Html(502)),
    ("GET /instances/*/status", Html(504)),
    ("GET /instances/*/outputs/*", DropAfter()),
    ("POST /ds-mongodb-proxy/*", Html(502)),
]


@pytest.fixture(scope="module")
def processes() -> Iterator[Scripts]:
    """Processes that run the script."""
    with Scripts(crash_child.__name__) as forks:
        yield forks


def _arguments(server: LocalServer, folder: Path, timeout: float) -> list[str]:
    return [
        server.url,
        server.api_key,
        str(folder / "campaign.db"),
        str(folder / "results"),
        str(KEYS),
        str(timeout),
    ]


def _kill(child: Forked, server: LocalServer, dice: random.Random) -> bool:
    """Kill a process at a random moment, or after a few more starts. Returns False if it ended before."""
    moment = time.monotonic() + dice.uniform(0.0, MAX_LIFE)
    starts = server.traffic[START].requests + dice.randint(1, KEYS // KILLS)
    while child.poll() is None and time.monotonic() < moment and server.traffic[START].requests < starts:
        time.sleep(0.003)
    time.sleep(dice.uniform(0.0, 0.02))
    child.kill()
    _, output = child.communicate()
    assert child.returncode in (0, -signal.SIGKILL), output
    return child.returncode == -signal.SIGKILL


@pytest.mark.slow(seconds=8)
@pytest.mark.timeout(60 + 20 * KILLS)
def test_a_batch_that_is_killed_again_and_again_starts_everything_once(processes: Scripts, tmp_path: Path) -> None:
    """In the end every key has one run, and its results are on disk."""
    dice = random.Random(5)
    kills = 0
    with LocalServer(speed=SPEED, slots=10 * KEYS) as server:
        push(server)
        while True:
            # Unused faults would pile up, until a process meets one in each attempt.
            server.faults.clear()
            for match, fault in dice.choices(FAULTS, k=8):
                server.faults.add(match, fault)
            child = processes.spawn(*_arguments(server, tmp_path, SHORT_TIMEOUT))
            wait_until_ready(child)
            # After enough kills a process may run to its end. One that ends before is followed by others.
            if kills < KILLS:
                kills += _kill(child, server, dice)
                continue
            _, output = child.communicate(timeout=60)
            assert child.returncode == 0, output
            break
        server.faults.clear()
        instances = found(server)

    numbers = Counter(one["status"]["meta"]["userMetadata"]["number"] for one in instances)
    assert kills == KILLS
    assert numbers == {str(number): 1 for number in range(KEYS)}
    energies = sorted(
        path.read_text().splitlines()[0] for path in (tmp_path / "results").glob("*/Energies/energies.csv")
    )
    assert len(energies) == KEYS
    print(json.dumps({"kills": kills, "keys": KEYS, "runs": len(instances)}))  # noqa: T201 -- the figures


@pytest.mark.timeout(120)
def test_ctrl_c_ends_a_batch_within_seconds_and_the_same_script_resumes(processes: Scripts, tmp_path: Path) -> None:
    """Nothing is started any longer, starts in flight are recorded and not in doubt, and the log says how to resume."""
    with LocalServer(speed=SPEED, slots=10 * KEYS) as server:
        push(server)
        server.faults.add(START, Delay(0.3), times=None)
        arguments = _arguments(server, tmp_path, LONG_TIMEOUT)
        child = processes.spawn(*arguments)
        wait_until_ready(child)
        while not server.traffic[START].requests:
            time.sleep(0.001)
        child.send_signal(signal.SIGINT)
        began = time.monotonic()
        _, output = child.communicate(timeout=40)
        took, sent = time.monotonic() - began, server.traffic[START].requests
        server.faults.clear()
        with closing(sqlite3.connect(tmp_path / "campaign.db")) as journal:
            states = Counter(state for (state,) in journal.execute("SELECT state FROM item"))
        _, rest = processes.spawn(*arguments).communicate(timeout=60)
        instances = found(server)

    assert took < 10
    assert states == {"started": sent, "planned": KEYS - sent}
    assert f"a batch was left with {KEYS - sent} planned, {sent} started in the journal" in output
    assert "run the same script again to resume" in output
    assert rest == ""
    assert len(instances) == KEYS
