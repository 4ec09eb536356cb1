"""The embedded ST4SD as the commands open it."""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path

from ..local import LocalServer

FEWEST_SLOTS = 2
"""Runs at once at least: a real one waits half of its time."""
MOST_SLOTS = 8
"""Runs at once at most, unless told otherwise: a real one takes about 200 MB."""


class EngineName(StrEnum):
    """How the embedded ST4SD runs experiments."""

    ELAUNCH = "elaunch"
    SIMULATOR = "simulator"


def usual_slots() -> int:
    """How many runs at once suit this machine: two for a processor core, within bounds."""
    return min(MOST_SLOTS, max(FEWEST_SLOTS, 2 * (os.cpu_count() or 1)))


def embedded(
    engine: EngineName, *, keep: Path | None, slots: int | None = None, tls: bool = False, port: int = 0
) -> LocalServer:
    """
    An embedded server, not entered yet.

    Args:
        engine: How it runs experiments.
        keep: Where the directories of the instances stay; None: nowhere.
        slots: How many run at once; None: `usual_slots`.
        tls: Whether it serves https.
        port: Where it listens; 0: on any free port.

    Raises:
        ImportError: A package is missing; the text says which extra brings it.
    """
    return LocalServer(
        engine="elaunch" if engine is EngineName.ELAUNCH else "simulator",
        keep=keep,
        slots=usual_slots() if slots is None else slots,
        tls=tls,
        port=port,
    )
