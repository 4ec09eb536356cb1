"""Different inputs for each run of the demo."""

from __future__ import annotations

from ._campaign import Attempt

MOLECULES_PER_RUN = 3
MOLECULES = (
    ("O", "water"),
    ("CO", "methanol"),
    ("CCO", "ethanol"),
    ("N", "ammonia"),
    ("CC(=O)O", "acetic acid"),
    ("NCC(=O)O", "glycine"),
    ("c1ccccc1", "benzene"),
    ("c1ccncc1", "pyridine"),
    ("CC(C)=O", "acetone"),
    ("ClC(Cl)Cl", "chloroform"),
    ("CS(C)=O", "dimethyl sulfoxide"),
    ("CBr", "bromomethane"),
)
"""SMILES and names of molecules whose elements the example knows."""


def plan(runs: int) -> list[Attempt]:
    """
    What to start: for each run its own ``molecules.csv`` and its own ``scale``.

    The molecules repeat after a while, the scale (1, 2, 3...) never does.
    """
    return [
        Attempt(f"run {number}", {"molecules.csv": _molecules(number - 1)}, {"scale": number})
        for number in range(1, runs + 1)
    ]


def _molecules(index: int) -> str:
    """A table of a few molecules."""
    first = index * MOLECULES_PER_RUN
    rows = [MOLECULES[number % len(MOLECULES)] for number in range(first, first + MOLECULES_PER_RUN)]
    return "".join(f"{smiles},{name}\n" for smiles, name in [("smiles", "name"), *rows])
