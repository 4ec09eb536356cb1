"""
A script that reads packages and instances with the orchestrator's libraries, and prints JSON.

It runs in another process, with the interpreter that ``elaunch.py`` is installed for, because importing these libraries
takes 1.4 s and 150 MB.

    package FOLDER [MANIFEST]     what a package declares on each platform, or why it cannot be read
    yaml FILE                     a YAML file
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


def read_yaml(path: str) -> Any:
    """Return the content of a YAML file."""
    yaml = importlib.import_module("yaml")
    with Path(path).open(encoding="utf-8") as file:
        return yaml.safe_load(file)


def read_components(gateway: str, folder: str) -> list[dict[str, Any]]:
    """Return the documents about all components of an instance, as the orchestrator reports them."""
    storage, data = (importlib.import_module(f"experiment.model.{name}") for name in ("storage", "data"))
    directory = storage.ExperimentInstanceDirectory(folder, attempt_shadowdir_repair=False)
    instance = data.Experiment(directory, updateInstanceConfiguration=False, is_instance=True)
    documents = instance.generate_document_description(gateway)
    return [document for document in documents if document["type"] == "component"]


def read_package(folder: str, manifest: str | None = None) -> dict[str, Any]:
    """
    Return what a package declares.

    Returns:
        ``outputs`` (sorted names), ``data`` (sorted names), ``interface`` and ``platforms``: name -> result of
        `read_platform`. If the definition cannot be loaded, only ``problem``, a text.
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
        return {
            "outputs": sorted(concrete.get_output()),
            "data": sorted(path.name for path in data.iterdir() if path.is_file()) if data.is_dir() else [],
            "interface": concrete.get_interface() or {},
            "platforms": {name: read_platform(concrete, name, folders) for name in concrete.platforms},
        }
    except Exception as error:  # the libraries raise many kinds
        return {"problem": f"{type(error).__name__} {error}"}


def read_platform(concrete: Any, name: str, folders: list[str]) -> dict[str, Any]:
    """Return ``errors`` (texts), ``inputs`` (sorted names) and ``variables`` (name -> default) of a platform."""
    try:
        concrete.configure_platform(name)
        errors = [str(error) for error in concrete.validate(folders)]
        inputs = set().union(*(_inputs(concrete, component) for component in _components(concrete)))
        variables = _variables(concrete, name)
    except Exception as error:  # see above
        return {"errors": [str(error)], "inputs": [], "variables": {}}
    return {"errors": errors, "inputs": sorted(inputs), "variables": variables}


def _components(concrete: Any) -> Any:
    """Return the identifiers of all components of the current platform."""
    return concrete.get_component_identifiers(recompute=True, include_documents=True)


def _inputs(concrete: Any, component: Any) -> set[str]:
    """Return the input files that a component refers to: ``input/x.csv:copy`` is ``x.csv``."""
    flowir = importlib.import_module("experiment.model.frontends.flowir").FlowIR
    raw = concrete.get_component_configuration(
        component, raw=True, is_primitive=True, include_default=True, inject_missing_fields=True
    )
    references = raw.get("references", [])
    # A reference may contain variables that only a start provides.
    with contextlib.suppress(Exception):
        references = flowir.fill_in(references, raw["variables"], flowir=None, label="references", is_primitive=True)
    paths = [str(reference).rsplit(":", 1)[0] for reference in references]
    return {path.removeprefix("input/") for path in paths if path.startswith("input/")}


def _variables(concrete: Any, platform: str) -> dict[str, str]:
    """Return the global variables that a platform sets, with references to other variables replaced."""
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
    "yaml": read_yaml,
    "components": read_components,
}


def main(command: str, *arguments: str) -> None:
    """Print the result of a command."""
    with contextlib.redirect_stdout(sys.stderr):  # the libraries print
        result = COMMANDS[command](*arguments)
    sys.stdout.write(json.dumps(result, default=str))


if __name__ == "__main__":
    main(*sys.argv[1:])
