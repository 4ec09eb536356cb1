"""Write energies.csv. Arguments: a CSV file with the column smiles, and the scale of the energies."""

import csv
import re
import sys

ENERGY_OF_AN_ATOM = -1.5
ATOM = re.compile(r"Cl|Br|[A-Za-z]")

molecules, scale = sys.argv[1], float(sys.argv[2])
with open(molecules, newline="", encoding="utf-8") as source, open("energies.csv", "w", newline="") as target:
    writer = csv.writer(target)
    writer.writerow(["input-id", "energy"])
    for row in csv.DictReader(source):
        smiles = row["smiles"].strip()
        writer.writerow([smiles, ENERGY_OF_AN_ATOM * scale * len(ATOM.findall(smiles))])
        print("measured", smiles)  # standard output: st4sd-async logs RUN
