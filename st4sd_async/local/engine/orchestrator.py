"""
The orchestrator ``elaunch.py`` of st4sd-runtime-core: where it is, how it is called, how it is ended.
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
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from st4sd_async.local.datastore.documents import GATEWAY
from st4sd_async.local.engine.children import Run
from st4sd_async.local.engine.interface import AcceptedStart, Content, put
from st4sd_async.local.runtime.storage import S3_VARIABLES, Bucket

SCRIPT = "elaunch.py"
MONITOR = "monitor"
"""The folder of a run's folder into which the orchestrator writes what the datastore should know."""
INSPECTION_TIMEOUT = 60.0
"""Seconds one question to the orchestrator's libraries may take; usual is 2."""
GROUP_TIMEOUT = 1.0
"""Seconds to wait for the kernel to bury a killed process group."""
POLL_INTERVAL = 0.05
"""Seconds between two looks at a process group that is ending."""


@dataclass(frozen=True)
class Orchestrator:
    """An installed ``elaunch.py``."""

    python: str
    """The interpreter that its libraries are installed for."""
    script: str
    """The path of the script."""

    def question(self, *arguments: str, folder: Path, run: Run) -> Any:
        """
        The answer of the inspection script.

        Args:
            arguments: The question.
            folder: Where to run it.
            run: Runs the process.

        Raises:
            RuntimeError: It failed or took too long; with the end of what it wrote.
        """
        program = Path(__file__).with_name("inspection.py").read_text(encoding="utf-8")
        try:
            done = run([self.python, "-c", program, *arguments], cwd=folder, timeout=INSPECTION_TIMEOUT)
            return json.loads(done.stdout)
        except OSError as error:
            raise RuntimeError(f"reading {arguments[-1]!r} was not possible: {error}") from error
        except subprocess.TimeoutExpired as error:
            raise RuntimeError(f"reading {arguments[-1]!r} took over {INSPECTION_TIMEOUT:g} s") from error
        except ValueError as error:
            text = done.stderr.decode(errors="replace")[-500:]
            raise RuntimeError(f"reading {arguments[-1]!r} failed: {text}") from error


def find_orchestrator() -> Orchestrator:
    """
    The ``elaunch.py`` beside this interpreter, else the first one on PATH.

    Raises:
        ImportError: There is none.
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


def instance_name(launch: AcceptedStart, stamp: str) -> str:
    """The name of an instance directory without its suffix: ``demo-c52cd4-2026-11-22T100507.603242``."""
    return f"{launch.stem}-{stamp}"


def command(orchestrator: Orchestrator, launch: AcceptedStart, name: str, package: Path, folder: Path) -> list[str]:
    """
    The command line of one run, in the order that the cluster's operator uses.

    Args:
        orchestrator: What to call.
        launch: The start.
        name: The instance name.
        package: The checked out package.
        folder: The folder of the run, as `lay_out` filled it.
    """
    line = [orchestrator.python, orchestrator.script]
    for filename in launch.inputs:
        line += ["-i", _escaped(_start_file(folder, "input", filename))]
    if launch.variables:
        line += ["-a", str(_variables_file(folder))]
    for filename in launch.data if launch.flowir is None else ():
        line += ["-d", _escaped(_start_file(folder, "data", filename))]
    line += ["-l15", "--nostamp", "--instanceName", name]
    # Without its artificial pauses a two-stage toy takes 4 instead of 14 seconds.
    line += ["--failSafeDelays=no"]
    line += ["--registerWorkflow=y", f"--discovererMonitorDir={folder / MONITOR}", f"--datastoreLabel={GATEWAY}"]
    if launch.platform:
        line += [f"--platform={launch.platform}"]
    line += launch.options
    line += [f"-m{key}:{value}" for key, value in launch.all_metadata.items()]
    config = launch.package.get("base", {}).get("packages", [{}])[0].get("config") or {}
    if config.get("manifestPath"):
        line += [f"--manifest={package / config['manifestPath'].lstrip('/')}"]
    return [*line, str(package / (config.get("path") or "").lstrip("/"))]


def lay_out(launch: AcceptedStart, folder: Path) -> None:
    """Write the files that the command line of a run names."""
    for kind, files in (("input", launch.inputs), ("data", launch.data)):
        for filename, content in files.items():
            put(content, _start_file(folder, kind, filename))
    if launch.variables:
        # JSON is YAML.
        text = json.dumps({"global": dict(launch.variables)}, ensure_ascii=False)
        _variables_file(folder).parent.mkdir(parents=True, exist_ok=True)
        _variables_file(folder).write_text(text, encoding="utf-8")
    (folder / "temporary").mkdir(parents=True, exist_ok=True)


def lay_out_package(launch: AcceptedStart, folder: Path) -> Path:
    """Write the package of an experiment that is in no registry, and return its folder."""
    package = folder / "lambda.package"
    files: dict[str, Content] = {
        "conf/flowir_package.yaml": json.dumps(launch.flowir, ensure_ascii=False),  # JSON is YAML
        **{f"data/{Path(name).name}": text for name, text in launch.data.items()},
        **{f"bin/{Path(name).name}": text for name, text in launch.scripts.items()},
    }
    for name, content in files.items():
        path = package / name
        put(content, path)
        path.chmod(0o755 if name.startswith("bin/") else 0o644)
    return package


def environment(orchestrator: Orchestrator, launch: AcceptedStart, name: str, folder: Path) -> dict[str, str]:
    """The environment of a run, which its components inherit."""
    own: Mapping[str, str] = {
        **os.environ,
        # Components say "python3" and mean the interpreter that runs all this.
        "PATH": os.pathsep.join([str(Path(orchestrator.python).parent), os.environ.get("PATH", os.defpath)]),
        # The orchestrator leaves a temporary file a run behind.
        "TMPDIR": str(folder / "temporary"),
        # Where the status goes when the command line cannot even be parsed.
        "INSTANCE_DIR_NAME": str(folder / f"{name}.instance"),
        # A user's own default arguments have no business here.
        "FLOWCONFIG_PATH": os.devnull,
    }
    return {**own, **_store_keys(launch), **launch.environment}


def _store_keys(launch: AcceptedStart) -> dict[str, str]:
    """What the orchestrator looks for to upload key-outputs."""
    place = launch.store.target if launch.store else None
    if not isinstance(place, Bucket):
        return {}
    keys = (place.access_key_id, place.endpoint, place.secret_access_key)
    return dict(zip(S3_VARIABLES, keys, strict=True))


def end_group(process: subprocess.Popen[bytes]) -> None:
    """
    Kill what is left of a process's group, itself included, and wait until it is gone.

    The orchestrator starts its components through a shell and on SIGTERM ends only the shell: the
    component goes on. Blocks for `GROUP_TIMEOUT` at most.
    """
    deadline = time.monotonic() + GROUP_TIMEOUT
    with contextlib.suppress(ProcessLookupError, PermissionError, subprocess.TimeoutExpired):
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(GROUP_TIMEOUT)
        while time.monotonic() < deadline:
            os.killpg(process.pid, 0)
            time.sleep(POLL_INTERVAL)


def _start_file(folder: Path, kind: str, filename: str) -> Path:
    """Where a file of a start is written; only the last part of its name counts."""
    return folder / "start" / kind / Path(filename).name


def _variables_file(folder: Path) -> Path:
    """Where the variables of a start are written."""
    return _start_file(folder, "input", "st4sd-variables.yaml")


def _escaped(path: Path) -> str:
    """A path as ``-i`` and ``-d`` want it: a bare colon would begin another name for the file."""
    return str(path).replace("\\", "\\\\").replace(":", "\\:")
