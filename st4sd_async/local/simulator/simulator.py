"""
The engine that simulates runs on a virtual clock.

The status of a run is computed from its outcome and the time when it is requested, without threads or timers.
Files are written when they are first requested. The outcomes are in ``outcomes.json``.
"""

from __future__ import annotations

import hashlib
import heapq
import json
import logging
import threading
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
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
from st4sd_async.local.engine.interface import AcceptedStart, PackageContent, PackageFacts
from st4sd_async.local.engine.orchestrator import unknown_option
from st4sd_async.local.engine.saved_runs import SavedRuns
from st4sd_async.local.http.archives import files_below
from st4sd_async.local.simulator.clock import VirtualClock
from st4sd_async.local.simulator.components import RunComponent
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
from st4sd_async.local.state import State

log: logging.Logger = logging.getLogger("st4sd_async.local")

DATASTORE_LAG = 10.0
"""Virtual seconds by which the datastore lags behind the runtime service; 10 to 20 were observed."""
POD_DELAY = 0.3
"""Virtual seconds from the start of a run until the cluster has a pod for it."""
POPULATED_AGE = 30 * 24 * 3600.0
"""Virtual seconds since the last populated instance was started."""
NEVER = float("inf")
_SAVED_FIELDS = ("started", "scheduled", "deleted", "has_slot", "has_results", "is_uploaded")

_EMPTY: Status = {}
_STOPPED = {
    "experiment-state": "finished",
    "stage-state": "failed",
    "exit-status": "Stopped",
    "error-description": "Killed by user signal",
}
"""The last status that a stopped orchestrator writes."""


@dataclass(frozen=True)
class Plan:
    """The course of a run."""

    outcome: Outcome
    stretch: float
    """Factor by which the times of the outcome are multiplied."""
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
    """Number of the run, from 1; also used as its process id."""
    plan: Plan
    started: float
    created: datetime
    """Real time of the start."""
    folder: Path
    """The folder of the instance directory."""
    packages: Packages
    has_slot: bool = True
    """Whether the run needs a slot to run."""
    scheduled: float = NEVER
    """When the run got its slot."""
    deleted: float = NEVER
    has_results: bool = False
    """Whether its final files were written; guarded by the lock."""
    is_uploaded: bool = False
    """Whether an upload of its key-outputs was attempted; guarded by the lock."""
    lock: threading.Lock = field(default_factory=threading.Lock)
    _completed: tuple[Status, dict[str, Any] | None] = (None, None)
    _package: Package | None = None
    _outputs: dict[str, dict[str, str]] | None = None

    @property
    def package(self) -> Package:
        """The package of the run."""
        if self._package is None:
            self._package = self.packages.find(self.start)
        return self._package

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
        """When the run releases its slot, unless it is deleted before."""
        return self.scheduled + duration(self.plan.outcome, self.plan.stretch)

    def moment(self, now: float) -> Moment:
        """Return the moment of the run at a time."""
        has_pod = now - self.started >= POD_DELAY
        if now < self.scheduled:
            return Moment(0.0, _unscheduled(), _EMPTY) if has_pod else Moment(0.0, None, None)
        current = current_moment(self.plan.outcome, now - self.scheduled, self.plan.stretch)
        # A run that waited for its slot has a pod already.
        has_status = current.status is not None or current.is_recorded or self.scheduled == self.started
        return current if has_status or not has_pod else Moment(0.0, _EMPTY, _EMPTY)

    def complete(self, status: Status) -> dict[str, Any] | None:
        """Return a status with all keys of the service; the same object if the status is the same."""
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
        """Return the run as the datastore knew it at a time; None if it was not registered yet."""
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

    def upload(self) -> bool:
        """
        Upload the key-outputs once, after their files are written; log failures and continue. Blocks.

        Returns:
            Whether this call uploaded them.
        """
        store = self.start.store
        with self.lock:
            if self.is_uploaded or store is None or not isinstance(store.target, Bucket):
                return False
            self.is_uploaded = True
            for path in self.plan.outputs.values():
                source = self.folder / self.name / path
                for suffix, file in [("", source)] if source.is_file() else files_below(source):
                    try:
                        store.target.upload(file, f"{store.key(path, self.name)}{suffix}")
                    except BucketError as error:  # as the orchestrator does
                        log.info("%s: %s", self.start.rest_uid, error)
            return True

    def _time(self, moment: Moment) -> float:
        return self.scheduled + moment.at * self.plan.stretch

    def _date(self, seconds: float) -> datetime:
        return self.created + timedelta(seconds=seconds - self.started)


