"""
An engine that plays runs on a virtual clock, with every course that real ones take.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from st4sd_async.local.datastore.documents import (
    COMPONENT,
    EXPERIMENT,
    USER_METADATA,
    component,
    experiment,
    user_metadata,
)
from st4sd_async.local.engine.interface import AcceptedStart, PackageFacts
from st4sd_async.local.runtime.storage import Bucket
from st4sd_async.local.simulator.clock import VirtualClock
from st4sd_async.local.simulator.descriptions import Description, Results
from st4sd_async.local.simulator.scripts import Row, script
from st4sd_async.local.simulator.sequences import SEQUENCES, Moment, not_begun, not_set_up
from st4sd_async.local.simulator.simulated_run import NEVER, Course, SimulatedRun
from st4sd_async.local.simulator.slots import Slots

DATASTORE_LAG = 10.0
"""Virtual seconds until the datastore knows what a run shows; 10 to 20 were seen."""
LONG_AGO = 30 * 24 * 3600.0
"""Virtual seconds since the last one of the instances was started that were there from the beginning."""


@dataclass
class _Plan:
    """How the next runs of an experiment go."""

    sequence: Sequence[Moment]
    left: float
    stretch: float


class Simulator:
    """
    Implements `Engine`: nothing is executed until somebody asks for results. Safe to use from any thread.

    What a run shows is computed from the time at which it is asked; no thread or timer is behind it.
    """

    def __init__(self, folder: Path, results: Results, clock: VirtualClock, *, slots: int) -> None:
        """
        Make a simulator without runs.

        Args:
            folder: Where instance directories go.
            results: Knows packages and makes the files of runs.
            clock: The time of everything here.
            slots: How many runs go on at once; the others are unscheduled.
        """
        self._folder = folder
        self._results = results
        self._clock = clock
        self._slots = Slots(slots)
        self._lock = threading.Lock()
        self._plans: dict[str, list[_Plan]] = {}
        self._runs: dict[str, SimulatedRun] = {}
        self._locations: dict[str, str] = {}

    def plan(self, name: str, outcome: str | Sequence[Row], times: int | None, stretch: float) -> None:
        """
        Say how runs of an experiment go that are started from now on.

        Raises:
            ValueError: Unknown outcome, malformed rows, times below 1, or a stretch that is not above 0.
        """
        if times is not None and times < 1:
            raise ValueError(f"times must be at least 1 or None, not {times!r}")
        if stretch <= 0:
            raise ValueError(f"stretch must be above 0, not {stretch!r}")
        plan = _Plan(_sequence(outcome), NEVER if times is None else times, stretch)
        with self._lock:
            plans = self._plans.setdefault(name, [])
            # One for ever comes last and replaces the last; others come before it, behind their like.
            last = [other for other in plans[-1:] if other.left == NEVER]
            plans[len(plans) - len(last) :] = [plan] if times is None else [plan, *last]

    def inspect(self, package: Mapping[str, Any]) -> PackageFacts:
        """What is known about a package; nothing is cloned."""
        return self._results.facts(package)

    def start(self, launch: AcceptedStart) -> None:
        """Begin a run now, or when there is a slot."""
        usual = _Plan(SEQUENCES[self._results.usual_outcome(launch)], NEVER, 1.0)
        with self._lock:
            now = self._settle()
            plan = self._next_plan(launch) or usual
            if doomed := _doomed(launch):
                plan = _Plan(doomed, NEVER, 1.0)
            run = self._add(launch, self._course(launch, plan), now, datetime.now(UTC))
            self._slots.enter(run)

    def populate(self, launches: Sequence[AcceptedStart], outcome: str | Sequence[Row]) -> None:
        """
        Add runs of one experiment, at least one, that were started long ago, one a second, and never needed a slot.

        Raises:
            ValueError: Unknown outcome or malformed rows.
        """
        course = self._course(launches[0], _Plan(_sequence(outcome), NEVER, 1.0))
        with self._lock:
            now, real = self._clock.now(), datetime.now(UTC)
            for index, launch in enumerate(launches):
                age = LONG_AGO + len(launches) - index
                run = self._add(launch, course, now - age, real - timedelta(seconds=age))
                run.begun = run.started

    def launches(self) -> list[AcceptedStart]:
        """What all runs were started with, deleted ones and those that were there from the beginning included."""
        with self._lock:
            return [run.launch for run in self._runs.values()]

    def _next_plan(self, launch: AcceptedStart) -> _Plan | None:
        plans = self._plans.get(launch.package["metadata"]["package"]["name"])
        if not plans:
            return None
        plan = plans[0]
        plan.left -= 1
        if not plan.left:
            del plans[0]
        return plan

    def _course(self, launch: AcceptedStart, plan: _Plan) -> Course:
        known = self._results
        stages, failure, outputs = known.stages(launch), known.failure(launch), known.outputs(launch)
        return Course(plan.sequence, plan.stretch, stages, failure, outputs)

    def _add(self, launch: AcceptedStart, course: Course, started: float, stamp: datetime) -> SimulatedRun:
        run = SimulatedRun(launch, len(self._runs) + 1, course, started, stamp, self._folder)
        self._runs[launch.rest_uid] = run
        self._locations[run.location] = launch.rest_uid
        return run

    def status(self, rest_uid: str) -> dict[str, Any] | None:
        """What a detail request shows."""
        run, now = self._find(rest_uid)
        return run.written(run.moment(now).detail) if run else None

    def listed_status(self, rest_uid: str) -> dict[str, Any] | None:
        """What the list shows."""
        run, now = self._find(rest_uid)
        return run.written(run.moment(now).listed) if run else None

    def outputs(self, rest_uid: str) -> dict[str, dict[str, str]]:
        """The key-outputs; their files are made when somebody asks for the directory."""
        run, now = self._find(rest_uid)
        return run.outputs(now) if run else {}

    def directory(self, rest_uid: str) -> Path | None:
        """The instance directory, from the moment in which the orchestrator has made it; takes a moment."""
        with self._lock:
            now, run = self._settle(), self._runs.get(rest_uid)
        if run is None:
            return None
        current = run.moment(min(now, run.deleted))
        status = run.written(current.listed)
        if not status or not status["meta"]:
            return None
        folder = self._folder / run.instance
        usual = SEQUENCES[self._results.usual_outcome(run.launch)]
        if current.outputs or (current.over and run.course.sequence is usual):
            self._make(run, folder)
        else:
            self._results.lay_out(run.launch, folder)
        return folder

    def _make(self, run: SimulatedRun, folder: Path) -> None:
        with run.lock:
            if not run.is_made:
                self._results.make(run.launch, folder)
                run.is_made = True

    def locations(self) -> dict[str, str]:
        """Paths of the instance directories, which are made when somebody asks for them -> rest-uid."""
        with self._lock:
            return dict(self._locations)

    def documents(self, rest_uid: str, types: Collection[str]) -> list[dict[str, Any]]:
        """What the datastore knows about a run: how it was a while ago, deleted or not."""
        with self._lock:
            now, run = self._settle(), self._runs.get(rest_uid)
        known = run.registration(now - DATASTORE_LAG) if run else None
        if run is None or known is None:
            return []
        found = []
        if EXPERIMENT in types:
            succeeded = known.status["exit-status"] == "Success"
            found.append(experiment(known, self._results.interface(run.launch, measured=succeeded)))
        if USER_METADATA in types:
            found.append(user_metadata(known))
        if COMPONENT in types:
            self.directory(rest_uid)
            found += [component(known, part) for part in self._results.components(run.launch)]
        return found

    def delete(self, rest_uid: str) -> None:
        """Forget a run; its slot is free at once."""
        with self._lock:
            now = self._settle()
            run = self._runs.get(rest_uid)
            if run is not None and run.deleted == NEVER:
                run.deleted = now
                self._slots.leave(run)

    def close(self) -> None:
        """Nothing runs on its own, so that there is nothing to stop."""

    def describe(self, name_or_url: str, description: Description) -> None:
        """Remember what a package brings along."""
        self._results.describe(name_or_url, description)

    def _find(self, rest_uid: str) -> tuple[SimulatedRun | None, float]:
        """A run that was not deleted, and the time for which it is right; it is shown to nobody before its uploads."""
        with self._lock:
            now = self._settle()
            run = self._runs.get(rest_uid)
        if run is None or run.deleted != NEVER:
            return None, now
        if run.launch.store is not None and run.moment(now).outputs:
            self._make(run, self._folder / run.instance)
            run.upload()
        return run, now

    def _settle(self) -> float:
        """Let runs begin that could until now, which is the result; call with the lock held."""
        now = self._clock.now()
        self._slots.settle(now)
        return now


def _doomed(launch: AcceptedStart) -> Sequence[Moment] | None:
    """How a run goes that cannot begin with what it was given; None: it can."""
    if launch.problem is not None:
        return not_begun(launch.problem)
    for name, content in (*launch.inputs.items(), *launch.data.items()):
        if isinstance(content, Path) and not content.is_file():
            return not_set_up(f"[Errno 2] No such file or directory: '/tmp/s3-root-dir/{name}'")
    if launch.store is not None and isinstance(launch.store.target, Bucket) and not launch.store.path:
        wrong = f'Invalid S3 URI "s3://{launch.store.target.name}" format is s3://<bucket-name>/path/to/folder'
        return not_set_up(f"ValueError {wrong} ValueError {wrong}")
    return None


def _sequence(outcome: str | Sequence[Row]) -> Sequence[Moment]:
    if not isinstance(outcome, str):
        return script(outcome)
    if outcome not in SEQUENCES:
        raise ValueError(f"no outcome {outcome!r}: there are {', '.join(SEQUENCES)}, or the rows of a life")
    return SEQUENCES[outcome]
