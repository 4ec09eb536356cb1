"""Read files of runs: tables and standard output of components, and the files of the orchestrator."""

from __future__ import annotations

import re
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import anyio

from .. import models
from .._api.gateways import MOST_BYTES, SCHEME, location, location_in
from .._errors import DecodeError, St4sdError
from .._render.displayable import Displayable
from .._util.csv_reader import AS_TEXT, read_table
from .._util.extras import import_pandas
from .._util.field_docs import document_fields
from .._util.threads import in_thread
from ..models import DownloadFailed
from .downloads import raise_if_strict

if TYPE_CHECKING:
    import pandas

    from .._api.datastore import Datastore
    from .._render.cards import Card
    from ..models import ComponentDocument, StatusReport
    from .downloads import Downloads, Outcome

STDOUT_FILE, STDERR_FILE = "out.stdout", "out.stderr"
"""Files in the directory of a component with what its last task wrote."""
LOG_FILE = "output/experiment.log"
"""File in the directory of a run with the log of the orchestrator."""
REPORT_FILE = "output/status_details.json"
"""File in the directory of a run with the status of its components."""
MAX_CARD_ROWS, MAX_CARD_COLUMNS = 10, 12
"""Rows and columns of a table in a notebook."""
MAX_QUOTED_BYTES = 500  # of an invalid file, for the message


@document_fields
@dataclass(frozen=True, eq=False)
class Table(Displayable):
    """
    A table that a component wrote.

        for table in await run.csv("energies"):
            print(table.document.reference, table.path)
            print(table.dataframe().describe())

    A file that could not be fetched, or contains no table, has a `problem`, which `dataframe` raises.
    """

    document: ComponentDocument = field(repr=False)
    """The document of the component in the datastore."""
    path: str
    """Path of the file, relative to the directory of the run."""
    source: str
    """Where it came from: ``file://<id of a gateway>/<absolute path>``."""
    problem: St4sdError | None = None
    """Why there is no DataFrame; None if there is one."""
    _frame: pandas.DataFrame | None = field(default=None, repr=False)

    def dataframe(self) -> pandas.DataFrame:
        """
        Return the table, the same object each time.

        Raises:
            DecodeError: The file contains no table.
            St4sdError: The file could not be fetched.
        """
        if self.problem is not None:
            raise self.problem
        return self._frame

    def _card(self) -> Card:
        from .._render.cards import Card, CardTable, omitted, with_error

        card = Card(self.path, kind=f"table of {self.document.reference}")
        if self._frame is None:
            return card if self.problem is None else with_error(card, self.problem)
        columns = list(self._frame.columns[:MAX_CARD_COLUMNS])
        rows = self._frame[columns].head(MAX_CARD_ROWS).itertuples(index=False, name=None)
        more = omitted(len(self._frame) - MAX_CARD_ROWS, "row")
        hidden = omitted(self._frame.shape[1] - MAX_CARD_COLUMNS, "column")
        table = CardTable(tuple(map(str, columns)), tuple(tuple(map(str, row)) for row in rows), more)
        return replace(card, table=table, notes=(hidden,) if hidden else ())


async def csv(
    downloads: Downloads, datastore: Datastore, run: str, filename: str, component: str | None, stage: int | None
) -> list[Table]:
    """Return the tables in files of a run: see `Client.csv`."""
    await in_thread(import_pandas, "csv()")  # it should fail before anything is fetched
    async with _temporary_folder() as folder:
        outcomes = await downloads.files(run, folder, component, stage, filename)
        owners = await _owners(datastore, run)
        return [await in_thread(_table, outcome, _owner(owners, outcome.source)) for outcome in outcomes]


async def written(
    downloads: Downloads, datastore: Datastore, run: str, component: str | None, stage: int | None, name: str
) -> dict[str, str]:
    """Return the file of this name of components, as text by reference: see `Client.stdout` and `Client.stderr`."""
    async with _temporary_folder() as folder:
        outcomes = await downloads.files(run, folder, component, stage, f"^{re.escape(name)}$")
        files = raise_if_strict(outcomes, strict=True)
        owners = await _owners(datastore, run)
        contents = [await in_thread(file.path.read_bytes) for file in files]
    texts = (content.decode("utf-8", "replace") for content in contents)
    return {_owner(owners, file.source).reference: text for file, text in zip(files, texts, strict=True)}


async def log(downloads: Downloads, run: str) -> str:
    """Return the log of the orchestrator: see `Client.log`."""
    return (await downloads.read(run, LOG_FILE, MOST_BYTES)).decode("utf-8", "replace")


async def status_report(downloads: Downloads, run: str) -> StatusReport:
    """Return the status of the components of a run: see `Client.status_report`."""
    content = await downloads.read(run, REPORT_FILE, MOST_BYTES)
    try:
        return models.StatusReport.parse(content)
    except ValueError as error:
        raise _decode_error(f"{run}/{REPORT_FILE}", error, content) from None


async def _owners(datastore: Datastore, run: str) -> dict[str, ComponentDocument]:
    """Return source -> component, for all files of a run."""
    if run.startswith(SCHEME):
        documents = await datastore.components(query={"instance": str(location(run))})
    else:
        documents = await datastore.components(rest_uid=run)
    return {
        f"{SCHEME}{location_in(document).gateway}{file}": document for document in documents for file in document.files
    }


def _owner(owners: Mapping[str, ComponentDocument], source: str) -> ComponentDocument:
    """Return the component that has a file; raise DecodeError if the datastore no longer lists it."""
    if source not in owners:
        raise DecodeError("POST", "documents/api/v1.0/query", f"no component that has the file {source!r}")
    return owners[source]


@asynccontextmanager
async def _temporary_folder() -> AsyncIterator[Path]:
    # If the result of the thread is lost because of a cancellation, the object removes its directory itself.
    folder = await in_thread(tempfile.TemporaryDirectory)
    try:
        yield Path(folder.name)
    finally:
        with anyio.CancelScope(shield=True):
            await in_thread(folder.cleanup)


def _table(outcome: Outcome, document: ComponentDocument) -> Table:
    path, source = outcome.source.removeprefix(f"{document.instance}/"), outcome.source
    if isinstance(outcome, DownloadFailed):
        return Table(document, path, source, outcome.error)
    try:
        with outcome.path.open(**AS_TEXT) as text:
            return Table(document, path, source, None, read_table(text))
    except ValueError as error:
        with outcome.path.open("rb") as content:
            return Table(document, path, source, _decode_error(source, error, content.read(MAX_QUOTED_BYTES)))


def _decode_error(source: str, error: ValueError, content: bytes) -> DecodeError:
    return DecodeError("GET", source, str(error), body=content[:MAX_QUOTED_BYTES].decode("utf-8", "replace"))
