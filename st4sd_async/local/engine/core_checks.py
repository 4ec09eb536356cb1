"""
Check and convert definitions with the libraries of st4sd-runtime-core, as the service does.

The first check imports libraries, which takes 0.5 s and 40 MB. The first conversion takes 1 s and 100 MB.

Source:
    st4sd-runtime-service, ``apis/kernel/internal_experiments.py``, ``apis/kernel/library.py``,
    ``apis/kernel/experiments.py`` and ``LambdaExperimentFactory``.
"""

from __future__ import annotations

import copy
import importlib
import json
import logging
import pickle
import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache, lru_cache, wraps
from types import SimpleNamespace
from typing import Any, ParamSpec, TypeVar

from pydantic import ValidationError

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

MAX_RESULTS = 64
"""Number of results of a function that are remembered; a check of a small package takes 30 ms."""
_LOGGER = "flowir"
"""Name of the libraries' logger. It logs whole components for each problem, which the checks return anyway."""
_MODULES = r"(.*[/\\])?experiment[./\\]"
"""Pattern of modules whose warnings are ignored: their names, and their paths in warnings of the compiler."""
_lock = threading.Lock()
"""Held during a check, because the libraries are not thread-safe."""


def find_dsl_problems(definition: Any) -> list[dict[str, Any]] | None:
    """
    Return the problems of a definition in DSL 2.0, in the form of the service's responses.

    None means that the libraries are not installed, or failed. For example, an argument of 1.5 is a `TypeError`.
    """
    with _quiet_libraries() as core:
        if core is None:
            return None
        try:
            namespace = core.dsl.Namespace.model_validate(copy.deepcopy(definition))
            return [{"problem": str(error)} for error in core.dsl.namespace_to_flowir(namespace).validate()]
        except ValidationError as error:
            return _from_pydantic(error)
        except core.errors.DSLInvalidError as error:
            return [_renamed(problem) for problem in error.errors()]
        except Exception:  # of any class
            return None


def find_graph_problems(definition: Any, arguments: Mapping[str, Any] | None = None) -> list[dict[str, Any]] | None:
    """
    Return the problems of a graph of the library, in the form of the service's responses.

    None means that the libraries are not installed, or failed.

    Args:
        definition: The graph in DSL 2.0.
        arguments: Arguments of its entrypoint. None means that only the schema is checked.
    """
    with _quiet_libraries() as core:
        if core is None:
            return None
        try:
            namespace = core.dsl.Namespace.model_validate(copy.deepcopy(definition))
            if arguments is not None:
                core.dsl.lightweight_validate(namespace=namespace, override_entrypoint_args=dict(arguments))
            return []
        except ValidationError as error:
            return _from_pydantic(error)
        except core.errors.DSLInvalidError as error:
            return [_renamed(problem) for problem in error.errors()]
        except Exception:  # of any class
            return None


