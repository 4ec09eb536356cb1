"""
The engine that simulates runs on a virtual clock.

What a run shows is computed when it is requested, from its outcome and the time: there are no threads or timers.
Files are written when they are first requested. The outcomes are in ``outcomes.json``.
"""

from __future__ import annotations

import hashlib
import heapq
import json
import logging
import threading
import time
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from st4sd_async.local.engine.buckets import Bucket, BucketError
from st4sd_async.local.engine.documents import (
    COMPONENT,
    EXPERIMENT,
    USER_METADATA,
    Registration,
    experiment_document,
    instance_uri,
    user_metadata_document,
)
from st4sd_async.local.engine.instance_files import output_entry
from st4sd_async.local.engine.interface import AcceptedStart, PackageFacts
from st4sd_async.local.examples.examples import Component
from st4sd_async.local.http.archives import files_below
from st4sd_async.local.simulator.outcomes import (
    Moment,
    Outcome,
    Row,
    Status,
    complete_status,
    current_moment,
    duration,
    named_outcomes,
    parse_outcome,
    with_error,
)
from st4sd_async.local.simulator.packages import Package, Packages

log = logging.getLogger("st4sd_async.local")

DATASTORE_LAG = 10.0
"""Virtual seconds until the datastore knows what a run shows; 10 to 20 were seen."""
POD_DELAY = 0.3
"""Virtual seconds from the start of a run until the cluster has a pod for it."""
POPULATED_AGE = 30 * 24 * 3600.0
"""Virtual seconds since the last populated instance was started."""
NEVER = float("inf")

_EMPTY: Status = {}
_STOPPED = {
    "experiment-state": "finished",
    "stage-state": "failed",
    "exit-status": "Stopped",
    "error-description": "Killed by user signal",
}
"""The last status of an orchestrator that was stopped."""


class VirtualClock:
    """Seconds since the server was created: real seconds times a speed, plus those that were added."""

    def __init__(self, speed: float = 1.0) -> None:
        if speed < 0:
            raise ValueError(f"speed must be 0 (frozen) or above, not {speed!r}")
        self._speed = speed
        self._origin = time.monotonic()
        self._added = 0.0
        self._lock = threading.Lock()

    def now(self) -> float:
        """Return the virtual time in seconds."""
        with self._lock:
            return (time.monotonic() - self._origin) * self._speed + self._added

    def advance(self, seconds: float) -> None:
        """Move the clock forward."""
        if seconds < 0:
            raise ValueError(f"seconds must be 0 or above, not {seconds!r}")
        with self._lock:
            self._added += seconds


@dataclass(frozen=True)
class Plan:
    """How a run goes."""

    outcome: Outcome
    stretch: float
    """Factor by which it takes longer than usual."""
    stages: list[str]
    """The stages of its package."""
    failure: str
    """The error description if a component fails."""
    outputs: Mapping[str, str]
    """key-output -> its path in the instance directory."""


