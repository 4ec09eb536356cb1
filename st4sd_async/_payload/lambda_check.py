"""
Check the definition of a lambda experiment with st4sd-runtime-core. This is a program that runs in its own process.

It is passed to an interpreter as text, reads a request as JSON from standard input and writes its result as JSON. It
must not run in the process of the client: the libraries log whole components, with everything in their environments,
and take half a second and 50 MB to import.

    request   definition (FlowIR or DSL 2.0), variables (name -> text, set by the start)
    result    problems (each [where, what]), flowir (converted from DSL; None for FlowIR and if there are problems),
              missing (why the libraries cannot be imported; absent if they can)
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

PLATFORM = "default"
"""The platform of lambda experiments."""
_COMPONENT = re.compile(r"stage\d+\.[\w.-]+$")

Located = tuple[str, str]
"""The location of a problem, and its description."""


def check(definition: dict[str, Any], variables: Mapping[str, str]) -> dict[str, Any]:
    """Check a definition and return the result."""
    flowir = importlib.import_module("experiment.model.frontends.flowir")
    is_dsl = "entrypoint" in definition or "workflows" in definition
    try:
        # The checks of the service, and then those of the orchestrator that need no files.
        concrete = convert_dsl(definition, variables) if is_dsl else flowir.FlowIRConcrete(definition, None, {})
        problems = [problem for error in concrete.validate() for problem in problems_in(error)]
        converted = concrete.raw() if is_dsl else None
        if not problems:
            problems = [*find_planning_problems(flowir, concrete, variables)]
    except Exception as error:  # the libraries raise errors of many classes; each means that the definition is invalid
        return {"problems": problems_in(error), "flowir": None}
    return {"problems": [*dict.fromkeys(problems)], "flowir": None if problems else converted}


def convert_dsl(definition: Mapping[str, Any], variables: Mapping[str, str]) -> Any:
    """Convert DSL to FlowIR. Variables that the start sets are arguments of its entrypoint."""
    dsl = importlib.import_module("experiment.model.frontends.dsl")
    namespace = dsl.Namespace(**definition)
    arguments = None
    if variables and namespace.entrypoint is not None and namespace.entrypoint.execute:
        arguments = {**(namespace.entrypoint.execute[0].args or {}), **variables}
    return dsl.namespace_to_flowir(namespace, arguments)


def find_planning_problems(flowir: Any, concrete: Any, variables: Mapping[str, str]) -> Iterator[Located]:
    """Yield problems that prevent ordering the components, or replicating them with the variables of the start."""
    for stage in range(concrete.get_stage_number()):
        for name, value in variables.items():
            concrete.set_platform_stage_variable(stage, name, value, platform=PLATFORM)
    if cycle := find_cycle(flowir.FlowIR, concrete):
        yield f"{cycle[0]}.references", f"the components wait for each other: {' <- '.join(cycle)}"
        return
    # Ignore errors here, because only replicas have the variable "replica". The second check reports them.
    replicas = concrete.replicate(PLATFORM, ignore_errors=True)
    for error in flowir.FlowIRConcrete(replicas, PLATFORM, {}).validate():
        yield from problems_in(error)


def find_cycle(flowir: Any, concrete: Any) -> list[str]:
    """Return a cycle: components that each refer to the next, the first repeated at the end. Empty if there is none."""
    producers: dict[str, list[str]] = {}
    for stage, name in sorted(concrete.get_component_identifiers(True)):
        references = concrete.get_component((stage, name)).get("references") or []
        parsed = (
            flowir.ParseDataReferenceFull(reference, stage, concrete.get_application_dependencies())
            for reference in references
        )
        producers[f"stage{stage}.{name}"] = [f"stage{at}.{producer}" for at, producer, _, _ in parsed if at is not None]
    networkx = importlib.import_module("networkx")
    graph = networkx.DiGraph(producers)
    with contextlib.suppress(networkx.NetworkXNoCycle):
        edges = networkx.find_cycle(graph)
        return [edges[0][0], *(edge[1] for edge in edges)]
    return []


def problems_in(error: Any) -> list[Located]:
    """Return the problems that an error of the libraries reports; "" stands for an unknown place."""
    inner = getattr(error, "underlying_errors", None) or getattr(error, "exception", None) or conversion_errors(error)
    if inner:
        found = [problem for each in (inner if isinstance(inner, list) else [inner]) for problem in problems_in(each)]
        return [(where or component_in(str(getattr(error, "reason", ""))), what) for where, what in found]
    if callable(getattr(error, "errors", None)):  # of pydantic
        return [(dotted(each["loc"]), str(each["msg"])) for each in error.errors()]
    if hasattr(error, "underlying_to_str"):
        return [(dotted(error.location), error.underlying_to_str())]
    what = str(error).removeprefix("Inconsistent FlowIR: ").partition("={\n")[0]
    if isinstance(error, (AttributeError, TypeError, LookupError)):
        what = f"the orchestrator cannot read it: {type(error).__name__}: {what}"
    return [(entry_of(error).removeprefix("FlowIR.").removeprefix("components."), what)]


def conversion_errors(error: Any) -> list[Any]:
    """Return the errors that name a value, among the errors of a component with values of wrong types."""
    errors = getattr(error, "errors", None)
    return [each for each in errors if hasattr(each, "field_route")] if isinstance(errors, list) else []


def entry_of(error: Any) -> str:
    """Return the entry that an error is about, such as ``stage0.hi.command.arguments``."""
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
    """Return the component at the end of a text; "" if there is none."""
    found = _COMPONENT.search(text)
    return found[0] if found else ""


def dotted(location: Iterable[object]) -> str:
    """Return a location in a DSL as text, such as ``components[0].command``."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).lstrip(".")


def main() -> None:  # pragma: no cover -- runs in its own process
    """Read one request from standard input, and write the result to standard output."""
    request = json.load(sys.stdin.buffer)
    with contextlib.redirect_stdout(sys.stderr):  # the libraries print
        logging.disable()
        try:
            importlib.import_module("experiment.model.frontends.dsl")
        except Exception as error:  # a broken installation may fail in any way
            result: dict[str, Any] = {"missing": f"{type(error).__name__}: {error}"}
        else:
            result = check(request["definition"], request["variables"])
    json.dump(result, sys.stdout, default=str)


if __name__ == "__main__":
    main()
