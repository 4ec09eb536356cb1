"""
The library of graphs and its routes.

Source:
    st4sd-runtime-service, ``apis/library.py`` and ``apis/kernel/library.py``. An unknown graph is 400 for GET and 404
    for DELETE.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Mapping
from typing import Any

from st4sd_async.local.http.messages import HTTPError, Request, Response, Route, TrailingSlash, json_response
from st4sd_async.local.runtime.dsl import (
    Dsl,
    InvalidDsl,
    Namespace,
    find_problems,
    find_template,
    parse,
    without_defaults,
)
from st4sd_async.local.runtime.models import validate

EXISTS = "Graph already exists. To update its definition delete the existing graph first"
_ENTRY = {"target": "<entry-instance>", "args": {}}


class Library:
    """The graphs of one server by name, without default values. Safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._graphs: dict[str, Dsl] = {}

    def routes(self) -> list[Route]:
        """Return the routes."""
        return [
            Route("/library", TrailingSlash.REQUIRED, GET=self.index, POST=self.add),
            Route("/library/{}", TrailingSlash.REQUIRED, GET=self.get, DELETE=self.delete),
        ]

    def index(self, request: Request) -> Response:
        """List all graphs."""
        with self._lock:
            graphs = list(self._graphs.values())
        return json_response({"entries": [{"graph": _shown(graph, request)} for graph in graphs], "problems": []})

    def add(self, request: Request) -> Response:
        """Check a graph and store it."""
        try:
            graph = check_graph(with_entrypoint(request.json()))
        except InvalidDsl as error:
            raise HTTPError(400, "Invalid graph", problems=error.problems) from error
        name = graph["entrypoint"]["entry-instance"]
        with self._lock:
            if name in self._graphs:
                raise HTTPError(409, EXISTS, graphName=name, problems=[{"message": f"{EXISTS}."}])
            self._graphs[name] = without_defaults(graph)
        return json_response({"graph": graph, "problems": []})

    def get(self, request: Request, name: str) -> Response:
        """Show one graph."""
        with self._lock:
            graph = self._graphs.get(name)
        if graph is None:
            raise HTTPError(400, "Graph does not exist")
        return json_response({"entry": _shown(graph, request)})

    def delete(self, _request: Request, name: str) -> Response:
        """Delete one graph."""
        with self._lock:
            if self._graphs.pop(name, None) is None:
                raise HTTPError(404, "Graph does not exist", graphName=name)
        return json_response({"message": "Success"})


def _shown(graph: Dsl, request: Request) -> Dsl:
    """Return a graph in the form that the query parameters ask for."""
    if any(request.query.get(name) == "y" for name in ("exclude_unset", "exclude_defaults")):
        return graph
    return validate(Namespace, graph, nulls=request.query.get("exclude_none") != "y")


def with_entrypoint(value: Any) -> Any:
    """Return a graph whose entrypoint has no arguments; if it is missing, it becomes the only workflow."""
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


def check_graph(value: Any) -> Dsl:
    """Return a complete graph with its entry workflow first; raise `InvalidDsl` if it is invalid."""
    graph = parse(value)
    problems = [] if graph["components"] else ["There must be at least 1 component template"]
    if len(graph["components"]) == 1 and not graph["workflows"]:
        _wrap_component(graph)
    if not graph["workflows"]:
        problems.append("There must be at least 1 workflow template")
    if graph["entrypoint"] is None or len(graph["entrypoint"]["execute"]) != 1:
        problems.append("Missing entrypoint workflow template")
    _reject(problems)
    first = _entry_workflow(graph)
    _reject(
        [
            *([] if first["execute"] else ["The entry workflow template must execute at least 1 steps"]),
            *([] if first["steps"] else ["The entry workflow template must have at least 1 steps"]),
        ]
    )
    # The arguments of a graph are not known before it is used.
    parameters = first["signature"]["parameters"]
    arguments = {parameter["name"]: "dummy-value" for parameter in parameters if parameter["default"] is None}
    invalid = [*find_problems(graph, arguments)]
    if invalid:
        raise InvalidDsl(invalid)
    graph["workflows"] = [first, *(workflow for workflow in graph["workflows"] if workflow is not first)]
    return graph


def _entry_workflow(graph: Dsl) -> dict[str, Any]:
    name = graph["entrypoint"]["entry-instance"]
    found = find_template(graph, name)
    if found is None:
        raise InvalidDsl([{"message": f"The entrypoint points to an unknown template {name}"}])
    if found[0] != "workflows":
        raise InvalidDsl([{"message": f"The entrypoint must to an Workflow template but {name} is a Component"}])
    return found[2]


def _reject(messages: list[str]) -> None:
    if messages:
        raise InvalidDsl([{"message": message} for message in messages])


def _wrap_component(graph: Dsl) -> None:
    """Wrap the only component in a workflow of the same name."""
    component = graph["components"][0]
    signature: Mapping[str, Any] = component["signature"]
    name, inner = signature["name"], f"{signature['name']}-wrapped"
    arguments = {parameter["name"]: f"%({parameter['name']})s" for parameter in signature["parameters"]}
    call = {"target": f"<{inner}>", "args": arguments}
    workflow = {"signature": copy.deepcopy(signature), "steps": {inner: inner}, "execute": [call]}
    component["signature"] = {**signature, "name": inner}
    graph["workflows"] = [workflow]
    if graph["entrypoint"] is None:
        graph["entrypoint"] = parse({"entrypoint": {"entry-instance": name, "execute": [dict(_ENTRY)]}})["entrypoint"]
