"""Graphs to build experiments from: ``library/`` of the runtime service."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from .. import models
from .._errors import APIError, InvalidGraph, UnknownGraph, parse_problems
from .._http.call import Call, nothing, segment
from .._http.responses import Response
from .._http.retry import Replay
from ._base import Group, complaints, definition_body, flags

if TYPE_CHECKING:
    from ..models import LibraryGraphs


def graph_path(name: str) -> str:
    """The path of one graph."""
    return f"library/{segment(name, 'the name of a graph')}/"


def list_call(params: Mapping[str, str]) -> Call[LibraryGraphs]:
    """All graphs."""
    return Call("GET", "library/", _listed, params=params)


def get_call(name: str, params: Mapping[str, str]) -> Call[dict[str, Any]]:
    """One graph; the service answers 400 for one that is not there."""
    return Call(
        "GET", graph_path(name), _under("entry"), params=params, missing=UnknownGraph, wrong=InvalidGraph, telling=_told
    )


def add_call(graph: Mapping[str, Any]) -> Call[dict[str, Any]]:
    """A graph to add, which is refused if there is one of its name."""
    return Call(
        "POST",
        "library/",
        _under("graph"),
        replay=Replay.ONCE,
        content=definition_body("graph", graph, InvalidGraph),
        wrong=InvalidGraph,
        what="the graph was added to the library",
    )


def delete_call(name: str) -> Call[None]:
    """A graph to delete."""
    return Call("DELETE", graph_path(name), nothing, replay=Replay.DELETE, missing=UnknownGraph)


class Library(Group):
    """
    The library of graphs: workflows and components in DSL 2.0, to build experiments from.

    A graph is called like the workflow that it begins with. All methods raise `Disabled` where the deployment
    has no library, and `TransportError`, `Unauthorized` or another `APIError` when the service cannot be asked
    or refuses.
    """

    async def list(
        self, *, exclude_unset: bool = False, exclude_defaults: bool = False, exclude_none: bool = False
    ) -> LibraryGraphs:
        """
        All graphs.

        Args:
            exclude_unset: Leave out what their authors did not write.
            exclude_defaults: Leave out what is as it is by default.
            exclude_none: Leave out what has no value.

        Returns:
            A list of dictionaries; its ``problems`` tells which graphs could not be read.

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
        One graph: ``entrypoint``, ``workflows`` and ``components``.

        Args:
            name: Its name.
            exclude_unset, exclude_defaults, exclude_none: As for `list`.

        Raises:
            UnknownGraph: There is none.
            InvalidGraph: It is there, but does not make sense any more: delete it.

        Source: ``GET library/{name}/``.
        """
        params = flags(exclude_unset=exclude_unset, exclude_defaults=exclude_defaults, exclude_none=exclude_none)
        return await self._session.send(get_call(name, params))

    async def add(self, graph: Mapping[str, Any]) -> dict[str, Any]:
        """
        Check a graph and add it.

        Args:
            graph: ``workflows`` and ``components``, and an ``entrypoint`` unless there is just one workflow, or no
                workflow and one component. Arguments of the entrypoint are dropped.

        Returns:
            The graph as it was added, with all that was left out.

        Raises:
            InvalidGraph: It does not make sense; ``problems`` tells why.
            GraphExists: There is one of its name.
            OutcomeUnknown: The connection or the service broke when it may have been added.

        Source: ``POST library/``.
        """
        return await self._session.send(add_call(graph))

    async def delete(self, name: str) -> None:
        """
        Delete a graph; what was built from it stays.

        Raises:
            UnknownGraph: There is none. A library that is kept in a bucket does not say so: there it is no error.

        Source: ``DELETE library/{name}/``.
        """
        await self._session.send(delete_call(name))


def _told(message: str) -> type[APIError] | None:
    """In memory; and in a bucket, where the words are those of S3."""
    return UnknownGraph if message == "Graph does not exist" or "(NoSuchKey)" in message else None


def _under(key: str) -> Callable[[Response], dict[str, Any]]:
    def decode(response: Response) -> dict[str, Any]:
        return dict(response.json()[key])

    return decode


def _listed(response: Response) -> LibraryGraphs:
    body = response.json()
    graphs, problems = [], complaints(body)
    # What cannot be read must not hide the others.
    for index, entry in enumerate(body["entries"]):
        graph = entry.get("graph") if isinstance(entry, Mapping) else None
        if isinstance(graph, Mapping):
            graphs.append(dict(graph))
        else:
            problems.append({"location": ["entries", index], "message": "cannot be read: it has no graph"})
    return models.LibraryGraphs(graphs, parse_problems(problems), body)
