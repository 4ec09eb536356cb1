"""
The fields of a definition that the service knows, to find misspelt ones before a push.

Values that are checked elsewhere, or that have many forms, may be anything.

Source: ``apis/models/virtual_experiment.py``
and ``common.py`` of the runtime service, which refuse unknown fields.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictFloat, StrictInt, StrictStr, ValidationError
from pydantic_core import PydanticCustomError

from .._util.did_you_mean import did_you_mean

_UNKNOWN = "extra_forbidden"
"""The type of pydantic's error about an unknown field."""
_NO_MAPPING = "model_type"
"""The type of pydantic's error about a value that should have fields; the message would name our class."""
_CHOICES = 'list the values that a start may choose as valueFrom: [{value: "1"}, {value: "2"}]'


_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,55}[a-z0-9])?")
"""Names of experiments."""


def _valid_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        advice = re.sub(r"[^a-z0-9]+", "-", name.lower())[:57].strip("-") or "water"
        what = f"a name has lower-case letters, digits and dashes, such as {advice!r}, and at most 57 characters"
        raise PydanticCustomError("name", "{what}", {"what": what})
    return name


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", defer_build=True)


class _Package(_Part):
    name: StrictStr = ""
    source: dict[str, Any] | None = None
    dependencies: dict[str, Any] | None = None
    config: _Config | None = None
    graphs: list[Any] | None = None


class _Config(_Part):
    path: StrictStr | None = None
    manifestPath: StrictStr | None = None


class _Base(_Part):
    packages: list[_Package] = []
    connections: list[Any] = []
    includePaths: list[Any] = []
    output: list[Any] = []
    interface: Any = None


class _About(_Part):
    name: Annotated[StrictStr, AfterValidator(_valid_name)] | None = None
    tags: list[StrictStr] = []
    keywords: list[StrictStr] = []
    license: StrictStr | None = None
    maintainer: StrictStr | None = None
    description: StrictStr | None = None


class _Metadata(_Part):
    package: _About | None = None
    registry: Any = None


class _Preset(_Part):
    name: StrictStr | None = None
    value: StrictStr | StrictInt | StrictFloat | None = None
    valueFrom: dict[str, Any] | None = None


class _Option(_Part):
    name: StrictStr | None = None
    value: StrictStr | None = None
    valueFrom: list[dict[str, Any]] | None = None


class _Presets(_Part):
    variables: list[_Preset] = []
    runtime: Any = None
    data: list[_Preset] = []
    environmentVariables: list[_Preset] = []
    platform: StrictStr | None = None


class _Options(_Part):
    variables: list[_Option] = []
    data: list[_Option] = []
    runtime: Any = None
    platform: list[StrictStr] = []


class _Parameterisation(_Part):
    # A default that is an instance would build its class on import, in each start of the command.
    presets: _Presets = Field(default_factory=_Presets)
    executionOptions: _Options = Field(default_factory=_Options)


class _Definition(_Part):
    base: _Base | None = None
    metadata: _Metadata | None = None
    parameterisation: _Parameterisation | None = None


def shape_problems(definition: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the entries of a definition that the service refuses because of their names or types, and why."""
    _Definition.model_rebuild()
    try:
        _Definition.model_validate(definition)
    except ValidationError as error:
        for each in error.errors(include_url=False, include_input=False):
            *parents, name = each["loc"]
            where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in each["loc"]).lstrip(".")
            if each["type"] == _UNKNOWN:
                known = [*_part_at(parents).model_fields]
                yield where, f"the service knows no such field{did_you_mean(str(name), known) or f', only {known}'}"
            else:
                advice = f": {_CHOICES}" if where.startswith("parameterisation.executionOptions.variables[") else ""
                what = (
                    "it should be a mapping" if each["type"] == _NO_MAPPING else each["msg"].replace("Input", "it", 1)
                )
                yield where, what + advice


def _part_at(location: Iterable[int | str]) -> type[_Part]:
    """Return the model of the entry at a location."""
    part: type[_Part] = _Definition
    for step in location:
        if isinstance(step, str):
            (part,) = _parts_in(part.model_fields[step].annotation)
    return part


def _parts_in(annotation: Any) -> list[type[_Part]]:
    """Return the model in an annotation, such as that of a list or of an optional value."""
    if isinstance(annotation, type) and issubclass(annotation, _Part):
        return [annotation]
    return [part for each in get_args(annotation) for part in _parts_in(each)]
