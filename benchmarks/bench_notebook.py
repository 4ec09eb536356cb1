"""
Bytes that displays in a notebook send to the browser: ours, and a table of pandas that is updated at each end.

    python benchmarks/bench_notebook.py [--launches 50 100 200 400] [--json FILE]

Each cell is executed in a real kernel, against a simulated deployment in the same process. The contents of all
messages with outputs of the cell are counted. The rival is what one writes by hand: a DataFrame with a row for each
launch, whose output is updated when a launch ends.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from _shared import headline, versions
from jupyter_client.manager import start_new_kernel

TIMEOUT_SECONDS = 120.0
OUTPUTS = ("display_data", "update_display_data", "execute_result", "stream", "error")
MAX_BYTES, BOUND_AT = 1_000_000, 400

CONNECT = """
import tempfile, pandas
from IPython.display import display
from st4sd_async import Client, Config, Launch, ProgressBars
from st4sd_async.local import LocalServer

server = LocalServer(speed=20).__enter__()
client = await Client(server.url, api_key=server.api_key).open()
bars = client.with_options(progress=ProgressBars())
await client.push(server.example("demo"))
payload = {"inputs": [{"filename": "molecules.csv", "content": "smiles\\nCO\\n"}]}

async def filled(client, count):
    batch = await client.batch(f"{tempfile.mkdtemp()}/campaign.db").__aenter__()
    await batch.add([Launch(f"C{number:04}", "demo", payload) for number in range(count)])
    return batch
"""
CELLS = {
    "ProgressBars over a batch": """
batch = await filled(bars, {count})
async for item in batch.run(["Energies"]):
    pass
""",
    "batch.show()": """
batch = await filled(client, {count})
await batch.show(["Energies"])
""",
    "client.show(runs)": """
await client.show([await client.start("demo", payload) for number in range({count})])
""",
    "table of pandas": """
batch = await filled(client, {count})
pandas.set_option("display.max_rows", None)
def table():
    return pandas.DataFrame([(item.key, item.state, item.run) for item in batch.items])
output = display(table(), display_id=True)
async for item in batch.run(["Energies"]):
    output.update(table())
""",
}


def execute(kernel: Any, code: str) -> tuple[int, int]:
    """Execute a cell, and return the number of its outputs and updates, and their bytes."""
    message_id, count, size = kernel.execute(code), 0, 0
    while True:
        message = kernel.get_iopub_msg(timeout=TIMEOUT_SECONDS)
        kind, content = message["header"]["msg_type"], message["content"]
        if message["parent_header"].get("msg_id") != message_id:
            continue
        if kind == "error":
            raise RuntimeError("\n".join(content["traceback"]))
        if kind == "status" and content["execution_state"] == "idle":
            return count, size
        if kind in OUTPUTS:
            count, size = count + 1, size + len(json.dumps(content))


def main() -> None:
    """Execute each cell with each number of launches, and print the bytes."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[1])
    parser.add_argument("--launches", type=int, nargs="+", default=[50, 100, 200, 400])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    used = versions("st4sd_async", "ipykernel", "pandas")
    headline(used, "kB sent to the browser (number of drawings)")
    sys.stdout.write(f"{'launches':<26}{''.join(f'{count:>16,}' for count in options.launches)}\n")
    manager, kernel = start_new_kernel(env={**os.environ, "PYTHONWARNINGS": "ignore"})
    result: dict[str, dict[int, tuple[int, int]]] = {}
    try:
        execute(kernel, CONNECT)
        for name, code in CELLS.items():
            result[name] = {count: execute(kernel, code.format(count=count)) for count in options.launches}
            cells = (f"{size / 1000:,.0f} ({drawings})" for drawings, size in result[name].values())
            sys.stdout.write(f"{name:<26}{''.join(f'{cell:>16}' for cell in cells)}\n")
    finally:
        kernel.stop_channels()
        manager.shutdown_kernel(now=True)
    ours = [row[BOUND_AT][1] for row in list(result.values())[:-1] if BOUND_AT in row]
    if ours:
        sys.stdout.write(f"most at {BOUND_AT} launches: {max(ours) / 1000:,.0f} kB (bound: {MAX_BYTES // 1000:,} kB)\n")
    if options.json:
        options.json.write_text(json.dumps({"versions": used, **result}, indent=1))


if __name__ == "__main__":
    main()
