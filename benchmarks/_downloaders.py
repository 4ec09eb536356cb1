"""
One download in its own process, which prints its cost in JSON.

    python benchmarks/_downloaders.py {st4sd_async,incumbent,httpx,curl} TASK FOLDER

TASK is JSON: what to do, where, and the run that opens the first connection before the measurement.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import json
import os
import re
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from _shared import incumbent

if TYPE_CHECKING:
    from st4sd_async import Client, Download

MODULES = {"st4sd_async": "st4sd_async", "incumbent": "experiment.service.db", "httpx": "httpx", "curl": "subprocess"}
REST_UID = "demo-c52cd4-76k4hf87"
"""The run of the server that sends only one body."""
BODY = f"/rs/instances/{REST_UID}/outputs/Big"

Result = dict[str, Any]
Task = dict[str, Any]


def peak() -> float:
    """Return the peak memory of this process, in MiB."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found, "only Linux reports the peak of a process separately from its parent"
    return int(found[1]) / 1024


@contextmanager
def timed(result: Result) -> Iterator[None]:
    """Measure the wall and CPU seconds of the block."""
    gc.collect()
    result["opened_mib"] = peak()
    wall, cpu = time.perf_counter(), time.process_time()
    yield
    result |= {"seconds": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}


async def ours(task: Task, folder: Path, result: Result) -> None:
    """Download with `st4sd_async`: to disk, under final names."""
    from st4sd_async import Client, Config

    is_stream = task["do"] == "stream"
    config = Config(validate=not is_stream)
    async with Client(task["url"], api_key=task["key"], config=config) as client:
        if is_stream:
            await client.outputs(REST_UID)
            await _arrive(client, folder, result)
            return
        await client.download_files(task["warm"]["run"], folder / "warm", filename=r"energies\.csv$", strict=True)
        run = task["run"]
        with timed(result):
            if task["do"] == "files":
                found = await client.download_files(run, folder / "to", filename=task["filename"], strict=True)
            elif task["do"] == "component":
                found = await client.download_component(run, 1, "Report", folder / "to", strict=True)
            else:
                found = await client.download_outputs(run, folder / "to", "Energies", strict=True)
    result |= _sizes(one.path for one in found)


async def _arrive(client: Client, folder: Path, result: Result) -> None:
    """Write a key-output to disk, with its digest, but without the sync and the final name."""
    from st4sd_async._api.instances import output_call
    from st4sd_async._results.downloads import Transfer
    from st4sd_async._results.target import IncomingBody
    from st4sd_async._util.progress import ProgressReporter

    sizes: list[int] = []

    def keep(body: IncomingBody) -> list[Download]:
        body.file.close()
        sizes.append(body.file.size)
        return []

    progress = ProgressReporter(None, "body", 1, "key-outputs")
    async with Transfer.open(client._session, folder / "to", progress) as transfer:
        with timed(result):
            await transfer.fetch(output_call(REST_UID, "Big", None), "Big", keep)
    result |= {"files": 1, "bytes": sizes[0]}


def theirs(task: Task, folder: Path, result: Result) -> None:
    """Download with the incumbent: into memory, except for the directory of a component."""
    api, instance = incumbent(task["url"], task["key"]), task["instance"]
    api.cdb_get_components_raw_files(instance=task["warm"]["instance"], filename=r"energies\.csv$")
    with timed(result):
        if task["do"] == "files":
            found = [
                one
                for _, one in api.cdb_get_components_raw_files(instance=instance, filename=task["filename"]).values()
            ]
        elif task["do"] == "component":
            api.cdb_download_component_files(instance, 1, "Report", str(folder / "to"))
        else:
            found = [api.api_rest_uid_output_get(task["run"], "Energies")[1]]
    if task["do"] == "component":
        result |= _sizes(path for path in (folder / "to").rglob("*") if path.is_file())
    else:
        result |= {"files": len(found), "bytes": sum(map(len, found))}


async def plain(task: Task, sink: IO[bytes], result: Result) -> None:
    """Download with httpx, and discard the body."""
    import httpx

    url = f"{task['url']}{BODY}"
    async with httpx.AsyncClient(timeout=60) as client:
        await client.get(url.removesuffix("/Big"))
        with timed(result):
            size = 0
            async with client.stream("GET", url) as reply:
                async for piece in reply.aiter_bytes():
                    size += sink.write(piece)
    result |= {"files": 1, "bytes": size}


def command(task: Task, folder: Path, result: Result) -> None:
    """Download with curl, whose own CPU and memory are counted."""
    import subprocess

    to = folder / "Big"
    with timed(result):
        subprocess.run(["curl", "--silent", "--show-error", "--output", to, f"{task['url']}{BODY}"], check=True)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    result |= {"cpu_s": used.ru_utime + used.ru_stime, **_sizes([to])}


def _sizes(paths: Any) -> Result:
    sizes = [path.stat().st_size for path in paths]
    return {"files": len(sizes), "bytes": sum(sizes)}


def main(who: str, task: Task, folder: Path) -> None:
    """Run the task, and print its cost."""
    importlib.import_module(MODULES[who])
    result: Result = {"imported_mib": peak()}
    if who == "st4sd_async":
        asyncio.run(ours(task, folder, result))
    elif who == "incumbent":
        theirs(task, folder, result)
    elif who == "curl":
        command(task, folder, result)
    else:
        with Path(os.devnull).open("wb", buffering=0) as sink:
            asyncio.run(plain(task, sink, result))
    result["peak_mib"] = peak()
    result["maxrss_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    sys.stdout.write(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]), Path(sys.argv[3]))
