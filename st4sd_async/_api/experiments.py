"""Parameterised virtual experiment packages: ``experiments/`` of the runtime service."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from .._errors import InvalidPackage, InvalidPayload, StartOutcomeUnknown, UnknownExperiment
from .._http.call import MAX_REQUEST_BYTES, Call, Response, UnexpectedContent, json_body, model, nothing
from .._http.retry import Replay
from ..models import Experiment, ExperimentList, StartSkeleton
from ..models.rest_uid import check_rest_uid, is_of_package, is_rest_uid
from ._base import Group, package_of, registered, secrets_of
from .registry import (
    Side,
    display_params,
    dsl_call,
    dsl_text_call,
    history_call,
    identifier_path,
    inheritance_call,
    listed,
    printed_call,
    query_call,
    tag_call,
)

if TYPE_CHECKING:
    from ..models import History, Inheritance

PACKAGE_FIELDS = frozenset({"base", "metadata", "parameterisation"})
"""The fields of a package's definition."""


def list_call(params: Mapping[str, str] | None = None) -> Call[ExperimentList]:
    """All experiments, untagged ones included."""
    return Call("GET", "experiments/", listed, params=params)


def get_call(identifier: str, params: Mapping[str, str] | None = None) -> Call[Experiment]:
    """One experiment."""
    path = identifier_path(identifier)
    return Call(
        "GET",
        path,
        registered(Experiment),
        params=params,
        not_found_error=UnknownExperiment,
        bad_request_error=InvalidPackage,
    )


def push_call(package: Mapping[str, Any] | Experiment) -> Call[Experiment]:
    """A package to add to the registry; the same content again gives the same digest, so it may be repeated."""
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


def delete_call(identifier: str) -> Call[None]:
    """An experiment to delete."""
    return Call("DELETE", identifier_path(identifier), nothing, replay=Replay.DELETE, not_found_error=UnknownExperiment)


def skeleton_call(identifier: str) -> Call[StartSkeleton]:
    """What a start of an experiment may say."""
    path = f"{identifier_path(identifier)}/start/payload/"
    return Call("GET", path, model(StartSkeleton), not_found_error=UnknownExperiment)


def start_call(identifier: str, content: bytes, secrets: tuple[str, ...]) -> Call[str]:
    """A start, which is never repeated if it may have arrived; gives the rest-uid."""
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
    """A start of an experiment that is in no registry, which is never repeated if it may have arrived."""
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
            with_registry: Include what the registry found out itself: inputs, digests, creation times.
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
            UnknownExperiment: There is no such experiment.
            InvalidPackage: The experiment is stored in a form that the service no longer understands.

        Source: ``GET experiments/{identifier}``.
        """
        params = display_params(registry=with_registry, nulls=with_nulls, beta=with_beta)
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


def _policy(content: bytes) -> str:
    """What to know of a start that a policy may rewrite, since the service breaks down over one it does not know."""
    policy = _runtime_policy(content)
    name = policy.get("name") if isinstance(policy, dict) else None
    return (
        f" (under the runtimePolicy {name[:60]!r}: the service answers 500 if it has none of that name)" if name else ""
    )


def _runtime_policy(content: bytes) -> Any:
    return json.loads(content).get("runtimePolicy") if b'"runtimePolicy"' in content else None


def _rest_uid(response: Response) -> str:
    rest_uid = response.json()
    if isinstance(rest_uid, str) and not is_rest_uid(rest_uid):
        raise UnexpectedContent("a text that is no rest-uid")
    return check_rest_uid(rest_uid)


def _rest_uid_of(identifier: str, content: bytes) -> Callable[[Response], str]:
    """Return a decoder for the answer to a start, which refuses the id of another package."""
    # Source: a runtime policy may choose another package [48].
    if _runtime_policy(content):
        return _rest_uid
    package = identifier.partition("@")[0].partition(":")[0]

    def decode(response: Response) -> str:
        rest_uid = _rest_uid(response)
        if not is_of_package(rest_uid, package):
            raise UnexpectedContent(f"an id that is not that of an instance of {package!r}")
        return rest_uid

    return decode
