"""Processes of a script that begin with a client imported."""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path
from typing import Self

from tests.forks import ROOT, Forked, Forks

LAZY = (
    "_strptime",
    "anyio._backends._asyncio",
    "importlib.metadata",
    "st4sd_async._batch.batch",
    "st4sd_async._batch.keyed_start",
    "st4sd_async._http.engine",
    "st4sd_async._http.tls",
    "st4sd_async._payload.check",
    "st4sd_async._payload.explain",
    "st4sd_async._results.downloads",
    "st4sd_async._results.outputs",
    "st4sd_async._results.parts",
    "st4sd_async._results.properties",
    "st4sd_async._results.staging",
    "st4sd_async.models.datastore",
    "st4sd_async.models.failures",
    "tenacity",
    "tests.faults.built",
)
"""Modules that are imported on their first use, and one that builds the models of the others."""


def environment() -> dict[str, str]:
    """
    Return the environment of a process that is started before a test, without proxies and settings of Python.

    Pydantic has no plugins there, which each fork would search for in all installed distributions.
    """
    kept = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    others = {name: value for name, value in kept.items() if not name.startswith("PYTHON")}
    return {**others, "PYTHONPATH": str(ROOT), "PYDANTIC_DISABLE_PLUGINS": "1"}


class Scripts:
    """Runs a script in one process after another. Used as ``with``."""

    def __init__(self, module: str) -> None:
        self._forks = Forks(module, [module, *LAZY], environment())
        self._last: Forked | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._last is not None:
            self._last.kill()
        self._forks.close()

    def spawn(self, *words: str, errors: Path | None = None) -> Forked:
        """
        Start the script.

        Args:
            words: Its arguments.
            errors: File to which its stderr is appended. None means a pipe.
        """
        if errors is None:
            self._last = self._forks.start(words, ROOT, environment())
        else:
            with errors.open("a") as file:
                self._last = self._forks.start(words, ROOT, environment(), errors=file.fileno())
        return self._last


def wait_until_ready(process: Forked) -> None:
    """Wait until the script prints ``ready``."""
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n", process.communicate()[1]


def import_all() -> None:
    """Import what a client uses, so that no child imports it anew."""
    for name in LAZY:
        import_module(name)
