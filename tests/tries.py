"""How often tests try the same with other values."""

from __future__ import annotations

import os

IS_FULL = os.environ.get("ST4SD_TESTS") == "full"  # as in `.ci/run --all`


def tries(full: int, sample: int) -> int:
    """Return `full` if the environment has ``ST4SD_TESTS=full``; else `sample`, which saves minutes."""
    return full if IS_FULL else sample
