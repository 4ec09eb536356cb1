"""
The statuses of a run follow one another as recorded.

``04-state-sequences.json`` has what requests for an instance showed now and then, and
``05-state-sequences-every-20ms.json`` what requests for a status showed every 20 ms: run -> rows, each with the seconds
since the start and what changed then. Texts were cut. Times are not compared: a simulated run is short, and a real one
depends on the machine.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.local.recorded.replay import Engine, Replay, load, open_replay
from tests.local.recorded.test_replay import needs_orchestrator
from tests.tries import IS_FULL, tries

pytestmark = pytest.mark.slow

Row = Mapping[str, Any]
INSTANCES, STATUSES = "04-state-sequences", "05-state-sequences-every-20ms"
FIELDS = ("experiment-state", "stage-state", "exit-status", "current-stage", "total-progress", "stage-progress")
SLOW = {"variables": {"seconds": 2}}
"""The payload of the run "slow", whose payload was not recorded."""
FAILING = "fail"
"""The run whose component fails, which the simulator must be told."""
PATIENCE = 100.0
"""Seconds after which a run counts as stuck, virtual ones with the simulator."""
PAUSE, STEP = tries(20, 50) / 1000, 0.1
"""Real and virtual seconds between two requests."""
SAMPLE = ("slow", FAILING, "badref")
"""A run that succeeds in two stages, one whose component fails, and one that cannot be set up."""


def recorded(name: str) -> dict[str, list[Row]]:
    """Return the rows of each run."""
    rows: dict[str, list[Row]] = json.loads(Path(__file__).with_name(f"{name}.json").read_text(encoding="utf-8"))
    return rows


def runs_with(engine: Engine) -> list[str]:
    """Return the recorded runs, or some if an engine takes long to execute all."""
    names = {**recorded(INSTANCES), **recorded(STATUSES)}
    return [name for name in names if IS_FULL or engine == "simulator" or name in SAMPLE]


def push_all(replay: Replay, engine: Engine) -> dict[str, Mapping[str, Any]]:
    """Push the experiments of the recorded runs; return run -> the call that starts it."""
    names = runs_with(engine)
    calls = [call for call in load("01-life-of-runs")["calls"] if call["method"] == "POST" and call["status"] == 200]
    pushes = {call["json"]["metadata"]["package"]["name"]: call for call in calls if call["path"] == "/rs/experiments/"}
    starts = {call["path"].split("/")[3]: call for call in calls if call["path"].endswith("/start")}
    starts["slow"] = {**starts["slow"], "json": SLOW}
    assert {replay.send(pushes[name]).status_code for name in names} == {200}
    if engine == "simulator":
        replay.server.outcome(FAILING, "component-failure")
    return {name: starts[name] for name in names}


def observe(replay: Replay, engine: Engine) -> dict[str, dict[str, list[Row]]]:
    """Execute the recorded runs; return recording -> run -> the rows that differ from the one before."""
    rows: dict[str, dict[str, list[Row]]] = {INSTANCES: {}, STATUSES: {}}

    def look(name: str, uid: str) -> None:
        for recording, row in ((STATUSES, status_row(replay, uid)), (INSTANCES, instance_row(replay, uid))):
            seen = rows[recording].setdefault(name, [])
            if not seen or seen[-1] != row:
                seen.append(row)

    waited, pending = 0.0, {}
    for name, start in push_all(replay, engine).items():
        pending[name] = replay.send(start).json()
        look(name, pending[name])  # at once, because the first status is short
    while pending:
        for name, uid in list(pending.items()):
            look(name, uid)
            if is_over(rows[INSTANCES][name][-1]) and is_over(rows[STATUSES][name][-1]):
                del pending[name]
        assert waited < PATIENCE, f"{list(pending)} are stuck: {rows}"
        waited += STEP if engine == "simulator" else PAUSE
        if engine == "simulator":
            replay.server.advance(STEP)
        else:
            time.sleep(PAUSE)
    return rows


def status_row(replay: Replay, uid: str) -> Row:
    """Return what a request for a status shows."""
    reply = replay.send({"method": "GET", "path": f"/rs/instances/{uid}/status"})
    value = reply.json()
    return {"http-status": reply.status_code, **_row(value, uid), "has-meta": bool(value.get("meta"))}


def instance_row(replay: Replay, uid: str) -> Row:
    """Return what a request for an instance shows as its status."""
    return _row(replay.send({"method": "GET", "path": f"/rs/instances/{uid}"}).json()["status"], uid)


def _row(status: Row, uid: str) -> dict[str, Any]:
    text = status.get("error-description", status.get("warning", status.get("message", "")))
    return {**{field: status.get(field) for field in FIELDS}, "text": text.replace(uid, "<<run>>")}


def is_over(row: Row) -> bool:
    """Return whether both states are final."""
    return row["experiment-state"] in ("finished", "failed") and row["exit-status"] in ("Success", "Failed")


def is_same(expected: Row, row: Row) -> bool:
    """Return whether a row is as recorded."""
    fields = [field for field in expected if field not in ("seconds", "text")]
    is_same_text = row["text"].startswith(expected["text"]) and bool(row["text"]) is bool(expected["text"])
    return is_same_text and all(row[field] == expected[field] for field in fields)


def missing(expected: Sequence[Row], rows: Sequence[Row]) -> list[Row]:
    """Return the first recorded row that is not among those after its predecessor's."""
    rest = iter(rows)
    for row in expected:
        if not any(is_same(row, other) for other in rest):
            return [row]
    return []


