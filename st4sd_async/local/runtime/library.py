"""
The library of graphs and its routes.

Source:
    st4sd-runtime-service, ``apis/library.py`` and ``apis/kernel/library.py``: graphs that are not there are 400 to a
    GET and 404 to a DELETE.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Mapping
from typing import Any

from st4sd_async.local.http.messages import Abort, Answer, Request, Route, Slash, reply
from st4sd_async.local.runtime.dsl import Dsl, InvalidDsl, find, parse, semantic_problems
from st4sd_async.local.runtime.dsl_schema import NAMESPACE, without_defaults
from st4sd_async.local.runtime.schema import read

EXISTS = "Graph already exists. To update its definition delete the existing graph first"
_ENTRY = {"target": "<entry-instance>", "args": {}}


class Library:
    """The graphs of one server, by name, as their authors wrote them. Safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._graphs: dict[str, Dsl] = {}

    def routes(self) -> list[Route]:
        """The routes."""
        return [
            Route("/library", Slash.NEEDED, GET=self.index, POST=self.add),
            Route("/library/{}", Slash.NEEDED, GET=self.get, DELETE=self.delete),
        ]

    def index(self, request: Request) -> Answer:
        """All graphs."""
        with self._lock:
            graphs = list(self._graphs.values())
        return reply({"entries": [{"graph": _shown(graph, request)} for graph in graphs], "problems": []})

    def add(self, request: Request) -> Answer:
        """Check a graph and keep it."""
        try:
            written = prepared(request.json())
            graph = checked(written)
        except InvalidDsl as error:
            raise Abort(400, "Invalid graph", problems=error.problems) from error
        name = graph["entrypoint"]["entry-instance"]
        with self._lock:
            if name in self._graphs:
                raise Abort(409, EXISTS, graphName=name, problems=[{"message": f"{EXISTS}."}])
            self._graphs[name] = without_defaults(graph)
        return reply({"graph": graph, "problems": []})

    def get(self, request: Request, name: str) -> Answer:
        """One graph."""
        with self._lock:
            graph = self._graphs.get(name)
        if graph is None:
            raise Abort(400, "Graph does not exist")
        return reply({"entry": _shown(graph, request)})

    def delete(self, _request: Request, name: str) -> Answer:
        """Forget one graph."""
        with self._lock:
            if self._graphs.pop(name, None) is None:
                raise Abort(404, "Graph does not exist", graphName=name)
        return reply({"message": "Success"})


def _shown(graph: Dsl, request: Request) -> Dsl:
    """A graph as the parameters of a request want to see it."""
    if any(request.query.get(name) == "y" for name in ("exclude_unset", "exclude_defaults")):
        return graph
    return read(NAMESPACE, graph, nulls=request.query.get("exclude_none") != "y")


def prepared(value: Any) -> Any:
    """A graph with an entrypoint to its only workflow if it has none, and without arguments of the entrypoint."""
    if not isinstance(value, dict):
        raise InvalidDsl([{"message": f"Unexpected type of parameter to validate() {type(value)}"}])
    graph = copy.deepcopy(value)
    workflows = graph.get("workflows", [])
    if "entrypoint" not in graph and isinstance(workflows, list) and len(workflows) == 1:
        name = _name(workflows[0])
        if isinstance(name, str):
            graph["entrypoint"] = {"entry-instance": name, "execute": [dict(_ENTRY)]}
    entrypoint = graph.get("entrypoint")
    if isinstance(entrypoint, dict):
        calls = entrypoint.setdefault("execute", [dict(_ENTRY)])
        if isinstance(calls, list) and len(calls) == 1 and isinstance(calls[0], dict):
            calls[0]["args"] = {}
    return graph


def _name(template: Any) -> Any:
    signature = template.get("signature") if isinstance(template, dict) else None
    return signature.get("name") if isinstance(signature, dict) else None


def checked(value: Any) -> Dsl:
    """A complete graph whose first workflow is the one that it begins with; raises `InvalidDsl`."""
    graph = parse(value)
    problems = [] if graph["components"] else ["There must be at least 1 component template"]
    if len(graph["components"]) == 1 and not graph["workflows"]:
        _wrap(graph)
    if not graph["workflows"]:
        problems.append("There must be at least 1 workflow template")
    if graph["entrypoint"] is None or len(graph["entrypoint"]["execute"]) != 1:
        problems.append("Missing entrypoint workflow template")
    _refuse(problems)
    first = _entry(graph)
    _refuse(
        [
            *([] if first["execute"] else ["The entry workflow template must execute at least 1 steps"]),
            *([] if first["steps"] else ["The entry workflow template must have at least 1 steps"]),
        ]
    )
    # Nobody knows yet what a graph will be given.
    given = {one["name"]: "dummy-value" for one in first["signature"]["parameters"] if one["default"] is None}
    wrong = [*semantic_problems(graph, given)]
    if wrong:
        raise InvalidDsl(wrong)
    graph["workflows"] = [first, *(one for one in graph["workflows"] if one is not first)]
    return graph


def _entry(graph: Dsl) -> dict[str, Any]:
    name = graph["entrypoint"]["entry-instance"]
    found = find(graph, name)
    if found is None:
        raise InvalidDsl([{"message": f"The entrypoint points to an unknown template {name}"}])
    if found[0] != "workflows":
        raise InvalidDsl([{"message": f"The entrypoint must to an Workflow template but {name} is a Component"}])
    return found[2]


def _refuse(messages: list[str]) -> None:
    if messages:
        raise InvalidDsl([{"message": message} for message in messages])


def _wrap(graph: Dsl) -> None:
    """Put a workflow around the only component, which takes over its name."""
    component = graph["components"][0]
    signature: Mapping[str, Any] = component["signature"]
    name, inner = signature["name"], f"{signature['name']}-wrapped"
    arguments = {one["name"]: f"%({one['name']})s" for one in signature["parameters"]}
    call = {"target": f"<{inner}>", "args": arguments}
    workflow = {"signature": copy.deepcopy(signature), "steps": {inner: inner}, "execute": [call]}
    component["signature"] = {**signature, "name": inner}
    graph["workflows"] = [workflow]
    if graph["entrypoint"] is None:
        graph["entrypoint"] = parse({"entrypoint": {"entry-instance": name, "execute": [dict(_ENTRY)]}})["entrypoint"]
