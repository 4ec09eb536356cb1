"""
An example experiment executed without the orchestrator: its programs, one after the other.

This is what makes the simulator's results real. The files are those that the orchestrator leaves, at the
same places, so nothing above needs to know which of the two ran.
"""

from __future__ import annotations

import csv
import io
import json
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from st4sd_async.local.engine.instance_files import output_entry
from st4sd_async.local.engine.interface import AcceptedStart, put
from st4sd_async.local.examples.facts import Component, Example
from st4sd_async.local.simulator.reports import write_reports

COMPONENT_TIMEOUT = 60.0
"""Seconds one program may take; those of the examples take a tenth of a second."""


def run_example(example: Example, package: Path, launch: AcceptedStart, instance: Path) -> dict[str, dict[str, str]]:
    """
    The key-outputs of an example that was just executed in `instance`.

    Args:
        example: What to run.
        package: The folder with the files of its package.
        launch: Inputs, data and variables of the start.
        instance: The instance directory to fill; made if it does not exist.

    Returns:
        key-output -> its entry in the words of the wire. Empty if a program failed: what the programs
        wrote until then is there, nothing more.
    """
    _deploy(package, launch, instance)
    variables = {**example.variables, **launch.variables}
    failed = next((part for part in example.components if not _run(part, variables, instance)), None)
    finished = failed is None
    write_reports(_states(example.components, failed), instance / "output")
    outputs = describe_outputs(example.outputs, instance) if finished else {}
    (instance / "output" / "output.json").write_text(json.dumps(outputs, indent=4), encoding="utf-8")
    if finished and example.id_column and example.property_table:
        ids = input_ids(example, launch) or []
        _write_interface(ids, instance / example.outputs[example.property_table], instance / "output")
    return outputs


def input_ids(example: Example, launch: AcceptedStart) -> list[str] | None:
    """The ids of what a run was given, None if the example has no interface that tells."""
    if example.id_column is None:
        return None
    filename, column = example.id_column
    given = next((given for name, given in launch.inputs.items() if Path(name).name == filename), "")
    text = given.read_text(encoding="utf-8", errors="replace") if isinstance(given, Path) else str(given)
    return [(row.get(column) or "").strip() for row in csv.DictReader(io.StringIO(text, newline=""))]


def describe_outputs(outputs: Mapping[str, str], instance: Path) -> dict[str, dict[str, str]]:
    """The entries of key-outputs that exist, every value a string as on the wire."""
    return {
        name: output_entry(path, (instance / path).stat().st_mtime)
        for name, path in outputs.items()
        if (instance / path).exists()
    }


def _deploy(package: Path, launch: AcceptedStart, instance: Path) -> None:
    """Lay out the instance directory: the package's folders, then what the start brought."""
    for folder in ("bin", "conf", "data", "hooks"):
        if (package / folder).is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(package / folder, instance / folder, ignore=ignored, dirs_exist_ok=True)
    for folder in ("input", "data", "output", "stages"):
        (instance / folder).mkdir(parents=True, exist_ok=True)
    for folder, files in (("input", launch.inputs), ("data", launch.data)):
        for name, content in files.items():
            # Only the last part of a name counts, as it does for the orchestrator.
            put(content, instance / folder / Path(name).name)


def _run(component: Component, variables: Mapping[str, str], instance: Path) -> bool:
    """Run one program in its directory; True if it exits 0."""
    directory = instance / component.directory
    directory.mkdir(parents=True, exist_ok=True)
    for path in component.copies:
        shutil.copy(instance / path, directory)
    words = {"instance": str(instance), **variables}
    command = [sys.executable, str(instance / component.script)]
    command += [argument.format_map(words) for argument in component.arguments]
    with (directory / "out.stdout").open("wb") as stdout, (directory / "out.stderr").open("wb") as stderr:
        try:
            exit_code = subprocess.call(
                command,
                cwd=directory,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                timeout=COMPONENT_TIMEOUT,
            )
        except subprocess.TimeoutExpired:
            return False
    return exit_code == 0


def _states(components: Sequence[Component], failed: Component | None) -> dict[Component, str]:
    """How components end of which one failed, or none."""
    before = list(components) if failed is None else components[: components.index(failed)]
    states = dict.fromkeys(components, "component_shutdown") | dict.fromkeys(before, "finished")
    return states if failed is None else {**states, failed: "failed"}


def _write_interface(ids: list[str], table: Path, output: Path) -> None:
    """Write the input ids and the measured properties, which are the table itself in another dialect."""
    (output / "input-ids.json").write_text(json.dumps(ids, indent=4), encoding="utf-8")
    (output / "additional_input_data.json").write_text("{}", encoding="utf-8")
    with table.open(newline="", encoding="utf-8") as source:
        names, *rows = csv.reader(source)
    if rows:  # the orchestrator cannot join tables without rows, and goes on without properties
        _write_properties(output / "properties.csv", names, rows)


def _write_properties(path: Path, names: list[str], rows: list[list[str]]) -> None:
    """Write a table, whose first column holds the input ids, as the orchestrator would."""
    occurrences = Counter(row[0] for row in rows)
    with path.open("w", newline="", encoding="utf-8") as target:
        # The orchestrator separates by semicolons and leaves out what is not a number.
        writer = csv.writer(target, delimiter=";", lineterminator="\n")
        writer.writerow(names)
        for row in sorted(rows):
            values = ["" if value == "nan" else value for value in row]
            # It joins the ids with the table of each of the two properties: that sorts the rows, and an id
            # that was given n times has n rows in each of three tables, which all match.
            writer.writerows([values] * occurrences[row[0]] ** 2)
