"""
The engine that executes runs on this machine with ``elaunch.py`` of st4sd-runtime-core.

Statuses, outputs and files come from the orchestrator. This module adds the statuses that a cluster would add (waiting
for resources, a failed clone, a killed container), with the messages of the service.
"""

from __future__ import annotations

import atexit
import contextlib
import glob
import math
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Any

from st4sd_async.local.engine import instance_files as files
from st4sd_async.local.engine.documents import (
    EXPERIMENT,
    GATEWAY,
    Registration,
    experiment_document,
    identity,
    user_metadata_document,
)
from st4sd_async.local.engine.guard import Guard
from st4sd_async.local.engine.interface import AcceptedStart, PackageContent, PackageFacts, PackageProblem
from st4sd_async.local.engine.orchestrator import (
    MONITOR,
    Orchestrator,
    Process,
    find_orchestrator,
    kill_group,
    write_lambda_package,
    write_start_files,
)
from st4sd_async.local.engine.packages import ClonedPackages, clone_problem
from st4sd_async.local.engine.processes import ChildProcesses, GitFailed
from st4sd_async.local.engine.saved_runs import SavedRuns
from st4sd_async.local.state import State

SLOTS = 2
"""Number of runs at the same time. Each run keeps a processor core busy for a second, and then mostly waits."""
STOP_GRACE = 20.0
"""Seconds until a deleted run is killed. A run takes about 6 s to stop."""
CLOSE_GRACE = 1.5
"""Seconds until all runs are killed after the engine was closed."""
JOIN_TIMEOUT = 5.0
"""Seconds to wait for the threads of killed runs."""
POLL_INTERVAL = 0.1
"""Seconds between two checks of a running process."""
COMPONENTS_DELAY = 10.0
"""Seconds between two reads of the states of components for the datastore, as in the orchestrator."""
FINAL_STATES, FINAL_EXIT_STATUSES = ("finished", "failed"), ("Success", "Failed", "Stopped")
POD_DELAY = 0.3
"""Seconds from the start of a run until a cluster would have a pod for it. Until then the run has no status."""


class Phase(StrEnum):
    """How far an engine is with a run."""

    QUEUED = "queued"
    EXECUTING = "executing"
    OVER = "over"


