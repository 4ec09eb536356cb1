"""
Refusals that concern one kind of thing each; the tree they belong to is drawn in `_errors`.

What the body of a refusal says beside its words is read from ``detail`` when it is asked for, so that
there is nothing here that could contradict it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Self

from ._errors import AlreadyExists, BadRequest, Conflict, InvalidPackage, InvalidPayload, NotFound, Problem, shorten
from ._util.problems import problems_in, problems_quoted, told

if TYPE_CHECKING:
    from .models.imports import Requirement


def _first(detail: Mapping[str, Any], *keys: str) -> str:
    return next((str(detail[key]) for key in keys if detail.get(key)), "")


def _texts(value: Any) -> tuple[str, ...]:
    return tuple(str(one) for one in value) if isinstance(value, list) else ()


class UnknownRelationship(NotFound):
    """No relationship has this identifier."""

    advice = "list what there is with client.relationships.list()"

    @property
    def identifier(self) -> str:
        """The identifier, as far as the service repeats it."""
        return _first(self.detail, "unknownRelationship", "relationshipNotFound", "problem")


class UnknownGraph(NotFound):
    """The library has no graph of this name."""

    advice = "list what there is with client.library.list()"

    @property
    def name(self) -> str:
        """The name, as far as the service repeats it."""
        return _first(self.detail, "graphName")


class UnknownPullSecret(NotFound):
    """The service knows no image pull secret of this name, or not yet: a new one takes up to two minutes."""

    advice = "list what there is with client.image_pull_secrets.list()"


class UnknownService(NotFound):
    """The deployment has no service of this name."""

    advice = "list what there is with client.deployment.services()"


class UnknownRuntimePolicy(NotFound):
    """
    The service has no runtime policy of this name; nothing was started.

    Services of now answer 500 in its place, which leaves open what came of the start: `StartOutcomeUnknown`.
    """

    @property
    def name(self) -> str:
        """The name of the policy."""
        return _first(self.detail, "unknownRuntimePolicyName")


class NoProperties(NotFound):
    """The run is over and measured no properties, and never will; the message says why, as far as that is known."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns asked for, ``("*",)`` for all."""
        return _texts(self.detail.get("unknownProperties"))


class NoToken(NotFound):
    """There is no token to give, because this client came with an API key and not with a token."""

    advice = "open the page in a browser to get a token"


class GraphExists(AlreadyExists):
    """The library has a graph of this name already."""

    advice = "delete that one first: a graph cannot be changed"

    @property
    def name(self) -> str:
        """The name of the graph."""
        return _first(self.detail, "graphName")


class NameTaken(Conflict):
    """A Secret of this name exists that is no image pull secret of the service, which leaves it alone."""

    advice = "choose another name"


class CannotUntagLatest(BadRequest):
    """The new tags would leave the latest version of an experiment without ``latest``; nothing was changed."""

    advice = "keep 'latest' among the tags, or push the version that is to be the latest"

    @property
    def identifier(self) -> str:
        """The experiment."""
        return _first(self.detail, "cannotUntagLatestFrom")


class NotAFolder(BadRequest):
    """A path inside of a key-output was asked for, which is a file."""


class OutsideOfFolder(BadRequest):
    """The path leads out of the folder of the key-output."""


class Disabled(BadRequest):
    """This part of the service is not set up in this deployment."""

    advice = "ask the administrator of the deployment to set it up"


class LocalDeployment(BadRequest):
    """The service runs without a cluster, so it does not know where the other services are."""


class InvalidName(InvalidPackage):
    """An experiment cannot be called so."""

    @property
    def name(self) -> str:
        """The name refused."""
        return _first(self.detail, "invalidExperimentID")

    @property
    def rule(self) -> str:
        """What names must be like."""
        return _first(self.detail, "experimentNamingRule")


class MissingRequirements(InvalidPackage):
    """An experiment relies on something that this deployment lacks; nothing was pushed."""

    advice = "meet its .requirements, as the .advice of each tells, or push it nevertheless with allow_missing=True"
    requirements: tuple[Requirement, ...] = ()
    """What is missing."""

    @classmethod
    def before_pushing(cls, identifier: str, missing: Iterable[Requirement]) -> Self:
        """The error for an experiment that was not pushed."""
        found = tuple(missing)
        error = cls(f"{identifier} was not pushed: this deployment lacks the {', '.join(map(str, found))}")
        error.requirements = found
        return error


class DigestMismatch(InvalidPackage):
    """The content of an imported experiment is not that of the digest that was asked for; it was not kept."""

    advice = "the package may have moved, or the registry may be lying: look at it with client.fetch_experiment(...)"
    expected: str = ""
    """The digest that was asked for."""
    found: str = ""
    """The digest of the content, "" if the registry here did not say."""

    @classmethod
    def of(cls, asked: str, found: str | None) -> Self:
        """Make the error for an experiment, asked for as ``name@digest``."""
        error = cls(f"{asked} was not kept: the digest of its content is {found}")
        error.expected, error.found = asked.partition("@")[2], found or ""
        return error


class InvalidFlowIR(InvalidPayload):
    """The definition of a lambda experiment will not do; nothing was started."""

    advice = ""

    def _text(self) -> str:
        return shorten(": ".join(filter(None, (super()._text(), _first(self.detail, "flowirErrors")))))

    @property
    def errors(self) -> str:
        """What is wrong with it, with line breaks: in the service's words, or `problems` if it was not sent."""
        found = "\n".join(": ".join(filter(None, problem)) for problem in self.problems)
        return _first(self.detail, "flowirErrors") or found


class InaccessibleRegistries(InvalidPayload):
    """No image pull secret of the service opens the registries that the images come from; nothing was started."""

    advice = "add one with client.image_pull_secrets.create(...)"

    @property
    def registries(self) -> tuple[str, ...]:
        """The container registries."""
        return _texts(self.detail.get("inaccessibleContainerRegistries"))


class InvalidDefinition(BadRequest):
    """What was sent describes something that cannot be."""

    def _text(self) -> str:
        more = told(problem for problem in self.problems if problem.what not in self.message)
        return shorten(": ".join(filter(None, (super()._text(), more))))

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What is wrong, entry by entry; () if the service only said so in `message`."""
        return problems_in(
            self.detail.get("problems") or [self.detail[key] for key in ("problem",) if self.detail.get(key)]
        )

    @classmethod
    def before_sending(cls, what: str, problems: Iterable[Problem]) -> Self:
        """The error for something that was checked here and not sent."""
        found = [{"location": [where] if where else [], "message": text} for where, text in problems]
        return cls(f"the {what} was not sent: {told(problems_in(found))}", detail={"problems": found})


class InvalidRelationship(InvalidDefinition):
    """The relationship, or what would come of it, will not do."""


class InvalidDSL(InvalidDefinition):
    """The DSL of the experiment, or the package for it, will not do."""


class InvalidGraph(InvalidDSL):
    """The graph does not fit into the library."""


class InvalidQuery(InvalidDefinition):
    """The query makes no sense to the service."""

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What is wrong, entry by entry; () if the service did not tell it so."""
        return super().problems or problems_quoted(self.message)
