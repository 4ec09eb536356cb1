"""
Whether the definition of a lambda experiment makes sense, as st4sd-runtime-core sees it; runs in a process of its own.

It is handed to an interpreter as text, reads a request as JSON and answers with JSON. It is no part of the process
that asks, because the libraries log whole components, with all that their environments hold, and take half a second
and 50 MB to import.

    request   definition (FlowIR or DSL 2.0), variables (name -> text, what the start sets)
    answer    problems (each [where, what]), flowir (what a DSL stands for, None for FlowIR and if there are problems),
              missing (why the libraries are not there, "" if they are)
"""

from __future__ import annotations

import contextlib
import importlib
import json
import logging
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

DEFAULT = "default"
"""The platform that lambda experiments run on."""
_COMPONENT = re.compile(r"stage\d+\.[\w.-]+$")

Found = tuple[str, str]


def checked(definition: dict[str, Any], variables: Mapping[str, str]) -> dict[str, Any]:
    """The answer to a request."""
    flowir = importlib.import_module("experiment.model.frontends.flowir")
    is_dsl = "entrypoint" in definition or "workflows" in definition
    try:
        # What the service does, and of what the orchestrator does after that the part that needs no files.
        concrete = of_dsl(definition, variables) if is_dsl else flowir.FlowIRConcrete(definition, None, {})
        problems = [one for error in concrete.validate() for one in told(error)]
        stood_for = concrete.raw() if is_dsl else None
        if not problems:
            problems = [*unplanned(flowir, concrete, variables)]
    except Exception as error:  # the libraries raise many kinds, and each means that it makes no sense
        return {"problems": told(error), "flowir": None}
    return {"problems": [*dict.fromkeys(problems)], "flowir": None if problems else stood_for}


def of_dsl(definition: Mapping[str, Any], variables: Mapping[str, str]) -> Any:
    """What a DSL stands for; variables that the start sets are arguments of its entrypoint."""
    dsl = importlib.import_module("experiment.model.frontends.dsl")
    namespace = dsl.Namespace(**definition)
    arguments = None
    if variables and namespace.entrypoint is not None and namespace.entrypoint.execute:
        arguments = {**(namespace.entrypoint.execute[0].args or {}), **variables}
    return dsl.namespace_to_flowir(namespace, arguments)


def unplanned(flowir: Any, concrete: Any, variables: Mapping[str, str]) -> Iterator[Found]:
    """Why the components cannot be put into an order and replicated with the variables that the start sets."""
    for stage in range(concrete.get_stage_number()):
        for name, value in variables.items():
            concrete.set_platform_stage_variable(stage, name, value, platform=DEFAULT)
    if ring := circle(flowir.FlowIR, concrete):
        yield f"{ring[0]}.references", f"the components wait for each other: {' <- '.join(ring)}"
        return
    # Errors are left to the second check, because only replicas have the variable of that name.
    replicas = concrete.replicate(DEFAULT, ignore_errors=True)
    for error in flowir.FlowIRConcrete(replicas, DEFAULT, {}).validate():
        yield from told(error)


def circle(flowir: Any, concrete: Any) -> list[str]:
    """Components of which each refers to the next, the first one once more at the end; [] if there are none."""
    needed: dict[str, list[str]] = {}
    for stage, name in sorted(concrete.get_component_identifiers(True)):
        references = concrete.get_component((stage, name)).get("references") or []
        found = (
            flowir.ParseDataReferenceFull(one, stage, concrete.get_application_dependencies()) for one in references
        )
        needed[f"stage{stage}.{name}"] = [f"stage{at}.{producer}" for at, producer, _, _ in found if at is not None]
    networkx = importlib.import_module("networkx")
    graph = networkx.DiGraph(needed)
    with contextlib.suppress(networkx.NetworkXNoCycle):
        edges = networkx.find_cycle(graph)
        return [edges[0][0], *(edge[1] for edge in edges)]
    return []


def told(error: Any) -> list[Found]:
    """Where something is wrong, "" if that is not known, and what."""
    inner = getattr(error, "underlying_errors", None) or getattr(error, "exception", None) or convertible(error)
    if inner:
        found = [one for each in (inner if isinstance(inner, list) else [inner]) for one in told(each)]
        return [(where or component_in(str(getattr(error, "reason", ""))), what) for where, what in found]
    if callable(getattr(error, "errors", None)):  # of pydantic
        return [(dotted(one["loc"]), str(one["msg"])) for one in error.errors()]
    if hasattr(error, "underlying_to_str"):
        return [(dotted(error.location), error.underlying_to_str())]
    what = str(error).removeprefix("Inconsistent FlowIR: ").partition("={\n")[0]
    if isinstance(error, (AttributeError, TypeError, LookupError)):
        what = f"the orchestrator cannot read it: {type(error).__name__}: {what}"
    return [(place(error).removeprefix("FlowIR.").removeprefix("components."), what)]


def convertible(error: Any) -> list[Any]:
    """Of the errors of a component whose values have the wrong types those that name the value."""
    errors = getattr(error, "errors", None)
    return [one for one in errors if hasattr(one, "field_route")] if isinstance(errors, list) else []


def place(error: Any) -> str:
    """The entry that an error is about: ``stage0.hi.command.arguments``."""
    for name in ("key_name", "label", "field_route"):
        if getattr(error, name, None):
            return str(getattr(error, name))
    component = getattr(error, "component", None) or getattr(error, "componentName", None)
    if not isinstance(component, str):
        return ""
    stage = getattr(error, "stage", getattr(error, "stage_index", 0))
    fields = [*(getattr(error, "invalid", None) or {}), *(getattr(error, "missing", None) or {})]
    if hasattr(error, "ref_unknown"):
        fields = ["command.arguments"]
    elif hasattr(error, "references"):
        fields = ["references"]
    return ".".join([f"stage{stage}.{component}", *fields[:1]])


def component_in(text: str) -> str:
    """The component that a text ends with, "" if it does not."""
    found = _COMPONENT.search(text)
    return found[0] if found else ""


def dotted(location: Iterable[object]) -> str:
    """A location in a DSL as one text: ``components[0].command``."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).lstrip(".")


def main() -> None:  # pragma: no cover -- runs in a process of its own
    """Answer one request on standard output."""
    request = json.load(sys.stdin.buffer)
    with contextlib.redirect_stdout(sys.stderr):  # the libraries print
        logging.disable()
        try:
            importlib.import_module("experiment.model.frontends.dsl")
        except Exception as error:  # a broken installation may fail in any way
            answer: dict[str, Any] = {"missing": f"{type(error).__name__}: {error}"}
        else:
            answer = checked(request["definition"], request["variables"])
    json.dump(answer, sys.stdout, default=str)


if __name__ == "__main__":
    main()
