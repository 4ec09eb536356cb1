"""The weights that the demo shows are those of chemistry."""

from __future__ import annotations

import csv
import math
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest

import st4sd_async
from st4sd_async.cli.demo import MOLECULES

from .arithmetic import FORMULAS, STANDARD_WEIGHTS, weight_of

EXAMPLE = Path(st4sd_async.__file__).parent / "local/examples/demo"
OTHERS = [
    ("C", "CH4"),
    ("C#N", "HCN"),
    ("C=C", "C2H4"),
    ("O=C=O", "CO2"),
    ("[H][H]", "H2"),
    ("[NH4+]", "NH4"),
    ("[13CH4]", "CH4"),
    ("C1CC1", "C3H6"),
    ("C%10CC%10", "C3H6"),
    ("C=1CC=1", "C3H4"),
    ("N[C@@H](C)C(=O)O", "C3H7NO2"),
    ("C/C=C/C", "C4H8"),
    ("OS(=O)(=O)O", "H2SO4"),
    ("CN1C=NC2=C1C(=O)N(C(=O)N2C)C", "C8H10N4O2"),
    ("Cn1cnc2c1c(=O)n(C)c(=O)n2C", "C8H10N4O2"),
    ("c1cc[nH]c1", "C4H5N"),
    ("c1ccc2ccccc2c1", "C10H8"),
    ("c1ccc(cc1)-c1ccccc1", "C12H10"),
    ("c1ccsc1", "C4H4S"),
    ("[Na+].[Cl-]", None),
    ("CCX", None),
    ("C(", None),
    ("C)", None),
    ("C1CC", None),
    ("", None),
]


@pytest.fixture(scope="module")
def compute() -> ModuleType:
    """The program of the example."""
    spec = spec_from_file_location("compute", EXAMPLE / "bin/compute.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def weights() -> dict[str, float]:
    """Return the table of the example."""
    with (EXAMPLE / "data/weights.csv").open(encoding="utf-8") as file:
        return {row["element"]: float(row["weight"]) for row in csv.DictReader(file)}


def test_the_table_has_the_standard_atomic_weights() -> None:
    """Elements without a molecule in the demo are in it too."""
    assert {element: weight for element, weight in weights().items() if element in STANDARD_WEIGHTS} == STANDARD_WEIGHTS


@pytest.mark.parametrize(
    ("smiles", "formula"),
    [*((smiles, FORMULAS[smiles]) for smiles, _ in MOLECULES), *OTHERS],
    ids=str,
)
def test_the_weight_is_that_of_the_formula(compute: ModuleType, smiles: str, formula: str | None) -> None:
    """Hydrogen atoms count, also those that a SMILES string leaves out. None means that there is no weight."""
    _, weight = compute.properties(smiles, weights(), 1.0)

    assert weight == pytest.approx(weight_of(formula)) if formula else math.isnan(weight)
