"""``st4sd-async batch``, away from a terminal."""

from __future__ import annotations

import asyncio
import csv
import json
from contextlib import aclosing
from pathlib import Path

import anyio
import pytest
from anyio.from_thread import start_blocking_portal

from st4sd_async import Client, Launch
from st4sd_async.local import DropBefore, Html, LocalServer

from .conftest import MOLECULES, Shell

pytestmark = pytest.mark.slow


@pytest.fixture
def table(shell: Shell) -> Path:
    """A table of three launches, one of them without its input, with its files beside it."""
    folder = Path("campaign")
    folder.mkdir()
    (folder / "molecules.csv").write_text(MOLECULES)
    table = folder / "launches.csv"
    table.write_text("key,input:molecules.csv,scale\none,molecules.csv,1\ntwo,molecules.csv,2\nthree,,3\n")
    return table


def test_a_table_is_run_once_and_the_same_command_resumes(shell: Shell, table: Path) -> None:
    """Each launch is a row with its result, and the files are on disk. The second command starts nothing."""
    before = len(shell("list", "runs").table)

    first = shell("batch", "run", table, "demo", "--output", "Energies", "--to", "files")
    again = shell("batch", "run", table, "demo", "--output", "Energies", "--to", "files")

    assert (first.status, again.status) == (3, 3)
    assert [(row["key"], row["state"], row["files"]) for row in first.table] == [
        ("one", "collected", "1"),
        ("two", "collected", "1"),
        ("three", "refused", ""),
    ]
    assert "Missing inputs: ['molecules.csv']" in first.table[2]["error"]
    assert "; see what a start takes with: st4sd-async show demo (POST http" in first.table[2]["error"]
    assert not [line for line in first.err.splitlines() if line.endswith("-")]
    assert first.err.startswith("3 launches, 3 of them new, in 'campaign/launches.csv.journal'\n")
    assert again.out == first.out
    assert again.err.startswith("3 launches, 0 of them new")
    assert "launches that failed before: 1; they are not started again\n" in again.err
    assert "retry:   st4sd-async batch retry campaign/launches.csv\n" in again.err
    assert len(shell("list", "runs").table) == before + 2
    assert sorted(path.parent.parent.name for path in Path("files").rglob("energies.csv")) == ["one", "two"]


def test_launches_that_are_over_are_json_lines(shell: Shell) -> None:
    """JSON lines in, JSON lines out; a failed run sets the exit status."""
    file = {"filename": "molecules.csv", "content": MOLECULES}
    launches = [{"key": "good", "payload": {"inputs": [file]}}, {"key": "bad", "experiment": "fail"}]
    Path("launches.jsonl").write_text("".join(f"{json.dumps(launch)}\n" for launch in launches))

    done = shell("batch", "run", "launches.jsonl", "demo", "--json")

    found = {one["key"]: one for one in done.lines}
    assert done.status == 1
    assert (found["good"]["state"], found["bad"]["state"]) == ("succeeded", "failed")
    assert found["good"]["rest-uid"].startswith("demo-")
    assert "stage0.Boom" in found["bad"]["error"]


def test_the_journal_has_the_state_of_each_launch(shell: Shell, table: Path) -> None:
    """Status needs no service; properties have the keys; failed launches get a new attempt."""
    shell("batch", "run", table, "demo")
    shell.server.faults.add("* /", Html(502), times=None)

    message, as_json = shell("batch", "status", table), shell("batch", "status", table, "--json")
    shell.server.faults.clear()
    measured = shell("batch", "properties", table, "--name", "energy")
    retried = shell("batch", "retry", table)

    assert [row["state"] for row in message.table] == ["succeeded", "succeeded", "refused"]
    assert message.err == "1 refused, 2 succeeded\n"
    assert (message.status, as_json.status) == (3, 3)
    assert [one["attempt"] for one in as_json.document] == [1, 1, 1]
    assert [(row["key"], row["variable:scale"], row["state"]) for row in measured.table] == [
        *[("one", "1", "succeeded")] * 2,
        *[("two", "2", "succeeded")] * 2,
        ("three", "3", "refused"),
    ]
    assert [row["energy"] for row in measured.table][-1] == ""
    assert retried.err.startswith("1 new attempt planned; start them with the same 'st4sd-async batch run ")
    assert [row["state"] for row in shell("batch", "status", table).table] == ["succeeded", "succeeded", "planned"]
    assert shell("batch", "retry", table, "--json").document == {"planned": 0}


