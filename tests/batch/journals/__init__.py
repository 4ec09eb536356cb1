"""Journals of earlier versions, which every later version must open."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

FORMAT_1 = Path(__file__).with_name("format-1.db")
"""
Launches in every state, written by batches of commit 291f7e1 with the embedded server in nine openings.

The last opening crashed while one launch was being sent. Two runs existed before the batches, one launch has a second
attempt, and the payloads of five launches lack their credentials.
"""

FORMAT_2 = Path(__file__).with_name("format-2.db")
"""
A launch that succeeded, one that failed, one that was refused and one that is planned, written by a batch of commit
b7b61cf with the embedded server. The journal has no table of reasons.
"""


def copied(path: Path, folder: Path, server: str | None = None) -> Path:
    """
    Copy a journal, and return the path of the copy.

    Args:
        path: The journal.
        folder: Folder for the copy.
        server: URL of the server to write into the copy, as the error about another server advises. None keeps it.
    """
    copy = folder / "campaign.db"
    shutil.copyfile(path, copy)
    if server is not None:
        with closing(sqlite3.connect(copy)) as database, database:
            database.execute("UPDATE journal SET value = ? WHERE name = 'server'", (server,))
    return copy
