"""A start payload to fill in, checked against its experiment."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, overload

from .._api.experiments import get_call, suggesting
from .._errors import (
    NOT_ACCEPTED,
    DecodeError,
    ExtraInputs,
    InvalidPackage,
    InvalidPayload,
    MissingInputs,
    Problem,
)
from .._http.session import RUNTIME_PATH
from .._render.displayable import Displayable
from .._util.did_you_mean import DID_YOU_MEAN, closest_match, did_you_mean
from .._util.field_docs import document_fields
from ..models import S3, Experiment, Staged, StartPayload
from ..models.packages import Variable
from ..models.payloads import is_scalar
from .options import file_problem, named_file
from .prepare import PayloadSource, validate_payload

if TYPE_CHECKING:
    from .._http.session import ClientSession
    from .._render.cards import Card


@document_fields
@dataclass(frozen=True)
class Option:
    """A variable that a start may set."""

    name: str
    """Its name."""
    choices: tuple[str, ...] | None = None
    """The values that are allowed. None means any."""
    default: str | None = None
    """Its value if it is not set. None means the platform's default."""
    defaults: Mapping[str, str] = field(default_factory=dict)
    """Its default on each platform, if the registry has one."""


@document_fields
class Part(MutableMapping[str, Any]):
    """One part of a draft: a mapping of name -> value that rejects what the experiment does not allow."""

    def __init__(
        self,
        field: str,
        allowed: Mapping[str, tuple[str, ...]],
        check: Callable[[str, Any], str | None],
        error: type[InvalidPayload],
    ) -> None:
        """
        Args:
            field: Name of the payload field.
            allowed: The names that are allowed in each field.
            check: Returns the problem of a value. None means that the value is valid.
            error: The error to raise for a name that is not allowed.
        """
        self._field = field
        self._allowed = allowed
        self._find_problem = check
        self._error = error
        self._values: dict[str, Any] = {}
        self.allowed: tuple[str, ...] = allowed[field]
        """The names that are allowed."""

    def __setitem__(self, name: str, value: Any) -> None:
        self._check(name, value)
        self._values[name] = value

    def replace(self, values: Mapping[str, Any]) -> None:
        """Replace all entries. Nothing changes if one of the new ones is not allowed."""
        for name, value in dict(values).items():
            self._check(name, value)
        self._values = dict(values)

    def _check(self, name: str, value: Any) -> None:
        entry = f"{self._field}.{name}"
        if name not in self.allowed:
            raise self._error.before_sending([Problem(entry, self._not_accepted(name))], [str(name)])
        problem = self._find_problem(name, value)
        if problem:
            raise InvalidPayload.before_sending([Problem(entry, problem)], [name])

    def _not_accepted(self, name: object) -> str:
        """Return the problem of a name that is not allowed, with the allowed ones."""
        suggestion = f": names must be strings, not {name!r}"
        if isinstance(name, str):
            field, match = similar_name(name, self._field, self._allowed)
            suggestion = "" if match is None else f": {DID_YOU_MEAN} {match!r}{_in_field(field, self._field)}?"
        return f"{NOT_ACCEPTED}, only {sorted(self.allowed)}{suggestion}"

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def __delitem__(self, name: str) -> None:
        del self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"<{self._field}: {sorted(self._values)} of {sorted(self.allowed)}>"


class _PartAttribute:
    """A part of a draft as an attribute. Assigning a mapping replaces all entries, under the same checks."""

    def __set_name__(self, owner: type[Draft], name: str) -> None:
        self._name = name

    @overload
    def __get__(self, draft: None, owner: type[Draft]) -> Self: ...
    @overload
    def __get__(self, draft: Draft, owner: type[Draft]) -> Part: ...
    def __get__(self, draft: Draft | None, owner: type[Draft]) -> Self | Part:
        return self if draft is None else draft._parts[self._name]

    def __set__(self, draft: Draft, values: Mapping[str, Any]) -> None:
        if not isinstance(values, Mapping):
            raise TypeError(f"{self._name} must be a mapping, name -> value, not {type(values).__name__}")
        draft._parts[self._name].replace(values)


