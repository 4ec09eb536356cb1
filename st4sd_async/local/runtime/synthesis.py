"""
Synthesize the experiment of a relationship: infer the links between two workflows, and join the workflows.

The components of the output graph are replaced by those of the input graph. The other components of the output graph's
experiment stay. A link gives a reference or variable of one experiment (the consumer) the value of a reference, a
variable or a text of the other (the source).

If the components of an experiment are unknown, only variables of the same name are linked, and checks that need
components are omitted.

Source:
    st4sd-runtime-service, ``apis/runtime/package_transform.py``, ``apis/runtime/package_derived.py`` and
    ``apis/kernel/relationships.py``.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from st4sd_async.local.engine.core_checks import find_flowir_problems, with_stage_numbers
from st4sd_async.local.engine.flowir import (
    DEFAULT,
    Reference,
    global_variables,
    images,
    inherited,
    input_names,
    parse_reference,
    platforms,
    with_defaults,
)
from st4sd_async.local.engine.interface import PackageContent, PackageFacts

INPUT_WINS = "inputGraphOverridesOutputGraph"
"""The policy by which variables of the input graph's experiment override those of the other experiment."""
KEYWORDS = ("auto-generated", "from:relationship-transform")
"""Keywords of synthesized experiments."""
CLONES = "/tmp/tmpsynthes"
"""The location that definitions name for the files of both packages; a temporary folder in the service."""
_VARIABLE = re.compile(r"%\(([^)]+)\)s")
_LINKED = ("link", "copy")
"""Methods whose references do not occur in the arguments of a component."""
_METHODS = (*_LINKED, "ref", "extract", "output", "loopref", "loopoutput")
Json = dict[str, Any]


class SynthesisError(Exception):
    """A relationship or its synthesis is invalid; the message says why."""


class UnexpectedError(SynthesisError):
    """An error that the service does not handle; its response is 500."""


def find_reference(text: str) -> Reference | None:
    """Parse the name in a link as a reference; return None if it is the name of a variable."""
    target, colon, method = text.rpartition(":")
    return parse_reference(text) if target and colon and method in _METHODS else None


def producer(reference: Reference) -> str:
    """Return the producer of a reference: a component with its stage, or the folder of a file."""
    return reference.target if reference.stage is not None else reference.producer.partition("/")[0]


def path_below(reference: Reference) -> str:
    """Return the path of a reference below its producer; "" for the whole producer."""
    if reference.stage is None:
        return reference.producer.partition("/")[2]
    return reference.path or ("out.stdout" if reference.method == "output" else "")


def with_path(reference: Reference, path: str, method: str) -> Reference:
    """Return a reference with another path below its producer, and another method."""
    if reference.stage is None:
        return Reference(None, f"{producer(reference)}/{path}" if path else producer(reference), None, method)
    return replace(reference, path=path or None, method=method)


class Graph:
    """A graph of a relationship: an experiment, and those of its components that the relationship names."""

    def __init__(self, identifier: str, selected: list[str], content: PackageContent, *, is_known: bool) -> None:
        """
        Args:
            identifier: Identifier of the experiment.
            selected: References of the named components.
            content: The content of its package, without components if they are unknown.
            is_known: Whether the components are known.
        """
        self.identifier = identifier
        self.selected = selected
        self.flowir: Mapping[str, Any] = content.flowir
        self.folders: tuple[str, ...] = content.folders
        self.is_known = is_known
        self.components: dict[str, Json] = {
            f"stage{component.get('stage', 0)}.{component['name']}": component
            for component in self.flowir.get("components", ())
        }

    @property
    def platforms(self) -> list[str]:
        """The names of the platforms of the experiment."""
        return platforms(self.flowir)

    @property
    def name(self) -> str:
        """The name of the graph in a synthesized experiment."""
        return f"{self.identifier}/{self.identifier}"

    def variables(self, platform: str) -> Json:
        """Return the global variables of a platform."""
        return global_variables(self.flowir, platform)

    def all_variables(self) -> set[str]:
        """Return the names of the global variables of all platforms."""
        return {name for platform in self.platforms for name in self.variables(platform)}

    def references(self, component: str) -> list[Reference]:
        """Return the references of a component, sorted."""
        return [parse_reference(text) for text in sorted(self.components[component].get("references") or ())]

    def needed_variables(self, components: Iterable[str]) -> set[str]:
        """Return the variables that components use on any platform, directly or in the value of another variable."""
        needed: set[str] = set()
        for component in components:
            for platform in self.platforms:
                fields = inherited(self.flowir, self.components[component], platform)
                variables = fields.pop("variables")
                needed |= indirect_variables(json.dumps(fields, default=str), variables)
        return needed

    @property
    def unknown_components(self) -> list[str]:
        """The selected components that do not exist."""
        return [name for name in self.selected if self.is_known and name not in self.components]