@dataclass(eq=False)
class SimulatedRun:
    """One run. Times are virtual, in seconds, unless they are a `datetime`."""

    start: AcceptedStart
    number: int
    """How many runs were started so far; also used as the process id."""
    plan: Plan
    started: float
    created: datetime
    """Real time of the start."""
    folder: Path
    """The folder of the instance directory."""
    scheduled: float = NEVER
    """When it got its slot."""
    deleted: float = NEVER
    has_results: bool = False
    """Whether its files are written; guarded by the lock."""
    is_uploaded: bool = False
    """Whether uploading its key-outputs was tried; guarded by the lock."""
    lock: threading.Lock = field(default_factory=threading.Lock)
    _completed: tuple[Status, dict[str, Any] | None] = (None, None)
    _outputs: dict[str, dict[str, str]] | None = None

    @property
    def name(self) -> str:
        """The name of the instance directory."""
        return f"{self.start.stem}-{self.created:%Y-%m-%dT%H%M%S.%f}.instance"

    @property
    def location(self) -> str:
        """The path of the instance directory."""
        return f"{self.folder}/{self.name}"

    @property
    def end(self) -> float:
        """When it releases its slot, unless it is deleted before."""
        return self.scheduled + duration(self.plan.outcome, self.plan.stretch)

    def moment(self, now: float) -> Moment:
        """Return what is shown at a time."""
        has_pod = now - self.started >= POD_DELAY
        if now < self.scheduled:
            return Moment(0.0, _unscheduled(), _EMPTY) if has_pod else Moment(0.0, None, None)
        current = current_moment(self.plan.outcome, now - self.scheduled, self.plan.stretch)
        # The cluster already has a pod for a run that waited for its slot.
        has_status = current.status is not None or current.is_recorded or self.scheduled == self.started
        return current if has_status or not has_pod else Moment(0.0, _EMPTY, _EMPTY)

    def complete(self, status: Status) -> dict[str, Any] | None:
        """Return a status with all keys of the service; the same object for the same status."""
        completed = self._completed
        if completed[0] is not status:
            values = complete_status(status, self.plan.stages, _meta(self), self.plan.failure)
            completed = self._completed = (status, values)
        return completed[1]

    def outputs(self, now: float) -> dict[str, dict[str, str]]:
        """Return the key-outputs at a time; their files may not be written yet."""
        if not self.moment(now).has_outputs:
            return {}
        if self._outputs is None:
            first = next(moment for moment in self.plan.outcome if moment.has_outputs)
            created = self._date(self._time(first)).timestamp()
            self._outputs = {name: output_entry(path, created) for name, path in self.plan.outputs.items()}
        return self._outputs

    def is_registered(self, now: float) -> bool:
        """Whether the orchestrator has created the instance directory and registered it in the datastore."""
        status = self.complete(self.moment(now).listed)
        return status is not None and bool(status["meta"])

    def registration(self, then: float) -> Registration | None:
        """Return what the datastore knew at a time; None if the run was not registered."""
        if not self.is_registered(min(then, self.deleted)):
            return None
        current = self.moment(min(then, self.deleted))
        status, updated = self.complete(current.listed) or {}, self._time(current)
        if self.deleted <= then and self.deleted < self.end:
            status, updated = {**status, **_STOPPED}, self.deleted
        times = {"created-on": self.created, "updated-on": self._date(updated)}
        if updated in (self.deleted, self.end):
            times["completed-on"] = self._date(updated)
        return Registration(self.start, self.location, status, times, self.outputs(min(then, self.deleted)))

    def upload(self) -> None:
        """Upload the key-outputs once, after their files are written; those that fail are left out. Blocks."""
        store = self.start.store
        with self.lock:
            if self.is_uploaded or store is None or not isinstance(store.target, Bucket):
                return
            self.is_uploaded = True
            for path in self.plan.outputs.values():
                source = self.folder / self.name / path
                for suffix, file in [("", source)] if source.is_file() else files_below(source):
                    try:
                        store.target.upload(file, f"{store.key(path, self.name)}{suffix}")
                    except BucketError as error:  # the orchestrator only logs it
                        log.info("%s: %s", self.start.rest_uid, error)

    def _time(self, moment: Moment) -> float:
        return self.scheduled + moment.at * self.plan.stretch

    def _date(self, seconds: float) -> datetime:
        return self.created + timedelta(seconds=seconds - self.started)


def _unscheduled() -> Status:
    """Return the status of a run that waits for its slot; always the same object."""
    return named_outcomes()["unscheduled"][1].status


def _meta(run: SimulatedRun) -> dict[str, Any]:
    """Return the ``meta`` of a status; all variables are strings."""
    start = run.start
    metadata = start.all_metadata
    inputs = [f"/tmp/inputs/input/{file}" for file in start.inputs]
    data = [f"/tmp/inputs/data/{file}" for file in start.data if start.flowir is None]
    arguments = ["elaunch.py", *(f"-i {path}" for path in inputs), *(f"-d {path}" for path in data)]
    if start.variables:
        arguments.append("-a /tmp/inputs/input/st4sd-variables.yaml")
    arguments += ["-l15", "--nostamp", f"--instanceName {run.name.removesuffix('.instance')}"]
    arguments += [f"--platform={start.platform}"] if start.platform else []
    arguments += [*start.options, *(f"-m{key}:{value}" for key, value in metadata.items())]
    package = "lambda.package" if start.flowir is not None else f"{metadata['st4sd-package-name']}.git"
    variables = dict(start.variables)
    all_variables = start.all_variables
    return {
        "arguments": " ".join([*arguments, f"/tmp/pod/package/{package}"]),
        "data": data,
        "hybridPlatform": None,
        "inputs": inputs,
        "instanceName": run.name,
        "pid": run.number,
        "platform": start.platform or "default",
        "userMetadata": dict(sorted(metadata.items())),
        "userVariables": {"global": variables} if variables else {},
        "variables": {
            "global": all_variables,
            "stage": {str(index): all_variables for index in range(len(run.plan.stages))},
        },
        "version": "2.7.0",
    }


