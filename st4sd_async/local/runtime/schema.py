"""
Checks JSON against a schema, fills in what was left out, and words the problems as the service does.

The service validates with pydantic and puts the text of its exception into the reply; people and
clients read that text, so it has the same shape here.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

REQUIRED: Any = object()
"""The default of a field that must be given."""
SHOWN_VALUE = 50
"""Characters of a wrong value that an error shows."""
_MANUAL = "https://errors.pydantic.dev/2.14/v/"
_PLAIN: dict[type, tuple[str, str]] = {
    str: ("string", "string_type"),
    int: ("integer", "int_type"),
    bool: ("boolean", "bool_type"),
}


class Invalid(Exception):
    """JSON that does not fit its schema; the text is what the reply carries."""

    def __init__(self, text: str, entries: Sequence[Mapping[str, Any]] = ()) -> None:
        super().__init__(text)
        self.entries = [dict(entry) for entry in entries]
        """The problems one by one, in the form in which some replies carry them."""

    def json(self) -> str:
        """The problems as the exception itself writes them down, which some replies quote."""
        return json.dumps([_as_pydantic_has_it(entry) for entry in self.entries], indent=2)


def _as_pydantic_has_it(entry: Mapping[str, Any]) -> dict[str, Any]:
    _, _, model = entry["message"].partition(" instance of ")
    return {
        "type": entry["type"],
        "loc": entry["location"],
        "msg": entry["message"],
        "input": entry["input"],
        **({"ctx": {"class_name": model}} if model else {}),
        "url": f"{_MANUAL}{entry['type']}",
    }


@dataclass
class Report:
    """The problems found so far, and whether fields without a value are kept as null."""

    nulls: bool = False
    """Keep fields whose value is None."""
    problems: list[str] = field(default_factory=list)
    """One paragraph for each problem."""
    entries: list[dict[str, Any]] = field(default_factory=list)
    """The same in pieces."""

    def add(self, where: tuple[str, ...], text: str, kind: str, value: Any) -> None:
        """Note one problem at a place."""
        location = [int(part) if part.isdigit() else part for part in where]
        self.entries.append({"type": kind, "input": value, "message": text, "location": location})
        place = ".".join(where) + "\n" if where else ""
        shown = _shorten(repr(value))
        facts = f"[type={kind}, input_value={shown}, input_type={type(value).__name__}]"
        self.problems.append(f"{place}  {text} {facts}\n    For further information visit {_MANUAL}{kind}")


@dataclass(frozen=True)
class Anything:
    """Any JSON."""

    def read(self, value: Any, _where: tuple[str, ...], _report: Report) -> Any:
        """The value itself."""
        return copy.deepcopy(value)


@dataclass(frozen=True)
class Plain:
    """A string, integer, boolean..., exactly of its type."""

    type: type = str
    """The Python type."""
    from_number: bool = False
    """Take numbers (and booleans) too, as text."""

    def read(self, value: Any, where: tuple[str, ...], report: Report) -> Any:
        """The value, noted as a problem if it is of another type."""
        if self.from_number and isinstance(value, (int, float)):
            return str(value)
        if not isinstance(value, self.type) or (isinstance(value, bool) and self.type is not bool):
            name, kind = _PLAIN[self.type]
            report.add(where, f"Input should be a valid {name}", kind, value)
        return value


@dataclass(frozen=True)
class ListOf:
    """A list of equal things."""

    item: Kind

    def read(self, value: Any, where: tuple[str, ...], report: Report) -> Any:
        """The list of what its items read as."""
        if not isinstance(value, list):
            report.add(where, "Input should be a valid list", "list_type", value)
            return value
        return [self.item.read(item, (*where, str(index)), report) for index, item in enumerate(value)]


@dataclass(frozen=True)
class DictOf:
    """A dictionary with any keys."""

    item: Kind

    def read(self, value: Any, where: tuple[str, ...], report: Report) -> Any:
        """The dictionary of what its values read as."""
        if not isinstance(value, dict):
            report.add(where, "Input should be a valid dictionary", "dict_type", value)
            return value
        return {key: self.item.read(item, (*where, key), report) for key, item in value.items()}


@dataclass(frozen=True)
class Slot:
    """One field of a model: what it holds, and what it is if left out."""

    kind: Kind
    default: Any = None


@dataclass(frozen=True)
class Model:
    """A dictionary with these fields and no others."""

    name: str
    """The name that errors show."""
    fields: Mapping[str, Slot]
    """Fields in the order of the replies."""
    check: Callable[[dict[str, Any]], str | None] | None = None
    """What is wrong between the fields, in words."""

    def read(self, value: Any, where: tuple[str, ...], report: Report) -> Any:
        """The fields in the order of the schema, defaults filled in."""
        if not isinstance(value, dict):
            text = f"Input should be a valid dictionary or instance of {self.name}"
            report.add(where, text, "model_type", value)
            return value
        before = len(report.problems)
        result: dict[str, Any] = {}
        for name, slot in self.fields.items():
            self._read_field(name, slot, value, where, report, result)
        for name in value:
            if name not in self.fields:
                report.add((*where, name), "Extra inputs are not permitted", "extra_forbidden", value[name])
        if self.check is not None and len(report.problems) == before:
            wrong = self.check(result)
            if wrong:
                report.add(where, f"Value error, {wrong}", "value_error", value)
        return result

    def _read_field(
        self,
        name: str,
        slot: Slot,
        value: Mapping[str, Any],
        where: tuple[str, ...],
        report: Report,
        result: dict[str, Any],
    ) -> None:
        given = value.get(name, slot.default)
        if given is REQUIRED:
            report.add((*where, name), "Field required", "missing", dict(value))
        elif given is None and slot.default is None:
            if report.nulls:
                result[name] = None
        elif name not in value and not isinstance(slot.kind, Model):
            result[name] = copy.deepcopy(given)
        else:
            result[name] = slot.kind.read(given, (*where, name), report)


Kind = Anything | Plain | ListOf | DictOf | Model
TEXT = Plain(str)
TEXT_OR_NUMBER = Plain(str, from_number=True)
TEXTS = ListOf(TEXT)


def read(model: Model, value: Any, *, nulls: bool = False) -> dict[str, Any]:
    """
    A value as its schema has it: fields in order, defaults filled in, nulls left out or kept.

    Raises:
        Invalid: With one paragraph for each problem.
    """
    report = Report(nulls)
    result = model.read(value, (), report)
    if report.problems:
        raise Invalid(summary(model.name, report.problems), report.entries)
    return dict(result)


def summary(name: str, problems: list[str]) -> str:
    """The text of an exception with these problems."""
    plural = "" if len(problems) == 1 else "s"
    return "\n".join([f"{len(problems)} validation error{plural} for {name}", *problems])


def _shorten(text: str) -> str:
    if len(text) <= SHOWN_VALUE:
        return text
    half = SHOWN_VALUE // 2
    return f"{text[:half]}...{text[-(half - 1) :]}"