def indirect_variables(text: str, context: Mapping[str, Any]) -> set[str]:
    """Return the variables to which a string refers, directly or in the value of another variable."""
    found: set[str] = set()
    names = set(_VARIABLE.findall(text))
    while names - found:
        name = (names - found).pop()
        found.add(name)
        names |= set(_VARIABLE.findall(str(context.get(name, ""))))
    return found


def infer_links(relationship: Json, substitute: Graph, base: Graph) -> None:
    """
    Add the missing links to a relationship, and check all links.

    Args:
        relationship: The field ``relationship`` of the transform.
        substitute: The input graph.
        base: The output graph.

    Raises:
        SynthesisError: A component does not exist, or a link is missing or invalid.
    """
    unknown = substitute.unknown_components
    is_inferred = relationship["inferParameters"] or relationship["inferResults"]
    is_single = is_inferred and len(substitute.selected) == len(base.selected) == 1
    if unknown and is_inferred and not is_single:
        reason = f"Unknown component {unknown[0]}"
        raise SynthesisError(f"Could not extract parameters of inputGraph - underlying error {reason}")
    if unknown or (is_single and base.unknown_components):
        raise UnexpectedError(f"Unknown component {[*unknown, *base.unknown_components][0]}")
    if is_inferred:
        if is_single:
            _infer_single(relationship, substitute, base)
        if substitute.is_known and base.is_known:
            _infer_variables(relationship, substitute.needed_variables(substitute.selected), base)
            _infer_references(relationship, substitute, base)
        else:
            _infer_variables(relationship, substitute.all_variables(), base)
    problems = [*_missing_parameters(relationship, substitute)]
    if problems:
        raise SynthesisError(f"Run into {len(problems)} problems:\n" + "\n".join(problems))
    if base.unknown_components:
        names = set(base.unknown_components)
        reason = "it does not contain them in the first place"
        raise SynthesisError(f"{base.identifier} cannot exclude components {names} - {reason}")


def _infer_single(relationship: Json, substitute: Graph, base: Graph) -> None:
    """Add links between two graphs that have one component each."""
    (replaced,), (component,) = base.selected, substitute.selected
    if relationship["inferParameters"] and substitute.is_known and base.is_known:
        known = base.references(replaced)
        for reference in substitute.references(component):
            if _parameter(relationship, str(reference)):
                continue
            matching = [candidate for candidate in known if path_below(candidate) == path_below(reference)]
            if len(matching) == 1:
                _add_parameter(relationship, str(replace(matching[0], method=reference.method)), str(reference))
    if relationship["inferResults"] and not relationship["graphResults"]:
        _add_result(relationship, f"{replaced}:ref", f"{component}:ref")


