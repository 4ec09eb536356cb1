"""
Read packages without st4sd-runtime-core, and return what ``inspection.py`` reports.

Packages in FlowIR and DSL 2.0 are supported, unless they import other documents. DOSINI and CWL are not.

Source:
    st4sd-runtime-core, ``experiment/model/conf.py`` (``ExperimentConfigurationFactory``).
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path, PurePath
from typing import Any

from st4sd_async.local.engine import flowir as language
from st4sd_async.local.engine.core_checks import find_dsl_problems, find_flowir_problems
from st4sd_async.local.engine.dsl_to_flowir import flowir_from_dsl
from st4sd_async.local.engine.interface import PackageContent
from st4sd_async.local.simulator.components import EXECUTED

FLOWIR_FILE, DSL_FILE = "conf/flowir_package.yaml", "conf/dsl.yaml"
OTHER_FILES = {"conf/cwl/main.cwl": "CWL", "conf/experiment.conf": "DOSINI"}
"""Definition files that have priority over FlowIR and DSL 2.0 -> the language of the package."""

UNUSABLE = (AttributeError, IndexError, KeyError, RecursionError, TypeError, ValueError)
"""Exceptions raised if a definition lacks fields or has values of the wrong type."""
_INVALID_DSL = (
    "ExperimentInvalidConfigurationError The DSL 2.0 definition of the experiment is invalid\nUnderlying error:\n"
)


class UnsupportedPackage(Exception):
    """A package that the simulator cannot read; the message says why."""


def read_package(package: Path, manifest: Path | None = None) -> dict[str, Any]:
    """
    Return the facts that a package declares; see `Reader`.

    Args:
        package: The folder of the package, or the file of its definition.
        manifest: The file that names the folders of the package. None means the folders in `package`.

    Raises:
        UnsupportedPackage: The package is written in another language, or imports documents.
    """
    try:
        folders = package_folders(package, manifest)
        definition = _load(_definition_file(package))
        if _is_dsl(definition) and (problem := _dsl_problem(find_dsl_problems(_as_json(definition)) or [])):
            return {"problem": problem}
        content = _content(definition, folders)
    except (OSError, *UNUSABLE) as error:
        return {"problem": f"{type(error).__name__} {error}"}
    flowir, data = content.flowir, folders.get("data")
    checked = definition if content.dsl is None else flowir_from_dsl(content.dsl)
    return {
        "outputs": sorted(flowir["output"]),
        "data": sorted(path.name for path in data.iterdir() if path.is_file()) if data and data.is_dir() else [],
        "interface": flowir["interface"] or {},
        "platforms": {name: _read_platform(checked, flowir, name, folders) for name in flowir["platforms"]},
        "flowir": flowir,
        "dsl": content.dsl,
        "folders": list(content.folders),
    }


def read_content(package: Path) -> PackageContent:
    """Return the content of a package that is known to be valid, without checks."""
    return _content(_load(_definition_file(package)), package_folders(package))


def made_up_parts(content: PackageContent, outputs: Collection[str], *, has_properties: bool) -> list[str]:
    """
    Return what runs of a package lack or make up, because its programs are not executed.

    Args:
        content: The content of the package.
        outputs: The key-outputs with a described content.
        has_properties: Whether the properties are described.
    """
    components = content.flowir["components"]
    executables = [str((component.get("command") or {}).get("executable")) for component in components]
    if all(PurePath(executable).name in EXECUTED for executable in executables):
        return []
    interface = content.flowir["interface"] or {}
    properties = [str(spec.get("name")) for spec in interface.get("propertiesSpec") or ()]
    parts = {
        "the content of these key-outputs is made up": [
            name for name in content.flowir["output"] if name not in outputs
        ],
        "these properties are not measured": [] if has_properties else properties,
        "its hooks are not used": ["hooks/"] if "hooks" in content.folders and interface else [],
    }
    return [f"{what}: {', '.join(sorted(names))}" for what, names in parts.items() if names]


def _content(definition: Mapping[str, Any], folders: Mapping[str, Path]) -> PackageContent:
    dsl = _as_json(definition) if _is_dsl(definition) else None
    flowir = language.with_defaults(_as_json(definition) if dsl is None else flowir_from_dsl(dsl), folders)
    if any("$import" in component for component in flowir["components"]):
        raise UnsupportedPackage("its components import documents")
    return PackageContent(flowir, dsl, tuple(sorted({*folders, *language.dependency_folders(flowir)})))


def _definition_file(package: Path) -> Path:
    """Return the file of the definition, which may not exist; raise `UnsupportedPackage` for another language."""
    if package.is_file():
        return package
    other = next((language for file, language in OTHER_FILES.items() if (package / file).is_file()), None)
    if other is not None:
        raise UnsupportedPackage(f"it is written in {other}")
    return package / (DSL_FILE if (package / DSL_FILE).is_file() else FLOWIR_FILE)


def _is_dsl(definition: Mapping[str, Any]) -> bool:
    return "entrypoint" in definition or "workflows" in definition


def _dsl_problem(problems: list[dict[str, Any]]) -> str | None:
    """Return the problems of a definition in DSL as one string; None if only its FlowIR has problems."""
    places = ["/".join(map(str, problem["location"])) for problem in problems if "location" in problem]
    texts = [problem["message"] for problem in problems if "location" in problem]
    if not texts:
        return None
    lines = [f"DSL Error at {place}: {text}" for place, text in zip(places, texts, strict=True)]
    return "\n".join([f"{_INVALID_DSL} (DSLInvalidError) DSL contains {len(texts)} error(s):", *lines])


def _as_json(value: Any) -> Any:
    return json.loads(json.dumps(value, default=str))


def package_folders(package: Path, manifest: Path | None = None) -> dict[str, Path]:
    """Return folder of the instance directory -> folder of the package, without ``.git``."""
    folders = (
        {path.name: path for path in package.iterdir() if path.is_dir() and path.name != ".git"}
        if package.is_dir()
        else {}
    )
    entries = _load(manifest) if manifest else {}
    # Relative to the folder that contains the package.
    named = {str(name): package.parent / str(source).rsplit(":", 1)[0] for name, source in entries.items()}
    return {**named, **folders}


def _load(file: Path) -> dict[str, Any]:
    """Return the content of a YAML file; raise `ValueError` if it is not a mapping."""
    import yaml

    try:
        content = yaml.load(file.read_text(encoding="utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except yaml.YAMLError as error:
        raise ValueError(f"Configuration contains malformed YAML: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{file.name} must contain a mapping, not {type(content).__name__}")
    return content


def _read_platform(
    definition: Mapping[str, Any], flowir: Mapping[str, Any], name: str, folders: Mapping[str, Path]
) -> dict[str, Any]:
    problems: list[str] | None = None
    try:
        variables = language.global_variables(flowir, name)
        own = flowir["variables"][name]["global"]
        problems = find_flowir_problems(definition, name, list(folders))
        return {
            "errors": language.find_problems(flowir, folders) if problems is None else problems,
            "inputs": language.input_names(flowir, name),
            "variables": {key: str(language.fill_in(str(value), variables)) for key, value in own.items()},
            "images": language.images(flowir, name),
            "dependencies": language.dependencies(flowir, name),
        }
    except UNUSABLE as error:
        errors = problems or [f"{type(error).__name__} {error}"]
        return {"errors": errors, "inputs": [], "variables": {}, "images": [], "dependencies": []}
