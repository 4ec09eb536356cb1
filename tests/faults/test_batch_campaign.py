"""
Three processes use one journal in turn while everything fails: each launch is executed once.

A fifth of the starts fail, lists lack items, the datastore is down a third of the time, clocks are set, processes
are killed, some runs fail at set-up or are queued for long, and several tasks add the same launches while they are
being started. What was started is read from the server's own record.
"""

from __future__ import annotations

import json
import random
import signal
import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from st4sd_async.local import BreakOff, CutBody, Delay, DropAfter, DropBefore, Html, LocalServer, Reply, ShortList
from st4sd_async.local.http.faults import Fault
from st4sd_async.local.simulator.outcomes import Row
from tests.forks import Forked
from tests.tries import tries

from . import campaign_child
from .campaign_child import Task
from .forks import Scripts, wait_until_ready
from .processes import instances, push

pytestmark = pytest.mark.slow

KEYS, SEED = tries(1000, 40), tries(7, 1)
"""Any seed will do."""
PROCESSES = 3
DAY = 24 * 3600.0
SPEED = 20.0
"""Virtual seconds per second: metadata shows 50 ms after a start, in the datastore 500 ms later."""
SETTLE, TIMEOUT = (2.5, 0.6) if KEYS < 300 else (6.0, 1.0)
"""Seconds. The settle window is much longer than any request is on its way."""
START, LIST, DATASTORE = "POST /experiments/*/start", "GET /instances/$", "* /ds-mongodb-proxy/"
STARTS: list[tuple[Fault, float]] = [
    (DropAfter(), 0.05),
    (DropBefore(), 0.04),
    (Reply(500, handled=True), 0.04),
    (CutBody(6), 0.03),
    (Delay(TIMEOUT + 0.3), 0.02),
    (Delay(TIMEOUT / 2), 0.02),
]
"""Faults of a fifth of the starts, with their probabilities."""
READS: list[tuple[str, Fault, float]] = [
    ("GET /instances/*/status", Html(504), 0.05),
    ("GET /instances/*/status", DropAfter(), 0.02),
]
UNRELATED_RUNS = 8
"""Unrelated runs that fail at set-up, so that they never have metadata."""
FAILURES = ("setup-failure", "init-failure")
"""Courses of runs that execute nothing and have no metadata."""
QUEUED: list[Sequence[Row]] = [
    [
        (0.0, None),
        (windows * SETTLE * SPEED, {"experiment-state": "running", "exit-status": "N/A"}),
        (windows * SETTLE * SPEED + 2.0, {"experiment-state": "finished", "exit-status": "Success"}),
    ]
    for windows in (0.7, 1.4)
]
"""Courses of runs that show nothing for about a settle window."""
HIDDEN_LISTS = 3
"""Lists that lack all runs in doubt when a process begins. Five would prove absence."""
COURSES_SHARE = 0.03
"""Share of the launches whose runs fail at set-up. Twice as many are queued for long."""
LONGEST_RUN = 40 * SETTLE + KEYS / 5
"""Seconds within which the last process must end."""


