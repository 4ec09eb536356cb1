"""The expected results of the demo, computed from its inputs."""

from __future__ import annotations

import csv
import io
import re
from typing import Any

STANDARD_WEIGHTS = {"H": 1.008, "C": 12.011, "N": 14.007, "O": 15.999, "S": 32.06, "Cl": 35.45, "Br": 79.904}
"""Abridged standard atomic weights. Source: IUPAC Commission on Isotopic Abundances and Atomic Weights, 2021."""
FORMULAS = {
    "O": "H2O",
    "CO": "CH4O",
    "CCO": "C2H6O",
    "N": "NH3",
    "CC(=O)O": "C2H4O2",
    "NCC(=O)O": "C2H5NO2",
    "c1ccccc1": "C6H6",
    "c1ccncc1": "C5H5N",
    "CC(C)=O": "C3H6O",
    "ClC(Cl)Cl": "CHCl3",
    "CS(C)=O": "C2H6OS",
    "CBr": "CH3Br",
}
"""SMILES string -> formula, of the molecules of the demo."""


def weight_of(formula: str) -> float:
    """Return the weight of a molecule by its formula."""
    return sum(
        STANDARD_WEIGHTS[element] * int(count or 1) for element, count in re.findall(r"([A-Z][a-z]?)(\d*)", formula)
    )


def expected(molecules: str, scale: int) -> dict[str, tuple[float, float]]:
    """Return input-id -> energy (-1.5 times the scale for each atom except hydrogen) and weight."""
    found = {}
    for row in csv.DictReader(io.StringIO(molecules)):
        atoms = re.findall("Cl|Br|[A-Za-z]", row["smiles"])
        weight = weight_of(FORMULAS[row["smiles"]])
        found[row["smiles"]] = (-1.5 * scale * len(atoms), round(weight, 6))
    return found


def measured(properties: dict[str, list[Any]]) -> dict[str, tuple[float, float]]:
    """Return input-id -> energy and weight, as a run measured them."""
    columns = (properties["input-id"], properties["energy"], properties["weight"])
    return {name: (energy, round(weight, 6)) for name, energy, weight in zip(*columns, strict=True)}
