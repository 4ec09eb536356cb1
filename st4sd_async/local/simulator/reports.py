"""
What a simulated orchestrator tells of its components in the end: the report in detail, and its log.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from st4sd_async.local.examples.facts import Component

_COMPONENT = "rowid; reference; consumesFrom; isAlive; state; engine"
_ENGINE = (
    "rowid; reference; isAlive; backend; creationDate; isWaitingOnOutput; outputWaitTime; isRunning; runDate; "
    "lastTaskLaunchDate; lastTaskRunTime; lastTaskRunState; lastTaskFinishedDate; lastTaskExitCode; "
    "lastTaskExitReason; engineExitCode; engineExitReason; schedulerId"
)
_RAN = "False; local; {now}; True; 0:00:01.032996; False; {now}; {now}; 0:00:00.133597; {state}; {now}; {end};"
_ENDS = {"finished": "0; Success; 0; Success", "failed": "3; KnownIssue; 1; KnownIssue"}
_NEVER_RAN = "False; local; None; False; N/A; False; None; None; N/A; N/A; None; N/A; N/A; 1; Killed; N/A"


def write_reports(states: Mapping[Component, str], output: Path) -> None:
    """Write ``status_details.json`` and ``experiment.log``; states are those of all components in their order."""
    now = datetime.now()  # noqa: DTZ005 -- as the orchestrator has it
    details: dict[str, dict[str, dict[str, str]]] = {}
    for row, (part, state) in enumerate(states.items(), 1):
        tables = {"componentStates": _COMPONENT, "engineStates": _ENGINE}
        stage = details.setdefault(str(part.stage), {"engine": tables})["engine"]
        producers = ", ".join(part.producers)
        stage["componentStates"] += f"\n{row}; {part.reference}; {producers}; False; {state}; engine"
        end = _RAN.format(now=now, state=state, end=_ENDS[state]) if state in _ENDS else _NEVER_RAN
        stage["engineStates"] += f"\n{row}; {part.reference}; {end}"
    (output / "status_details.json").write_text(json.dumps(details, indent=4), encoding="utf-8")
    lines = [f"INFO      MainThread root: {part.reference} is {state}\n" for part, state in states.items()]
    (output / "experiment.log").write_text("".join(lines), encoding="utf-8")
