"""
FlowIR, the language of definitions in packages: defaults, platforms, inheritance and references of components.

Definitions are dictionaries as parsed from JSON: the keys of stages are strings. All functions are pure.

Source:
    st4sd-runtime-core, ``experiment/model/frontends/flowir.py``; a test compares the two.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

Flowir = dict[str, Any]
Component = dict[str, Any]

DEFAULT = "default"
"""The platform whose values apply to all other platforms, unless those override them."""
SPECIAL_FOLDERS = ("input", "data", "bin", "conf")
"""Folders of an instance directory. A reference to such a folder is not a reference to a component."""
OUTPUT_METHOD = ":output"
_VARIABLE = re.compile(r"%\(([a-zA-Z0-9_.-]+)\)s")
_REPLICA = "replica"
FIELDS = (
    *("application-dependencies", "blueprint", "components", "environments", "interface", "output", "platforms"),
    *("status-report", "variables", "version", "virtual-environments"),
)
"""Top-level fields of a definition."""
_PER_PLATFORM = ("environments", "application-dependencies", "variables", "blueprint", "virtual-environments")
_VERSION = "0.3.0"
_INTERPRETERS = {
    "bash": "",
    "javascript": "python -m experiment.interpreter_js ",
    "cwl": "python -m experiment.interpreter_cwl ",
    "cwlcmdline": "python -m experiment.interpreter_cwl_cmdline ",
}
"""Interpreter -> the program and options that precede the arguments."""
_BYTES = {"Mi": 1024**2, "Gi": 1024**3}


def _to_bytes(memory: Any) -> int:
    """Return the number of bytes in a string such as ``100Mi``."""
    unit = _BYTES.get(str(memory)[-2:], 1)
    return int(str(memory)[:-2] if unit > 1 else memory) * unit


_DEFAULTS: Component = {
    "stage": 0,
    "references": [],
    "variables": {},
    "command": {
        "executable": None,
        "arguments": "",
        "resolvePath": False,
        "expandArguments": "double-quote",
        "interpreter": None,
    },
    "executors": {"pre": [], "main": [], "post": []},
    "resourceRequest": {
        "numberProcesses": 1,
        "numberThreads": 1,
        "ranksPerNode": 1,
        "threadsPerCore": 1,
        "memory": None,
        "gpus": None,
    },
    "resourceManager": {
        "config": {"backend": "local", "walltime": 60.0},
        "docker": {"image": None, "imagePullPolicy": "Always", "platform": None},
        "kubernetes": {
            "image": None,
            "qos": None,
            "image-pull-secret": None,
            "namespace": "default",
            "api-key-var": None,
            "host": "http://localhost:8080",
            "cpuUnitsPerCore": None,
            "gracePeriod": None,
            "podSpec": None,
        },
        "lsf": {
            "statusRequestInterval": 20.0,
            "queue": "normal",
            "reservation": None,
            "resourceString": None,
            "dockerImage": None,
            "dockerProfileApp": None,
            "dockerOptions": None,
        },
    },
    "workflowAttributes": {
        "restartHookFile": None,
        "aggregate": False,
        "replicate": None,
        "isMigratable": False,
        "isMigrated": False,
        "repeatInterval": None,
        "repeatRetries": 3,
        "maxRestarts": None,
        "shutdownOn": [],
        "isRepeat": False,
        "restartHookOn": ["ResourceExhausted"],
        "optimizer": {
            "disable": False,
            "exploitChance": 0.9,
            "exploitTarget": 0.75,
            "exploitTargetLow": 0.25,
            "exploitTargetHigh": 0.5,
        },
        "memoization": {"embeddingFunction": None, "disable": {"strong": False, "fuzzy": False}},
    },
}
"""The fields that every component inherits."""
_NUMBERS: Mapping[tuple[str, str], Callable[[Any], int | float]] = {
    ("lsf", "statusRequestInterval"): float,
    ("kubernetes", "cpuUnitsPerCore"): float,
    ("kubernetes", "gracePeriod"): int,
    ("resourceRequest", "memory"): _to_bytes,
    ("config", "walltime"): float,
    **dict.fromkeys(
        [
            *(("resourceRequest", name) for name in _DEFAULTS["resourceRequest"] if name != "memory"),
            *(("workflowAttributes", name) for name in ("replicate", "repeatInterval", "repeatRetries", "maxRestarts")),
        ],
        int,
    ),
}
"""Section and field -> type of the fields that are numbers once references to variables are replaced."""


@dataclass(frozen=True)
class Reference:
    """A reference of a component, such as ``stage0.Compute/energies.csv:ref`` or ``input/molecules.csv:copy``."""

    stage: int | None
    """The stage of the component that produces the file; None for a file of the package or the start."""
    producer: str
    """The name of that component, or the path of the file."""
    path: str | None
    """The path in the component's directory; None for the whole directory, its output, or a file of the package."""
    method: str
    """How the component uses the file: "ref", "copy", "link", "extract", "output", "loopref" or "loopoutput"."""

    @property
    def target(self) -> str:
        """The target of the reference: a component with its stage, or the path of a file."""
        return self.producer if self.stage is None else f"stage{self.stage}.{self.producer}"

    def __str__(self) -> str:
        path = "" if self.path is None else f"/{self.path}"
        return f"{self.target}{path}:{self.method}"


