"""The command as a user runs it in an empty folder: in its own process and temporary folder, or in this process."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from st4sd_async.cli.app import app
from st4sd_async.cli.serve import push_examples, settings
from st4sd_async.local import LocalServer
from tests.forks import ROOT, Forked, Forks

IMPORTED = (
    *(f"st4sd_async.cli.{name}" for name in ("app", "batch", "demo", "experiments", "packages", "report", "serve")),
    "anyio._backends._asyncio",
    "rich.live",
    "st4sd_async._http.engine",
    "st4sd_async._results.buckets",
    "st4sd_async._results.properties",
    "tenacity",
    # For the embedded server.
    "st4sd_async.local.datastore.gateway",
    "st4sd_async.local.engine.saved_runs",
    "st4sd_async.local.http.app",
    "st4sd_async.local.http.listener",
    "st4sd_async.local.simulator.simulator",
    "st4sd_async.local.runtime.service",
    "uvicorn.lifespan.off",
)
"""Modules, with all that they import, that are imported before commands are started."""


@dataclass
class Command:
    """Starts ``python -m st4sd_async``: a fork of a process that has imported it, or, if it is fresh, a new one."""

    forks: Forks
    folder: Path
    """Where it runs."""
    temporary: Path
    """Its folder for temporary files, empty at first."""
    settings: dict[str, str] = field(default_factory=dict)
    """What else is in its environment."""

    def environment(self, **more: str) -> dict[str, str]:
        return {**basic_environment(), "TMPDIR": str(self.temporary), **self.settings, **more}

    def __call__(self, *arguments: str, timeout: float = 50, is_fresh: bool = False, **environment: str) -> Done:
        """Return the result of a command."""
        with self.popen(*arguments, is_fresh=is_fresh, **environment) as process:
            out, err = process.communicate(timeout=timeout)
        return Done(process.wait(), out, err)

    def popen(self, *arguments: str, is_fresh: bool = False, **environment: str) -> Forked | subprocess.Popen[str]:
        """Start a command with pipes, and return its process."""
        if not is_fresh:
            return self.forks.start(arguments, self.folder, self.environment(**environment))
        return subprocess.Popen(
            [sys.executable, "-m", "st4sd_async", *arguments],
            cwd=self.folder,
            env=self.environment(**environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def left_behind(self) -> list[str]:
        """Return the names of the temporary files that it left."""
        return [path.name for path in self.temporary.iterdir()]


@dataclass(frozen=True)
class Done:
    """The result of a process."""

    returncode: int
    stdout: str
    stderr: str


def basic_environment() -> dict[str, str]:
    """Return what a command needs to be executed."""
    names = ("PATH", "HOME", "LANG", "SYSTEMROOT")
    return {name: os.environ[name] for name in names if name in os.environ} | {"PYTHONPATH": str(ROOT)}


@pytest.fixture(scope="session")
def forks() -> Iterator[Forks]:
    with closing(Forks("st4sd_async", IMPORTED, basic_environment())) as forks:
        yield forks


@pytest.fixture
def command(forks: Forks, tmp_path: Path) -> Command:
    folder, temporary = tmp_path / "work", tmp_path / "temporary"
    folder.mkdir()
    temporary.mkdir()
    return Command(forks, folder, temporary)


COMMAND: Any = get_command(app)
"""The command, made once because that takes longer than most of its calls."""
MOLECULES = "smiles\nCO\nCCO\n"
SPEED = 100
"""Virtual seconds of the deployment in a real one: a run takes 0.05 s."""


def environment_of(server: LocalServer) -> dict[str, str]:
    """Return the settings to connect with."""
    return dict(line.removeprefix("export ").split("=", 1) for line in settings(server))


@pytest.fixture(scope="module")
def deployment() -> Iterator[LocalServer]:
    """A fast server with the experiments ``demo`` and ``fail``."""
    with LocalServer(speed=SPEED) as server:
        asyncio.run(push_examples(server))
        yield server


@dataclass(frozen=True)
class Result:
    """The result of a command."""

    status: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """Standard output as one JSON document."""
        return json.loads(self.out)

    @property
    def lines(self) -> list[Any]:
        """Standard output as JSON lines."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def table(self) -> list[dict[str, str]]:
        """Standard output as a table."""
        columns, *rows = (line.split("\t") for line in self.out.splitlines())
        return [dict(zip(columns, row, strict=True)) for row in rows]


@dataclass
class Shell:
    """Runs the command in this process, with the settings of a server."""

    server: LocalServer

    def __call__(self, *arguments: object, stdin: str = "", **environment: str) -> Result:
        out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", newline="") for _ in range(2))
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
            for name, value in {**environment_of(self.server), **environment}.items():
                patch.setenv(name, value)
            patch.setattr("sys.stdin", io.StringIO(stdin))
            with pytest.raises(SystemExit) as ended:
                COMMAND([*map(str, arguments)], prog_name="st4sd-async")
        for stream in (out, err):
            stream.seek(0)
        return Result(int(ended.value.code or 0), out.read(), err.read())

    def started(self, experiment: str = "demo", *arguments: str) -> str:
        """Start a run, wait until it is over, successful or not, and return its rest-uid."""
        Path("molecules.csv").write_text(MOLECULES)
        inputs = ("--input", "molecules.csv") if experiment == "demo" else ()
        done = self("start", experiment, *inputs, "--watch", "--interval", "0.02", *arguments)
        return done.out.strip()


@pytest.fixture(autouse=True)
def _log() -> Iterator[None]:
    """Undo the changes of the command to the log of this process."""
    logger = logging.getLogger("st4sd_async")
    handlers, level = logger.handlers, logger.level
    yield
    logger.handlers = handlers
    logger.setLevel(level)


@pytest.fixture
def shell(deployment: LocalServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shell]:
    """A shell in an empty folder."""
    monkeypatch.chdir(tmp_path)
    yield Shell(deployment)
    deployment.faults.clear()
