"""``--dry-run``: everything that is wrong is listed, and nothing is started."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import pytest
from anyio.from_thread import start_blocking_portal

from st4sd_async import Client
from st4sd_async.cli.problems import LaunchMistake, report
from st4sd_async.local import LocalServer
from tests.tries import tries

from .conftest import MOLECULES, Shell


def starts(server: LocalServer) -> list[str]:
    """Return the paths of all requests that could start something."""
    return [path for method, path in server.requests if method != "GET"]


TABLE = """\
key,platform,input:molecules.csv,scale
good,,molecules.csv,2.5
comma,,molecules.csv,"2,5"
platform,defualt,molecules.csv,2
file,,none.csv,2
empty,,,2
good,,molecules.csv,two
,,molecules.csv,1
"""


def test_all_rows_of_a_table_are_checked(shell: Shell) -> None:
    """Each mistake has its line and its column."""
    Path("molecules.csv").write_text(MOLECULES)
    Path("launches.csv").write_text(TABLE)
    before = starts(shell.server)

    done = shell("batch", "run", "launches.csv", "demo", "-o", "Energy", "--dry-run")

    assert done.status == 2
    assert done.out.splitlines() == [
        "--output: demo has no key-output 'Energy', only ['Energies', 'Folder']: did you mean 'Energies'?",
        "launches.csv:3: scale: '2,5' is not a number, and its default '1' is one: did you mean '2.5'?",
        (
            "launches.csv:4: platform: the experiment does not run on 'defualt', only on ['default']: "
            "did you mean 'default'?"
        ),
        (
            "launches.csv:5: input:molecules.csv: for 'molecules.csv', the file 'none.csv' cannot be read: "
            "No such file or directory"
        ),
        "launches.csv:6: input:molecules.csv: is missing, and the experiment needs it",
        "launches.csv:7: key: 'good' is the key of line 2 too: each launch needs its own",
        "launches.csv:7: scale: 'two' is not a number, and its default '1' is one",
        "launches.csv:8: key: is missing: it names the launch",
    ]
    assert done.err == "8 problems in launches.csv; nothing was started\n"
    assert starts(shell.server) == before
    assert [path.name for path in Path().iterdir() if "journal" in path.name] == []


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (
            "key,molecules.csv,scale",
            (
                "molecules.csv: the experiment does not accept it, only ['scale']: "
                "did you mean the column 'input:molecules.csv'?"
            ),
        ),
        (
            "key,molecule.csv,scale",
            (
                "molecule.csv: the experiment does not accept it, only ['scale']: "
                "did you mean the column 'input:molecules.csv'?"
            ),
        ),
        ("key,inptu:molecules.csv,scale", "did you mean 'input:molecules.csv'?"),
        ("key,input:molecules.csv,input:scale", "did you mean the column 'scale'?"),
        (
            "key,input:molecules.csv,scael",
            ("scael: the experiment does not accept it, only ['scale']: did you mean 'scale'?"),
        ),
        ("key,input:molecules.csv,Platfrom", "did you mean the column 'platform'?"),
        ("key,scale,variable:scale", "variable:scale: is the name of 2 columns: each needs its own"),
        ("Key,input:molecules.csv,scale", "has no column 'key', which names the launches: did you mean 'Key'?"),
    ],
    ids=lambda value: value if value.startswith(("key,", "Key,")) else "",
)
def test_a_mistaken_column_is_named_once(shell: Shell, header: str, message: str) -> None:
    """With the column that was probably meant, and the lines that have a value in it."""
    Path("molecules.csv").write_text(MOLECULES)
    Path("launches.csv").write_text("\n".join([header, *(f"mol {n},molecules.csv,1" for n in range(5))]))

    done = shell("batch", "run", "launches.csv", "demo", "--dry-run")

    assert done.status == 2
    (line,) = [line for line in done.out.splitlines() if message in line]
    assert line.endswith((message, f"{message} (also lines 3-6)"))


def test_a_sweep_is_written_and_checked(shell: Shell) -> None:
    """Its table is there to look at if it is good. With a problem it is not, so the corrected command can write it."""
    Path("molecules.csv").write_text(MOLECULES)
    before = starts(shell.server)
    sweep = ("batch", "run", "grid.csv", "demo", "-i", "molecules.csv", "--dry-run", "--sweep")

    good = shell(*sweep, "scale=1:2:0.5")
    Path("grid.csv").unlink()
    bad = shell(*sweep, "scale=fast,slow")

    assert good.err.endswith("3 launches, 3 of them new: no problem found; nothing was started\n")
    assert bad.out.splitlines()[0] == ("grid.csv:2: variable:scale: 'fast' is not a number, and its default '1' is one")
    assert bad.err.endswith("'grid.csv' was removed again: correct the command, and repeat it\n")
    assert not Path("grid.csv").exists()
    assert shell(*sweep, "scale=1,2").status == 0
    table = Path("grid.csv").read_text()
    Path("molecules.csv").unlink()
    assert shell(*sweep, "scale=1,2").status == 2
    assert Path("grid.csv").read_text() == table  # an earlier command wrote it
    assert starts(shell.server) == before


def test_a_good_table_says_what_would_be_started(shell: Shell) -> None:
    """Launches that are in the journal already are not new. Another payload for one of their keys is a problem."""
    Path("molecules.csv").write_text(MOLECULES)
    rows = ["key,input:molecules.csv,scale", *(f"mol {n},molecules.csv,{n}" for n in range(3))]
    Path("launches.csv").write_text("\n".join(rows[:3]))
    assert shell("batch", "run", "launches.csv", "demo").status == 0
    Path("launches.csv").write_text("\n".join(rows))
    before = starts(shell.server)

    good = shell("batch", "run", "launches.csv", "demo", "--dry-run")
    Path("launches.csv").write_text("\n".join(rows).replace("mol 1,molecules.csv,1", "mol 1,molecules.csv,7"))
    conflict = shell("batch", "run", "launches.csv", "demo", "--dry-run")

    assert (good.status, good.out) == (0, "")
    assert good.err == "3 launches, 1 of them new: no problem found; nothing was started\n"
    assert conflict.out == (
        "launches.csv:3: key: 'mol 1' is in the journal 'launches.csv.journal' with another launch: "
        "variables.scale was '1' and is '7'; use another key or, if that launch failed or was not sent, correct it: "
        "st4sd-async batch retry launches.csv demo --corrected\n"
    )
    assert starts(shell.server) == before


def test_an_unknown_experiment_is_one_line(shell: Shell) -> None:
    """However many launches name it; as JSON, each launch has its own."""
    Path("x.jsonl").write_text("".join(f'{{"key": "mol {n}"}}\n' for n in range(20)) + '{"kye": "a"}\n')

    done, as_json = (shell("batch", "run", "x.jsonl", "dmeo", "--dry-run", *more) for more in ((), ("--json",)))

    assert done.out.splitlines() == [
        "x.jsonl:1: experiment: the registry has no experiment 'dmeo': did you mean 'demo'? (also lines 2-20)",
        "x.jsonl:21: kye: is no field, only key, experiment, payload: did you mean 'key'?",
    ]
    assert done.err == "21 problems in x.jsonl; nothing was started\n"
    assert [one["line"] for one in as_json.document] == list(range(1, 22))
    assert as_json.document[0].keys() == {"file", "line", "where", "what"}


def test_json_lines_have_their_own_entries(shell: Shell) -> None:
    """They have no columns."""
    row = {"key": "a", "payload": {"inputs": ["molecules.csv"], "variables": {"molecules.csv": 1}}}
    Path("x.jsonl").write_text(json.dumps(row))

    done = shell("batch", "run", "x.jsonl", "demo", "--dry-run")

    assert [line.split(": ")[1] for line in done.out.splitlines()] == ["inputs[0]", "variables.molecules.csv"]
    assert "did you mean 'molecules.csv' in inputs?" in done.out


def test_without_dry_run_the_first_mistake_is_shown_and_the_others_are_counted(shell: Shell) -> None:
    """The message says how to list all."""
    Path("x.csv").write_text("key,scale\n,1\na,1\na,2\n")

    done = shell("batch", "run", "x.csv", "demo")

    assert done.err == (
        "st4sd-async: x.csv:2: key: is missing: it names the launch; "
        "1 more: list all with st4sd-async batch run --dry-run\n"
    )


def test_a_record_of_several_lines_has_the_number_of_the_first(shell: Shell) -> None:
    """As a text editor counts them."""
    Path("x.csv").write_text('key,metadata:note\n\na,"two\nlines"\n,"b\n\n"\n')

    done = shell("batch", "run", "x.csv", "fail", "--dry-run")

    assert done.out == "x.csv:5: key: is missing: it names the launch\n"


def test_a_start_is_checked_in_terms_of_its_options(shell: Shell) -> None:
    """All at once; nothing is started."""
    Path("molecules.csv").write_text(MOLECULES)
    before = starts(shell.server)

    done = shell(
        *("start", "demo", "-i", "molecules.csv=none.csv", "-v", "scael=2", "-v", "scale=2,5", "-d", "molecules.csv"),
        *("-v", "weights.csv=x", "-p", "defualt", "-m", "a:b=c", "--dry-run"),
    )

    assert done.status == 2
    assert [line.split(": ")[0] for line in done.out.splitlines()] == [
        "--input molecules.csv",
        "--metadata a:b",
        "--data",
        "--variable scael",
        "--variable weights.csv",
        "--data molecules.csv",
        "--platform",
        "--variable scale",
    ]
    assert "did you mean --data weights.csv=FILE?" in done.out
    assert done.err == "8 problems in the start of demo; nothing was started\n"
    assert starts(shell.server) == before


def test_a_good_start_is_not_started(shell: Shell) -> None:
    """Standard output stays empty; as JSON it is an empty list."""
    Path("molecules.csv").write_text(MOLECULES)
    before = starts(shell.server)

    done, as_json = (
        shell("start", "demo", "-i", "molecules.csv", "-v", "scale=2.5", "--watch", "--dry-run", *more)
        for more in ((), ("--json",))
    )

    assert (done.status, done.out, done.err) == (0, "", "no problem found; nothing was started\n")
    assert (as_json.status, as_json.document) == (0, [])
    assert starts(shell.server) == before


def test_a_payload_of_a_file_is_checked_too(shell: Shell) -> None:
    """Entries without an option keep their names."""
    payload = {"inputs": [{"filename": "molecules.csv", "content": ""}], "s3": {"bucket": "b"}, "metdata": {}}

    done = shell("start", "demo", "--payload", "-", "--dry-run", stdin=json.dumps(payload))
    odd = shell("start", "demo", "--payload", "-", "--dry-run", stdin='{"inputs": ["molecules.csv"]}')

    assert [line.split(": ")[0] for line in done.out.splitlines()] == ["metdata", "--input molecules.csv", "s3"]
    assert [line.split(": ")[0] for line in odd.out.splitlines()] == ["inputs[0]"]


@pytest.mark.parametrize(
    ("lines", "shown"),
    [
        ([2], ""),
        ([2, 3], " (also line 3)"),
        ([2, 3, 4, 6, 9, 10], " (also lines 3-4, 6, 9-10)"),
        (range(2, 2000, 2), " (also lines 4, 6, 8, 10, 12, 14, 16, 18, 20, 22 and 988 more)"),
    ],
)
def test_a_problem_of_many_lines_is_printed_once(
    capsys: pytest.CaptureFixture[str], lines: Iterable[int], shown: str
) -> None:
    """With their numbers, as far as they fit on a line."""
    report([LaunchMistake("x.csv", line, "a", "b") for line in lines], of="x.csv", summary="", as_json=False)

    assert capsys.readouterr().out == f"x.csv:2: a: b{shown}\n"


def test_a_table_is_checked_while_its_batch_runs(shell: Shell) -> None:
    """Without a comparison with the journal, which the other process has open."""
    Path("x.csv").write_text("key\na\n")

    elsewhere = Client(shell.server.url).batch("x.csv.journal")
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(elsewhere):
        done = shell("batch", "run", "x.csv", "fail", "--dry-run")

    assert (done.status, done.out) == (0, "")
    assert done.err == (
        "'x.csv.journal' is in use by another process: the launches in it are not compared\n"
        "1 launch, 1 of them new: no problem found; nothing was started\n"
    )


def test_a_table_of_many_rows_takes_two_requests(shell: Shell) -> None:
    """One for the login, and one for the experiment."""
    rows = tries(1000, 200)
    Path("molecules.csv").write_text(MOLECULES)
    lines = "".join(f"mol {number},molecules.csv,{number}\n" for number in range(rows))
    Path("launches.csv").write_text(f"key,input:molecules.csv,scale\n{lines}")
    before = len(shell.server.requests)

    done = shell("batch", "run", "launches.csv", "demo", "-o", "Energies", "--dry-run")

    assert done.err == f"{rows:,} launches, {rows:,} of them new: no problem found; nothing was started\n"
    assert [path.rpartition("/rs")[2] for _, path in shell.server.requests[before:]] == [
        "/url-map/",
        "/experiments/demo",
    ]
