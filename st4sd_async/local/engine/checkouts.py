"""
Clones of packages, one folder a commit, and what they declare.
"""

from __future__ import annotations

import re
import shutil
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from st4sd_async.local.engine.children import Run
from st4sd_async.local.engine.git import GitFailed, git
from st4sd_async.local.engine.interface import PackageFacts, PackageProblem
from st4sd_async.local.engine.orchestrator import Orchestrator

CLONE_TIMEOUT = 50.0
"""Seconds one git command may take; the proxy in front of the real service gives up after 60."""
COMMIT = re.compile(r"[0-9a-f]{40}")
USER_INFO = re.compile(r"://[^/@\s]+@")


class Checkouts:
    """The packages below one folder; safe to share between threads."""

    def __init__(self, folder: Path, orchestrator: Orchestrator, run: Run) -> None:
        """
        Make the folder, nothing else.

        Args:
            folder: Will hold the clones.
            orchestrator: Is asked what a package declares.
            run: Runs the processes for all that.
        """
        self._folder = folder
        self._run = run
        self._orchestrator = orchestrator
        self._answers: dict[tuple[str, str, str], dict[str, Any]] = {}
        self._lock = threading.Lock()
        folder.mkdir(parents=True, exist_ok=True)

    def facts(self, definition: Mapping[str, Any]) -> PackageFacts:
        """
        Clone the package of a definition and tell what it declares.

        Raises:
            PackageProblem: It cannot be cloned, or what it holds is not a valid virtual experiment.
        """
        base = _base_package(definition)
        try:
            package, commit = self._clone(base)
        except GitFailed as error:
            raise PackageProblem(_clone_problem(base, error)) from error
        answer = self._answer(package, commit, base.get("config") or {})
        platforms = _checked_platforms(answer, definition, str(base.get("name", "main")))
        first = next(iter(platforms.values()))
        return PackageFacts(
            version=commit,
            inputs=tuple(first["inputs"]),
            data=tuple(answer["data"]),
            outputs=tuple(answer["outputs"]),
            platforms=tuple(answer["platforms"]),
            variables={name: entry["variables"] for name, entry in answer["platforms"].items() if entry["variables"]},
            interface=answer["interface"],
        )

    def package(self, definition: Mapping[str, Any]) -> Path:
        """
        The folder of a definition's package, cloned again only if it is not there any more.

        Raises:
            GitFailed: It had to be cloned, and that failed.
        """
        base = _base_package(definition)
        git_source = base["source"]["git"]
        kept = self._path(git_source["location"], str(git_source.get("version")))
        return kept if kept.is_dir() else self._clone(base)[0]

    def _path(self, location: Mapping[str, Any], commit: str) -> Path:
        """Where a commit lies; the last part is the repository's name, which becomes the experiment's."""
        return self._folder / commit / (Path(str(location.get("url")).rstrip("/")).name or "package")

    def _clone(self, base: Mapping[str, Any]) -> tuple[Path, str]:
        """Clone a package; its folder and commit."""
        location = base["source"]["git"]["location"]
        wanted = str(location.get("commit") or "")
        if COMMIT.fullmatch(wanted) and self._path(location, wanted).is_dir():
            return self._path(location, wanted), wanted
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
        """Get the one commit that a location names into a new folder."""
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
        """Run git with the user's own configuration, which may hold a proxy or credentials."""
        return git(*arguments, run=self._run, folder=folder, timeout=CLONE_TIMEOUT, users_config=True)

    def _answer(self, package: Path, commit: str, config: Mapping[str, Any]) -> dict[str, Any]:
        """What the orchestrator's libraries say about a package, asked once a commit."""
        path, manifest = str(config.get("path") or ""), str(config.get("manifestPath") or "")
        key = (commit, path, manifest)
        if key not in self._answers:
            question = ["package", str(package / path.lstrip("/"))]
            question += [str(package / manifest.lstrip("/"))] if manifest else []
            try:
                self._answers[key] = self._orchestrator.question(*question, folder=self._folder, run=self._run)
            except RuntimeError as error:
                raise PackageProblem(str(error)) from error
        answer = self._answers[key]
        if "problem" in answer:
            text = f"There is no valid virtual experiment at base.config={dict(config)}: {answer['problem']}"
            raise PackageProblem(text)
        return answer


def _base_package(definition: Mapping[str, Any]) -> Mapping[str, Any]:
    """The only base package of a definition; `PackageProblem` if this engine cannot run it."""
    packages = definition.get("base", {}).get("packages", [])
    if len(packages) != 1:
        raise PackageProblem(f"This server runs experiments of 1 base package, this one has {len(packages)}")
    base: Mapping[str, Any] = packages[0]
    if not (base.get("source") or {}).get("git"):
        kinds = sorted(base.get("source") or {})
        raise PackageProblem(f"This server gets packages from git only, the source of this one is {kinds}")
    return base


def _clone_problem(base: Mapping[str, Any], error: GitFailed) -> str:
    """The words of the service for a package that cannot be cloned, without credentials in the url."""
    location = {key: value for key, value in base["source"]["git"]["location"].items() if value}
    output = f"git-stderr: {error.stderr or error}\ngit-stdout:  {error.stdout}"
    text = (
        f"Cannot git-clone with location {location} without using any oauth credentials. Double check that "
        f"the location is correct and set to public. Underlying error: Unable to clone - {output}"
    )
    return USER_INFO.sub("://***@", text)


def _checked_platforms(
    answer: Mapping[str, Any], definition: Mapping[str, Any], name: str
) -> dict[str, dict[str, Any]]:
    """The platforms that a definition allows, by default all; `PackageProblem` if one is bad."""
    known: dict[str, dict[str, Any]] = answer["platforms"]
    parameters = definition.get("parameterisation") or {}
    preset = (parameters.get("presets") or {}).get("platform")
    asked = [preset] if preset else (parameters.get("executionOptions") or {}).get("platform") or list(known)
    for platform in asked:
        if platform in known and known[platform]["errors"]:
            raise PackageProblem(
                f"Invalid platform {platform} in base package {name}. Consider updating the parameterisation "
                "configuration to exclude invalid platforms - " + "\n".join(known[platform]["errors"])
            )
    if unknown := sorted(set(asked) - set(known)):
        raise PackageProblem(f"There are no platforms {unknown} in the base package, only {sorted(known)}")
    chosen = {platform: known[platform] for platform in asked}
    if len({tuple(entry["inputs"]) for entry in chosen.values()}) > 1:
        raise PackageProblem(f"The platforms {sorted(chosen)} do not agree on the names of the input files")
    return chosen