def parse_reference(text: str, stage: int | None = None, folders: Iterable[str] = ()) -> Reference:
    """
    Parse a reference.

    Args:
        text: The reference.
        stage: The stage of references without a stage. None means that they are paths of files.
        folders: Folders of the package in addition to `SPECIAL_FOLDERS`.
    """
    target, _, method = text.rpartition(":")
    if target.startswith("/"):
        folder, _, name = target.rpartition("/")
        return Reference(None, folder, name, method)
    producer, slash, path = target.partition("/")
    absolute = re.fullmatch(r"stage(\d+)\.(.+)", producer)
    if absolute:
        return Reference(int(absolute[1]), absolute[2], path if slash else None, method)
    if producer in SPECIAL_FOLDERS:
        return Reference(None, target, None, method)
    is_file = stage is None or producer in folders or _VARIABLE.search(producer)
    return Reference(None if is_file else stage, producer, path if slash else None, method)


def with_defaults(flowir: Mapping[str, Any], folders: Iterable[str] = ()) -> Flowir:
    """Return a definition with all sections and platforms, in the form that the orchestrator uses in memory."""
    folders = [*folders, *dependency_folders(flowir)]
    components = [_normalized(component, folders) for component in flowir.get("components") or ()]
    interface, sections = flowir.get("interface"), {name: dict(flowir.get(name) or {}) for name in _PER_PLATFORM}
    names = platforms(flowir)
    for name in names:
        own = sections["variables"].get(name) or {}
        sections["variables"][name] = {"global": own.get("global") or {}, "stages": own.get("stages") or {}}
        sections["environments"].setdefault(name, {})
    sections["blueprint"].setdefault(DEFAULT, {})
    if interface is not None:
        spec = interface.get("inputSpec") or {}
        given = {"description": "", **interface, "inputSpec": {**spec, "hasAdditionalData": False, **spec}}
        # Defaults come after the fields of the package, as in the orchestrator.
        interface = {**given, "additionalInputData": None, "inputs": None, "outputFiles": [], **given}
    return {
        **flowir,
        **sections,
        "interface": interface,
        "output": flowir.get("output") or {},
        "platforms": names,
        "components": components,
        "status-report": _stage_weights(flowir.get("status-report") or {}, components),
        "version": flowir.get("version", _VERSION),
    }


