"""Relationships between experiments: ``relationships/`` and ``query/relationships/`` of the runtime service."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal, get_args

import pydantic

from .. import models
from .._errors import APIError, InvalidQuery, InvalidRelationship, UnknownRelationship, parse_problems
from .._http.call import Call, Response, model, nothing, segment
from .._http.retry import Replay
from ..models.packages import Parameterisation
from .group import Group, checked_definition, definition_body, mapping, problems_of, registered, without_nulls

if TYPE_CHECKING:
    from ..models import Relationship, RelationshipList, RelationshipPayload, Synthesis, SynthesisPreview

DslVersion = Literal["2.0.0_0.1.0", "1"]
"""Versions of the DSL that a preview comes in; ``"1"`` is FlowIR."""


def relationship_path(identifier: str) -> str:
    """Return the path of one relationship."""
    return f"relationships/{segment(identifier, 'the identifier of a relationship')}/"


def _unknown_relationship(identifier: str) -> Callable[[str], type[APIError] | None]:
    """Return a function that recognises an unknown relationship: the service responds with 400 and the identifier."""

    def error_from_message(message: str) -> type[APIError] | None:
        return UnknownRelationship if message in (identifier, f"Invalid payload, reason: {identifier}") else None

    return error_from_message


def list_call(*, nulls: bool = False) -> Call[RelationshipList]:
    """Return the request for all relationships."""
    return Call("GET", "relationships/", _listed, params={"hideNone": "n"} if nulls else None)


def get_call(identifier: str) -> Call[Relationship]:
    """Return the request for one relationship."""
    return Call(
        "GET", relationship_path(identifier), registered(models.Relationship), not_found_error=UnknownRelationship
    )


def push_call(relationship: Mapping[str, Any] | Relationship | RelationshipPayload) -> Call[Relationship]:
    """Return the request that stores a relationship, in place of one of the same name."""
    unchecked = without_nulls(relationship.raw) if isinstance(relationship, models.Relationship) else relationship
    checked = checked_definition("relationship", unchecked, models.RelationshipPayload, InvalidRelationship)
    return Call(
        "POST",
        "relationships/",
        model(models.Relationship, "entry"),
        replay=Replay.REPEAT,
        content=definition_body("relationship", checked, InvalidRelationship),
        is_slow=True,
        bad_request_error=InvalidRelationship,
    )


def delete_call(identifier: str) -> Call[None]:
    """Return the request that deletes a relationship."""
    path = relationship_path(identifier)
    return Call("DELETE", path, nothing, replay=Replay.DELETE, not_found_error=UnknownRelationship)


def synthesize_call(
    identifier: str, name: str, parameterisation: Mapping[str, Any] | Parameterisation | None, *, generate: bool
) -> Call[Synthesis]:
    """Return the request that synthesizes an experiment. It may be repeated: the digest stays the same."""
    options = {} if generate else {"options": {"generateParameterisation": False}}
    presets = parameterisation.raw if isinstance(parameterisation, Parameterisation) else parameterisation
    content = {"parameterisation": {} if presets is None else mapping("parameterisation", presets), **options}
    return Call(
        "POST",
        f"{relationship_path(identifier)}synthesize/{segment(name, 'the name of an experiment')}/",
        model(models.Synthesis),
        replay=Replay.REPEAT,
        content=definition_body("parameterisation", content, InvalidRelationship),
        is_slow=True,
        not_found_error=UnknownRelationship,
        bad_request_error=InvalidRelationship,
        error_from_message=_unknown_relationship(identifier),
    )


def preview_call(identifier: str, dsl_version: DslVersion, platform: str | None) -> Call[SynthesisPreview]:
    """Return the request for a preview of a synthesis."""
    if dsl_version not in (versions := get_args(DslVersion)):
        raise ValueError(f"dsl_version must be one of {versions}, not {dsl_version!r}")
    params = {"dslVersion": dsl_version, **({"platform": platform} if platform else {})}
    return Call(
        "GET",
        f"{relationship_path(identifier)}preview/synthesize/dsl/",
        model(models.SynthesisPreview),
        params=params,
        is_slow=True,
        not_found_error=UnknownRelationship,
        bad_request_error=InvalidRelationship,
        error_from_message=_unknown_relationship(identifier),
    )


def query_call(identifier: str | None, input_graph: str | None, output_graph: str | None) -> Call[RelationshipList]:
    """Return the request for the relationships whose identifiers match."""
    graphs = {
        "inputGraph": _expression("input_graph", input_graph),
        "outputGraph": _expression("output_graph", output_graph),
    }
    transform = {name: {"identifier": text} for name, text in graphs.items() if text}
    own = _expression("identifier", identifier)
    query = {**({"identifier": own} if own else {}), **({"transform": transform} if transform else {})}
    if not query:
        raise ValueError("pass an expression for at least one identifier; list() returns all relationships")
    return Call(
        "POST",
        "query/relationships/",
        _found,
        content=definition_body("query", query, InvalidQuery),
        bad_request_error=InvalidQuery,
    )


class Relationships(Group):
    """
    Relationships: an input graph, such as a surrogate, that can replace an output graph.

    All methods raise `TransportError`, `Unauthorized` or another `APIError` if the service cannot be reached or refuses
    the request.
    """

    async def list(self, *, nulls: bool = False) -> RelationshipList:
        """
        Return all relationships.

        Args:
            nulls: Include fields without a value in ``raw``.

        Returns:
            A list. Its ``problems`` has what is wrong with entries, and which entries could not be parsed.

        Source: ``GET relationships/``.
        """
        return await self._session.send(list_call(nulls=nulls))

    async def get(self, identifier: str) -> Relationship:
        """
        Return one relationship. Its ``problems`` has what is wrong with it.

        Raises:
            UnknownRelationship: There is no such relationship.

        Source: ``GET relationships/{identifier}/``.
        """
        return await self._session.send(get_call(identifier))

    async def push(self, relationship: Mapping[str, Any] | Relationship | RelationshipPayload) -> Relationship:
        """
        Store a relationship. It replaces one of the same name.

        Args:
            relationship: ``identifier`` and ``transform``, whose two graphs name experiments of the registry, in the
                documented form of the service or as a `RelationshipPayload`. Or a relationship from a registry.

        Returns:
            The relationship as stored, with the links and base packages that the service added.

        Raises:
            InvalidRelationship: The relationship is invalid, an experiment does not exist, or the synthesis would be
                invalid. ``problems`` has the reasons.
            ServerError: Among others, the only component of a graph does not exist: the service does not say so.

        Source: ``POST relationships/``, which tries the synthesis and takes seconds.
        """
        return await self._session.send(push_call(relationship))

    async def delete(self, identifier: str) -> None:
        """
        Delete a relationship. Experiments that were synthesized from it stay.

        Raises:
            UnknownRelationship: There is no such relationship.

        Source: ``DELETE relationships/{identifier}/``.
        """
        await self._session.send(delete_call(identifier))

    async def synthesize(
        self,
        identifier: str,
        name: str,
        parameterisation: Mapping[str, Any] | Parameterisation | None = None,
        *,
        generate: bool = True,
    ) -> Synthesis:
        """
        Create an experiment in which the input graph replaces the output graph, and push it.

        Args:
            identifier: The relationship.
            name: Name of the new experiment. It gets the tag ``latest``.
            parameterisation: ``presets`` and ``executionOptions``, which take precedence over generated ones, or the
                parameterisation of an experiment. None means empty.
            generate: Take the rest of the parameterisation from the experiment of the output graph, and generate
                options for its variables.

        Raises:
            UnknownRelationship: There is no such relationship.
            UnknownExperiment: An experiment of the relationship no longer exists.
            InvalidRelationship: The resulting experiment is invalid. ``problems`` has the reasons.

        Source: ``POST relationships/{identifier}/synthesize/{name}/``, which reads two packages and takes seconds.
        """
        return await self._session.send(synthesize_call(identifier, name, parameterisation, generate=generate))

    async def preview(
        self, identifier: str, *, dsl_version: DslVersion = "2.0.0_0.1.0", platform: str | None = None
    ) -> SynthesisPreview:
        """
        Return what `synthesize` would create. Nothing is stored.

        Args:
            identifier: The relationship.
            dsl_version: ``"1"`` for FlowIR.
            platform: The platform to show. None means the one that both experiments have. Current services ignore
                this option and always show that one.

        Raises:
            UnknownRelationship: There is no such relationship.
            InvalidRelationship: The resulting experiment would be invalid.

        Source: ``GET relationships/{identifier}/preview/synthesize/dsl/``.
        """
        return await self._session.send(preview_call(identifier, dsl_version, platform))

    async def query(
        self, *, identifier: str | None = None, input_graph: str | None = None, output_graph: str | None = None
    ) -> RelationshipList:
        """
        Return the relationships that match all of the given expressions. [] if none matches.

        Args:
            identifier: Regular expression, matched at the beginning of the relationship's identifier.
            input_graph: The same for the experiment of the input graph: ``"ani-surrogate:"`` finds all its tags.
            output_graph: The same for the experiment of the output graph.

        Raises:
            ValueError: No expression is given, or one is not a regular expression.

        Source: ``POST query/relationships/``.
        """
        return await self._session.send(query_call(identifier, input_graph, output_graph))


def _expression(what: str, text: str | None) -> str | None:
    if not isinstance(text, str | None):
        raise TypeError(f"{what} must be a regular expression, not {text!r}")
    try:
        re.compile(text or "")
    except re.error as error:
        raise ValueError(f"{what} is not a regular expression: {text!r}: {error}") from None
    return text


def _listed(response: Response) -> RelationshipList:
    body = response.json()
    problems = problems_of(body)
    entries = _readable(body["entries"], problems)
    return models.RelationshipList(entries, parse_problems(problems), body)


def _readable(found: Any, problems: list[Any]) -> list[Relationship]:
    """Return the entries that can be parsed, and add the problems of the others."""
    if not isinstance(found, list):
        raise ValueError("not a list")
    entries = []
    for entry in found:
        try:
            entries.append(models.Relationship.model_validate(entry))
        except pydantic.ValidationError as error:
            name = entry.get("identifier") if isinstance(entry, dict) else None
            problem = f"cannot be parsed: {error.error_count()} fields are not as documented"
            problems.append({"identifier": name or "", "problem": problem})
    return entries


def _found(response: Response) -> RelationshipList:
    body: dict[str, Any] = {"entries": response.json()}
    problems: list[Any] = []
    return models.RelationshipList(_readable(body["entries"], problems), parse_problems(problems), body)
