"""
The interface of the virtual experiment: the ids of its inputs.

The orchestrator's ``csvColumn`` fails for files with one column, because it guesses the separator.
"""

from __future__ import annotations

import csv
from pathlib import Path


def get_input_ids(input_id_file: str, variables: dict[str, str]) -> list[str]:
    """
    Return the input ids in the order of the file: the SMILES strings, as in the output of ``compute.py``.

    Args:
        input_id_file: The file of molecules; only its column ``smiles`` is used.
        variables: The global variables of the instance; not used.
    """
    with Path(input_id_file).open(newline="", encoding="utf-8") as file:
        return [row["smiles"].strip() for row in csv.DictReader(file)]