class Faults:
    """Random faults of a server over time."""

    def __init__(self, server: LocalServer, dice: random.Random) -> None:
        self._server, self._dice = server, dice
        self._is_away = False
        self._next_lists = self._next_unrelated = self._next_course = self._next_switch = 0.0
        courses: list[str | Sequence[Row]] = [FAILURES[0], *QUEUED]
        self._courses = courses * max(1, int(COURSES_SHARE * KEYS))
        dice.shuffle(self._courses)
        self._since = time.monotonic()
        self.away = 0.0
        """Seconds for which the datastore was unavailable."""
        self.unrelated: list[str] = []
        for fault, chance in STARTS:
            server.faults.add(START, fault, None, chance=chance)
        for match, fault, chance in READS:
            server.faults.add(match, fault, None, chance=chance)

    def inject(self) -> None:
        """Change the faults that are due. Call this often."""
        now = time.monotonic()
        if now >= self._next_switch:
            self._switch_datastore(now)
        if now >= self._next_lists:
            self._next_lists = now + self._dice.uniform(0.05, 0.3)
            self._shorten_lists()
        if now >= self._next_unrelated and len(self.unrelated) < UNRELATED_RUNS:
            self._next_unrelated = now + self._dice.uniform(0.2, 0.6) * SETTLE
            self.unrelated += self._server.populate("demo", 1, self._dice.choice(FAILURES))
        if now >= self._next_course and self._courses:
            self._next_course = now + self._dice.uniform(0.0, 2 * SETTLE / KEYS)
            self._server.outcome("demo", self._courses.pop(), times=1)

    def begin_process(self, journal: Path) -> None:
        """Hide from the first lists of a process all runs that its journal does not know."""
        known = set[str]()
        if journal.exists():
            with closing(sqlite3.connect(journal)) as database:
                known = {uid for (uid,) in database.execute("SELECT rest_uid FROM run")}
        hidden = {one.rest_uid for one in self._server.started} - known - {*self.unrelated}
        self._server.faults.clear(LIST)
        self._server.faults.add(LIST, ShortList(hidden), HIDDEN_LISTS)
        self._next_lists = time.monotonic() + SETTLE / 2

    def _switch_datastore(self, now: float) -> None:
        """Make it unavailable for a third of each settle window."""
        self.away += now - self._since if self._is_away else 0.0
        self._since, self._is_away = now, not self._is_away
        if self._is_away:
            self._server.faults.add(DATASTORE, Html(503), None)
        else:
            self._server.faults.clear(DATASTORE)
        self._next_switch = now + SETTLE * (1 if self._is_away else 2) / 3

    def _shorten_lists(self) -> None:
        """
        Make a quarter of the lists lack items, and one in twenty fail.

        Lists that lack the newest runs are the worst: nothing that was ever seen is missing. They are rare enough that
        five in a row, which would prove absence, are not expected.
        """
        faults, dice, new = self._server.faults, self._dice, self._without_metadata()
        faults.clear(LIST)
        faults.add(LIST, Html(502), None, chance=0.05)
        if new:
            faults.add(LIST, ShortList(new), None, chance=0.06)
            faults.add(LIST, BreakOff(new[0]), None, chance=0.04)
        faults.add(LIST, ShortList(dice.choice([0.01, 0.1, 0.5]), at_random=True), None, chance=0.1)
        faults.add(LIST, BreakOff(dice.choice([0.5, 0.9, dice.random()])), None, chance=0.05)

    def _without_metadata(self) -> list[str]:
        """Return the runs that have no metadata yet, the oldest first."""
        simulator = self._server._engine
        assert simulator is not None
        uids = [one.rest_uid for one in self._server.started[-KEYS:] if one.rest_uid not in self.unrelated]
        return [uid for uid in uids if not (simulator.listed_status(uid) or {}).get("meta")]


def _tasks(server: LocalServer, folder: Path, dice: random.Random) -> list[Task]:
    """Return the tasks of the processes, whose clocks are wrong by a day or more."""
    errors = [dice.choice([-1, 1]) * dice.uniform(1.0, 3.0) * DAY for _ in range(2 * PROCESSES)]
    one = Task(
        server.url, server.api_key, str(folder), KEYS, SETTLE, TIMEOUT, poll=0.1 if KEYS < 300 else 0.5,
        clock_error=0.0, later_error=0.0, set_after=0.0, seed=SEED,
    )  # fmt: skip
    return [
        replace(
            one,
            clock_error=errors[2 * number],
            later_error=errors[2 * number + 1],
            set_after=dice.uniform(0.5, 2.0) * SETTLE,
            seed=SEED * PROCESSES + number,
        )
        for number in range(PROCESSES)
    ]


def _inject_faults(child: Forked, faults: Faults, until: float) -> None:
    """Inject faults until a process ends, or until a time."""
    while child.poll() is None and time.monotonic() < until:
        faults.inject()
        time.sleep(0.005)