def test_the_table_of_a_campaign_is_written_to_a_file(shell: Shell, table: Path) -> None:
    """CSV and JSON lines have the same rows as standard output. Downloads are beside the table."""
    shell("batch", "run", table, "demo", "-o", "Energies")

    done = [shell("batch", "properties", table, "--to", name) for name in ("t.csv", "t.jsonl")]
    printed, wrong = shell("batch", "properties", table), shell("batch", "properties", table, "--to", "t.xls")

    assert Path(f"{table}.results", "one", "Energies", "energies.csv").exists()
    assert [(one.status, one.out, one.err) for one in done] == [
        (0, "", f"{len(printed.table)} rows in '{name}'\n") for name in ("t.csv", "t.jsonl")
    ]
    rows = list(csv.DictReader(Path("t.csv").read_text().splitlines()))
    assert rows == printed.table
    lines = [json.loads(line) for line in Path("t.jsonl").read_text().splitlines()]
    assert [line["energy"] for line in lines] == [float(row["energy"]) if row["energy"] else None for row in rows]
    assert (wrong.status, wrong.err) == (
        2,
        "st4sd-async: the name of the table must end in .csv or .jsonl, not 't.xls'\n",
    )


def test_a_sweep_writes_its_table_and_runs_it(shell: Shell) -> None:
    """The same command resumes. The table works without --sweep, and is never replaced by another sweep."""
    Path("files").mkdir()
    Path("files/molecules.csv").write_text("smiles\nCO\n")
    Path("campaign").mkdir()
    words = ("batch", "run", "campaign/grid.csv", "demo", "-i", "files/molecules.csv")

    first = shell(*words, "--sweep", "scale=1:1.2:0.1", "--sweep", "label=a,b")
    text = Path("campaign/grid.csv").read_text()
    again = shell(*words, "--sweep", "scale=1:1.2:0.1", "--sweep", "label=a,b")
    other = shell(*words, "--sweep", "scale=1:2:0.1", "--sweep", "label=a,b")

    assert first.err.startswith("6 launches written to 'campaign/grid.csv'\n6 launches, 6 of them new")
    assert text.splitlines()[:3] == [
        "key,input:molecules.csv,experiment,variable:scale,variable:label",
        "scale_1-label_a,../files/molecules.csv,demo,1,a",
        "scale_1-label_b,../files/molecules.csv,demo,1,b",
    ]
    assert again.err.startswith("6 launches, 0 of them new")
    assert again.err.endswith("6 launches: 6 refused\nretry:   st4sd-async batch retry campaign/grid.csv\n")
    assert other.status == 2
    assert other.err == (
        "st4sd-async: 'campaign/grid.csv' has other launches: leave out --sweep to run them, "
        "or remove it with rm campaign/grid.csv\n"
    )
    assert Path("campaign/grid.csv").read_text() == text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--sweep", "scale"), "--sweep takes NAME=VALUES, as in alpha=1:3:0.1 or method=a,b, not 'scale'"),
        (("--sweep", "a=1", "--sweep", "a=2"), "--sweep has the variable 'a' twice: separate its values by commas"),
        (("--sweep", "a=1:2:x"), "'1:2:x' is not a range of 'a': write START:STOP or START:STOP:STEP, all numbers"),
        (("-i", "x.csv"), "--input belongs to --sweep; a table names its files in columns input:NAME"),
    ],
)
def test_a_mistake_in_a_sweep_writes_nothing(shell: Shell, words: tuple[str, ...], message: str) -> None:
    """One line says what is wrong."""
    done = shell("batch", "run", "new.csv", "demo", *words)

    assert (done.status, done.err) == (2, f"st4sd-async: {message}\n")
    assert not Path("new.csv").exists()


def test_the_runs_of_a_campaign_are_found_without_the_journal(shell: Shell, table: Path) -> None:
    """Runs of other campaigns are left out. Other commands read the rest-uids from a pipe."""
    done = shell("batch", "run", table, "demo", "--campaign", "first")
    shell("batch", "run", table, "demo", "--campaign", "other", "--journal", "other.db")
    Path(f"{table}.journal").unlink()

    found, other, nothing = (shell("batch", "find", name) for name in ("first", "other", "nothing"))
    as_json = shell("batch", "find", "first", "--json")
    measured = shell("properties", "-", stdin=found.out)

    expected = [(row["rest-uid"], row["key"], row["state"]) for row in done.table[:2]]
    assert [(row["rest-uid"], row["key"], row["state"]) for row in found.table] == expected
    assert (found.status, found.err) == (0, "2 runs of the campaign 'first'\n")
    assert [one["rest-uid"] for one in as_json.document] == [uid for uid, _, _ in expected]
    assert {row["rest-uid"] for row in other.table}.isdisjoint(uid for uid, _, _ in expected)
    assert (nothing.status, nothing.table, nothing.err) == (0, [], "0 runs of the campaign 'nothing'\n")
    assert {row["rest-uid"] for row in measured.table} == {uid for uid, _, _ in expected}


