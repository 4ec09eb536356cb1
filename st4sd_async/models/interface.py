"""The interface of a virtual experiment: how its inputs are named, and what it measures."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from ._base import Reply


def _as_strings(value: Any) -> list[str]:
    """Return the items of a list as strings: ids may be numbers. The registry has null for what only a run knows."""
    return [str(item) for item in value] if isinstance(value, list) else []


_Strings = Annotated[list[str], BeforeValidator(_as_strings)]


class InputSpec(Reply):
    """Where the ids of an experiment's inputs come from."""

    naming_scheme: str = Field(default="", alias="namingScheme")
    """What the ids are, such as ``SMILES``."""
    extraction: dict[str, Any] = Field(default={}, alias="inputExtractionMethod")
    """How the ids are found: name of the method -> its ``source`` and ``args``."""
    has_additional_data: bool = Field(default=False, alias="hasAdditionalData")
    """Whether inputs have files of their own."""


class PropertySpec(Reply):
    """A property that an experiment measures."""

    name: str = ""
    """Name; the column of the measured values has the same name in lower case."""
    description: str = ""
    """Description by the developer."""
    extraction: dict[str, Any] = Field(default={}, alias="propertyExtractionMethod")
    """How the property is read from the results of a run: name of the method -> its ``source`` and ``args``."""
    source: dict[str, Any] = {}
    """What it is read from, in the form before runtime-core 2; {} in today's form."""

    @property
    def output(self) -> str | None:
        """Key-output that the property is read from; None if it is read from other files."""
        methods = [method for method in self.extraction.values() if isinstance(method, dict)]
        sources = [self.source.get("output"), *(_key_output(method.get("source")) for method in methods)]
        return next((name for name in sources if isinstance(name, str)), None)


def _key_output(source: Any) -> Any:
    return source.get("keyOutput") if isinstance(source, dict) else None


def _object_items(value: Any) -> list[Any]:
    """Return the items of a list that are objects."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _files(value: Any) -> dict[str, list[str]]:
    """Return the values of an object that are lists, as lists of strings."""
    items = value.items() if isinstance(value, dict) else ()
    return {name: _as_strings(paths) for name, paths in items if isinstance(paths, list)}


class Interface(Reply):
    """
    Inputs and properties of an experiment; of a run, also its input ids and output files.

    If the experiment has no interface, all fields are empty, and so is `raw`. The registry also has an empty interface
    for each package with several platforms, whatever its runs measure.

    Source: st4sd-runtime-core, ``experiment/model/frontends/flowir.py`` (``type_flowir_interface_structure``).
    """

    description: str = ""
    """What the experiment does."""
    input_spec: InputSpec = Field(default_factory=InputSpec, alias="inputSpec")
    """Where the ids of its inputs come from."""
    properties: Annotated[list[PropertySpec], BeforeValidator(_object_items)] = Field(
        default=[], alias="propertiesSpec"
    )
    """Properties that it measures."""
    input_ids: _Strings = Field(default=[], alias="inputs")
    """Ids of the inputs of a run, in the order of its input file; [] until the run has read them."""
    additional_input_data: Annotated[dict[str, list[str]], BeforeValidator(_files)] = Field(
        default={}, alias="additionalInputData"
    )
    """Input id -> paths of its own files, of a run whose inputs have such files."""
    output_files: _Strings = Field(default=[], alias="outputFiles")
    """Files that the orchestrator wrote from it, such as ``output/properties.csv``: paths inside the instance."""

    @property
    def measures(self) -> bool | None:
        """Whether runs measure properties; None if the interface is empty, since then it may be unknown."""
        is_known = any(name in self.raw for name in ("description", "inputSpec", "propertiesSpec"))
        return bool(self.properties) if is_known else None

    @property
    def property_names(self) -> list[str]:
        """Names of the properties, in the order of the interface."""
        return [spec.name for spec in self.properties]

    @property
    def properties_by_output(self) -> dict[str, list[str]]:
        """Key-output -> names of the properties that are read from it, without those read from other files."""
        found: dict[str, list[str]] = {}
        for spec in self.properties:
            if spec.output is not None:
                found.setdefault(spec.output, []).append(spec.name)
        return found