class Slots:
    """Slots for runs, assigned in the order of their starts. Not safe to share between threads."""

    def __init__(self, number: int) -> None:
        self._free = number
        self._waiting: deque[SimulatedRun] = deque()
        self._running: set[SimulatedRun] = set()
        self._ends: list[tuple[float, int, SimulatedRun]] = []

    def catch_up(self, now: float) -> None:
        """Assign the slots that were released until now; call this before looking at a run."""
        while self._ends and self._ends[0][0] <= now:
            end, _, run = heapq.heappop(self._ends)
            self._release(run, end)

    def add(self, run: SimulatedRun) -> None:
        """Schedule a run now, or as soon as there is a slot."""
        self._waiting.append(run)
        self._assign(run.started)

    def remove(self, run: SimulatedRun) -> None:
        """Release the slot of a run that was just deleted, if it has one."""
        self._release(run, run.deleted)

    def _release(self, run: SimulatedRun, at: float) -> None:
        if run in self._running:
            self._running.remove(run)
            self._free += 1
            self._assign(at)

    def _assign(self, at: float) -> None:
        while self._free and self._waiting:
            run = self._waiting.popleft()
            if run.deleted == NEVER:
                self._free -= 1
                self._running.add(run)
                run.scheduled = at
                heapq.heappush(self._ends, (run.end, run.number, run))


@dataclass
class _OutcomeRule:
    """The outcome of the next runs of an experiment."""

    outcome: Outcome
    remaining: float
    """Number of starts that it still applies to."""
    stretch: float