def _unscheduled() -> Status:
    """Return the status of a run that waits for a slot; always the same object."""
    return named_outcomes()["unscheduled"][1].status


def _meta(run: SimulatedRun) -> dict[str, Any]:
    """Return the ``meta`` of a status."""
    start = run.start
    metadata = start.all_metadata
    inputs = [f"/tmp/inputs/input/{file}" for file in start.inputs]
    data = [f"/tmp/inputs/data/{file}" for file in start.data if start.flowir is None]
    arguments = ["elaunch.py", *(f"-i {path}" for path in inputs)]
    arguments += ["-a /tmp/inputs/input/st4sd-variables.yaml"] if start.variables else []
    arguments += [
        *(f"-d {path}" for path in data),
        "-l15",
        "--nostamp",
        f"--instanceName {run.name.removesuffix('.instance')}",
    ]
    arguments += [f"--platform={start.platform}"] if start.platform else []
    arguments += [*start.options, *(f"-m{key}:{value}" for key, value in metadata.items())]
    variables = dict(start.variables)
    return {
        "arguments": " ".join([*arguments, start.package_path]),
        "data": data,
        "hybridPlatform": None,
        "inputs": inputs,
        "instanceName": run.name,
        "pid": run.number,
        "platform": start.platform or "default",
        "userMetadata": dict(sorted(metadata.items())),
        "userVariables": {"global": variables} if variables else {},
        "variables": run.package.variables(start),
        "version": "2.7.0",
    }


class Slots:
    """Slots for runs, assigned in the order of their starts. Not safe to share between threads."""

    def __init__(self, number: int) -> None:
        self._free = number
        self._assigned: list[SimulatedRun] = []
        self._waiting: deque[SimulatedRun] = deque()
        self._running: set[SimulatedRun] = set()
        self._ends: list[tuple[float, int, SimulatedRun]] = []

    def catch_up(self, now: float) -> None:
        """Assign the slots that were released until now; call this before reading a run."""
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

    def restore(self, runs: Sequence[SimulatedRun]) -> None:
        """Add the runs of an earlier server in the order of their starts, after the last change of any run."""
        changes = [time for run in runs for time in (run.started, run.scheduled, run.deleted) if time != NEVER]
        for run in runs:
            if not run.has_slot or run.deleted != NEVER:
                continue
            if run.scheduled == NEVER:
                self._waiting.append(run)
            elif run.end > max(changes):
                self._occupy(run)

    def resize(self, number: int, at: float) -> None:
        """Change the number of slots. If there are fewer now, runs that have a slot keep it."""
        self._free = number - len(self._running)
        self._assign(at)

    def take_assigned(self) -> list[SimulatedRun]:
        """Return the runs that got a slot since the last call."""
        assigned, self._assigned = self._assigned, []
        return assigned

    def _release(self, run: SimulatedRun, at: float) -> None:
        if run in self._running:
            self._running.remove(run)
            self._free += 1
            self._assign(at)

    def _assign(self, at: float) -> None:
        while self._free > 0 and self._waiting:
            run = self._waiting.popleft()
            if run.deleted == NEVER:
                run.scheduled = at
                self._occupy(run)
                self._assigned.append(run)

    def _occupy(self, run: SimulatedRun) -> None:
        self._free -= 1
        self._running.add(run)
        heapq.heappush(self._ends, (run.end, run.number, run))


@dataclass
class _OutcomeRule:
    """An outcome for the next starts of an experiment."""

    outcome: Outcome
    remaining: float
    """Number of starts to which it still applies."""
    stretch: float


