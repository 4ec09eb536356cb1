"""``st4sd-async outputs``, ``download``, ``properties``, ``logs`` and ``delete``, away from a terminal."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path

import pytest

from st4sd_async import Client
from st4sd_async.local import LocalServer

from .conftest import MOLECULES, Shell


@pytest.fixture(scope="module")
def run(deployment: LocalServer) -> str:
    """A run that succeeded."""
    return asyncio.run(finished(deployment))


async def finished(server: LocalServer) -> str:
    """Start a run, and wait until the datastore has it too."""
    async with Client(server.url, api_key=server.api_key) as client:
        run = await client.start("demo", {"inputs": [{"filename": "molecules.csv", "content": MOLECULES}]})
        await run.wait(interval=0.02, check=True)
        return run.id


def test_key_outputs_are_listed_and_printed(shell: Shell, run: str) -> None:
    """The list has the files. A name after the run prints the content, a path a file of a folder."""
    listed, content, inside = (
        shell("outputs", run),
        shell("outputs", run, "Energies"),
        shell("outputs", run, "Folder", "summary.json"),
    )

    assert [(row["name"], row["file"].rpartition("/")[2]) for row in listed.table] == [
        ("Energies", "energies.csv"),
        ("Folder", "results"),
    ]
    assert content.out.startswith("input-id,smiles,energy,weight\n")
    assert inside.document["molecules"] == 2
    assert list(shell("outputs", run, "--json").document) == ["Energies", "Folder"]


def test_key_outputs_are_downloaded_and_listed(shell: Shell, run: str) -> None:
    """Each run gets a folder; standard output lists the files on disk."""
    other = shell.started()

    done = shell("download", run, other, "--to", "here")

    assert (done.status, done.err) == (0, "")
    assert [row["file"] for row in done.table] == [
        f"here/{one}/{name}" for one in (run, other) for name in ("Energies/energies.csv", "Folder/results.zip")
    ]
    for row in done.table:
        content = Path(row["file"]).read_bytes()
        assert (str(len(content)), hashlib.sha256(content).hexdigest()) == (row["bytes"], row["sha256"])


@pytest.mark.parametrize("options", [(), ("--files", "csv")], ids=["key-outputs", "files of components"])
@pytest.mark.parametrize("text", ["../../.ssh", "a b", "/etc", "-x/y", "a?b=c"])
def test_an_invalid_rest_uid_is_not_downloaded(shell: Shell, text: str, options: tuple[str, ...]) -> None:
    """No folder is made for it."""
    done = shell("download", "--to", "here", *options, "--", text)

    assert done.status
    assert "rest-uid" in done.err
    assert not Path("here").exists()


@pytest.mark.parametrize("options", [(), ("--files", "csv")], ids=["key-outputs", "files of components"])
def test_a_link_in_place_of_the_folder_of_a_run_is_not_followed(
    shell: Shell, run: str, options: tuple[str, ...]
) -> None:
    """Only the folder that the user named may be a link."""
    elsewhere = Path("elsewhere")
    elsewhere.mkdir()
    Path("here").mkdir()
    Path("here", run).symlink_to(elsewhere.absolute())

    done = shell("download", run, "--to", "here", *options)

    assert done.status
    assert f"'{run}' is in the target already, as a symbolic link" in done.err
    assert list(elsewhere.iterdir()) == []


def test_one_key_output_is_unpacked(shell: Shell, run: str) -> None:
    """--name selects it, --unpack unpacks its files, and results/ is the default target."""
    done = shell("download", run, "--name", "Folder", "--unpack", "--json")

    assert [one["path"] for one in done.document] == [
        f"results/{run}/Folder/sub/b.bin",
        f"results/{run}/Folder/summary.json",
    ]


@pytest.mark.slow
def test_files_of_components_are_downloaded(shell: Shell, run: str) -> None:
    """A regular expression selects the files, --component and --stage the components."""
    done = shell("download", run, "--files", r"\.csv$", "--component", "Compute", "--stage", "0")

    assert sorted(Path(row["file"]).name for row in done.table) == ["energies.csv", "molecules.csv"]


def test_properties_of_all_runs_are_one_table(shell: Shell, run: str) -> None:
    """If there are several runs, a column names them. --json has rows as objects."""
    other = shell.started("demo", "-v", "scale=2")

    one, both = shell("properties", run, "--name", "energy"), shell("properties", run, other, "--json")

    assert [list(row) for row in one.table] == [["input-id", "energy"]] * 2
    assert sorted((row["rest-uid"], row["energy"]) for row in both.document) == sorted(
        [(run, -3.0), (run, -4.5), (other, -6.0), (other, -9.0)]
    )


def test_runs_without_properties_are_reported(shell: Shell, run: str) -> None:
    """The properties of the others are printed."""
    failed = shell.started("fail")

    done = shell("properties", run, failed)

    assert done.status == 1
    assert {row["rest-uid"] for row in done.table} == {run}
    assert f"run {failed!r} has no properties" in done.err


@pytest.mark.parametrize("words", [(), ("fail",)], ids=["one", "two"])
def test_properties_of_failed_runs_have_the_exit_status_of_a_failure(shell: Shell, words: tuple[str, ...]) -> None:
    """The run is the cause, not the service. No empty table is printed."""
    runs = [shell.started("fail") for _ in ("", *words)]

    done, as_json = shell("properties", *runs), shell("properties", *runs, "--json")

    assert (done.status, as_json.status) == (1, 1)
    assert done.out == ""
    assert done.err.count("\n") == len(runs)


def test_logs_of_the_run_or_of_its_components_are_printed(shell: Shell, run: str) -> None:
    """Several texts have headings; --json has them by name."""
    log, printed = shell("logs", run), shell("logs", run, "--component", ".*")

    assert "stage0.Compute is finished" in log.out
    assert "==> stage0.Compute <==" in printed.out
    assert list(shell("logs", run, "--stage", "1", "--json").document) == ["stage1.Report"]
    assert list(shell("logs", run, "--json").document) == ["experiment"]


def test_deleted_runs_are_printed(shell: Shell) -> None:
    """An unknown run is an error. Without a terminal there is no question."""
    run = shell.started()

    done = shell("delete", run, "nothing")

    assert (done.status, done.out) == (3, f"{run}\n")
    assert "st4sd-async list runs" in done.err
    assert shell("status", run).status == 3


MISTAKES = [
    (("outputs", "RUN", "Nothing"), 3, "the run has ['Energies', 'Folder'], and the run is over"),
    (("outputs", "RUN", "Energies", "--json"), 2, "--json applies to the list"),
    (("download", "RUN", "--name", "Nothing"), 3, "has no key-output 'Nothing'"),
    (("download", "RUN", "--files", "("), 2, "not a regular expression"),
    (("download", "RUN", "--component", "Nothing"), 3, "it has ['stage0.Compute', 'stage1.Report']"),
    (("download", "RUN", "--files", "x", "--unpack"), 2, "--name and --unpack select key-outputs"),
    (("properties", "RUN", "--name", "colour"), 3, "it measured ['energy'"),
    (("logs", "RUN", "--component", "Nothing"), 3, "['stage0.Compute', 'stage1.Report']"),
    (("properties", "nothing"), 3, "list the runs with: st4sd-async list runs"),
    (("download", "nothing"), 3, "list the runs with: st4sd-async list runs"),
]


@pytest.mark.parametrize(("arguments", "status", "message"), MISTAKES, ids=[" ".join(words) for words, *_ in MISTAKES])
def test_a_typical_mistake_is_one_clear_line(
    shell: Shell, run: str, arguments: tuple[str, ...], status: int, message: str
) -> None:
    """The message has the valid names, and there is no traceback."""
    done = shell(*(run if one == "RUN" else one for one in arguments))

    assert (done.status, done.out) == (status, "")
    assert message in done.err
    assert done.err.count("\n") == 1


def test_a_folder_that_cannot_be_made_is_an_error(shell: Shell, run: str) -> None:
    """The file that is in the way is named."""
    Path("results").mkdir()
    Path("results", run).touch()

    done = shell("download", run)

    assert done.status != 0
    assert run in done.err