def _infer_variables(relationship: Json, names: Iterable[str], base: Graph) -> None:
    """Add links between variables of the same name; the merge policy decides their direction."""
    common = sorted(base.all_variables().intersection(names))
    if relationship["variablesMergePolicy"] == INPUT_WINS:
        known = {_field(link, "outputGraphResult", "name") for link in relationship["graphResults"]}
        is_wanted, add = relationship["inferResults"], _add_result
    else:
        known = {_field(link, "inputGraphParameter", "name") for link in relationship["graphParameters"]}
        is_wanted, add = relationship["inferParameters"], _add_parameter
    for name in common:
        if is_wanted and name not in known:
            add(relationship, name, name)


def _infer_references(relationship: Json, substitute: Graph, base: Graph) -> None:
    """Add links between components of the same name."""
    needed = [
        reference.target for name in base.components for reference in base.references(name) if _is_made(reference)
    ]
    offered = set(needed) - set(base.selected)
    for reference in _external_references(substitute):
        whole = str(with_path(reference, "", reference.method))
        is_linked = any(_parameter(relationship, name) for name in (str(reference), whole))
        if reference.target in offered and not is_linked:
            _add_parameter(relationship, whole, whole)
    results = {_field(link, "outputGraphResult", "name") for link in relationship["graphResults"]}
    for component in (name for name in base.components if name not in base.selected):
        for reference in base.references(component):
            whole = f"{reference.target}:ref"
            if reference.target in substitute.selected and whole not in results:
                results.add(whole)
                _add_result(relationship, whole, whole)


def _missing_parameters(relationship: Json, substitute: Graph) -> Iterator[str]:
    """
    Yield a problem for each reference to a component outside of the input graph that has no link.

    A link to the whole component is not sufficient, even if the service itself inferred it.
    """
    for component in substitute.selected:
        for reference in _external_references(substitute, [component]):
            if not _parameter(relationship, str(reference)):
                yield f"Unknown parameter {reference} for surrogate component {component} in {substitute.identifier}"


def _external_references(graph: Graph, components: Iterable[str] | None = None) -> Iterator[Reference]:
    """Yield the references of selected components to components that are not selected."""
    for component in graph.selected if components is None else components:
        for reference in graph.references(component) if component in graph.components else ():
            if _is_made(reference) and reference.target not in graph.selected:
                yield reference


def _is_made(reference: Reference) -> bool:
    """Return whether the file of a reference is produced by a component."""
    return reference.stage is not None


def _parameter(relationship: Json, name: str) -> Json | None:
    """Return the link whose consumer is a reference or variable of the input graph; None if there is no link."""
    links = relationship["graphParameters"]
    return next((link for link in links if _field(link, "inputGraphParameter", "name") == name), None)


def _field(link: Json, side: str, field: str) -> Any:
    return (link.get(side) or {}).get(field)


def _add_parameter(relationship: Json, output: str, name: str) -> None:
    link = {"outputGraphParameter": _value(output), "inputGraphParameter": _value(name)}
    relationship["graphParameters"].append(link)


def _add_result(relationship: Json, output: str, name: str) -> None:
    relationship["graphResults"].append({"outputGraphResult": _value(output), "inputGraphResult": _value(name)})


def _value(name: str) -> Json:
    return {"name": name, "value": None}


@dataclass(frozen=True)
class Binding:
    """A link between two graphs, from its source to its consumer."""

    name: str
    """The reference or variable of the consumer."""
    source: str
    """The reference, variable or text of the source."""
    is_text: bool
    """Whether `source` is a text, which may refer to variables of its graph."""
    link: str
    """The link, in the form of error messages."""

    @property
    def is_input(self) -> bool:
        """Whether `source` is an input file, which both experiments share."""
        reference = None if self.is_text else find_reference(self.source)
        return reference is not None and not _is_made(reference) and producer(reference) == "input"

    @property
    def text(self) -> str | None:
        """The text that replaces a variable; None if `source` is a reference."""
        if self.is_text:
            return self.source
        return None if find_reference(self.source) else f"%({self.source})s"


