"""Parameterised virtual experiment packages, as the service's registry returns them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from .._render.displayable import Displayable
from .._util.field_docs import document_fields
from .._util.printable import MAX_REPR_LENGTH, one_line, shorten
from ._base import JsonObject, NullAsDict, NullAsList, RegistryEntry, Reply, Strings
from .interface import Interface

if TYPE_CHECKING:
    from .._render.cards import Card

MAX_CARD_ROWS = 20
"""Experiments of a list in a notebook."""


class Named(Reply):
    """A part of a package that has a name."""

    name: str | None = None
    """Name."""


class Variable(Named):
    """A variable with its value or its allowed values."""

    value: Any = None
    """Value; in ``execution_options`` the default of a variable that takes any value."""
    choices: Annotated[list[dict[str, Any]], NullAsList] = Field(default=[], alias="valueFrom")
    """Allowed values as ``[{"value": ...}]``; in the defaults of the registry also the platform of each."""


class GitLocation(Reply):
    """Location of a package in git."""

    url: str | None = Field(default=None, repr=False)
    """URL of the repository; not in the `repr`, because it may contain a token."""
    branch: str | None = None
    """Branch, of which each run gets the newest commit, not the pushed one; None if a tag or a commit is given."""
    tag: str | None = None
    """Tag; None if a branch or a commit is given."""
    commit: str | None = None
    """Commit id; None if a branch or a tag is given."""


class GitSource(Reply):
    """A package in git."""

    location: GitLocation | None = None
    """Repository and version."""
    version: str | None = None
    """Commit id that the service cloned."""
    security: Any = Field(default=None, repr=False)
    """Credentials of the service for the repository, unchanged; not in the `repr`."""


class Source(Reply):
    """Where a base package comes from; `raw` has other kinds than these."""

    git: GitSource | None = None
    """Package in git; None if it comes from elsewhere."""
    s3: Any = Field(default=None, repr=False)
    """Package in a bucket, unchanged; not in the `repr`, because it may contain keys."""


class BasePackage(Named):
    """One of the packages that a parameterised package is made of."""

    source: Source | None = None
    """Where it comes from."""
    dependencies: Any = Field(default=None, repr=False)
    """Image registries that it needs, unchanged; not in the `repr`, because it may contain a password."""


class Base(Reply):
    """The base packages of an experiment."""

    packages: Annotated[list[BasePackage], NullAsList] = []
    """Base packages; most experiments have one, named ``main``."""


class PackageMetadata(Named):
    """Metadata that the author of an experiment gives."""

    tags: Strings = []
    """Tags that the push asked for."""
    keywords: Strings = []
    """Keywords."""
    license: str | None = None
    """Licence."""
    maintainer: str | None = None
    """Maintainer."""
    description: str | None = None
    """What the experiment does."""


class Defaults(Reply):
    """Defaults of what a start may choose."""

    variables: Annotated[list[Variable], NullAsList] = []
    """Defaults of variables, in ``choices``: one for each platform."""


class RegistryMetadata(Reply):
    """Metadata that the registry derives from an experiment."""

    created_on: str | None = Field(default=None, alias="createdOn")
    """When it was first pushed, as in ``2026-11-22T10:05:07.116780+0000``."""
    digest: str | None = None
    """``sha256x`` and the start of a hash over packages and parameterisation."""
    tags: Strings = []
    """Tags that it has now; a later push of the same name may take them away."""
    times_executed: int | None = Field(default=None, alias="timesExecuted")
    """How often it was started."""
    inputs: Annotated[list[Named], NullAsList] = []
    """Input files; every start must provide all of them."""
    data: Annotated[list[Named], NullAsList] = []
    """Data files of the package."""
    container_images: Annotated[list[Named], NullAsList] = Field(default=[], alias="containerImages")
    """Images of the components, without those that depend on a start."""
    output: Annotated[list[Named], NullAsList] = []
    """Key-outputs."""
    platforms: Strings = []
    """Platforms of the package."""
    defaults: Annotated[Defaults, NullAsDict] = Field(default_factory=Defaults, alias="executionOptionsDefaults")
    """Defaults of what a start may choose."""
    interface: Annotated[Interface, NullAsDict] = Field(default_factory=Interface)
    """Inputs and properties; empty if the experiment has no interface, or several platforms."""

    @property
    def measures(self) -> bool | None:
        """Whether runs measure properties; None if the registry does not know, as with several platforms."""
        return False if self.interface.measures is None and len(self.platforms) == 1 else self.interface.measures


class Metadata(Reply):
    """Metadata of an experiment."""

    package: Annotated[PackageMetadata, NullAsDict] = Field(default_factory=PackageMetadata)
    """Metadata given by the author."""
    registry: Annotated[RegistryMetadata, NullAsDict] = Field(default_factory=RegistryMetadata)
    """Metadata derived by the registry."""


class Presets(Reply):
    """What a start cannot change."""

    variables: Annotated[list[Variable], NullAsList] = []
    """Variables with fixed values."""
    platform: str | None = None
    """Platform; None if it is not fixed."""
    environment_variables: Any = Field(default=None, alias="environmentVariables", repr=False)
    """Environment of the orchestrator, unchanged; treated as secret, like that of a start."""


class ExecutionOptions(Reply):
    """What a start may choose."""

    variables: Annotated[list[Variable], NullAsList] = []
    """Variables that may be set."""
    data: Annotated[list[Named], NullAsList] = []
    """Data files that may be replaced."""
    platform: Strings = []
    """Platforms to choose from; the first is the default."""


class Parameterisation(Reply):
    """What is fixed, and what a start may choose."""

    presets: Annotated[Presets, NullAsDict] = Field(default_factory=Presets)
    """What is fixed."""
    execution_options: Annotated[ExecutionOptions, NullAsDict] = Field(
        default_factory=ExecutionOptions, alias="executionOptions"
    )
    """What a start may choose."""


class Experiment(Displayable, RegistryEntry):
    """
    A parameterised virtual experiment package in the service's registry.

    Source: ``experiments/`` of the runtime service.
    """

    _vital: ClassVar[frozenset[str]] = frozenset({"base", "metadata", "parameterisation"})

    base: Annotated[Base, NullAsDict] = Field(default_factory=Base)
    """Base packages."""
    metadata: Annotated[Metadata, NullAsDict] = Field(default_factory=Metadata)
    """Metadata by the author and by the registry."""
    parameterisation: Annotated[Parameterisation, NullAsDict] = Field(default_factory=Parameterisation)
    """What is fixed, and what a start may choose."""

    @property
    def name(self) -> str | None:
        """Name."""
        return self.metadata.package.name

    @property
    def digest(self) -> str | None:
        """Digest of the content: the same content has the same digest."""
        return self.metadata.registry.digest

    @property
    def tags(self) -> list[str]:
        """Tags that it has in the registry now."""
        return list(self.metadata.registry.tags)

    @property
    def identifier(self) -> str:
        """``name@digest``: identifies exactly this content, whatever is pushed later."""
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
class ExperimentList(list[Experiment], Displayable):
    """The experiments of a registry, with the problems that it reports."""

    def __init__(self, entries: list[Experiment], problems: list[Any], raw: dict[str, Any]) -> None:
        super().__init__(entries)
        self.problems = problems
        """Problems of entries as the service reports them, and entries that could not be read."""
        self.raw = raw
        """JSON object as the service sent it."""

    def _card(self) -> Card:
        from .._render.cards import Card, CardTable, counted, joined, omitted

        ordered = sorted(self, key=lambda one: (not one.tags, str(one.name)))
        rows = tuple(
            (str(one), joined(one.tags), one.metadata.package.description or "") for one in ordered[:MAX_CARD_ROWS]
        )
        more = omitted(len(self) - len(rows), "experiment")
        table = CardTable(("identifier", "tags", "description"), rows, more) if rows else None
        notes = (f"problems has {len(self.problems)} entries",) if self.problems else ()
        return Card(counted(len(self), "experiment"), table=table, notes=notes)


class StartSkeleton(Reply):
    """
    A template of a start payload for an experiment, with placeholders to replace.

    Source: ``GET experiments/{identifier}/start/payload/`` of the runtime service.
    """

    payload: JsonObject = {}
    """Start payload; its placeholders are in double braces."""
    magic_values: JsonObject = Field(default={}, alias="magicValues")
    """Placeholder -> what it stands for."""
    problems: Annotated[list[Any], NullAsList] = []
    """Problems of the experiment."""