class Simulator:
    """An `Engine` that simulates runs. Safe to use from any thread."""

    def __init__(
        self, folder: Path, packages: Packages, clock: VirtualClock, *, slots: int, state: State | None = None
    ) -> None:
        """
        Create a simulator with the runs of its state.

        The clock continues as if the server had not stopped, so runs may have ended in the meantime.

        Args:
            folder: The folder of instance directories.
            packages: The packages; they also write the files of runs.
            clock: The virtual clock.
            slots: Number of runs at the same time; further runs are unscheduled.
            state: The state of the server. None means that the simulator has no runs, and saves none.
        """
        state = state or State()
        self._saved = SavedRuns(state)
        self._clock_table = state.table("clock")
        self._folder = folder
        self.packages = packages
        self._clock = clock
        self._number_of_slots = slots
        self._lock = threading.Lock()
        self._rules: dict[str, list[_OutcomeRule]] = {}
        self._runs: dict[str, SimulatedRun] = {}
        self._locations: dict[str, str] = {}
        self._slots = self._restore()

    def _restore(self) -> Slots:
        """Restore the clock and the runs of the state, and return the slots."""
        saved = self._clock_table.get("last", {**self._clock.save(), "slots": self._number_of_slots})
        self._clock.restore(saved)
        slots = Slots(saved["slots"])
        for start, facts in self._saved.restored():
            run = _restored_run(start, facts, len(self._runs) + 1, self._folder, self.packages)
            self._insert(run, is_new=False)
        slots.restore([*self._runs.values()])
        now = self._clock.now()
        slots.catch_up(now)
        slots.resize(self._number_of_slots, now)
        self._save_changes(slots.take_assigned())
        self._save_clock()
        return slots

    def restored(self) -> list[AcceptedStart]:
        """List the starts of all runs that were not deleted."""
        with self._lock:
            return [run.start for run in self._runs.values() if run.deleted == NEVER]

    def advance(self, seconds: float) -> None:
        """Move the clock forward."""
        self._clock.advance(seconds)
        self._save_clock()

    def _save_clock(self) -> None:
        self._clock_table["last"] = {**self._clock.save(), "slots": self._number_of_slots}

    def set_outcome(self, name: str, outcome: str | Sequence[Row], times: int | None, stretch: float) -> None:
        """
        Set the outcome of future starts of an experiment.

        Raises:
            ValueError: The outcome is unknown, a row is malformed, times is below 1, or stretch is not above 0.
        """
        if times is not None and times < 1:
            raise ValueError(f"times must be at least 1 or None, not {times!r}")
        if stretch <= 0:
            raise ValueError(f"stretch must be above 0, not {stretch!r}")
        rule = _OutcomeRule(parse_outcome(outcome), NEVER if times is None else times, stretch)
        with self._lock:
            rules = self._rules.setdefault(name, [])
            # An unlimited rule comes last and replaces an earlier one; limited rules are used up before it, in order.
            unlimited = [other for other in rules[-1:] if other.remaining == NEVER]
            rules[len(rules) - len(unlimited) :] = [rule] if times is None else [rule, *unlimited]

    def inspect(self, package: Mapping[str, Any]) -> PackageFacts:
        """Return the facts about a package, from the package itself if the simulator reads it."""
        return self.packages.facts(package)

    def content(self, package: Mapping[str, Any]) -> PackageContent | None:
        """Return the content of a package; None if it is not read."""
        return self.packages.content(package)

    def start(self, start: AcceptedStart) -> None:
        """Accept an instance; it is scheduled now or as soon as there is a slot."""
        start = self.packages.current(start)
        package = self.packages.find(start)
        early_failure = _early_failure(start, package.setup_problem)
        with self._lock:
            now = self._catch_up()
            rule = self._next_rule(start)
            if rule is None or early_failure is not None:
                plan = _plan(package, early_failure or named_outcomes()[package.usual_outcome])
            else:
                plan = _plan(package, rule.outcome, rule.stretch)
            run = self._create(start, package, plan, now, datetime.now(UTC))
            self._slots.add(run)
            self._slots.take_assigned()
            self._insert(run, is_new=True)

    def populate(self, starts: Sequence[AcceptedStart], outcome: str | Sequence[Row]) -> None:
        """
        Add runs of one experiment that were started long ago, one per second. They use no slots.

        Args:
            starts: The starts; at least one.
            outcome: The outcome of all of these runs.

        Raises:
            ValueError: The outcome is unknown, or a row is malformed.
        """
        package = self.packages.find(starts[0])
        plan = _plan(package, parse_outcome(outcome))
        with self._lock, self._saved.transaction():
            now, real = self._clock.now(), datetime.now(UTC)
            for index, start in enumerate(starts):
                age = POPULATED_AGE + len(starts) - index
                run = self._create(start, package, plan, now - age, real - timedelta(seconds=age))
                run.scheduled, run.has_slot = run.started, False
                self._insert(run, is_new=True)

    def starts(self) -> list[AcceptedStart]:
        """List the starts of all runs, including deleted and populated ones."""
        with self._lock:
            return [run.start for run in self._runs.values()]

    def status(self, rest_uid: str) -> dict[str, Any] | None:
        """Return the status in a response about the run; None if there is no status, or no such run."""
        run, now = self._find(rest_uid)
        return run.complete(run.moment(now).status) if run else None

    def listed_status(self, rest_uid: str) -> dict[str, Any] | None:
        """Return the status in the list of instances; None if there is no status, or no such run."""
        run, now = self._find(rest_uid)
        return run.complete(run.moment(now).listed) if run else None

    def outputs(self, rest_uid: str) -> dict[str, dict[str, str]]:
        """Return the key-outputs that exist; their files are written when the directory is requested."""
        run, now = self._find(rest_uid)
        return run.outputs(now) if run else {}

    def directory(self, rest_uid: str) -> Path | None:
        """Return the instance directory with the files that exist so far; None if the run is not registered."""
        with self._lock:
            now, run = self._catch_up(), self._runs.get(rest_uid)
        if run is None:
            return None
        now = min(now, run.deleted)
        if not run.is_registered(now):
            return None
        current = run.moment(now)
        is_usual = run.plan.outcome is named_outcomes()[run.package.usual_outcome]
        has_failed = _has_failed_component(current.status)
        if current.has_outputs or (is_usual and (current.releases_slot or has_failed)):
            self._write_results(run)
        elif has_failed:
            self._write_results(run, run.package.write_failure)
        else:
            with run.lock:
                run.package.write_inputs(run.start, self._folder / run.name)
        return self._folder / run.name

    def interface(self, rest_uid: str) -> dict[str, Any] | None:
        """Return the interface of a run; None if the run is unknown. The properties are not yet among its files."""
        with self._lock:
            run = self._runs.get(rest_uid)
        return run.package.interface(run.start, succeeded=False) if run else None

    def locations(self) -> dict[str, str]:
        """Return path of the instance directory -> rest-uid, for all runs; the directory may not exist yet."""
        with self._lock:
            return dict(self._locations)

    def documents(self, rest_uid: str, types: Collection[str]) -> list[dict[str, Any]]:
        """Return the documents about a run as of `DATASTORE_LAG` seconds ago, even if the run was deleted."""
        with self._lock:
            now, run = self._catch_up(), self._runs.get(rest_uid)
        registration = run.registration(now - DATASTORE_LAG) if run else None
        if run is None or registration is None:
            return []
        package, documents = run.package, []
        if EXPERIMENT in types:
            succeeded = registration.status["exit-status"] == "Success"
            documents.append(experiment_document(registration, package.interface(run.start, succeeded=succeeded)))
        if USER_METADATA in types:
            documents.append(user_metadata_document(registration))
        if COMPONENT in types:
            self.directory(rest_uid)
            components = package.components(run.start)
            documents += [
                _component_document(registration, component, is_first=component is components[0])
                for component in components
            ]
        return documents

    def delete(self, rest_uid: str) -> None:
        """Delete a run and release its slot at once."""
        with self._lock:
            now = self._catch_up()
            run = self._runs.get(rest_uid)
            if run is not None and run.deleted == NEVER:
                run.deleted = now
                self._slots.remove(run)
                self._save_changes([run, *self._slots.take_assigned()])

    def close(self) -> None:
        """Kill running git commands."""
        self.packages.close()

    def _next_rule(self, start: AcceptedStart) -> _OutcomeRule | None:
        rules = self._rules.get(start.package["metadata"]["package"]["name"])
        if not rules:
            return None
        rule = rules[0]
        rule.remaining -= 1
        if not rule.remaining:
            del rules[0]
        return rule

    def _create(
        self, start: AcceptedStart, package: Package, plan: Plan, started: float, created: datetime
    ) -> SimulatedRun:
        number = len(self._runs) + 1
        return SimulatedRun(start, number, plan, started, created, self._folder, self.packages, _package=package)

    def _insert(self, run: SimulatedRun, *, is_new: bool) -> None:
        if is_new and self._saved.is_saved:
            self._saved.add(run.start, _facts(run))
        self._runs[run.start.rest_uid] = run
        self._locations[run.location] = run.start.rest_uid

    def _save_changes(self, runs: Iterable[SimulatedRun]) -> None:
        with self._saved.transaction():
            for run in runs if self._saved.is_saved else ():
                self._saved.update(run.start.rest_uid, _facts(run))

    def _find(self, rest_uid: str) -> tuple[SimulatedRun | None, float]:
        """Return a run, with its key-outputs uploaded, and the current time; no run if it is unknown or was deleted."""
        with self._lock:
            now = self._catch_up()
            run = self._runs.get(rest_uid)
        if run is None or run.deleted != NEVER:
            return None, now
        if run.start.store is not None and run.moment(now).has_outputs:
            self._write_results(run)
            if run.upload():
                self._save_changes([run])
        return run, now

    def _write_results(self, run: SimulatedRun, write: Callable[[AcceptedStart, Path], None] | None = None) -> None:
        """Write the final files of a run once; by default those of the usual outcome of its package."""
        with run.lock:
            if not run.has_results:
                write = write or run.package.write_results
                write(run.start, self._folder / run.name)
                run.has_results = True
                self._save_changes([run])

    def _catch_up(self) -> float:
        """Assign slots up to the current time and return it; call with the lock held."""
        now = self._clock.now()
        self._slots.catch_up(now)
        if assigned := self._slots.take_assigned():
            self._save_changes(assigned)
        return now


