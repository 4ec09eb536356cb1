"""The key-outputs that a batch downloads, and the folder for those of each launch."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .._results.directory import Directory
from .._results.target import MANIFEST, Manifest
from .._util.file_names import key_folder_name

if TYPE_CHECKING:
    from .journal import Journal
    from .state import LaunchRecord


@dataclass(frozen=True)
class DownloadRequest:
    """The key-outputs to download of each run that succeeds, and the folder for all of them."""

    names: list[str]
    to: Path
    text: str
    """The request as stored in the journal."""

    def folder(self, journal: Journal, key: str) -> Path:
        """Return the folder for the files of a launch."""
        return self.to / key_folder_name(key, has_twin=journal.has_twin(key))

    def check_unused(self, journal: Journal, keys: Iterable[str]) -> None:
        """Raise ValueError if the folder of a launch that was never started has downloads."""
        used = [folder.name for key in keys if ((folder := self.folder(journal, key)) / MANIFEST).exists()]
        if used:
            problem = f"already has the files of another batch for {len(used)} of the launches to start"
            raise ValueError(f"{str(self.to)!r} {problem}, as in {used[0]!r}: use another folder, or remove them")

    def has_unchanged_files(self, journal: Journal, record: LaunchRecord) -> bool:
        """Return whether the files of a collected launch are as they were when they were downloaded."""
        folder = self.folder(journal, record.key)
        try:
            with Directory.open(str(folder)) as opened:
                unchanged = Manifest(opened).unchanged_paths()
        except OSError:
            return False
        return {str(folder / path) for path in unchanged}.issuperset(record.files)

    def missing_files(self, records: Iterable[LaunchRecord]) -> list[LaunchRecord]:
        """Return the collected launches that have lost a downloaded file."""
        return [
            record for record in records if record.request == self.text and not all(map(os.path.exists, record.files))
        ]


def download_request(
    outputs: Iterable[str] | None, to: str | os.PathLike[str] | None, journal: Journal
) -> DownloadRequest | None:
    """Return the request for arguments of `Batch.run`. None means no downloads. Raises ValueError if one is missing."""
    if outputs is None and to is None:
        return None
    if outputs is None:
        raise ValueError("outputs (names of key-outputs) is missing: downloads need them")
    folder = journal.results_folder if to is None else Path(to).absolute()
    if folder is None:
        raise ValueError("to (folder for the files) is missing: a journal in memory has no folder of its own")
    names = output_names(outputs)
    return DownloadRequest(names, folder, json.dumps({"outputs": sorted(names), "to": str(folder)}))


def output_names(outputs: Iterable[str]) -> list[str]:
    """Return names of key-outputs as a list. Raises ValueError for a single name."""
    if isinstance(outputs, str):
        raise ValueError(f"outputs must be a list of names: use [{outputs!r}]")
    return list(outputs)
