"""
Clones of packages, one folder per commit, and what they declare.
"""

from __future__ import annotations

import re
import shutil
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from st4sd_async.local.engine.interface import PackageFacts, PackageProblem
from st4sd_async.local.engine.orchestrator import Orchestrator
from st4sd_async.local.engine.processes import ChildProcesses, GitFailed, git

GIT_TIMEOUT = 50.0
"""Seconds that a git command may take; the proxy of the real service gives up after 60."""
COMMIT = re.compile(r"[0-9a-f]{40}")
USER_INFO = re.compile(r"://[^/@\s]+@")


class ClonedPackages:
    """The packages below one folder; safe to share between threads."""

    def __init__(self, folder: Path, orchestrator: Orchestrator, processes: ChildProcesses) -> None:
        """
        Create the folder.

        Args:
            folder: The folder of the clones.
            orchestrator: Reads packages.
            processes: Runs git and the inspection script.
        """
        self._folder = folder
        self._processes = processes
        self._orchestrator = orchestrator
        self._declarations: dict[tuple[str, str, str], dict[str, Any]] = {}
        self._lock = threading.Lock()
        folder.mkdir(parents=True, exist_ok=True)

    def facts(self, definition: Mapping[str, Any]) -> PackageFacts:
        """
        Clone the package of a definition and return what it declares.

        Raises:
            PackageProblem: Cloning failed, or it is not a valid virtual experiment.
        """
        base = _base_package(definition)
        try:
            package, commit = self._clone(base)
        except GitFailed as error:
            raise PackageProblem(_clone_problem(base, error)) from error
        declared = self._read(package, commit, base.get("config") or {})
        platforms = allowed_platforms(declared, definition, str(base.get("name", "main")))
        first = next(iter(platforms.values()))
        return PackageFacts(
            version=commit,
            inputs=tuple(first["inputs"]),
            data=tuple(declared["data"]),
            outputs=tuple(declared["outputs"]),
            platforms=tuple(declared["platforms"]),
            variables={
                name: platform["variables"] for name, platform in declared["platforms"].items() if platform["variables"]
            },
            interface=declared["interface"],
        )

    def folder(self, definition: Mapping[str, Any]) -> Path:
        """
        Return the folder of a definition's package; clone it again if it is missing.

        Raises:
            GitFailed: Cloning failed.
        """
        base = _base_package(definition)
        git_source = base["source"]["git"]
        cloned = self._path(git_source["location"], str(git_source.get("version")))
        return cloned if cloned.is_dir() else self._clone(base)[0]

    def _path(self, location: Mapping[str, Any], commit: str) -> Path:
        """Return the folder of a commit; its last part is the repository's name, which becomes the experiment's."""
        return self._folder / commit / (Path(str(location.get("url")).rstrip("/")).name or "package")

    def _clone(self, base: Mapping[str, Any]) -> tuple[Path, str]:
        """Clone a package; return its folder and commit."""
        location = base["source"]["git"]["location"]
        requested = str(location.get("commit") or "")
        if COMMIT.fullmatch(requested) and self._path(location, requested).is_dir():
            return self._path(location, requested), requested
        with tempfile.TemporaryDirectory(dir=self._folder, prefix=".clone-") as scratch:
            clone = Path(scratch) / "main"
            self._fetch(location, clone)
            commit = self._git("rev-parse", "HEAD", folder=clone).strip()
            shutil.rmtree(clone / ".git")
            with self._lock:
                path = self._path(location, commit)
                if not path.is_dir():
                    path.parent.mkdir(exist_ok=True)
                    clone.rename(path)
        return path, commit

    def _fetch(self, location: Mapping[str, Any], clone: Path) -> None:
        """Fetch the commit of a location into a new folder."""
        url, reference = str(location.get("url")), location.get("branch") or location.get("tag")
        if location.get("commit") and not reference:
            clone.mkdir()
            self._git("init", "--quiet", folder=clone)
            self._git("fetch", "--quiet", "--depth=1", "--", url, str(location["commit"]), folder=clone)
            self._git("checkout", "--quiet", "FETCH_HEAD", folder=clone)
        else:
            branch = [f"--branch={reference}"] if reference else []
            self._git("clone", "--depth=1", *branch, "--", url, str(clone))

    def _git(self, *arguments: str, folder: Path | None = None) -> str:
        """Run git with the user's configuration, which may contain a proxy or credentials."""
        return git(*arguments, processes=self._processes, folder=folder, timeout=GIT_TIMEOUT, users_config=True)

    def _read(self, package: Path, commit: str, config: Mapping[str, Any]) -> dict[str, Any]:
        """Return what the orchestrator's libraries read from a package, once per commit."""
        path, manifest = str(config.get("path") or ""), str(config.get("manifestPath") or "")
        key = (commit, path, manifest)
        if key not in self._declarations:
            arguments = ["package", str(package / path.lstrip("/"))]
            arguments += [str(package / manifest.lstrip("/"))] if manifest else []
            try:
                self._declarations[key] = self._orchestrator.inspect(
                    *arguments, folder=self._folder, processes=self._processes
                )
            except RuntimeError as error:
                raise PackageProblem(str(error)) from error
        declared = self._declarations[key]
        if "problem" in declared:
            text = f"There is no valid virtual experiment at base.config={dict(config)}: {declared['problem']}"
            raise PackageProblem(text)
        return declared


def _base_package(definition: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the only base package of a definition; raise `PackageProblem` if this engine cannot run it."""
    packages = definition.get("base", {}).get("packages", [])
    if len(packages) != 1:
        raise PackageProblem(f"This server runs experiments with 1 base package, this one has {len(packages)}")
    base: Mapping[str, Any] = packages[0]
    if not (base.get("source") or {}).get("git"):
        kinds = sorted(base.get("source") or {})
        raise PackageProblem(f"This server clones packages from git only, the source of this one is {kinds}")
    return base


def _clone_problem(base: Mapping[str, Any], error: GitFailed) -> str:
    """Return the service's message for a package that cannot be cloned, without credentials in the URL."""
    location = {key: value for key, value in base["source"]["git"]["location"].items() if value}
    output = f"git-stderr: {error.stderr or error}\ngit-stdout:  {error.stdout}"
    text = (
        f"Cannot git-clone with location {location} without using any oauth credentials. Double check that "
        f"the location is correct and set to public. Underlying error: Unable to clone - {output}"
    )
    return USER_INFO.sub("://***@", text)


def allowed_platforms(
    declared: Mapping[str, Any], definition: Mapping[str, Any], name: str
) -> dict[str, dict[str, Any]]:
    """Return the platforms that a definition allows, by default all; raise `PackageProblem` if one is invalid."""
    known: dict[str, dict[str, Any]] = declared["platforms"]
    parameters = definition.get("parameterisation") or {}
    preset = (parameters.get("presets") or {}).get("platform")
    allowed = [preset] if preset else (parameters.get("executionOptions") or {}).get("platform") or list(known)
    for platform in allowed:
        if platform in known and known[platform]["errors"]:
            raise PackageProblem(
                f"Invalid platform {platform} in base package {name}. Consider updating the parameterisation "
                "configuration to exclude invalid platforms - " + "\n".join(known[platform]["errors"])
            )
    if unknown := sorted(set(allowed) - set(known)):
        raise PackageProblem(f"There are no platforms {unknown} in the base package, only {sorted(known)}")
    chosen = {platform: known[platform] for platform in allowed}
    if len({tuple(platform["inputs"]) for platform in chosen.values()}) > 1:
        raise PackageProblem(f"The platforms {sorted(chosen)} do not agree on the names of the input files")
    return chosen