def _remembered(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """
    Return a function that remembers the latest results by the content of the arguments.

    It remembers nothing for arguments that cannot be pickled, such as a generator.
    """

    @lru_cache(MAX_RESULTS)
    def by_content(content: bytes) -> bytes:
        arguments, options = pickle.loads(content)
        return pickle.dumps(function(*arguments, **options))

    @wraps(function)
    def remembered(*arguments: Arguments.args, **options: Arguments.kwargs) -> Result:
        try:
            content = pickle.dumps((arguments, options))
        except (RecursionError, TypeError, AttributeError, pickle.PicklingError):
            return function(*arguments, **options)
        result: Result = pickle.loads(by_content(content))
        return result

    return remembered


@_remembered
def find_flowir_problems(
    definition: Any, platform: str | None = None, folders: Collection[str] = ()
) -> list[str] | None:
    """
    Return the problems of a definition in FlowIR; None if the libraries are not installed.

    Args:
        definition: The definition, as parsed from YAML.
        platform: The platform to check. None means the default platform.
        folders: Names of the folders of its package.
    """
    with _quiet_libraries() as core:
        if core is None:
            return None
        try:
            concrete = core.flowir.FlowIRConcrete(copy.deepcopy(definition), platform, {})
            return [str(error) for error in concrete.validate(list(folders))]
        except Exception as error:  # of any class, as in the service
            return [str(error)]


@_remembered
def dsl_from_flowir(flowir: Mapping[str, Any], folders: Iterable[str], platform: str | None) -> dict[str, Any] | None:
    """
    Return the DSL 2.0 of a definition in FlowIR; None if the libraries are not installed, or reject the definition.

    Independent steps keep the order of the definition; in the service their order is random. The result contains
    ordered dictionaries, which a YAML file leaves unsorted, and ordinary ones, which it sorts.

    Args:
        flowir: The definition.
        folders: Names of the folders of its package.
        platform: The platform whose variables to use. None means the default platform.
    """
    with _quiet_libraries() as core:
        if core is None:
            return None
        try:
            graphs = importlib.import_module("experiment.model.graph")
            graph = graphs.WorkflowGraph.graphFromFlowIR(
                with_stage_numbers(copy.deepcopy(dict(flowir))),
                manifest={folder: f"{folder}:copy" for folder in folders},
                documents=None,
                platform=platform,
                primitive=True,
                variable_substitute=False,
            )
            return _ordered(graph.to_dsl(), graph.graph, flowir)
        except Exception:  # of any class
            return None


def with_stage_numbers(flowir: Mapping[str, Any]) -> dict[str, Any]:
    """Return FlowIR that was parsed from JSON with integers as the keys of stages."""
    numbered = {**flowir, "status-report": _numbered(flowir.get("status-report") or {})}
    for section in ("variables", "blueprint"):
        platforms = (flowir.get(section) or {}).items()
        numbered[section] = {
            name: {**values, "stages": _numbered(values["stages"])} if "stages" in values else values
            for name, values in platforms
        }
    return numbered


def _numbered(stages: Mapping[Any, Any]) -> dict[Any, Any]:
    return {int(stage) if str(stage).isdecimal() else stage: value for stage, value in stages.items()}


def _ordered(dsl: dict[str, Any], graph: Any, flowir: Mapping[str, Any]) -> dict[str, Any]:
    """Return a definition with its steps in an order that is the same in every process."""
    networkx = importlib.import_module("networkx")
    components = (f"stage{component.get('stage', 0)}.{component['name']}" for component in flowir["components"])
    positions = {name: position for position, name in enumerate(components)}
    order = [*networkx.lexicographical_topological_sort(graph, key=lambda name: positions.get(name, 0))]
    workflow = dsl["workflows"][0]
    workflow["steps"] = OrderedDict((name, workflow["steps"][name]) for name in order)
    workflow["execute"].sort(key=lambda call: order.index(call["target"].strip("<>")))
    dsl["components"].sort(key=lambda component: order.index(component["signature"]["name"]))
    return dsl


def complete_dsl(definition: Mapping[str, Any]) -> dict[str, Any] | None:
    """
    Return a definition in DSL 2.0, with the defaults of FlowIR in components and with its files as arguments.

    None means that the libraries are not installed, or reject the definition.
    """
    with _quiet_libraries() as core:
        if core is None:
            return None
        try:
            namespace = core.dsl.Namespace.model_validate(copy.deepcopy(dict(definition)))
            namespace.components = [_completed(component, core) for component in namespace.components]
            _add_files(namespace)
            return dict(namespace.model_dump(by_alias=True))
        except Exception:  # of any class
            return None


def _completed(component: Any, core: SimpleNamespace) -> Any:
    values = core.flowir.FlowIR.default_component_structure()
    for key in ("stage", "references", "executors"):
        del values[key]
    own = component.model_dump(by_alias=True, exclude_unset=True, exclude_defaults=True)
    core.flowir.FlowIR.override_object(values, own)
    return core.dsl.Component(**values)


def _add_files(namespace: Any) -> None:
    """Add the arguments of the entrypoint that are files: ``input.x.csv`` is ``input/x.csv``."""
    if not namespace.entrypoint or not namespace.entrypoint.execute:
        return
    entry = namespace.get_template(namespace.entrypoint.entryInstance)
    files = [parameter.name for parameter in entry.signature.parameters]
    arguments = {name: name.replace(".", "/", 1) for name in files if name.startswith(("input.", "data."))}
    namespace.entrypoint.execute[0].args = {**(namespace.entrypoint.execute[0].args or {}), **arguments}


def _from_pydantic(error: ValidationError) -> list[dict[str, Any]]:
    return [_renamed(problem) for problem in json.loads(error.json(include_url=False, include_context=False))]


def _renamed(problem: dict[str, Any]) -> dict[str, Any]:
    """Return a problem in the form of the service's responses."""
    other = {key: value for key, value in problem.items() if key not in ("msg", "loc", "ctx", "url")}
    return {**other, "message": problem["msg"], "location": [*problem["loc"]]}


@contextmanager
def _quiet_libraries() -> Iterator[SimpleNamespace | None]:
    """Hold the lock, suppress the logs and warnings of this thread, and yield the libraries, or None."""
    with _lock:
        thread = threading.get_ident()

        def is_other_thread(_record: logging.LogRecord) -> bool:
            return threading.get_ident() != thread

        # catch_warnings would restore filters that another thread has replaced.
        warnings.filterwarnings("ignore", module=_MODULES)
        logger = logging.getLogger(_LOGGER)
        logger.addFilter(is_other_thread)
        try:
            yield _import_libraries()
        finally:
            logger.removeFilter(is_other_thread)


@cache
def _import_libraries() -> SimpleNamespace | None:
    try:
        return SimpleNamespace(
            dsl=importlib.import_module("experiment.model.frontends.dsl"),
            flowir=importlib.import_module("experiment.model.frontends.flowir"),
            errors=importlib.import_module("experiment.model.errors"),
        )
    except Exception:  # a broken installation may fail in any way
        return None
