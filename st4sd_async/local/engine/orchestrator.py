"""
The orchestrator ``elaunch.py`` of st4sd-runtime-core: finding, calling and killing it.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from st4sd_async.local.engine.buckets import S3_VARIABLES, Bucket
from st4sd_async.local.engine.documents import GATEWAY
from st4sd_async.local.engine.forks import IS_AVAILABLE, ForkedProcess, fork_server
from st4sd_async.local.engine.interface import AcceptedStart, Content, write_content
from st4sd_async.local.engine.processes import ChildProcesses

SCRIPT = "elaunch.py"
# fmt: off
OPTIONS = (
    "applicationDependencySource", "cdbRegistry", "checkExecutables", "cwlFile", "cwlJobOrderFile", "data",
    "datastoreLabel", "discovererMonitorDir", "dockerExecutableOverride", "enableOptimizer", "executionMode",
    "failSafeDelays", "flowConfigPath", "formatPriority", "fuzzyMemoization", "haltFile", "help", "hybrid",
    "ignoreInitializeBackendError", "ignoreTestExecutablesError", "inputs", "instanceName", "killFile",
    "kubernetesArchiveObjects", "kubernetesGarbageCollect", "logLevel", "manifest", "metadata",
    "mongoAuthsource", "mongoCollection", "mongoDatabase", "mongoEndpoint", "mongoPassword", "mongoUser",
    "noKubernetesSecurityContext", "noRestartHooks", "nostamp", "platform", "registerWorkflow", "restageData",
    "restart", "s3AuthBearer64", "s3AuthWithEnvVars", "s3StoreToURI", "useMemoization", "variables", "version",
)
# fmt: on
"""The long options of ``elaunch.py`` 2.7.0. Each may be abbreviated."""
MONITOR = "monitor"
"""Name of the folder, in a run's folder, to which the orchestrator writes reports for the datastore."""
WAIT_FOR_INPUT = ("/bin/sh", "-c", 'read go && exec "$@" < /dev/null', "sh")
"""Prefix that delays a command until it reads a line, so that the guard knows the process before it does anything."""
MODULES = {
    "package": ["experiment.model.storage"],
    "components": ["experiment.model.storage", "experiment.model.data"],
    SCRIPT: ["experiment.runtime.control", "experiment.runtime.monitor", "experiment.service.db", "experiment.test"],
}
"""Command of the inspection script, or the orchestrator -> modules that it needs and that take long to import."""
INSPECTION_TIMEOUT = 60.0
"""Timeout of the inspection script in seconds. It takes 0.1 s, and 2 s if it imports its modules."""
KILL_TIMEOUT = 1.0
"""Seconds to wait for the end of a killed process group."""
POLL_INTERVAL = 0.05
"""Seconds between two checks of a process group that is ending."""


class WaitingProcess(subprocess.Popen[bytes]):
    """A process that waits for `begin`."""

    def begin(self) -> None:
        """Let the program begin."""
        if self.stdin is not None:
            self.stdin.write(b"go\n")
            self.stdin.close()


Process: TypeAlias = WaitingProcess | ForkedProcess
"""A process of the orchestrator."""


