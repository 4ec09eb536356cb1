"""
Base classes of all models.

Models of responses keep unknown fields, payloads reject them, and unknown words never raise an error.

Document each public field by one string below it. Subclasses of these bases show it in ``help()``; dataclasses, named
tuples and other enums need the decorator `document_fields`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    GetCoreSchemaHandler,
    ModelWrapValidatorHandler,
    PrivateAttr,
    ValidationError,
    model_validator,
)
from pydantic_core.core_schema import EnumSchema

from .._util.field_docs import document_fields
from .._util.printable import is_writable, printable

if TYPE_CHECKING:
    from .._errors import Problem

T = TypeVar("T")
E = TypeVar("E", bound="RegistryEntry")

MAX_LENIENT_PARSES = 8
"""Maximum number of parse attempts, each without the parts that the previous one could not read."""

CONSTANTS = (None, False, ())
"""Defaults of private attributes that need no copy."""

Path = tuple[int | str, ...]
"""Keys and indices that lead to a part of a JSON value."""

# The service sends null for a missing list or object.
NullAsList = BeforeValidator(lambda value: [] if value is None else value)
NullAsDict = BeforeValidator(lambda value: {} if value is None else value)
Strings = Annotated[list[str], NullAsList]
JsonObject = Annotated[dict[str, Any], NullAsDict]


def parse_leniently(parse: Callable[[Any], T], value: Any, vital: Collection[str] = ()) -> T:
    """
    Parse a JSON value, and leave out the fields and items that cannot be read.

    Args:
        parse: Makes a model of a value.
        value: The JSON value; it is not changed.
        vital: Fields that must not be left out, because the rest would have another meaning without them.

    Raises:
        pydantic.ValidationError: A required or vital field cannot be read, or nothing can.
    """
    try:
        return parse(value)
    except ValidationError as error:
        first = last = error
    if isinstance(value, dict) and not all(map(is_writable, value)):  # pydantic refuses such names of fields
        return parse_leniently(parse, {name: part for name, part in value.items() if is_writable(name)}, vital)
    for _ in range(MAX_LENIENT_PARSES):
        paths = {_existing(value, one["loc"]) for one in last.errors(include_url=False, include_context=False)}
        if () in paths or any(path[0] in vital for path in paths if len(path) == 1):
            break
        value = _without(value, paths)
        try:
            return parse(value)
        except ValidationError as error:
            last = error
    raise first


def _existing(value: Any, path: Path) -> Path:
    """Return the longest beginning of a path that leads to a part of the value."""
    for depth, step in enumerate(path):
        if not isinstance(value, dict | list) or step not in (value if isinstance(value, dict) else range(len(value))):
            return path[:depth]
        value = value[step]  # type: ignore[index] # an index of a list, a key of a dictionary
    return path


def _without(value: Any, paths: Collection[Path]) -> Any:
    """Return a copy of a value without the parts at these paths."""
    inside: dict[int | str, set[Path]] = {}
    for first, *rest in paths:
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


class Reply(BaseModel):
    """
    A part of a response of the service, frozen; unknown fields are kept.

    If a field cannot be read, it has its default. If an item of a list cannot be read, it is left out. `raw` has both
    unchanged. Only fields without a default must be readable.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(
        defer_build=True,  # until the first use: building takes a third of the time that the package takes to import
        frozen=True,
        extra="allow",
        populate_by_name=True,
        hide_input_in_errors=True,
        protected_namespaces=(),
    )

    _vital: ClassVar[frozenset[str]] = frozenset()
    """Fields that must be readable if present, by the service's names."""
    _computed: ClassVar[frozenset[str]] = frozenset()
    """Computed fields. The JSON of the model has them, and what a service sends has none of them."""
    _added: ClassVar[frozenset[str]] = frozenset()
    """Other fields that the service does not send."""
    _raw: Any = PrivateAttr(default=None)

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        document_fields(cls)

    @classmethod
    def __pydantic_init_subclass__(cls, **options: Any) -> None:
        """
        Copy the defaults of private attributes into each model.

        Pydantic computes each default anew, and does it again for each base class: a third of the time of a status.
        """
        defaults: dict[str, Any] = {name: private.default for name, private in cls.__private_attributes__.items()}
        is_users = getattr(cls.model_post_init, "__wrapped__", None) is not super(cls, cls).model_post_init
        if is_users or any(default not in CONSTANTS for default in defaults.values()):
            return

        def model_post_init(self: BaseModel, context: Any, /) -> None:
            """Set the private attributes to their defaults."""
            if getattr(self, "__pydantic_private__", None) is None:  # a subclass with other defaults has set them
                object.__setattr__(self, "__pydantic_private__", defaults.copy())

        # As pydantic itself does. An assignment would hide the type of the method from pyright.
        setattr(cls, "model_post_init", model_post_init)  # noqa: B010

    @model_validator(mode="wrap")
    @classmethod
    def _keep_raw(cls, value: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        value = cls._masked(value)
        model = parse_leniently(handler, value, cls._vital)
        if isinstance(value, Mapping) and model.__pydantic_private__ is not None:
            # Like `model._raw = value`, in a tenth of the time: lists have thousands of these.
            model.__pydantic_private__["_raw"] = value
            if cls._computed and not value.keys().isdisjoint(cls._computed):
                model._restore(value)
        return model

    @classmethod
    def _masked(cls, value: Any) -> Any:
        """Return the JSON object without secrets, as `raw` keeps it."""
        return value

    def _restore(self, value: Mapping[str, Any]) -> None:
        """Drop the computed fields, which the JSON of a model has, and make `raw` what the service would have sent."""
        for name in self._computed:
            (self.__pydantic_extra__ or {}).pop(name, None)
        self._raw = self._as_sent("json")

    def _as_sent(self, mode: Literal["json", "python"] = "python") -> dict[str, Any]:
        return self.model_dump(
            mode=mode, by_alias=True, exclude_unset=True, exclude={*self._computed, *self._added}, warnings=False
        )

    def __eq__(self, other: object) -> bool:
        """Return whether both have the same fields, whatever they were read from."""
        if type(self) is not type(other):
            return NotImplemented
        return _compared(self) == _compared(other)

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        # `repr` escapes the values; the names of unknown fields come from the server too.
        return [(name and printable(name), value) for name, value in super().__repr_args__()]

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a copy, as pydantic does; if values are updated, `raw` of the copy has the new values."""
        copy = super().model_copy(update=update, deep=deep)
        if update and copy.__pydantic_private__ is not None:
            copy.__pydantic_private__["_raw"] = copy._as_sent()
        return copy

    @property
    def raw(self) -> dict[str, Any]:
        """
        The JSON object as the service sent it.

        An updated copy, and a model that was read from the JSON of another, have the object that would be sent to the
        service.
        """
        raw = (self.__pydantic_private__ or {}).get("_raw")
        return raw if isinstance(raw, dict) else {}


def _compared(model: Any) -> tuple[Any, ...]:
    """Return everything of a model but `raw`."""
    private = {name: value for name, value in (model.__pydantic_private__ or {}).items() if name != "_raw"}
    return model.__dict__, model.__pydantic_extra__, private


class RegistryEntry(Reply):
    """An entry of a registry."""

    _problems: tuple[Problem, ...] = PrivateAttr(default=())

    @property
    def problems(self) -> tuple[Problem, ...]:
        """
        Problems that the service reports about this entry; usually ().

        Only set if the entry was requested by its name. Lists have the problems of their entries themselves.
        """
        return self._problems


def with_problems(entry: E, problems: tuple[Problem, ...]) -> E:
    """Return the entry, after adding the problems that the service reports about it."""
    entry._problems = problems
    return entry


class Payload(BaseModel):
    """A payload for the service, frozen; a misspelt field is an error."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        defer_build=True, frozen=True, extra="forbid", populate_by_name=True, hide_input_in_errors=True
    )

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        document_fields(cls)


