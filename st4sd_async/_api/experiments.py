"""Parameterised virtual experiment packages: ``experiments/`` of the runtime service."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Literal

import pydantic

from .. import models
from .._errors import (
    APIError,
    DecodeError,
    InvalidDSL,
    InvalidPackage,
    InvalidPayload,
    InvalidQuery,
    NotFound,
    StartOutcomeUnknown,
    TransportError,
    UnknownExperiment,
    UnknownRelationship,
)
from .._http.call import MAX_REQUEST_BYTES, Call, Response, UnexpectedContent, json_body, model, nothing, segment
from .._http.retry import Replay
from .._util.did_you_mean import DID_YOU_MEAN, closest_match
from .._util.printable import is_writable
from ..models import Experiment, ExperimentList, StartSkeleton
from ..models.runs import check_rest_uid, is_of_package, is_rest_uid
from .group import Group, definition_body, mapping, package_of, problems_of, registered, secrets_of

if TYPE_CHECKING:
    from .._http.session import ClientSession
    from ..models import History, Inheritance

PACKAGE_FIELDS = frozenset({"base", "metadata", "parameterisation"})
"""The fields of a package's definition."""

LATEST = "latest"
"""Tag of an experiment that is requested by its name alone."""

Side = Literal["input", "output"]
"""The two graphs of a relationship."""


def identifier_path(identifier: str) -> str:
    """Return the path of an experiment: ``name``, ``name:tag`` or ``name@digest``."""
    path = f"experiments/{segment(identifier, 'the identifier of an experiment')}"
    # The service responds with 500, even to a start, whose outcome would then be unknown.
    if ":" in identifier and "@" in identifier:
        raise ValueError(f"the identifier of an experiment has a tag or a digest, not both: {identifier!r}")
    return path


def list_call(params: Mapping[str, str] | None = None) -> Call[ExperimentList]:
    """Return the request for all experiments, untagged ones included."""
    return Call("GET", "experiments/", listed, params=params)


def get_call(identifier: str, params: Mapping[str, str] | None = None) -> Call[Experiment]:
    """Return the request for one experiment."""
    path = identifier_path(identifier)
    return Call(
        "GET",
        path,
        registered(Experiment),
        params=params,
        not_found_error=UnknownExperiment,
        bad_request_error=InvalidPackage,
    )


def similar_identifier(identifier: str, experiments: Iterable[Experiment]) -> str | None:
    """
    Return the identifier that was probably meant by an unknown one; None if none is similar.

    Args:
        identifier: ``name``, ``name:tag``, or ``name@digest``, whose digest may be cut off.
        experiments: The registry.
    """
    if "@" in identifier:
        known = [one.identifier for one in experiments]
        begun = [one for one in known if one.startswith(identifier)]
        return begun[0] if len(begun) == 1 else closest_match(identifier, known)
    tagged = [(one.name, tag) for one in experiments if one.name for tag in one.tags]
    known = [name for name, tag in tagged if tag == LATEST] + [f"{name}:{tag}" for name, tag in tagged]
    return closest_match(identifier, known)


def add_suggestion(error: UnknownExperiment, identifier: str, experiments: Iterable[Experiment]) -> None:
    """Add the identifier that was probably meant to an error."""
    similar = similar_identifier(identifier, experiments)
    if similar is not None:
        error.advice = f"{DID_YOU_MEAN} {similar!r}? {type(error).advice}"


@asynccontextmanager
async def suggesting(session: ClientSession, identifier: str) -> AsyncGenerator[None]:
    """Add the identifier that was probably meant to an `UnknownExperiment` of the block; requests the list for it."""
    try:
        yield
    except UnknownExperiment as error:
        with suppress(APIError, TransportError, DecodeError):  # the suggestion is optional
            experiments = await session.send_once(list_call())
            add_suggestion(error, identifier, experiments)
        raise


def display_params(*, registry: bool = True, nulls: bool = False, beta: bool = False) -> dict[str, str] | None:
    """Return the query parameters for what to include; None means the defaults of the service."""
    params = {
        **({} if registry else {"hideMetadataRegistry": "y"}),
        **({"hideNone": "n"} if nulls else {}),
        **({"hideBeta": "n"} if beta else {}),
    }
    return params or None


