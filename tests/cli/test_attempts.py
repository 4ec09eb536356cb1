"""Several runs at once: errors of one do not affect the others."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from st4sd_async import Client, Config, RetryPolicy, ServerError, Status
from st4sd_async._render.cards import Bar, Tone
from st4sd_async.cli.demo import Attempt, attempts_document, attempts_exit, plan, report, row, run_attempts, table
from st4sd_async.cli.errors import Exit
from st4sd_async.cli.output import print_document, print_table
from st4sd_async.cli.serve import EngineName
from st4sd_async.local import DropAfter, LocalServer, Reply
from st4sd_async.models import Experiment

from .arithmetic import expected, measured

pytestmark = pytest.mark.slow

SUCCESS = Status.model_validate({"experiment-state": "finished", "exit-status": "Success", "total-progress": 1.0})
FAILED = Status.model_validate({"experiment-state": "finished", "exit-status": "Failed", "error-description": "boom"})

EXPERIMENT = Experiment.model_validate({"metadata": {"package": {"name": "demo"}}})


@pytest.fixture
def server() -> Iterator[LocalServer]:
    with LocalServer(speed=50) as running:
        yield running


async def run(server: LocalServer, attempts: Sequence[Attempt], to: Path) -> list[Attempt]:
    """Run the attempts, and return the attempt of each change."""
    package = server.example("demo")
    changed: list[Attempt] = []
    config = Config(retry=RetryPolicy(attempts=1))
    async with Client(server.url, api_key=server.api_key, config=config) as client:
        await run_attempts(client, package, attempts, to, changed.append)
    return changed


@pytest.mark.anyio
async def test_runs_that_fail_do_not_affect_the_others(server: LocalServer, tmp_path: Path) -> None:
    """One of three runs fails: the others are collected, and the exit status is 1."""
    server.outcome("demo", "component-failure", times=1)
    attempts = plan(3)

    changed = await run(server, attempts, tmp_path)

    assert sorted(attempt.exit for attempt in attempts) == [Exit.DONE, Exit.DONE, Exit.RUN_FAILED]
    assert attempts_exit(attempts) is Exit.RUN_FAILED
    assert {attempt.label for attempt in changed} == {"run 1", "run 2", "run 3"}
    for attempt in attempts:
        if attempt.exit is Exit.DONE:
            numbers = expected(attempt.inputs["molecules.csv"], attempt.variables["scale"])
            assert measured(attempt.properties) == numbers
            assert sorted(attempt.files) == ["Energies", "Folder"]


@pytest.mark.anyio
async def test_the_end_says_why_a_run_failed(
    server: LocalServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the last lines of the failed component; its row has the last one."""
    server.outcome("demo", "component-failure", times=1)
    [attempt] = attempts = plan(1)
    await run(server, attempts, tmp_path)

    report(EngineName.SIMULATOR, EXPERIMENT, attempts, tmp_path, as_json=False)

    last = "RuntimeError: the failure of stage0.Compute is simulated"
    assert row(attempt).reason == f"stage0.Compute: {last} (return code 3, KnownIssue)"
    assert capsys.readouterr().err.splitlines()[:5] == [
        f"run 1, {attempt.rest_uid}: component failed",
        "  stage0.Compute failed (return code 3, KnownIssue)",
        "    Traceback (most recent call last):",
        '      File "<simulator>", line 1, in Compute',
        f"    {last}",
    ]


@pytest.mark.anyio
async def test_a_start_in_doubt_ends_with_4(server: LocalServer, tmp_path: Path) -> None:
    """A start whose response was lost has the highest exit status."""
    server.faults.add("POST /rs/experiments/*/start", DropAfter())
    attempts = plan(2)

    await run(server, attempts, tmp_path)

    assert sorted(attempt.exit for attempt in attempts) == [Exit.DONE, Exit.UNKNOWN_START]
    assert attempts_exit(attempts) is Exit.UNKNOWN_START
    [doubtful] = [attempt for attempt in attempts if attempt.rest_uid is None]
    assert (row(doubtful).name, row(doubtful).badge.word) == (doubtful.label, "error")
    assert "st4sd-async list runs" in row(doubtful).reason


