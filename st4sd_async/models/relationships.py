"""Relationships between experiments: which part of one may stand in for a part of another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import BeforeValidator, Field

from .._util.field_docs import document_fields
from ._base import Entry, Payload, Reply, Word
from .packages import BasePackage, Experiment

if TYPE_CHECKING:
    from .._errors import Problem

_List = BeforeValidator(lambda value: [] if value is None else value)
_Dict = BeforeValidator(lambda value: {} if value is None else value)


class MergePolicy(Word):
    """Which variables win where both graphs have them."""

    OUTPUT_OVERRIDES = "outputGraphOverridesInputGraph"
    """Those of the output graph's experiment: the default."""
    INPUT_OVERRIDES = "inputGraphOverridesOutputGraph"
    """Those of the input graph."""


class Symbol(Reply):
    """Something that a graph takes or gives, by name."""

    name: str | None = None
    """Its name, mostly a reference: ``stage0.SetUp/molecule.txt:ref``."""
    value: str | None = None
    """A value it may have."""


class ParameterLink(Reply):
    """A parameter of the input graph and the one of the output graph that it stands for."""

    input: Symbol | None = Field(default=None, alias="inputGraphParameter")
    """In the input graph."""
    output: Symbol | None = Field(default=None, alias="outputGraphParameter")
    """In the output graph."""


class ResultLink(Reply):
    """A result of the input graph and the one of the output graph that it stands for."""

    input: Symbol | None = Field(default=None, alias="inputGraphResult")
    """In the input graph."""
    output: Symbol | None = Field(default=None, alias="outputGraphResult")
    """In the output graph."""


class Links(Reply):
    """How the parameters and results of two graphs belong together."""

    parameters: Annotated[list[ParameterLink], _List] = Field(default=[], alias="graphParameters")
    """Pairs of parameters."""
    results: Annotated[list[ResultLink], _List] = Field(default=[], alias="graphResults")
    """Pairs of results."""
    infers_parameters: bool | None = Field(default=None, alias="inferParameters")
    """Whether the service adds the pairs of parameters that it finds itself."""
    infers_results: bool | None = Field(default=None, alias="inferResults")
    """Whether the service adds the pairs of results that it finds itself."""
    merge_policy: MergePolicy | None = Field(default=None, alias="variablesMergePolicy")
    """Which variables win."""


class Graph(Reply):
    """Some components of an experiment."""

    identifier: str | None = None
    """The experiment: ``name:tag`` or ``name@digest``."""
    components: Annotated[list[str], _List] = []
    """References of the components: ``stage0.SetUp``; [] means all of them."""
    package: BasePackage | None = None
    """The base package of the experiment, which the service looks up when the relationship is pushed."""


class Transform(Reply):
    """The input graph gives what the output graph gives, so that it may take its place."""

    input_graph: Graph | None = Field(default=None, alias="inputGraph")
    """What takes the place: a surrogate, mostly."""
    output_graph: Graph | None = Field(default=None, alias="outputGraph")
    """What is replaced."""
    links: Annotated[Links, _Dict] = Field(default_factory=Links, alias="relationship")
    """How their parameters and results belong together."""


class Relationship(Entry):
    """
    A relationship between two experiments.

    Source: ``relationships/`` of the runtime service.
    """

    _vital: ClassVar[frozenset[str]] = frozenset({"transform"})

    identifier: str
    """Its name."""
    description: str | None = None
    """What it is for."""
    transform: Transform | None = None
    """What may take the place of what."""


@document_fields
class RelationshipList(list[Relationship]):
    """Relationships, and what the service complains about."""

    def __init__(self, entries: list[Relationship], problems: tuple[Problem, ...], raw: dict[str, Any]) -> None:
        super().__init__(entries)
        self.problems = problems
        """What is wrong with relationships, each problem under the identifier of its relationship."""
        self.raw = raw
        """The dictionary as it came, entries that could not be read included."""


class OverriddenValue(Reply):
    """A value that was not taken."""

    base_package: str | None = Field(default=None, alias="fromBasePackage")
    """The base package that has it."""
    value: Any = None
    """The value."""


