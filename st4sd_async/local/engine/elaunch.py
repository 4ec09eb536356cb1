"""
The engine that executes runs on this machine with ``elaunch.py`` of st4sd-runtime-core.

Statuses, outputs and files are those of the orchestrator. Only what a cluster would add (waiting for resources, a
failed clone, a killed container) is added here, with the messages of the service.
"""

from __future__ import annotations

import atexit
import contextlib
import glob
import math
import subprocess
import threading
import time
from collections import deque
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from st4sd_async.local.engine import instance_files as files
from st4sd_async.local.engine.documents import (
    GATEWAY,
    Registration,
    experiment_document,
    identity,
    user_metadata_document,
)
from st4sd_async.local.engine.guard import Guard
from st4sd_async.local.engine.interface import AcceptedStart, PackageFacts, PackageProblem
from st4sd_async.local.engine.orchestrator import (
    MONITOR,
    Orchestrator,
    find_orchestrator,
    kill_group,
    write_lambda_package,
    write_start_files,
)
from st4sd_async.local.engine.packages import ClonedPackages
from st4sd_async.local.engine.processes import ChildProcesses, GitFailed

SLOTS = 2
"""Runs at the same time; each keeps a processor core busy for 2 s, then mostly waits."""
STOP_GRACE = 20.0
"""Seconds until a deleted run is killed; it takes about 6 to stop."""
CLOSE_GRACE = 1.5
"""Seconds until all runs are killed when the engine is closed."""
JOIN_TIMEOUT = 5.0
"""Seconds to wait for the threads of killed runs."""
POLL_INTERVAL = 0.1
"""Seconds between two checks of a running process."""
COMPONENTS_DELAY = 10.0
"""Seconds until the states of running components are read for the datastore; the orchestrator takes as long."""
META_ATTEMPTS = 10
"""Attempts to read the orchestrator's description of a run; the first may come too early."""
WAIT_FOR_INPUT = ("/bin/sh", "-c", 'read go && exec "$@" < /dev/null', "sh")
"""Prefix of a command line that waits for a line of input, so that nothing runs before the guard knows the process."""