class ElaunchRun:
    """
    A run of the orchestrator, from the clone of its package to its last file.

    One thread calls `execute`, which blocks until the run is over. Other methods may be called from any thread and
    return quickly, unless they say that they block.
    """

    def __init__(
        self,
        start: AcceptedStart,
        folder: Path,
        processes: ChildProcesses,
        guard: Guard,
        *,
        saved: SavedRuns | None = None,
        pod_delay: float | None = None,
    ) -> None:
        """
        Args:
            start: The start.
            folder: The folder of the run.
            processes: Runs the inspection script.
            guard: Kills the run if this process is killed.
            saved: Where changes of the run are saved. None means that they are not.
            pod_delay: Seconds until the run has a status. None means `POD_DELAY`.
        """
        stamp = datetime.now(UTC).strftime("%Y-%m-%dT%H%M%S.%f")
        self.name: str = f"{start.stem}-{stamp}"
        """The name of the instance directory without its suffix: ``demo-c52cd4-2026-11-22T100507.603242``."""
        self.start = start
        self._folder = folder
        self._processes = processes
        self._guard = guard
        self._saved = saved or SavedRuns()
        self._phase = Phase.QUEUED
        self.is_deleted = False
        self._process: Process | None = None
        self._stopped = False
        self._kill_at: float | None = None
        self._lock = threading.Lock()
        self._is_queued = False
        self._has_pod_at = time.monotonic() + (POD_DELAY if pod_delay is None else pod_delay)
        self._meta: dict[str, Any] | None = None
        self._last_status: dict[str, Any] | None = None
        self._exit_code: int | None = None
        self._failure: dict[str, Any] | None = None
        self._outputs: dict[str, dict[str, str]] = {}
        self._components: list[dict[str, Any]] = []

    @property
    def can_execute(self) -> bool:
        """Whether the run was neither executed nor deleted."""
        return self._phase is Phase.QUEUED and not self.is_deleted

    def facts(self) -> dict[str, Any]:
        """Return what is saved of the run besides its start."""
        return {
            "name": self.name,
            "phase": self._phase.value,
            "is_deleted": self.is_deleted,
            "exit_code": self._exit_code,
            "failure": self._failure,
            "components": self._components,
        }

    def restore(self, facts: Mapping[str, Any]) -> None:
        """
        Restore the run of an earlier server.

        If it was executing when that server was killed, it was killed too. Its status is then that of a run whose
        orchestrator was killed, unless the orchestrator had written its final status.
        """
        self.name, self._phase, self.is_deleted = facts["name"], Phase(facts["phase"]), facts["is_deleted"]
        self._exit_code, self._failure = facts["exit_code"], facts["failure"]
        self._components = facts["components"]
        self._has_pod_at = time.monotonic()
        if self._phase is Phase.EXECUTING:
            self._complete_directory()
            status = self._last_status or files.NO_STATUS
            is_over = status["experiment-state"] in FINAL_STATES and status["exit-status"] in FINAL_EXIT_STATUSES
            self._exit_code = 0 if is_over else -signal.SIGKILL
            self._enter(Phase.OVER)

    def _enter(self, phase: Phase) -> None:
        self._phase = phase
        self._save()

    def _save(self) -> None:
        self._saved.update(self.start.rest_uid, self.facts())

    def enter_queue(self) -> None:
        """Report the run as unscheduled until `leave_queue` is called."""
        self._is_queued = True

    def leave_queue(self) -> None:
        """Report the run as scheduled."""
        self._is_queued = False

    def execute(self, orchestrator: Orchestrator, packages: ClonedPackages) -> None:
        """Execute the run until its end. Blocks. A failure becomes the status of the run, and is not raised."""
        if self.start.problem is not None:
            self._fail(files.init_failure(self.start.problem))
            return
        try:
            if self.start.flowir is not None:
                package = write_lambda_package(self.start, self._folder)
            else:
                package, _ = packages.current(self.start.package)
            write_start_files(self.start, self._folder)
            process = self._spawn(orchestrator, package)
        except GitFailed as error:
            self._fail(files.init_failure(clone_problem(error)))
        except (OSError, PackageProblem) as error:
            self._fail(files.setup_failure(f"{type(error).__name__} {error}"))
        else:
            if process is not None:
                self._follow(process, orchestrator)

    def _fail(self, status: dict[str, Any]) -> None:
        """Set the status of a run that cannot be executed. A run that was stopped before may be executed later."""
        if not self._stopped:
            self._failure = status
            self._enter(Phase.OVER)

    def read_final_components(self, orchestrator: Orchestrator) -> None:
        """Read the final states of components, in case the orchestrator failed before it reported all. Blocks."""
        if self._exit_code:
            self._read_components(orchestrator)
            self._save()

    def stop(self, grace: float) -> None:
        """
        Stop the run, or prevent it from starting. Returns at once.

        Args:
            grace: Seconds until the run is killed. It takes 6 s to stop and to write its final status. A second call
                can only shorten the time.
        """
        kill_at = time.monotonic() + grace
        with self._lock:
            was_stopped, self._stopped = self._stopped, True
            self._kill_at = kill_at if self._kill_at is None else min(kill_at, self._kill_at)
            if self._process is not None and not was_stopped:
                self._process.terminate()

    def delete(self, grace: float) -> None:
        """Stop the run, and never execute it again; see `stop`."""
        self.is_deleted = True
        self._save()
        self.stop(grace)

    def directory(self) -> Path | None:
        """Return the instance directory; None if it does not exist yet."""
        return files.find_instance(self._folder, self.name)

    def outputs(self) -> dict[str, dict[str, str]]:
        """Return the key-outputs that exist so far."""
        instance = self.directory()
        outputs = files.read_outputs(instance) if instance else None
        if outputs is not None:
            self._outputs = outputs
        return dict(self._outputs)

    def status(self) -> dict[str, Any] | None:
        """Return the status, including those that come from the cluster; None during the first moments."""
        if time.monotonic() < self._has_pod_at:
            return None
        if self._is_queued:
            return files.unscheduled()
        if self._failure is not None:
            return dict(self._failure)
        status = self.listed_status()
        if self._exit_code and status is not None and not status["error-description"]:
            # The service uses the exit code of the container only if the error description is empty.
            return files.killed(self._exit_code)
        return status

    def listed_status(self) -> dict[str, Any] | None:
        """Return the status that the orchestrator wrote, or nulls before; None during the first moments."""
        if time.monotonic() < self._has_pod_at:
            return None
        instance = self.directory()
        if instance is not None:
            self._read_status(instance, is_over=self._exit_code is not None)
        if self._last_status is not None:
            return dict(self._last_status)
        if self._failure is not None and self._failure["exit-status"]:
            return dict(self._failure)
        return dict(files.NO_STATUS)

    def _read_status(self, instance: Path, *, is_over: bool) -> None:
        """
        Read the status that the orchestrator wrote.

        While the orchestrator runs and has not written ``elaunch.yaml``, any status except a failure at set-up is
        ignored, because it would lack its ``meta``.
        """
        if self._meta is None:
            self._meta = files.read_meta(instance)
        status = files.read_status(instance, self._meta)
        if status is not None and (is_over or self._meta is not None or status["experiment-state"] == "failed"):
            self._last_status = status

    def location(self) -> str:
        """Return the path of the instance directory, even if it does not exist yet."""
        return str(self.directory() or self._folder / f"{self.name}.instance")

    def documents(self, types: Collection[str]) -> list[dict[str, Any]]:
        """Return the datastore's documents of some types; none before the orchestrator has registered the run."""
        instance, status, reports = self.directory(), self.listed_status(), files.read_reports(self._folder / MONITOR)
        if instance is None or status is None or not status["meta"] or reports is None:
            return []
        registration = Registration(self.start, str(instance), status, files.read_times(instance), self.outputs())
        interface = self.start.package["metadata"]["registry"]["interface"]
        experiment = experiment_document(registration, interface)
        # The uid of an experiment has no gateway on a cluster, where the orchestrator does not know it.
        uids = {EXPERIMENT: {"uid": experiment["uid"]}}
        documents = [
            experiment,
            user_metadata_document(registration),
            *self._components,
            *({**report, **uids.get(report["type"], {})} for report in reports),
        ]
        # Later documents replace earlier ones.
        latest = {identity(document): document for document in documents if document["type"] in types}
        # Other URIs have the gateway, which is added when a document is reported.
        uid = {"uid": f"file://{instance}"}
        return [{**document, **uid} if document["type"] == EXPERIMENT else document for document in latest.values()]

    def _spawn(self, orchestrator: Orchestrator, package: Path) -> Process | None:
        """Start the orchestrator in its own process group; return None if the run was already stopped."""
        if self._stopped:
            return None
        process = orchestrator.start(self.start, self.name, package, self._folder)
        if not self._saved.is_saved:  # otherwise, `restore` needs the folder of the output, and removes it
            self._guard.add_folders(files.shadow_pattern(self.name))
        with self._lock:
            if self._stopped:
                with process:
                    kill_group(process)
                return None
            self._enter(Phase.EXECUTING)
            self._process = process
            self._guard.add_group(process.pid)
            process.begin()
        return process

    def _follow(self, process: Process, orchestrator: Orchestrator) -> None:
        """Wait for the end of the orchestrator, then clean up."""
        exit_code, read_components_at = None, time.monotonic() + COMPONENTS_DELAY
        while exit_code is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                exit_code = process.wait(POLL_INTERVAL)
            if self._kill_at is not None and time.monotonic() > self._kill_at:
                kill_group(process)
            if time.monotonic() > read_components_at:
                read_components_at = math.inf
                self._read_components(orchestrator)
        kill_group(process)
        self._guard.remove_group(process.pid)
        self._complete_directory()
        if exit_code > 0 and self._last_status is None:
            self._failure = files.setup_failure(files.last_line(self._folder / "elaunch.log"))
        self._exit_code = exit_code
        self._enter(Phase.OVER)

    def _complete_directory(self) -> None:
        """Complete the instance directory of an orchestrator that has ended, and read its last status."""
        if instance := self.directory():
            files.copy_shadow(instance)
            self._read_status(instance, is_over=True)
        files.remove_shadows(self.name)

    def _read_components(self, orchestrator: Orchestrator) -> None:
        """
        Read the documents about components, if the run is registered. Blocks.

        The orchestrator itself reports the components of a stage only after the stage has ended.
        """
        instance = self.directory()
        if instance and files.read_reports(self._folder / MONITOR) is not None:
            with contextlib.suppress(RuntimeError):
                arguments = ("components", GATEWAY, str(instance))
                self._components = orchestrator.inspect(*arguments, folder=self._folder, processes=self._processes)


