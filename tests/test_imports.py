"""Imports go downhill only, without circles, and leave out what is not needed; the layers are in pyproject.toml."""

from __future__ import annotations

import subprocess
import sys

import grimp
import pytest


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    """Return the imports of the package, those for type checking and inside functions included."""
    return grimp.build_graph("st4sd_async")


def test_the_embedded_server_imports_nothing_of_the_client(graph: grimp.ImportGraph) -> None:
    """Client and server cannot agree on the same mistake, because they share no code."""
    server = {name for name in graph.modules if name.startswith("st4sd_async.local")}
    client = graph.modules - server

    assert not {(a, b) for a in server for b in graph.find_modules_directly_imported_by(a) if b in client}


def test_importing_the_package_imports_none_of_the_extras() -> None:
    """The import is quick and small: no pandas, rich, IPython and so on, and no HTTP engine."""
    unwanted = ["pandas", "rich", "typer", "starlette", "uvicorn", "aiohttp", "httpx", "IPython", "matplotlib"]
    unwanted += ["experiment", "keyring", "obstore", "yaml"]
    code = f"import sys, st4sd_async; print([name for name in {unwanted} if name in sys.modules])"

    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)

    assert done.stdout.strip() == "[]"
