"""How often tests try the same with other values."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from itertools import product
from typing import TypeVar

Case = TypeVar("Case")

IS_FULL = os.environ.get("ST4SD_TESTS") == "full"  # as in `.ci/run --all`


def tries(full: int, sample: int) -> int:
    """Return `full` if the environment has ``ST4SD_TESTS=full``; else `sample`, which saves minutes."""
    return full if IS_FULL else sample


def sample(cases: Iterable[Case], number: int) -> list[Case]:
    """
    Return all cases if the environment has ``ST4SD_TESTS=full``; else at most `number` of them.

    They are spread evenly over the list, and the first is one of them. Put a case that no other one resembles
    first, or into a list of its own.
    """
    listed = list(cases)
    return listed if IS_FULL else listed[:: max(1, -(-len(listed) // number))]


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