class ElaunchEngine:
    """
    An `Engine` that executes runs with the orchestrator, a few at a time, in the order of their starts.

    Safe to share between threads. Each run has a folder named after its id, which contains the instance directory.
    Closing the engine kills the remaining runs. If this process is killed, its runs are killed within seconds.
    """

    def __init__(
        self,
        folder: Path,
        *,
        slots: int = SLOTS,
        keep: Path | None = None,
        scratch: Path | None = None,
        state: State | None = None,
    ) -> None:
        """
        Find the orchestrator, and restore the runs of the state. Runs that were waiting are executed now.

        Args:
            folder: The folder of clones and runs; created if missing, and never removed by the engine.
            slots: Number of runs at the same time; at least 1.
            keep: Another folder for runs, if they must outlive `folder`. None means `folder`.
            scratch: A folder that is removed if this process is killed. None means that no folder is removed.
            state: The state of the server. None means that the engine has no runs, and saves none.

        Raises:
            ImportError: st4sd-runtime-core is not installed.
            ValueError: `slots` is below 1.
        """
        if slots < 1:
            raise ValueError(f"slots must be at least 1, not {slots!r}")
        self._orchestrator = find_orchestrator()
        self._guard = Guard()
        if scratch is not None:
            self._guard.add_folders(glob.escape(str(scratch.absolute())))
        self._processes = ChildProcesses(self._guard)
        clones = folder.absolute() / "packages"
        read = partial(self._orchestrator.read_package, folder=folder.absolute(), processes=self._processes)
        self._packages = ClonedPackages(clones, read, self._processes)
        # The orchestrator resolves links in the paths that it reports.
        self._runs_folder = (keep or folder / "runs").resolve()
        self._slots = slots
        self._runs: dict[str, ElaunchRun] = {}
        self._queue: deque[ElaunchRun] = deque()
        self._threads: dict[ElaunchRun, threading.Thread] = {}
        self._closed = False
        self._lock = threading.Lock()
        # A program that ends without closing must not leave orchestrators running.
        atexit.register(self.close)
        self._saved = SavedRuns(state)
        with self._lock:
            for start, facts in self._saved.restored():
                run = self._create(start)
                run.restore(facts)
                self._insert(run)
            self._assign_slots()

    def restored(self) -> list[AcceptedStart]:
        """List the starts of all runs that were not deleted."""
        return [run.start for run in list(self._runs.values()) if not run.is_deleted]

    def _create(self, start: AcceptedStart) -> ElaunchRun:
        folder = self._runs_folder / start.rest_uid
        folder.mkdir(parents=True, exist_ok=True)
        return ElaunchRun(start, folder, self._processes, self._guard, saved=self._saved)

    def _insert(self, run: ElaunchRun) -> None:
        """Add a run, and queue it if it can be executed; call with the lock held."""
        self._runs[run.start.rest_uid] = run
        if run.can_execute:
            run.enter_queue()
            self._queue.append(run)

    def inspect(self, package: Mapping[str, Any]) -> PackageFacts:
        """Clone the package of a definition, and return the facts that it declares. Takes seconds."""
        return self._packages.facts(package)

    def content(self, package: Mapping[str, Any]) -> PackageContent:
        """Return the content of the package of a stored definition. Takes seconds if it was not read before."""
        try:
            return self._packages.content(package)
        except GitFailed as error:
            raise PackageProblem(str(error)) from error

    def start(self, start: AcceptedStart) -> None:
        """
        Accept an instance, and run it at once if a slot is free.

        Raises:
            RuntimeError: The engine is closed.
        """
        run = self._create(start)
        with self._lock:
            if self._closed:
                raise RuntimeError(f"the engine is closed, it cannot start {start.rest_uid!r}")
            self._saved.add(start, run.facts())
            self._insert(run)
            self._assign_slots()

    def status(self, rest_uid: str) -> dict[str, Any] | None:
        """Return the status, including those that come from the cluster; None during the first moments."""
        run = self._runs.get(rest_uid)
        return run.status() if run else None

    def listed_status(self, rest_uid: str) -> dict[str, Any] | None:
        """Return the status that the orchestrator wrote, or nulls before; None during the first moments."""
        run = self._runs.get(rest_uid)
        return run.listed_status() if run else None

    def outputs(self, rest_uid: str) -> dict[str, dict[str, str]]:
        """Return the key-outputs that exist so far; {} for an unknown instance."""
        run = self._runs.get(rest_uid)
        return run.outputs() if run else {}

    def directory(self, rest_uid: str) -> Path | None:
        """Return the instance directory; None if it does not exist yet."""
        run = self._runs.get(rest_uid)
        return run.directory() if run else None

    def interface(self, rest_uid: str) -> dict[str, Any] | None:
        """Return the interface that the orchestrator wrote; None if it cannot be read."""
        instance = self.directory(rest_uid)
        return files.read_interface(instance) if instance else None

    def locations(self) -> dict[str, str]:
        """Return path of the instance directory -> rest-uid, for all runs; the directory may not exist yet."""
        return {run.location(): uid for uid, run in list(self._runs.items())}

    def documents(self, rest_uid: str, types: Collection[str]) -> list[dict[str, Any]]:
        """Return the datastore's documents of some types about an instance, without a lag."""
        run = self._runs.get(rest_uid)
        return run.documents(types) if run else []

    def delete(self, rest_uid: str) -> None:
        """Stop an instance, and kill it after `STOP_GRACE`. Returns at once, and keeps the files."""
        with self._lock:
            run = self._runs.get(rest_uid)
            if run is None:
                return
            if run in self._queue:
                self._queue.remove(run)
        run.delete(STOP_GRACE)

    def close(self) -> None:
        """Stop all runs and wait for their end, at most for 3 s. Idempotent."""
        with self._lock:
            self._closed = True
            self._queue.clear()
            threads = dict(self._threads)
        for run in threads:
            run.stop(CLOSE_GRACE)
        self._processes.close()
        for thread in threads.values():
            thread.join(CLOSE_GRACE + JOIN_TIMEOUT)
        self._guard.close()
        atexit.unregister(self.close)

    def _assign_slots(self) -> None:
        """Start queued runs while there are free slots; call with the lock held."""
        while self._queue and len(self._threads) < self._slots and not self._closed:
            run = self._queue.popleft()
            run.leave_queue()
            thread = threading.Thread(target=self._execute, args=(run,), name=f"run {run.name}", daemon=True)
            self._threads[run] = thread
            thread.start()

    def _execute(self, run: ElaunchRun) -> None:
        """Execute a run in its thread, release its slot, and read the final states of its components."""
        try:
            run.execute(self._orchestrator, self._packages)
        finally:
            with self._lock:
                del self._threads[run]
                self._assign_slots()
        run.read_final_components(self._orchestrator)
