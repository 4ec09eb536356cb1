"""
One run of the simulator: a sequence, when it began, and what is shown of it at a time.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from st4sd_async.local.datastore.documents import Registration
from st4sd_async.local.engine.instance_files import output_entry
from st4sd_async.local.engine.interface import AcceptedStart
from st4sd_async.local.http.archives import files_below
from st4sd_async.local.runtime.storage import Bucket, BucketError
from st4sd_async.local.simulator.sequences import (
    EMPTY,
    NO_POD,
    UNSCHEDULED,
    Moment,
    View,
    duration,
    moment,
    written,
)

log = logging.getLogger("st4sd_async.local")
NEVER = float("inf")
_STOPPED = {
    "experiment-state": "finished",
    "stage-state": "failed",
    "exit-status": "Stopped",
    "error-description": "Killed by user signal",
}
"""The last words of an orchestrator that was told to stop."""


@dataclass(frozen=True)
class Course:
    """How a run goes."""

    sequence: Sequence[Moment]
    """What it shows from when on."""
    stretch: float
    """How many times longer than usual it takes."""
    stages: list[str]
    """The stages of its package."""
    failure: str
    """The error description if a component fails."""
    outputs: Mapping[str, str]
    """key-output -> its path in the instance directory."""


@dataclass(eq=False)
class SimulatedRun:
    """One run; times are virtual, in seconds, unless they are a `datetime`."""

    launch: AcceptedStart
    number: int
    """How many runs were started until then; it passes for the process id."""
    course: Course
    started: float
    stamp: datetime
    """The real time of the start."""
    folder: Path
    """Where its instance directory goes."""
    begun: float = NEVER
    """When it got its slot."""
    deleted: float = NEVER
    is_made: bool = False
    """Whether its files are there; look and make them with the lock."""
    is_uploaded: bool = False
    """Whether its key-outputs are where they should be uploaded to, as far as they can be."""
    lock: threading.Lock = field(default_factory=threading.Lock)
    _shown: tuple[View, dict[str, Any] | None] = (None, None)
    _outputs: dict[str, dict[str, str]] | None = None

    @property
    def instance(self) -> str:
        """The name of the instance directory."""
        return f"{self.launch.stem}-{self.stamp:%Y-%m-%dT%H%M%S.%f}.instance"

    @property
    def location(self) -> str:
        """The path of the instance directory."""
        return f"{self.folder}/{self.instance}"

    @property
    def end(self) -> float:
        """When it gives its slot back, unless it is deleted before."""
        return self.begun + duration(self.course.sequence, self.course.stretch)

    def moment(self, now: float) -> Moment:
        """What is shown at a time."""
        pod = now - self.started >= NO_POD
        if now < self.begun:
            return Moment(0.0, UNSCHEDULED, EMPTY) if pod else Moment(0.0, None)
        current = moment(self.course.sequence, now - self.begun, self.course.stretch)
        # A run that waited for its slot has been known to the cluster all the time.
        forgotten = current.detail is None and pod and self.begun > self.started
        return Moment(0.0, EMPTY, EMPTY) if forgotten else current

    def written(self, view: View) -> dict[str, Any] | None:
        """A view in the words of the wire; as long as it is the same view, the same object."""
        shown = self._shown
        if shown[0] is not view:
            course = self.course
            shown = self._shown = (view, written(view, course.stages, _meta(self), course.failure))
        return shown[1]

    def outputs(self, now: float) -> dict[str, dict[str, str]]:
        """The key-outputs at a time; their files need not be there yet."""
        if not self.moment(now).outputs:
            return {}
        if self._outputs is None:
            first = next(one for one in self.course.sequence if one.outputs)
            created = self._date(self._time(first)).timestamp()
            self._outputs = {name: output_entry(path, created) for name, path in self.course.outputs.items()}
        return self._outputs

    def registration(self, then: float) -> Registration | None:
        """What the datastore knows that is as far behind as a time; None: nothing."""
        current = self.moment(min(then, self.deleted))
        status, updated = self.written(current.listed), self._time(current)
        if not status or not status["meta"]:
            return None
        if self.deleted <= then and self.deleted < self.end:
            status, updated = {**status, **_STOPPED}, self.deleted
        times = {"created-on": self.stamp, "updated-on": self._date(updated)}
        if updated in (self.deleted, self.end):
            times["completed-on"] = self._date(updated)
        return Registration(self.launch, self.location, status, times, self.outputs(min(then, self.deleted)))

    def upload(self) -> None:
        """Upload the key-outputs, whose files are there, unless that was done; what cannot be is left out. Blocks."""
        store = self.launch.store
        with self.lock:
            if self.is_uploaded or store is None or not isinstance(store.target, Bucket):
                return
            self.is_uploaded = True
            for path in self.course.outputs.values():
                source = self.folder / self.instance / path
                for inside, file in [("", source)] if source.is_file() else files_below(source):
                    try:
                        store.target.upload(file, f"{store.key(path, self.instance)}{inside}")
                    except BucketError as problem:  # of which the orchestrator only writes a line into its log
                        log.info("%s: %s", self.launch.rest_uid, problem)

    def _time(self, current: Moment) -> float:
        return self.begun + current.at * self.course.stretch

    def _date(self, time: float) -> datetime:
        return self.stamp + timedelta(seconds=time - self.started)


def _meta(run: SimulatedRun) -> dict[str, Any]:
    """The ``meta`` of a status, all variables as strings."""
    launch, instance = run.launch, run.instance
    metadata = launch.all_metadata
    inputs = [f"/tmp/inputs/input/{file}" for file in launch.inputs]
    data = [f"/tmp/inputs/data/{file}" for file in launch.data if launch.flowir is None]
    arguments = ["elaunch.py", *(f"-i {path}" for path in inputs), *(f"-d {path}" for path in data)]
    if launch.variables:
        arguments.append("-a /tmp/inputs/input/st4sd-variables.yaml")
    arguments += ["-l15", "--nostamp", f"--instanceName {instance.removesuffix('.instance')}"]
    arguments += [f"--platform={launch.platform}"] if launch.platform else []
    arguments += [*launch.options, *(f"-m{key}:{value}" for key, value in metadata.items())]
    package = "lambda.package" if launch.flowir is not None else f"{metadata['st4sd-package-name']}.git"
    variables = dict(launch.variables)
    everything = launch.all_variables
    return {
        "arguments": " ".join([*arguments, f"/tmp/pod/package/{package}"]),
        "data": data,
        "hybridPlatform": None,
        "inputs": inputs,
        "instanceName": instance,
        "pid": run.number,
        "platform": launch.platform or "default",
        "userMetadata": dict(sorted(metadata.items())),
        "userVariables": {"global": variables} if variables else {},
        "variables": {
            "global": everything,
            "stage": {str(index): everything for index in range(len(run.course.stages))},
        },
        "version": "2.7.0",
    }
