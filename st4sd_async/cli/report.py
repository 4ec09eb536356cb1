"""The command ``st4sd-async batch report``: one HTML page about a batch."""

from __future__ import annotations

import asyncio
import time
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer

from .._batch.item import item_of
from .._batch.journal import JOURNAL_SUFFIX
from .._batch.journal_file import read_whole_snapshot
from .._batch.report import check_path, keys_with_credentials, title_of, write_report
from .._batch.report_page import Report
from .._batch.table import PayloadFacts, facts_of_launches
from .._client import Client
from .._render.cards import counted, format_size
from .._util.threads import in_thread
from .batch import JournalFile, TableOrJournal, check_deployment, existing_journal
from .connect import Command, with_client
from .errors import Exit, UsageError, exit_of, exits_on_errors, write_message


async def _report(
    command: Command,
    table: TableOrJournal,
    names: Annotated[
        list[str] | None,
        typer.Option("--name", "-n", metavar="NAME", help="Show only this property; repeat it for several."),
    ] = None,
    to: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", dir_okay=False, metavar="FILE", help="The page: .html.  [default: TABLE.report.html]"
        ),
    ] = None,
    title: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Title of the page.  [default: the campaign or the table]")
    ] = None,
    is_offline: Annotated[  # `report` handles it
        bool, typer.Option("--offline", help="Use the journal alone, and send no request. Needs no deployment.")
    ] = False,
    journal: JournalFile = None,
) -> Exit:
    """
    Write an HTML page about a batch, to send to a colleague.

    Examples:
      st4sd-async batch report launches.csv -o report.html
      st4sd-async batch report campaign.db --offline

    The page has the number of launches in each state, a time line, failures with the last lines of their output, and
    a table with variables, metadata and measured properties, which can be sorted. It is one file, works without a
    network and contains no credentials.

    Reads the journal without changing it, even while 'batch run' is running. Requests the properties, and the output of
    up to 20 failed runs. If the service fails, the page is written without them and the exit status is 3.
    """
    command.notes.interrupted = "to write the page without the service, add --offline"
    return await _write(command.client, table, names, to, title, journal)


_online = with_client(_report, validate=False)


@wraps(_online)
def report(**arguments: Any) -> None:
    """Run the command, without a client if it is offline."""
    if not arguments["is_offline"]:
        _online(**arguments)
        return
    with exits_on_errors():
        own = (arguments[name] for name in ("table", "names", "to", "title", "journal"))
        asyncio.run(_write(None, *own))


async def _write(
    client: Client | None,
    table: Path,
    names: list[str] | None,
    to: Path | None,
    title: str | None,
    journal: Path | None,
) -> Exit:
    """Write the page of a journal, and report its size."""
    path = await in_thread(existing_journal, table, journal)
    try:
        file = check_path(to or path.with_name(f"{path.name.removesuffix(JOURNAL_SUFFIX)}.report.html"))
    except ValueError as error:
        raise UsageError(str(error)) from error
    report = await _read(client, path, title)
    complete = await write_report(report, file, client, names)
    size = format_size((await in_thread(file.stat)).st_size)
    write_message(f"report of {counted(len(report.launches), 'launch')} in {str(file)!r} ({size})")
    return Exit.DONE if complete.problem is None else exit_of(complete.problem)


async def _read(client: Client | None, path: Path, title: str | None) -> Report:
    """Return the content of a journal as a report."""
    found = await read_whole_snapshot(path, PayloadFacts.of)
    if client is not None:
        check_deployment(path, found, client.url)
    items = [item_of(record, None, None, found.reasons.get(record.rest_uid or "")) for record in found.records]
    launches = facts_of_launches(
        items, {record.key: record for record in found.records}, found.payload_parts, found.history
    )
    return Report(
        title=title or found.campaign or title_of(path),
        server=found.server,
        campaign=found.campaign,
        launches=launches,
        written=time.time(),
        secrets=() if client is None else tuple(client._session.secrets()),
        unmasked=frozenset(keys_with_credentials(launches)),
    )