@document_fields
class Draft(Displayable, PayloadSource):
    """
    A start payload to fill in. Names and values that the experiment does not allow are rejected at once, and the error
    lists the allowed ones.

        draft = await client.draft("demo:latest")
        draft.inputs["molecules.csv"] = Path("molecules.csv")
        draft.variables["scale"] = 2
        run = await client.start(draft)

    A whole part can be assigned too, under the same checks: ``draft.variables = {"scale": 2}``. A draft belongs to one
    version of an experiment, and starts exactly that version. Do not share a draft between tasks while filling it in.
    """

    __slots__ = ("_parts", "_platform", "_s3", "identifier", "options", "platforms")

    inputs: _PartAttribute = _PartAttribute()
    """Input files, name -> contents in any form that `Client.start` accepts, or a `FileContent`. All are required."""
    data: _PartAttribute = _PartAttribute()
    """Data files of the package to override, in the same form."""
    variables: _PartAttribute = _PartAttribute()
    """Variables to set, name -> value."""

    def __init__(self, experiment: Experiment) -> None:
        registry, parameterisation = experiment.metadata.registry, experiment.parameterisation
        options = parameterisation.execution_options
        if not registry.digest:
            problem = f"{experiment.name!r} was fetched without its registry metadata, such as its inputs"
            raise InvalidPackage(f"{problem}: get it with with_registry=True")
        self.identifier: str = experiment.identifier
        """``name@digest`` of the experiment."""
        defaults = {variable.name: variable for variable in registry.defaults.variables}
        self.options: dict[str, Option] = {
            option.name or "": _option(option, defaults.get(option.name)) for option in options.variables
        }
        """The variables that may be set, by name."""
        self.platforms: tuple[str, ...] = _platforms(experiment)
        """The platforms that the experiment runs on, the default first."""
        allowed = {
            "inputs": _names(registry.inputs),
            "data": _names(options.data),
            "variables": tuple(self.options),
        }
        self._parts = {
            "inputs": Part("inputs", allowed, file_problem, ExtraInputs),
            "data": Part("data", allowed, file_problem, InvalidPayload),
            "variables": Part("variables", allowed, self._variable_problem, InvalidPayload),
        }
        self._platform: str | None = None
        self._s3: S3 | None = None

    @property
    def platform(self) -> str | None:
        """The platform to execute on. None means the default."""
        return self._platform

    @platform.setter
    def platform(self, name: str | None) -> None:
        if name is not None and name not in self.platforms:
            problem = f"the experiment does not run on {name!r}, only on {list(self.platforms)}"
            raise InvalidPayload.before_sending(
                [Problem("platform", problem + did_you_mean(str(name), self.platforms))]
            )
        self._platform = name

    @property
    def missing(self) -> tuple[str, ...]:
        """Names of the input files that are still missing."""
        return tuple(name for name in self.inputs.allowed if name not in self.inputs)

    def use(self, staged: Staged) -> None:
        """
        Fill in uploaded files, each as the input or data file of the same name, and their bucket.

        Raises:
            ExtraInputs: The experiment has no file of one of the names. Nothing was filled in.
            ValueError: The draft already uses files of another bucket.
        """
        if self._s3 not in (None, staged.s3):
            raise ValueError("a start reads files from one bucket only: stage all of them there")
        parts = {name: self.data if name in self.data.allowed else self.inputs for name in staged.files}
        known = {*self.inputs.allowed, *self.data.allowed}
        for name in sorted(parts.keys() - known):
            self.inputs[name] = None  # raises the error, which lists the allowed names
        for name, part in parts.items():
            part[name] = staged.files[name]
        self._s3 = staged.s3

    def filled(self, more: Mapping[str, Any] | None = None) -> StartPayload:
        """
        Return the payload, ready to start.

        Args:
            more: Other fields in the service's documented form, such as ``metadata``, ``s3`` or ``volumes``. None
                means no other fields.

        Raises:
            MissingInputs: Input files are missing; ``names`` lists them.
            InvalidPayload: ``more`` has an unknown field, or one of the wrong type.
            ValueError: ``more`` has a field that is filled in on the draft.
        """
        if not isinstance(more, Mapping | None):
            raise TypeError(f"the other fields of a payload must be a mapping, not {type(more).__name__}")
        if self.missing:
            problems = [Problem("inputs", MissingInputs.remedy.format(name)) for name in self.missing]
            raise MissingInputs.before_sending(problems, self.missing)
        own = {
            "inputs": [named_file(name, value) for name, value in self.inputs.items()],
            "data": [named_file(name, value) for name, value in self.data.items()],
            "variables": dict(self.variables),
            "platform": self._platform,
        } | ({} if self._s3 is None else {"s3": self._s3})
        duplicates = sorted(set(own) & set(more or {}))
        if duplicates:
            raise ValueError(f"{duplicates} are set on the draft itself: leave them out here")
        return validate_payload({**{name: value for name, value in own.items() if value}, **(more or {})}, StartPayload)

    def _variable_problem(self, name: str, value: Any) -> str | None:
        if not is_scalar(value):
            return f"must be a string, a number or a boolean, not {type(value).__name__}"
        choices = self.options[name].choices
        if choices is not None and str(value) not in choices:
            suggestion = did_you_mean(str(value), choices)
            return f"the experiment does not accept the value {value!r}, only {list(choices)}{suggestion}"
        return None

    def _card(self) -> Card:
        from .._render.cards import Badge, Card, CardTable, Tone, joined

        badge = Badge("inputs are missing", Tone.WAITING) if self.missing else Badge("ready", Tone.GOOD)
        files = [
            (field, name, _kind_of_file(self._parts[field].get(name)), "", "")
            for field in ("inputs", "data")
            for name in self._parts[field].allowed
        ]
        variables = [
            ("variables", name, str(self.variables.get(name, "")), default_of(option), joined(option.choices or ()))
            for name, option in self.options.items()
        ]
        platforms = [
            ("platform", "", self._platform or "", name, joined(self.platforms)) for name in self.platforms[:1]
        ]
        table = CardTable(("part", "name", "value", "default", "accepts"), (*files, *variables, *platforms))
        return Card(self.identifier, kind="draft", badge=badge, table=table if table.rows else None)

    def __repr__(self) -> str:
        missing = f", needs {list(self.missing)}" if self.missing else ""
        return f"Draft({self.identifier!r}, {self.inputs}, {self.data}, {self.variables}{missing})"