def _facts(run: SimulatedRun) -> dict[str, Any]:
    """Return what a state keeps of a run besides its start."""
    outcomes = named_outcomes()
    name = next((name for name, outcome in outcomes.items() if outcome is run.plan.outcome), None)
    return {
        **{field: getattr(run.plan, field) for field in ("stretch", "stages", "failure", "outputs")},
        **{field: getattr(run, field) for field in _SAVED_FIELDS},
        "created": run.created.isoformat(),
        "outcome": name or [vars(moment) for moment in run.plan.outcome],
    }


def _restored_run(
    start: AcceptedStart, facts: Mapping[str, Any], number: int, folder: Path, packages: Packages
) -> SimulatedRun:
    """Return the run of an earlier server."""
    outcome = facts["outcome"]
    moments = named_outcomes()[outcome] if isinstance(outcome, str) else tuple(Moment(**moment) for moment in outcome)
    plan = Plan(moments, facts["stretch"], facts["stages"], facts["failure"], facts["outputs"])
    times = {field: facts[field] for field in _SAVED_FIELDS}
    created = datetime.fromisoformat(facts["created"])
    return SimulatedRun(start, number, plan, created=created, folder=folder, packages=packages, **times)


def _plan(package: Package, outcome: Outcome, stretch: float = 1.0) -> Plan:
    return Plan(outcome, stretch, package.stages, package.failure, package.outputs)