def push_call(package: Mapping[str, Any] | Experiment) -> Call[Experiment]:
    """Return the request that pushes a package. It may be repeated: the same content has the same digest."""
    definition = package_of(package)
    return Call(
        "POST",
        "experiments/",
        model(Experiment, "result"),
        replay=Replay.REPEAT,
        content=_body(definition),
        is_slow=True,
        bad_request_error=InvalidPackage,
        secrets=secrets_of(definition),
    )


def tag_call(identifier: str, tags: Iterable[str]) -> Call[None]:
    """Return the request that replaces the tags of an experiment."""
    if isinstance(tags, str) or not isinstance(tags, Iterable):
        raise TypeError(f"tags are a list of texts, not {'the text ' if isinstance(tags, str) else ''}{tags!r}")
    names = [_tag(tag) for tag in tags]
    if not names:
        raise ValueError("pass at least one tag: the service cannot remove all of them")
    return Call(
        "PUT",
        f"{identifier_path(identifier)}/tag",
        nothing,
        replay=Replay.REPEAT,
        params={"newTags": ",".join(names)},
        not_found_error=UnknownExperiment,
    )


def _tag(tag: str) -> str:
    if not is_tag(tag):
        raise ValueError(f"a tag must be a string without commas, not {tag!r}")
    return tag


def is_tag(value: Any) -> bool:
    """Return whether the service accepts a value as a tag."""
    return isinstance(value, str) and bool(value.strip()) and "," not in value and is_writable(value)


def delete_call(identifier: str) -> Call[None]:
    """Return the request that deletes an experiment."""
    return Call("DELETE", identifier_path(identifier), nothing, replay=Replay.DELETE, not_found_error=UnknownExperiment)


def skeleton_call(identifier: str) -> Call[StartSkeleton]:
    """Return the request for the start skeleton of an experiment."""
    path = f"{identifier_path(identifier)}/start/payload/"
    return Call("GET", path, model(StartSkeleton), not_found_error=UnknownExperiment)


def start_call(identifier: str, content: bytes, secrets: tuple[str, ...]) -> Call[str]:
    """Return the request that starts an instance, for its rest-uid. It is never repeated if it may have arrived."""
    return Call(
        "POST",
        f"{identifier_path(identifier)}/start",
        _rest_uid_of(identifier, content),
        replay=Replay.ONCE,
        content=content,
        not_found_error=UnknownExperiment,
        bad_request_error=InvalidPayload,
        secrets=secrets,
        effect=f"an instance of {identifier!r} was started{_policy(content)}",
        outcome_unknown_error=StartOutcomeUnknown,
    )


def lambda_call(content: bytes, secrets: tuple[str, ...]) -> Call[str]:
    """Return the request that starts a lambda experiment. It is never repeated if it may have arrived."""
    return Call(
        "POST",
        "experiments/lambda/start",
        _rest_uid,
        replay=Replay.ONCE,
        content=content,
        bad_request_error=InvalidPayload,
        secrets=secrets,
        effect="an instance of a lambda experiment was started",
        outcome_unknown_error=StartOutcomeUnknown,
    )


def history_call(name: str) -> Call[History]:
    """Return the request for the versions of an experiment. For an unknown name the service returns empty lists."""
    if isinstance(name, str) and (":" in name or "@" in name):
        raise ValueError(f"a history needs a name without tag and digest, not {name!r}")
    return Call("GET", f"{identifier_path(name)}/history", model(models.History), not_found_error=UnknownExperiment)


