"""Experiments of other registries, and what they rely on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from .._util.field_docs import document_fields
from .packages import Experiment

RequirementKind = Literal["credential", "dataset", "image pull secret", "image registry", "secret"]
"""What an experiment may rely on."""


@document_fields
@dataclass(frozen=True)
class Requirement:
    """Something that an experiment relies on: what its definition does not bring along, or should not."""

    kind: RequirementKind
    """``dataset``: a bucket that the deployment knows by name. ``image pull secret``: one that the definition names.
    ``image registry``: where container images come from. ``secret``: a Secret of the cluster, with credentials for
    git or S3. ``credential``: one of those that the definition holds itself, so that it would come along."""
    name: str
    """Its name; of an image registry the host, of a credential its place in the definition."""
    where: tuple[str, ...] = ()
    """What relies on it: the places in the definition, as ``base.packages.0.source.dataset``; or the images."""
    server: str = ""
    """The registry that an image pull secret is for; "" for all other kinds, and if the definition does not say."""
    is_met: bool | None = None
    """
    True: the deployment has it. False: it does not.

    None: it cannot be asked. That is so for a ``secret``, for a ``credential``, which may be meant for the other
    deployment only, and for an ``image registry`` that no image pull secret opens: its images may be public, or opened
    by something the service does not know of.
    """

    @property
    def advice(self) -> str:
        """How to meet it."""
        if self.kind == "dataset":
            return f"client.datasets.create({self.name!r}, S3(...))"
        if self.kind == "secret":
            return f"ask the administrator of the cluster for the Secret {self.name!r}"
        if self.kind == "credential":
            return "replace it in .definition by one that is meant for this deployment, or leave it out, and push that"
        if self.kind == "image registry":
            return f"client.image_pull_secrets.create('a-name', server={self.name!r}, ...), unless they are public"
        return f"client.image_pull_secrets.create({self.name!r}, server={self.server or '...'!r}, ...)"

    def __str__(self) -> str:
        return f"{self.kind} {self.name!r}"


@document_fields
@dataclass(frozen=True)
class ImportedExperiment:
    """
    An experiment of another registry, and what it relies on here; it is in this registry only when it is pushed.

        found.missing                              what this deployment does not have
        found.definition["metadata"]["package"]["name"] = "mine"
        await client.push(found.definition)        with or without a change
    """

    source: str
    """Address of the registry or deployment that it comes from."""
    experiment: Experiment = field(repr=False)
    """It as that registry shows it, with its digest, tags, inputs and container images there."""
    definition: dict[str, Any] = field(repr=False)
    """What is to be pushed: its own copy of ``base``, ``metadata`` and ``parameterisation``, the tags it was pushed
    with there included. A branch or tag in it may lead to another content by now."""
    requirements: tuple[Requirement, ...]
    """What it relies on; () if on nothing."""
    asked: str = field(default="", compare=False)
    """What was asked for: ``name``, ``name:tag`` or ``name@digest``."""

    @property
    def identifier(self) -> str:
        """``name@digest`` in the other registry."""
        return self.experiment.identifier

    @property
    def missing(self) -> tuple[Requirement, ...]:
        """The requirements that this deployment does not meet."""
        return tuple(one for one in self.requirements if one.is_met is False)

    @property
    def uncertain(self) -> tuple[Requirement, ...]:
        """The requirements of which nobody can be asked whether they are met."""
        return tuple(one for one in self.requirements if one.is_met is None)
