"""
What there is to know about each example experiment, in the shapes of the registry.

The packages say the same in FlowIR; a test compares the two, so that nobody needs a YAML parser here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Component:
    """One program of an example and how it is called."""

    stage: int
    """The stage it belongs to; stages run one after the other."""
    name: str
    """Its name, which is also that of its directory."""
    script: str
    """The program, relative to the instance directory."""
    arguments: tuple[str, ...] = ()
    """
    The arguments after the program: ``{instance}`` stands for the instance directory, ``{NAME}`` for the
    value of a variable.
    """
    copies: tuple[str, ...] = ()
    """Files of the instance directory that are copied into the component's directory first."""

    @property
    def directory(self) -> str:
        """Its directory relative to the instance directory: ``stages/stage0/Compute``."""
        return f"stages/stage{self.stage}/{self.name}"

    @property
    def reference(self) -> str:
        """What others call it: ``stage0.Compute``."""
        return f"stage{self.stage}.{self.name}"

    @property
    def references(self) -> list[str]:
        """What it needs, in the words of FlowIR: ``stage0.Compute/energies.csv:ref``."""
        read = [_referred(argument) for argument in self.arguments]
        return [f"{self.script}:ref", *(f"{path}:copy" for path in self.copies), *(path for path in read if path)]

    @property
    def producers(self) -> dict[str, list[str]]:
        """The references of the components whose files it needs -> those files."""
        needed: dict[str, list[str]] = {}
        for reference in self.references:
            producer, _, path = reference.rpartition(":")[0].partition("/")
            if producer.startswith("stage"):
                needed.setdefault(producer, []).append(path)
        return needed

    def command_line(self, variables: Mapping[str, str]) -> str:
        """The program and its arguments in the words of FlowIR, with the values of variables."""
        words = [_referred(argument) or argument.format_map(variables) for argument in self.arguments]
        return " ".join([f"{self.script}:ref", *words])


def _referred(argument: str) -> str | None:
    """The reference that an argument is, None if it is something else."""
    path = argument.removeprefix("{instance}/")
    return re.sub(r"^stages/(stage\d+)/", r"\1.", path) + ":ref" if path != argument else None


@dataclass(frozen=True)
class Example:
    """One example experiment."""

    description: str
    """One sentence for people who list the experiments."""
    components: tuple[Component, ...]
    """Its programs in the order in which they run."""
    outputs: Mapping[str, str]
    """key-output -> path relative to the instance directory."""
    inputs: tuple[str, ...] = ()
    """Input files that a start must bring."""
    data: tuple[str, ...] = ()
    """Data files that a start may override."""
    variables: Mapping[str, str] = field(default_factory=dict)
    """Variables that a start may set, with their defaults."""
    interface: Mapping[str, Any] = field(default_factory=dict)
    """The interface of the virtual experiment; {} if there is none."""
    id_column: tuple[str, str] | None = None
    """Input file and column that hold the input ids."""
    property_table: str | None = None
    """The key-output that the properties are read from."""
    failure: str | None = None
    """The error description of every run; None if runs succeed."""


def _from_energies(name: str, description: str) -> dict[str, Any]:
    """One entry of a ``propertiesSpec`` whose values are a column of the key-output ``Energies``."""
    source = {"keyOutput": "Energies"}
    method = {"csvDataFrame": {"source": source}}
    return {"name": name, "description": description, "propertyExtractionMethod": method}


DEMO = Example(
    description="Computes toy energies and weights of molecules",
    components=(
        Component(
            stage=0,
            name="Compute",
            script="bin/compute.py",
            arguments=("molecules.csv", "{instance}/data/weights.csv", "{scale}"),
            copies=("input/molecules.csv",),
        ),
        Component(
            stage=1,
            name="Report",
            script="bin/report.py",
            arguments=("{instance}/stages/stage0/Compute/energies.csv",),
        ),
    ),
    outputs={"Energies": "stages/stage0/Compute/energies.csv", "Folder": "stages/stage1/Report/results"},
    inputs=("molecules.csv",),
    data=("weights.csv",),
    variables={"scale": "1"},
    interface={
        "description": "Computes toy energies and weights of molecules",
        "inputSpec": {
            "namingScheme": "SMILES",
            "inputExtractionMethod": {"hookGetInputIds": {"source": {"path": "input/molecules.csv"}}},
            "hasAdditionalData": False,
        },
        "propertiesSpec": [
            _from_energies("energy", "toy energy, -1.5 an atom, times the variable scale"),
            _from_energies("weight", "weight of the atoms that the SMILES string spells out"),
        ],
        "additionalInputData": None,
        "inputs": None,
        "outputFiles": [],
    },
    id_column=("molecules.csv", "smiles"),
    property_table="Energies",
)

FAIL = Example(
    description="Fails in its first component, every time",
    components=(
        Component(stage=0, name="Boom", script="bin/boom.py"),
        Component(stage=1, name="After", script="bin/after.py", arguments=("about to fail",)),
    ),
    outputs={"After": "stages/stage1/After/out.stdout"},
    # The orchestrator reports every unknown exit code, here 3, as return code 1 with reason KnownIssue.
    failure="Stage 0 failed. Reason:\n1 jobs failed unexpectedly.\nJob: stage0.Boom. Returncode 1. Reason KnownIssue\n",
)

EXAMPLES: Mapping[str, Example] = {"demo": DEMO, "fail": FAIL}
"""Name -> example, in the order in which they are best met."""
