"""Parameterised virtual experiment packages, as the service's registry returns them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import BeforeValidator, Field

from .._render.displayable import Displayable
from .._util.field_docs import document_fields
from .._util.printable import MAX_REPR_LENGTH, one_line, shorten
from ._base import Entry, Reply
from .interface import Interface

if TYPE_CHECKING:
    from .._render.cards import Card

# Lists of the service are marshalled: what is missing comes as null, and invalid entries come as
# they are, so every part may be absent.
_List = BeforeValidator(lambda value: [] if value is None else value)
_Dict = BeforeValidator(lambda value: {} if value is None else value)
_Strings = Annotated[list[str], _List]


class Named(Reply):
    """Something the package has, by name."""

    name: str | None = None
    """Its name."""


class Variable(Named):
    """A variable and what it is set to, or may be."""

    value: Any = None
    """Its value; in ``execution_options`` the default of a variable that takes any value."""
    choices: Annotated[list[dict[str, Any]], _List] = Field(default=[], alias="valueFrom")
    """``[{"value": ...}]``: the values allowed; for defaults also the platform each belongs to."""


class GitLocation(Reply):
    """Where a package is in git."""

    url: str | None = Field(default=None, repr=False)
    """Address of the repository; a repr leaves it out, because there may be a token in it."""
    branch: str | None = None
    """Branch, unless a tag or a commit is named."""
    tag: str | None = None
    """Tag, unless a branch or a commit is named."""
    commit: str | None = None
    """Commit id, unless a branch or a tag is named."""


class GitSource(Reply):
    """A package in git."""

    location: GitLocation | None = None
    """Where it is."""
    version: str | None = None
    """Commit id that the service cloned."""
    security: Any = Field(default=None, repr=False)
    """How the service gets at it, as it came; a repr leaves it out, because there may be a token in it."""


class Source(Reply):
    """Where a base package comes from; other kinds than git stay in `raw`."""

    git: GitSource | None = None
    """The package in git, None if it comes from elsewhere."""
    s3: Any = Field(default=None, repr=False)
    """The package in a bucket, as it came; a repr leaves it out, because there may be keys in it."""


class BasePackage(Named):
    """One of the packages that a parameterised package is made of."""

    source: Source | None = None
    """Where it comes from."""
    dependencies: Any = Field(default=None, repr=False)
    """What its images need, as it came; a repr leaves it out, because there may be a password in it."""


class Base(Reply):
    """The packages underneath."""

    packages: Annotated[list[BasePackage], _List] = []
    """The base packages; most experiments have one, called ``main``."""


class PackageMetadata(Named):
    """What its author says of an experiment."""

    tags: _Strings = []
    """Tags that the push asked for."""
    keywords: _Strings = []
    """Keywords."""
    license: str | None = None
    """Licence."""
    maintainer: str | None = None
    """Who maintains it."""
    description: str | None = None
    """What it does."""


class Defaults(Reply):
    """What a start has that does not choose."""

    variables: Annotated[list[Variable], _List] = []
    """The values of variables, in ``choices``: one for each platform."""


class RegistryMetadata(Reply):
    """What the registry found out about an experiment."""

    created_on: str | None = Field(default=None, alias="createdOn")
    """When it was pushed first, as ``2026-11-22T10:05:07.116780+0000``."""
    digest: str | None = None
    """``sha256x`` and the start of a hash over packages and parameterisation."""
    tags: _Strings = []
    """Tags it has now; an older push of the same name has fewer and fewer."""
    times_executed: int | None = Field(default=None, alias="timesExecuted")
    """How often it was started."""
    inputs: Annotated[list[Named], _List] = []
    """Input files that every start must bring."""
    data: Annotated[list[Named], _List] = []
    """Data files that the package has."""
    container_images: Annotated[list[Named], _List] = Field(default=[], alias="containerImages")
    """Images that its components run in, as far as they do not depend on a start."""
    output: Annotated[list[Named], _List] = []
    """Key-outputs."""
    platforms: _Strings = []
    """Platforms that the package knows."""
    defaults: Annotated[Defaults, _Dict] = Field(default_factory=Defaults, alias="executionOptionsDefaults")
    """What a start has that does not choose."""
    interface: Annotated[Interface, _Dict] = Field(default_factory=Interface)
    """What it says of its inputs and measured properties; blank if it has no interface, or several platforms."""

    @property
    def measures(self) -> bool | None:
        """Whether runs measure properties; None if the registry does not know, as with several platforms."""
        return False if self.interface.measures is None and len(self.platforms) == 1 else self.interface.measures


class Metadata(Reply):
    """What is known about an experiment."""

    package: Annotated[PackageMetadata, _Dict] = Field(default_factory=PackageMetadata)
    """What its author says."""
    registry: Annotated[RegistryMetadata, _Dict] = Field(default_factory=RegistryMetadata)
    """What the registry found out."""


class Presets(Reply):
    """What a start cannot change."""

    variables: Annotated[list[Variable], _List] = []
    """Variables with fixed values."""
    platform: str | None = None
    """The platform, if fixed."""
    environment_variables: Any = Field(default=None, alias="environmentVariables", repr=False)
    """Environment of the orchestrator, as it came; treated as secret, as that of a start is."""


class ExecutionOptions(Reply):
    """What a start may choose."""

    variables: Annotated[list[Variable], _List] = []
    """Variables that may be set."""
    data: Annotated[list[Named], _List] = []
    """Data files that may be overridden."""
    platform: _Strings = []
    """Platforms to choose from; the first is the default."""


class Parameterisation(Reply):
    """What is fixed and what may be chosen at a start."""

    presets: Annotated[Presets, _Dict] = Field(default_factory=Presets)
    """Fixed."""
    execution_options: Annotated[ExecutionOptions, _Dict] = Field(
        default_factory=ExecutionOptions, alias="executionOptions"
    )
    """To be chosen."""


class Experiment(Displayable, Entry):
    """
    A parameterised virtual experiment package in the service's registry.

    Source: ``experiments/`` of the runtime service.
    """

    _vital: ClassVar[frozenset[str]] = frozenset({"base", "metadata", "parameterisation"})

    base: Annotated[Base, _Dict] = Field(default_factory=Base)
    """The packages underneath."""
    metadata: Annotated[Metadata, _Dict] = Field(default_factory=Metadata)
    """What is known about it."""
    parameterisation: Annotated[Parameterisation, _Dict] = Field(default_factory=Parameterisation)
    """What is fixed and what may be chosen at a start."""

    @property
    def name(self) -> str | None:
        """Its name."""
        return self.metadata.package.name

    @property
    def digest(self) -> str | None:
        """What its contents are recognised by: the same content has the same digest."""
        return self.metadata.registry.digest

    @property
    def tags(self) -> list[str]:
        """Tags that it has in the registry now."""
        return list(self.metadata.registry.tags)

    @property
    def identifier(self) -> str:
        """``name@digest``: names exactly this content, whatever is pushed later."""
        return f"{self.name}@{self.digest}" if self.digest else str(self.name)

    def __str__(self) -> str:
        return one_line(self.identifier)

    def __repr__(self) -> str:
        tags = f", tags={self.tags}" if self.tags else ""
        return shorten(f"{type(self).__name__}({self.identifier!r}{tags})", MAX_REPR_LENGTH)

    def _card(self) -> Card:
        from .._render.cards import Card, facts_of, joined

        package, registry = self.metadata.package, self.metadata.registry
        options, presets = self.parameterisation.execution_options, self.parameterisation.presets
        facts = {
            "identifier": self.identifier,
            "tags": joined(self.tags),
            "description": package.description or registry.interface.description,
            "source": joined(map(_source_text, self.base.packages)),
            "inputs": joined(file.name for file in registry.inputs),
            "data": joined(file.name for file in registry.data),
            "variables": joined(map(_variable_text, options.variables)),
            "fixed": joined(f"{variable.name} = {variable.value}" for variable in presets.variables),
            "platforms": joined(options.platform or registry.platforms),
            "outputs": joined(output.name for output in registry.output),
            "measures": joined(registry.interface.property_names),
            "keywords": joined(package.keywords),
            "started": None if registry.times_executed is None else f"{registry.times_executed} times",
        }
        return Card(str(self.name), kind="experiment", facts=facts_of(facts))


def _source_text(package: BasePackage) -> str:
    """Return where a package is in git, without credentials in the address; "" if it is not in git."""
    location = package.source.git.location if package.source and package.source.git else None
    if location is None or not location.url:
        return ""
    version = location.tag or location.branch or location.commit
    return re.sub(r"//[^/]*@", "//", location.url) + (f" at {version}" if version else "")


def _variable_text(variable: Variable) -> str:
    """Return the name of a variable with its allowed values or its default."""
    if variable.choices:
        return f"{variable.name} ({' or '.join(str(choice.get('value')) for choice in variable.choices)})"
    return str(variable.name) if variable.value is None else f"{variable.name} (default {variable.value})"


@document_fields
class ExperimentList(list[Experiment]):
    """The experiments of a registry, and what it complains about."""

    def __init__(self, entries: list[Experiment], problems: list[Any], raw: dict[str, Any]) -> None:
        super().__init__(entries)
        self.problems = problems
        """What is wrong with entries of the registry, as the service words it, and entries that could not be read."""
        self.raw = raw
        """The dictionary as it came."""


class StartSkeleton(Reply):
    """
    What a start of an experiment may say, as a payload with magic values to fill in.

    Source: ``GET experiments/{identifier}/start/payload/`` of the runtime service.
    """

    payload: Annotated[dict[str, Any], _Dict] = {}
    """A start payload whose texts in double braces are to be replaced."""
    magic_values: Annotated[dict[str, Any], _Dict] = Field(default={}, alias="magicValues")
    """What each of those texts means."""
    problems: Annotated[list[Any], _List] = []
    """What is wrong with the experiment, if anything."""
