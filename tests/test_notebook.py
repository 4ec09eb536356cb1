"""The example notebook runs in a real kernel."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

import st4sd_async
from tests.tries import IS_FULL

pytestmark = [pytest.mark.timeout(120), pytest.mark.slow]  # the kernel imports everything anew, beside other tests

SETTINGS = ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR")
NOTEBOOK = Path(st4sd_async.__file__).parent / "examples" / "runtime_api.ipynb"
ONCE = ("document =",) if IS_FULL else ("document =", "launches =", "batch.plot()", "table =")
"""Begins of the cells that run once: the document is awaited in the datastore, and a batch has many runs."""


def executed(notebook: Any, folder: Path) -> Any:
    resources = {"metadata": {"path": str(folder)}}
    return NotebookClient(notebook, timeout=60, kernel_name="python3", resources=resources).execute()


def outputs(notebook: Any, begin: str) -> list[Any]:
    """Return the outputs of the cell that begins with a text."""
    (cell,) = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.startswith(begin)]
    return list(cell.outputs)


@pytest.fixture(autouse=True)
def default_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Use the default settings of kernels, not those of the user who runs the tests."""
    for name in SETTINGS:
        monkeypatch.setenv(name, str(tmp_path / name))


@pytest.mark.slow(seconds=11)
def test_the_notebook_runs(tmp_path: Path) -> None:
    """
    Without errors and messages, twice in one folder, where it leaves nothing.

    The file has no outputs, and the executed notebook has the expected ones.
    """
    notebook: Any = nbformat.read(NOTEBOOK, as_version=4)  # type: ignore[no-untyped-call]  # of nbformat
    assert all(not cell.outputs and cell.execution_count is None for cell in notebook.cells if "outputs" in cell)
    for cell in notebook.cells:
        cell.source = cell.source.replace("speed=4", "speed=40")
    count = len(notebook.cells)
    notebook.cells += [
        nbformat.from_dict({**cell, "id": f"{cell.id}-again"})  # type: ignore[no-untyped-call]  # of nbformat
        for cell in notebook.cells
        if not cell.source.startswith(ONCE)
    ]

    done = executed(notebook, tmp_path)

    messages = [output for cell in done.cells for output in cell.get("outputs", ()) if output.get("name") == "stderr"]
    assert messages == []
    assert {path.name for path in tmp_path.iterdir()} <= set(SETTINGS)
    done.cells = done.cells[:count]
    (shown,) = outputs(done, "status = await run.show()")
    assert "succeeded" in shown.data["text/html"]
    (failed,) = outputs(done, 'await client.push(server.example("fail"))')
    assert "stage0.Boom" in failed.data["text/html"]
    assert "boom: this component always fails" in failed.data["text/html"]
    (batch,) = outputs(done, "launches = [")
    assert "6 collected" in batch.data["text/html"]
    (plot,) = outputs(done, "batch.plot()")
    assert "image/png" in plot.data
    (table,) = outputs(done, "table = ")
    assert len(re.findall("<tr", table.data["text/html"])) == 7
    (files,) = outputs(done, "files = ")
    assert "Folder/sub/b.bin" in files.data["text/plain"]
