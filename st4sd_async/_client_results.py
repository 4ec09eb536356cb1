"""What runs leave behind: the verbs of a client that look at results and fetch them."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from ._api.gateways import MOST_BYTES
from ._api.instances import where_to_look
from ._errors import APIError, TransportError, UnknownOutput
from ._results import tables as _tables
from ._results.downloads import judged
from ._results.properties import Search, wanted
from ._run import RunLike, place_of, rest_uid_of, several
from .models import Download, DownloadFailed

if TYPE_CHECKING:
    import os

    from ._api.datastore import Datastore
    from ._api.gateways import Gateways
    from ._api.instances import Instances
    from ._results.downloads import Downloads
    from ._results.tables import Table
    from .models import KeyOutput, Output, Properties, StatusReport


class Results:
    """The part of a client that has to do with results; see `Client` for what all its methods raise."""

    instances: Instances
    """Instances by rest-uid."""
    datastore: Datastore
    """Documents about runs, which outlive them."""
    gateways: Gateways
    """Where the files of runs are."""
    _downloads: Downloads

    async def outputs(self, run: RunLike) -> dict[str, KeyOutput]:
        """
        The key-outputs of a run that exist by now, by name; {} before there are any.

        Raises:
            UnknownRun: It is not there.

        Source: ``GET instances/{id}/outputs`` of the runtime service.
        """
        return await self.instances.outputs(rest_uid_of(run))

    async def output(self, run: RunLike, name: str, path: str | None = None) -> Output:
        """
        The contents of a key-output: a file as it is, a folder as its zip archive.

        Args:
            run: The run.
            name: The key-output.
            path: A file or folder inside a folder key-output, as ``"sub/b.bin"``; None: all of it.

        Raises:
            UnknownRun: The run is not there.
            UnknownOutput: It has no such key-output, not yet, or no such file in it; ``known`` names those it has.
            DecodeError: Something else came in place of a file, such as the web page of a proxy.

        Source: ``GET instances/{id}/outputs/{name}`` of the runtime service, which reads it whole into its
        memory: an output of gigabytes is likely to end in a time-out.
        """
        try:
            return await self.instances.output(rest_uid_of(run), name, path)
        except UnknownOutput as error:
            missing = error
        missing.name = name
        # What there is, and whether more may come, is only a help; the run may be gone by now.
        with suppress(APIError, TransportError):
            missing.known = tuple(await self.outputs(run))
            is_over = (await self.instances.status(rest_uid_of(run))).is_final
            missing.advice = where_to_look(name, path, missing.known, is_over=is_over)
        raise missing

    async def read_file(self, run: RunLike, path: str | os.PathLike[str], *, limit: int = MOST_BYTES) -> bytes:
        """
        The content of one file of a run.

        Args:
            run: The run, or its location as documents name it: ``file://<id of a gateway>/<path>``.
            path: Relative to the directory of the instance, as ``output/experiment.log``; or absolute, as
                ``ComponentDocument.files`` has it.
            limit: Bytes that the file may have; a gateway gives none of more than 32 MiB.

        Raises:
            NotFound: It is not there, or the gateway is unknown.
            DownloadError: It is too large, or came damaged.
            NotReady, UnknownRun: Where the run is, is not known, or not yet: see `Datastore.document`.
            ValueError: The path leads elsewhere.

        Source: ``POST files/api/v1.1`` of the gateway.
        """
        return await self._downloads.read(place_of(run), path, limit)

    async def download_files(
        self,
        run: RunLike,
        to: str | os.PathLike[str],
        *,
        component: str | None = None,
        stage: int | None = None,
        filename: str | None = None,
        strict: bool = False,
    ) -> list[Download | DownloadFailed]:
        r"""
        Fetch files that components of a run left behind, many at once; the folder gets the instance's own layout.

        A file is under its name only when it is whole, in place of what had that name. What is interrupted,
        by a death of the process too, can be called again: what came from the same place and is still as it
        was is not fetched again, which the hidden file ``.st4sd-downloads.jsonl`` of the folder is for. What
        a gateway leaves out because it is too large comes with the archive of its whole component.

        The folder may be a link. Links in it are not followed: a file that belongs behind one is a `DownloadFailed`.
        A name that begins with ``.st4sd-`` gets a ``_`` in front.

        Args:
            run: The run, or its location (``file://...``). Its documents are waited for as `Datastore.document` does.
                Of a run that goes on, there are the files of the components that are over.
            to: Folder, made if need be, best one for each run: files go to ``<to>/stages/stage0/Compute/energies.csv``.
            component: Regular expression that needs to fit somewhere in the name of a component: ``"Comp"``,
                ``"^Compute$"``; or a reference, which is ``stage0.`` and the same. None: all.
            stage: Index of the stage.
            filename: Expression that needs to fit somewhere in the absolute path of a file, or in its path below
                the directory of its component: ``r"\.csv$"``, ``"^energies.csv$"``.
            strict: Whether a file that cannot be had is an error, raised when all others are there.

        Returns:
            What became of each file that fits, by stages and components; [] if none fits.

        Raises:
            NotFound: No component is meant, which names those there are.
            NotReady, UnknownRun: As `Datastore.document`.
            DownloadError: There can be no such folder. With ``strict`` this and any other `St4sdError`.

        Source: ``POST files/api/v1.1`` and ``GET experiment/download`` of the gateway.
        """
        found = await self._downloads.files(place_of(run), Path(to), component, stage, filename)
        return judged(found, strict=strict)

    async def download_component(
        self, run: RunLike, stage: int, component: str, to: str | os.PathLike[str], *, strict: bool = False
    ) -> list[Download | DownloadFailed]:
        """
        Fetch the whole working directory of a component, all of it or nothing, as it is now.

        It comes as one archive of any size, which needs room in the folder for itself and for what is in it.
        Empty folders are lost. If it is there already, and the component is over, nothing is fetched.

        Args:
            run: The run, or its location (``file://...``).
            stage: Index of the stage.
            component: Its exact name, as ``"Compute"``, and no expression.
            to: Folder for what is in the directory, made if need be; files of the same names are replaced.
            strict: Whether it is an error if it cannot be had.

        Returns:
            The files, or one `DownloadFailed` for all of them; [] if the directory is empty.

        Raises:
            NotReady, UnknownRun: As `Datastore.document`.
            DownloadError: There can be no such folder. With ``strict`` this and any other `St4sdError`.

        Source: ``GET experiment/download`` of the gateway.
        """
        return judged(await self._downloads.component(place_of(run), stage, component, Path(to)), strict=strict)

    async def download_outputs(
        self,
        run: RunLike,
        to: str | os.PathLike[str],
        names: str | Iterable[str] | None = None,
        *,
        unpack: bool = False,
        strict: bool = False,
    ) -> list[Download | DownloadFailed]:
        """
        Fetch key-outputs, several at once, each into a folder of its name.

        Interrupted or repeated, it goes on as `download_files` does; a newer version of a key-output is fetched.
        A name that cannot be a folder everywhere, or differs from another one only in case, gets a digest, as
        ``a_b~`` and 32 hexadecimal digits. Ordinary names (letters, digits, ``.``, ``_``, ``-``) do not.

        Args:
            run: The run.
            to: Folder, made if need be, best one for each run: ``<to>/Energies/energies.csv``,
                ``<to>/Folder/results.zip``.
            names: Key-outputs, None: all there are by now; if the run is not over, the log has a warning.
            unpack: Whether folders are unpacked: ``<to>/Folder/sub/b.bin``.
            strict: Whether a key-output that cannot be had is an error, raised when all others are there.

        Returns:
            What became of each key-output, in the order given; of an unpacked folder, of each file in it.

        Raises:
            UnknownRun: It is not there.
            DownloadError: There can be no such folder. With ``strict`` this and any other `St4sdError`.

        Source: ``GET instances/{id}/outputs/{name}`` of the runtime service, which reads each whole into its memory
        first: one of gigabytes is likely to end in a time-out, and then `download_component` has it.
        """
        chosen = [names] if isinstance(names, str) else names if names is None else list(names)
        found = await self._downloads.outputs(rest_uid_of(run), Path(to), chosen, unpack=unpack)
        return judged(found, strict=strict)

    async def csv(
        self,
        run: RunLike,
        filename: str = _tables.CSV_FILES,
        *,
        component: str | None = None,
        stage: int | None = None,
    ) -> list[Table]:
        """
        The tables that components of a run wrote, each as a DataFrame with the document of its component.

        The files are fetched together and read one by one, in the memory of this process. Those of the orchestrator
        itself, ``component_performance.csv``, are among them.

        Args:
            run: The run, or its location (``file://...``).
            filename: Expression for files, as in `download_files`.
            component: Regular expression that needs to fit somewhere in the name of a component: ``"Comp"``,
                ``"^Compute$"``; or a reference, which is ``stage0.`` and the same. None: all.
            stage: Index of the stage.

        Returns:
            A `Table` for each file that fits, by stages and components; [] if none fits. One that could not be
            fetched, or is no table, has a ``problem``, which its `Table.dataframe` raises, and the others are there.

        Raises:
            ImportError: pandas is not installed.
            NotFound, NotReady, UnknownRun: As `download_files`.

        Source: ``POST files/api/v1.1`` of the gateway.
        """
        return await _tables.tables(self, place_of(run), filename, component=component, stage=stage)

    async def stdout(self, run: RunLike, component: str | None = None, *, stage: int | None = None) -> dict[str, str]:
        """
        What components of a run printed that are over: reference (``stage0.Compute``) -> text, by stages.

        It is what the last task of each printed, in UTF-8; what is not is replaced. A component that never
        ran is left out.

        Args:
            run: The run, or its location (``file://...``).
            component: Regular expression that needs to fit somewhere in the name of a component: ``"Report"``,
                ``"^(Compute|Report)$"``; or a reference, which is ``stage0.`` and the same. None: all.
            stage: Index of the stage.

        Raises:
            NotFound: No component is meant, which names those there are.
            NotReady, UnknownRun: As `download_files`.
            St4sdError: A text could not be fetched.

        Source: ``POST files/api/v1.1`` of the gateway.
        """
        return await _tables.printed(self, place_of(run), component=component, stage=stage)

    async def log(self, run: RunLike) -> str:
        """
        What the orchestrator of a run logged by now; what is not UTF-8 is replaced.

        Waited for like all that the datastore locates, which learns of a run 10 to 20 s after it began or ended.

        Raises:
            NotFound: There is none: not yet, or not any more, as of a deleted run.
            NotReady, UnknownRun, DownloadError: As `read_file`.

        Source: ``output/experiment.log`` in the run's directory.
        """
        return await _tables.log(self, place_of(run))

    async def status_report(self, run: RunLike) -> StatusReport:
        """
        How each component of a run was doing when the orchestrator last wrote it down, some seconds ago or in the end.

        Raises:
            NotFound: There is no report: not yet, or not any more, as of a deleted run.
            NotReady, UnknownRun: As `read_file`.
            DecodeError: The report is cut short or damaged, as by a full disk; a later one may be whole.

        Source: ``output/status_details.json`` in the run's directory.
        """
        return await _tables.status_report(self, place_of(run))

    async def properties(
        self, run: RunLike | Iterable[RunLike], names: Iterable[str] | None = None, *, strict: bool = False
    ) -> Properties:
        """
        What a run measured, or what several did, as one table; see `Properties` for its rows and columns.

        Properties are there when a run is over. Those of several runs come from the datastore in one request for up
        to 500 of them; only runs of which it does not know the end, which takes it 10 to 20 s, are asked for one by
        one. Deleted runs have their properties still.

        Args:
            run: A run, or any number of them, each taken once.
            names: Columns in any case, which follow ``input-id`` in this order; None: all.
            strict: Whether a run without properties is an error among several too.

        Returns:
            Of a run its table. Of several one table with the column ``rest-uid`` in front, in the order given. It
            has all columns that any of them has. A run is left out as a whole if one of these errors happened to it,
            or another, which ``problems`` has then.

        Raises:
            NotReady: It is not over yet, or is not known to be.
            NoProperties: It is over and measured none, and never will: its experiment does not, or it failed.
            UnknownProperty: It measured some, but not all that ``names`` asks for; ``known`` names those it has. Of
                several it is raised if all that measured some lack the same name.
            UnknownRun: It is not there, and the datastore has no properties of it.

        Source: ``GET instances/{id}/properties`` of the runtime service, and ``POST documents/api/v1.0/query`` of the
        datastore.
        """
        search = Search(self.instances, self.datastore, wanted(names))
        is_one = isinstance(run, str) or not isinstance(run, Iterable)
        order = list(dict.fromkeys(rest_uid_of(one) for one in ([run] if is_one else several(run))))
        if is_one:
            return await search.of_run(order[0])
        found = await search.of_runs(order)
        if strict and found.problems:
            raise next(iter(found.problems.values()))
        return found
