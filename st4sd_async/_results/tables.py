"""The tables that components wrote, what they printed, and the reports of the orchestrator on them."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import anyio

from .. import models
from .._api.gateways import MOST_BYTES, SCHEME, location, location_in
from .._errors import DecodeError, St4sdError
from .._util.csv_reader import AS_TEXT, read_table
from .._util.field_docs import document_fields
from .._util.threads import in_thread
from ..models import DownloadFailed
from .downloads import judged

if TYPE_CHECKING:
    import pandas

    from .._api.datastore import Datastore
    from ..models import ComponentDocument, Download, StatusReport
    from .downloads import Downloads

CSV_FILES = r"\.csv$"
"""Expression for the files that are tables."""
STDOUT = r"^out\.stdout$"
"""Expression for the file in the directory of a component with what its last task printed."""
LOG = "output/experiment.log"
"""File in the directory of a run with what the orchestrator logged."""
REPORT = "output/status_details.json"
"""File in the directory of a run with how its components are doing."""
SHOWN = 500  # bytes of a file that is no table, for the message


@document_fields
@dataclass(frozen=True, eq=False)
class Table:
    """
    A table that a component wrote.

        for table in await run.csv("energies"):
            print(table.document.reference, table.path)
            print(table.dataframe().describe())

    A file that could not be fetched, or is no table, is here too: `problem` says why, and `dataframe` raises it.
    """

    document: ComponentDocument = field(repr=False)
    """What the datastore keeps of the component."""
    path: str
    """Path of the file, relative to the directory of the run."""
    source: str
    """Where it came from: ``file://<id of a gateway>/<absolute path>``."""
    problem: St4sdError | None = None
    """Why there is no DataFrame; None if there is one."""
    _frame: pandas.DataFrame | None = field(default=None, repr=False)

    def dataframe(self) -> pandas.DataFrame:
        """
        The rows and columns; the same object each time.

        Raises:
            DecodeError: The file is no table.
            St4sdError: It could not be fetched.
        """
        if self.problem is not None:
            raise self.problem
        return self._frame


async def tables(
    downloads: Downloads, datastore: Datastore, run: str, filename: str, *, component: str | None, stage: int | None
) -> list[Table]:
    """The tables in files of a run, each problem with its own; see `Client.csv`."""
    await in_thread(_import_pandas)
    async with _scratch() as folder:
        files = await downloads.files(run, folder, component, stage, filename)
        owners = await _owners(datastore, run)
        return [await in_thread(_table, file, _owner(owners, file.source)) for file in files]


async def printed(
    downloads: Downloads, datastore: Datastore, run: str, *, component: str | None, stage: int | None
) -> dict[str, str]:
    """What components printed, by their references; see `Client.stdout`."""
    async with _scratch() as folder:
        files = judged(await downloads.files(run, folder, component, stage, STDOUT), strict=True)
        owners = await _owners(datastore, run)
        contents = [await in_thread(file.path.read_bytes) for file in files]
    texts = (content.decode("utf-8", "replace") for content in contents)
    return {_owner(owners, file.source).reference: text for file, text in zip(files, texts, strict=True)}


async def log(downloads: Downloads, run: str) -> str:
    """What the orchestrator logged; see `Client.log`."""
    return (await downloads.read(run, LOG, MOST_BYTES)).decode("utf-8", "replace")


async def status_report(downloads: Downloads, run: str) -> StatusReport:
    """How the components of a run are doing; see `Client.status_report`."""
    content = await downloads.read(run, REPORT, MOST_BYTES)
    try:
        return models.StatusReport.parse(content)
    except ValueError as error:
        raise _undecodable(f"{run}/{REPORT}", error, content) from None


async def _owners(datastore: Datastore, run: str) -> dict[str, ComponentDocument]:
    """Sources of all files of a run -> the component that has them."""
    if run.startswith(SCHEME):
        documents = await datastore.components(query={"instance": str(location(run))})
    else:
        documents = await datastore.components(rest_uid=run)
    return {
        f"{SCHEME}{location_in(document).gateway}{file}": document for document in documents for file in document.files
    }


def _owner(owners: Mapping[str, ComponentDocument], source: str) -> ComponentDocument:
    """Return the component that has a file; raise DecodeError if the datastore does not name it any longer."""
    if source not in owners:
        raise DecodeError("POST", "documents/api/v1.0/query", f"no component that has the file {source!r}")
    return owners[source]


@asynccontextmanager
async def _scratch() -> AsyncIterator[Path]:
    """A directory that is gone afterwards, whatever happens."""
    # If a thread's result is lost because nobody waits any more, the object removes its directory itself.
    folder = await in_thread(tempfile.TemporaryDirectory)
    try:
        yield Path(folder.name)
    finally:
        with anyio.CancelScope(shield=True):
            await in_thread(folder.cleanup)


def _table(file: Download | DownloadFailed, document: ComponentDocument) -> Table:
    path = file.source.removeprefix(f"{document.instance}/")
    if isinstance(file, DownloadFailed):
        return Table(document, path, file.source, file.error)
    try:
        with file.path.open(**AS_TEXT) as text:
            return Table(document, path, file.source, None, read_table(text))
    except ValueError as error:
        with file.path.open("rb") as content:
            return Table(document, path, file.source, _undecodable(file.source, error, content.read(SHOWN)))


def _undecodable(source: str, error: ValueError, content: bytes) -> DecodeError:
    return DecodeError("GET", source, str(error), body=content[:SHOWN].decode("utf-8", "replace"))


def _import_pandas() -> None:
    try:
        import pandas  # noqa: F401 -- it takes a second, and should fail before anything is fetched
    except ImportError:
        raise ImportError('csv() needs pandas: pip install "st4sd_async[pandas]"') from None