def rank(row: Row) -> tuple[int, bool]:
    """Return the place of a row in any sequence."""
    states = (None, "Initialising", "running", "finished", "failed")
    return states.index(row["experiment-state"]), row["exit-status"] in ("Success", "Failed")


def without_stage(row: Row) -> Row:
    """
    Return a row in which all stages are the same: current-stage is the highest one that has begun, or not.

    The total progress of a failed run depends on it too: 0.5 if the first of two stages is shown, as it is over then.
    """
    stage = row["current-stage"] or ""
    shows_first = row["stage-state"] == "failed" and stage == "stage0" and row.get("total-progress") == 0.5
    progress = {"total-progress": 0.0} if shows_first else {}
    return {**row, **progress, "current-stage": re.sub(r"\d", "N", stage) or row["current-stage"]}


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    "engine", ["simulator", pytest.param("elaunch", marks=[pytest.mark.slow(seconds=11), needs_orchestrator])]
)
def test_runs_go_through_the_recorded_statuses(engine: Engine, tmp_path: Path) -> None:
    """In the recorded order, and through none that no run was recorded with; a simulated run through all."""
    names = runs_with(engine)
    with open_replay(engine, tmp_path, slots=len(names)) as replay:
        observed = observe(replay, engine)

    for recording in (INSTANCES, STATUSES):
        known = [without_stage(row) for rows in recorded(recording).values() for row in rows]
        # Every 20 ms showed no run while it was initialised, or failed.
        known += [without_stage(row) for rows in recorded(INSTANCES).values() for row in rows]
        for name, rows in recorded(recording).items():
            if name not in names:
                continue
            # The orchestrator writes its status now and then, so that a run may pass through some without showing them.
            # The first one may follow at once when a run has a pod: its status without state and text is short then.
            passing = () if engine == "simulator" else ("Initialising", "running")
            must = [
                row
                for row in rows
                if row["experiment-state"] not in passing
                and (engine == "simulator" or row["experiment-state"] or row["text"])
            ]
            seen: Sequence[Row] = observed[recording][name]
            if engine == "elaunch":
                # Both stages of a run may have begun before the first one fails: then either is shown, by chance.
                must, seen = [without_stage(row) for row in must], [without_stage(row) for row in seen]
            assert not missing(must, seen), (recording, name, seen)
            ranks = [rank(row) for row in seen]
            assert ranks == sorted(ranks), (recording, name, seen)
        strange = [
            (name, row)
            for name, rows in observed[recording].items()
            for row in rows
            if not any(is_same(other, without_stage(row)) for other in known)
        ]
        assert not strange, (recording, strange)
