"""
The example experiments that come with the embedded ST4SD: git repositories, definitions, quick runs.

A definition that is pushed names a git repository, so each example becomes one, in a folder of the
caller's choice and with the same commit id everywhere.
"""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from st4sd_async.local.engine.children import Children
from st4sd_async.local.engine.git import GitFailed, git
from st4sd_async.local.engine.interface import AcceptedStart, PackageFacts
from st4sd_async.local.examples.facts import EXAMPLES, Component, Example
from st4sd_async.local.examples.runs import input_ids, run_example

PACKAGES = Path(__file__).parent
TAG = "1.0.0"
GIT_TIMEOUT = 30.0
"""Seconds one git command may take; the repositories hold a handful of small files."""


class Examples:
    """
    The example experiments as git repositories below one folder; safe to share between threads.

    ``definition("demo")`` is what to push; ``facts`` and ``simulate`` answer for an engine that neither
    clones nor needs an orchestrator.
    """

    def __init__(self, folder: Path) -> None:
        """
        Note where the repositories go; each is made when first asked for.

        Args:
            folder: Will hold one repository an example; made if missing.
        """
        self._folder = folder.absolute()
        self._lock = threading.Lock()

    def names(self) -> list[str]:
        """The names of the examples."""
        return list(EXAMPLES)

    def definition(self, name: str) -> dict[str, Any]:
        """
        The parameterised virtual experiment package to push.

        Raises:
            KeyError: There is no such example.
            RuntimeError: The ``git`` command is missing or fails.
        """
        example = _find(name)
        location = {"url": self._repository(name).as_uri(), "tag": TAG}
        options = {
            "variables": [{"name": variable} for variable in example.variables],
            "data": [{"name": filename} for filename in example.data],
        }
        return {
            "base": {"packages": [{"name": "main", "source": {"git": {"location": location}}}]},
            "metadata": {
                "package": {
                    "name": name,
                    "tags": ["latest"],
                    "maintainer": "someone@example.com",
                    "description": example.description,
                    "keywords": ["example"],
                }
            },
            "parameterisation": {"presets": {}, "executionOptions": options},
        }

    def source(self, url: str) -> Path | None:
        """The folder with the files of the example that `url` is the repository of; None for other urls."""
        parts = urlsplit(url)
        path = Path(unquote(parts.path))
        if parts.scheme != "file" or path.parent != self._folder or path.name not in EXAMPLES:
            return None
        return self._repository(path.name)

    def facts(self, name: str) -> PackageFacts:
        """What a push learns from the package of an example; raises what `definition` raises."""
        example = _find(name)
        return PackageFacts(
            version=_git("rev-parse", "HEAD", folder=self._repository(name)).strip(),
            inputs=example.inputs,
            data=example.data,
            outputs=tuple(sorted(example.outputs)),
            variables={"default": example.variables} if example.variables else {},
            interface=example.interface,
        )

    def components(self, name: str) -> tuple[Component, ...]:
        """The components of an example in the order in which they run."""
        return _find(name).components

    def input_ids(self, name: str, launch: AcceptedStart) -> list[str] | None:
        """The ids of what a run was given, None if the example has no interface that tells."""
        return input_ids(_find(name), launch)

    def failure(self, name: str) -> str | None:
        """The error description of an example whose runs always fail; None if its runs succeed."""
        return _find(name).failure

    def outputs(self, name: str) -> Mapping[str, str]:
        """key-output -> its path in the instance directory; {} for an example whose runs fail."""
        example = _find(name)
        return {} if example.failure else example.outputs

    def simulate(self, name: str, launch: AcceptedStart, directory: Path) -> dict[str, dict[str, str]]:
        """
        The key-outputs of an example that was executed in `directory` without an orchestrator.

        Takes about 0.1 s; blocks. Needs no git.

        Args:
            name: The example.
            launch: Inputs, data and variables; the rest is not looked at.
            directory: The instance directory to fill, made if missing.

        Returns:
            key-output -> entry in the words of the wire; {} if a program failed.
        """
        return run_example(_find(name), PACKAGES / name, launch, directory)

    def _repository(self, name: str) -> Path:
        """The repository of an example, made now if it is not there yet."""
        repository = self._folder / name
        with self._lock:
            if not repository.exists():
                self._folder.mkdir(parents=True, exist_ok=True)
                # Built aside and renamed, so that nobody ever sees half a repository.
                with tempfile.TemporaryDirectory(dir=self._folder, prefix=f".{name}-") as scratch:
                    _make_repository(PACKAGES / name, Path(scratch) / name)
                    (Path(scratch) / name).rename(repository)
        return repository


def _find(name: str) -> Example:
    """The example of that name; a `KeyError` that lists the names otherwise."""
    try:
        return EXAMPLES[name]
    except KeyError:
        raise KeyError(f"no example {name!r}: there are {', '.join(EXAMPLES)}") from None


def _make_repository(package: Path, repository: Path) -> None:
    """Turn the files of a package into a repository with one commit and one tag."""
    shutil.copytree(package, repository, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
    _git("init", "--quiet", "--template=", "--initial-branch=main", folder=repository)
    # File modes and line ends would make the commit id depend on the machine.
    settings = ("-c", "core.fileMode=false", "-c", "core.autocrlf=false", "-c", "commit.gpgSign=false")
    _git(*settings, "add", "--all", folder=repository)
    _git(*settings, "commit", "--quiet", "--message=Example experiment", folder=repository)
    _git("tag", TAG, folder=repository)


def _git(*arguments: str, folder: Path) -> str:
    """What git printed; its failures as `RuntimeError`."""
    try:
        return git(*arguments, run=Children().run, folder=folder, timeout=GIT_TIMEOUT)
    except GitFailed as error:
        raise RuntimeError(f"cannot prepare the example experiments: {error}") from error