def bindings(links: Iterable[Json], consumer: str, source: str) -> list[Binding]:
    """Return links as bindings; `consumer` and `source` are fields of a link, such as ``inputGraphParameter``."""
    found = []
    for link in links:
        name, feeding, text = (
            _field(link, consumer, "name"),
            _field(link, source, "name"),
            _field(link, source, "value"),
        )
        shown = str(without_nulls(link))
        if not name or not (feeding or text):
            raise SynthesisError(f"There is no value for parameter {name}. {shown}")
        found.append(Binding(name, feeding or text, is_text=not feeding, link=shown))
    return found


def without_nulls(value: Any) -> Any:
    """Return JSON without the fields that are null."""
    if isinstance(value, Mapping):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    return [without_nulls(item) for item in value] if isinstance(value, list) else value


class Synthesis:
    """The synthesis of an experiment from a relationship with complete links."""

    def __init__(self, relationship: Json, substitute: Graph, base: Graph) -> None:
        """
        Args:
            relationship: The field ``relationship`` of the transform, after `infer_links`.
            substitute: The input graph.
            base: The output graph.

        Raises:
            SynthesisError: A link is invalid.
        """
        self.substitute = substitute
        self.base = base
        self._parameters = bindings(relationship["graphParameters"], "inputGraphParameter", "outputGraphParameter")
        self._results = bindings(relationship["graphResults"], "outputGraphResult", "inputGraphResult")
        self._relationship = without_nulls(relationship)
        self._input_wins = relationship["variablesMergePolicy"] == INPUT_WINS
        problems = [*_unknown_variables("graphParameters", self._parameters, substitute, base, "inputGraph")]
        problems += _unknown_variables("graphResults", self._results, base, substitute, "outputGraph")
        if len(problems) > 1:
            raise SynthesisError(f"There are {len(problems)} problems. Problems follow:\n" + "\n".join(problems))
        if problems:
            raise SynthesisError(problems[0])

    @property
    def is_known(self) -> bool:
        """Whether the components of both experiments are known."""
        return self.base.is_known and self.substitute.is_known

    @property
    def _sides(self) -> list[tuple[Graph, list[Binding], Graph]]:
        """Each graph, the links to it, and their source. Variables of the last graph override those of the first."""
        sides = [(self.substitute, self._parameters, self.base), (self.base, self._results, self.substitute)]
        return sides[::-1] if self._input_wins else sides

    def nodes(self, graph: Graph) -> list[str]:
        """Return the components of a graph's experiment that are in the synthesized experiment, sorted."""
        if graph is self.base:
            return sorted(set(graph.components) - set(graph.selected))
        return sorted(graph.selected)

    def definition(self, packages: Mapping[str, Json]) -> Json:
        """
        Return the field ``base`` of the synthesized experiment.

        Args:
            packages: Identifier -> the base package of the experiment.

        Raises:
            SynthesisError: A replaced component produces a key-output, and no link has its replacement.
        """
        offered = {self.base.identifier: self._parameters, self.substitute.identifier: self._results}
        consumed = {self.base.identifier: self._results, self.substitute.identifier: self._parameters}
        interface = self._interface()
        return {
            "packages": [
                {
                    **packages[graph.identifier],
                    "name": graph.identifier,
                    "graphs": [self._graph(graph, consumed, offered)],
                }
                for graph in (self.base, self.substitute)
            ],
            "connections": [
                _connection(graph, [_option(binding, source) for binding in fed if not binding.is_input])
                for graph, fed, source in self._sides
            ],
            "includePaths": [
                {"source": {"packageName": graph.identifier, "path": path}, "dest": {"path": folder}}
                for graph in (self.base, self.substitute)
                for folder, path in _folders(graph)
            ],
            "output": [self._output(name, entry) for name, entry in self._key_outputs()],
            **({"interface": interface} if interface else {}),
        }

    def _interface(self) -> Json | None:
        """Return the interface of the output graph's experiment, with empty arguments if they are missing."""
        interface: Json | None = without_nulls(self.base.flowir.get("interface"))
        if not interface:
            return None
        methods = [interface.get("inputSpec", {}).get("inputExtractionMethod", {})]
        methods += [spec.get("propertyExtractionMethod", {}) for spec in interface.get("propertiesSpec", ())]
        for method in methods:
            for name in ("csvColumn", "csvDataFrame"):
                if name in method:
                    method[name].setdefault("args", {})
        return interface

    def _graph(self, graph: Graph, consumed: Mapping[str, list[Binding]], offered: Mapping[str, list[Binding]]) -> Json:
        fed = [_bound(binding.name, binding.name, "input") for binding in consumed[graph.identifier]]
        # Both experiments share the files of the instance, such as inputs.
        given = [
            _bound(binding.source, binding.text or binding.source, "output")
            for binding in offered[graph.identifier]
            if graph is self.substitute or not _is_file(binding)
        ]
        nodes = [{"reference": reference} for reference in self.nodes(graph)]
        return {"name": graph.identifier, "bindings": {"input": fed, "output": given}, "nodes": nodes}

    def _key_outputs(self) -> list[tuple[str, Json]]:
        return list((self.base.flowir.get("output") or {}).items())

    def _output(self, name: str, entry: Json) -> Json:
        """Return the source of a key-output."""
        stages, text = entry.get("stages") or [], entry["data-in"]
        reference = parse_reference(text, int(stages[0]) if len(stages) == 1 else None, self.base.folders)
        graph, binding = self.base, Json(reference=str(reference), type="output")
        if len(stages) > 1:
            binding = {"reference": text, "type": "output", "stages": [str(stage) for stage in stages]}
        elif reference.target in self.base.selected:
            graph, binding["reference"] = self.substitute, self._replaced(name, reference)
        return {"name": name, "valueFrom": {"graph": {"name": graph.name, "binding": binding}}}

    def _replaced(self, name: str, reference: Reference) -> str:
        for binding in self._results:
            match, source = find_reference(binding.name), find_reference(binding.source)
            if match and source and not binding.is_text:
                found = _rewired(reference, match, source)
                if found is not None:
                    return str(found)
        raise SynthesisError(
            f"Could not rewrite keyOutput {name} of {self.base.identifier}from {reference} candidates "
            f"{self._relationship}"
        )

    def content(self, names: list[str]) -> PackageContent:
        """
        Return the content of the synthesized package.

        Args:
            names: Names of its platforms.

        Raises:
            SynthesisError: The content is invalid.
        """
        names = list(dict.fromkeys([DEFAULT, *names]))
        flowir = {
            "platforms": names,
            "components": [component for side in self._sides for component in self._rewired_components(*side)],
            "variables": {
                name: {"global": values, "stages": self._stages("variables", name)}
                for name, values in self._variables(names).items()
            },
            "blueprint": {
                name: {"global": {}, **self._merged("blueprint", name), "stages": self._stages("blueprint", name)}
                for name in names
            },
            "environments": {name: self._merged("environments", name) for name in names},
            "output": dict(self._composed_output(name, entry) for name, entry in self._key_outputs()),
            "interface": self._interface(),
        }
        folders = tuple(
            dict.fromkeys(folder for graph in (self.base, self.substitute) for folder, _ in _folders(graph))
        )
        complete = with_defaults(flowir, folders)
        for name in names if self.is_known else ():
            unique = sorted(set(find_flowir_problems(with_stage_numbers(complete), name, folders) or ()))
            if unique:
                raise SynthesisError(f"There are {len(unique)} problems. Problems follow:\n" + "\n".join(unique))
        return PackageContent(complete, folders=folders)

    def _composed_output(self, name: str, entry: Json) -> tuple[str, Json]:
        binding = self._output(name, entry)["valueFrom"]["graph"]["binding"]
        stages = {"stages": entry["stages"]} if "stages" in binding else {}
        return name, {"data-in": binding["reference"], **stages}

    def _rewired_components(self, graph: Graph, fed: list[Binding], _source: Graph) -> Iterator[Json]:
        for reference in self.nodes(graph):
            if reference in graph.components:
                component = copy.deepcopy(graph.components[reference])
                for binding in fed:
                    component = _rewire(component, binding)
                yield component

    def _variables(self, names: list[str]) -> dict[str, Json]:
        """Return the global variables of each platform: of both graphs, and of links, which override them."""
        joined: dict[str, Json] = {platform: {} for platform in names}
        for graph, _, _ in self._sides:
            needed = graph.all_variables()
            if self.is_known:
                needed &= graph.needed_variables(self.nodes(graph))
            for platform in set(names) & set(graph.platforms):
                values = graph.variables(platform)
                joined[platform].update({name: str(value) for name, value in values.items() if name in needed})
        for graph, fed, source in self._sides:
            for name in sorted(self._overriding_variables(graph, fed)):
                for platform in set(names) & set(source.platforms):
                    if name in source.variables(platform):
                        joined[platform][name] = source.variables(platform)[name]
        for platform in names:
            if platform != DEFAULT:
                default = {name: str(value) for name, value in joined[DEFAULT].items()}
                own = joined[platform].items()
                joined[platform] = {name: value for name, value in own if default.get(name) != str(value)}
        return joined

    def _overriding_variables(self, graph: Graph, fed: list[Binding]) -> set[str]:
        """Return the variables in strings of components in which a link replaces a variable by a text."""
        found: set[str] = set()
        for binding in fed:
            if binding.text is not None and not find_reference(binding.name):
                old = f"%({binding.name})s"
                for name in set(self.nodes(graph)) & set(graph.components):
                    for text in _texts(graph.components[name]):
                        found |= set(_VARIABLE.findall(text.replace(old, binding.text))) if old in text else set()
        return found

    def _stages(self, field: str, platform: str) -> Json:
        """Return the merged values of both graphs for each stage of a platform."""
        stages = (component.get("stage", 0) for graph, _, _ in self._sides for component in graph.components.values())
        values: Json = {str(stage): {} for stage in range(max(stages, default=-1) + 1)}
        return {**values, **(self._merged(field, platform).get("stages") or {})}

    def _merged(self, field: str, platform: str) -> Json:
        """Return the merged values of both graphs for a platform."""
        merged: Json = {}
        for graph, _, _ in self._sides:
            merged = _overridden(merged, (graph.flowir.get(field) or {}).get(platform) or {})
        return merged

    def facts(self, content: PackageContent) -> PackageFacts:
        """Return the facts about the synthesized experiment for the registry; they need known components."""
        flowir = content.flowir
        names = flowir["platforms"]
        return PackageFacts(
            version="",
            inputs=tuple(sorted({name for platform in names for name in input_names(flowir, platform)})),
            outputs=tuple(flowir["output"]),
            platforms=tuple(names),
            variables={name: flowir["variables"][name]["global"] for name in names},
            interface=flowir["interface"] or {},
            images=tuple(sorted({name for platform in names for name in images(flowir, platform)})),
        )

    def inheritance(self, parameterisation: Mapping[str, Any], names: Iterable[str]) -> Json | None:
        """
        Return the origin of the variables in links; None if the service fails to compute it.

        The service fails if an overridden value is not a string.

        Args:
            parameterisation: The parameterisation of the synthesized experiment.
            names: Names of its platforms.
        """
        names = list(dict.fromkeys([*names, DEFAULT]))
        options = {
            "preset": {option["name"]: option.get("value") for option in parameterisation["presets"]["variables"]},
            "executionOptions": {
                option["name"]: _first_value(option) for option in parameterisation["executionOptions"]["variables"]
            },
        }
        variables: Json = {}
        for graph, fed, source in self._sides:
            for binding in fed:
                if binding.text is None or find_reference(binding.name):
                    continue
                for name in sorted(indirect_variables(binding.text, source.variables(DEFAULT))):
                    values = [*_inherited(name, names, graph, source)]
                    if any(not isinstance(one["value"], str) for value in values for one in value.get("overrides", ())):
                        return None
                    more = {key: known[name] for key, known in options.items() if known.get(name) is not None}
                    if values:
                        variables[name] = {"fromBasePackage": source.identifier, "values": values, **more}
        return {"variables": variables}


