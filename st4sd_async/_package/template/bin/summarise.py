"""Write summary.txt. Argument: the file that measure.py wrote."""

import csv
import sys

with open(sys.argv[1], newline="", encoding="utf-8") as source:
    rows = list(csv.DictReader(source))
if not rows:
    sys.exit("there are no molecules")  # the run fails, with this text on standard error
lowest = min(rows, key=lambda row: float(row["energy"]))
with open("summary.txt", "w", encoding="utf-8") as target:
    target.write(f"{lowest['input-id']} has the lowest energy of {len(rows)}: {lowest['energy']}\n")