def test_a_refused_line_is_corrected_in_the_table(shell: Shell) -> None:
    """The message says how, and the same command starts it."""
    Path("x.jsonl").write_text('{"key": "it"}\n')
    refused = shell("batch", "run", "x.jsonl", "dem0")

    conflict = shell("batch", "run", "x.jsonl", "fail")
    planned = shell("batch", "retry", "x.jsonl", "fail", "--corrected")
    done = shell("batch", "run", "x.jsonl", "fail", "--json")

    assert (refused.status, conflict.status, planned.status) == (3, 2, 0)
    assert conflict.err.endswith("st4sd-async batch retry x.jsonl fail --corrected\n")
    assert [(one["state"], one["attempt"]) for one in done.lines] == [("failed", 2)]


def test_a_table_that_names_its_experiments_is_corrected_without_another(shell: Shell) -> None:
    """The advice can be typed as it is."""
    Path("x.jsonl").write_text('{"key": "it", "experiment": "dem0"}\n')
    refused = shell("batch", "run", "x.jsonl")
    Path("x.jsonl").write_text('{"key": "it", "experiment": "fail"}\n')

    conflict = shell("batch", "run", "x.jsonl")
    planned = shell("batch", "retry", "x.jsonl", "--corrected")

    assert (refused.status, conflict.status, planned.status) == (3, 2, 0)
    assert conflict.err.endswith("st4sd-async batch retry x.jsonl --corrected\n")


def test_a_batch_that_the_service_ends_says_how_to_resume(shell: Shell, table: Path) -> None:
    """One line, as after an interrupt."""
    shell.server.faults.add("POST /experiments/*/start", Html(403), times=None)

    done = shell("batch", "run", table, "demo")

    assert done.status == 3
    last = done.err.splitlines()[-1]
    assert "was refused with 403" in last
    assert "; the runs continue; resume with" in last
    assert "a batch was left" not in done.err


async def leave_in_doubt(server: LocalServer) -> None:
    """Make a journal with a launch that may or may not have been started."""
    server.faults.add("POST /experiments/*/start", DropBefore())
    async with Client(server.url, api_key=server.api_key) as client, client.batch("x.jsonl.journal") as batch:
        await batch.add([Launch("it", "fail")])
        async with aclosing(batch.run()) as items, anyio.create_task_group() as tasks:
            tasks.start_soon(anext, items)
            while not batch.counts["unknown"]:  # noqa: ASYNC110 -- a batch has no event for this state
                await anyio.sleep(0.01)
            tasks.cancel_scope.cancel()


@pytest.mark.parametrize("settled", ["adopt", "forget"])
def test_a_launch_in_doubt_is_resolved_by_hand(shell: Shell, settled: str) -> None:
    """A start of unknown outcome has exit status 4, and the message has both solutions, which work."""
    shell.server.outcome("fail", "setup-failure", times=1)  # such a run has no metadata
    run = shell.started("fail")
    asyncio.run(leave_in_doubt(shell.server))

    message = shell("batch", "status", "x.jsonl")
    done = shell("batch", settled, "x.jsonl", "it", *([run] if settled == "adopt" else []))

    assert message.status == 4
    assert message.table[0]["state"] == "unknown"
    assert "st4sd-async batch adopt TABLE it REST-UID; if there is none: st4sd-async batch forget TABLE" in message.out
    assert (done.status, done.out) == (0, "")
    state = {"adopt": "started", "forget": "planned"}[settled]
    assert [row["state"] for row in shell("batch", "status", "x.jsonl").table] == [state]


@pytest.mark.parametrize("command", ["status", "retry", "properties"])
def test_a_missing_journal_is_wrong_usage(shell: Shell, command: str) -> None:
    """It is not created."""
    done = shell("batch", command, "x.csv")

    assert (done.status, done.out) == (2, "")
    assert done.err == "st4sd-async: there is no journal 'x.csv.journal': create it with st4sd-async batch run\n"
    assert not Path("x.csv.journal").exists()


def test_a_launch_that_is_not_in_doubt_cannot_be_resolved(shell: Shell, table: Path) -> None:
    """The message has the state of the launch."""
    shell("batch", "run", table, "demo")

    done = shell("batch", "forget", table, "one")

    assert (done.status, done.err.count("\n")) == (2, 1)
    assert "'one' is not in doubt but succeeded" in done.err


def posts(server: LocalServer) -> int:
    """Return the number of POST requests."""
    return sum(method == "POST" for method, _ in server.requests)


