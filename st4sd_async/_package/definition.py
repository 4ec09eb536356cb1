"""
The definition to push for a package in a local folder, which is in a git repository.

The service clones packages itself, so a definition has the URL and the commit of the repository, and no files.
"""

from __future__ import annotations

import json
import math
import re
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from .._errors import InvalidPackage
from .._payload.lambdas import parse_yaml
from .._util.printable import shorten
from .._util.threads import in_thread

DEFINITION_NAMES = ("definition.yaml", "definition.yml", "definition.json")
"""Names of the file, in the folder of a package, with its definition. Missing fields are added."""
FLOWIR_FILE, DSL_FILE = "conf/flowir_package.yaml", "conf/dsl.yaml"
"""Files of a package with its components, in FlowIR and in DSL 2.0."""
GIT_TIMEOUT = 60.0
"""Timeout of a git command in seconds."""
MAX_VALUES = 1_000_000
"""Maximum number of values in a YAML file, with those that aliases repeat."""
TOO_MANY_ALIASES = f"its aliases repeat values until there are more than {MAX_VALUES:,}: write them out"
MAX_LISTED_FILES = 5
"""Maximum number of files in an error message."""
_SSH_URL = re.compile(r"(?:ssh://)?git@([\w.-]+)[:/](?:\d+/)?(.+)")
"""A git URL that needs an SSH key, which the service does not have: host and path."""
_NO_NAME = re.compile(r"[^a-z0-9.-]+")
"""Characters that are invalid in the name of an experiment."""


async def read_definition(path: Path, *, is_local: bool) -> dict[str, Any]:
    """
    Return the definition in a file, or for the package in a folder.

    Args:
        path: A file in JSON or YAML, or a folder. If the definition has no source, the URL and the commit of the
            folder's git repository are added. If a folder contains none of `DEFINITION_NAMES`, its definition allows a
            start to set every variable, replace every data file and choose every platform of the package.
        is_local: Whether the service runs on this machine and can clone from folders.

    Raises:
        InvalidPackage: The file cannot be read, the folder has no package, or the service cannot clone the package: the
            folder is in no repository, it has uncommitted changes, or the commit was not pushed.
        ImportError: The file is YAML, and PyYAML is not installed.
    """
    return await in_thread(_read, path, is_local)


def _read(path: Path, is_local: bool) -> dict[str, Any]:
    folder = path if path.is_dir() else path.parent
    file = find_definition(path)
    definition = {} if file is None else read_mapping(file)
    if file is not None and (kind := components_kind(definition)):
        raise InvalidPackage(f"{str(file)!r} was not pushed: it contains {kind}, not a definition: push its folder")
    if "base" in definition and not _lacks_source(definition["base"]):
        return definition
    base = definition.get("base") or {"packages": [{}]}
    packages = base["packages"]
    source, subfolder = _git_source(folder, is_local=is_local)
    package = {"name": "main", **packages[0], "source": {"git": {"location": source}}}
    if subfolder != ".":
        package["config"] = {"path": f"/{subfolder}", **(package.get("config") or {})}
    metadata = dict(definition.get("metadata") or {})
    name = _NO_NAME.sub("-", folder.resolve().name.lower()).strip("-.")
    metadata["package"] = {"name": name, "tags": ["latest"], **(metadata.get("package") or {})}
    parameterisation = definition.get("parameterisation")
    if parameterisation is None:
        parameterisation = {"presets": {}, "executionOptions": _all_options(folder)}
    return {
        **definition,
        "base": {**base, "packages": [package]},
        "metadata": metadata,
        "parameterisation": parameterisation,
    }


def _lacks_source(base: Any) -> bool:
    """Return whether a definition has one base package without a source."""
    packages = base.get("packages") if isinstance(base, Mapping) else None
    return (
        isinstance(packages, list)
        and len(packages) == 1
        and isinstance(packages[0], Mapping)
        and not packages[0].get("source")
    )


def components_kind(content: Mapping[str, Any]) -> str:
    """Return the language of a file with components of a package; "" for a definition."""
    if "entrypoint" in content or "workflows" in content:
        return "DSL 2.0"
    return "FlowIR" if "components" in content else ""


def find_definition(path: Path) -> Path | None:
    """Return the file with the definition: the path itself, or a file in the folder; None if the folder has none."""
    if not path.is_dir():
        return path
    return next((path / name for name in DEFINITION_NAMES if (path / name).is_file()), None)


def read_mapping(file: Path) -> dict[str, Any]:
    """Return a JSON or YAML file that contains a mapping, or raise `InvalidPackage`."""
    if file.suffix == ".json":
        content, problem = _parse_json(file)
    else:
        content, problem = parse_yaml(file)
    if not problem and not isinstance(content, dict):
        problem = f"it contains a {type(content).__name__}, but a definition is a mapping"
    if not problem and is_huge(content):
        problem = TOO_MANY_ALIASES
    if problem:
        raise InvalidPackage(f"the definition {str(file)!r} is invalid: {problem}")
    return dict(content)


def is_huge(content: Any) -> bool:
    """Return whether the content of a YAML file has more than `MAX_VALUES` values, or contains itself."""
    try:
        return _count(content, {}) > MAX_VALUES
    except RecursionError:
        return True


def _count(content: Any, known: dict[int, float]) -> float:
    """Return the number of values. Each object is visited once, although aliases repeat it."""
    if not isinstance(content, dict | list):
        return 1
    if id(content) not in known:
        known[id(content)] = math.inf  # until it is known, for an object that contains itself
        values = content.values() if isinstance(content, dict) else content
        known[id(content)] = 1 + sum(_count(value, known) for value in values)
    return known[id(content)]


