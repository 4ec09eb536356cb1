"""The expected results of the demo, computed from its inputs."""

from __future__ import annotations

import csv
import io
import re
from typing import Any

WEIGHTS = {"C": 12.011, "N": 14.007, "O": 15.999, "S": 32.06, "Cl": 35.45, "Br": 79.904}


def expected(molecules: str, scale: int) -> dict[str, tuple[float, float]]:
    """Return input-id -> energy (-1.5 times the scale for each atom) and weight (the sum of the atoms' weights)."""
    found = {}
    for row in csv.DictReader(io.StringIO(molecules)):
        atoms = [atom.title() for atom in re.findall("Cl|Br|[A-Za-z]", row["smiles"])]
        found[row["smiles"]] = (-1.5 * scale * len(atoms), round(sum(WEIGHTS[atom] for atom in atoms), 6))
    return found


def measured(properties: dict[str, list[Any]]) -> dict[str, tuple[float, float]]:
    """Return input-id -> energy and weight, as a run measured them."""
    columns = (properties["input-id"], properties["energy"], properties["weight"])
    return {name: (energy, round(weight, 6)) for name, energy, weight in zip(*columns, strict=True)}