@dataclass(frozen=True)
class Orchestrator:
    """An installed ``elaunch.py``."""

    python: str
    """The Python interpreter whose environment has its libraries."""
    script: str
    """The path of the script."""

    def inspect(self, *arguments: str, folder: Path, processes: ChildProcesses) -> Any:
        """
        Run the script ``inspection.py`` and return its output.

        Args:
            arguments: The command and arguments of the script.
            folder: The working directory.
            processes: Runs the process.

        Raises:
            RuntimeError: The script failed or took too long; the message contains the end of its output.
        """
        command = [self.python, str(Path(__file__).with_name("inspection.py")), *arguments]
        try:
            done = processes.run(command, cwd=folder, timeout=INSPECTION_TIMEOUT, modules=MODULES.get(arguments[0], ()))
            return json.loads(done.stdout)
        except OSError as error:
            raise RuntimeError(f"cannot read {arguments[-1]!r}: {error}") from error
        except subprocess.TimeoutExpired as error:
            raise RuntimeError(f"reading {arguments[-1]!r} took over {INSPECTION_TIMEOUT:g} s") from error
        except ValueError as error:
            text = done.stderr.decode(errors="replace")[-500:]
            raise RuntimeError(f"reading {arguments[-1]!r} failed: {text}") from error

    def read_package(
        self, package: Path, manifest: Path | None, *, folder: Path, processes: ChildProcesses
    ) -> dict[str, Any]:
        """Return the facts that a package declares; see `inspect` for the other arguments and errors."""
        arguments = ["package", str(package), *([str(manifest)] if manifest else [])]
        declared: dict[str, Any] = self.inspect(*arguments, folder=folder, processes=processes)
        return declared

    def command_line(self, start: AcceptedStart, name: str, package: Path, folder: Path) -> list[str]:
        """
        Return the command line of a run, in the order used by the cluster's operator.

        Args:
            start: The start.
            name: The name of the instance directory without its suffix.
            package: The folder of the package.
            folder: The folder of the run, after `write_start_files`.
        """
        line = [self.python, self.script]
        for filename in start.inputs:
            line += ["-i", _escaped(_start_file(folder, "input", filename))]
        if start.variables:
            line += ["-a", str(_variables_file(folder))]
        for filename in start.data if start.flowir is None else ():
            line += ["-d", _escaped(_start_file(folder, "data", filename))]
        line += ["-l15", "--nostamp", "--instanceName", name]
        # Without artificial pauses, a small experiment of two stages takes 4 s instead of 14 s.
        line += ["--failSafeDelays=no"]
        line += ["--registerWorkflow=y", f"--discovererMonitorDir={folder / MONITOR}", f"--datastoreLabel={GATEWAY}"]
        if start.platform:
            line += [f"--platform={start.platform}"]
        line += start.options
        # All components execute, because the search for earlier results needs a datastore without credentials.
        line += ["--useMemoization=no"]
        line += [f"-m{key}:{value}" for key, value in start.all_metadata.items()]
        config = start.package.get("base", {}).get("packages", [{}])[0].get("config") or {}
        if config.get("manifestPath"):
            line += [f"--manifest={package / config['manifestPath'].lstrip('/')}"]
        return [*line, str(package / (config.get("path") or "").lstrip("/"))]

    def start(self, start: AcceptedStart, name: str, package: Path, folder: Path) -> Process:
        """
        Start a run, whose arguments are those of `command_line`. It does nothing before `begin`.

        Raises:
            OSError: It cannot be started.
        """
        command, environment = self.command_line(start, name, package, folder), self.environment(start, name, folder)
        with (folder / "elaunch.log").open("wb") as log:
            if IS_AVAILABLE and not start.environment:  # which may have variables that Python reads when it starts
                server = fork_server(self.python)
                return server.start(
                    command[1:], modules=MODULES[SCRIPT], folder=folder, environment=environment, log=log
                )
            return WaitingProcess(
                [*WAIT_FOR_INPUT, *command],
                cwd=folder,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def environment(self, start: AcceptedStart, name: str, folder: Path) -> dict[str, str]:
        """Return the environment of the orchestrator, which components inherit."""
        return {
            **os.environ,
            # Components that call "python3" expect the interpreter of the orchestrator.
            "PATH": os.pathsep.join([str(Path(self.python).parent), os.environ.get("PATH", os.defpath)]),
            # The orchestrator leaves a temporary file behind.
            "TMPDIR": str(folder / "temporary"),
            # The orchestrator writes the status here if its command line is invalid.
            "INSTANCE_DIR_NAME": str(folder / f"{name}.instance"),
            # Ignores the user's default arguments.
            "FLOWCONFIG_PATH": os.devnull,
            **_store_credentials(start),
            **start.environment,
        }


def unknown_option(options: Sequence[str]) -> str | None:
    """Return the first long option that the orchestrator would reject; None if it accepts all."""
    for option in options:
        name = option.removeprefix("--").partition("=")[0]
        if option.startswith("--") and name and not any(known.startswith(name) for known in OPTIONS):
            return f"--{name}"
    return None


def find_orchestrator() -> Orchestrator:
    """
    Return the ``elaunch.py`` beside this interpreter; if it is missing, the first one on PATH.

    Raises:
        ImportError: ``elaunch.py`` is not installed.
    """
    beside = Path(sys.executable).parent / SCRIPT
    if beside.is_file():
        return Orchestrator(sys.executable, str(beside))
    for folder in os.environ.get("PATH", "").split(os.pathsep):
        script = Path(folder) / SCRIPT
        python = shutil.which("python", path=folder) or shutil.which("python3", path=folder)
        if folder and script.is_file() and python:
            return Orchestrator(python, str(script))
    raise ImportError(
        f'engine="elaunch" needs {SCRIPT} beside {sys.executable!r} or on PATH: pip install "st4sd_async[engine]"'
    )


def write_start_files(start: AcceptedStart, folder: Path) -> None:
    """Write the files to which the command line of a run refers."""
    for kind, files in (("input", start.inputs), ("data", start.data)):
        for filename, content in files.items():
            write_content(content, _start_file(folder, kind, filename))
    if start.variables:
        # JSON is YAML.
        text = json.dumps({"global": dict(start.variables)}, ensure_ascii=False)
        write_content(text, _variables_file(folder))
    (folder / "temporary").mkdir(parents=True, exist_ok=True)


def write_lambda_package(start: AcceptedStart, folder: Path) -> Path:
    """Write the package of an unregistered experiment, and return its folder."""
    package = folder / "lambda.package"
    files: dict[str, Content] = {
        "conf/flowir_package.yaml": json.dumps(start.flowir, ensure_ascii=False),  # JSON is YAML
        **{f"data/{Path(name).name}": content for name, content in start.data.items()},
        **{f"bin/{Path(name).name}": text for name, text in start.scripts.items()},
    }
    for name, content in files.items():
        path = package / name
        write_content(content, path)
        path.chmod(0o755 if name.startswith("bin/") else 0o644)
    return package


def kill_group(process: Process) -> None:
    """
    Kill the process group of a process, and wait at most `KILL_TIMEOUT` for its end.

    The orchestrator starts components in a shell. On SIGTERM it ends the shell, but not the component.
    """
    deadline = time.monotonic() + KILL_TIMEOUT
    with contextlib.suppress(ProcessLookupError, PermissionError, subprocess.TimeoutExpired):
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(KILL_TIMEOUT)
        while time.monotonic() < deadline:
            os.killpg(process.pid, 0)
            time.sleep(POLL_INTERVAL)


def _store_credentials(start: AcceptedStart) -> dict[str, str]:
    """Return the variables that the orchestrator needs to upload key-outputs."""
    bucket = start.store.target if start.store else None
    if not isinstance(bucket, Bucket):
        return {}
    keys = (bucket.access_key_id, bucket.endpoint, bucket.secret_access_key)
    return dict(zip(S3_VARIABLES, keys, strict=True))


def _start_file(folder: Path, kind: str, filename: str) -> Path:
    """Return the path to write a file of a start to; only the last part of its name is used."""
    return folder / "start" / kind / Path(filename).name


def _variables_file(folder: Path) -> Path:
    return _start_file(folder, "input", "st4sd-variables.yaml")


def _escaped(path: Path) -> str:
    """Return a path for ``-i`` and ``-d`` with escaped colons; a bare colon would begin a new name for the file."""
    return str(path).replace("\\", "\\\\").replace(":", "\\:")
