"""The report of a batch: one HTML page to send to a colleague."""

from __future__ import annotations

import logging
import os
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import anyio

from .._errors import RunFailed, St4sdError, UnknownProperty
from .._results.defaults import FAILURE_TIMEOUT
from .._results.downloads import for_each
from .._util.durable import write_whole
from .._util.threads import in_thread
from ..models import Properties
from .item import with_reason
from .journal import JOURNAL_SUFFIX
from .report_page import Report, to_page
from .state import OVER
from .table import LaunchFacts, join

if TYPE_CHECKING:
    from ..models import Failure
    from .client import BatchClient

log = logging.getLogger("st4sd_async")

ReadFailure = Callable[[LaunchFacts], Awaitable["Failure | None"]]
"""Returns why the run of a launch failed; None if it has not."""

SUFFIXES = (".html", ".htm")
"""Suffixes of a report. Others are refused, because the path may name a table or a journal by mistake."""
MAX_LOGS = 20
"""Maximum number of failed runs whose last lines of output are fetched."""
LOGS_AT_ONCE = 10
"""Runs whose last lines are fetched at the same time."""

OFFLINE = (
    "This page was made from the journal alone. It has no measured properties, and may lack the output of failed "
    "components."
)
UNREACHABLE = "The service did not return the measured properties and the output of failed components: {}"
UNFINISHED = "Not all launches were over when the journal was last changed. This page shows their states at that time."


def check_path(path: str | os.PathLike[str]) -> Path:
    """Return the path of a report. Raises ValueError if it has the suffix of another kind of file."""
    file = Path(path)
    if file.suffix.lower() not in SUFFIXES:
        raise ValueError(f"the name of a report must end in {' or '.join(SUFFIXES)}, not {str(file)!r}")
    return file


def title_of(journal: str | os.PathLike[str] | None) -> str:
    """Return the title of a report without a title: the name of the table or, if there is none, of the journal."""
    return "Batch" if journal is None else Path(Path(journal).name.removesuffix(JOURNAL_SUFFIX)).stem


def keys_with_credentials(launches: Iterable[LaunchFacts]) -> set[str]:
    """Return the keys of the launches whose payloads have credentials."""
    return {launch.item.key for launch in launches if launch.payload.has_credentials}


async def write_report(
    report: Report,
    path: Path,
    client: BatchClient | None,
    names: Iterable[str] | None = None,
    read_failure: ReadFailure | None = None,
) -> Report:
    """
    Complete a report, and write its page.

    Args:
        report: What the journal knows.
        path: The file. It appears when it is complete, and replaces an older one.
        client: The client to fetch properties and failures with. None means that no request is sent.
        names: Properties, in any case. None means all.
        read_failure: Returns why the run of a launch failed. None means to ask the client.

    Returns:
        The complete report.

    Raises:
        UnknownProperty: None of the runs that measured properties has one of ``names``.
        OSError: The file cannot be written.
    """
    complete = await _fetched(report, client, names, read_failure)
    if any(launch.item.state not in OVER for launch in complete.launches):
        complete = replace(complete, notes=(*complete.notes, UNFINISHED))
    await in_thread(lambda: write_whole(path, to_page(complete).encode()))
    return complete


async def _fetched(
    report: Report, client: BatchClient | None, names: Iterable[str] | None, read_failure: ReadFailure | None
) -> Report:
    """Return a report with the table, and with what the service says about the runs."""
    nothing = Properties(("rest-uid",), ())
    if client is None:
        return replace(report, table=join(report.launches, nothing), notes=(*report.notes, OFFLINE))
    try:
        runs = [launch.rest_uid for launch in report.launches if launch.rest_uid is not None]
        measured = await client.properties(runs, names)
    except UnknownProperty:
        raise
    except St4sdError as error:
        log.warning("the report lacks the measured properties: %s", error)
        note = UNREACHABLE.format(error)
        table = join(report.launches, nothing)
        return replace(report, table=table, notes=(*report.notes, note), problem=error)
    launches = await _explained(report, read_failure or (lambda launch: client.failure(launch.rest_uid or "")))
    return replace(report, launches=launches, table=join(launches, measured))


async def _explained(report: Report, read_failure: ReadFailure) -> list[LaunchFacts]:
    """Return the launches, with why their runs failed for the first few. Never raises an error of the service."""
    failed = {
        launch.item.key: launch
        for launch in report.launches
        if isinstance(launch.item.error, RunFailed) and launch.rest_uid and launch.item.key not in report.unmasked
    }

    async def explain(launch: LaunchFacts) -> None:
        with suppress(St4sdError), anyio.move_on_after(FAILURE_TIMEOUT):  # what the journal has is left
            if (failure := await read_failure(launch)) is not None:
                failed[launch.item.key] = replace(launch, item=with_reason(launch.item, failure))

    await for_each(list(failed.values())[:MAX_LOGS], explain, LOGS_AT_ONCE)
    return [failed.get(launch.item.key, launch) for launch in report.launches]
