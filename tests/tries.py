"""How often tests try the same with other values."""

from __future__ import annotations

import os
from collections.abc import Collection
from itertools import product

IS_FULL = os.environ.get("ST4SD_TESTS") == "full"  # as in `.ci/run --all`


def tries(full: int, sample: int) -> int:
    """Return `full` if the environment has ``ST4SD_TESTS=full``; else `sample`, which saves minutes."""
    return full if IS_FULL else sample


def combinations(*parameters: Collection[str]) -> list[tuple[str, ...]]:
    """
    Return the product of parameters if the environment has ``ST4SD_TESTS=full``; else a sample of it.

    In the sample, each value of each parameter occurs at least once. It has as many rows as the longest
    parameter has values. The values of a shorter one follow each other, and begin one later in each round,
    so that they meet different values of the others.
    """
    columns = [list(values) for values in parameters]
    if IS_FULL:
        return list(product(*columns))
    return [
        tuple(values[(row + row // len(values)) % len(values)] for values in columns)
        for row in range(max(map(len, columns)))
    ]
