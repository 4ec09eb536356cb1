"""What the benchmarks share: a server with recorded responses, the incumbent client, and the line about the machine."""

from __future__ import annotations

import logging
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent


@contextmanager
def serving(*arguments: object) -> Iterator[int]:
    """Run the server of ``_server.py`` in its own process, and yield its port."""
    command = [sys.executable, str(HERE / "_server.py"), *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.terminate()


def incumbent(url: str, api_key: str) -> Any:
    """Return the incumbent's client; importing it takes a second."""
    import experiment.service.db

    # It warns that the connection is not https.
    logging.disable(logging.WARNING)
    return experiment.service.db.ExperimentRestAPI(url, cc_bearer_key=api_key, test_cdb_connection=False)


def versions(*packages: str) -> dict[str, str]:
    """Return the versions of packages."""
    return {name: metadata.version(name) for name in packages}


def headline(used: dict[str, str], what: str) -> None:
    """Print the machine, the versions and the size of a benchmark."""
    sys.stdout.write(f"Python {platform.python_version()}, {os.cpu_count()} cores, {used}, {what}\n")
