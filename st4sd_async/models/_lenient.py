"""Read a JSON value without the parts that cannot be read, so that one odd field does not hide the rest."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, TypeVar

import pydantic

from .._util.printable import is_writable

T = TypeVar("T")
Place = tuple[int | str, ...]
"""Keys and indices that lead to a part of a value."""

ROUNDS = 8
"""How often parts are left out: what is inside a part is looked at only if the part itself can be read."""


def lenient(read: Callable[[Any], T], value: Any, vital: Collection[str] = ()) -> T:
    """
    Return what a reader makes of a value; leave out fields and items that it refuses.

    The value itself is not changed.

    Args:
        read: Makes a model of a value.
        value: The JSON value.
        vital: Fields without which the rest says something else, so that none is left out as a whole.

    Raises:
        pydantic.ValidationError: A field that has to be there cannot be read, or the value as a whole.
    """
    try:
        return read(value)
    except pydantic.ValidationError as error:
        first = last = error
    if isinstance(value, dict) and not all(map(is_writable, value)):  # no model takes such a name of a field
        return lenient(read, {name: part for name, part in value.items() if is_writable(name)}, vital)
    for _ in range(ROUNDS):
        places = {_reached(value, one["loc"]) for one in last.errors(include_url=False, include_context=False)}
        if () in places or any(place[0] in vital for place in places if len(place) == 1):
            break
        value = _without(value, places)
        try:
            return read(value)
        except pydantic.ValidationError as error:
            last = error
    raise first


def _reached(value: Any, place: Place) -> Place:
    """Return the first part of a place that leads to something in the value."""
    for depth, step in enumerate(place):
        if not isinstance(value, dict | list) or step not in (value if isinstance(value, dict) else range(len(value))):
            return place[:depth]
        value = value[step]  # type: ignore[index] # an index of a list, a key of a dictionary
    return place


def _without(value: Any, places: Collection[Place]) -> Any:
    """Return a copy of a value without the parts at these places."""
    inside: dict[int | str, set[Place]] = {}
    for first, *rest in places:
        inside.setdefault(first, set()).add(tuple(rest))
    if isinstance(value, list):
        return [
            _without(item, inside[index]) if index in inside else item
            for index, item in enumerate(value)
            if () not in inside.get(index, ())
        ]
    return {
        name: _without(item, inside[name]) if name in inside else item
        for name, item in value.items()
        if () not in inside.get(name, ())
    }