def _inherited(name: str, names: list[str], graph: Graph, source: Graph) -> Iterator[Json]:
    """Yield the value of a variable on each platform, with the value that it overrides."""
    for platform in names:
        if platform in source.platforms and name in source.variables(platform):
            overridden = graph.variables(platform if platform in graph.platforms else DEFAULT).get(name)
            value: Json = {"value": str(source.variables(platform)[name]), "platform": platform}
            if overridden is not None:
                value["overrides"] = [{"fromBasePackage": graph.identifier, "value": overridden}]
            yield value


def _first_value(option: Mapping[str, Any]) -> Any:
    choices = option.get("valueFrom") or [{}]
    return option["value"] if option.get("value") is not None else choices[0].get("value")


def _unknown_variables(kind: str, fed: list[Binding], consumer: Graph, source: Graph, side: str) -> Iterator[str]:
    """Yield a problem for each variable in links that is missing in its experiment."""
    other = "outputGraph" if side == "inputGraph" else "inputGraph"
    for binding in fed if consumer.is_known and source.is_known else ():
        entry = f"{kind} entry {binding.link} references the variable"
        if not find_reference(binding.name) and binding.name not in consumer.all_variables():
            yield f"The package {side} does not contain the variable {binding.name}. {entry}"
        for name in sorted(set(_VARIABLE.findall(binding.text or "")) - source.all_variables()):
            yield f"The package {other} does not contain the variable {name}. {entry}"