@pytest.mark.anyio
async def test_a_service_that_fails_ends_with_3(server: LocalServer, tmp_path: Path) -> None:
    """Results of a run are kept although others could not be fetched."""
    server.faults.add("GET /rs/instances/*/outputs/Folder", Reply(500, {}, b"{}"))
    [attempt] = attempts = plan(1)

    await run(server, attempts, tmp_path)

    assert isinstance(attempt.error, ServerError)
    assert attempts_exit(attempts) is Exit.SERVICE
    assert list(attempt.files) == ["Energies"]
    assert attempt.properties


@pytest.mark.anyio
async def test_a_push_that_fails_starts_nothing(server: LocalServer, tmp_path: Path) -> None:
    """Without the experiment there is no run."""
    server.faults.add("POST /rs/experiments/", Reply(500, {}, b"{}"))

    with pytest.raises(ServerError):
        await run(server, plan(2), tmp_path)

    assert not [path for method, path in server.requests if path.endswith("/start")]


def test_the_worst_attempt_determines_the_exit_status() -> None:
    """No attempts are a success."""
    assert attempts_exit([]) is Exit.DONE
    assert attempts_exit([Attempt("a", {}, {}, status=SUCCESS)]) is Exit.DONE
    assert attempts_exit([Attempt("a", {}, {}, status=SUCCESS), Attempt("b", {}, {}, status=FAILED)]) is Exit.RUN_FAILED
    assert attempts_exit([Attempt("a", {}, {}, status=FAILED), Attempt("b", {}, {}, error=OSError())]) is Exit.USAGE


def test_each_run_has_its_own_inputs() -> None:
    """No two runs are started with the same, however many there are."""
    attempts = plan(36)

    changed = {(attempt.inputs["molecules.csv"], attempt.variables["scale"]) for attempt in attempts}
    assert len(changed) == len(attempts)
    assert len({attempt.inputs["molecules.csv"] for attempt in plan(3)}) == 3


@pytest.mark.parametrize(
    ("status", "shown"),
    [
        (None, ("no status yet", "")),
        (Status.pending(), ("no status yet", "")),
        (Status.model_validate({"experiment-state": "running", "exit-status": "N/A"}), ("running", Bar(0, Tone.BUSY))),
        (SUCCESS, ("succeeded", Bar(1, Tone.GOOD))),
    ],
    ids=["nothing yet", "pending", "running", "finished"],
)
def test_a_row_shows_the_status_of_a_run(status: Status | None, shown: tuple[str, str | Bar]) -> None:
    """As watch shows it. Its name stays the same when it gets a rest-uid."""
    before, after = Attempt("run 1", {}, {}, status=status), Attempt("run 1", {}, {}, "demo-1", status)

    assert (row(before).name, row(before).badge.word, row(before).details) == ("run 1", shown[0], ("-", shown[1]))
    assert (row(after).name, row(after).details) == ("run 1", ("demo-1", shown[1]))


def test_nan_is_null_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    """The document is strict JSON, whatever was measured."""
    attempt = Attempt("run 1", {}, {"scale": 1}, status=FAILED, properties={"energy": [math.nan, -1.5]})

    print_document(attempts_document("simulator", EXPERIMENT, [attempt]))

    [found] = json.loads(capsys.readouterr().out)["runs"]
    assert found["properties"] == {"energy": [None, -1.5]}
    assert found["status"]["error-description"] == "boom"
    assert found["is-success"] is False


def test_runs_that_measured_different_things_share_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    """The table has the columns of all runs; missing values are empty."""
    attempts = [
        Attempt("a", {}, {"scale": 1}, rest_uid="demo-1", properties={"input-id": ["x", "y"], "energy": [1.5, 2.5]}),
        Attempt("b", {}, {"depth": 2}, rest_uid="demo-2", properties={"input-id": ["z"], "weight": [3]}),
        Attempt("c", {}, {}, rest_uid="demo-3"),
    ]

    print_table(*table(attempts))

    assert capsys.readouterr().out.splitlines() == [
        "rest-uid\tscale\tdepth\tinput-id\tenergy\tweight",
        "demo-1\t1\t\tx\t1.5\t",
        "demo-1\t1\t\ty\t2.5\t",
        "demo-2\t\t2\tz\t\t3",
    ]
