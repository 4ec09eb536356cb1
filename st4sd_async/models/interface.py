"""The interface of a virtual experiment: what its inputs are called, and what it measures."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from ._base import Tolerant


def _texts(value: Any) -> list[str]:
    """What is in a list, as texts: hooks may make ids of numbers. The registry has null for what only a run knows."""
    return [str(one) for one in value] if isinstance(value, list) else []


_Texts = Annotated[list[str], BeforeValidator(_texts)]


class InputSpec(Tolerant):
    """Where the ids of an experiment's inputs come from."""

    naming_scheme: str = Field(default="", alias="namingScheme")
    """What the ids are, as ``SMILES``."""
    extraction: dict[str, Any] = Field(default={}, alias="inputExtractionMethod")
    """How they are found: the method's name -> its ``source`` and ``args``."""
    has_additional_data: bool = Field(default=False, alias="hasAdditionalData")
    """Whether inputs have files of their own."""


class PropertySpec(Tolerant):
    """One property that an experiment measures."""

    name: str = ""
    """Its name; the column of the measured values is the same in lower case."""
    description: str = ""
    """What its developer says it is."""
    extraction: dict[str, Any] = Field(default={}, alias="propertyExtractionMethod")
    """How it is read from what a run produced: the method's name -> its ``source`` and ``args``."""
    source: dict[str, Any] = {}
    """What it is read from, in the form before runtime-core 2; {} in today's."""

    @property
    def output(self) -> str | None:
        """The key-output that it is read from; None if it is read from other files."""
        methods = [method for method in self.extraction.values() if isinstance(method, dict)]
        sources = [self.source.get("output"), *(_key_output(method.get("source")) for method in methods)]
        return next((name for name in sources if isinstance(name, str)), None)


def _key_output(source: Any) -> Any:
    return source.get("keyOutput") if isinstance(source, dict) else None


def _entries(value: Any) -> list[Any]:
    """Of a list the entries that are mappings."""
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []


def _files(value: Any) -> dict[str, list[str]]:
    """Of a mapping the lists, as lists of texts."""
    entries = value.items() if isinstance(value, dict) else ()
    return {name: _texts(paths) for name, paths in entries if isinstance(paths, list)}


class Interface(Tolerant):
    """
    What an experiment says of its inputs and properties; of a run, also what came of that.

    Blank, with an empty `raw`, if the experiment has no interface. The registry also shows a blank one for each
    package with several platforms, whatever its runs measure.

    Source: st4sd-runtime-core, ``experiment/model/frontends/flowir.py`` (``type_flowir_interface_structure``).
    """

    description: str = ""
    """What the experiment does."""
    input_spec: InputSpec = Field(default_factory=InputSpec, alias="inputSpec")
    """Where the ids of its inputs come from."""
    properties: Annotated[list[PropertySpec], BeforeValidator(_entries)] = Field(default=[], alias="propertiesSpec")
    """What it measures."""
    input_ids: _Texts = Field(default=[], alias="inputs")
    """The ids of the inputs of a run, in the order of its input file; [] before it has read them."""
    additional_input_data: Annotated[dict[str, list[str]], BeforeValidator(_files)] = Field(
        default={}, alias="additionalInputData"
    )
    """input id -> the files that belong to it, of a run whose inputs have such files."""
    output_files: _Texts = Field(default=[], alias="outputFiles")
    """What the orchestrator made of it in a run, as ``output/properties.csv``: paths inside the instance."""

    @property
    def measures(self) -> bool | None:
        """Whether runs measure properties; None if the interface is blank, which may mean that it is not known."""
        is_known = any(name in self.raw for name in ("description", "inputSpec", "propertiesSpec"))
        return bool(self.properties) if is_known else None

    @property
    def property_names(self) -> list[str]:
        """The names of what it measures, in the order of the interface."""
        return [one.name for one in self.properties]

    @property
    def properties_by_output(self) -> dict[str, list[str]]:
        """key-output -> the names of the properties that are read from it; those read from other files are left out."""
        found: dict[str, list[str]] = {}
        for one in self.properties:
            if one.output is not None:
                found.setdefault(one.output, []).append(one.name)
        return found