MISTAKES = [
    ("nothing.csv", None, ("demo",), "'nothing.csv': No such file or directory"),
    ("x.csv", "", ("demo",), "x.csv:1: has no column 'key'"),
    ("x.csv", "key\n", ("demo",), "x.csv: has no launches"),
    ("x.csv", "key,scale\na,1\n", (), "x.csv:2: experiment: is missing: name it after the table, or in a column"),
    (
        "x.csv",
        "key,scale\na,1\na,2\n",
        ("demo",),
        "x.csv:3: key: 'a' is the key of line 2 too: each launch needs its own",
    ),
    ("x.csv", "key,scale\n,1\n", ("demo",), "x.csv:2: key: is missing: it names the launch"),
    (
        "x.csv",
        "key,scale\na,1,2\n",
        ("demo",),
        "x.csv:2: has 3 cells, and the first line 2: quote a cell that contains ','",
    ),
    (
        "x.csv",
        "key,scale:x\na,1\n",
        ("demo",),
        "x.csv:1: scale:x: the column 'scale:x' is none of key, experiment, platform, input:NAME",
    ),
    ("x.csv", "key,input:molecules.csv\na,none.csv\n", ("demo",), "'none.csv' cannot be read"),
    ("x.csv", "key\na\n", ("a/b/c",), "x.csv:2: the identifier of an experiment"),
    ("x.jsonl", '{"key": "a"\n', ("demo",), "x.jsonl:1: is not JSON"),
    (
        "x.jsonl",
        '{"key": "a", "variables": {}}\n',
        ("demo",),
        "x.jsonl:1: variables: is no field, only key, experiment, payload",
    ),
    ("x.jsonl", '{"key": "\udcff"}\n', ("demo",), "x.jsonl:1: is not JSON: 'utf-8' codec"),
    ("x.jsonl", '{"key": 1}\n', ("demo",), "x.jsonl:1: key must be a string"),
    ("x.jsonl", '{"key": "a", "payload": {"inptus": []}}\n', ("demo",), "did you mean 'inputs'?"),
]


@pytest.mark.parametrize(
    ("name", "content", "arguments", "message"), MISTAKES, ids=[message[:40] for *_, message in MISTAKES]
)
def test_a_mistake_in_a_table_is_reported_with_its_line(
    shell: Shell, name: str, content: str | None, arguments: tuple[str, ...], message: str
) -> None:
    """Nothing is started, and standard error has one line."""
    if content is not None:
        Path(name).write_text(content, "utf-8", "surrogateescape")
    before = posts(shell.server)

    done = shell("batch", "run", name, *arguments)

    assert (done.status, done.out) == (2, "")
    assert message in done.err
    assert done.err.count("\n") == 1
    assert posts(shell.server) == before


def test_tables_of_spreadsheets_are_read(shell: Shell) -> None:
    """Semicolons, a byte order mark, quotes and blank lines are accepted, and all kinds of columns."""
    Path("molecules.csv").write_text(MOLECULES)
    head = "\ufeffkey;experiment;platform;input:molecules.csv;metadata:at;variable:scale;data:weights.csv"
    Path("x.csv").write_text(f'{head}\n"CCO; water";demo;default; molecules.csv ;10:30;2;\n;;;;;;\n', "utf-8")

    done = shell("batch", "run", "x.csv")

    assert done.status == 0, done.err
    assert [(row["key"], row["state"]) for row in done.table] == [("CCO; water", "succeeded")]
    assert {row["energy"] for row in shell("batch", "properties", "x.csv").table} == {"-6.0", "-9.0"}


def test_a_journal_in_use_is_reported(shell: Shell) -> None:
    """While another process runs the batch, nothing is started twice."""
    Path("x.csv").write_text("key\na\n")

    elsewhere = Client(shell.server.url).batch("x.csv.journal")
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(elsewhere):
        done = shell("batch", "run", "x.csv", "fail")

    assert (done.status, done.out, done.err.count("\n")) == (2, "", 1)
    assert "close the other batch" in done.err


def test_the_status_of_a_batch_can_be_read_while_it_runs(shell: Shell, table: Path) -> None:
    """The states are those recorded so far; the other process is not affected."""
    shell("batch", "run", table, "demo")

    elsewhere = Client(shell.server.url).batch(f"{table}.journal")
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(elsewhere):
        done, as_json = shell("batch", "status", table), shell("batch", "status", table, "--json")
    later = shell("batch", "status", table)

    assert (done.status, as_json.status) == (3, 3)
    assert done.out == later.out
    assert [one["state"] for one in as_json.document] == ["succeeded", "succeeded", "refused"]
    assert (
        done.err == f"'{table}.journal' is in use by another process: these are the states recorded so far\n{later.err}"
    )