def query_call(
    *,
    package: Mapping[str, Any] | None,
    relationship: str | None,
    side: Side,
    match_version: bool,
    alone: bool,
) -> Call[ExperimentList]:
    """Return the request for the experiments that contain a base package, or for all if none is given."""
    if package is not None and relationship is not None:
        raise ValueError("pass package or relationship, not both")
    if side not in ("input", "output"):
        raise ValueError(f"side is 'input' or 'output', not {side!r}")
    query: dict[str, Any] = {}
    if package is not None:
        query["package"] = {"definition": mapping("base package", package)}
    if relationship is not None:
        if not isinstance(relationship, str) or not relationship:
            raise ValueError(f"relationship must be the identifier of a relationship, not {relationship!r}")
        match = {"matchInputGraph": side == "input", "matchOutputGraph": side == "output"}
        query["relationship"] = {"identifier": relationship, "transform": match}
    if query:
        query["common"] = {"matchPackageVersion": match_version, "mustHaveOnePackage": alone}
    content = definition_body("query", query, InvalidQuery)
    return Call(
        "POST",
        "query/experiments/",
        listed,
        content=content,
        bad_request_error=InvalidQuery,
        error_from_message=_unknown_relationship,
    )


def printed_call(identifier: str, *, pretty: bool) -> Call[str]:
    """Return the request for an experiment as the text of a Python dictionary."""
    params = {"outputFormat": "python-pretty" if pretty else "python"}
    return Call("GET", identifier_path(identifier), _entry_text, params=params, not_found_error=UnknownExperiment)


def dsl_call(identifier: str) -> Call[dict[str, Any]]:
    """Return the request for the definition of an experiment in DSL 2.0."""
    path = f"{identifier_path(identifier)}/dsl"
    return Call("GET", path, _dsl, is_slow=True, not_found_error=UnknownExperiment, bad_request_error=InvalidDSL)


def dsl_text_call(identifier: str) -> Call[str]:
    """Return the request for the definition in DSL 2.0 as YAML."""
    path = f"{identifier_path(identifier)}/dsl"
    params = {"outputFormat": "yaml"}
    return Call(
        "GET",
        path,
        _dsl_text,
        params=params,
        is_slow=True,
        not_found_error=UnknownExperiment,
        bad_request_error=InvalidDSL,
    )


def inheritance_call(identifier: str) -> Call[Inheritance]:
    """Return the request for the origins of the values of an experiment's variables."""
    path = f"{identifier_path(identifier)}/package-inheritance"
    return Call("GET", path, model(models.Inheritance, "result"), is_slow=True, not_found_error=UnknownExperiment)