def _stage_weights(report: Mapping[str, Any], components: list[Component]) -> dict[str, Any]:
    """Return the weights of all stages; equal weights if those of the package do not add up to 1."""
    stages = [str(stage) for stage in range(max((component["stage"] for component in components), default=-1) + 1)]
    entries = {stage: {"stage-weight": 0.0, **(report.get(stage) or {})} for stage in stages}
    if stages and sum(int(entry["stage-weight"] * 1000) for entry in entries.values()) != 1000:
        for entry in entries.values():
            entry["stage-weight"] = 1000 // len(stages) / 1000
        entries[stages[-1]]["stage-weight"] = (1000 - (len(stages) - 1) * (1000 // len(stages))) / 1000
    return {**report, **entries}


def _normalized(component: Mapping[str, Any], folders: Iterable[str]) -> Component:
    stage = int(component.get("stage") or 0)
    references = [str(parse_reference(text, stage, folders)) for text in component.get("references") or ()]
    attributes = component.get("workflowAttributes") or {}
    if "repeatInterval" in attributes:
        attributes = {**attributes, "isRepeat": attributes["repeatInterval"] not in (None, 0)}
    changes = {"references": references, "workflowAttributes": attributes}
    return {"stage": stage, **component, **{name: value for name, value in changes.items() if value}}


def platforms(flowir: Mapping[str, Any]) -> list[str]:
    """Return the names of all platforms, sorted; "default" always exists."""
    named = [name for section in _PER_PLATFORM for name in flowir.get(section) or ()]
    return sorted({DEFAULT, *named, *(flowir.get("platforms") or ())})


def global_variables(flowir: Mapping[str, Any], platform: str) -> dict[str, Any]:
    """Return the global variables of a platform."""
    return {**_section(flowir, "variables", DEFAULT, "global"), **_section(flowir, "variables", platform, "global")}


def stage_variables(flowir: Mapping[str, Any], platform: str, stage: str) -> dict[str, Any]:
    """Return the variables of a stage on a platform, without global variables."""
    default = _stage_section(flowir, "variables", DEFAULT, stage)
    return {**default, **_stage_section(flowir, "variables", platform, stage)}


def component_variables(
    flowir: Mapping[str, Any], component: Mapping[str, Any], platform: str, users: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """
    Return the variables of a component.

    Variables of the user override those of the package, but not those of the component itself.
    """
    stage = str(component.get("stage", 0))
    layers = [
        _section(flowir, "variables", DEFAULT, "global"),
        _stage_section(flowir, "variables", DEFAULT, stage),
        _section(flowir, "variables", platform, "global"),
        _stage_section(flowir, "variables", platform, stage),
        users or {},
        component.get("variables") or {},
        _override(component, platform).get("variables") or {},
    ]
    return {name: value for layer in layers for name, value in layer.items()}


def inherited(
    flowir: Mapping[str, Any], component: Mapping[str, Any], platform: str, users: Mapping[str, Any] | None = None
) -> Component:
    """Return a component with all inherited fields; references to variables stay."""
    stage = str(component.get("stage", 0))
    result: Component = {}
    for layer in (
        _DEFAULTS,
        _section(flowir, "blueprint", DEFAULT, "global"),
        _stage_section(flowir, "blueprint", DEFAULT, stage),
        _section(flowir, "blueprint", platform, "global"),
        _stage_section(flowir, "blueprint", platform, stage),
        component,
        _override(component, platform),
    ):
        result = _overlay(result, layer)
    result["variables"] = component_variables(flowir, component, platform, users)
    interval = result["workflowAttributes"].get("repeatInterval")
    result["workflowAttributes"]["isRepeat"] = interval not in (None, 0)
    if result["command"].get("interpreter"):
        result["command"] = _interpreted(result["command"])
    return result


def _interpreted(command: Mapping[str, Any]) -> dict[str, Any]:
    """Return the command of a component with an interpreter: program and arguments of the interpreter."""
    changes = {"expandArguments": "none"}
    if command.get("executable") is None and command["interpreter"] in _INTERPRETERS:
        line = f"{_INTERPRETERS[command['interpreter']]}{command.get('arguments') or ''}"
        quote = line[:1] if line[:1] in ("'", '"') and line.find(line[:1], 1) > 0 else " "
        program, _, arguments = line.removeprefix(quote).partition(quote)
        changes |= {"executable": program, "arguments": arguments}
    return {**command, **changes}


def fill_in(value: Any, variables: Mapping[str, Any]) -> Any:
    """Replace the references to variables in all strings of a value; unknown references stay."""
    if isinstance(value, str):
        return _fill_in_text(value, variables, ())
    if isinstance(value, Mapping):
        return {name: fill_in(item, variables) for name, item in value.items()}
    return [fill_in(item, variables) for item in value] if isinstance(value, list) else value


def _fill_in_text(text: str, variables: Mapping[str, Any], enclosing: tuple[str, ...]) -> str:
    def replacement(match: re.Match[str]) -> str:
        name = match[1]
        if name not in variables or name in enclosing:
            return match[0]
        return _fill_in_text(str(variables[name]), variables, (*enclosing, name))

    return _VARIABLE.sub(replacement, text)


def resolved(component: Mapping[str, Any]) -> Component:
    """Return the result of `inherited` with variables replaced, as in the document about the component."""
    variables = component["variables"]
    filled: Component = {name: fill_in(value, variables) for name, value in component.items() if name != "override"}
    filled["command"]["arguments"] = str(filled["command"]["arguments"])
    return {name: _with_numbers(value, name) for name, value in filled.items()}


def _with_numbers(value: Any, section: str) -> Any:
    if not isinstance(value, dict) or section == "variables":
        return value
    return {name: _number(item, section, name) for name, item in value.items()}


def _number(value: Any, section: str, name: str) -> Any:
    if isinstance(value, dict):
        return _with_numbers(value, name)
    convert = _NUMBERS.get((section, name))
    if convert is None or value is None or isinstance(value, bool):
        return value
    try:
        return convert(value)
    except ValueError:
        return value


def find_problems(flowir: Mapping[str, Any], folders: Iterable[str] = ()) -> list[str]:
    """
    Return the problems of a definition, worded as by the orchestrator, which checks more.

    Problems are components without a name or a program, components with the same name, references to unknown
    components, and unknown fields at the top level.
    """
    components = [component for component in flowir.get("components", []) if isinstance(component, dict)]
    ids = [(component.get("stage", 0), component.get("name")) for component in components]
    for stage, name in ids:
        if name is None:
            fields = "Missing fields: {'name': 'str'}. Extra fields: {}. Invalid fields: {}."
            return [f"stage{stage}.None is invalid. {fields}Component does not have a valid ID"]
        if ids.count((stage, name)) > 1:
            return [f"Inconsistent FlowIR: Component stage{stage}.{name} exists multiple times in FlowIR description"]
    unknown = [_unknown_field(name) for name in flowir if name not in FIELDS]
    missing = [*filter(None, (_missing_executable(flowir, component) for component in flowir.get("components", [])))]
    if unknown or missing or not all(isinstance(stage, int) for stage, _ in ids):
        return [*unknown, *missing]
    known_folders = [*folders, *dependency_folders(flowir)]
    return [*filter(None, (_unknown_references(component, ids, known_folders) for component in components))]


def _unknown_field(name: str) -> str:
    close = difflib.get_close_matches(name, FIELDS)
    hint = f", did you mean {close[0]}?" if close else ""
    return f"Invalid key FlowIR.{name}{hint} - valid choices are {list(FIELDS)}"


def _missing_executable(flowir: Mapping[str, Any], component: Any) -> str:
    fields = component if isinstance(component, dict) else {}
    command = fields.get("command")
    if isinstance(command, dict) or command is None:
        blueprint = _section(flowir, "blueprint", DEFAULT, "global").get("command") or {}
        command = _overlay(blueprint, command)
        if command.get("interpreter") and command.get("executable") is None:
            return ""
    executable = command.get("executable") if isinstance(command, dict) else None
    if isinstance(executable, str):
        return ""
    where = f"stage{fields.get('stage', 0)}.{fields.get('name')}.command.executable"
    return f"Invalid value {where}={executable!r} - valid choices are [\"<class 'str'>\"]"


def _unknown_references(component: Component, ids: list[tuple[Any, Any]], folders: list[str]) -> str:
    stage = component.get("stage", 0)
    texts = [text for text in component.get("references") or () if ":" in str(text)]
    references = [parse_reference(text, stage, folders) for text in texts]
    known = [f"stage{index}.{name}" for index, name in ids]
    unknown = [reference.target for reference in references if reference.stage is not None]
    unknown = sorted({target for target in unknown if target not in known})
    name = f'"stage{stage}.{component["name"]}"'
    return f"Unknown reference(s) {unknown} by {name}. Known components: {known}" if unknown else ""


def input_names(flowir: Mapping[str, Any], platform: str) -> list[str]:
    """Return the names of the input files that components refer to, sorted."""
    references = [
        parse_reference(text)
        for component in flowir["components"]
        for text in fill_in(list(component.get("references") or ()), component_variables(flowir, component, platform))
    ]
    paths = [reference.producer for reference in references if reference.stage is None]
    return sorted({path.removeprefix("input/") for path in paths if path.startswith("input/")})


def images(flowir: Mapping[str, Any], platform: str) -> list[str]:
    """Return the container images of the components that use one on a platform, sorted."""
    found = set()
    for component in flowir["components"]:
        inherited_component = inherited(flowir, component, platform)
        manager = fill_in(inherited_component["resourceManager"], inherited_component["variables"])
        backend = manager["config"]["backend"]
        found.add({"kubernetes": manager["kubernetes"]["image"], "lsf": manager["lsf"]["dockerImage"]}.get(backend))
    return sorted(str(image) for image in found if image and not _VARIABLE.search(str(image)))


def dependencies(flowir: Mapping[str, Any], platform: str) -> list[str]:
    """Return the application dependencies of a platform."""
    entries = flowir.get("application-dependencies") or {}
    return list(entries.get(platform, entries.get(DEFAULT)) or ())


def dependency_folders(flowir: Mapping[str, Any]) -> list[str]:
    """Return the names of the folders of application dependencies, on any platform: ``/x/Tool.app`` is ``tool``."""
    names = [name for entries in (flowir.get("application-dependencies") or {}).values() for name in entries or ()]
    return sorted({PurePath(str(name)).stem.lower() for name in names})


def expanded(
    flowir: Mapping[str, Any], platform: str, folders: Iterable[str], users: Mapping[str, Any] | None = None
) -> list[Component]:
    """
    Return the components of a run in the order of their stages: inherited, resolved, and replicated.

    A component with ``replicate`` exists once for each replica, with the number of the replica at the end of its name.
    So do the components that depend on it. A component with ``aggregate`` exists once, and refers to all replicas.
    """
    components = [inherited(flowir, component, platform, users) for component in flowir["components"]]
    components.sort(key=lambda component: int(component["stage"]))
    counts = _replica_counts(components, list(folders))
    replicated = {name for name, (count, is_aggregate) in counts.items() if count and not is_aggregate}
    copies = []
    for component in components:
        count, is_aggregate = counts[_full_name(component)]
        if count and not is_aggregate:
            copies += [_replica(component, index, count, replicated, list(folders)) for index in range(count)]
        else:
            copies.append(_aggregate(component, counts, replicated, list(folders)))
    return [resolved(copy) for copy in copies]


def _full_name(component: Mapping[str, Any]) -> str:
    return f"stage{component['stage']}.{component['name']}"


def _references(component: Mapping[str, Any], folders: list[str]) -> Iterator[Reference]:
    """Yield the references of a component to other components."""
    for text in component["references"]:
        reference = parse_reference(text, int(component["stage"]), folders)
        if reference.stage is not None:
            yield reference


def _replica_counts(components: list[Component], folders: list[str]) -> dict[str, tuple[int, bool]]:
    """Return component -> the number of its replicas or of those that it aggregates, and whether it aggregates."""
    by_name = {_full_name(component): component for component in components}
    counts: dict[str, tuple[int, bool]] = {}

    def count(name: str, enclosing: tuple[str, ...]) -> tuple[int, bool]:
        if name not in by_name or name in enclosing:
            return 0, False
        if name not in counts:
            component = by_name[name]
            attributes = fill_in(component["workflowAttributes"], component["variables"])
            found = [_integer(attributes["replicate"])]
            for reference in _references(component, folders):
                inherited_count, is_aggregate = count(reference.target, (*enclosing, name))
                found.append(0 if is_aggregate else inherited_count)
            counts[name] = max(found), str(attributes["aggregate"]).lower() in ("true", "yes", "y")
        return counts[name]

    for name in by_name:
        count(name, ())
    return counts


def _integer(value: Any) -> int:
    try:
        return int(value)
    except (TypeError, ValueError):
        return 0


def _replica(component: Component, index: int, count: int, replicated: set[str], folders: list[str]) -> Component:
    changes = {
        str(reference): [index] for reference in _references(component, folders) if reference.target in replicated
    }
    copy = _replace_references(component, changes)
    copy["name"] = f"{component['name']}{index}"
    copy["variables"] = {**copy["variables"], _REPLICA: index}
    copy["workflowAttributes"] = {**copy["workflowAttributes"], "replicate": count}
    return copy


def _aggregate(
    component: Component, counts: Mapping[str, tuple[int, bool]], replicated: set[str], folders: list[str]
) -> Component:
    changes = {
        str(reference): list(range(counts[reference.target][0]))
        for reference in _references(component, folders)
        if reference.target in replicated
    }
    return _replace_references(component, changes)


def _replace_references(component: Component, changes: Mapping[str, list[int]]) -> Component:
    """Replace references of a component by references to replicas; `changes` has the numbers of the replicas."""
    if not changes:
        return dict(component)
    texts: dict[str, str] = {}
    for text, indices in changes.items():
        reference = parse_reference(text)
        replicas = [
            str(Reference(reference.stage, f"{reference.producer}{index}", reference.path, reference.method))
            for index in indices
        ]
        texts[text] = texts[text.partition(".")[2]] = " ".join(replicas)
    pattern = re.compile("|".join(re.escape(text) for text in sorted(texts, key=len, reverse=True)))

    def replace(value: Any) -> Any:
        if isinstance(value, str):
            return pattern.sub(lambda match: texts[match[0]], value)
        if isinstance(value, Mapping):
            return {name: replace(item) for name, item in value.items()}
        return [replace(item) for item in value] if isinstance(value, list) else value

    result: Component = replace(component)
    result["references"] = [part for text in result["references"] for part in text.split(" ")]
    return result


def _section(flowir: Mapping[str, Any], section: str, platform: str, scope: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = (((flowir.get(section) or {}).get(platform) or {}).get(scope)) or {}
    return found


def _stage_section(flowir: Mapping[str, Any], section: str, platform: str, stage: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = _section(flowir, section, platform, "stages").get(stage) or {}
    return found


def _override(component: Mapping[str, Any], platform: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = (component.get("override") or {}).get(platform) or {}
    return found


def _overlay(below: Any, above: Any) -> Any:
    """Merge two values: dictionaries key by key; of other values, `above` wins unless it is null."""
    if isinstance(below, Mapping) and isinstance(above, Mapping | None):
        above = above or {}
        return {
            **{name: _overlay(value, above.get(name)) for name, value in below.items()},
            **{
                name: _overlay({}, value) if isinstance(value, Mapping) else value
                for name, value in above.items()
                if name not in below
            },
        }
    return below if above is None else above
