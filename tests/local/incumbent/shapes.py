"""Shapes of values and of errors: what a call of the incumbent gives, without ids, times and texts."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Raises:
    """An error of the incumbent."""

    name: str
    """The name of its class."""
    status: int | None
    """The status of the response that it contains; None if it contains none."""
    words: str
    """A regular expression that its text contains."""


@dataclass(frozen=True)
class Either:
    """One of two shapes, if the time decides which."""

    first: Any
    second: Any


def differences(shape: Any, value: Any, where: str = "it") -> Iterator[str]:
    """
    Yield what is not as in a shape, one line a difference.

    A shape is a class or a union of classes, a regular expression that a whole text must match, a `Raises`, an
    `Either`, or a value, which must be equal. A dictionary has exactly its keys; the key ``"*"`` stands for any keys,
    if there is at least one. A list of one shape stands for one or more items, a tuple for exactly its items.
    """
    match shape:
        case Raises():
            yield from _error_differences(shape, value, where)
        case Either(first, second):
            if list(differences(first, value, where)):
                yield from differences(second, value, where)
        case _ if isinstance(value, BaseException):
            yield f"{where} raises {value!r}"
        case re.Pattern():
            if not (isinstance(value, str) and shape.fullmatch(value)):
                yield f"{where} is {value!r}, not {shape.pattern!r}"
        case Mapping():
            yield from _dictionary_differences(shape, value, where)
        case [item]:
            if not isinstance(value, list) or not value:
                yield f"{where} is {value!r}, not a list with items"
            else:
                for number, one in enumerate(value):
                    yield from differences(item, one, f"{where}[{number}]")
        case tuple():
            if not isinstance(value, tuple) or len(value) != len(shape):
                yield f"{where} is {value!r}, not a tuple of {len(shape)}"
            else:
                for number, (inner, one) in enumerate(zip(shape, value, strict=True)):
                    yield from differences(inner, one, f"{where}[{number}]")
        case _ if isinstance(shape, type) or hasattr(shape, "__args__"):
            if not isinstance(value, shape) or (isinstance(value, bool) and shape is not bool and shape is not object):
                yield f"{where} is {value!r}, not {shape}"
        case _:
            if value != shape or type(value) is not type(shape):
                yield f"{where} is {value!r}, not {shape!r}"


def _error_differences(shape: Raises, value: Any, where: str) -> Iterator[str]:
    if not isinstance(value, BaseException):
        yield f"{where} is {value!r}, not an error"
        return
    response = getattr(value, "response", None)
    got = (type(value).__name__, None if response is None else response.status_code)
    if got != (shape.name, shape.status):
        yield f"{where} raises {got}, not {(shape.name, shape.status)}"
    if not re.search(shape.words, str(value)):
        yield f"{where} says {str(value)!r}, not {shape.words!r}"


def _dictionary_differences(shape: Mapping[str, Any], value: Any, where: str) -> Iterator[str]:
    if not isinstance(value, dict):
        yield f"{where} is {value!r}, not a dictionary"
        return
    if "*" in shape:
        if not value:
            yield f"{where} is empty"
        shape = dict.fromkeys(value, shape["*"])
    for name in sorted(shape.keys() - value.keys()):
        yield f"{where} has no {name!r}"
    for name in sorted(value.keys() - shape.keys()):
        yield f"{where} also has {name!r}"
    for name in shape.keys() & value.keys():
        yield from differences(shape[name], value[name], f"{where}[{name!r}]")
