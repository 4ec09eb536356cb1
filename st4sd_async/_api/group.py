"""Shared code of the groups of endpoints: sending calls, and converting arguments to bodies and parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from inspect import getdoc
from typing import TYPE_CHECKING, Any, TypeVar

import pydantic

from .._errors import InvalidDefinition, Problem, parse_problems
from .._http.call import MAX_REQUEST_BYTES, Response, json_body
from .._render.displayable import Displayable
from .._util.redact import raise_unchained
from ..models import Experiment
from ..models._base import RegistryEntry, with_problems
from ..models.requirements import credentials_in

if TYPE_CHECKING:
    from .._http.session import ClientSession
    from .._render.cards import Card

E = TypeVar("E", bound=RegistryEntry)

DEFER_BUILD = pydantic.ConfigDict(defer_build=True)
"""Builds the validator of a type when it is first used, so that the import is fast."""


class Group(Displayable):
    """A group of endpoints. Each method builds a call and sends it through the session of a client."""

    def __init__(self, session: ClientSession) -> None:
        self._session = session

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {', '.join(self._verbs())}>"

    def _verbs(self) -> dict[str, str]:
        """Return name -> first sentence of the docstring, of each method and property."""
        members = {name: getattr(type(self), name) for name in dir(type(self)) if not name.startswith("_")}
        return {name: _first_sentence(getdoc(member) or "") for name, member in members.items()}

    def _card(self) -> Card:
        from .._render.cards import Card, CardTable

        table = CardTable(("verb", "what it does"), tuple(self._verbs().items()))
        return Card(type(self).__name__, kind="group of endpoints", table=table)


def _first_sentence(docstring: str) -> str:
    """Return the first sentence of a docstring as plain text."""
    first = docstring.partition("\n\n")[0].partition(". ")[0]
    return f"{' '.join(first.split()).rstrip('.')}.".replace("`", "")


def registered(cls: type[E]) -> Callable[[Response], E]:
    """Return a decoder for a registry entry and its problems."""

    def decode(response: Response) -> E:
        body = response.json()
        return with_problems(cls.model_validate(body["entry"]), parse_problems(body.get("problems")))

    return decode


def problems_of(body: Mapping[str, Any]) -> list[Any]:
    """Return the ``problems`` of a response; [] if they are not a list."""
    found = body.get("problems")
    return list(found) if isinstance(found, list) else []


def mapping(what: str, value: object) -> Mapping[str, Any]:
    """Return a value that must be a mapping; raise TypeError if it is not."""
    if not isinstance(value, Mapping):
        raise TypeError(f"a {what} must be a mapping, not {type(value).__name__}")
    return value


def package_of(package: Mapping[str, Any] | Experiment) -> Mapping[str, Any]:
    """Return the definition of a package in the form of the service; raise TypeError if it is neither."""
    if isinstance(package, Experiment):
        return package.raw
    if not isinstance(package, Mapping):
        raise TypeError(f"a package must be a mapping or an Experiment, not {type(package).__name__}")
    return package


def secrets_of(definition: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the credentials in the definition of a package, to redact them from messages."""
    return tuple(text for _, text in credentials_in(definition))


def definition_body(what: str, definition: object, cls: type[InvalidDefinition] = InvalidDefinition) -> bytes:
    """
    Return the JSON body of a definition.

    Raises:
        TypeError: The definition is not a mapping.
        InvalidDefinition: The definition has values that JSON lacks, or is larger than 1 MiB.
    """
    try:
        body = json_body(dict(mapping(what, definition)))
    except ValueError as error:
        raise_unchained(cls.before_sending(what, [Problem("", str(error))]))
    if len(body) > MAX_REQUEST_BYTES:
        raise cls.before_sending(
            what, [Problem("", f"{len(body)} bytes are more than the {MAX_REQUEST_BYTES} allowed")]
        )
    return body


def checked_definition(
    what: str, definition: object, model: type[pydantic.BaseModel], cls: type[InvalidDefinition] = InvalidDefinition
) -> dict[str, Any]:
    """Return a definition unchanged; raise ``cls``, with all problems, if it does not fit its model."""
    if isinstance(definition, model):
        return definition.model_dump(exclude_unset=True)
    if not isinstance(definition, Mapping):
        raise TypeError(f"a {what} must be a mapping or a {model.__name__}, not {type(definition).__name__}")
    unchanged = dict(definition)
    try:
        model.model_validate(unchanged)
    except pydantic.ValidationError as error:
        found = error.errors(include_url=False, include_input=False, include_context=False)
        problems = [Problem(".".join(str(part) for part in one["loc"]), one["msg"]) for one in found]
        raise_unchained(cls.before_sending(what, problems))
    return unchanged


def flags(**options: bool) -> dict[str, str]:
    """Return query parameters: ``y`` for options that are True, nothing for the others."""
    return {name: "y" for name, value in options.items() if value}


def properties_params(columns: Iterable[str] | None, *, stringify_nan: bool) -> dict[str, str]:
    """Return the query parameters for measured properties; {} if none are wanted."""
    names = [columns] if isinstance(columns, str) else list(columns or ())
    for name in names:
        if not check_text("a column", name) or "," in name:
            raise ValueError(f"the name of a column must be a string without commas, not {name!r}")
    params = {"stringifyNaN": "true"} if stringify_nan else {}
    return {"includeProperties": "*" if "*" in names else ",".join(names).lower(), **params} if names else params


def check_text(what: str, text: str) -> str:
    """Return a text; raise TypeError if it is something else."""
    if not isinstance(text, str):
        raise TypeError(f"{what} must be a string, not {text!r}")
    return text


def without_nulls(value: Any) -> Any:
    """Return a JSON value without fields that are null."""
    if isinstance(value, Mapping):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    return [without_nulls(item) for item in value] if isinstance(value, list) else value
