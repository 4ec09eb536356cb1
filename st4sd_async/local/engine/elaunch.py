"""
The engine that really runs experiments: ``elaunch.py`` of st4sd-runtime-core on this machine.

Statuses, outputs and files are those that the orchestrator leaves. Only what a cluster would add (waiting
for resources, a failed clone, a killed container) is worded here, as the service words it.
"""

from __future__ import annotations

import atexit
import glob
import threading
from collections import deque
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from st4sd_async.local.engine.checkouts import Checkouts
from st4sd_async.local.engine.children import Children
from st4sd_async.local.engine.execution import Execution
from st4sd_async.local.engine.guard import Guard
from st4sd_async.local.engine.interface import AcceptedStart, PackageFacts
from st4sd_async.local.engine.orchestrator import find_orchestrator

SLOTS = 2
"""Runs at once; one keeps a processor core busy for 2 s, then mostly waits."""
STOP_GRACE = 20.0
"""Seconds a deleted run gets to end by itself; it takes about 6."""
CLOSE_GRACE = 1.5
"""Seconds all runs together get to end by themselves when the engine is closed."""
JOIN_TIMEOUT = 5.0
"""Seconds to wait for the threads of killed runs."""


class ElaunchEngine:
    """
    Runs experiments with the orchestrator, a few at once, in the order of their starts.

    Safe to share between threads. Each run has a folder named after its id with the instance directory in
    it. Close the engine: what still runs then is killed. If this process is killed instead, all runs are killed
    within seconds.
    """

    def __init__(
        self, folder: Path, *, slots: int = SLOTS, keep: Path | None = None, scratch: Path | None = None
    ) -> None:
        """
        Find the orchestrator; nothing is started.

        Args:
            folder: For checkouts and runs; made if missing, never removed here.
            slots: How many runs at once; at least 1.
            keep: Where the folders of the runs go instead, to outlive `folder`.
            scratch: A folder that is removed if this process is killed; None: nothing is removed.

        Raises:
            ImportError: st4sd-runtime-core is not installed.
            ValueError: `slots` is below 1.
        """
        if slots < 1:
            raise ValueError(f"slots must be at least 1, not {slots!r}")
        self._orchestrator = find_orchestrator()
        self._guard = Guard()
        if scratch is not None:
            self._guard.remove(glob.escape(str(scratch.absolute())))
        self._children = Children(self._guard)
        self._checkouts = Checkouts(folder.absolute() / "packages", self._orchestrator, self._children.run)
        # The orchestrator resolves links in the paths that it reports.
        self._runs_folder = (keep or folder / "runs").resolve()
        self._slots = slots
        self._runs: dict[str, Execution] = {}
        self._waiting: deque[Execution] = deque()
        self._threads: dict[Execution, threading.Thread] = {}
        self._closed = False
        self._lock = threading.Lock()
        # A program that ends without closing must not leave orchestrators behind.
        atexit.register(self.close)

    def inspect(self, package: Mapping[str, Any]) -> PackageFacts:
        """Clone the package of a definition and tell what it declares; takes seconds."""
        return self._checkouts.facts(package)

    def start(self, launch: AcceptedStart) -> None:
        """
        Accept an instance; it runs at once if a slot is free.

        Raises:
            RuntimeError: The engine is closed.
        """
        folder = self._runs_folder / launch.rest_uid
        folder.mkdir(parents=True, exist_ok=True)
        run = Execution(launch, folder, self._children.run, self._guard)
        with self._lock:
            if self._closed:
                raise RuntimeError(f"the engine is closed, it cannot start {launch.rest_uid!r}")
            self._runs[launch.rest_uid] = run
            self._waiting.append(run)
            self._fill_slots()
            if run in self._waiting:
                run.enter_queue()

    def status(self, rest_uid: str) -> dict[str, Any] | None:
        """The status as a detail request shows it, None for the first moments."""
        run = self._runs.get(rest_uid)
        return run.status() if run else None

    def listed_status(self, rest_uid: str) -> dict[str, Any] | None:
        """The status as the list shows it: what the orchestrator wrote, nulls while it wrote nothing."""
        run = self._runs.get(rest_uid)
        return run.listed_status() if run else None

    def outputs(self, rest_uid: str) -> dict[str, dict[str, str]]:
        """The key-outputs that exist by now, {} for an unknown instance."""
        run = self._runs.get(rest_uid)
        return run.outputs() if run else {}

    def directory(self, rest_uid: str) -> Path | None:
        """The instance directory, None before there is one."""
        run = self._runs.get(rest_uid)
        return run.directory() if run else None

    def locations(self) -> dict[str, str]:
        """Paths of the instance directories, be they there or not -> rest-uid."""
        return {run.location(): uid for uid, run in list(self._runs.items())}

    def documents(self, rest_uid: str, types: Collection[str]) -> list[dict[str, Any]]:
        """What the orchestrator has reported to the datastore, which here knows it at once."""
        run = self._runs.get(rest_uid)
        return run.documents(types) if run else []

    def delete(self, rest_uid: str) -> None:
        """Ask an instance to stop, and kill it if it takes too long. Returns at once; files stay."""
        with self._lock:
            run = self._runs.get(rest_uid)
            if run is None:
                return
            if run in self._waiting:
                self._waiting.remove(run)
        run.stop(STOP_GRACE)

    def close(self) -> None:
        """Stop everything; returns after 3 s at most, with nothing left running. Idempotent."""
        with self._lock:
            self._closed = True
            self._waiting.clear()
            threads = dict(self._threads)
        self._children.close()
        for run in threads:
            run.stop(CLOSE_GRACE)
        for thread in threads.values():
            thread.join(CLOSE_GRACE + JOIN_TIMEOUT)
        self._guard.close()
        atexit.unregister(self.close)

    def _fill_slots(self) -> None:
        """Begin runs that wait while there are free slots; call with the lock held."""
        while self._waiting and len(self._threads) < self._slots and not self._closed:
            run = self._waiting.popleft()
            run.leave_queue()
            thread = threading.Thread(target=self._execute, args=(run,), name=f"run {run.name}", daemon=True)
            self._threads[run] = thread
            thread.start()

    def _execute(self, run: Execution) -> None:
        """The life of a thread: one run, then the next one's turn, then a look at what has become of the run."""
        try:
            run.execute(self._orchestrator, self._checkouts)
        finally:
            with self._lock:
                del self._threads[run]
                self._fill_slots()
        run.look_back(self._orchestrator)
