"""Relationships between experiments: which part of one may replace a part of another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from .._util.field_docs import document_fields
from ._base import NullAsDict, NullAsList, Payload, RegistryEntry, Reply, Strings, Word
from .packages import BasePackage, Experiment

if TYPE_CHECKING:
    from .._errors import Problem


class MergePolicy(Word):
    """Whose variables are used if both graphs have them."""

    OUTPUT_OVERRIDES = "outputGraphOverridesInputGraph"
    """Those of the output graph; the default."""
    INPUT_OVERRIDES = "inputGraphOverridesOutputGraph"
    """Those of the input graph."""


class Symbol(Reply):
    """An input or a result of a graph."""

    name: str | None = None
    """Name, usually a reference such as ``stage0.SetUp/molecule.txt:ref``."""
    value: str | None = None
    """Value, if it has one."""


class ParameterLink(Reply):
    """A parameter of the input graph, and the parameter of the output graph that it replaces."""

    input: Symbol | None = Field(default=None, alias="inputGraphParameter")
    """Parameter of the input graph."""
    output: Symbol | None = Field(default=None, alias="outputGraphParameter")
    """Parameter of the output graph."""


class ResultLink(Reply):
    """A result of the input graph, and the result of the output graph that it replaces."""

    input: Symbol | None = Field(default=None, alias="inputGraphResult")
    """Result of the input graph."""
    output: Symbol | None = Field(default=None, alias="outputGraphResult")
    """Result of the output graph."""


class Links(Reply):
    """Which parameters and results of two graphs correspond."""

    parameters: Annotated[list[ParameterLink], NullAsList] = Field(default=[], alias="graphParameters")
    """Pairs of parameters."""
    results: Annotated[list[ResultLink], NullAsList] = Field(default=[], alias="graphResults")
    """Pairs of results."""
    infers_parameters: bool | None = Field(default=None, alias="inferParameters")
    """Whether the service adds pairs of parameters that it infers."""
    infers_results: bool | None = Field(default=None, alias="inferResults")
    """Whether the service adds pairs of results that it infers."""
    merge_policy: MergePolicy | None = Field(default=None, alias="variablesMergePolicy")
    """Whose variables are used if both graphs have them."""


class Graph(Reply):
    """A graph: some components of an experiment."""

    identifier: str | None = None
    """Experiment, as ``name:tag`` or ``name@digest``."""
    components: Strings = []
    """References of the components, such as ``stage0.SetUp``; [] means no component."""
    package: BasePackage | None = None
    """Base package of the experiment; the service looks it up when the relationship is pushed."""


class Transform(Reply):
    """An input graph that may replace an output graph, because it has the same results."""

    input_graph: Graph | None = Field(default=None, alias="inputGraph")
    """The replacement, usually a surrogate."""
    output_graph: Graph | None = Field(default=None, alias="outputGraph")
    """The graph that is replaced."""
    links: Annotated[Links, NullAsDict] = Field(default_factory=Links, alias="relationship")
    """Which of their parameters and results correspond."""


class Relationship(RegistryEntry):
    """
    A relationship between two experiments.

    Source: ``relationships/`` of the runtime service.
    """

    _vital: ClassVar[frozenset[str]] = frozenset({"transform"})

    identifier: str
    """Name."""
    description: str | None = None
    """Description."""
    transform: Transform | None = None
    """Which graph may replace which."""


@document_fields
class RelationshipList(list[Relationship]):
    """The relationships of a registry, with the problems that the service reports."""

    def __init__(self, entries: list[Relationship], problems: tuple[Problem, ...], raw: dict[str, Any]) -> None:
        super().__init__(entries)
        self.problems = problems
        """Problems of relationships, each with the identifier of its relationship."""
        self.raw = raw
        """JSON object as the service sent it, with entries that could not be read."""


class OverriddenValue(Reply):
    """A value that another base package overrides."""

    base_package: str | None = Field(default=None, alias="fromBasePackage")
    """Base package that has it."""
    value: Any = None
    """Value."""


class InheritedValue(Reply):
    """The value of a variable on one platform."""

    value: Any = None
    """Value."""
    platform: str | None = None
    """Platform."""
    overrides: Annotated[list[OverriddenValue], NullAsList] = []
    """Values of other base packages that it overrides."""


class InheritedVariable(Reply):
    """A variable, and where its values come from."""

    base_package: str | None = Field(default=None, alias="fromBasePackage")
    """Base package that the values come from."""
    values: Annotated[list[InheritedValue], NullAsList] = []
    """Value on each platform."""
    preset: Any = None
    """Value that the parameterisation fixes; None if it fixes none."""
    option: Any = Field(default=None, alias="executionOptions")
    """Default of the option that a start may set; None if there is none."""


class Inheritance(Reply):
    """
    Where the variables of an experiment made of several base packages get their values from.

    Source: ``GET experiments/{identifier}/package-inheritance`` of the runtime service.
    """

    variables: Annotated[dict[str, InheritedVariable], NullAsDict] = {}
    """Name -> where its values come from; only variables that one package gets from another."""
    message: str | None = None
    """What a preview says if the service could not determine this; None if it could."""


class Synthesis(Reply):
    """
    An experiment in which the input graph of a relationship replaced the output graph.

    Source: ``relationships/{identifier}/`` of the runtime service, ``synthesize`` and ``preview``.
    """

    experiment: Experiment = Field(validation_alias="result")
    """Experiment in the registry."""
    inheritance: Annotated[Inheritance, NullAsDict] = Field(
        default_factory=Inheritance, validation_alias="package-inheritance"
    )
    """Where its variables get their values from."""
    complaints: Annotated[list[Any], NullAsList] = Field(default=[], validation_alias="problems")
    """What the service could not determine, unchanged."""


class SynthesisPreview(Reply):
    """What a synthesis would create; nothing was stored."""

    experiment: Experiment
    """Experiment that would be in the registry."""
    dsl: dict[str, Any]
    """Definition of that experiment."""
    inheritance: Annotated[Inheritance, NullAsDict] = Field(
        default_factory=Inheritance, validation_alias="package-inheritance"
    )
    """Where its variables would get their values from."""
    complaints: Annotated[list[Any], NullAsList] = Field(default=[], validation_alias="problems")
    """What the service could not determine, unchanged."""


class SymbolPayload(Payload):
    """An input or a result of a graph."""

    name: str | None = None
    """Name."""
    value: str | None = None
    """Value, if it has one."""


class ParameterLinkPayload(Payload):
    """A pair of parameters."""

    inputGraphParameter: SymbolPayload | None = None
    """Parameter of the input graph."""
    outputGraphParameter: SymbolPayload | None = None
    """Parameter of the output graph."""


class ResultLinkPayload(Payload):
    """A pair of results."""

    inputGraphResult: SymbolPayload | None = None
    """Result of the input graph."""
    outputGraphResult: SymbolPayload | None = None
    """Result of the output graph."""


class LinksPayload(Payload):
    """Which parameters and results of two graphs correspond."""

    graphParameters: list[ParameterLinkPayload] | None = None
    """Pairs of parameters."""
    graphResults: list[ResultLinkPayload] | None = None
    """Pairs of results."""
    inferParameters: bool | None = None
    """Whether the service adds pairs of parameters that it infers; None means True."""
    inferResults: bool | None = None
    """Whether the service adds pairs of results that it infers; None means True."""
    variablesMergePolicy: str | None = None
    """A value of `MergePolicy`; None means that the output graph's variables are used."""


class GraphPayload(Payload):
    """A graph: some components of an experiment."""

    identifier: str
    """Experiment, as ``name`` (for ``name:latest``), ``name:tag`` or ``name@digest``."""
    components: list[str] | None = None
    """References of the components, each once; None means no component."""
    package: Mapping[str, Any] | None = None
    """Base package of the experiment. None means that the service looks it up; the experiment must have exactly one."""


class TransformPayload(Payload):
    """An input graph that may replace an output graph."""

    inputGraph: GraphPayload
    """The replacement."""
    outputGraph: GraphPayload
    """The graph that is replaced."""
    relationship: LinksPayload | None = None
    """Which of their parameters and results correspond."""


class RelationshipPayload(Payload):
    """
    A relationship to push. Fields are named as the service names them; fields that are not set are not sent.

    Source: ``POST relationships/`` of the runtime service.
    """

    identifier: str
    """Name; a relationship of the same name is replaced."""
    description: str | None = None
    """Description."""
    transform: TransformPayload
    """Which graph may replace which."""
