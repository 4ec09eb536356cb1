"""
An engine that plays runs on a virtual clock, with every course that real ones take.
"""

from __future__ import annotations

import heapq
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from st4sd_async.local._clock import VirtualClock
from st4sd_async.local._descriptions import Description, Results
from st4sd_async.local._engines import Launch, PackageFacts
from st4sd_async.local._sequences import (
    EMPTY,
    NO_POD,
    SEQUENCES,
    UNSCHEDULED,
    Moment,
    duration,
    moment,
    written,
)

NEVER = float("inf")


@dataclass
class _Plan:
    """How the next runs of an experiment go."""

    outcome: str
    left: float
    stretch: float


@dataclass
class _Run:
    """One run; times are virtual."""

    launch: Launch
    number: int
    outcome: str
    stretch: float
    started: float
    instance: str
    begun: float = NEVER
    deleted: float = NEVER
    lock: threading.Lock = field(default_factory=threading.Lock)
    outputs: dict[str, dict[str, str]] | None = None


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
        self._slots = slots
        self._free = [0.0] * slots
        self._lock = threading.Lock()
        self._plans: dict[str, list[_Plan]] = {}
        self._history: list[_Run] = []
        self._runs: dict[str, _Run] = {}

    def plan(self, name: str, outcome: str, times: int | None, stretch: float) -> None:
        """
        Say how runs of an experiment go that are started from now on.

        Raises:
            ValueError: Unknown outcome, times below 1, or a stretch that is not above 0.
        """
        if outcome not in SEQUENCES:
            raise ValueError(f"no outcome {outcome!r}: there are {', '.join(SEQUENCES)}")
        if times is not None and times < 1:
            raise ValueError(f"times must be at least 1 or None, not {times!r}")
        if stretch <= 0:
            raise ValueError(f"stretch must be above 0, not {stretch!r}")
        plan = _Plan(outcome, NEVER if times is None else times, stretch)
        with self._lock:
            plans = self._plans.setdefault(name, [])
            if times is None:
                plans[:] = [other for other in plans if other.left != NEVER]
                plans.append(plan)
            else:
                # Before the plan that holds for ever, behind those that hold for other starts.
                forever = plans and plans[-1].left == NEVER
                plans.insert(len(plans) - 1 if forever else len(plans), plan)

    def inspect(self, package: Mapping[str, Any]) -> PackageFacts:
        """What is known about a package; nothing is cloned."""
        return self._results.facts(package)

    def start(self, launch: Launch) -> None:
        """Begin a run now, or when there is a slot."""
        name = launch.package["metadata"]["package"]["name"]
        stamp = datetime.now(UTC).strftime("%Y-%m-%dT%H%M%S.%f")
        instance = f"{launch.rest_uid.rpartition('-')[0]}-{stamp}.instance"
        with self._lock:
            plan = self._next_plan(name, launch)
            number = len(self._history) + 1
            now = self._clock.now()
            run = _Run(launch, number, plan.outcome, plan.stretch, now, instance)
            self._history.append(run)
            self._runs[launch.rest_uid] = run
            self._schedule(run)

    def _next_plan(self, name: str, launch: Launch) -> _Plan:
        for plan in self._plans.get(name, []):
            if plan.left > 0:
                plan.left -= 1
                return plan
        return _Plan(self._results.usual_outcome(launch), NEVER, 1.0)

    def _schedule(self, run: _Run) -> None:
        """Say when a run gets a slot, which depends on the runs that were started before it."""
        run.begun = max(run.started, self._free[0])
        if run.begun < run.deleted:
            end = run.begun + duration(SEQUENCES[run.outcome], run.stretch)
            heapq.heapreplace(self._free, min(end, run.deleted))

    def _moment(self, run: _Run) -> Moment:
        now = self._clock.now()
        pod = now - run.started >= NO_POD
        if now < run.begun:
            return Moment(0.0, UNSCHEDULED, EMPTY) if pod else Moment(0.0, None)
        current = moment(SEQUENCES[run.outcome], now - run.begun, run.stretch)
        # A run that waited for its slot has been known to the cluster all the time.
        forgotten = current.detail is None and pod and run.begun > run.started
        return Moment(0.0, EMPTY, EMPTY) if forgotten else current

    def status(self, rest_uid: str) -> dict[str, Any] | None:
        """What a detail request shows."""
        run = self._find(rest_uid)
        return written(self._moment(run).detail, *self._facts(run)) if run else None

    def listed_status(self, rest_uid: str) -> dict[str, Any] | None:
        """What the list shows."""
        run = self._find(rest_uid)
        return written(self._moment(run).listed, *self._facts(run)) if run else None

    def _facts(self, run: _Run) -> tuple[list[str], dict[str, Any], str]:
        launch = run.launch
        stages = self._results.stages(launch)
        return stages, _meta(run, stages), self._results.failure(launch)

    def outputs(self, rest_uid: str) -> dict[str, dict[str, str]]:
        """The key-outputs; the first time they are asked for, they are made, which takes a moment."""
        run = self._find(rest_uid)
        return self._made(run) if run and self._moment(run).outputs else {}

    def directory(self, rest_uid: str) -> Path | None:
        """The instance directory, from the moment in which the orchestrator has made it."""
        run = self._find(rest_uid)
        if run is None:
            return None
        current = self._moment(run)
        if current.listed is None or not current.listed.meta:
            return None
        if current.outputs or (current.over and run.outcome == self._results.usual_outcome(run.launch)):
            self._made(run)
        else:
            self._results.lay_out(run.launch, self._folder / run.instance)
        return self._folder / run.instance

    def _made(self, run: _Run) -> dict[str, dict[str, str]]:
        with run.lock:
            if run.outputs is None:
                run.outputs = self._results.make(run.launch, self._folder / run.instance)
            return run.outputs

    def delete(self, rest_uid: str) -> None:
        """Forget a run; its slot is free at once."""
        with self._lock:
            run = self._runs.pop(rest_uid, None)
            if run is not None:
                run.deleted = self._clock.now()
                # All over again: what lies in the past comes out as it was, the future may change.
                self._free = [0.0] * self._slots
                for other in self._history:
                    self._schedule(other)

    def close(self) -> None:
        """Nothing runs on its own, so that there is nothing to stop."""

    def describe(self, name_or_url: str, description: Description) -> None:
        """Remember what a package brings along."""
        self._results.describe(name_or_url, description)

    def _find(self, rest_uid: str) -> _Run | None:
        with self._lock:
            return self._runs.get(rest_uid)


