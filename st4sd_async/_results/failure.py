"""Find the reasons of failed runs, in the files of the orchestrator or, if these are not served, in the status."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import anyio

from .. import models
from .._api.datastore import final_status
from .._api.gateways import directory, location_in
from .._errors import NotFound, RunFailed, St4sdError, UnknownRun
from .._util.printable import printable
from .._util.redact import mask_environment, redact
from ..models.failures import (
    MAX_COMPONENTS,
    MAX_NAMED,
    MAX_REASON_LENGTH,
    ComponentFailure,
    Failure,
    described_components,
    has_failed,
    is_reference,
    last_lines,
)
from ..models.hints import Reason
from .defaults import FAILURE_TIMEOUT
from .downloads import for_each
from .tables import LOG_FILE, REPORT_FILE, STDERR_FILE, STDOUT_FILE

if TYPE_CHECKING:
    from .._api.datastore import Datastore
    from .._api.gateways import Location
    from .._api.instances import Instances
    from .._http.session import ClientSession
    from ..models import Status, StatusReport
    from .downloads import Downloads

MAX_EXPLAINED = 5
"""Maximum number of runs, in a call or batch, for which reasons are fetched unasked."""
MIN_PAUSE, MAX_PAUSE, PAUSE_GROWTH = 0.2, 2.0, 1.5
"""First and longest pause between two requests for the location of a run, in seconds, and the growth factor."""
MAX_END_BYTES = 16 << 10
"""Number of bytes that are read at the end of a file to get its last lines."""
MAX_REPORT_BYTES = 4 << 20
"""Maximum size of a status report in bytes. A component takes about 300."""

NEVER_KNOWN = "no log is served, because the run failed before it was registered in the datastore"
NOT_KNOWN_YET = "no log is served, because the run is not registered in the datastore; if it ended just now, try again"
TOO_SLOW = "no log could be fetched in time; try again"
NOT_FETCHED = "no log could be fetched: {}"
NOT_SERVED = "the gateway does not serve the output of {}"
NO_LOG = "the gateway does not serve the log of the orchestrator"
_WITHOUT_FILES = frozenset({Reason.PACKAGE_NOT_FETCHED, Reason.INPUTS_NOT_FETCHED, Reason.STOPPED})
"""Reasons that no log explains further: the orchestrator never ran, or was stopped by a user."""


class FailureReader:
    """Reads the failures of runs for one client."""

    def __init__(
        self, session: ClientSession, downloads: Downloads, datastore: Datastore, instances: Instances
    ) -> None:
        self._session = session
        self._downloads = downloads
        self._datastore = datastore
        self._instances = instances
        self._clock = session.config.clock

    async def of_run(self, rest_uid: str, timeout: float) -> Failure | None:
        """Return why a run failed; see `Client.failure`."""
        deadline = self._clock.now() + timeout
        try:
            status = await self._instances.status(rest_uid)
        except UnknownRun:
            last = await final_status(self._session, rest_uid)
            if last is None:
                raise
            status = last
        if not has_failed(status):
            return None
        return await self.explain(rest_uid, status, max(0.0, deadline - self._clock.now()))

    async def check(self, final: Mapping[str, Status], timeout: float | None) -> None:
        """
        Raise `RunFailed` if not all runs ended with Success.

        Args:
            final: rest-uid -> final status.
            timeout: Maximum time in seconds to find the reasons. None means `FAILURE_TIMEOUT`.
        """
        failures = {rest_uid: status for rest_uid, status in final.items() if not status.is_success}
        if failures:
            raise RunFailed(failures, await self.of_failed(failures, timeout))

    async def of_failed(self, last: Mapping[str, Status], timeout: float | None = None) -> dict[str, Failure]:
        """
        Return rest-uid -> failure for the first five failed runs, in their order. Never raises.

        Args:
            last: rest-uid -> last status.
            timeout: Maximum time in seconds for all runs together. None means `FAILURE_TIMEOUT`.
        """
        seconds = FAILURE_TIMEOUT if timeout is None else min(timeout, FAILURE_TIMEOUT)
        chosen = [rest_uid for rest_uid, status in last.items() if has_failed(status) and not status.is_deleted]
        reasons: dict[str, Failure] = {}

        async def explain(rest_uid: str) -> None:
            reasons[rest_uid] = await self.explain(rest_uid, last[rest_uid], seconds)

        await for_each(chosen[:MAX_EXPLAINED], explain, MAX_EXPLAINED)
        return {rest_uid: reasons[rest_uid] for rest_uid in chosen[:MAX_EXPLAINED]}

    async def explain(self, rest_uid: str, status: Status, timeout: float = FAILURE_TIMEOUT) -> Failure:
        """Return why a run failed, after at most ``timeout`` seconds. Never raises an error of the service."""
        known = _Known(rest_uid, status)
        if status.hint is not None and status.hint.reason in _WITHOUT_FILES:
            return known.failure
        deadline = self._clock.now() + timeout
        known.note = TOO_SLOW
        with anyio.move_on_after(timeout):
            try:
                await self._read(known, deadline)
            except NotFound as error:  # the deployment has no datastore, or the gateway is unknown
                known.note = NOT_FETCHED.format(error.message)
            except St4sdError as error:
                known.note = NOT_FETCHED.format(error)
        known.note = printable(redact(known.note, self._session.secrets()))
        return known.failure

    async def _read(self, known: _Known, deadline: float) -> None:
        """Read the files of a run."""
        instance = await self._locate(known, deadline)
        if instance is None:
            return
        known.add(await self._report(instance))
        if not known.components:
            known.log = (await self._ends(instance, [LOG_FILE])).get(LOG_FILE, "")
            known.note = "" if known.log else NO_LOG
            return
        problems: dict[str, str] = {}

        async def read(reference: str) -> None:
            try:
                if not await self._read_component(known, instance, reference):
                    problems[reference] = NOT_SERVED.format(reference)
            except St4sdError as error:
                problems[reference] = NOT_FETCHED.format(error)

        references = list(known.components)[:MAX_COMPONENTS]
        await for_each(references, read, MAX_COMPONENTS)
        known.note = next((problems[reference] for reference in references if reference in problems), "")

    async def _locate(self, known: _Known, deadline: float) -> Location | None:
        """
        Return the location of a run; None if it is not registered in the datastore, or not in time.

        Waits only for a run whose status has ``meta``, because only such a run is registered.
        """
        pause = MIN_PAUSE
        while True:
            found = await self._datastore.user_metadata(rest_uid=known.rest_uid)
            if found:
                return location_in(found[-1])
            if not known.is_registered:
                known.note = NEVER_KNOWN
                return None
            known.note = NOT_KNOWN_YET
            left = deadline - self._clock.now()
            if left <= 0:
                return None
            await self._clock.sleep(min(pause, left))
            pause = min(MAX_PAUSE, pause * PAUSE_GROWTH)

    async def _report(self, instance: Location) -> StatusReport | None:
        found = await self._downloads.ends(instance, [REPORT_FILE], MAX_REPORT_BYTES)
        try:
            return models.StatusReport.parse(found[REPORT_FILE])
        except (KeyError, ValueError):  # the report of a killed orchestrator may be missing or incomplete
            return None

    async def _read_component(self, known: _Known, instance: Location, reference: str) -> bool:
        """Read the output of a component; return whether the gateway serves a file of it."""
        stage, _, name = reference.removeprefix("stage").partition(".")
        try:
            folder = directory(int(stage), name)
            paths = {file: f"{folder}/{file}" for file in (STDERR_FILE, STDOUT_FILE)}
            found = await self._ends(instance, list(paths.values()))
        except ValueError:  # the reference is malformed
            return False
        stderr, stdout = (found.get(paths[file], "") for file in (STDERR_FILE, STDOUT_FILE))
        known.components[reference] = replace(known.components[reference], stderr=stderr, stdout=stdout)
        return bool(found)

    async def _ends(self, instance: Location, paths: list[str]) -> dict[str, str]:
        """Return path -> the last lines of the file, without files that are not served."""
        secrets = self._session.secrets()
        found = await self._downloads.ends(instance, paths, MAX_END_BYTES)
        return {path: last_lines(mask_environment(redact(_text_of(end), secrets))) for path, end in found.items()}


class _Known:
    """The facts about a failure that were found so far, and are kept if a timeout occurs."""

    def __init__(self, rest_uid: str, status: Status) -> None:
        self.rest_uid, self.status = rest_uid, status
        self.components = described_components(status)
        self.log = self.note = ""

    @property
    def is_registered(self) -> bool:
        """Whether the orchestrator may have registered the run in the datastore. A run that failed at set-up is not."""
        return self.status.meta is not None

    @property
    def failure(self) -> Failure:
        """The failure."""
        return Failure(self.rest_uid, self.status, tuple(self.components.values()), self.log, self.note)

    def add(self, report: StatusReport | None) -> None:
        """Add the failed components of a report, which has the return codes of the programs."""
        rows = report.failed if report else ()
        for row in rows[:MAX_NAMED]:
            if not is_reference(row.reference):
                continue
            described = self.components.get(row.reference, ComponentFailure(row.reference))
            reason = row.task_exit_reason or row.engine_exit_reason or described.reason
            codes = (row.task_exit_code, described.return_code, row.engine_exit_code)
            code = next((code for code in codes if code is not None), None)
            self.components[row.reference] = replace(
                described, reason=printable(reason)[:MAX_REASON_LENGTH], return_code=code
            )


def _text_of(end: bytes) -> str:
    """Return the end of a file as text, without an incomplete first line."""
    text = end.decode("utf-8", "replace")
    return text.partition("\n")[2] or text if len(end) == MAX_END_BYTES else text
