"""`Run`, the handle on one instance."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ._api.datastore import DOCUMENT_TIMEOUT
from ._api.gateways import MOST_BYTES
from ._render.displayable import Displayable
from ._results.tables import CSV_FILES
from ._util.field_docs import document_fields

if TYPE_CHECKING:
    import os

    from ._client import Client
    from ._render.cards import Card
    from ._results.tables import Table
    from .models import (
        ComponentDocument,
        Download,
        DownloadFailed,
        ExperimentDocument,
        KeyOutput,
        Output,
        Properties,
        S3Store,
        Status,
        StatusReport,
    )


@document_fields
@dataclass(frozen=True)
class Run(Displayable):
    """
    A handle on one instance: an id and a client, never data. Its methods are those of the client.

    Runs with the same rest-uid are equal and have the same hash. ``str(run)`` is the rest-uid, and
    ``client.run(rest_uid)`` returns the handle again, in this process or another.
    """

    id: str
    """The rest-uid."""
    client: Client = field(repr=False, compare=False)
    """The client that sends the requests."""

    def __str__(self) -> str:
        return self.id

    def _card(self) -> Card:
        from ._render.cards import Card, facts_of

        note = "run.show() watches it, run.status() returns its status, run.outputs() its key-outputs"
        return Card(self.id, kind="run", facts=facts_of({"client": repr(self.client)}), notes=(note,))

    async def status(self) -> Status:
        """Return the current status: see `Client.status`."""
        return await self.client.status(self)

    def watch(self, *, timeout: float | None = None, interval: float | None = None) -> AsyncGenerator[Status]:
        """Yield the statuses until the run is over: see `Client.watch`."""
        return self.client.watch(self, timeout=timeout, interval=interval)

    async def wait(self, *, timeout: float | None = None, interval: float | None = None, check: bool = False) -> Status:
        """Wait until the run is over and return the final status: see `Client.wait`."""
        return await self.client.wait(self, timeout=timeout, interval=interval, check=check)

    async def show(self, *, timeout: float | None = None, interval: float | None = None) -> Status:
        """Show the run until it is over and return the final status: see `Client.show`."""
        return (await self.client.show([self], timeout=timeout, interval=interval))[0]

    async def outputs(self) -> dict[str, KeyOutput]:
        """Return the key-outputs that exist now, by name: see `Client.outputs`."""
        return await self.client.outputs(self)

    async def output(self, name: str, path: str | None = None) -> Output:
        """Return the contents of a key-output: see `Client.output`."""
        return await self.client.output(self, name, path)

    async def properties(self, names: Iterable[str] | None = None) -> Properties:
        """Return the properties that the run measured: see `Client.properties`."""
        return await self.client.properties(self, names)

    async def read_file(self, path: str | os.PathLike[str], *, limit: int = MOST_BYTES) -> bytes:
        """Return the content of one file: see `Client.read_file`."""
        return await self.client.read_file(self, path, limit=limit)

    async def download_files(
        self,
        to: str | os.PathLike[str],
        *,
        component: str | None = None,
        stage: int | None = None,
        filename: str | None = None,
        strict: bool = False,
    ) -> list[Download | DownloadFailed]:
        """Download files of components: see `Client.download_files`."""
        return await self.client.download_files(
            self, to, component=component, stage=stage, filename=filename, strict=strict
        )

    async def download_component(
        self, stage: int, component: str, to: str | os.PathLike[str], *, strict: bool = False
    ) -> list[Download | DownloadFailed]:
        """Download the working directory of a component: see `Client.download_component`."""
        return await self.client.download_component(self, stage, component, to, strict=strict)

    async def download_outputs(
        self,
        to: str | os.PathLike[str],
        names: str | Iterable[str] | None = None,
        *,
        unpack: bool = False,
        strict: bool = False,
    ) -> list[Download | DownloadFailed]:
        """Download key-outputs: see `Client.download_outputs`."""
        return await self.client.download_outputs(self, to, names, unpack=unpack, strict=strict)

    async def fetch_s3_outputs(
        self,
        to: str | os.PathLike[str],
        *,
        store: S3Store | Mapping[str, Any],
        names: str | Iterable[str] | None = None,
        strict: bool = False,
        allow_http: bool = False,
    ) -> list[Download | DownloadFailed]:
        """Download key-outputs that the run uploaded to a bucket: see `Client.fetch_s3_outputs`."""
        return await self.client.fetch_s3_outputs(
            self, to, store=store, names=names, strict=strict, allow_http=allow_http
        )

    async def csv(
        self, filename: str = CSV_FILES, *, component: str | None = None, stage: int | None = None
    ) -> list[Table]:
        """Return the tables that components wrote: see `Client.csv`."""
        return await self.client.csv(self, filename, component=component, stage=stage)

    async def stdout(self, component: str | None = None, *, stage: int | None = None) -> dict[str, str]:
        """Return the standard output of components, by reference: see `Client.stdout`."""
        return await self.client.stdout(self, component, stage=stage)

    async def log(self) -> str:
        """Return the log of the orchestrator: see `Client.log`."""
        return await self.client.log(self)

    async def status_report(self) -> StatusReport:
        """Return the state of each component: see `Client.status_report`."""
        return await self.client.status_report(self)

    async def document(self, *, timeout: float = DOCUMENT_TIMEOUT) -> ExperimentDocument:
        """Return the document of the run in the datastore, waiting if it is late: see `Datastore.document`."""
        return await self.client.datastore.document(self.id, timeout=timeout)

    async def components(self, *, timeout: float = DOCUMENT_TIMEOUT) -> list[ComponentDocument]:
        """Return the documents of the components, waiting if they are late: see `Datastore.components_of`."""
        return await self.client.datastore.components_of(self.id, timeout=timeout)

    async def delete(self) -> None:
        """Stop the run and delete it: see `Client.delete`."""
        await self.client.delete(self)


RunLike = Run | str
"""A handle on a run, or its rest-uid."""
