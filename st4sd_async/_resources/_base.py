"""What all groups of endpoints are made of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, TypeVar

import pydantic

from .._call import LARGEST_BODY, Call, json_body
from .._errors import Problem
from .._refusals import InvalidDefinition

T = TypeVar("T")


class Sender(Protocol):
    """Sends a call and returns what its reply means."""

    async def __call__(self, call: Call[T], /) -> T: ...


class Group:
    """A group of endpoints: each method builds a call and sends it."""

    def __init__(self, send: Sender) -> None:
        self._send = send


def definition_body(what: str, definition: object, cls: type[InvalidDefinition] = InvalidDefinition) -> bytes:
    """
    The JSON body of something that is sent to be checked or stored.

    Raises:
        TypeError: It is no mapping.
        InvalidDefinition: JSON cannot say it, or it is over 1 MiB.
    """
    if not isinstance(definition, Mapping):
        raise TypeError(f"a {what} is a mapping, not {type(definition).__name__}")
    try:
        body = json_body(dict(definition))
    except ValueError:
        body = b""
    if not body:
        raise cls.before_sending(what, [Problem("", "JSON cannot say what is in it")])
    if len(body) > LARGEST_BODY:
        raise cls.before_sending(what, [Problem("", f"{len(body)} bytes are more than the {LARGEST_BODY} allowed")])
    return body


def checked_definition(
    what: str, definition: object, model: type[pydantic.BaseModel], cls: type[InvalidDefinition] = InvalidDefinition
) -> dict[str, Any]:
    """What is to be sent, as it was given; raises the error, with all problems, if it does not fit its model."""
    if isinstance(definition, model):
        return definition.model_dump(exclude_unset=True)
    if not isinstance(definition, Mapping):
        raise TypeError(f"a {what} is a mapping or a {model.__name__}, not {type(definition).__name__}")
    given = dict(definition)
    try:
        model.model_validate(given)
    except pydantic.ValidationError as error:
        found = error.errors(include_url=False, include_input=False, include_context=False)
    else:
        return given
    raise cls.before_sending(what, [Problem(".".join(str(part) for part in one["loc"]), one["msg"]) for one in found])


def flags(**given: bool) -> dict[str, str]:
    """Query parameters in the service's manner: ``y`` for those that are True, nothing for the others."""
    return {name: "y" for name, value in given.items() if value}


def without_nulls(value: Any) -> Any:
    """A JSON value without the fields that have no value."""
    if isinstance(value, Mapping):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    return [without_nulls(item) for item in value] if isinstance(value, list) else value
