"""
Clones of packages, one folder per commit, and the facts that they declare.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from st4sd_async.local.engine.interface import PackageContent, PackageFacts, PackageProblem
from st4sd_async.local.engine.processes import ChildProcesses, GitFailed, git

Reader = Callable[[Path, Path | None], dict[str, Any]]
"""
Reads a package: the folder or file of the package, its manifest -> the facts that it declares.

The facts are ``data`` and ``outputs`` (sorted names), ``interface``, ``platforms`` (name -> ``errors``, ``inputs``,
``variables``, ``images`` and ``dependencies``), and the fields of `PackageContent`. If the definition cannot be loaded,
the only fact is ``problem``, a string.
"""

GIT_TIMEOUT = 50.0
"""Timeout of a git command in seconds. The proxy of the real service times out after 60 s."""
COMMIT = re.compile(r"[0-9a-f]{40}")
USER_INFO = re.compile(r"://[^/@\s]+@")


class ClonedPackages:
    """Clones of packages below one folder; safe to share between threads."""

    def __init__(self, folder: Path, read: Reader, processes: ChildProcesses) -> None:
        """
        Args:
            folder: The folder of the clones; created by the first clone.
            read: Reads a package.
            processes: Runs git.
        """
        self._folder = folder
        for unfinished in folder.glob(".clone-*"):  # of a server that was killed
            shutil.rmtree(unfinished, ignore_errors=True)
        self._processes = processes
        self._read_declaration = read
        self._declarations: dict[tuple[str, str, str], dict[str, Any]] = {}
        self._current: dict[str, tuple[object, tuple[Path, str]]] = {}
        """location -> the state of its references, and the result of `current` in that state."""
        self._lock = threading.Lock()

    def facts(self, definition: Mapping[str, Any]) -> PackageFacts:
        """
        Clone the package of a definition, unless its commit is known, and return the facts that it declares.

        Raises:
            PackageProblem: Cloning failed, or the package is not a valid virtual experiment.
        """
        base = _base_package(definition)
        try:
            package, commit = self._pushed(definition)
        except GitFailed as error:
            raise PackageProblem(_clone_problem(base, error)) from error
        declared = self._read(package, commit, base.get("config") or {})
        platforms = allowed_platforms(declared, definition, str(base.get("name", "main")))
        check_variables(declared["platforms"], platforms, definition)
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
            images=tuple(sorted({image for platform in platforms.values() for image in platform["images"]})),
            dependencies={
                name: platform["dependencies"]
                for name, platform in declared["platforms"].items()
                if platform["dependencies"]
            },
        )

    def content(self, definition: Mapping[str, Any]) -> PackageContent:
        """
        Return the content of a definition's package; clone and read the package again if it is missing.

        Raises:
            GitFailed: Cloning failed.
            PackageProblem: The package is not a valid virtual experiment.
        """
        base = _base_package(definition)
        version = str(base["source"]["git"].get("version"))
        declared = self._read(self.folder(definition), version, base.get("config") or {})
        return PackageContent(declared["flowir"], declared["dsl"], tuple(declared["folders"]))

    def paths(self, definition: Mapping[str, Any]) -> tuple[Path, Path | None]:
        """
        Return the folder or file of a definition's package, and that of its manifest if it has one.

        Raises:
            GitFailed: Cloning failed.
        """
        return _package_paths(self.folder(definition), _base_package(definition).get("config") or {})

    def folder(self, definition: Mapping[str, Any]) -> Path:
        """
        Return the folder of a definition's package; clone the package again if it is missing.

        Raises:
            GitFailed: Cloning failed.
        """
        base = _base_package(definition)
        git_source = base["source"]["git"]
        cloned = self._path(git_source["location"], str(git_source.get("version")))
        return cloned if cloned.is_dir() else self._clone(base)[0]

    def _pushed(self, definition: Mapping[str, Any]) -> tuple[Path, str]:
        """Return the folder and commit of a package during a push; clone each commit once."""
        try:
            return self.current(definition)
        except GitFailed:
            return self._clone(_base_package(definition))  # fails with the message of "git clone"

    def current(self, definition: Mapping[str, Any]) -> tuple[Path, str]:
        """
        Return the current commit of a definition's package, and its folder.

        A cluster clones the package for each run, so a run has the newest commit of a branch, not the pushed commit.

        Raises:
            GitFailed: The repository or the commit no longer exists.
            PackageProblem: This engine cannot run the package.
        """
        base = _base_package(definition)
        location = base["source"]["git"]["location"]
        key, state = json.dumps(location, sort_keys=True), _references_state(location)
        known, current = self._current.get(key, (None, None))
        if current is not None and state is not None and known == state:
            return current
        commit = self._remote_commit(location) if self._is_cloned(location) else None
        if commit is not None and self._path(location, commit).is_dir():
            current = self._path(location, commit), commit
        else:
            try:
                current = self._clone(base)
            except GitFailed:
                self._remote_commit(location)  # if the repository does not exist, this has the message of a run
                raise
        self._current[key] = (state, current)
        return current

    def _is_cloned(self, location: Mapping[str, Any]) -> bool:
        """Return whether any commit of a repository with the name of this one was cloned."""
        return any(self._path(location, commit.name).is_dir() for commit in self._folder.glob("*"))

    def _remote_commit(self, location: Mapping[str, Any]) -> str | None:
        """Return the current commit of a location in its repository; None if only a clone can find it."""
        name = location.get("branch") or location.get("tag")
        # As for "git clone --branch": branches first. An annotated tag has another id than its commit.
        names = [f"refs/heads/{name}", f"refs/tags/{name}^{{}}", f"refs/tags/{name}"] if name else ["HEAD"]
        lines = self._git("ls-remote", "--", str(location.get("url")), *names).splitlines()
        if location.get("commit") and not name:
            return str(location["commit"])
        commits = {reference: commit for commit, _, reference in (line.partition("\t") for line in lines)}
        return next((commits[reference] for reference in names if reference in commits), None)

    def _path(self, location: Mapping[str, Any], commit: str) -> Path:
        """Return the folder for a commit, named after the repository, because that becomes the experiment's name."""
        return self._folder / commit / (Path(str(location.get("url")).rstrip("/")).name or "package")

    def _clone(self, base: Mapping[str, Any]) -> tuple[Path, str]:
        """Clone a package; return its folder and commit."""
        location = base["source"]["git"]["location"]
        requested = str(location.get("commit") or "")
        if COMMIT.fullmatch(requested) and self._path(location, requested).is_dir():
            return self._path(location, requested), requested
        self._folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self._folder, prefix=".clone-") as scratch:
            clone = Path(scratch) / "main"
            self._fetch(location, clone)
            commit = _head(clone) or self._git("rev-parse", "HEAD", folder=clone).strip()
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
        """Return the facts that a package declares; read the package once per commit."""
        key = (commit, str(config.get("path")), str(config.get("manifestPath")))
        if key not in self._declarations:
            try:
                self._declarations[key] = self._read_declaration(*_package_paths(package, config))
            except RuntimeError as error:
                raise PackageProblem(str(error)) from error
        declared = self._declarations[key]
        if "problem" in declared:
            text = f"There is no valid virtual experiment at base.config={dict(config)}: {declared['problem']}"
            raise PackageProblem(text)
        return declared


