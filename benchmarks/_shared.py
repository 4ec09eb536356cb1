"""What the benches share: the canned server, the incumbent client, and the line that says where they ran."""

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
    """The server of ``_server.py`` in a process of its own; gives its port."""
    command = [sys.executable, str(HERE / "_server.py"), *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.terminate()


def incumbent(url: str, api_key: str) -> Any:
    """The client that users have today; importing it takes a second."""
    import experiment.service.db

    # It warns that this machine is not reached by https.
    logging.disable(logging.WARNING)
    return experiment.service.db.ExperimentRestAPI(url, cc_bearer_key=api_key, test_cdb_connection=False)


def versions(*packages: str) -> dict[str, str]:
    """The versions of packages."""
    return {name: metadata.version(name) for name in packages}


def headline(used: dict[str, str], what: str) -> None:
    """Print machine, versions and the size of a bench."""
    sys.stdout.write(f"Python {platform.python_version()}, {os.cpu_count()} cores, {used}, {what}\n")
