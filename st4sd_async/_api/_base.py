"""What all groups of endpoints are made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import pydantic

from .._errors import InvalidDefinition, Problem, parse_problems
from .._http.call import MAX_REQUEST_BYTES, Response, json_body
from ..models import Experiment
from ..models._base import RegistryEntry
from ..models.requirements import credentials_in

if TYPE_CHECKING:
    from .._http.session import ClientSession

E = TypeVar("E", bound=RegistryEntry)

AT_FIRST_USE = pydantic.ConfigDict(defer_build=True)
"""When what checks a type is built, so that the import is quick."""


class Group:
    """A group of endpoints: each method builds a call and sends it."""

    def __init__(self, session: ClientSession) -> None:
        self._session = session


def registered(cls: type[E]) -> Callable[[Response], E]:
    """A decoder for an entry of a registry and what is wrong with it."""

    def decode(response: Response) -> E:
        body = response.json()
        found = cls.model_validate(body["entry"])
        found._problems = parse_problems(body.get("problems"))
        return found

    return decode


def complaints(body: Mapping[str, Any]) -> list[Any]:
    """Return what the service says is wrong, in a reply that has ``problems``; [] if that is not a list."""
    found = body.get("problems")
    return list(found) if isinstance(found, list) else []


def mapping(what: str, value: object) -> Mapping[str, Any]:
    """A value that is to be a mapping; raises TypeError if it is none."""
    if not isinstance(value, Mapping):
        raise TypeError(f"a {what} is a mapping, not {type(value).__name__}")
    return value


def package_of(package: Mapping[str, Any] | Experiment) -> Mapping[str, Any]:
    """The definition of a package, in the service's form; raises TypeError if it is none."""
    if isinstance(package, Experiment):
        return package.raw
    if not isinstance(package, Mapping):
        raise TypeError(f"a package is a mapping or an Experiment, not {type(package).__name__}")
    return package


def secrets_of(definition: Mapping[str, Any]) -> tuple[str, ...]:
    """The texts in the definition of a package that must not come back in messages."""
    return tuple(text for _, text in credentials_in(definition))


def definition_body(what: str, definition: object, cls: type[InvalidDefinition] = InvalidDefinition) -> bytes:
    """
    The JSON body of something that is sent to be checked or stored.

    Raises:
        TypeError: It is no mapping.
        InvalidDefinition: JSON cannot say it, or it is over 1 MiB.
    """
    problem = ""
    try:
        body = json_body(dict(mapping(what, definition)))
    except ValueError as error:
        body, problem = b"", str(error)
    if problem:
        raise cls.before_sending(what, [Problem("", problem)])
    if len(body) > MAX_REQUEST_BYTES:
        raise cls.before_sending(
            what, [Problem("", f"{len(body)} bytes are more than the {MAX_REQUEST_BYTES} allowed")]
        )
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