class InheritedValue(Reply):
    """The value of a variable on one platform."""

    value: Any = None
    """The value."""
    platform: str | None = None
    """The platform."""
    overrides: Annotated[list[OverriddenValue], _List] = []
    """Values of other base packages in whose place it is."""


class InheritedVariable(Reply):
    """Where a variable has its values from."""

    base_package: str | None = Field(default=None, alias="fromBasePackage")
    """The base package that gives them."""
    values: Annotated[list[InheritedValue], _List] = []
    """Its value on each platform."""
    preset: Any = None
    """The value that the parameterisation fixes, if any."""


class Inheritance(Reply):
    """
    How the variables of an experiment that is made of several base packages get their values.

    Source: ``GET experiments/{identifier}/package-inheritance`` of the runtime service.
    """

    variables: Annotated[dict[str, InheritedVariable], _Dict] = {}
    """Name -> where its values come from; only of variables that one package gets from another."""


class Synthesis(Reply):
    """
    An experiment in which the input graph of a relationship took the place of the output graph.

    Source: ``relationships/{identifier}/`` of the runtime service, ``synthesize`` and ``preview``.
    """

    experiment: Experiment = Field(validation_alias="result")
    """The experiment as the registry has it."""
    inheritance: Annotated[Inheritance, _Dict] = Field(
        default_factory=Inheritance, validation_alias="package-inheritance"
    )
    """Where its variables have their values from."""
    complaints: Annotated[list[Any], _List] = Field(default=[], validation_alias="problems")
    """What the service could not find out, as it words it."""


class SynthesisPreview(Reply):
    """What a synthesis would give; nothing was stored."""

    experiment: Experiment
    """The experiment that would be in the registry."""
    dsl: dict[str, Any]
    """Its definition."""
    inheritance: Annotated[Inheritance, _Dict] = Field(
        default_factory=Inheritance, validation_alias="package-inheritance"
    )
    """Where its variables would have their values from."""
    complaints: Annotated[list[Any], _List] = Field(default=[], validation_alias="problems")
    """What the service could not find out, as it words it."""


class SymbolPayload(Payload):
    """Something that a graph takes or gives."""

    name: str | None = None
    """Its name."""
    value: str | None = None
    """A value it may have."""


class ParameterLinkPayload(Payload):
    """A pair of parameters."""

    inputGraphParameter: SymbolPayload | None = None
    """In the input graph."""
    outputGraphParameter: SymbolPayload | None = None
    """In the output graph."""


class ResultLinkPayload(Payload):
    """A pair of results."""

    inputGraphResult: SymbolPayload | None = None
    """In the input graph."""
    outputGraphResult: SymbolPayload | None = None
    """In the output graph."""


class LinksPayload(Payload):
    """How the parameters and results of two graphs belong together."""

    graphParameters: list[ParameterLinkPayload] | None = None
    """Pairs of parameters."""
    graphResults: list[ResultLinkPayload] | None = None
    """Pairs of results."""
    inferParameters: bool | None = None
    """Absent: True, the service adds the pairs of parameters that it finds itself."""
    inferResults: bool | None = None
    """Absent: True, the service adds the pairs of results that it finds itself."""
    variablesMergePolicy: str | None = None
    """One of the values of `MergePolicy`; absent: the output graph's variables win."""


class GraphPayload(Payload):
    """Some components of an experiment."""

    identifier: str
    """``name`` (which means ``name:latest``), ``name:tag`` or ``name@digest``."""
    components: list[str] | None = None
    """References of the components, each once."""
    package: Mapping[str, Any] | None = None
    """The experiment's base package; absent: the service looks it up, and the experiment has to have just one."""


class TransformPayload(Payload):
    """What may take the place of what."""

    inputGraph: GraphPayload
    """What takes the place."""
    outputGraph: GraphPayload
    """What is replaced."""
    relationship: LinksPayload | None = None
    """How they belong together."""


class RelationshipPayload(Payload):
    """
    A relationship to push. Field names are those of the service; what you do not set is not sent.

    Source: ``POST relationships/`` of the runtime service.
    """

    identifier: str
    """Its name; a relationship of the same name is replaced."""
    description: str | None = None
    """What it is for."""
    transform: TransformPayload
    """What may take the place of what."""
