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
"""Hydrogen atoms do not count."""
HYDROGEN_WEIGHT = 1.008
"""Used if the file of atomic weights lacks hydrogen, which most SMILES strings leave out."""
TOKEN = re.compile(
    r"\[\d*(?P<symbol>[A-Z][a-z]?|[bcnops])@*(?P<h>H\d*)?[-+\d:]*\]|Cl|Br|[BCNOPSFIbcnops]|%\d\d|[-=#:/\\().\d]"
)
"""An atom, a bond, a branch, a ring closure or a dot of a SMILES string. Aromatic atoms are lower case."""
ORDERS = {"=": 2, "#": 3}
"""Sign of a bond -> its order; others have the order 1."""
VALENCES = {"B": (3,), "C": (4,), "N": (3, 5), "O": (2,), "P": (3, 5), "S": (2, 4, 6)}
"""Element -> the valences to which hydrogen atoms fill it up; those of halogens are 1."""


class Atom:
    """An atom of a molecule, and its bonds."""

    def __init__(self, token: re.Match[str]) -> None:
        text = token["symbol"] or token[0]
        self.element, self.is_aromatic = text.capitalize(), text.islower()
        self.bonds = 1 if self.is_aromatic else 0
        self.explicit = None if token["symbol"] is None else int((token["h"] or "H0")[1:] or 1)

    @property
    def hydrogens(self) -> int:
        """The number of its hydrogen atoms."""
        if self.explicit is not None:
            return self.explicit
        valences = VALENCES.get(self.element, (1,))[: 1 if self.is_aromatic else None]
        return next((valence - self.bonds for valence in valences if valence >= self.bonds), 0)


def parse(smiles: str) -> list[Atom]:
    """Return the atoms of a molecule, without implicit hydrogen atoms; [] if the SMILES string is invalid."""
    atoms: list[Atom] = []
    last: Atom | None = None
    order, branches, rings = 1, list[Atom | None](), dict[str, tuple[Atom | None, int]]()

    def bind(one: Atom | None, other: Atom | None, order: int) -> None:
        for atom in (one, other) if one and other else ():
            atom.bonds += order

    place = 0
    while place < len(smiles):
        token = TOKEN.match(smiles, place)
        if token is None:
            return []
        text, place = token[0], token.end()
        if text[0].isalpha() or text[0] == "[":
            atoms.append(atom := Atom(token))
            bind(last, atom, order)
            last, order = atom, 1
        elif text == "(":
            branches.append(last)
        elif text == ")":
            if not branches:
                return []
            last = branches.pop()
        elif text == ".":
            last = None
        elif text[-1].isdigit():
            other, earlier = rings.pop(text, (None, 1))
            if other is None:
                rings[text] = last, order
            else:
                bind(other, last, max(order, earlier))
            order = 1
        else:
            order = ORDERS.get(text, 1)
    return [] if branches or rings else atoms


def properties(smiles: str, weights: dict[str, float], scale: float) -> tuple[float, float]:
    """Return energy and weight of a molecule; NaN if it contains an atom with an unknown weight."""
    atoms = parse(smiles)
    elements = [element for atom in atoms for element in (atom.element, *["H"] * atom.hydrogens)]
    if not elements or any(element not in weights for element in elements):
        return float("nan"), float("nan")
    heavy = sum(atom.element != "H" for atom in atoms)
    return round(ENERGY_OF_AN_ATOM * scale * heavy, 6), round(sum(weights[element] for element in elements), 6)


def read_table(path: str) -> list[dict[str, str]]:
    """Return the rows of a CSV file."""
    with Path(path).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def main(molecules: str, table: str, scale: str) -> None:
    """Write ``energies.csv`` into the working directory."""
    weights = {"H": HYDROGEN_WEIGHT, **{row["element"]: float(row["weight"]) for row in read_table(table)}}
    with Path("energies.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["input-id", "smiles", "energy", "weight"])
        for row in read_table(molecules):
            smiles = row["smiles"].strip()
            writer.writerow([smiles, smiles, *properties(smiles, weights, float(scale))])


if __name__ == "__main__":
    main(*sys.argv[1:])
