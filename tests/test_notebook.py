"""The example notebook runs in a real kernel, and the kernel's interrupt does not stop runs."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from textwrap import dedent
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

import st4sd_async
from st4sd_async.local import LocalServer

pytestmark = pytest.mark.timeout(120)  # the kernel imports everything anew, and other tests may be running

NOTEBOOK = Path(st4sd_async.__file__).parent / "examples" / "runtime_api.ipynb"


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
    for name in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name))


@pytest.fixture
def endless() -> Iterator[LocalServer]:
    """A server whose clock stands still, so that no run ends."""
    with LocalServer(speed=0) as server:
        yield server


def test_the_notebook_runs(tmp_path: Path) -> None:
    """Without errors and messages; the file has no outputs, and the executed notebook has the expected ones."""
    notebook: Any = nbformat.read(NOTEBOOK, as_version=4)  # type: ignore[no-untyped-call]  # of nbformat
    assert all(not cell.outputs and cell.execution_count is None for cell in notebook.cells if "outputs" in cell)
    for cell in notebook.cells:
        cell.source = cell.source.replace("speed=4", "speed=40")

    done = executed(notebook, tmp_path)

    messages = [output for cell in done.cells for output in cell.get("outputs", ()) if output.get("name") == "stderr"]
    assert messages == []
    (shown,) = outputs(done, "status = await run.show()")
    assert "Success" in shown.data["text/html"]
    (failed,) = outputs(done, 'await client.push(server.example("fail"))')
    assert "stage0.Boom" in failed.data["text/html"]
    (plot,) = outputs(done, "batch.plot()")
    assert "image/png" in plot.data
    (table,) = outputs(done, "table = ")
    assert len(re.findall("<tr", table.data["text/html"])) == 7
    assert list((tmp_path / "results").glob("Folder/sub/b.bin"))


def touch_after_second_poll(server: LocalServer, file: Path) -> None:
    """Make a file once a run was polled twice: by then the first status is displayed."""
    limit = time.monotonic() + 90
    while server.traffic["GET /instances/*/status"].requests < 2 and time.monotonic() < limit:
        time.sleep(0.01)
    file.touch()


@pytest.mark.parametrize("error", ["CancelledError", "KeyboardInterrupt"], ids=["awaited", "blocking"])
def test_the_kernels_interrupt_ends_the_display_and_not_the_run(
    endless: LocalServer, tmp_path: Path, error: str
) -> None:
    """The cell ends, its output says that the run goes on, and the run goes on; with either client."""
    connect = f"""
        from st4sd_async import Client
        client = await Client({endless.url!r}, api_key={endless.api_key!r}).open()
        await client.push({endless.example("demo")!r})
        run = await client.start("demo", {{"inputs": [{{"filename": "molecules.csv", "content": "smiles\\nCO"}}]}})
    """
    polled_twice = tmp_path / "polled twice"
    show = f"""
        import os, signal, threading, time
        def interrupt():
            while not os.path.exists({str(polled_twice)!r}):
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGINT)
        threading.Thread(target=interrupt).start()
        await run.show()
    """

    def blocking(source: str) -> str:
        return (
            source.replace("st4sd_async import", "st4sd_async.sync import").replace(".open()", "").replace("await ", "")
        )

    cells: list[Any] = [
        nbformat.v4.new_code_cell(source if error == "CancelledError" else blocking(source), metadata=metadata)  # type: ignore[no-untyped-call]  # of nbformat
        for source, metadata in (
            (dedent(connect), {}),
            (dedent(show), {"tags": ["raises-exception"]}),
            ("print(await run.status())", {}),
        )
    ]
    notebook = nbformat.v4.new_notebook(cells=cells)  # type: ignore[no-untyped-call]

    with ThreadPoolExecutor(1) as threads:
        threads.submit(touch_after_second_poll, endless, polled_twice)
        done = executed(notebook, tmp_path)

    shown = [output for output in done.cells[1].outputs if output.output_type == "display_data"]
    assert len(shown) == 1
    assert "the runs continue" in shown[0].data["text/html"]
    assert [output.ename for output in done.cells[1].outputs if output.output_type == "error"] == [error]
    assert "no status yet" in done.cells[2].outputs[0].text