def _early_failure(start: AcceptedStart, setup_problem: str | None) -> Outcome | None:
    """Return the outcome of a run that cannot begin because of its files, options, store or package; else None."""
    if start.problem is not None:
        return with_error("init-failure", f"initContainer failure: {start.problem}")
    for name, content in (*start.inputs.items(), *start.data.items()):
        if isinstance(content, Path) and not content.is_file():
            return with_error("setup-failure", f"[Errno 2] No such file or directory: '/tmp/s3-root-dir/{name}'")
    if option := unknown_option(start.options):
        problem = f"During argument parsing of sys-args, ran into BadOptionError no such option: {option}"
        return with_error("setup-failure", problem)
    if start.store is not None and isinstance(start.store.target, Bucket) and not start.store.path:
        problem = f'Invalid S3 URI "s3://{start.store.target.name}" format is s3://<bucket-name>/path/to/folder'
        return with_error("setup-failure", f"ValueError {problem} ValueError {problem}")
    return None if setup_problem is None else with_error("setup-failure", setup_problem)


def _component_document(registration: Registration, component: RunComponent, *, is_first: bool) -> dict[str, Any]:
    """Return the document about a component; it lists files if the component has ended."""
    instance, location = instance_uri(registration.location), f"{registration.location}/{component.directory}"
    state = _component_state(registration.status, is_first=is_first)
    folder = Path(location) if state in ("finished", "failed") else None
    files = [str(path) for path in sorted(folder.rglob("*")) if path.is_file()] if folder else []
    content = json.dumps(
        [component.flowir, dict(registration.start.inputs), dict(registration.start.data)], default=str
    )
    memoization = hashlib.md5(content.encode(), usedforsecurity=False).hexdigest() if state == "finished" else ""
    return {
        "name": component.name,
        "stage": component.stage,
        "location": location,
        "files": files,
        "type": COMPONENT,
        "flowir": component.flowir,
        "memoization-hash": memoization,
        "component-identifier": component.reference,
        "producers": {f"{instance}&{producer}": paths for producer, paths in component.producers.items()},
        "memoization-hash-fuzzy": memoization,
        "component-state": state,
        "instance": instance,
        "uid": f"{instance}&{component.reference}",
    }


def _has_failed_component(status: Status) -> bool:
    """Return whether a component of a run with this status failed."""
    return status is not None and (status.get("stage-state"), status.get("exit-status")) == ("failed", "Failed")


def _component_state(status: Mapping[str, Any], *, is_first: bool) -> str:
    """Return the state of a component of a simulated run, in which only the first component can fail."""
    if status["exit-status"] == "Success":
        return "finished"
    if status["stage-state"] != "failed":
        return "running"
    return "failed" if status["exit-status"] == "Failed" and is_first else "component_shutdown"