def _package_paths(folder: Path, config: Mapping[str, Any]) -> tuple[Path, Path | None]:
    """Return the folder or file of the package in a clone, and its manifest; None if it has no manifest."""
    path, manifest = str(config.get("path") or ""), str(config.get("manifestPath") or "")
    return folder / path.lstrip("/"), folder / manifest.lstrip("/") if manifest else None


def _head(clone: Path) -> str | None:
    """Return the current commit of a clone; None if only git can read it."""
    try:
        head = (clone / ".git" / "HEAD").read_text(encoding="utf-8").strip()
        commit = (clone / ".git" / head[5:]).read_text(encoding="utf-8").strip() if head.startswith("ref: ") else head
    except (OSError, ValueError):
        return None
    return commit if COMMIT.fullmatch(commit) else None


def _references_state(location: Mapping[str, Any]) -> object:
    """
    Return a value that changes whenever the commit of a location in a repository on this machine changes.

    None means that git must be called, because the repository is remote or does not exist. A git process takes
    milliseconds, this function takes microseconds.
    """
    url, name = str(location.get("url")), location.get("branch") or location.get("tag")
    path = Path(unquote(urlsplit(url).path) if url.startswith("file://") else url)
    folder = path / ".git" if (path / ".git").is_dir() else path
    try:
        head = (folder / "HEAD").read_text(encoding="utf-8")
    except (OSError, ValueError):
        return None
    names = [f"refs/heads/{name}", f"refs/tags/{name}"] if name else [head.removeprefix("ref: ").strip()]
    # git replaces these files, so a changed file has a new inode even if its modification time is the same.
    return head, *(_file_state(folder / file) for file in ("packed-refs", "reftable/tables.list", *names))


def _file_state(path: Path) -> tuple[int, ...] | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size, stat.st_ino


def clone_problem(error: GitFailed) -> str:
    """Return the error of the init container that clones the package of a run, without credentials in URLs."""
    text = f"git-sync-package failed with exit code {error.exit_code} and message {error.stderr or error}"
    return USER_INFO.sub("://***@", text)


def _base_package(definition: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the only base package of a definition; raise `PackageProblem` if this engine cannot run it."""
    packages = definition.get("base", {}).get("packages", [])
    if len(packages) != 1:
        raise PackageProblem(f"This server runs only experiments with 1 base package, not {len(packages)}")
    base: Mapping[str, Any] = packages[0]
    if not (base.get("source") or {}).get("git"):
        kinds = sorted(base.get("source") or {})
        raise PackageProblem(f"This server clones packages from git only; the source of this package is {kinds}")
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
        raise PackageProblem(
            f"The experiment parameterisation involves platforms {sorted(allowed)} but the base package(s) contain "
            f"only these valid platforms {sorted(set(allowed) - set(unknown))}"
        )
    chosen = {platform: known[platform] for platform in allowed}
    if len({tuple(platform["inputs"]) for platform in chosen.values()}) > 1:
        raise PackageProblem(f"The platforms {sorted(chosen)} do not agree on the names of the input files")
    return chosen


def check_variables(known: Mapping[str, Any], allowed: Iterable[str], definition: Mapping[str, Any]) -> None:
    """Raise `PackageProblem` if a variable of the definition is missing in the package on one of the platforms."""
    options = (definition.get("parameterisation") or {}).get("executionOptions") or {}
    for platform in allowed:
        for option in options.get("variables") or ():
            if not {platform, "default"} & {name for name in known if option["name"] in known[name]["variables"]}:
                raise PackageProblem(f"There is no {option['name']} variable in platform {platform}")
