"""
A script that reads packages and instances with the orchestrator's libraries and prints JSON.

It runs in another process, with the interpreter that ``elaunch.py`` is installed for, because these libraries take
seconds and 150 MB to import, and log.

    package FOLDER [MANIFEST]     the facts that a package declares on each platform, or why it cannot be read
    components GATEWAY FOLDER     the documents about the components of an instance
"""

from __future__ import annotations

import contextlib
import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def read_components(gateway: str, folder: str) -> list[dict[str, Any]]:
    """Return the documents about all components of an instance, as the orchestrator reports them."""
    storage, data = (importlib.import_module(f"experiment.model.{name}") for name in ("storage", "data"))
    directory = storage.ExperimentInstanceDirectory(folder, attempt_shadowdir_repair=False)
    instance = data.Experiment(directory, updateInstanceConfiguration=False, is_instance=True)
    documents = instance.generate_document_description(gateway)
    return [document for document in documents if document["type"] == "component"]


def read_package(folder: str, manifest: str | None = None) -> dict[str, Any]:
    """
    Return the facts that a package declares.

    Returns:
        ``outputs`` (sorted names), ``data`` (sorted names), ``interface``, ``platforms`` (name -> result of
        `read_platform`), ``flowir``, ``dsl`` (null if it is written in another language) and ``folders``. If the
        definition cannot be loaded, only ``problem``, a string.
    """
    storage = importlib.import_module("experiment.model.storage")
    try:
        # Errors in the definition are collected per platform below.
        package = storage.ExperimentPackage.packageFromLocation(
            location=folder, manifest=manifest, platform=None, validate=False, variable_substitute=False
        )
        concrete = package.configuration.get_flowir_concrete()
        folders = package.configuration.top_level_folders
        data = _data_folder(Path(folder), package.configuration.manifestData)
        namespace = getattr(package.configuration, "dsl_namespace", None)
        return {
            "flowir": concrete.raw(),
            "dsl": namespace and namespace.model_dump(by_alias=True, exclude_unset=True),
            "folders": sorted({name for name in folders if name != ".git"} | _dependency_folders(concrete)),
            "outputs": sorted(concrete.get_output()),
            "data": sorted(path.name for path in data.iterdir() if path.is_file()) if data.is_dir() else [],
            "interface": concrete.get_interface() or {},
            "platforms": {name: read_platform(concrete, name, folders) for name in concrete.platforms},
        }
    except Exception as error:  # the libraries raise errors of many classes
        return {"problem": f"{type(error).__name__} {error}"}


def _dependency_folders(concrete: Any) -> set[str]:
    """Return the names of the folders of application dependencies, on any platform."""
    flowir = importlib.import_module("experiment.model.frontends.flowir").FlowIR
    names = [name for platform in concrete.platforms for name in concrete.get_application_dependencies(platform)]
    return {flowir.application_dependency_to_name(name) for name in names}


def read_platform(concrete: Any, name: str, folders: list[str]) -> dict[str, Any]:
    """
    Return the facts that a package declares on a platform.

    Returns:
        ``errors`` (strings), ``inputs`` (sorted names), ``variables`` (name -> default), ``images`` (sorted names) and
        ``dependencies`` (names).
    """
    try:
        concrete.configure_platform(name)
        errors = [str(error) for error in concrete.validate(folders)]
        components = [_component(concrete, component) for component in _components(concrete)]
        return {
            "errors": errors,
            "inputs": sorted(set().union(*map(_inputs, components))),
            "variables": _variables(concrete, name),
            "images": sorted({image for image in map(_image, components) if image}),
            "dependencies": concrete.get_application_dependencies(name),
        }
    except Exception as error:  # of any class, as above
        return {"errors": [str(error)], "inputs": [], "variables": {}, "images": [], "dependencies": []}


def _components(concrete: Any) -> Any:
    """Return the identifiers of all components of the current platform."""
    return concrete.get_component_identifiers(recompute=True, include_documents=True)


def _component(concrete: Any, component: Any) -> dict[str, Any]:
    """Return a component with all inherited fields."""
    configuration: dict[str, Any] = concrete.get_component_configuration(
        component, raw=True, is_primitive=True, include_default=True, inject_missing_fields=True
    )
    return configuration


def _fill_in(value: Any, component: dict[str, Any]) -> Any:
    """Replace variables in a value; return it unchanged if it contains variables that only a start provides."""
    flowir = importlib.import_module("experiment.model.frontends.flowir").FlowIR
    with contextlib.suppress(Exception):
        return flowir.fill_in(value, component["variables"], flowir=None, label=None, is_primitive=True)
    return value


def _inputs(component: dict[str, Any]) -> set[str]:
    """Return the input files that a component refers to: ``input/x.csv:copy`` is ``x.csv``."""
    references = _fill_in(component.get("references", []), component)
    paths = [str(reference).rsplit(":", 1)[0] for reference in references]
    return {path.removeprefix("input/") for path in paths if path.startswith("input/")}


def _image(component: dict[str, Any]) -> str | None:
    """Return the container image of a component; None if it does not use one."""
    manager = component["resourceManager"]
    images = {"kubernetes": manager["kubernetes"]["image"], "lsf": manager["lsf"]["dockerImage"]}
    image: str | None = _fill_in(images.get(_fill_in(manager["config"]["backend"], component)), component)
    return None if image is None or "%(" in image else image


def _variables(concrete: Any, platform: str) -> dict[str, str]:
    """Return the global variables of a platform, with references to other variables replaced."""
    flowir = importlib.import_module("experiment.model.frontends.flowir").FlowIR
    own = concrete.get_platform_global_variables(platform) or {}
    context = {**concrete.get_default_global_variables(), **own}
    filled = {}
    for name, value in own.items():
        filled[str(name)] = str(value)
        with contextlib.suppress(Exception):
            text = flowir.fill_in(str(value), context, ignore_errors=True, label=None, is_primitive=True)
            filled[str(name)] = str(text)
    return filled


def _data_folder(folder: Path, manifest: dict[str, str]) -> Path:
    """Return the folder of the data files: ``data/`` unless the manifest names another."""
    if "data" not in manifest:
        return folder / "data"
    return folder.parent / manifest["data"].rsplit(":", 1)[0]


COMMANDS: dict[str, Callable[..., Any]] = {
    "package": read_package,
    "components": read_components,
}


def main(command: str, *arguments: str) -> None:
    """Print the result of a command."""
    with contextlib.redirect_stdout(sys.stderr):  # the libraries print to standard output
        result = COMMANDS[command](*arguments)
    sys.stdout.write(json.dumps(result, default=str))


if __name__ == "__main__":
    main(*sys.argv[1:])
