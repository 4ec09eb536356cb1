"""The ids of the inputs, for the interface in conf/flowir_package.yaml."""

import csv


def get_input_ids(input_id_file, variables):
    """Return one id for each molecule, as in the column input-id of energies.csv."""
    with open(input_id_file, newline="", encoding="utf-8") as file:
        # Text, like that column. If it has numbers, return numbers: int(row["temperature"]).
        return [row["smiles"].strip() for row in csv.DictReader(file)]
