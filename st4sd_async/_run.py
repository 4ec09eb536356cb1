"""`Run`, the handle on one instance."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from ._api.datastore import DOCUMENT_TIMEOUT
from ._api.gateways import MOST_BYTES
from ._errors import St4sdError
from ._render.displayable import Displayable
from ._results.defaults import CSV_FILES, FAILURE_TIMEOUT
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
        Failure,
        KeyOutput,
        Output,
        Properties,
        S3Store,
        Status,
        StatusReport,
    )


@document_fields
@dataclass(frozen=True, init=False)
class Run(Displayable):
    """
    A handle on one instance: an id and a client, never data. Each method is the method of the same name of `Client`.

    Runs with the same rest-uid are equal and have the same hash. ``str(run)`` is the rest-uid.

        run = client.run("demo-abcdef-12345678")   # the handle on any instance
        run = client.run(run)                      # also on a run that came from another process

    A pickled run has the rest-uid and the url, but no client. It arrives unbound: all methods raise `St4sdError` until
    ``client.run(run)`` returns a bound one. Copies in the same process stay bound.
    """

    id: str
    """The rest-uid."""
    url: str = field(repr=False, compare=False)
    """Address of the deployment, with a slash at its end."""

    def __init__(self, id: str, client: Client) -> None:
        self.__dict__.update(id=id, url=client.url, _client=client)

    @property
    def client(self) -> Client:
        """
        The client that sends the requests.

        Raises:
            St4sdError: The run is unbound.
        """
        client: Client | None = self.__dict__["_client"]
        if client is None:
            raise St4sdError(
                f"the run {self.id!r} of {self.url} came from another process without its client: "
                "bind it to a client here with run = client.run(run)"
            )
        return client

    @property
    def is_bound(self) -> bool:
        """Whether the run has a client, without which its methods raise an error."""
        return self.__dict__["_client"] is not None

    def __str__(self) -> str:
        return self.id

    def __reduce__(self) -> tuple[Any, ...]:
        return unbound, (self.id, self.url)

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def _card(self) -> Card:
        from ._render.cards import Card, facts_of

        if not self.is_bound:
            note = "it came from another process without its client: client.run(run) binds it to one"
            return Card(self.id, kind="run", facts=facts_of({"deployment": self.url}), notes=(note,))
        note = "run.show() watches it, run.status() returns its status, run.outputs() its key-outputs"
        return Card(self.id, kind="run", facts=facts_of({"client": repr(self.client)}), notes=(note,))

    async def status(self) -> Status:
        """
        Request the current status and return it: a pending one while the service has none.

        Raises:
            UnknownRun: There is no such run, or it was deleted.
        """
        return await self.client.status(self)

    def watch(self, *, timeout: float | None = None, interval: float | None = None) -> AsyncGenerator[Status]:
        """
        Yield the statuses until the run is over: the first at once, then every change, the final status last.

            async for status in run.watch():
                print(status)

        Args:
            timeout: Seconds for the whole wait. None means no limit.
            interval: Seconds between two requests. None means ``Config.poll_interval``.

        Raises:
            UnknownRun, RunDeleted, WaitTimeout: As in `Client.watch`.
        """
        return self.client.watch(self, timeout=timeout, interval=interval)

    async def wait(self, *, timeout: float | None = None, interval: float | None = None, check: bool = False) -> Status:
        """
        Wait until the run is over, and return the final status.

        Args:
            timeout: Seconds for the whole wait. None means no limit.
            interval: Seconds between two requests. None means ``Config.poll_interval``.
            check: Raise `RunFailed`, with the reason, if the run ended without success.

        Raises:
            UnknownRun, RunDeleted, RunFailed, WaitTimeout: As in `Client.wait`.
        """
        return await self.client.wait(self, timeout=timeout, interval=interval, check=check)

    async def show(self, *, timeout: float | None = None, interval: float | None = None) -> Status:
        """
        Show the run live in the notebook or terminal until it is over, and return the final status.

        If the run failed, its reason is shown too.

        Args:
            timeout: Seconds for the whole wait. None means no limit.
            interval: Seconds between two requests. None means ``Config.poll_interval``.

        Raises:
            UnknownRun, WaitTimeout: As in `Client.show`.
        """
        return (await self.client.show([self], timeout=timeout, interval=interval))[0]

    async def outputs(self) -> dict[str, KeyOutput]:
        """
        Return the key-outputs that exist now: name -> its description. {} if there are none yet.

        `output` returns the content of one, `download_outputs` saves them to files.

        Raises:
            UnknownRun: There is no such run, or it was deleted.
        """
        return await self.client.outputs(self)

    async def output(self, name: str, path: str | None = None) -> Output:
        """
        Return the content of a key-output, in memory.

            output = await run.output("Energies")
            print(output.text(), output.dataframe())

        Args:
            name: Name of the key-output.
            path: A file in it, if it is a folder. None means all of it: of a folder, a zip archive.

        Raises:
            UnknownOutput: The run does not have this key-output yet, or never will. The error names those that it has.
            UnknownRun, DecodeError: As in `Client.output`.
        """
        return await self.client.output(self, name, path)

    async def properties(self, names: Iterable[str] | None = None) -> Properties:
        """
        Return the values that the run measured, as a table. They exist once the run is over.

            print((await run.properties()).dataframe())

        Args:
            names: Columns, in any case. None means all.

        Raises:
            NotReady: The run is not over, or not known to be.
            NoProperties, UnknownProperty, UnknownRun: As in `Client.properties`.
        """
        return await self.client.properties(self, names)

    async def read_file(self, path: str | os.PathLike[str], *, limit: int = MOST_BYTES) -> bytes:
        """
        Return the content of one file of the run.

        Args:
            path: Relative to the directory of the instance, such as ``output/experiment.log``, or absolute, as in
                ``ComponentDocument.files``.
            limit: Largest size in bytes.

        Raises:
            NotFound: There is no such file.
            DownloadError, NotReady, UnknownRun, ValueError: As in `Client.read_file`.
        """
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
        r"""
        Download files of components to ``<to>/stages/stage0/Compute/energies.csv``, and return the outcome for each.

        After an interruption, call it again: files that are complete and have not changed are not fetched again.

        Args:
            to: Folder, created if missing.
            component: Regular expression, searched for in the names of components. None means all.
            stage: Index of the stage. None means all.
            filename: Regular expression, searched for in the path of a file, such as ``r"\.csv$"``. None means all.
            strict: Raise the first error after everything else was fetched, instead of returning it.

        Returns:
            The outcomes, ordered by stage and component. [] if no file matches.

        Raises:
            NotFound: No component matches. The error names the components.
            NotReady, UnknownRun, DownloadError: As in `Client.download_files`.
        """
        return await self.client.download_files(
            self, to, component=component, stage=stage, filename=filename, strict=strict
        )

    async def download_component(
        self, stage: int, component: str, to: str | os.PathLike[str], *, strict: bool = False
    ) -> list[Download | DownloadFailed]:
        """
        Download the whole working directory of a component, all of it or nothing, and return its files.

        Args:
            stage: Index of the stage.
            component: Exact name of the component, such as ``"Compute"``.
            to: Folder for the contents, created if missing. Files of the same names are replaced.
            strict: Raise the error if it cannot be fetched, instead of returning it.

        Returns:
            The files, or one `DownloadFailed` for all of them. [] if the directory is empty.

        Raises:
            NotReady, UnknownRun, DownloadError: As in `Client.download_component`.
        """
        return await self.client.download_component(self, stage, component, to, strict=strict)

    async def download_outputs(
        self,
        to: str | os.PathLike[str],
        names: str | Iterable[str] | None = None,
        *,
        unpack: bool = False,
        strict: bool = False,
    ) -> list[Download | DownloadFailed]:
        """
        Download key-outputs to ``<to>/Energies/energies.csv``, and return the outcome for each.

        After an interruption, call it again: files that are complete and have not changed are not fetched again.

        Args:
            to: Folder, created if missing.
            names: Key-outputs. None means all that exist now.
            unpack: Unpack key-outputs that are folders, instead of keeping the archive.
            strict: Raise the first error after everything else was fetched, instead of returning it.

        Returns:
            The outcomes, in the given order; for an unpacked folder, one for each file in it.

        Raises:
            UnknownRun, DownloadError: As in `Client.download_outputs`.
        """
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
        """
        Download key-outputs that the run uploaded to a bucket, of any size, and return the outcome for each file.

        Args:
            to: Folder, created if missing.
            store: The ``s3Store`` that the run was started with.
            names: Key-outputs. None means all that exist now.
            strict: Raise the first error after everything else was fetched, instead of returning it.
            allow_http: Allow unencrypted transfers to an ``http://`` endpoint on another machine.

        Raises:
            UnknownRun, NotReady, ConfigError, DownloadError: As in `Client.fetch_s3_outputs`.
        """
        return await self.client.fetch_s3_outputs(
            self, to, store=store, names=names, strict=strict, allow_http=allow_http
        )

    async def csv(
        self, filename: str = CSV_FILES, *, component: str | None = None, stage: int | None = None
    ) -> list[Table]:
        """
        Return the CSV files that components wrote, each as a DataFrame with the document of its component.

        Args:
            filename: Regular expression, searched for in the path of a file.
            component: Regular expression, searched for in the names of components. None means all.
            stage: Index of the stage. None means all.

        Returns:
            The tables, ordered by stage and component. [] if no file matches.

        Raises:
            ImportError: pandas is not installed.
            NotFound, NotReady, UnknownRun: As in `Client.csv`.
        """
        return await self.client.csv(self, filename, component=component, stage=stage)

    async def stdout(self, component: str | None = None, *, stage: int | None = None) -> dict[str, str]:
        """
        Return the standard output of components that are over: reference (``stage0.Compute``) -> text.

        Args:
            component: Regular expression, searched for in the names of components. None means all.
            stage: Index of the stage. None means all.

        Raises:
            NotFound: No component matches. The error names the components.
            NotReady, UnknownRun, St4sdError: As in `Client.stdout`.
        """
        return await self.client.stdout(self, component, stage=stage)

    async def stderr(self, component: str | None = None, *, stage: int | None = None) -> dict[str, str]:
        """
        Return the standard error of components that are over: reference (``stage0.Compute``) -> text.

        On Kubernetes, `stdout` has what a component wrote to either.

        Args:
            component: Regular expression, searched for in the names of components. None means all.
            stage: Index of the stage. None means all.

        Raises:
            NotFound, NotReady, UnknownRun, St4sdError: As in `stdout`.
        """
        return await self.client.stderr(self, component, stage=stage)

    async def failure(self, *, timeout: float = FAILURE_TIMEOUT) -> Failure | None:
        """
        Return why the run failed: the failed components, with the last lines of what they wrote.

            print(await run.failure())

        Args:
            timeout: Seconds after which the failure is returned without what is missing.

        Returns:
            The failure. None means that the run has not failed.

        Raises:
            UnknownRun: There is no such run, and the datastore has no final status of it.
        """
        return await self.client.failure(self, timeout=timeout)

    async def log(self) -> str:
        """
        Return the log of the orchestrator, waiting until the datastore knows where the run is.

        Raises:
            NotFound: There is no log yet.
            NotReady, UnknownRun, DownloadError: As in `Client.log`.
        """
        return await self.client.log(self)

    async def status_report(self) -> StatusReport:
        """
        Return the state of each component, as a report that prints as a table.

        Raises:
            NotFound: There is no report yet.
            NotReady, UnknownRun, DecodeError: As in `Client.status_report`.
        """
        return await self.client.status_report(self)

    async def document(self, *, timeout: float = DOCUMENT_TIMEOUT) -> ExperimentDocument:
        """
        Return the document of the run in the datastore, which outlives the run.

        It is 10 to 20 s late: this waits for it.

        Args:
            timeout: Seconds to wait for a document that is late.

        Raises:
            NotReady, NotFound, UnknownRun: As in `Datastore.document`.
        """
        return await self.client.datastore.document(self.id, timeout=timeout)

    async def components(self, *, timeout: float = DOCUMENT_TIMEOUT) -> list[ComponentDocument]:
        """
        Return the documents of the components in the datastore, with their states, directories and files.

        They are 10 to 20 s late: this waits for them.

        Args:
            timeout: Seconds to wait for documents that are late.

        Raises:
            NotReady, NotFound, UnknownRun: As in `Datastore.components_of`.
        """
        return await self.client.datastore.components_of(self.id, timeout=timeout)

    async def delete(self) -> None:
        """
        Stop the run and delete it. Its files and its documents in the datastore stay.

        Returns before the run has stopped.

        Raises:
            UnknownRun: There is no such run, or it was deleted.
        """
        await self.client.delete(self)


def unbound(rest_uid: str, url: str) -> Run:
    """Return a run without a client."""
    run = object.__new__(Run)
    run.__dict__.update(id=rest_uid, url=url, _client=None)
    return run


RunLike = Run | str
"""A handle on a run, or its rest-uid."""
