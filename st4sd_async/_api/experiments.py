"""Parameterised virtual experiment packages: ``experiments/`` of the runtime service."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from .._errors import InvalidPackage, InvalidPayload, StartOutcomeUnknown, UnknownExperiment
from .._http.call import LARGEST_BODY, Call, Unexpected, json_body, model, nothing
from .._http.responses import Response
from .._http.retry import Replay
from ..models import Experiment, ExperimentList, StartSkeleton
from ..models.rest_uid import check_rest_uid, is_of_package, is_rest_uid
from ._base import package_of, registered, secrets_of
from .registry import Registry, identifier_path, listed, shown

PACKAGE_FIELDS = frozenset({"base", "metadata", "parameterisation"})
"""The fields of a package's definition."""


def list_call(params: Mapping[str, str] | None = None) -> Call[ExperimentList]:
    """All experiments, untagged ones included."""
    return Call("GET", "experiments/", listed, params=params)


def get_call(identifier: str, params: Mapping[str, str] | None = None) -> Call[Experiment]:
    """One experiment."""
    path = identifier_path(identifier)
    return Call("GET", path, registered(Experiment), params=params, missing=UnknownExperiment, wrong=InvalidPackage)


def push_call(package: Mapping[str, Any] | Experiment) -> Call[Experiment]:
    """A package to add to the registry; the same content again gives the same digest, so it may be repeated."""
    definition = package_of(package)
    return Call(
        "POST",
        "experiments/",
        model(Experiment, "result"),
        replay=Replay.REPEAT,
        content=_body(definition),
        is_long=True,
        wrong=InvalidPackage,
        secrets=secrets_of(definition),
    )


def delete_call(identifier: str) -> Call[None]:
    """An experiment to delete."""
    return Call("DELETE", identifier_path(identifier), nothing, replay=Replay.DELETE, missing=UnknownExperiment)


def skeleton_call(identifier: str) -> Call[StartSkeleton]:
    """What a start of an experiment may say."""
    path = f"{identifier_path(identifier)}/start/payload/"
    return Call("GET", path, model(StartSkeleton), missing=UnknownExperiment)


def start_call(identifier: str, content: bytes, secrets: tuple[str, ...]) -> Call[str]:
    """A start, which is never repeated if it may have arrived; gives the rest-uid."""
    return Call(
        "POST",
        f"{identifier_path(identifier)}/start",
        _rest_uid_of(identifier, content),
        replay=Replay.ONCE,
        content=content,
        missing=UnknownExperiment,
        wrong=InvalidPayload,
        secrets=secrets,
        what=f"an instance of {identifier!r} was started{_policy(content)}",
        doubt=StartOutcomeUnknown,
    )


def lambda_call(content: bytes, secrets: tuple[str, ...]) -> Call[str]:
    """A start of an experiment that is in no registry, which is never repeated if it may have arrived."""
    return Call(
        "POST",
        "experiments/lambda/start",
        _rest_uid,
        replay=Replay.ONCE,
        content=content,
        wrong=InvalidPayload,
        secrets=secrets,
        what="an instance of a lambda experiment was started",
        doubt=StartOutcomeUnknown,
    )


class Experiments(Registry):
    """
    The registry of parameterised virtual experiment packages.

    All methods raise `TransportError`, `Unauthorized` or another `APIError` when the service cannot
    be asked or refuses.
    """

    async def list(
        self, *, with_registry: bool = True, with_nulls: bool = False, with_beta: bool = False
    ) -> ExperimentList:
        """
        All experiments that were ever pushed, those without a tag included.

        Args:
            with_registry: Whether they come with what the registry found out: digest, tags, inputs and the rest.
            with_nulls: Whether ``raw`` has fields without a value too.
            with_beta: Whether ``raw`` has the fields that are still being worked on: graphs, connections and the rest.

        Returns:
            A list in the registry's order; its ``problems`` tells what could not be read.

        Source: ``GET experiments/``.
        """
        params = shown(registry=with_registry, nulls=with_nulls, beta=with_beta)
        return await self._session.send(list_call(params))

    async def get(
        self, identifier: str, *, with_registry: bool = True, with_nulls: bool = False, with_beta: bool = False
    ) -> Experiment:
        """
        One experiment.

        Args:
            identifier: ``name`` (which means ``name:latest``), ``name:tag`` or ``name@digest``.
            with_registry, with_nulls, with_beta: What it comes with, as from `list`.

        Returns:
            The experiment; its ``problems`` tells what is wrong with it.

        Raises:
            UnknownExperiment: There is none.
            InvalidPackage: There is one, in a form that the service does not understand any more.

        Source: ``GET experiments/{identifier}``.
        """
        params = shown(registry=with_registry, nulls=with_nulls, beta=with_beta)
        return await self._session.send(get_call(identifier, params))

    async def push(self, package: Mapping[str, Any] | Experiment) -> Experiment:
        """
        Add a parameterised virtual experiment package to the registry; moves its tags and ``latest``.

        Args:
            package: The definition, with ``base``, ``metadata`` and ``parameterisation``; or an experiment got
                from a registry.

        Raises:
            InvalidPackage: The definition or the package it points to will not do.

        Source: ``POST experiments/``, which clones the package and so takes seconds. Pushing the same content
        again gives the same digest and no second entry.
        """
        return await self._session.send(push_call(package))

    async def delete(self, identifier: str) -> None:
        """
        Delete an experiment from the registry; its instances and their files stay.

        Args:
            identifier: ``name``, ``name:tag`` or ``name@digest``.

        Raises:
            UnknownExperiment: There is none.

        Source: ``DELETE experiments/{identifier}``.
        """
        await self._session.send(delete_call(identifier))

    async def start_skeleton(self, identifier: str) -> StartSkeleton:
        """
        What a start of this experiment may say: a payload with magic values, and what they mean.

        Args:
            identifier: ``name``, ``name:tag`` or ``name@digest``.

        Raises:
            UnknownExperiment: There is none.

        Source: ``GET experiments/{identifier}/start/payload/``.
        """
        return await self._session.send(skeleton_call(identifier))


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
    if len(body) > LARGEST_BODY:
        problem = f"{len(body)} bytes are more than the {LARGEST_BODY} allowed"
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
        raise Unexpected("a text that is no rest-uid")
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
            raise Unexpected(f"an id that is not that of an instance of {package!r}")
        return rest_uid

    return decode
