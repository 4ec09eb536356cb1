"""
What an orchestrator leaves in the folder of a run, in the words and types of the wire.

All functions tolerate files that are missing or half written: the orchestrator works while they read.
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
"""The status before the orchestrator wrote its first one."""

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
"""The status that the service makes up itself from what the cluster tells of the pod."""

TIMES = ("created-on", "updated-on", "completed-on")
WORDS = ("experiment-state", "stage-state", "current-stage", "exit-status")
PROGRESS = ("total-progress", "stage-progress")
ESCAPE = re.compile(r"\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|[\\nrt])")
SIMPLE_ESCAPES = {"\\": "\\", "n": "\n", "r": "\r", "t": "\t"}


def unscheduled() -> dict[str, Any]:
    """The status of a run that waits for its turn."""
    reason = "0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available."
    text = f"Workflow scheduler is unscheduled, reason: {reason}"
    return {**FROM_CLUSTER, "experiment-state": "unscheduled", "error-description": text}


def no_checkout(exit_code: int, stderr: str) -> dict[str, Any]:
    """The status of a run whose package could not be cloned; it never changes."""
    return not_begun(f"git-sync-package failed with exit code {exit_code} and message {stderr}")


def not_begun(text: str) -> dict[str, Any]:
    """The status of a run before which something else failed; it never changes."""
    return {**FROM_CLUSTER, "experiment-state": "failed", "error-description": f"initContainer failure: {text}"}


def killed(exit_code: int) -> dict[str, Any]:
    """The status of a run whose orchestrator ended without a last word; it never changes."""
    code = 128 - exit_code if exit_code < 0 else exit_code
    text = f"elaunch-primary exitCode: {code}, reason: Error"
    return {**FROM_CLUSTER, "experiment-state": "Failed", "error-description": text}


def not_set_up(text: str) -> dict[str, Any]:
    """The status of a run whose orchestrator gave up before it wrote any."""
    states = {"experiment-state": "failed", "stage-state": "Initialising", "exit-status": "Failed"}
    return {**NO_STATUS, **states, "current-stage": "None", "error-description": text}


def find_instance(folder: Path, name: str) -> Path | None:
    """The instance directory below the folder of a run; an option may have given it another name."""
    expected = folder / f"{name}.instance"
    if expected.is_dir():
        return expected
    return next(iter(sorted(folder.glob("*.instance"))), None)


def read_status(instance: Path, meta: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """
    The status that the orchestrator wrote last, None if there is none to read yet.

    Args:
        instance: The instance directory.
        meta: What ``elaunch.yaml`` holds, None before it is there.
    """
    # Its last words come before it moves ``output`` into place; until then the files are hard to get at.
    moving = (instance / "output").is_symlink()
    try:
        entries = _entries(instance)
        status: dict[str, Any] = {word: entries[word] for word in WORDS}
        status |= {word: float(entries[word]) for word in PROGRESS}
        status["stages"] = list(ast.literal_eval(entries["stages"]))
    except (OSError, KeyError, ValueError, SyntaxError):
        return None
    if moving and status["experiment-state"] == "finished":
        return None
    status["error-description"] = unescape(entries.get("error-description", ""))
    return {**NO_STATUS, **status, "meta": None if meta is None else dict(meta)}


def read_times(instance: Path) -> dict[str, datetime]:
    """When the orchestrator began, last wrote its status and ended, as far as it says so."""
    times = {}
    with contextlib.suppress(OSError):
        entries = _entries(instance)
        for name in TIMES:
            with contextlib.suppress(KeyError, ValueError):  # "N/A" until there is one
                times[name] = datetime.fromisoformat(entries[name])
    return times


def _entries(instance: Path) -> dict[str, str]:
    """The lines of the status file."""
    text = (instance / "output" / "status.txt").read_text(encoding="utf-8")
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)


def unescape(text: str) -> str:
    r"""
    The text behind one line of the status file.

    The orchestrator escapes the text once more each time it writes the file, so that the end of a line is
    ``\n`` on disk at first and ``\\n`` finally; one level is taken off here, as the service does.
    """

    def plain(match: re.Match[str]) -> str:
        code = match[1]
        return SIMPLE_ESCAPES[code] if code in SIMPLE_ESCAPES else chr(int(code[1:], 16))

    return ESCAPE.sub(plain, text)


def wire_meta(answer: Any) -> dict[str, Any] | None:
    """The content of ``elaunch.yaml`` as ``status.meta`` shows it; None if the file was half written."""
    # "version" is the last key, as the file is sorted.
    if not isinstance(answer, dict) or "version" not in answer:
        return None
    texts = ("userMetadata", "userVariables", "variables")
    return {key: _as_text(value) if key in texts else value for key, value in answer.items()}


def read_outputs(instance: Path) -> dict[str, dict[str, str]] | None:
    """The key-outputs that exist by now, None if that cannot be told at this moment."""
    try:
        outputs = json.loads((instance / "output" / "output.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return {name: {key: str(value) for key, value in entry.items()} for name, entry in outputs.items()}


def read_reports(folder: Path) -> list[dict[str, Any]] | None:
    """The documents that the orchestrator has reported, the oldest first; None if it has not registered."""
    reports = {path.stem.rpartition("-")[2]: path for path in folder.glob("*.json")}
    if reports.pop("begin", None) is None:
        return None
    texts = [reports[step].read_text(encoding="utf-8") for step in sorted(reports, key=int)]
    return [document for text in texts for document in json.loads(text).get("upsert-documents") or ()]


def output_entry(path: str, created: float) -> dict[str, str]:
    """A key-output that is at a path of the instance directory since a time."""
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
    """The last line of a log that is not empty, "" if there is none."""
    with contextlib.suppress(OSError):
        lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "")
    return ""


def settle(instance: Path) -> None:
    """
    Make an instance directory whole after its orchestrator was killed.

    While it runs, ``output`` is a link to a folder elsewhere, its shadow, which it moves into place at its
    end. What was killed did not.
    """
    output = instance / "output"
    if not output.is_symlink():
        return
    shadow = output.resolve()
    output.unlink()
    with contextlib.suppress(OSError):
        shutil.copytree(shadow, output, dirs_exist_ok=True)


def shadows(name: str) -> str:
    """The pattern of the folders that an orchestrator has elsewhere while it runs; `name` is the instance's."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # nobody with this number is known
        user = "*"
    return f"/tmp/chpc-{user}-shadow/{name}-*.shadow"  # the orchestrator ignores TMPDIR here


def remove_shadows(name: str) -> None:
    """Remove what an orchestrator that was stopped or killed left elsewhere; `name` is the instance's."""
    for shadow in glob.glob(shadows(name)):  # noqa: PTH207 -- absolute
        shutil.rmtree(shadow, ignore_errors=True)


def _as_text(value: Any) -> Any:
    """Nested dictionaries with texts for leaves and keys."""
    if isinstance(value, dict):
        return {str(key): _as_text(entry) for key, entry in value.items()}
    return str(value)
