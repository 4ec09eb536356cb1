"""
Read the files that an orchestrator writes in the folder of a run, in the form of the service's responses.

All functions tolerate files that are missing or half written, because the orchestrator may be running.
"""

from __future__ import annotations

import ast
import contextlib
import getpass
import glob
import json
import re
import shutil
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

NO_STATUS: Mapping[str, Any] = {
    "experiment-state": None,
    "stage-state": None,
    "stages": [],
    "current-stage": None,
    "exit-status": None,
    "meta": None,
    "total-progress": 0.0,
    "stage-progress": 0.0,
    "error-description": "",
}
"""The status of a run whose orchestrator has written none yet."""

FROM_CLUSTER: Mapping[str, Any] = {
    "current-stage": "",
    "exit-status": "",
    "experiment-state": "",
    "error-description": "",
    "meta": {},
    "stage-progress": 0.0,
    "stage-state": "",
    "stages": [],
    "total-progress": 0.0,
}
"""The fields of a status that the service derives from the pod in the cluster."""

_TIME_KEYS = ("created-on", "updated-on", "completed-on")
_TEXT_KEYS = ("experiment-state", "stage-state", "current-stage", "exit-status")
_PROGRESS_KEYS = ("total-progress", "stage-progress")
_ESCAPE = re.compile(r"\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|[\\nrt])")
_SIMPLE_ESCAPES = {"\\": "\\", "n": "\n", "r": "\r", "t": "\t"}


def unscheduled() -> dict[str, Any]:
    """Return the status of a run that waits for a slot."""
    reason = "0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available."
    text = f"Workflow scheduler is unscheduled, reason: {reason}"
    return {**FROM_CLUSTER, "experiment-state": "unscheduled", "error-description": text}


def init_failure(text: str) -> dict[str, Any]:
    """Return the final status of a run with a failed init container."""
    return {**FROM_CLUSTER, "experiment-state": "failed", "error-description": f"initContainer failure: {text}"}


def killed(exit_code: int) -> dict[str, Any]:
    """Return the final status of a run whose orchestrator ended without writing a final status."""
    code = 128 - exit_code if exit_code < 0 else exit_code
    text = f"elaunch-primary exitCode: {code}, reason: Error"
    return {**FROM_CLUSTER, "experiment-state": "Failed", "error-description": text}


def setup_failure(text: str) -> dict[str, Any]:
    """Return the final status of a run whose orchestrator failed before it wrote a status."""
    states = {"experiment-state": "failed", "stage-state": "Initialising", "exit-status": "Failed"}
    return {**NO_STATUS, **states, "current-stage": "None", "error-description": text}


def find_instance(folder: Path, name: str) -> Path | None:
    """Return the instance directory in the folder of a run, even if an option changed its name; None if missing."""
    expected = folder / f"{name}.instance"
    if expected.is_dir():
        return expected
    return next(iter(sorted(folder.glob("*.instance"))), None)


def read_status(instance: Path, meta: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """
    Return the last status that the orchestrator wrote; None if there is none yet.

    Args:
        instance: The instance directory.
        meta: As `read_meta` returns it.
    """
    # The orchestrator writes the final status before it moves ``output`` into place; until then files are hard to read.
    is_moving = (instance / "output").is_symlink()
    try:
        entries = _entries(instance)
        status: dict[str, Any] = {key: entries[key] for key in _TEXT_KEYS}
        status |= {key: float(entries[key]) for key in _PROGRESS_KEYS}
        status["stages"] = list(ast.literal_eval(entries["stages"]))
    except (OSError, KeyError, ValueError, SyntaxError):
        return None
    if is_moving and status["experiment-state"] == "finished":
        return None
    status["error-description"] = unescape(entries.get("error-description", ""))
    return {**NO_STATUS, **status, "meta": None if meta is None else dict(meta)}


def read_times(instance: Path) -> dict[str, datetime]:
    """Return the times at which the orchestrator started, last wrote its status and ended, if they are known."""
    times = {}
    with contextlib.suppress(OSError):
        entries = _entries(instance)
        for name in _TIME_KEYS:
            with contextlib.suppress(KeyError, ValueError):  # "N/A" means that the run has not ended
                times[name] = datetime.fromisoformat(entries[name])
    return times


def _entries(instance: Path) -> dict[str, str]:
    """Return the lines of the status file by key."""
    text = (instance / "output" / "status.txt").read_text(encoding="utf-8")
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)