class Experiments(Group):
    """
    The registry of parameterised virtual experiment packages.

    All methods raise `TransportError`, `Unauthorized` or another `APIError` if the service cannot be reached or refuses
    the request.
    """

    async def list(
        self, *, with_registry: bool = True, with_nulls: bool = False, with_beta: bool = False
    ) -> ExperimentList:
        """
        Return all experiments, untagged ones included.

        Args:
            with_registry: Include the metadata that the registry derives: inputs, digests, creation times.
            with_nulls: Include fields without a value in ``raw``.
            with_beta: Include fields in ``raw`` that are still in development: graphs, connections and others.

        Returns:
            A list in the order of the registry. Its ``problems`` has what could not be parsed.

        Source: ``GET experiments/``.
        """
        params = display_params(registry=with_registry, nulls=with_nulls, beta=with_beta)
        return await self._session.send(list_call(params))

    async def get(
        self, identifier: str, *, with_registry: bool = True, with_nulls: bool = False, with_beta: bool = False
    ) -> Experiment:
        """
        Return one experiment.

        Args:
            identifier: ``name`` (which means ``name:latest``), ``name:tag`` or ``name@digest``.
            with_registry, with_nulls, with_beta: What to include, as in `list`.

        Returns:
            The experiment. Its ``problems`` has what is wrong with it.

        Raises:
            UnknownExperiment: There is no such experiment. The list is requested to suggest a similar name.
            InvalidPackage: The experiment is stored in a form that the service no longer understands.

        Source: ``GET experiments/{identifier}``.
        """
        params = display_params(registry=with_registry, nulls=with_nulls, beta=with_beta)
        async with suggesting(self._session, identifier):
            return await self._session.send(get_call(identifier, params))

    async def push(self, package: Mapping[str, Any] | Experiment) -> Experiment:
        """
        Add a parameterised virtual experiment package to the registry. Moves its tags and ``latest`` to it.

        Args:
            package: The definition, with ``base``, ``metadata`` and ``parameterisation``, or an experiment from a
                registry.

        Raises:
            InvalidPackage: The definition, or the package it points to, is invalid.

        Source: ``POST experiments/``, which clones the package and takes seconds. Pushing the same content again
        returns the same digest, without a second entry.
        """
        return await self._session.send(push_call(package))

    async def tag(self, identifier: str, tags: Iterable[str]) -> None:
        """
        Replace the tags of an experiment. Other versions of it lose these tags.

        Args:
            identifier: ``name``, ``name:tag`` or ``name@digest``.
            tags: At least one tag. Include ``latest`` if the experiment has it now.

        Raises:
            UnknownExperiment: There is no such experiment.
            CannotUntagLatest: The experiment has the tag ``latest``, and ``tags`` lacks it.

        Source: ``PUT experiments/{identifier}/tag``.
        """
        await self._session.send(tag_call(identifier, tags))

    async def delete(self, identifier: str) -> None:
        """
        Delete an experiment from the registry. Its instances and their files stay.

        Args:
            identifier: ``name``, ``name:tag`` or ``name@digest``.

        Raises:
            UnknownExperiment: There is no such experiment.

        Source: ``DELETE experiments/{identifier}``.
        """
        await self._session.send(delete_call(identifier))

    async def start_skeleton(self, identifier: str) -> StartSkeleton:
        """
        Return what a start of an experiment accepts: a payload with placeholders, and what they mean.

        Args:
            identifier: ``name``, ``name:tag`` or ``name@digest``.

        Raises:
            UnknownExperiment: There is no such experiment.

        Source: ``GET experiments/{identifier}/start/payload/``.
        """
        return await self._session.send(skeleton_call(identifier))

    async def history(self, name: str) -> History:
        """
        Return the versions of an experiment: its tags, and the digests without a tag.

        Args:
            name: The name, without tag or digest. A name that does not exist has no versions.

        Source: ``GET experiments/{name}/history``.
        """
        return await self._session.send(history_call(name))

    async def query(
        self,
        *,
        package: Mapping[str, Any] | None = None,
        relationship: str | None = None,
        side: Side = "input",
        match_version: bool = False,
        alone: bool = True,
    ) -> ExperimentList:
        """
        Return the experiments that contain a base package, or all experiments if none is given.

        Args:
            package: The base package, such as ``{"source": {"git": {"location": {...}}}, "config": {...}}``. Fields
                that it does not have match anything.
            relationship: A relationship whose base package to use, instead of ``package``.
            side: Which graph of the relationship.
            match_version: Require the same commit too.
            alone: Require that it is the only base package.

        Returns:
            A list in the order of the registry, as from `list`.

        Raises:
            UnknownRelationship: There is no such relationship.
            InvalidQuery: The package has fields that base packages do not have.

        Source: ``POST query/experiments/``.
        """
        return await self._session.send(
            query_call(package=package, relationship=relationship, side=side, match_version=match_version, alone=alone)
        )

    async def printed(self, identifier: str, *, pretty: bool = True) -> str:
        """
        Return an experiment as the text of a Python dictionary, to paste into a program.

        Args:
            identifier: ``name``, ``name:tag`` or ``name@digest``.
            pretty: Add line breaks.

        Raises:
            UnknownExperiment: There is no such experiment.

        Source: ``GET experiments/{identifier}?outputFormat=python``.
        """
        return await self._session.send(printed_call(identifier, pretty=pretty))

    async def dsl(self, identifier: str) -> dict[str, Any]:
        """
        Return the definition of an experiment in DSL 2.0: ``entrypoint``, ``workflows`` and ``components``.

        The service makes it from FlowIR, unless the experiment is written in DSL. The result cannot always be pushed
        or validated, for example if a component refers to a program in ``bin/``.

        Args:
            identifier: ``name``, ``name:tag`` or ``name@digest``.

        Raises:
            UnknownExperiment: There is no such experiment.
            InvalidDSL: The stored package is invalid.

        Source: ``GET experiments/{identifier}/dsl``, which clones the package and takes seconds.
        """
        return await self._session.send(dsl_call(identifier))

    async def dsl_text(self, identifier: str) -> str:
        """
        Return the same as `dsl`, as YAML text, with the same errors.

        Source: ``GET experiments/{identifier}/dsl?outputFormat=yaml``.
        """
        return await self._session.send(dsl_text_call(identifier))

    async def inheritance(self, identifier: str) -> Inheritance:
        """
        Return where the variables of an experiment with several base packages get their values.

        Args:
            identifier: ``name``, ``name:tag`` or ``name@digest``.

        Raises:
            UnknownExperiment: There is no such experiment.
            BadRequest: The experiment has only one base package.
            ServerError: Among others, the value that is overridden is a number, which the service cannot explain.

        Source: ``GET experiments/{identifier}/package-inheritance``.
        """
        return await self._session.send(inheritance_call(identifier))