def _is_file(binding: Binding) -> bool:
    """Return whether the source of a binding is a file that is not produced by a component."""
    reference = None if binding.is_text else find_reference(binding.source)
    return reference is not None and not _is_made(reference)


def _bound(name: str, value: str, kind: str) -> Json:
    return {"name": name, "reference" if find_reference(value) else "text": value, "type": kind}


def _connection(graph: Graph, options: list[Json]) -> Json:
    empty = {"name": graph.name, "bindings": {"input": [], "output": []}, "nodes": []}
    return {"graph": empty, "bindings": options}


def _option(binding: Binding, source: Graph) -> Json:
    value = {"name": source.name, "binding": {"name": binding.source, "type": "output"}}
    return {"name": binding.name, "valueFrom": {"graph": value}}


def _folders(graph: Graph) -> list[tuple[str, str]]:
    """Return the folders of a graph's package in the synthesized package, with the locations that it names."""
    folders = sorted({".git", *graph.folders} - {"conf"})
    return [(folder, f"{CLONES}/{graph.identifier}/{folder}") for folder in folders] if graph.is_known else []


def _rewired(reference: Reference, match: Reference, source: Reference) -> Reference | None:
    """Return the replacement of a reference by a link from `match` to `source`; None if it does not match."""
    if reference == match:
        return source
    if producer(reference) != producer(match):
        return None
    if not path_below(source):
        return with_path(source, path_below(reference), reference.method)
    if path_below(reference) != path_below(match):
        return None
    return with_path(source, path_below(match), reference.method)