def _parse_json(file: Path) -> tuple[Any, str]:
    """Return the content and the problem of a JSON file, as `parse_yaml` does, with clearer messages."""
    try:
        return json.loads(file.read_text("utf-8")), ""
    except OSError as error:
        return None, f"it cannot be read: {error.strerror}"
    except ValueError as error:  # includes UnicodeDecodeError
        return None, f"it is not JSON: {error}"


def _git_source(folder: Path, *, is_local: bool) -> tuple[dict[str, str], str]:
    """Return URL and commit of the package in a folder, and the folder's path in its repository."""
    top = Path(_git(folder, "rev-parse", "--show-toplevel", advice="make one: git init && git add -A && git commit"))
    if changed := _git(folder, "status", "--porcelain", "--", ".").splitlines():
        more = f" and {len(changed) - MAX_LISTED_FILES} more" if len(changed) > MAX_LISTED_FILES else ""
        names = ", ".join(line.split(maxsplit=1)[1] for line in changed[:MAX_LISTED_FILES])
        raise InvalidPackage(
            f"the package was not pushed: {folder} has uncommitted changes ({names}{more}): commit them "
            "with git add -A && git commit, because the service clones the package"
        )
    commit = _git(folder, "rev-parse", "HEAD", advice="commit the package first: git add -A && git commit")
    url = top.as_uri() if is_local else _remote(folder, commit)
    return {"url": url, "commit": commit}, folder.resolve().relative_to(top.resolve()).as_posix()


def _remote(folder: Path, commit: str) -> str:
    """Return the URL of the remote that has a commit, without credentials."""
    remotes = _git(folder, "remote").split()
    branches = _git(folder, "branch", "--remotes", "--contains", commit).split()
    found = [remote for remote in remotes if any(branch.startswith(f"{remote}/") for branch in branches)]
    if not found:
        where = f"no remote of {folder} has it" if remotes else f"the repository of {folder} has no remote"
        raise InvalidPackage(
            f"the package was not pushed: the service cannot clone commit {commit[:10]}, because {where}: "
            + ("push it with git push" if remotes else "add one with git remote add origin URL, and git push")
        )
    remote = "origin" if "origin" in found else found[0]
    url = _git(folder, "remote", "get-url", remote)
    if match := _SSH_URL.fullmatch(url):
        return f"https://{match[1]}/{match[2]}"
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl() if parts.scheme else url


def _git(folder: Path, *arguments: str, advice: str = "") -> str:
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=folder, capture_output=True, timeout=GIT_TIMEOUT, stdin=subprocess.DEVNULL
        )
    except FileNotFoundError as error:
        what = "git is not installed" if folder.is_dir() else f"there is no folder {str(folder)!r}"
        raise InvalidPackage(f"the package was not pushed: {what}") from error
    except subprocess.TimeoutExpired as error:
        raise InvalidPackage(f"the package was not pushed: git took longer than {GIT_TIMEOUT:g} s") from error
    if done.returncode:
        words = shorten(done.stderr.decode(errors="replace").strip()) or f"git exited with {done.returncode}"
        raise InvalidPackage(f"{words}: the package in {folder} was not pushed" + (f"; {advice}" if advice else ""))
    return done.stdout.decode(errors="replace").rstrip("\n")


def _all_options(folder: Path) -> dict[str, Any]:
    """Return execution options that allow a start to set all options that a package declares."""
    data = folder / "data"
    files = sorted(path.name for path in data.iterdir() if path.is_file()) if data.is_dir() else []
    try:
        variables, platforms = _declarations(folder)
    except (AttributeError, TypeError) as error:  # a number where a mapping or a list is expected, for example
        reason = "its components have the wrong structure; st4sd-async check says where"
        raise InvalidPackage(f"the package was not pushed: {folder}: {reason}") from error
    options: dict[str, Any] = {
        "variables": [{"name": name} for name in variables],
        "data": [{"name": name} for name in files],
    }
    return {**options, "platform": platforms} if len(platforms) > 1 else options


def _declarations(folder: Path) -> tuple[list[str], list[str]]:
    """Return the variables and the platforms that a package declares."""
    if (folder / FLOWIR_FILE).is_file():
        flowir = read_mapping(folder / FLOWIR_FILE)
        by_platform = flowir.get("variables") or {}
        names = {str(name) for each in by_platform.values() for name in (each or {}).get("global") or {}}
        return sorted(names), list(dict.fromkeys(map(str, [*(flowir.get("platforms") or []), *by_platform])))
    if (folder / DSL_FILE).is_file():
        return sorted(_dsl_parameters(read_mapping(folder / DSL_FILE))), []
    raise InvalidPackage(f"the package was not pushed: {folder} has no {FLOWIR_FILE} and no {DSL_FILE}")


def _dsl_parameters(dsl: Mapping[str, Any]) -> Iterator[str]:
    """Yield the parameters of the entry template that are not files."""
    entry = (dsl.get("entrypoint") or {}).get("entry-instance")
    for template in [*(dsl.get("workflows") or []), *(dsl.get("components") or [])]:
        signature = template.get("signature") or {}
        if signature.get("name") == entry:
            names = (str(parameter.get("name")) for parameter in signature.get("parameters") or [])
            yield from (name for name in names if not name.startswith(("input.", "data.")))
