"""
The fields of a definition that the service knows, to find misspelt ones before a push.

Values that are checked elsewhere, or that have many forms, may be anything.

Source: ``apis/models/virtual_experiment.py``
and ``common.py`` of the runtime service, which refuse unknown fields.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, StrictFloat, StrictInt, StrictStr, ValidationError

from .._util.did_you_mean import did_you_mean

_UNKNOWN = "extra_forbidden"
"""The type of pydantic's error about an unknown field."""
_NO_MAPPING = "model_type"
"""The type of pydantic's error about a value that should have fields; the message would name our class."""
_CHOICES = 'list the values that a start may choose as valueFrom: [{value: "1"}, {value: "2"}]'


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
    name: StrictStr | None = None
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
    presets: _Presets = _Presets()
    executionOptions: _Options = _Options()


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
            name = each["loc"][-1]
            where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in each["loc"]).lstrip(".")
            if each["type"] == _UNKNOWN:
                known = {field for part in _Part.__subclasses__() for field in part.model_fields}
                yield where, f"the service knows no such field{did_you_mean(str(name), known)}"
            else:
                advice = f": {_CHOICES}" if where.startswith("parameterisation.executionOptions.variables[") else ""
                what = (
                    "it should be a mapping" if each["type"] == _NO_MAPPING else each["msg"].replace("Input", "it", 1)
                )
                yield where, what + advice
