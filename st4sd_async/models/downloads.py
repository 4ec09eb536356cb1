"""What became of files that were to be fetched."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .._errors import St4sdError
from .._render.shown import Shown
from .._util.field_docs import document_fields


@document_fields
@dataclass(frozen=True)
class Download(Shown):
    """A file that is whole and on disk."""

    path: Path
    """Where it is."""
    size: int
    """Bytes."""
    sha256: str
    """Of its content, in hexadecimal."""
    source: str
    """Where it came from: ``file://<id of a gateway>/<path>``, ``<rest-uid>/outputs/<key-output>``, ``s3://bucket/key``."""


@document_fields
@dataclass(frozen=True)
class DownloadFailed(Shown):
    """A file, or all files of a folder, that could not be had; nothing half of it is under the name."""

    path: Path
    """Where it should be."""
    source: str
    """Where it should come from, as in `Download`."""
    error: St4sdError
    """Why it did not."""
