"""
Base classes of all models: replies keep unknown fields, payloads refuse them, words of the service never raise.

Document each public field by one string below it. Subclasses of these bases show it in ``help()``; dataclasses, named
tuples and other enums need the decorator `document_fields`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    GetCoreSchemaHandler,
    ModelWrapValidatorHandler,
    PrivateAttr,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    field_validator,
    model_validator,
)
from pydantic_core.core_schema import EnumSchema

from .._util.field_docs import document_fields
from .._util.printable import printable
from ._lenient import lenient

if TYPE_CHECKING:
    from .._errors import Problem


class Reply(BaseModel):
    """
    Something the service said: frozen, tolerant of what is new, and with the original at hand.

    A field that cannot be read has its default, and an item of a list that cannot be read is left out; `raw` has them
    as they came. Only a field without a default has to be right.
    """

    model_config = ConfigDict(
        defer_build=True,  # at the first use: it is a third of the time that the import of the package takes
        frozen=True,
        extra="allow",
        populate_by_name=True,
        hide_input_in_errors=True,
        protected_namespaces=(),
    )

    _vital: ClassVar[frozenset[str]] = frozenset()
    """Fields, as the service names them, that have to be right if they are there."""
    _raw: Any = PrivateAttr(default=None)

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        document_fields(cls)

    @model_validator(mode="wrap")
    @classmethod
    def _keep_raw(cls, value: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        model = lenient(handler, value, cls._vital)
        if isinstance(value, Mapping) and model.__pydantic_private__ is not None:
            # As `model._raw = value`, in a tenth of the time: lists have thousands of these.
            model.__pydantic_private__["_raw"] = value
        return model

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        # The values are written by `repr`, which escapes; the names of unknown fields are the server's words too.
        return [(name and printable(name), value) for name, value in super().__repr_args__()]

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """As pydantic's; `raw` of a copy with other values has these, since it is what goes back to a service."""
        copy = super().model_copy(update=update, deep=deep)
        if update and copy.__pydantic_private__ is not None:
            copy.__pydantic_private__["_raw"] = copy.model_dump(by_alias=True, exclude_unset=True, warnings=False)
        return copy

    @property
    def raw(self) -> dict[str, Any]:
        """The dictionary as it came over the wire; of a changed copy, as it would go there."""
        raw = (self.__pydantic_private__ or {}).get("_raw")
        return raw if isinstance(raw, dict) else {}


class Entry(Reply):
    """An entry of a registry."""

    _problems: tuple[Problem, ...] = PrivateAttr(default=())

    @property
    def problems(self) -> tuple[Problem, ...]:
        """
        What the service says is wrong with it, though it gave it; () as a rule.

        Only of an entry that was got by its name: of those in a list, the list has them.
        """
        return self._problems


class Tolerant(Reply):
    """A reply in which a field that cannot be read is as if it were missing; `raw` has it as it came."""

    @field_validator("*", mode="wrap")
    @classmethod
    def _tolerate(cls, value: Any, read: ValidatorFunctionWrapHandler, info: ValidationInfo) -> Any:
        try:
            return read(value)
        except (ValueError, TypeError, ArithmeticError, OSError):  # the latter two: a time that no calendar has
            return cls.model_fields[info.field_name or ""].get_default(call_default_factory=True)


class Payload(BaseModel):
    """Something we say to the service: frozen, and a misspelt field is an error."""

    model_config = ConfigDict(
        defer_build=True, frozen=True, extra="forbid", populate_by_name=True, hide_input_in_errors=True
    )

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        document_fields(cls)


class Word(StrEnum):
    """
    A word of the service: compared without regard to case, and never an error when it is new.

    A word that is not in the list becomes a member of its own whose name is ``UNKNOWN`` and whose
    value is the word as it came: ``ExperimentState("thawing")``. ``is_known`` tells the two apart.
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
        stranger = str.__new__(cls, value)
        stranger._name_ = "UNKNOWN"
        stranger._value_ = value
        return stranger

    @property
    def is_known(self) -> bool:
        """Whether this is a word that the service is documented to say."""
        return self._name_ != "UNKNOWN"

    def __eq__(self, other: object) -> bool:
        if isinstance(other, str):
            return str.casefold(self) == str.casefold(other)
        return NotImplemented

    def __hash__(self) -> int:
        # A documented word hashes as its text, so that sets and dictionaries of such texts find it.
        return hash(self._value_ if self.is_known else str.casefold(self))