def _meta(run: _Run, stages: list[str]) -> dict[str, Any]:
    """The ``meta`` of a status, all variables as strings."""
    launch = run.launch
    name, _, digest = launch.identifier.partition("@")
    generated = {
        "rest-uid": launch.rest_uid,
        "workflow": launch.rest_uid,
        "experiment-id": launch.identifier,
        "st4sd-package-name": name,
        "st4sd-package-digest": digest,
    }
    metadata = {**launch.metadata, **generated}
    inputs = [f"/tmp/inputs/input/{file}" for file in launch.inputs]
    data = [f"/tmp/inputs/data/{file}" for file in launch.data]
    arguments = ["elaunch.py", *(f"-i {path}" for path in inputs), *(f"-d {path}" for path in data)]
    if launch.variables:
        arguments.append("-a /tmp/inputs/input/st4sd-variables.yaml")
    arguments += ["-l15", "--nostamp", f"--instanceName {run.instance.removesuffix('.instance')}"]
    arguments += [f"--platform={launch.platform}"] if launch.platform else []
    arguments += [*launch.options, *(f"-m{key}:{value}" for key, value in metadata.items())]
    variables = dict(launch.variables)
    everything = {**_defaults(launch), **variables}
    return {
        "arguments": " ".join([*arguments, f"/tmp/pod/package/{name}.git"]),
        "data": data,
        "hybridPlatform": None,
        "inputs": inputs,
        "instanceName": run.instance,
        "pid": run.number,
        "platform": launch.platform or "default",
        "userMetadata": dict(sorted(metadata.items())),
        "userVariables": {"global": variables} if variables else {},
        "variables": {
            "global": everything,
            "stage": {str(index): everything for index in range(len(stages))},
        },
        "version": "2.7.0",
    }


def _defaults(launch: Launch) -> dict[str, str]:
    """The variables of the package on the platform of a run."""
    known = launch.package["metadata"]["registry"]["executionOptionsDefaults"]["variables"]
    wanted = ("default", launch.platform)
    values: dict[str, str] = {}
    for variable in known:
        by_platform = {entry.get("platform"): entry["value"] for entry in variable["valueFrom"]}
        for platform in wanted:
            if platform in by_platform:
                values[variable["name"]] = by_platform[platform]
    return values