def _kill(child: Forked, server: LocalServer, faults: Faults, dice: random.Random) -> None:
    """Kill a process at a random moment after some more starts."""
    starts = server.traffic[START].requests + dice.randint(1, KEYS // PROCESSES)
    latest = time.monotonic() + 5 * SETTLE
    while child.poll() is None and server.traffic[START].requests < starts and time.monotonic() < latest:
        _inject_faults(child, faults, time.monotonic() + 0.01)
    _inject_faults(child, faults, time.monotonic() + dice.choice([0.0, 0.02, dice.random() * SETTLE]))
    child.kill()
    child.communicate()


@dataclass
class Outcome:
    """What became of the launches."""

    figures: dict[str, int]
    duplicated: dict[str, list[str]]
    """Keys that were executed more than once -> their runs."""
    lost: dict[str, Any]
    """Keys of which the batch says something else than what happened, or nothing -> that, and their runs."""
    ownerless: list[str]
    """Runs that executed something, that no key owns, and that were not started for a key reported as unknown."""


def _evaluate(server: LocalServer, report: dict[str, Any], unrelated: list[str]) -> Outcome:
    """Compare the report of the batch with what the server started."""
    executed = {one["id"] for one in instances(server) if one["status"]["meta"]}
    runs: dict[str, list[str]] = {f"mol {number}": [] for number in range(KEYS)}
    for one in server.started:
        if one.rest_uid not in unrelated:
            runs[f"mol {one.metadata['number']}"].append(one.rest_uid)
    real = {key: [uid for uid in uids if uid in executed] for key, uids in runs.items()}
    items = {item["key"]: item for item in report["items"]}
    reported = {one["key"] for one in report["yielded"] if (one["error"] or "").startswith("StartOutcomeUnknown")}
    unknown = {key for key in reported if items[key]["state"] == "unknown"}
    owners = {key: item["run"] for key, item in items.items()}
    once = {key for key in items if items[key]["state"] == "succeeded" and real[key] == [owners[key]]}
    failed = {key for key in items if items[key]["state"] == "failed" and not real[key] and owners[key] in runs[key]}
    known = once | failed | unknown
    return Outcome(
        figures={
            "keys": len(items),
            "executed once": len(once),
            "failed at set-up": len(failed),
            "unknown": len(unknown),
            "unknown, and executed": sum(bool(real[key]) for key in unknown),
            "started again after a run that executed nothing": sum(len(uids) > 1 for uids in runs.values()),
        },
        duplicated={key: uids for key, uids in real.items() if len(uids) > 1},
        lost={key: (items.get(key), uids) for key, uids in runs.items() if key not in known},
        ownerless=[uid for key in runs for uid in real[key] if uid != owners.get(key) and key not in unknown],
    )


@pytest.mark.slow(seconds=26)
@pytest.mark.timeout(60 + 2 * LONGEST_RUN)
def test_a_campaign_with_many_faults_executes_each_launch_once_or_reports_it_as_unknown(
    tmp_path: Path,
) -> None:
    """No launch is executed twice or lost silently, and none of our runs is left without an owner."""
    dice, began = random.Random(SEED), time.monotonic()
    errors = tmp_path / "stderr"
    with LocalServer(speed=SPEED, slots=max(20, KEYS // 4)) as server, Scripts(campaign_child.__name__) as processes:
        push(server)
        faults = Faults(server, dice)
        tasks = _tasks(server, tmp_path, dice)
        for task in tasks[:-1]:
            faults.begin_process(tmp_path / "campaign.db")
            child = processes.spawn(task.to_json(), errors=errors)
            wait_until_ready(child)
            _kill(child, server, faults, dice)
            assert child.returncode in (0, -signal.SIGKILL), errors.read_text()
        faults.begin_process(tmp_path / "campaign.db")
        child = processes.spawn(tasks[-1].to_json(), errors=errors)
        wait_until_ready(child)
        _inject_faults(child, faults, time.monotonic() + LONGEST_RUN)
        child.kill()
        child.communicate()
        assert child.returncode == 0, errors.read_text()
        server.faults.clear()
        server.advance(10 * SETTLE * SPEED)  # whatever is queued still comes to its end

        outcome = _evaluate(server, json.loads((tmp_path / "report.json").read_text()), faults.unrelated)
        figures = {
            "seed": SEED,
            **outcome.figures,
            "duplicated": len(outcome.duplicated),
            "lost": len(outcome.lost),
            "processes": PROCESSES,
            "starts sent": server.traffic[START].requests,
            "lists": server.traffic["GET /instances/"].requests,
            "datastore away": f"{faults.away:.0f} s",
            "unrelated": len(faults.unrelated),
            "faults": server.faults.hits,
            "seconds": round(time.monotonic() - began, 1),
        }
    print(json.dumps(figures, indent=1))  # noqa: T201 -- the figures

    assert outcome.duplicated == {}
    assert outcome.lost == {}
    assert outcome.ownerless == []
    assert outcome.figures["unknown"] <= KEYS / 2  # else little was tried
