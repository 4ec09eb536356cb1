"""
One run of the real orchestrator, from the checkout of its package to the last file.

A run is driven by the thread that calls `Execution.execute`; everything else may be called from any thread
and returns quickly.
"""

from __future__ import annotations

import contextlib
import datetime
import math
import subprocess
import threading
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

from st4sd_async.local.datastore.documents import GATEWAY, Registration, experiment, identity, user_metadata
from st4sd_async.local.engine import instance_files as files
from st4sd_async.local.engine.checkouts import Checkouts
from st4sd_async.local.engine.children import Run
from st4sd_async.local.engine.git import GitFailed
from st4sd_async.local.engine.guard import Guard
from st4sd_async.local.engine.interface import AcceptedStart, PackageProblem
from st4sd_async.local.engine.orchestrator import (
    MONITOR,
    Orchestrator,
    command,
    end_group,
    environment,
    instance_name,
    lay_out,
    lay_out_package,
)

LOOK_INTERVAL = 0.1
"""Seconds between two looks at a process that runs."""
REPORT_LAG = 10.0
"""Seconds until components that have not ended are looked at for the datastore; its reporter takes as long."""
WHEN_GUARDED = ("/bin/sh", "-c", 'read go && exec "$@" < /dev/null', "sh")
"""Begins a command line that waits for a line of input, so that nothing runs of which the guard does not know."""
META_ATTEMPTS = 10
"""How often to try to read what the orchestrator wrote about a run; the first may come too early."""