class Simulator:
    """An `Engine` that executes nothing. Safe to use from any thread."""

    def __init__(self, folder: Path, packages: Packages, clock: VirtualClock, *, slots: int) -> None:
        """
        Create a simulator without runs.

        Args:
            folder: The folder of instance directories.
            packages: Its packages; they also write the files of runs.
            clock: Its virtual clock.
            slots: Number of runs that go on at the same time; others are unscheduled.
        """
        self._folder = folder
        self.packages = packages
        self._clock = clock
        self._slots = Slots(slots)
        self._lock = threading.Lock()
        self._rules: dict[str, list[_OutcomeRule]] = {}
        self._runs: dict[str, SimulatedRun] = {}
        self._locations: dict[str, str] = {}

    def set_outcome(self, name: str, outcome: str | Sequence[Row], times: int | None, stretch: float) -> None:
        """
        Set the outcome of runs of an experiment that are started from now on.

        Raises:
            ValueError: Unknown outcome, malformed rows, times below 1, or a stretch that is not above 0.
        """
        if times is not None and times < 1:
            raise ValueError(f"times must be at least 1 or None, not {times!r}")
        if stretch <= 0:
            raise ValueError(f"stretch must be above 0, not {stretch!r}")
        rule = _OutcomeRule(parse_outcome(outcome), NEVER if times is None else times, stretch)
        with self._lock:
            rules = self._rules.setdefault(name, [])
            # An unlimited rule comes last and replaces an earlier one; limited ones are used up before it in order.
            unlimited = [other for other in rules[-1:] if other.remaining == NEVER]
            rules[len(rules) - len(unlimited) :] = [rule] if times is None else [rule, *unlimited]

    def inspect(self, package: Mapping[str, Any]) -> PackageFacts:
        """Return what is known about a package; nothing is cloned."""
        return self.packages.facts(package)

    def start(self, start: AcceptedStart) -> None:
        """Accept an instance; it is scheduled now or as soon as there is a slot."""
        package = self.packages.find(start)
        early_failure = _early_failure(start)
        with self._lock:
            now = self._catch_up()
            rule = self._next_rule(start)
            if rule is None or early_failure is not None:
                plan = _plan(package, early_failure or named_outcomes()[package.usual_outcome])
            else:
                plan = _plan(package, rule.outcome, rule.stretch)
            self._slots.add(self._add(start, plan, now, datetime.now(UTC)))

    def populate(self, starts: Sequence[AcceptedStart], outcome: str | Sequence[Row]) -> None:
        """
        Add runs of one experiment, at least one, that were started long ago, one per second, without slots.

        Raises:
            ValueError: Unknown outcome or malformed rows.
        """
        plan = _plan(self.packages.find(starts[0]), parse_outcome(outcome))
        with self._lock:
            now, real = self._clock.now(), datetime.now(UTC)
            for index, start in enumerate(starts):
                age = POPULATED_AGE + len(starts) - index
                run = self._add(start, plan, now - age, real - timedelta(seconds=age))
                run.scheduled = run.started

    def starts(self) -> list[AcceptedStart]:
        """List the starts of all runs, including deleted and populated ones."""
        with self._lock:
            return [run.start for run in self._runs.values()]

    def status(self, rest_uid: str) -> dict[str, Any] | None:
        """Return what a request for the run shows."""
        run, now = self._find(rest_uid)
        return run.complete(run.moment(now).status) if run else None

    def listed_status(self, rest_uid: str) -> dict[str, Any] | None:
        """Return what the list shows."""
        run, now = self._find(rest_uid)
        return run.complete(run.moment(now).listed) if run else None

    def outputs(self, rest_uid: str) -> dict[str, dict[str, str]]:
        """Return the key-outputs; their files are written when the directory is requested."""
        run, now = self._find(rest_uid)
        return run.outputs(now) if run else {}

    def directory(self, rest_uid: str) -> Path | None:
        """Return the instance directory, with the files that exist by now; None before the run is registered."""
        with self._lock:
            now, run = self._catch_up(), self._runs.get(rest_uid)
        if run is None:
            return None
        now = min(now, run.deleted)
        if not run.is_registered(now):
            return None
        package, current = self.packages.find(run.start), run.moment(now)
        is_usual = run.plan.outcome is named_outcomes()[package.usual_outcome]
        if current.has_outputs or (current.releases_slot and is_usual):
            self._write_results(run)
        else:
            package.write_inputs(run.start, self._folder / run.name)
        return self._folder / run.name

    def locations(self) -> dict[str, str]:
        """Return the paths of all instance directories, even if they do not exist yet -> rest-uid."""
        with self._lock:
            return dict(self._locations)

    def documents(self, rest_uid: str, types: Collection[str]) -> list[dict[str, Any]]:
        """Return the documents about a run as it was `DATASTORE_LAG` ago, even if it was deleted."""
        with self._lock:
            now, run = self._catch_up(), self._runs.get(rest_uid)
        registration = run.registration(now - DATASTORE_LAG) if run else None
        if run is None or registration is None:
            return []
        package, documents = self.packages.find(run.start), []
        if EXPERIMENT in types:
            succeeded = registration.status["exit-status"] == "Success"
            documents.append(experiment_document(registration, package.interface(run.start, succeeded=succeeded)))
        if USER_METADATA in types:
            documents.append(user_metadata_document(registration))
        if COMPONENT in types:
            self.directory(rest_uid)
            documents += [_component_document(registration, component) for component in package.components]
        return documents

    def delete(self, rest_uid: str) -> None:
        """Delete a run; its slot is free at once."""
        with self._lock:
            now = self._catch_up()
            run = self._runs.get(rest_uid)
            if run is not None and run.deleted == NEVER:
                run.deleted = now
                self._slots.remove(run)

    def close(self) -> None:
        """Do nothing: there are no processes or threads to stop."""

    def _next_rule(self, start: AcceptedStart) -> _OutcomeRule | None:
        rules = self._rules.get(start.package["metadata"]["package"]["name"])
        if not rules:
            return None
        rule = rules[0]
        rule.remaining -= 1
        if not rule.remaining:
            del rules[0]
        return rule

    def _add(self, start: AcceptedStart, plan: Plan, started: float, created: datetime) -> SimulatedRun:
        run = SimulatedRun(start, len(self._runs) + 1, plan, started, created, self._folder)
        self._runs[start.rest_uid] = run
        self._locations[run.location] = start.rest_uid
        return run

    def _find(self, rest_uid: str) -> tuple[SimulatedRun | None, float]:
        """Return a run that was not deleted, with its key-outputs uploaded, and the current time."""
        with self._lock:
            now = self._catch_up()
            run = self._runs.get(rest_uid)
        if run is None or run.deleted != NEVER:
            return None, now
        if run.start.store is not None and run.moment(now).has_outputs:
            self._write_results(run)
            run.upload()
        return run, now

    def _write_results(self, run: SimulatedRun) -> None:
        with run.lock:
            if not run.has_results:
                self.packages.find(run.start).write_results(run.start, self._folder / run.name)
                run.has_results = True

    def _catch_up(self) -> float:
        """Assign slots up to the current time and return it; call with the lock held."""
        now = self._clock.now()
        self._slots.catch_up(now)
        return now