def common_default(option: Option) -> str | None:
    """Return the default of a variable; None if it is unknown, or if it differs between platforms."""
    values = {option.default} if option.default is not None else set(option.defaults.values())
    return values.pop() if len(values) == 1 else None


def default_of(option: Option) -> str:
    """Return the default of a variable, with platforms if it differs between them; "" if it is unknown."""
    value = common_default(option)
    if value is None:
        return ", ".join(f"{value} ({platform})" for platform, value in option.defaults.items())
    return value


def _kind_of_file(value: Any) -> str:
    """Describe the contents of a file, which may be long; "" if it is not set."""
    if value is None:
        return ""
    if isinstance(value, Path):
        return value.name
    return f"{len(value):,} characters" if isinstance(value, str) else type(value).__name__


async def fetch_draft(session: ClientSession, experiment: str | Experiment) -> Draft:
    """Return a draft for an experiment. Fetch the experiment if only its identifier is given. See `Client.draft`."""
    if isinstance(experiment, Experiment):
        return Draft(experiment)
    if not isinstance(experiment, str):
        raise TypeError(f"an experiment is an identifier or an Experiment, not {type(experiment).__name__}")
    call = get_call(experiment)
    async with suggesting(session, experiment):
        known = await session.send(call)
    if not known.metadata.registry.digest:
        problem = "an experiment without its registry metadata"
        raise DecodeError("GET", f"{session.url}{RUNTIME_PATH}{call.path}", problem, path="metadata.registry")
    return Draft(known)


def _names(entries: list[Any]) -> tuple[str, ...]:
    return tuple(entry.name for entry in entries if entry.name)


def _option(variable: Variable, from_registry: Variable | None) -> Option:
    values = tuple(str(choice.get("value")) for choice in variable.choices)
    # A package has either a value, which is the default of a variable that accepts any, or choices.
    accepts_any = variable.value is not None or not values
    default = str(variable.value) if variable.value is not None else values[0] if values else None
    choices = from_registry.choices if from_registry else ()
    defaults = {str(choice.get("platform")): str(choice.get("value")) for choice in choices}
    return Option(variable.name or "", None if accepts_any else values, default, defaults)


def _platforms(experiment: Experiment) -> tuple[str, ...]:
    preset = experiment.parameterisation.presets.platform
    if preset:
        return (preset,)
    return tuple(experiment.parameterisation.execution_options.platform or experiment.metadata.registry.platforms)


def similar_name(name: str, field: str, allowed: Mapping[str, Collection[str]]) -> tuple[str, str | None]:
    """
    Return the field and the name that were probably meant by a name that a field does not allow; None if unknown.

    Args:
        name: The name.
        field: The field that it was given in.
        allowed: The names that are allowed in each field.
    """
    others = [other for other in allowed if other != field]
    exact = [(other, name) for other in others if name in allowed[other]]
    similar = [(other, match) for other in (field, *others) if (match := closest_match(name, allowed[other]))]
    return next(iter([*exact, *similar]), (field, None))


def _in_field(field: str, own: str) -> str:
    return "" if field == own else f" in {field}"
