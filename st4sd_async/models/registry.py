"""What the registry tells of an experiment besides its definition, and what it makes of a DSL."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from .._util.field_docs import document_fields
from ._base import Reply
from .packages import Experiment

_List = BeforeValidator(lambda value: [] if value is None else value)


class TaggedVersion(Reply):
    """A tag, and the version of the experiment that has it."""

    tag: str
    """The tag."""
    digest: str = Field(alias="head")
    """The digest of the version."""
    times_executed: int | None = Field(default=None, alias="timesExecuted")
    """How often that version was started."""
    created_on: str | None = Field(default=None, alias="createdOn")
    """When it was pushed first, as ``2026-11-22T10:05:07.116780+0000``."""


class UntaggedVersion(Reply):
    """A version that lost a tag to a later one; it is there once for each tag that it was pushed with."""

    digest: str
    """Its digest."""
    original_tag: str | None = Field(default=None, alias="originalTag")
    """A tag it was pushed with."""
    times_executed: int | None = Field(default=None, alias="timesExecuted")
    """How often it was started."""
    created_on: str | None = Field(default=None, alias="createdOn")
    """When it was pushed first."""


class History(Reply):
    """
    The versions of an experiment.

    Source: ``GET experiments/{name}/history`` of the runtime service.
    """

    tags: Annotated[list[TaggedVersion], _List] = []
    """The tags in use."""
    untagged: Annotated[list[UntaggedVersion], _List] = []
    """Versions without a tag, which only their digest finds."""


class Change(Reply):
    """What became of one part of a template."""

    message: str
    """In words: inherited, removed, erased or updated."""
    location: Annotated[list[str | int], _List] = []
    """The part, as the keys and indices that lead to it."""


class GeneratedPackage(Reply):
    """
    A package that fits a DSL, and how it differs from the template.

    Source: ``POST utilities/pvep/`` of the runtime service.
    """

    experiment: Experiment = Field(validation_alias="pvep")
    """The package; it is in no registry."""
    changes: Annotated[list[Change], _List] = []
    """What became of the template; [] without one."""


@document_fields
class LibraryGraphs(list[dict[str, Any]]):
    """The graphs of the library, in the form of DSL 2.0, and what the service complains about."""

    def __init__(self, graphs: list[dict[str, Any]], problems: tuple[Any, ...], raw: dict[str, Any]) -> None:
        super().__init__(graphs)
        self.problems = problems
        """Why graphs could not be read."""
        self.raw = raw
        """The dictionary as it came."""
