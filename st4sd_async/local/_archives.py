"""
Folders as zip archives, with the peculiarities of the service's own.
"""

from __future__ import annotations

import io
import time
import zipfile
from pathlib import Path


class _Stream(io.BytesIO):
    """A buffer that cannot seek, which makes the archive carry data descriptors."""

    def seekable(self) -> bool:
        return False

    def seek(self, *_args: object) -> int:
        raise io.UnsupportedOperation("seek")


def zip_folder(folder: Path) -> bytes:
    """
    All files of a folder in one archive, as the service streams it.

    Member names begin with ``/``, every member has zip64 sizes and a data descriptor, and empty directories
    are lost.
    """
    stream = _Stream()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                modified = time.localtime(max(path.stat().st_mtime, 315_532_800))
                member = zipfile.ZipInfo(f"/{path.relative_to(folder).as_posix()}", modified[:6])
                member.compress_type = zipfile.ZIP_DEFLATED
                with archive.open(member, "w", force_zip64=True) as target:
                    target.write(path.read_bytes())
    return stream.getvalue()
