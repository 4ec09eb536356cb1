"""
A process whose children each download all of a run and may be killed.

``python -m tests.faults.downloader``. For each line of its input, ``[URL, API_KEY, REST_UID, TARGET, MOMENT]`` in
JSON, it writes ``pid N``; the child kills itself before its MOMENT-th action on files or sockets, never if
that is 0. The line ``N`` waits for the child: if it came to its end, it has written ``actions N``; last comes ``exit
CODE``, negative for a signal, 3 if a file was opened for writing under its final name.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import json
import os
import signal
import ssl
import sys
import traceback
from pathlib import Path
from typing import NoReturn

from st4sd_async import Client, Config

from .forks import import_all
from .gateways import MANIFEST

ACTIONS = {"open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.truncate", "shutil.rmtree", "socket.connect"}
"""Audit events, which Python raises before each action; replacing a file counts as a rename."""

CONFIG = Config(validate=False, verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))


async def download(url: str, api_key: str, run: str, target: Path) -> None:
    """Fetch files, a directory and key-outputs."""
    async with Client(url, api_key=api_key, config=CONFIG) as client:
        await client.download_files(run, target / "files", component="Compute", strict=True)
        await client.download_component(run, 1, "Report", target / "component", strict=True)
        await client.download_outputs(run, target / "outputs", unpack=True, strict=True)


def is_half(path: object, _: object, flags: object) -> bool:
    """
    Whether a file is opened to be written under its final name, where a death would leave half of it.

    Files in a target are opened by their names in an open folder, those that are not whole have numbers.
    """
    if not isinstance(path, str | os.PathLike) or not isinstance(flags, int) or not flags & (os.O_WRONLY | os.O_RDWR):
        return False
    name = os.fspath(path)
    return name != MANIFEST and not name.isdigit()


def child(url: str, api_key: str, run: str, target: str, moment: int) -> NoReturn:
    """Download, and die."""
    sys.dont_write_bytecode = True  # the compiled file of a module would be taken for half a download
    actions = itertools.count(1)
    reached = 0

    def hook(event: str, facts: tuple[object, ...]) -> None:
        nonlocal reached
        if event == "open" and is_half(*facts):
            os._exit(3)
        if event in ACTIONS:
            reached = next(actions)
            if reached == moment:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    try:
        asyncio.run(download(url, api_key, run, Path(target)))
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    say(f"actions {reached}")
    os._exit(0)


def say(line: str) -> None:
    """Write a line at once."""
    os.write(sys.stdout.fileno(), f"{line}\n".encode())


def main() -> None:
    """Serve."""
    import_all()
    gc.freeze()
    for line in iter(sys.stdin.readline, ""):
        request = json.loads(line)
        if isinstance(request, int):
            _, status = os.waitpid(request, 0)
            say(f"exit {os.waitstatus_to_exitcode(status)}")
            continue
        pid = os.fork()
        if not pid:
            child(*request)
        say(f"pid {pid}")


if __name__ == "__main__":
    main()
