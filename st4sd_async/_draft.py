"""A start payload to fill in, which knows what its experiment allows."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any

from ._errors import ExtraInputs, InvalidPayload, MissingInputs, Problem
from .models import Experiment, FileContent, StartPayload
from .models.packages import Variable


@dataclass(frozen=True)
class Option:
    """A variable that a start may set."""

    name: str
    """Its name."""
    choices: tuple[str, ...] | None = None
    """The values it may have; None: any."""
    default: str | None = None
    """Its value if nobody sets it; None: that of the platform."""


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
        where = f"{self._part}.{name}"
        if name not in self.allowed:
            told = f"the experiment does not take it, only {sorted(self.allowed)}"
            close = difflib.get_close_matches(str(name), self.allowed, n=1)
            advice = f"{told}: did you mean {close[0]!r}?" if close else told
            raise self._error.before_sending([Problem(where, advice)], [name])
        wrong = self._check(name, value)
        if wrong:
            raise InvalidPayload.before_sending([Problem(where, wrong)], [name])
        self._values[name] = value

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


class Draft:
    """
    A start payload to fill in. What the experiment does not allow is refused at once, and what it does is named.

        draft = await client.payload("demo:latest")
        draft.inputs["molecules.csv"] = Path("molecules.csv")
        draft.variables["scale"] = 2
        run = await client.start(draft.identifier, draft.filled())

    It is made from the definition of the experiment and belongs to exactly that version of it. Not safe to share
    between tasks while it is being filled in.
    """

    def __init__(self, experiment: Experiment) -> None:
        registry, parameterisation = experiment.metadata.registry, experiment.parameterisation
        options = parameterisation.execution_options
        self.identifier = experiment.identifier
        """``name@digest`` of the experiment."""
        self.options = {option.name or "": _option(option) for option in options.variables}
        """The variables that may be set, by name."""
        self.platforms = _platforms(experiment)
        """The platforms it runs on, the default first."""
        self.inputs = Entries("inputs", _names(registry.inputs), _check_file, ExtraInputs)
        """Input files, name -> contents in any form that `Client.start` takes, or a `FileContent`; all are needed."""
        self.data = Entries("data", _names(options.data), _check_file, InvalidPayload)
        """Data files of the package to override, in the same form."""
        self.variables = Entries("variables", tuple(self.options), self._check_variable, InvalidPayload)
        """Variables to set, name -> value."""
        self._platform: str | None = None

    @property
    def platform(self) -> str | None:
        """The platform to execute on; None: the default."""
        return self._platform

    @platform.setter
    def platform(self, name: str | None) -> None:
        if name is not None and name not in self.platforms:
            told = f"the experiment does not run on {name!r}, only on {list(self.platforms)}"
            raise InvalidPayload.before_sending([Problem("platform", told)])
        self._platform = name

    @property
    def missing(self) -> tuple[str, ...]:
        """Names of the input files that are still needed."""
        return tuple(name for name in self.inputs.allowed if name not in self.inputs)

    def filled(self, more: Mapping[str, Any] | None = None) -> StartPayload:
        """
        The payload, ready to be started.

        Args:
            more: What else it is to say, in the service's documented form: ``metadata``, ``s3``, ``volumes`` and so on;
                None: nothing.

        Raises:
            MissingInputs: Input files are missing; ``names`` tells which.
            ValueError: ``more`` has a part that is filled in here, or a field that does not exist.
        """
        if self.missing:
            problems = [Problem("inputs", MissingInputs.remedy.format(name)) for name in self.missing]
            raise MissingInputs.before_sending(problems, self.missing)
        own = {
            "inputs": [_file(name, value) for name, value in self.inputs.items()],
            "data": [_file(name, value) for name, value in self.data.items()],
            "variables": dict(self.variables),
            "platform": self._platform,
        }
        twice = sorted(set(own) & set(more or {}))
        if twice:
            raise ValueError(f"{twice} are filled in on the draft itself: leave them out here")
        return StartPayload.model_validate({**{key: value for key, value in own.items() if value}, **(more or {})})

    def _check_variable(self, name: str, value: Any) -> str | None:
        choices = self.options[name].choices
        if choices is not None and str(value) not in choices:
            return f"the experiment does not take the value {value!r}, only {list(choices)}"
        return None

    def __repr__(self) -> str:
        needed = f", needs {list(self.missing)}" if self.missing else ""
        return f"Draft({self.identifier!r}, {self.inputs}, {self.data}, {self.variables}{needed})"


def _names(entries: list[Any]) -> tuple[str, ...]:
    return tuple(entry.name for entry in entries if entry.name)


def _option(variable: Variable) -> Option:
    values = tuple(str(choice.get("value")) for choice in variable.choices)
    # A value beside choices is not allowed; one alone is the default of a variable that takes any.
    free = variable.value is not None or not values
    default = str(variable.value) if variable.value is not None else values[0] if values else None
    return Option(variable.name or "", None if free else values, default)


def _platforms(experiment: Experiment) -> tuple[str, ...]:
    preset = experiment.parameterisation.presets.platform
    if preset:
        return (preset,)
    return tuple(experiment.parameterisation.execution_options.platform or experiment.metadata.registry.platforms)


def _check_file(name: str, value: Any) -> str | None:
    if isinstance(value, FileContent) and value.name != name:
        return f"the file would be called {value.name!r}: give it targetFilename={name!r}"
    return "a file needs contents: text, bytes, a Path or a DataFrame" if value is None else None


def _file(name: str, value: Any) -> FileContent:
    return value if isinstance(value, FileContent) else FileContent(filename=name, content=value)
