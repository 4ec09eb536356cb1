"""Graphs to build experiments from: ``library/`` of the runtime service."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from .. import models
from .._errors import APIError, InvalidGraph, UnknownGraph, parse_problems
from .._http.call import Call, Response, nothing, segment
from .._http.retry import Replay
from .group import Group, definition_body, flags, problems_of

if TYPE_CHECKING:
    from ..models import LibraryGraphs


def graph_path(name: str) -> str:
    """Return the path of one graph."""
    return f"library/{segment(name, 'the name of a graph')}/"


def list_call(params: Mapping[str, str]) -> Call[LibraryGraphs]:
    """Return the request for all graphs."""
    return Call("GET", "library/", _listed, params=params)


def get_call(name: str, params: Mapping[str, str]) -> Call[dict[str, Any]]:
    """Return the request for one graph. The service responds with 400 for an unknown one."""
    return Call(
        "GET",
        graph_path(name),
        _under("entry"),
        params=params,
        not_found_error=UnknownGraph,
        bad_request_error=InvalidGraph,
        error_from_message=_unknown_graph,
    )


def add_call(graph: Mapping[str, Any]) -> Call[dict[str, Any]]:
    """Return the request that adds a graph. The service refuses it if the name is taken."""
    return Call(
        "POST",
        "library/",
        _under("graph"),
        replay=Replay.ONCE,
        content=definition_body("graph", graph, InvalidGraph),
        bad_request_error=InvalidGraph,
        effect="the graph was added to the library",
    )


def delete_call(name: str) -> Call[None]:
    """Return the request that deletes a graph."""
    return Call("DELETE", graph_path(name), nothing, replay=Replay.DELETE, not_found_error=UnknownGraph)


class Library(Group):
    """
    The library of graphs: workflows and components in DSL 2.0, to build experiments from.

    A graph has the name of its entry workflow. All methods raise `Disabled` if the deployment has no library, and
    `TransportError`, `Unauthorized` or another `APIError` if the service cannot be reached or refuses the request.
    """

    async def list(
        self, *, exclude_unset: bool = False, exclude_defaults: bool = False, exclude_none: bool = False
    ) -> LibraryGraphs:
        """
        Return all graphs.

        Args:
            exclude_unset: Leave out fields that the author did not set.
            exclude_defaults: Leave out fields with their default value.
            exclude_none: Leave out fields without a value.

        Returns:
            A list of dictionaries. Its ``problems`` names the graphs that could not be parsed.

        Source: ``GET library/``.
        """
        params = flags(exclude_unset=exclude_unset, exclude_defaults=exclude_defaults, exclude_none=exclude_none)
        return await self._session.send(list_call(params))

    async def get(
        self,
        name: str,
        *,
        exclude_unset: bool = False,
        exclude_defaults: bool = False,
        exclude_none: bool = False,
    ) -> dict[str, Any]:
        """
        Return one graph: ``entrypoint``, ``workflows`` and ``components``.

        Args:
            name: Name of the graph.
            exclude_unset, exclude_defaults, exclude_none: As in `list`.

        Raises:
            UnknownGraph: There is no such graph.
            InvalidGraph: The stored graph is no longer valid. Delete it.

        Source: ``GET library/{name}/``.
        """
        params = flags(exclude_unset=exclude_unset, exclude_defaults=exclude_defaults, exclude_none=exclude_none)
        return await self._session.send(get_call(name, params))

    async def add(self, graph: Mapping[str, Any]) -> dict[str, Any]:
        """
        Validate a graph and add it.

        Args:
            graph: ``workflows`` and ``components``, and an ``entrypoint`` unless there is only one workflow, or no
                workflow and one component. Arguments of the entrypoint are dropped.

        Returns:
            The graph as it was added, with defaults filled in.

        Raises:
            InvalidGraph: The graph is invalid. ``problems`` has the reasons.
            GraphExists: There already is a graph of this name.
            OutcomeUnknown: The connection or the service failed when the graph may have been added.

        Source: ``POST library/``.
        """
        return await self._session.send(add_call(graph))

    async def delete(self, name: str) -> None:
        """
        Delete a graph. Experiments that were built from it stay.

        Raises:
            UnknownGraph: There is no such graph. A library that is stored in a bucket does not report this.

        Source: ``DELETE library/{name}/``.
        """
        await self._session.send(delete_call(name))


def _unknown_graph(message: str) -> type[APIError] | None:
    """Recognise an unknown graph, of a library in memory or in a bucket, whose message is that of S3."""
    return UnknownGraph if message == "Graph does not exist" or "(NoSuchKey)" in message else None


def _under(key: str) -> Callable[[Response], dict[str, Any]]:
    def decode(response: Response) -> dict[str, Any]:
        return dict(response.json()[key])

    return decode


def _listed(response: Response) -> LibraryGraphs:
    body = response.json()
    graphs, problems = [], problems_of(body)
    # An invalid graph must not hide the others.
    for index, entry in enumerate(body["entries"]):
        graph = entry.get("graph") if isinstance(entry, Mapping) else None
        if isinstance(graph, Mapping):
            graphs.append(dict(graph))
        else:
            problems.append({"location": ["entries", index], "message": "cannot be parsed: it has no graph"})
    return models.LibraryGraphs(graphs, parse_problems(problems), body)