class Word(StrEnum):
    """
    A word of the service, such as a state. It is compared without regard to case, and an unknown word is no error.

    An unknown word becomes a member with the name ``UNKNOWN`` and the word as its value, as in
    ``ExperimentState("thawing")``; see `is_known`.
    """

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        document_fields(cls)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: type, handler: GetCoreSchemaHandler) -> EnumSchema:
        # Pydantic would make the same schema, and read the docstring for it, and so the source of the class.
        return EnumSchema(type="enum", cls=cls, members=list(cls), sub_type="str", missing=cls._missing_)

    @classmethod
    def _missing_(cls, value: object) -> Self | None:
        if not isinstance(value, str):
            return None
        for member in cls:
            if member._value_.casefold() == value.casefold():
                return member
        unknown = str.__new__(cls, value)
        unknown._name_ = "UNKNOWN"
        unknown._value_ = value
        return unknown

    @property
    def is_known(self) -> bool:
        """Whether the word is a documented one."""
        return self._name_ != "UNKNOWN"

    def __eq__(self, other: object) -> bool:
        if isinstance(other, str):
            return str.casefold(self) == str.casefold(other)
        return NotImplemented

    def __hash__(self) -> int:
        # A documented word hashes as its text, so that sets and dictionaries of such texts find it.
        return hash(self._value_ if self.is_known else str.casefold(self))
