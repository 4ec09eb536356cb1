"""History of an experiment, packages generated for a DSL, and the library of graphs."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from .._util.field_docs import document_fields
from ._base import NullAsList, Reply
from .packages import Experiment


class TaggedVersion(Reply):
    """A tag, and the version of the experiment that has it."""

    tag: str
    """Tag."""
    digest: str = Field(alias="head")
    """Digest of the version."""
    times_executed: int | None = Field(default=None, alias="timesExecuted")
    """How often the version was started."""
    created_on: str | None = Field(default=None, alias="createdOn")
    """When it was first pushed, as in ``2026-11-22T10:05:07.116780+0000``."""


class UntaggedVersion(Reply):
    """A version whose tag was moved to a later one; it is listed once for each tag that it was pushed with."""

    digest: str
    """Digest."""
    original_tag: str | None = Field(default=None, alias="originalTag")
    """A tag that it was pushed with."""
    times_executed: int | None = Field(default=None, alias="timesExecuted")
    """How often it was started."""
    created_on: str | None = Field(default=None, alias="createdOn")
    """When it was first pushed."""


class History(Reply):
    """
    The versions of an experiment.

    Source: ``GET experiments/{name}/history`` of the runtime service.
    """

    tags: Annotated[list[TaggedVersion], NullAsList] = []
    """Tags in use."""
    untagged: Annotated[list[UntaggedVersion], NullAsList] = []
    """Versions without a tag; use their digest."""


class Change(Reply):
    """A difference between a generated package and its template."""

    message: str
    """What happened, in words: inherited, removed, erased or updated."""
    location: Annotated[list[str | int], NullAsList] = []
    """Part of the template, as the keys and indices that lead to it."""


class GeneratedPackage(Reply):
    """
    A package generated for a DSL, and how it differs from the template.

    Source: ``POST utilities/pvep/`` of the runtime service.
    """

    experiment: Experiment = Field(validation_alias="pvep")
    """Package; it is in no registry."""
    changes: Annotated[list[Change], NullAsList] = []
    """Differences from the template; [] without a template."""


@document_fields
class LibraryGraphs(list[dict[str, Any]]):
    """The graphs of the library in the form of DSL 2.0, with the problems that the service reports."""

    def __init__(self, graphs: list[dict[str, Any]], problems: tuple[Any, ...], raw: dict[str, Any]) -> None:
        super().__init__(graphs)
        self.problems = problems
        """Why graphs could not be read."""
        self.raw = raw
        """JSON object as the service sent it."""
