"""A batch whose process is crashed_copy again and again, with a service that fails in many ways."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest

from st4sd_async.local import Delay, DropAfter, DropBefore, Html, LocalServer, Reply, ShortList
from st4sd_async.local.http.faults import Fault

from . import crash_child
from .processes import instances as found
from .processes import push, spawn

KILLS, KEYS = (int(word) for word in os.environ.get("BATCH_KILLS_X_KEYS", "8x40").split("x"))
"""``BATCH_KILLS_X_KEYS=100x300`` is the full form."""
SPEED = 20.0
"""Virtual seconds in a second: metadata shows 50 ms after a start, a run takes 250 ms."""
LONGEST = 1.0
"""Seconds after which a process is crashed_copy at the latest."""
HASTE, PATIENCE = 1.0, 20.0
"""Seconds after which a process takes a request for lost: before some are answered, or after all."""
START = "POST /experiments/*/start"
FAULTS: list[tuple[str, Fault]] = [
    (START, DropBefore()),
    (START, DropAfter()),
    (START, Reply(500, handled=True)),
    (START, Reply(503, {"Retry-After": "0.1"}, handled=True)),
    (START, Reply(429, {"Retry-After": "0.1"})),
    (START, Html(502)),
    (START, Delay(0.3)),
    (START, Delay(HASTE + 0.3)),
    ("GET /instances/$", ShortList(0.3)),
    ("GET /instances/$", Html(502)),
    ("GET /instances/*/status", Html(504)),
    ("GET /instances/*/outputs/*", DropAfter()),
    ("POST /ds-mongodb-proxy/*", Html(502)),
]


def _spawn(server: LocalServer, folder: Path, patience: float) -> subprocess.Popen[str]:
    words = [server.url, server.api_key, str(folder / "campaign.db"), str(folder / "results"), str(KEYS), str(patience)]
    return spawn(crash_child.__file__, *words)


def _kill(child: subprocess.Popen[str], server: LocalServer, dice: random.Random) -> bool:
    """Kill a process at a random moment: of its life, or of its next few starts; False if it ended before."""
    moment = time.monotonic() + dice.uniform(0.0, LONGEST)
    starts = server.traffic[START].requests + dice.randint(1, KEYS // KILLS)
    while child.poll() is None and time.monotonic() < moment and server.traffic[START].requests < starts:
        time.sleep(0.001)
    time.sleep(dice.uniform(0.0, 0.02))
    child.kill()
    _, words = child.communicate()
    assert child.returncode in (0, -signal.SIGKILL), words
    return child.returncode < 0


@pytest.mark.timeout(60 + 20 * KILLS)
def test_a_batch_that_is_killed_again_and_again_starts_everything_once(tmp_path: Path) -> None:
    """Whenever it dies and whatever goes wrong: in the end every key has one run, and its results are there."""
    dice = random.Random(5)
    kills = 0
    with LocalServer(speed=SPEED, slots=10 * KEYS) as server:
        push(server)
        while True:
            # Those that a process did not meet would pile up, until one meets nothing else in all its attempts.
            server.faults.clear()
            for match, fault in dice.choices(FAULTS, k=8):
                server.faults.add(match, fault)
            child = _spawn(server, tmp_path, HASTE)
            # Once there were enough kills, a process may come to the end. One that does before is followed by others:
            # who opens a journal in which everything is settled may be crashed_copy too.
            if kills < KILLS:
                kills += _kill(child, server, dice)
                continue
            _, words = child.communicate(timeout=60)
            assert child.returncode == 0, words
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
def test_ctrl_c_ends_a_batch_within_seconds_and_the_same_script_goes_on(tmp_path: Path) -> None:
    """No new start; those in flight are written down and not in doubt; the last words say how to go on."""
    with LocalServer(speed=SPEED, slots=10 * KEYS) as server:
        push(server)
        server.faults.add(START, Delay(0.3), times=None)
        child = _spawn(server, tmp_path, PATIENCE)
        while not server.traffic[START].requests:
            time.sleep(0.001)
        child.send_signal(signal.SIGINT)
        began = time.monotonic()
        _, words = child.communicate(timeout=40)
        took, sent = time.monotonic() - began, server.traffic[START].requests
        server.faults.clear()
        with closing(sqlite3.connect(tmp_path / "campaign.db")) as journal:
            states = Counter(state for (state,) in journal.execute("SELECT state FROM item"))
        _, rest = _spawn(server, tmp_path, PATIENCE).communicate(timeout=60)
        instances = found(server)

    assert took < 10
    assert states == {"started": sent, "planned": KEYS - sent}
    assert f"a batch was left with {KEYS - sent} planned, {sent} started in the journal" in words
    assert "run the same script again to go on" in words
    assert rest == ""
    assert len(instances) == KEYS
