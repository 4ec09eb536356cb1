"""Imports go downhill only, without circles, and leave out what is not needed; the layers are in pyproject.toml."""

from __future__ import annotations

import subprocess
import sys

import grimp
import pytest

pytestmark = pytest.mark.slow

PERMITTED = [
    # For type checking: an editor knows the type of `Item.run`.
    *(("_batch.batch", "_run"), ("_batch.client", "_run"), ("_batch.item", "_run"), ("_run", "_client")),
    # For type checking: errors hold models, such as the status of a failed run.
    *(("_errors", "models"), ("_errors", "models.requirements")),
    # Inside a function: few programs unpack an output.
    ("models.outputs", "_results.target"),
]
"""Imports, as (importer, imported), that may close a circle."""


@pytest.fixture
def graph() -> grimp.ImportGraph:
    """Return the imports of the package, those for type checking and inside functions included."""
    return grimp.build_graph("st4sd_async")


def test_there_are_no_import_circles_but_the_permitted_ones(graph: grimp.ImportGraph) -> None:
    """A reader can understand each module without those above it."""
    for importer, imported in PERMITTED:
        graph.remove_import(importer=f"st4sd_async.{importer}", imported=f"st4sd_async.{imported}")

    circles = {
        module: graph.find_upstream_modules(module) & graph.find_downstream_modules(module) for module in graph.modules
    }

    assert {module: others for module, others in circles.items() if others} == {}


def test_importing_the_package_imports_none_of_the_extras() -> None:
    """The import is quick and small: no pandas, rich, IPython and so on, and no HTTP engine."""
    unwanted = ["pandas", "rich", "typer", "starlette", "uvicorn", "aiohttp", "httpx", "IPython", "matplotlib"]
    unwanted += ["experiment", "keyring", "obstore", "yaml"]
    code = f"import sys; from st4sd_async import Client; print([name for name in {unwanted} if name in sys.modules])"

    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)

    assert done.stdout.strip() == "[]"