def _rewire(component: Json, binding: Binding) -> Json:
    """Return a component in which the consumer of a link is replaced by its source."""
    match = find_reference(binding.name)
    source = None if binding.text is not None else find_reference(binding.source)
    if match is None:
        return _rewire_variable(component, binding, source)
    references = []
    for reference in map(parse_reference, component.get("references") or ()):
        found = _rewired(reference, match, source) if source else None
        is_same = producer(reference) == producer(match) and path_below(reference) == path_below(match)
        if found:
            references.append(str(found))
            if found.method not in _LINKED:
                component = _with_arguments(component, _spellings(reference, component), str(found))
        elif source is None and is_same:
            component = _with_arguments(component, _spellings(reference, component), binding.text or "")
        else:
            references.append(str(reference))
    return {**component, "references": references} if "references" in component else component


def _spellings(reference: Reference, component: Json) -> list[str]:
    """Return the forms of a reference in the arguments of a component: with its stage, or without its own stage."""
    own = f"stage{component.get('stage', 0)}."
    return [str(reference), str(reference).removeprefix(own)]


def _rewire_variable(component: Json, binding: Binding, source: Reference | None) -> Json:
    variables = {name: value for name, value in (component.get("variables") or {}).items() if name != binding.name}
    old = f"%({binding.name})s"
    if "variables" in component:
        component = {**component, "variables": variables}
    if source is None:
        rewired: Json = _replaced_everywhere(component, old, binding.text or "")
        return rewired
    arguments = str((component.get("command") or {}).get("arguments") or "")
    if old not in arguments:
        return component
    references = list(dict.fromkeys([*(component.get("references") or ()), str(source)]))
    component = {**component, "references": references}
    return _with_arguments(component, [old], str(source))


