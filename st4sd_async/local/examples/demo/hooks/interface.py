"""
The interface of the virtual experiment: what its inputs are called.

The orchestrator's own ``csvColumn`` guesses the separator, which a file of one column does not have.
"""

from __future__ import annotations

import csv
from pathlib import Path


def get_input_ids(input_id_file: str, variables: dict[str, str]) -> list[str]:
    """
    The input ids in the order of the file, which are its molecules as ``compute.py`` names them.

    Args:
        input_id_file: The file of the molecules (column ``smiles``, in whatever company).
        variables: The global variables of the instance; none of them matters here.
    """
    with Path(input_id_file).open(newline="", encoding="utf-8") as file:
        return [row["smiles"].strip() for row in csv.DictReader(file)]
