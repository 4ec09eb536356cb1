"""A start payload to fill in, which knows what its experiment allows."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, overload

from .._errors import NOT_TAKEN, ExtraInputs, InvalidPackage, InvalidPayload, MissingInputs, Problem
from .._util.did_you_mean import did_you_mean
from .._util.field_docs import document_fields
from ..models import S3, Experiment, FileContent, Staged, StartPayload
from ..models.packages import Variable
from ..models.payloads import is_scalar
from .prepare import validated


@document_fields
@dataclass(frozen=True)
class Option:
    """A variable that a start may set."""

    name: str
    """Its name."""
    choices: tuple[str, ...] | None = None
    """The values it may have; None: any."""
    default: str | None = None
    """Its value if nobody sets it; None: that of the platform."""
    defaults: Mapping[str, str] = field(default_factory=dict)
    """Its value on each platform if nobody sets it, as far as the registry knows it."""


class Entries(MutableMapping[str, Any]):
    """A part of a payload, name -> value, that takes no name and no value which the experiment does not allow."""

    def __init__(
        self, part: str, allowed: tuple[str, ...], check: Callable[[str, Any], str | None], error: type[InvalidPayload]
    ) -> None:
        self._part = part
        self._check = check
        self._error = error
        self._values: dict[str, Any] = {}
        self.allowed = allowed
        """The names there may be."""

    def __setitem__(self, name: str, value: Any) -> None:
        self._need(name, value)
        self._values[name] = value

    def replace(self, values: Mapping[str, Any]) -> None:
        """Take these in place of those there are; nothing is changed if one of them is not allowed."""
        for name, value in dict(values).items():
            self._need(name, value)
        self._values = dict(values)

    def _need(self, name: str, value: Any) -> None:
        where = f"{self._part}.{name}"
        if name not in self.allowed:
            raise self._error.before_sending([Problem(where, _not_taken(name, self.allowed))], [str(name)])
        wrong = self._check(name, value)
        if wrong:
            raise InvalidPayload.before_sending([Problem(where, wrong)], [name])

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def __delitem__(self, name: str) -> None:
        del self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"<{self._part}: {sorted(self._values)} of {sorted(self.allowed)}>"


class _Part:
    """A part of a draft, which is filled in anew, under the same checks, when it is set as a whole."""

    def __set_name__(self, owner: type[Draft], name: str) -> None:
        self._name = name

    @overload
    def __get__(self, draft: None, owner: type[Draft]) -> Self: ...
    @overload
    def __get__(self, draft: Draft, owner: type[Draft]) -> Entries: ...
    def __get__(self, draft: Draft | None, owner: type[Draft]) -> Self | Entries:
        return self if draft is None else draft._parts[self._name]

    def __set__(self, draft: Draft, values: Mapping[str, Any]) -> None:
        if not isinstance(values, Mapping):
            raise TypeError(f"the {self._name} of a draft are a mapping, name -> value, not {type(values).__name__}")
        draft._parts[self._name].replace(values)


@document_fields
class Draft:
    """
    A start payload to fill in. What the experiment does not allow is refused at once, and what it does is named.

        draft = await client.payload("demo:latest")
        draft.inputs["molecules.csv"] = Path("molecules.csv")
        draft.variables["scale"] = 2
        run = await client.start(draft)

    A part may be set as a whole too, under the same checks: ``draft.variables = {"scale": 2}``. It is made from the
    definition of the experiment and belongs to exactly that version of it. Not safe to share between tasks while it
    is being filled in.
    """

    __slots__ = ("_parts", "_platform", "_s3", "identifier", "options", "platforms")

    inputs = _Part()
    """Input files, name -> contents in any form that `Client.start` takes, or a `FileContent`; all are needed."""
    data = _Part()
    """Data files of the package to override, in the same form."""
    variables = _Part()
    """Variables to set, name -> value."""

    def __init__(self, experiment: Experiment) -> None:
        registry, parameterisation = experiment.metadata.registry, experiment.parameterisation
        options = parameterisation.execution_options
        if not registry.digest:
            told = f"{experiment.name!r} came without what the registry knows of it, its inputs among it"
            raise InvalidPackage(f"{told}: get it from the registry, with_registry=True")
        self.identifier = experiment.identifier
        """``name@digest`` of the experiment."""
        defaults = {known.name: known for known in registry.defaults.variables}
        self.options = {option.name or "": _option(option, defaults.get(option.name)) for option in options.variables}
        """The variables that may be set, by name."""
        self.platforms = _platforms(experiment)
        """The platforms it runs on, the default first."""
        self._parts = {
            "inputs": Entries("inputs", _names(registry.inputs), _check_file, ExtraInputs),
            "data": Entries("data", _names(options.data), _check_file, InvalidPayload),
            "variables": Entries("variables", tuple(self.options), self._check_variable, InvalidPayload),
        }
        self._platform: str | None = None
        self._s3: S3 | None = None

    @property
    def platform(self) -> str | None:
        """The platform to execute on; None: the default."""
        return self._platform

    @platform.setter
    def platform(self, name: str | None) -> None:
        if name is not None and name not in self.platforms:
            told = f"the experiment does not run on {name!r}, only on {list(self.platforms)}"
            raise InvalidPayload.before_sending([Problem("platform", told + did_you_mean(str(name), self.platforms))])
        self._platform = name

    @property
    def missing(self) -> tuple[str, ...]:
        """Names of the input files that are still needed."""
        return tuple(name for name in self.inputs.allowed if name not in self.inputs)

    def use(self, staged: Staged) -> None:
        """
        Fill in files that were uploaded, each as the input or data file of its name, and the bucket they are in.

        Raises:
            ExtraInputs: The experiment takes no file of one of the names; nothing was filled in.
            ValueError: Files of another bucket are in use already.
        """
        if self._s3 not in (None, staged.s3):
            raise ValueError("a start takes files from one bucket: stage all of them there")
        places = {name: self.data if name in self.data.allowed else self.inputs for name in staged.files}
        known = {*self.inputs.allowed, *self.data.allowed}
        for name in sorted(places.keys() - known):
            self.inputs[name] = None  # tells what is allowed
        for name, part in places.items():
            part[name] = staged.files[name]
        self._s3 = staged.s3

    def filled(self, more: Mapping[str, Any] | None = None) -> StartPayload:
        """
        The payload, ready to be started.

        Args:
            more: What else it is to say, in the service's documented form: ``metadata``, ``s3``, ``volumes`` and so on;
                None: nothing.

        Raises:
            MissingInputs: Input files are missing; ``names`` tells which.
            InvalidPayload: ``more`` has a field that does not exist, or that is not what it should be.
            ValueError: ``more`` has a part that is filled in here.
        """
        if not isinstance(more, Mapping | None):
            raise TypeError(f"what else there is to say is a mapping, not {type(more).__name__}")
        if self.missing:
            problems = [Problem("inputs", MissingInputs.remedy.format(name)) for name in self.missing]
            raise MissingInputs.before_sending(problems, self.missing)
        own = {
            "inputs": [_file(name, value) for name, value in self.inputs.items()],
            "data": [_file(name, value) for name, value in self.data.items()],
            "variables": dict(self.variables),
            "platform": self._platform,
        } | ({} if self._s3 is None else {"s3": self._s3})
        twice = sorted(set(own) & set(more or {}))
        if twice:
            raise ValueError(f"{twice} are filled in on the draft itself: leave them out here")
        return validated({**{key: value for key, value in own.items() if value}, **(more or {})}, StartPayload)

    def _check_variable(self, name: str, value: Any) -> str | None:
        if not is_scalar(value):
            return f"must be text, a number or a boolean, not {type(value).__name__}"
        choices = self.options[name].choices
        if choices is not None and str(value) not in choices:
            return f"the experiment does not take the value {value!r}, only {list(choices)}"
        return None

    def __repr__(self) -> str:
        needed = f", needs {list(self.missing)}" if self.missing else ""
        return f"Draft({self.identifier!r}, {self.inputs}, {self.data}, {self.variables}{needed})"


def settled(
    experiment: str | Experiment | Draft, payload: Mapping[str, Any] | StartPayload | Draft | None
) -> tuple[str, Mapping[str, Any] | StartPayload | None]:
    """The identifier and the payload of a start, of which a draft may be either, or both."""
    if isinstance(experiment, Draft):
        payload = experiment.filled(payload)  # type: ignore[arg-type]  # it tells what will not do
    elif isinstance(payload, Draft):
        payload = payload.filled()
    return experiment.identifier if isinstance(experiment, Experiment | Draft) else experiment, payload


def _names(entries: list[Any]) -> tuple[str, ...]:
    return tuple(entry.name for entry in entries if entry.name)


def _option(variable: Variable, known: Variable | None) -> Option:
    values = tuple(str(choice.get("value")) for choice in variable.choices)
    # A value beside choices is not allowed; one alone is the default of a variable that takes any.
    free = variable.value is not None or not values
    default = str(variable.value) if variable.value is not None else values[0] if values else None
    defaults = {str(one.get("platform")): str(one.get("value")) for one in (known.choices if known else ())}
    return Option(variable.name or "", None if free else values, default, defaults)


def _platforms(experiment: Experiment) -> tuple[str, ...]:
    preset = experiment.parameterisation.presets.platform
    if preset:
        return (preset,)
    return tuple(experiment.parameterisation.execution_options.platform or experiment.metadata.registry.platforms)


def _check_file(name: str, value: Any) -> str | None:
    if isinstance(value, FileContent) and value.name != name:
        return f"the file would be called {value.name!r}: give it targetFilename={name!r}"
    if isinstance(value, FileContent | str | bytes | bytearray | Path) or hasattr(value, "to_csv"):
        return None
    told = "a file needs contents: text, bytes, a Path or a DataFrame, or a FileContent that says where they are"
    return f"{told}, not {type(value).__name__}"


def _file(name: str, value: Any) -> FileContent:
    return value if isinstance(value, FileContent) else FileContent(filename=name, content=value)


def _not_taken(name: object, allowed: Collection[str]) -> str:
    """Return the problem of an entry that the experiment does not take, with the entries that it takes."""
    suggestion = did_you_mean(name, allowed) if isinstance(name, str) else f": its name is a text, not {name!r}"
    return f"{NOT_TAKEN}, only {sorted(allowed)}{suggestion}"