def unescape(text: str) -> str:
    r"""
    Remove one level of escapes from a line of the status file, as the service does.

    The orchestrator escapes the string again each time it writes the file: a line feed is ``\n`` on disk at first,
    and ``\\n`` in the end.
    """

    def replacement(match: re.Match[str]) -> str:
        code = match[1]
        return _SIMPLE_ESCAPES[code] if code in _SIMPLE_ESCAPES else chr(int(code[1:], 16))

    return _ESCAPE.sub(replacement, text)


def read_meta(instance: Path) -> dict[str, Any] | None:
    """Return the content of ``elaunch.yaml`` as in ``status.meta``; None if it is missing or half written."""
    import yaml

    try:
        content = yaml.safe_load((instance / "elaunch.yaml").read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return None
    # "version" is the last key, as the file is sorted.
    if not isinstance(content, dict) or "version" not in content:
        return None
    # Names of stages are numbers in YAML and strings in JSON.
    meta: dict[str, Any] = json.loads(json.dumps(content, default=str))
    return meta


def read_interface(instance: Path) -> dict[str, Any] | None:
    """Return the interface of the run with the input ids and the files of results; None if it cannot be read."""
    import yaml

    try:
        content = yaml.safe_load((instance / "conf" / "flowir_instance.yaml").read_text(encoding="utf-8"))
        return dict(content.get("interface") or {})
    except (OSError, AttributeError, TypeError, ValueError, yaml.YAMLError):
        return None


def read_outputs(instance: Path) -> dict[str, dict[str, str]] | None:
    """Return the key-outputs that exist so far; None if the file cannot be read at the moment."""
    try:
        outputs = json.loads((instance / "output" / "output.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return {name: {key: str(value) for key, value in entry.items()} for name, entry in outputs.items()}


def read_reports(folder: Path) -> list[dict[str, Any]] | None:
    """Return the documents that the orchestrator reported, in order; None if the run is not registered."""
    reports = {path.stem.rpartition("-")[2]: path for path in folder.glob("*.json")}
    if reports.pop("begin", None) is None:
        return None
    texts = [reports[step].read_text(encoding="utf-8") for step in sorted(reports, key=int)]
    return [document for text in texts for document in json.loads(text).get("upsert-documents") or ()]


def output_entry(path: str, created: float) -> dict[str, str]:
    """Return the entry of a key-output with its path in the instance directory and its creation time."""
    return {
        "creationtime": str(created),
        "description": "",
        "filename": path.rpartition("/")[2],
        "filepath": path,
        "final": "yes",
        "production": "yes",
        "type": "",
        "version": "1",
    }


def last_line(log: Path) -> str:
    """Return the last non-empty line of a log; "" if there is none."""
    with contextlib.suppress(OSError):
        lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "")
    return ""


def copy_shadow(instance: Path) -> None:
    """
    Complete the instance directory of an orchestrator that was killed.

    While the orchestrator runs, ``output`` is a link to another folder, its shadow. The orchestrator moves the shadow
    into place at its end.
    """
    output = instance / "output"
    if not output.is_symlink():
        return
    shadow = output.resolve()
    output.unlink()
    with contextlib.suppress(OSError):
        shutil.copytree(shadow, output, dirs_exist_ok=True)


def shadow_pattern(name: str) -> str:
    """Return the pattern of the shadow folders of a running instance."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # the user id is unknown
        user = "*"
    return f"/tmp/chpc-{user}-shadow/{name}-*.shadow"  # the orchestrator ignores TMPDIR here


def remove_shadows(name: str) -> None:
    """Remove the shadow folders of an instance that was stopped or killed."""
    for shadow in glob.glob(shadow_pattern(name)):  # noqa: PTH207 -- absolute
        shutil.rmtree(shadow, ignore_errors=True)
