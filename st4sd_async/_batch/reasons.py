"""Why the runs of a batch failed: read from the service once, and kept in the journal in short."""

from __future__ import annotations

import json
import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import anyio

from .._errors import JournalError, St4sdError
from .._results.failure import MAX_EXPLAINED
from .._util.printable import printable
from .._util.redact import keep_secrets
from ..models import ComponentFailure, Failure, Status
from ..models.failures import MAX_LINE_LENGTH, MAX_REASON_LENGTH, is_reference
from .launch import lacks_credentials

if TYPE_CHECKING:
    from .client import BatchClient
    from .journal import Journal

log = logging.getLogger("st4sd_async")

MAX_RECORDED = 100
"""Maximum number of failed components of a run in the journal."""
REASON_GRACE = 1.0
"""Seconds for which reasons may still be read when the batch is left."""


class Reasons:
    """The reasons of failed runs that this process has read."""

    def __init__(self, journal: Journal, client: BatchClient) -> None:
        self._journal, self._client = journal, client
        self.known: dict[str, Failure] = {}
        """rest-uid -> why it failed."""
        self._reading: dict[str, anyio.Event] = {}
        """rest-uid -> set when the read in progress has ended."""
        self._unasked: dict[str, anyio.CancelScope] = {}
        """rest-uid -> the scope of a read that no caller waits for."""

    async def read(self, key: str) -> Failure | None:
        """Return why the run of a launch failed, and note it in the journal; see `Batch.failure`."""
        rest_uid = self._journal.records[key].rest_uid
        if rest_uid is None:
            return None
        while (other := self._reading.get(rest_uid)) is not None:
            await other.wait()
        known = self.known.get(rest_uid)
        if known is not None and (known.log or _has_output(known)):
            return known
        self._reading[rest_uid] = anyio.Event()
        try:
            # Only the newest of the secrets that a process gave to runs are remembered.
            keep_secrets(map(str, self._journal.credentials.get(key, {}).values()))
            failure = await self._client.failure(rest_uid)
            if failure is not None:
                self.known[rest_uid] = failure
                await self._note(key, failure)
            return failure
        finally:
            self._reading.pop(rest_uid).set()

    async def read_unasked(self, key: str) -> None:
        """Read the reason of one of the first runs that fail. Never raises an error of the service or the journal."""
        rest_uid = self._journal.records[key].rest_uid
        if rest_uid is None or rest_uid in self._unasked or len(self._unasked) >= MAX_EXPLAINED:
            return
        with anyio.CancelScope() as self._unasked[rest_uid]:
            try:
                await self.read(key)
            except (St4sdError, JournalError) as error:  # it can be requested later
                log.debug("the reason of %r is not known: %s", rest_uid, error)

    def stop(self, grace: float) -> None:
        """Limit the reads that no caller waits for to this many seconds."""
        for scope in self._unasked.values():
            scope.deadline = min(scope.deadline, anyio.current_time() + grace)

    async def _note(self, key: str, failure: Failure) -> None:
        """
        Write a reason to the journal, if it says more than the status.

        A program may print its credentials. A process that was not given them cannot mask them, so it writes nothing.
        """
        if not failure.components:
            return
        payload = await self._journal.payload(self._journal.records[key].payload)
        if key in self._journal.credentials or not lacks_credentials(payload):
            await self._journal.note_reason(failure.rest_uid, to_json(failure))


def to_json(failure: Failure) -> str:
    """Return the failed components of a run with the last line that each wrote, as stored in the journal."""
    return json.dumps([_fields(component) for component in failure.components[:MAX_RECORDED]])


def _fields(component: ComponentFailure) -> dict[str, Any]:
    name = "stderr" if component.stderr else "stdout"
    last = getattr(component, name).rpartition("\n")[2]
    fields = {"reference": component.reference, "reason": component.reason, "return_code": component.return_code}
    return {**fields, name: last} if last else fields


def from_json(rest_uid: str, status: Status, content: str) -> Failure | None:
    """Return a reason in the journal. None means that another program has made it invalid."""
    with suppress(ValueError, TypeError, KeyError, RecursionError):
        return Failure(rest_uid, status, tuple(map(_component, json.loads(content)[:MAX_RECORDED])))
    return None


def _component(fields: dict[str, Any]) -> ComponentFailure:
    reference, code = fields["reference"], fields["return_code"]
    if not is_reference(reference) or not isinstance(code, int | None):
        raise ValueError(reference)
    reason = printable(fields["reason"])[:MAX_REASON_LENGTH]
    stderr, stdout = (printable(fields.get(name, ""))[:MAX_LINE_LENGTH] for name in ("stderr", "stdout"))
    return ComponentFailure(reference, reason, code, stderr, stdout)


def _has_output(failure: Failure) -> bool:
    return any(component.stderr or component.stdout for component in failure.components)