def _plan(package: Package, outcome: Outcome, stretch: float = 1.0) -> Plan:
    return Plan(outcome, stretch, package.stages, package.failure, package.outputs)


def _early_failure(start: AcceptedStart) -> Outcome | None:
    """Return the outcome of a run that cannot begin because of its files or its store; None if it can."""
    if start.problem is not None:
        return with_error("init-failure", f"initContainer failure: {start.problem}")
    for name, content in (*start.inputs.items(), *start.data.items()):
        if isinstance(content, Path) and not content.is_file():
            return with_error("setup-failure", f"[Errno 2] No such file or directory: '/tmp/s3-root-dir/{name}'")
    if start.store is not None and isinstance(start.store.target, Bucket) and not start.store.path:
        problem = f'Invalid S3 URI "s3://{start.store.target.name}" format is s3://<bucket-name>/path/to/folder'
        return with_error("setup-failure", f"ValueError {problem} ValueError {problem}")
    return None


def _component_document(registration: Registration, component: Component) -> dict[str, Any]:
    """Return the document about a component; it lists files once the component has run."""
    instance, location = instance_uri(registration.location), f"{registration.location}/{component.directory}"
    state = _component_state(registration.status, component)
    flowir = _component_flowir(component, registration.start.all_variables)
    folder = Path(location) if state in ("finished", "failed") else None
    files = [str(path) for path in sorted(folder.rglob("*")) if path.is_file()] if folder else []
    content = json.dumps([flowir, dict(registration.start.inputs), dict(registration.start.data)], default=str)
    memoization = hashlib.md5(content.encode(), usedforsecurity=False).hexdigest() if state == "finished" else ""
    return {
        "name": component.name,
        "stage": component.stage,
        "location": location,
        "files": files,
        "type": COMPONENT,
        "flowir": flowir,
        "memoization-hash": memoization,
        "component-identifier": component.reference,
        "producers": {f"{instance}&{producer}": paths for producer, paths in component.producers.items()},
        "memoization-hash-fuzzy": memoization,
        "component-state": state,
        "instance": instance,
        "uid": f"{instance}&{component.reference}",
    }


def _component_state(status: Mapping[str, Any], component: Component) -> str:
    """Return the state of a component of a simulated run, where only the first stage can fail."""
    if status["exit-status"] == "Success":
        return "finished"
    if status["stage-state"] != "failed":
        return "running"
    return "failed" if status["exit-status"] == "Failed" and component.stage == 0 else "component_shutdown"


def _component_flowir(component: Component, variables: Mapping[str, str]) -> dict[str, Any]:
    """Return the definition of a component without defaults."""
    command = {"executable": "python3", "arguments": component.command_line(variables)}
    backend = {"config": {"backend": "local", "walltime": 60.0}}
    return {
        "stage": component.stage,
        "name": component.name,
        "command": command,
        "references": component.references,
        "variables": dict(variables),
        "resourceManager": backend,
    }
