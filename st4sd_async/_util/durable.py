"""Write files that survive a crash: a file is complete, or it does not exist."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def write_whole(path: Path, content: bytes) -> None:
    """
    Write a file, which appears under its name only when it is complete and on the disk.

    An existing file is replaced in one step. After an error there is no temporary file.

    Raises:
        OSError: The file cannot be written, or the path is a folder.
    """
    temporary = path.with_name(f".{os.urandom(8).hex()}.part")
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make sure that a new file in a folder survives a power failure. Not every system can."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
