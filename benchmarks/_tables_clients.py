"""
The clients of `bench_tables.py`, each in its own process, which prints what it measured in JSON.

    python benchmarks/_tables_clients.py CLIENT TASK

TASK is the path of a JSON file: the address of the service, the path of its key, the rest-uids, the journal, a folder.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import re
import resource
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import IO, Any

import pandas
from _downloaders import peak
from _start_server import FINAL
from _tables_server import NAME

from st4sd_async import Client
from st4sd_async._batch.journal import Journal
from st4sd_async._batch.schema import digest
from st4sd_async._batch.state import LaunchRecord, State
from st4sd_async._util.clock import SystemClock
from st4sd_async.integrations.chunks import chunks, read_outputs

PARTITION = 50
"""Runs of a partition of outputs."""
WORKERS = 2
LINE = re.compile(rb"step +(\d+) energy +(\S+) force +(\S+) time (\d+)")

Result = dict[str, Any]
Task = dict[str, Any]


def parse_log(file: IO[bytes]) -> pandas.DataFrame:
    """Return the table in a log, which is read line by line in Python: this is what keeps a processor busy."""
    rows = [tuple(map(float, found.groups())) for line in file if (found := LINE.match(line))]
    return pandas.DataFrame(rows, columns=["step", "energy", "force", "time"])


def cpu() -> float:
    """Return the CPU seconds of this process and of those that it started and that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def peak_of_children() -> float:
    """Return the maximum memory of the largest process that has ended, in MiB."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024


def client_of(task: Task) -> Client:
    """Return a client that can be sent to other processes."""
    return Client(task["url"], api_key=Path(task["key_file"]))


async def write_journal(task: Task) -> Result:
    """Write the journal of a batch of which all runs have succeeded."""
    journal, now = Journal(task["journal"], SystemClock()), time.time()
    await journal.open(client_of(task).url)
    payloads = [json.dumps({"variables": {"scale": index}}) for index in range(len(task["runs"]))]
    planned = [LaunchRecord(f"mol-{index}", NAME, digest(payload), since=now) for index, payload in enumerate(payloads)]
    await journal.add(planned, {digest(payload): payload for payload in payloads})
    sent = [record.to_sending(journal.opening, now) for record in planned]
    started = [record.to_started(run, now) for record, run in zip(sent, task["runs"], strict=True)]
    ended = [record.to_ended(State.SUCCEEDED, json.dumps(FINAL), now) for record in started]
    for before, after in pairwise([planned, sent, started, ended]):
        await asyncio.gather(*(journal.replace(*change) for change in zip(before, after, strict=True)))
    await journal.close()
    return {"rows": len(ended)}


async def open_only(task: Task) -> Result:
    """Open the batch, and import what writes Parquet."""
    import pyarrow.parquet

    async with client_of(task) as client, client.batch(task["journal"]) as batch:
        return {"rows": len(batch.items), "pyarrow": pyarrow.__version__}


async def whole_table(task: Task) -> Result:
    """Write the table of the batch at once, with pandas."""
    async with client_of(task) as client, client.batch(task["journal"]) as batch:
        frame = (await batch.table()).dataframe()
        await asyncio.to_thread(frame.to_parquet, Path(task["folder"]) / "whole.parquet")
    return {"rows": len(frame)}


async def in_parts(task: Task) -> Result:
    """Write the table of the batch in parts, and then again, which changes nothing."""
    import pyarrow.dataset

    folder, began = Path(task["folder"]) / "parts", time.perf_counter()
    async with client_of(task) as client, client.batch(task["journal"]) as batch:
        await batch.write_properties(folder, rows=task["rows"])
        seconds = time.perf_counter() - began
        await batch.write_properties(folder, rows=task["rows"])
    again = time.perf_counter() - began - seconds
    return {"rows": pyarrow.dataset.dataset(folder).count_rows(), "seconds": seconds, "again_s": again}


def one_process(task: Task) -> Result:
    """Parse the outputs of all runs."""
    read = partial(read_outputs, name="Log", parse=parse_log, client=client_of(task))
    sizes = [(len(table), float(table["energy"].sum())) for table in map(read, chunks(task["runs"], PARTITION))]
    return {"rows": sum(rows for rows, _ in sizes), "energy": sum(energy for _, energy in sizes)}


def summarised(runs: list[str], client: Client) -> tuple[int, float]:
    """Parse the outputs of some runs; called in another process."""
    table = read_outputs(runs, "Log", parse_log, client=client)
    return len(table), float(table["energy"].sum())


def process_pool(task: Task) -> Result:
    """Parse them in two processes."""
    work = partial(summarised, client=client_of(task))
    with ProcessPoolExecutor(WORKERS, multiprocessing.get_context("spawn")) as pool:
        sizes = list(pool.map(work, chunks(task["runs"], PARTITION)))
    return {
        "rows": sum(rows for rows, _ in sizes),
        "energy": sum(energy for _, energy in sizes),
        "workers_mib": peak_of_children(),
    }


def dask_workers(task: Task) -> Result:
    """Parse them in two workers of Dask."""
    import dask
    import distributed

    from st4sd_async.integrations.dask import outputs

    with (
        distributed.LocalCluster(n_workers=WORKERS, threads_per_worker=1, dashboard_address=":0") as cluster,
        distributed.Client(cluster) as connected,
    ):
        began = time.perf_counter()
        frame = outputs(task["runs"], "Log", parse_log, partition=PARTITION, client=client_of(task))
        energies = frame["energy"]  # with different columns, each log would be read twice
        rows, energy = dask.compute(energies.count(), energies.sum())
        seconds = time.perf_counter() - began
        peaks = connected.run(peak)
    return {"rows": int(rows), "energy": float(energy), "computing_s": seconds, "workers_mib": max(peaks.values())}


CLIENTS = {
    "write_journal": write_journal,
    "open_only": open_only,
    "whole_table": whole_table,
    "in_parts": in_parts,
    "one_process": one_process,
    "process_pool": process_pool,
    "dask_workers": dask_workers,
}


def measure(name: str, task: Task) -> Result:
    """Run a client; return what it says, the seconds that it took, and the CPU and peak memory of the process."""
    began = time.perf_counter()
    done: Any = CLIENTS[name](task)
    result: Result = asyncio.run(done) if asyncio.iscoroutine(done) else done
    result = {"seconds": time.perf_counter() - began, **result}
    return {"computing_s": result["seconds"], **result, "cpu_s": cpu(), "peak_mib": peak()}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(measure(sys.argv[1], json.loads(Path(sys.argv[2]).read_text()))))