def _body(definition: Mapping[str, Any]) -> bytes:
    problem, body = "", b""
    unknown = sorted(str(name) for name in set(definition) - PACKAGE_FIELDS)
    if unknown:
        problem = f"it has fields {unknown}, but only {sorted(PACKAGE_FIELDS)} exist"
    else:
        try:
            body = json_body(dict(definition))
        except ValueError as error:
            problem = str(error)
    if len(body) > MAX_REQUEST_BYTES:
        problem = f"{len(body)} bytes are more than the {MAX_REQUEST_BYTES} allowed"
    if problem:
        raise InvalidPackage(f"the package was not sent: {problem}")
    return body


def listed(response: Response) -> ExperimentList:
    """Return the experiments in a response with ``entries`` and ``problems``."""
    body = response.json()
    entries, problems = [], problems_of(body)
    for entry in body["entries"]:
        # The service returns invalid entries unchanged. One of them must not hide the others.
        try:
            entries.append(Experiment.model_validate(entry))
        except pydantic.ValidationError as error:
            problems.append(
                {"entry": entry, "problem": f"cannot be parsed: {error.error_count()} fields are not as documented"}
            )
    return ExperimentList(entries, problems, body)


def _policy(content: bytes) -> str:
    """Return a note for a start with a runtime policy: the service fails if it does not know the policy."""
    policy = _runtime_policy(content)
    name = policy.get("name") if isinstance(policy, dict) else None
    return (
        f" (with the runtimePolicy {name[:60]!r}: the service responds with 500 if it does not know the policy)"
        if name
        else ""
    )


def _runtime_policy(content: bytes) -> Any:
    return json.loads(content).get("runtimePolicy") if b'"runtimePolicy"' in content else None


def _rest_uid(response: Response) -> str:
    rest_uid = response.json()
    if isinstance(rest_uid, str) and not is_rest_uid(rest_uid):
        raise UnexpectedContent("a text that is not a rest-uid")
    return check_rest_uid(rest_uid)


def _rest_uid_of(identifier: str, content: bytes) -> Callable[[Response], str]:
    """Return a decoder for the response to a start. It rejects the id of an instance of another package."""
    # A runtime policy may choose another package.
    if _runtime_policy(content):
        return _rest_uid
    package = identifier.partition("@")[0].partition(":")[0]

    def decode(response: Response) -> str:
        rest_uid = _rest_uid(response)
        if not is_of_package(rest_uid, package):
            raise UnexpectedContent(f"an id that does not belong to an instance of {package!r}")
        return rest_uid

    return decode


def _unknown_relationship(message: str) -> type[NotFound] | None:
    return UnknownRelationship if message.startswith("Unknown relationship") else None


def _entry_text(response: Response) -> str:
    return _text(response.json()["entry"])


def _dsl_text(response: Response) -> str:
    return _text(_dsl_in(response))


def _dsl_in(response: Response) -> Any:
    """Return the DSL in a successful response; raise `InvalidDSL` if the stored definition is invalid."""
    body = response.json()
    if body.get("dsl") is None and body.get("problems"):
        raise InvalidDSL("the definition in the registry is invalid", detail=body)
    return body["dsl"]


def _dsl(response: Response) -> dict[str, Any]:
    dsl = _dsl_in(response)
    if not isinstance(dsl, dict):
        raise ValueError("not a DSL")
    return dsl


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("not a string")
    return value
