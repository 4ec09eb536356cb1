"""
Compute the energies and weights of molecules.

Arguments: the file of molecules (column ``smiles``), the file of atomic weights (columns ``element`` and
``weight``), and the scale of the energies. Writes ``energies.csv``.
"""

from __future__ import annotations

import csv
import re
import sys
from pathlib import Path

ENERGY_OF_AN_ATOM = -1.5
ATOM = re.compile(r"Cl|Br|[A-Za-z]")


def read_table(path: str) -> list[dict[str, str]]:
    """Return the rows of a CSV file."""
    with Path(path).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def properties(smiles: str, weights: dict[str, float], scale: float) -> tuple[float, float]:
    """Return energy and weight of a molecule; NaN if it contains an atom with an unknown weight."""
    atoms = [atom.capitalize() for atom in ATOM.findall(smiles)]  # aromatic atoms are lower case
    if not atoms or any(atom not in weights for atom in atoms):
        return float("nan"), float("nan")
    return round(ENERGY_OF_AN_ATOM * scale * len(atoms), 6), round(sum(weights[atom] for atom in atoms), 6)


def main(molecules: str, table: str, scale: str) -> None:
    """Write ``energies.csv`` into the working directory."""
    weights = {row["element"]: float(row["weight"]) for row in read_table(table)}
    with Path("energies.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["input-id", "smiles", "energy", "weight"])
        for row in read_table(molecules):
            smiles = row["smiles"].strip()
            writer.writerow([smiles, smiles, *properties(smiles, weights, float(scale))])


if __name__ == "__main__":
    main(*sys.argv[1:])