def _with_arguments(component: Json, spellings: list[str], new: str) -> Json:
    """Return a component with one form of a reference replaced in its arguments: the first form that occurs."""
    command = component.get("command") or {}
    arguments = str(command.get("arguments") or "")
    old = next((spelling for spelling in spellings if spelling in arguments), None)
    if old is None:
        return component
    return {**component, "command": {**command, "arguments": arguments.replace(old, new)}}


def _replaced_everywhere(value: Any, old: str, new: str) -> Any:
    if isinstance(value, str):
        return value.replace(old, new)
    if isinstance(value, Mapping):
        return {key: _replaced_everywhere(item, old, new) for key, item in value.items()}
    return [_replaced_everywhere(item, old, new) for item in value] if isinstance(value, list) else value


def _texts(value: Any) -> Iterator[str]:
    """Yield all strings in a value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(item)


def _overridden(below: Any, above: Any) -> Any:
    """Merge two values: dictionaries key by key; of other values, `above` wins."""
    if isinstance(below, Mapping) and isinstance(above, Mapping):
        merged = {**below, **above}
        return {key: _overridden(below[key], value) if key in below else value for key, value in merged.items()}
    return above


def merge_parameterisation(below: Mapping[str, Any], above: Mapping[str, Any]) -> Json:
    """Merge two parameterisations: `above` wins, and options of `below` with other names are added."""
    merged = copy.deepcopy(dict(above))
    for kind in ("variables", "data"):
        names = {option["name"] for part in ("presets", "executionOptions") for option in above[part][kind]}
        for part in ("presets", "executionOptions"):
            merged[part][kind] += [copy.deepcopy(option) for option in below[part][kind] if option["name"] not in names]
    if not merged["executionOptions"]["platform"] and merged["presets"].get("platform") is None:
        merged["executionOptions"]["platform"] = list(below["executionOptions"]["platform"])
        if below["presets"].get("platform") is not None:
            merged["presets"]["platform"] = below["presets"]["platform"]
    return merged


def constant_variables(graph: Graph, names: Iterable[str]) -> dict[str, str]:
    """Return the global variables that have the same value on all of these platforms."""
    values: dict[str, set[str]] = {}
    for platform in names:
        for name, value in graph.variables(platform).items() if platform in graph.platforms else ():
            values.setdefault(name, set()).add(str(value))
    return {name: found.pop() for name, found in values.items() if len(found) == 1}