class ElaunchRun:
    """
    One run of the orchestrator, from the clone of its package to the last file.

    One thread calls `execute`, which blocks until the run is over. Other methods may be called from any thread and
    return quickly.
    """

    def __init__(self, start: AcceptedStart, folder: Path, processes: ChildProcesses, guard: Guard) -> None:
        """
        Args:
            start: The start.
            folder: The folder of this run.
            processes: Runs the inspection script.
            guard: Kills the run if this process is killed.
        """
        stamp = datetime.now(UTC).strftime("%Y-%m-%dT%H%M%S.%f")
        self.name = f"{start.stem}-{stamp}"
        """The name of the instance directory without its suffix: ``demo-c52cd4-2026-11-22T100507.603242``."""
        self._start = start
        self._folder = folder
        self._processes = processes
        self._guard = guard
        self._process: subprocess.Popen[bytes] | None = None
        self._stopped = False
        self._kill_at: float | None = None
        self._lock = threading.Lock()
        self._is_queued = False
        self._was_queued = False
        self._meta: dict[str, Any] | None = None
        self._meta_attempts = META_ATTEMPTS
        self._last_status: dict[str, Any] | None = None
        self._exit_code: int | None = None
        self._failure: dict[str, Any] | None = None
        self._outputs: dict[str, dict[str, str]] = {}
        self._components: list[dict[str, Any]] = []

    def enter_queue(self) -> None:
        """Show the run as unscheduled until `leave_queue`."""
        self._is_queued = self._was_queued = True

    def leave_queue(self) -> None:
        """Show the run as scheduled."""
        self._is_queued = False

    def execute(self, orchestrator: Orchestrator, packages: ClonedPackages) -> None:
        """Run to the end; blocks. Failures become the status of the run, and are not raised."""
        if self._start.problem is not None:
            self._failure = files.init_failure(self._start.problem)
            return
        try:
            if self._start.flowir is not None:
                package = write_lambda_package(self._start, self._folder)
            else:
                package = packages.folder(self._start.package)
            write_start_files(self._start, self._folder)
            process = self._spawn(orchestrator, package)
        except GitFailed as error:
            self._failure = files.clone_failure(error.exit_code, error.stderr or str(error))
        except (OSError, PackageProblem) as error:
            self._failure = files.setup_failure(f"{type(error).__name__} {error}")
        else:
            if process is not None:
                self._follow(process, orchestrator)

    def read_final_components(self, orchestrator: Orchestrator) -> None:
        """Read the final states of the components if the orchestrator failed before it reported all; blocks."""
        if self._exit_code:
            self._read_components(orchestrator)

    def stop(self, grace: float) -> None:
        """
        Stop the run, or prevent it from starting. Returns at once.

        Args:
            grace: Seconds until it is killed. It takes 6 s to stop and write its final status. A second call can only
                shorten the time.
        """
        kill_at = time.monotonic() + grace
        with self._lock:
            was_stopped, self._stopped = self._stopped, True
            self._kill_at = kill_at if self._kill_at is None else min(kill_at, self._kill_at)
            if self._process is not None and not was_stopped:
                self._process.terminate()

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
        """Return the status in detail, including what only the cluster would know."""
        if self._is_queued:
            return files.unscheduled()
        if self._failure is not None:
            return dict(self._failure)
        status = self.listed_status()
        if self._exit_code and status is not None and not status["error-description"]:
            # The service looks at the exit code of the container only if there is no error description.
            return files.killed(self._exit_code)
        return status

    def listed_status(self) -> dict[str, Any] | None:
        """Return the status that the orchestrator wrote, or nulls; None before it is started."""
        instance = self.directory()
        status = files.read_status(instance, self._meta) if instance else None
        if status is not None:
            self._last_status = status
        if self._last_status is not None:
            return dict(self._last_status)
        if self._failure is not None and self._failure["exit-status"]:
            return dict(self._failure)
        is_known = self._was_queued or self._failure is not None or self._process is not None
        return dict(files.NO_STATUS) if is_known else None

    def location(self) -> str:
        """Return the path of the instance directory, even if it does not exist yet."""
        return str(self.directory() or self._folder / f"{self.name}.instance")

    def documents(self, types: Collection[str]) -> list[dict[str, Any]]:
        """Return the documents in the datastore; none before the orchestrator has registered the run."""
        instance, status, reports = self.directory(), self.listed_status(), files.read_reports(self._folder / MONITOR)
        if instance is None or status is None or not status["meta"] or reports is None:
            return []
        registration = Registration(self._start, str(instance), status, files.read_times(instance), self.outputs())
        interface = self._start.package["metadata"]["registry"]["interface"]
        documents = [
            experiment_document(registration, interface),
            user_metadata_document(registration),
            *self._components,
            *reports,
        ]
        # Later ones replace earlier ones.
        latest = {identity(document): document for document in documents}
        return [document for document in latest.values() if document["type"] in types]

    def _spawn(self, orchestrator: Orchestrator, package: Path) -> subprocess.Popen[bytes] | None:
        """Start the orchestrator in its own process group; return None if the run was already stopped."""
        command_line = orchestrator.command_line(self._start, self.name, package, self._folder)
        self._guard.add_folders(files.shadow_pattern(self.name))
        with self._lock, (self._folder / "elaunch.log").open("wb") as log:
            if self._stopped:
                return None
            self._process = subprocess.Popen(
                [*WAIT_FOR_INPUT, *command_line],
                cwd=self._folder,
                env=orchestrator.environment(self._start, self.name, self._folder),
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            self._guard.add_group(self._process.pid)
            if self._process.stdin is not None:
                self._process.stdin.write(b"go\n")
                self._process.stdin.close()
        return self._process

    def _follow(self, process: subprocess.Popen[bytes], orchestrator: Orchestrator) -> None:
        """Wait for the end of the orchestrator, then clean up."""
        exit_code, read_components_at = None, time.monotonic() + COMPONENTS_DELAY
        while exit_code is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                exit_code = process.wait(POLL_INTERVAL)
            if self._kill_at is not None and time.monotonic() > self._kill_at:
                kill_group(process)
            if self._meta is None and self._meta_attempts > 0:
                self._read_meta(orchestrator)
            if time.monotonic() > read_components_at:
                read_components_at = math.inf
                self._read_components(orchestrator)
        kill_group(process)
        self._guard.remove_group(process.pid)
        if instance := self.directory():
            files.copy_shadow(instance)
        files.remove_shadows(self.name)
        if exit_code > 0 and self.listed_status() in (None, files.NO_STATUS):
            self._failure = files.setup_failure(files.last_line(self._folder / "elaunch.log"))
        self._exit_code = exit_code

    def _read_meta(self, orchestrator: Orchestrator) -> None:
        """Read the orchestrator's description of the run, if it exists."""
        instance = self.directory()
        path = instance / "elaunch.yaml" if instance else None
        if path and path.is_file():
            self._meta_attempts -= 1
            with contextlib.suppress(RuntimeError):
                content = orchestrator.inspect("yaml", str(path), folder=self._folder, processes=self._processes)
                self._meta = files.parse_meta(content)

    def _read_components(self, orchestrator: Orchestrator) -> None:
        """
        Read the documents about components, if the run is registered.

        The orchestrator reports the components of a stage only when the stage has ended.
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
    Closing the engine kills the remaining runs. If this process is killed, they are killed within seconds.
    """

    def __init__(
        self, folder: Path, *, slots: int = SLOTS, keep: Path | None = None, scratch: Path | None = None
    ) -> None:
        """
        Find the orchestrator; start nothing.

        Args:
            folder: The folder of clones and runs; created if missing, never removed here.
            slots: Number of runs at the same time; at least 1.
            keep: Another folder for the folders of runs, to outlive `folder`.
            scratch: A folder that is removed if this process is killed. None means that nothing is removed.

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
        self._packages = ClonedPackages(folder.absolute() / "packages", self._orchestrator, self._processes)
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

    def inspect(self, package: Mapping[str, Any]) -> PackageFacts:
        """Clone the package of a definition and return what it declares; takes seconds."""
        return self._packages.facts(package)

    def start(self, start: AcceptedStart) -> None:
        """
        Accept an instance; it runs at once if there is a slot.

        Raises:
            RuntimeError: The engine is closed.
        """
        folder = self._runs_folder / start.rest_uid
        folder.mkdir(parents=True, exist_ok=True)
        run = ElaunchRun(start, folder, self._processes, self._guard)
        with self._lock:
            if self._closed:
                raise RuntimeError(f"the engine is closed, it cannot start {start.rest_uid!r}")
            self._runs[start.rest_uid] = run
            self._queue.append(run)
            self._assign_slots()
            if run in self._queue:
                run.enter_queue()

    def status(self, rest_uid: str) -> dict[str, Any] | None:
        """Return the status in detail; None for the first moments."""
        run = self._runs.get(rest_uid)
        return run.status() if run else None

    def listed_status(self, rest_uid: str) -> dict[str, Any] | None:
        """Return the status that the orchestrator wrote, or nulls if it has not written one yet."""
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

    def locations(self) -> dict[str, str]:
        """Return the paths of all instance directories, even if they do not exist yet -> rest-uid."""
        return {run.location(): uid for uid, run in list(self._runs.items())}

    def documents(self, rest_uid: str, types: Collection[str]) -> list[dict[str, Any]]:
        """Return the documents that the orchestrator reported to the datastore, without a lag."""
        run = self._runs.get(rest_uid)
        return run.documents(types) if run else []

    def delete(self, rest_uid: str) -> None:
        """Stop an instance, and kill it after `STOP_GRACE`. Returns at once; files stay."""
        with self._lock:
            run = self._runs.get(rest_uid)
            if run is None:
                return
            if run in self._queue:
                self._queue.remove(run)
        run.stop(STOP_GRACE)

    def close(self) -> None:
        """Stop everything; return after 3 s at most, when nothing is running. Idempotent."""
        with self._lock:
            self._closed = True
            self._queue.clear()
            threads = dict(self._threads)
        self._processes.close()
        for run in threads:
            run.stop(CLOSE_GRACE)
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
        """Execute a run in its thread, pass its slot on, and read its final components."""
        try:
            run.execute(self._orchestrator, self._packages)
        finally:
            with self._lock:
                del self._threads[run]
                self._assign_slots()
        run.read_final_components(self._orchestrator)
