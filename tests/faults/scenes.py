"""Scenes of the tests of downloads: a run that is over, its files, a client and a target."""

from __future__ import annotations

import gc
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from st4sd_async import Client, Download, DownloadFailed, Run, St4sdError
from st4sd_async.local import LocalServer

from .clients import settings
from .exceptions import assert_ours
from .gateways import another, failed, files_in, instance_of, leftovers, whole

COMPUTE = "stages/stage0/Compute"
Outcomes = list[Download | DownloadFailed]


@dataclass
class Scene:
    """A run that is over, with its own files, and a client."""

    server: LocalServer
    client: Client
    run: Run
    instance: Path
    folder: Path
    """A folder with only the target in it."""

    @property
    def target(self) -> Path:
        """Folder for the downloads."""
        return self.folder / "target"

    def write(self, name: str, content: bytes = b"content\n", component: str = COMPUTE) -> Path:
        """Write a file as if a component had."""
        file = self.instance / component / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        return file

    async def files(self, **chosen: Any) -> Outcomes:
        """Download files of the first component."""
        return await self.client.download_files(self.run, self.target, component="Compute", **chosen)

    async def component(self) -> Outcomes:
        """Download the second component."""
        return await self.client.download_component(self.run, 1, "Report", self.target)

    async def outputs(self) -> Outcomes:
        """Download all key-outputs."""
        return await self.client.download_outputs(self.run, self.target, unpack=True)

    def expected(self, verb: str) -> dict[str, bytes]:
        """Return all files that a kind of download leaves in the target."""
        report = self.instance / "stages/stage1/Report"
        if verb == "files":
            return {f"{COMPUTE}/{name}": data for name, data in files_in(self.instance / COMPUTE).items()}
        if verb == "component":
            return files_in(report)
        folder = {f"Folder/{name}": data for name, data in files_in(report / "results").items()}
        return {**folder, "Energies/energies.csv": (self.instance / COMPUTE / "energies.csv").read_bytes()}

    def check(self, verb: str, outcomes: Outcomes = []) -> None:  # noqa: B006 -- never changed
        """Check what must always hold: no partial or temporary files, nothing elsewhere, only our errors."""
        assert os.listdir(self.folder) in ([], ["target"])  # noqa: PTH208 -- only names are needed
        if self.target.is_dir():
            assert files_in(self.target).items() <= self.expected(verb).items()
            assert leftovers(self.target) == []
        for error in failed(outcomes):
            assert isinstance(error, St4sdError)
            assert_ours_or_system(error)
        whole(one for one in outcomes if isinstance(one, Download))


def assert_ours_or_system(error: BaseException) -> None:
    """Fail if an exception leads to one of the HTTP engine. Its cause may be an error of the disk or archive."""
    cause = error.__cause__
    if cause is None:
        assert_ours(error)


@asynccontextmanager
async def staged(server: LocalServer, tmp_path: Path, **changes: Any) -> AsyncIterator[Scene]:
    """Yield a run that is over, and a client with other settings."""
    (folder := tmp_path / "outside").mkdir()
    async with Client(server.url, api_key=server.api_key, config=settings(**changes)) as client:
        run = await another(client, server)
        yield Scene(server, client, run, instance_of(server, run), folder)
    gc.collect()  # unclosed resources warn now
