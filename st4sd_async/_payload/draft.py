"""A start payload to fill in, checked against its experiment."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, overload

from .._api.experiments import get_call
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
from .._util.did_you_mean import did_you_mean
from .._util.field_docs import document_fields
from ..models import S3, Experiment, FileContent, Staged, StartPayload
from ..models.packages import Variable
from ..models.payloads import is_scalar
from .prepare import PayloadSource, validate_payload

if TYPE_CHECKING:
    from .._http.session import ClientSession


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


class Part(MutableMapping[str, Any]):
    """
    One part of a draft: a mapping of name -> value that rejects what the experiment does not allow.

    Attributes:
        allowed: The names that are allowed.
    """

    def __init__(
        self, field: str, allowed: tuple[str, ...], check: Callable[[str, Any], str | None], error: type[InvalidPayload]
    ) -> None:
        """
        Args:
            field: Name of the payload field.
            allowed: The names that are allowed.
            check: Returns the problem of a value. None means that the value is valid.
            error: The error to raise for a name that is not allowed.
        """
        self._field = field
        self._find_problem = check
        self._error = error
        self._values: dict[str, Any] = {}
        self.allowed = allowed

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
            raise self._error.before_sending([Problem(entry, _not_accepted(name, self.allowed))], [str(name)])
        problem = self._find_problem(name, value)
        if problem:
            raise InvalidPayload.before_sending([Problem(entry, problem)], [name])

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
class Draft(PayloadSource):
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

    inputs = _PartAttribute()
    """Input files, name -> contents in any form that `Client.start` accepts, or a `FileContent`. All are required."""
    data = _PartAttribute()
    """Data files of the package to override, in the same form."""
    variables = _PartAttribute()
    """Variables to set, name -> value."""

    def __init__(self, experiment: Experiment) -> None:
        registry, parameterisation = experiment.metadata.registry, experiment.parameterisation
        options = parameterisation.execution_options
        if not registry.digest:
            problem = f"{experiment.name!r} was fetched without its registry metadata, such as its inputs"
            raise InvalidPackage(f"{problem}: get it with with_registry=True")
        self.identifier = experiment.identifier
        """``name@digest`` of the experiment."""
        defaults = {variable.name: variable for variable in registry.defaults.variables}
        self.options = {option.name or "": _option(option, defaults.get(option.name)) for option in options.variables}
        """The variables that may be set, by name."""
        self.platforms = _platforms(experiment)
        """The platforms that the experiment runs on, the default first."""
        self._parts = {
            "inputs": Part("inputs", _names(registry.inputs), _file_problem, ExtraInputs),
            "data": Part("data", _names(options.data), _file_problem, InvalidPayload),
            "variables": Part("variables", tuple(self.options), self._variable_problem, InvalidPayload),
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
            "inputs": [_file(name, value) for name, value in self.inputs.items()],
            "data": [_file(name, value) for name, value in self.data.items()],
            "variables": dict(self.variables),
            "platform": self._platform,
        } | ({} if self._s3 is None else {"s3": self._s3})
        duplicates = sorted(set(own) & set(more or {}))
        if duplicates:
            raise ValueError(f"{duplicates} are set on the draft itself: leave them out here")
        return validate_payload({**{name: value for name, value in own.items() if value}, **(more or {})}, StartPayload)

    def _variable_problem(self, name: str, value: Any) -> str | None:
        if not is_scalar(value):
            return f"must be text, a number or a boolean, not {type(value).__name__}"
        choices = self.options[name].choices
        if choices is not None and str(value) not in choices:
            return f"the experiment does not accept the value {value!r}, only {list(choices)}"
        return None

    def __repr__(self) -> str:
        missing = f", needs {list(self.missing)}" if self.missing else ""
        return f"Draft({self.identifier!r}, {self.inputs}, {self.data}, {self.variables}{missing})"


async def fetch_draft(session: ClientSession, experiment: str | Experiment) -> Draft:
    """Return a draft for an experiment. Fetch the experiment if only its identifier is given. See `Client.draft`."""
    if isinstance(experiment, Experiment):
        return Draft(experiment)
    if not isinstance(experiment, str):
        raise TypeError(f"an experiment is an identifier or an Experiment, not {type(experiment).__name__}")
    call = get_call(experiment)
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


def _file_problem(name: str, value: Any) -> str | None:
    if isinstance(value, FileContent) and value.name != name:
        return f"the experiment would see the file as {value.name!r}: set targetFilename={name!r}"
    if isinstance(value, FileContent | str | bytes | bytearray | Path) or hasattr(value, "to_csv"):
        return None
    expectation = "a file needs contents (text, bytes, a Path or a DataFrame) or a FileContent that says where they are"
    return f"{expectation}, not {type(value).__name__}"


def _file(name: str, value: Any) -> FileContent:
    return value if isinstance(value, FileContent) else FileContent(filename=name, content=value)


def _not_accepted(name: object, allowed: Collection[str]) -> str:
    """Return the problem of an entry that the experiment does not accept, with the accepted entries."""
    suggestion = did_you_mean(name, allowed) if isinstance(name, str) else f": names must be strings, not {name!r}"
    return f"{NOT_ACCEPTED}, only {sorted(allowed)}{suggestion}"
