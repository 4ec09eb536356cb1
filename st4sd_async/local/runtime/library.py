"""
The library of graphs and its routes.

Graphs stay in memory, but responses are those of a library in a bucket. GET of an unknown graph is 400, with the
message of the bucket. DELETE of an unknown graph is 200. Graphs are listed in the order of their names.

Source:
    st4sd-runtime-service, ``apis/library.py`` and ``apis/kernel/library.py``.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Mapping, MutableMapping
from typing import Any

from st4sd_async.local.engine.core_checks import find_graph_problems
from st4sd_async.local.http.messages import HTTPError, Request, Response, Route, TrailingSlash, json_response
from st4sd_async.local.runtime.dsl import (
    Dsl,
    InvalidDsl,
    Problem,
    Signature,
    find_problems,
    find_template,
    parse,
    shown,
)
from st4sd_async.local.runtime.models import validate
from st4sd_async.local.state import State

EXISTS = "Graph already exists. To update its definition delete the existing graph first"
_NOT_FOUND = (
    "Unable to get Graph under library/{name}/dsl.yaml due to Failed to download "
    "s3://https://s3.example@library:library/{name}/dsl.yaml due to An error occurred (NoSuchKey) when calling the "
    "GetObject operation: The specified key does not exist."
)
"""The location that graphs name, although they are in memory."""
_UNSET = "Whether to exclude fields that are unset or None from the output."
_EXCLUDED = {
    "exclude_unset": _UNSET,
    "exclude_defaults": _UNSET,
    "exclude_none": "Whether to exclude fields that have a value of `None` from the output.",
}
"""Query parameter -> its description, which the service returns if the value is invalid."""
_ENTRY = {"target": "<entry-instance>", "args": {}}


class Library:
    """The graphs of one server by name, without unset fields. Safe to use from any thread."""

    def __init__(self, state: State) -> None:
        self._lock = threading.Lock()
        self._graphs: MutableMapping[str, Dsl] = state.table("library")

    def routes(self) -> list[Route]:
        """Return the routes."""
        return [
            Route("/library", TrailingSlash.REQUIRED, GET=self.index, POST=self.add),
            Route("/library/{}", TrailingSlash.REQUIRED, GET=self.get, DELETE=self.delete),
        ]

    def index(self, request: Request) -> Response:
        """List all graphs."""
        hidden = _hidden(request)
        with self._lock:
            graphs = [self._graphs[name] for name in sorted(self._graphs)]
        return json_response({"entries": [{"graph": shown(graph, **hidden)} for graph in graphs], "problems": []})

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
            self._graphs[name] = graph
        return json_response({"graph": parse(graph), "problems": []})

    def get(self, request: Request, name: str) -> Response:
        """Show one graph."""
        hidden = _hidden(request)
        with self._lock:
            graph = self._graphs.get(name)
        if graph is None:
            raise HTTPError(400, "Invalid internal experiment payload", problem=_NOT_FOUND.format(name=name))
        return json_response({"entry": shown(graph, **hidden)})

    def delete(self, _request: Request, name: str) -> Response:
        """Delete one graph. An unknown graph is no error, because a bucket does not report it."""
        with self._lock:
            self._graphs.pop(name, None)
        return json_response({"message": "Success"})


def _hidden(request: Request) -> dict[str, bool]:
    """Return which fields the query parameters exclude."""
    return {name: request.choice(name, ("n", "y"), meaning) == "y" for name, meaning in _EXCLUDED.items()}


def with_entrypoint(value: Any) -> Any:
    """Return a graph whose entrypoint has no arguments; a missing entrypoint becomes the only workflow."""
    if not isinstance(value, dict):
        name = type(value).__name__
        reason = f"experiment.model.frontends.dsl.Namespace() argument after ** must be a mapping, not {name}"
        raise InvalidDsl([{"message": f"Unexpected validation error: {reason}"}])
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
    """Return a graph with its entry workflow first and without fields that were not given; raise `InvalidDsl`."""
    _reject_problems(find_graph_problems(value))
    graph = shown(value, exclude_unset=True)
    components, workflows = graph.get("components", []), graph.setdefault("workflows", [])
    problems = [] if components else ["There must be at least 1 component template"]
    if len(components) == 1 and not workflows:
        _wrap_component(graph)
    if not workflows:
        problems.append("There must be at least 1 workflow template")
    if len((graph.get("entrypoint") or {}).get("execute", ())) != 1:
        problems.append("Missing entrypoint workflow template")
    _reject(problems)
    complete = parse(graph)
    name, first = _entry_workflow(complete)
    _reject(
        [
            *([] if first["execute"] else ["The entry workflow template must execute at least 1 steps"]),
            *([] if first["steps"] else ["The entry workflow template must have at least 1 steps"]),
        ]
    )
    # The arguments of a graph are unknown until it is used.
    parameters = first["signature"]["parameters"]
    arguments = {parameter["name"]: "dummy-value" for parameter in parameters if parameter["default"] is None}
    invalid = find_graph_problems(complete, arguments)
    _reject_problems([*find_problems(complete, arguments)] if invalid is None else invalid)
    position = next(index for index, workflow in enumerate(workflows) if _name(workflow) == name)
    workflows[0], workflows[position] = workflows[position], workflows[0]
    return graph


def _entry_workflow(graph: Dsl) -> tuple[str, dict[str, Any]]:
    """Return the name of the entry workflow, and the workflow."""
    name = graph["entrypoint"]["entry-instance"]
    found = find_template(graph, name)
    if found is None:
        raise InvalidDsl([{"message": f"The entrypoint points to an unknown template {name}"}])
    if found[0] != "workflows":
        raise InvalidDsl([{"message": f"The entrypoint must to an Workflow template but {name} is a Component"}])
    return name, found[2]


def _reject(messages: list[str]) -> None:
    _reject_problems([{"message": message} for message in messages])


def _reject_problems(problems: list[Problem] | None) -> None:
    if problems:
        raise InvalidDsl(problems)


def _wrap_component(graph: Dsl) -> None:
    """Wrap the only component in a workflow of the same name."""
    component = graph["components"][0]
    signature: Mapping[str, Any] = component["signature"]
    name, inner = signature["name"], f"{signature['name']}-wrapped"
    arguments = {parameter["name"]: f"%({parameter['name']})s" for parameter in signature.get("parameters", ())}
    call = {"target": f"<{inner}>", "args": arguments}
    complete = validate(Signature, signature, nulls=True)
    graph["workflows"].append({"signature": complete, "steps": {inner: inner}, "execute": [call]})
    component["signature"] = {**signature, "name": inner}
    if graph.get("entrypoint") is None:
        graph["entrypoint"] = {"execute": [{**_ENTRY, "args": {}}], "entry-instance": name}