class Execution:
    """One accepted start; waits until somebody calls `execute`."""

    def __init__(self, launch: AcceptedStart, folder: Path, run: Run, guard: Guard) -> None:
        """
        Note the start; nothing is written yet.

        Args:
            launch: The start.
            folder: The folder of this run alone.
            run: Runs helper processes.
            guard: Ends the run if this process is killed.
        """
        stamp = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H%M%S.%f")
        self.name = instance_name(launch, stamp)
        """The name of the instance directory without its suffix."""
        self._launch = launch
        self._folder = folder
        self._run = run
        self._guard = guard
        self._process: subprocess.Popen[bytes] | None = None
        self._stopped = False
        self._kill_at: float | None = None
        self._lock = threading.Lock()
        self._queued = False
        self._waited = False
        self._meta: dict[str, Any] | None = None
        self._meta_attempts = META_ATTEMPTS
        self._last: dict[str, Any] | None = None
        self._exit_code: int | None = None
        self._failure: dict[str, Any] | None = None
        self._outputs: dict[str, dict[str, str]] = {}
        self._components: list[dict[str, Any]] = []

    def enter_queue(self) -> None:
        """Say that it has to wait: until `leave_queue` it is ``unscheduled``."""
        self._queued = self._waited = True

    def leave_queue(self) -> None:
        """Say that it is its turn now."""
        self._queued = False

    def execute(self, orchestrator: Orchestrator, checkouts: Checkouts) -> None:
        """Run to the end; blocks. Never raises: what goes wrong is the run's status."""
        if self._launch.problem is not None:
            self._failure = files.not_begun(self._launch.problem)
            return
        try:
            is_lambda = self._launch.flowir is not None
            package = (
                lay_out_package(self._launch, self._folder) if is_lambda else checkouts.package(self._launch.package)
            )
            lay_out(self._launch, self._folder)
            process = self._spawn(orchestrator, package)
        except GitFailed as error:
            self._failure = files.no_checkout(error.exit_code, error.stderr or str(error))
        except (OSError, PackageProblem) as error:
            self._failure = files.not_set_up(f"{type(error).__name__} {error}")
        else:
            if process is not None:
                self._follow(process, orchestrator)

    def look_back(self, orchestrator: Orchestrator) -> None:
        """Read how the components ended, after a run that did not get as far as to report all of them; blocks."""
        if self._exit_code:
            self._read_components(orchestrator)

    def stop(self, grace: float) -> None:
        """
        End the run if it is running, and never begin it otherwise. Returns at once.

        Args:
            grace: Seconds until it is killed. It takes 6 s to end by itself, leaving its last words; a
                second call can only make it less.
        """
        kill_at = time.monotonic() + grace
        with self._lock:
            already, self._stopped = self._stopped, True
            self._kill_at = kill_at if self._kill_at is None else min(kill_at, self._kill_at)
            if self._process is not None and not already:
                self._process.terminate()

    def directory(self) -> Path | None:
        """The instance directory, None before there is one."""
        return files.find_instance(self._folder, self.name)

    def outputs(self) -> dict[str, dict[str, str]]:
        """The key-outputs that exist by now."""
        instance = self.directory()
        outputs = files.read_outputs(instance) if instance else None
        if outputs is not None:
            self._outputs = outputs
        return dict(self._outputs)

    def status(self) -> dict[str, Any] | None:
        """The status in detail, with what only the cluster would know."""
        if self._queued:
            return files.unscheduled()
        if self._failure is not None:
            return dict(self._failure)
        status = self.listed_status()
        if self._exit_code and status is not None and not status["error-description"]:
            # The service looks at how the container ended only while nobody has given a reason.
            return files.killed(self._exit_code)
        return status

    def listed_status(self) -> dict[str, Any] | None:
        """The status that the orchestrator wrote; None before it is started."""
        instance = self.directory()
        status = files.read_status(instance, self._meta) if instance else None
        if status is not None:
            self._last = status
        if self._last is not None:
            return dict(self._last)
        if self._failure is not None and self._failure["exit-status"]:
            return dict(self._failure)
        is_known = self._waited or self._failure is not None or self._process is not None
        return dict(files.NO_STATUS) if is_known else None

    def location(self) -> str:
        """Where the instance directory is or will be."""
        return str(self.directory() or self._folder / f"{self.name}.instance")

    def documents(self, types: Collection[str]) -> list[dict[str, Any]]:
        """What the orchestrator has reported to the datastore, nothing before it has registered there."""
        instance, status, reports = self.directory(), self.listed_status(), files.read_reports(self._folder / MONITOR)
        if instance is None or status is None or not status["meta"] or reports is None:
            return []
        known = Registration(self._launch, str(instance), status, files.read_times(instance), self.outputs())
        interface = self._launch.package["metadata"]["registry"]["interface"]
        everything = [experiment(known, interface), user_metadata(known), *self._components, *reports]
        # The later ones replace earlier ones.
        newest = {identity(document): document for document in everything}
        return [document for document in newest.values() if document["type"] in types]

    def _spawn(self, orchestrator: Orchestrator, package: Path) -> subprocess.Popen[bytes] | None:
        """Start the orchestrator in a process group of its own; None if the run was stopped before."""
        line = command(orchestrator, self._launch, self.name, package, self._folder)
        self._guard.remove(files.shadows(self.name))
        with self._lock, (self._folder / "elaunch.log").open("wb") as log:
            if self._stopped:
                return None
            self._process = subprocess.Popen(
                [*WHEN_GUARDED, *line],
                cwd=self._folder,
                env=environment(orchestrator, self._launch, self.name, self._folder),
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            self._guard.kill(self._process.pid)
            if self._process.stdin is not None:
                self._process.stdin.write(b"go\n")
                self._process.stdin.close()
        return self._process

    def _follow(self, process: subprocess.Popen[bytes], orchestrator: Orchestrator) -> None:
        """Wait for the end of the orchestrator, then clear up after it."""
        exit_code, late = None, time.monotonic() + REPORT_LAG
        while exit_code is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                exit_code = process.wait(LOOK_INTERVAL)
            if self._kill_at is not None and time.monotonic() > self._kill_at:
                end_group(process)
            if self._meta is None and self._meta_attempts > 0:
                self._read_meta(orchestrator)
            if time.monotonic() > late:
                late = math.inf
                self._read_components(orchestrator)
        end_group(process)
        self._guard.spare(process.pid)
        if instance := self.directory():
            files.settle(instance)
        files.remove_shadows(self.name)
        if exit_code > 0 and self.listed_status() in (None, files.NO_STATUS):
            self._failure = files.not_set_up(files.last_line(self._folder / "elaunch.log"))
        self._exit_code = exit_code

    def _read_meta(self, orchestrator: Orchestrator) -> None:
        """Read what the orchestrator wrote about the run, if it has."""
        instance = self.directory()
        path = instance / "elaunch.yaml" if instance else None
        if path and path.is_file():
            self._meta_attempts -= 1
            with contextlib.suppress(RuntimeError):
                answer = orchestrator.question("yaml", str(path), folder=self._folder, run=self._run)
                self._meta = files.wire_meta(answer)

    def _read_components(self, orchestrator: Orchestrator) -> None:
        """
        Read how the components are, if the run is registered.

        The orchestrator itself reports those of a stage only when the stage has ended.
        """
        instance = self.directory()
        if instance and files.read_reports(self._folder / MONITOR) is not None:
            with contextlib.suppress(RuntimeError):
                question = ("components", GATEWAY, str(instance))
                self._components = orchestrator.question(*question, folder=self._folder, run=self._run)
