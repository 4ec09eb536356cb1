"""Why runs failed: components, last lines, and what is said if no file is served."""

from __future__ import annotations

import io
import json
import time
import tracemalloc
import zipfile
from collections.abc import AsyncIterator

import pytest

from st4sd_async import Client, ComponentFailure, Config, Failure, RetryPolicy, Run, RunFailed, Status, UnknownRun
from st4sd_async._render.html import to_html
from st4sd_async._render.text import to_text
from st4sd_async._results.defaults import FAILURE_TIMEOUT
from st4sd_async._results.failure import MAX_EXPLAINED
from st4sd_async.local import Delay, Html, LocalServer, Reply
from st4sd_async.models.failures import MAX_COMPONENTS, MAX_LINE_LENGTH, MAX_LINES, last_lines
from tests.conftest import ServersClock
from tests.results.demo_runs import FILES, QUERY

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

BOOM = "boom: this component always fails"
MOLECULES = {"inputs": [{"filename": "molecules.csv", "content": "smiles\nCO\n"}]}
ABSENT_PROGRAM = """
components:
- stage: 0
  name: Cat
  command: {executable: nosuchprogram, arguments: hello}
"""


@pytest.fixture
async def client(server: LocalServer, clock: ServersClock, pushed: set[str]) -> AsyncIterator[Client]:
    """A client whose pauses take no time, and which repeats nothing."""
    config = Config(clock=clock, retry=RetryPolicy(attempts=1))
    async with Client(server.url, api_key=server.api_key, config=config) as opened:
        for name in {"demo", "fail"} - pushed:
            await opened.push(server.example(name))
            pushed.add(name)
        yield opened


async def failed_run(client: Client, server: LocalServer, after: float = 100) -> Run:
    """Return a run of the example that fails, some seconds after its start."""
    run = await client.start("fail")
    await server.advance(after)
    return run


async def found(run: Run) -> Failure:
    failure = await run.failure()
    assert failure is not None
    return failure


async def test_a_failure_has_its_components_with_what_they_wrote(client: Client, server: LocalServer) -> None:
    """The return code is that of the program; a component that never ran is not among them."""
    run = await failed_run(client, server)

    failure = await found(run)

    assert failure.components == (ComponentFailure("stage0.Boom", "KnownIssue", 3, BOOM, "about to fail"),)
    assert (failure.rest_uid, failure.log, failure.note) == (run.id, "", "")
    assert failure.gist == f"stage0.Boom: {BOOM} (return code 3, KnownIssue)"
    assert str(failure).splitlines() == [
        f"{run.id}: component failed",
        "  stage0.Boom failed (return code 3, KnownIssue)",
        "    standard error:",
        f"      {BOOM}",
        "    standard output:",
        "      about to fail",
    ]
    assert failure.excerpt().splitlines() == [
        f"{run.id}: component failed",
        "  stage0.Boom failed (return code 3, KnownIssue)",
        f"    {BOOM}",
    ]


async def test_standard_error_stands_beside_standard_output(client: Client, server: LocalServer) -> None:
    """Complete, by reference, and selected alike."""
    run = await failed_run(client, server)

    assert await run.stderr() == {"stage0.Boom": f"{BOOM}\n"}
    assert await client.stderr(run.id, "Boom", stage=0) == await run.stderr()


async def test_a_simulated_failure_of_any_experiment_can_be_read(client: Client, server: LocalServer) -> None:
    """Its component has a standard error and a report, too."""
    server.outcome("demo", "component-failure")
    run = await client.start("demo", MOLECULES)
    await server.advance(100)

    (component,) = (await found(run)).components

    assert (component.reference, component.return_code) == ("stage0.Compute", 3)
    assert component.stderr.endswith("RuntimeError: the failure of stage0.Compute is simulated")
    assert [row.reference for row in (await run.status_report()).failed] == ["stage0.Compute"]
    assert list(await run.stderr()) == ["stage0.Compute"]


async def test_a_failure_does_not_wait_for_documents_of_components(client: Client, server: LocalServer) -> None:
    """The location of a run is enough, which the datastore has long before it has the end of the run."""
    run = await client.start("fail")
    await server.advance(13)  # registered at 1 s, known 10 s later; over at 5 s
    before = server.traffic.requests

    failure = await found(run)

    assert failure.components[0].stderr == BOOM
    assert [document.files for document in await run.components(timeout=0)] == [[], []]
    assert server.traffic.requests - before <= 8


async def test_a_failure_waits_for_the_location_of_its_run(
    client: Client, server: LocalServer, clock: ServersClock
) -> None:
    """Twenty seconds at most."""
    run = await failed_run(client, server, 6)
    began = clock.now()

    failure = await found(run)

    assert failure.components[0].stderr == BOOM
    assert 0 < clock.now() - began <= FAILURE_TIMEOUT


async def test_a_run_that_the_datastore_never_knew_has_its_description(client: Client, server: LocalServer) -> None:
    """At once, with one sentence that no log is served."""
    server.outcome("demo", "setup-failure")
    run = await client.start("demo", MOLECULES)
    await server.advance(100)
    began = time.monotonic()

    failure = await found(run)

    assert time.monotonic() - began < 1
    assert (failure.components, failure.log) == ((), "")
    assert failure.note == "no log is served, because the run failed before it was registered in the datastore"
    assert str(failure).splitlines() == [
        f"{run.id}: setup failed",
        "  During argument parsing of sys-args, ran into BadOptionError no such option: --no-such-option",
        f"  {failure.note}",
    ]


@pytest.mark.parametrize("outcome", ["init-failure", "stopped"])
async def test_no_file_is_requested_if_none_would_tell_more(client: Client, server: LocalServer, outcome: str) -> None:
    """The orchestrator never ran, or was stopped by a user."""
    server.outcome("demo", outcome)
    run = await client.start("demo", MOLECULES)
    await server.advance(100)
    before = server.traffic.requests

    failure = await found(run)

    assert failure.components == ()
    assert server.traffic.requests - before == 1


async def test_the_log_of_the_orchestrator_explains_a_run_without_failed_components(
    client: Client, server: LocalServer
) -> None:
    """As after an internal error; it has its last lines only."""
    server.outcome(
        "demo",
        [
            (0.0, {"experiment-state": "running", "stage-state": "running", "exit-status": "N/A"}),
            (
                5.0,
                {
                    "experiment-state": "finished",
                    "stage-state": "running",
                    "exit-status": "Failed",
                    "error-description": "Unexpected exception reached top level",
                },
            ),
        ],
    )
    run = await client.start("demo", MOLECULES)
    await server.advance(100)
    directory = server.directory(run.id)
    assert directory is not None
    (directory / "output" / "experiment.log").write_text("".join(f"line {number}\n" for number in range(100)))

    failure = await found(run)

    assert failure.components == ()
    assert failure.log.split("\n") == [f"line {number}" for number in range(100 - MAX_LINES, 100)]
    assert "log of the orchestrator:" in str(failure)


async def test_a_file_that_is_not_served_is_named(client: Client, server: LocalServer) -> None:
    """The description is left: what failed, and with which code the orchestrator reports it."""
    run = await failed_run(client, server)
    directory = server.directory(run.id)
    assert directory is not None
    for path in ("stages/stage0/Boom/out.stderr", "stages/stage0/Boom/out.stdout", "output/status_details.json"):
        (directory / path).unlink()

    failure = await found(run)

    assert failure.components == (ComponentFailure("stage0.Boom", "KnownIssue", 1),)
    assert failure.note == "the gateway does not serve the output of stage0.Boom"


async def test_a_gateway_that_fails_costs_the_texts_only(client: Client, server: LocalServer) -> None:
    """The note has the error."""
    run = await failed_run(client, server)
    await found(run)
    server.faults.add(FILES, Html(502))

    failure = await found(run)

    assert failure.components[0].reference == "stage0.Boom"
    assert failure.note.startswith("no log could be fetched: the proxy got no response")


async def test_a_component_that_cannot_be_fetched_does_not_lose_the_report(client: Client, server: LocalServer) -> None:
    """The return code is known, and the note has the error."""
    run = await failed_run(client, server)
    await found(run)
    server.faults.add(FILES, Html(502), every=2)

    failure = await found(run)

    assert failure.components == (ComponentFailure("stage0.Boom", "KnownIssue", 3),)
    assert failure.note.startswith("no log could be fetched: the proxy got no response")


async def test_a_damaged_report_costs_the_return_codes_only(client: Client, server: LocalServer) -> None:
    """Components and reasons are in the error description too."""
    run = await failed_run(client, server)
    directory = server.directory(run.id)
    assert directory is not None

    for content in (b"", b"[]", b"{", b'{"0": {"engine": {}}}', b"\xff" * 100):
        (directory / "output" / "status_details.json").write_bytes(content)

        components = (await found(run)).components

        assert components == (ComponentFailure("stage0.Boom", "KnownIssue", 1, BOOM, "about to fail"),), content


async def test_references_from_a_report_are_no_paths(client: Client, server: LocalServer) -> None:
    """They cannot lead out of the run, and those of no component are left out."""
    run = await failed_run(client, server)
    directory = server.directory(run.id)
    assert directory is not None
    report = directory / "output" / "status_details.json"
    references = ["stage0.Boom", "stage0.../../../secret", "stage0.\x1b[2J", f"stage0.{'x' * 300}", "nothing"]
    rows = "".join(f"\n{row}; {reference}; ; False; failed; engine" for row, reference in enumerate(references))
    header = "rowid; reference; consumesFrom; isAlive; state; engine"
    report.write_text(json.dumps({"0": {"engine": {"componentStates": header + rows, "engineStates": ""}}}))
    before = len(server.requests)

    failure = await found(run)

    assert [component.reference for component in failure.components] == references[:2]
    assert failure.components[0].stderr == BOOM
    assert failure.note == "the gateway does not serve the output of stage0.../../../secret"
    assert server.requests[before:].count(("POST", "/ds-gateway/files/api/v1.1")) == 2


async def test_a_silent_datastore_costs_no_more_than_the_timeout(client: Client, server: LocalServer) -> None:
    """What is known by then is returned."""
    run = await failed_run(client, server)
    server.faults.add("GET /rs/instances/*/status", Delay(0.3))
    server.faults.add(QUERY, Delay(5))
    began = time.monotonic()

    failure = await run.failure(timeout=0.5)

    assert time.monotonic() - began < 2
    assert failure is not None
    assert failure.components == (ComponentFailure("stage0.Boom", "KnownIssue", 1),)
    assert failure.note == "no log could be fetched in time; try again"


@pytest.mark.parametrize("name", ["stages/stage0/Boom/out.stderr", "stages/stage0/Boom/other"])
async def test_a_hostile_archive_takes_no_memory(client: Client, server: LocalServer, name: str) -> None:
    """One whose content is far larger than a gateway sends, and one with a file that was not requested."""
    run = await failed_run(client, server)
    await found(run)
    member = f"{server.directory(run.id)}/{name}"
    body = io.BytesIO()
    with (
        zipfile.ZipFile(body, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open(member, "w") as content,
    ):
        for _ in range(40):
            content.write(b" " * (1 << 20))
    server.faults.add(FILES, Reply(200, {"Content-Type": "application/zip"}, body.getvalue()), times=1, every=2)

    tracemalloc.start()
    failure = await found(run)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert peak < 8 << 20
    assert failure.components == (ComponentFailure("stage0.Boom", "KnownIssue", 3),)
    assert failure.note.startswith("no log could be fetched: ")


async def test_a_run_that_has_not_failed_has_no_failure(client: Client, server: LocalServer) -> None:
    """Neither while it goes on nor after its success; an unknown one is an error."""
    run = await client.start("demo", MOLECULES)
    before = await run.failure()
    await server.advance(100)

    assert (before, await run.failure()) == (None, None)
    with pytest.raises(UnknownRun):
        await client.failure("demo-abcdef-12345678")


async def test_a_deleted_run_keeps_its_failure(client: Client, server: LocalServer) -> None:
    """The datastore has its final status, and the gateway its files."""
    run = await failed_run(client, server)
    await run.delete()

    assert (await found(run)).components[0].stderr == BOOM


async def test_texts_are_bounded_and_printable(client: Client, server: LocalServer) -> None:
    """However large and hostile they are; the credentials of the client are masked."""
    run = await failed_run(client, server)
    directory = server.directory(run.id)
    assert directory is not None
    folder = directory / "stages" / "stage0" / "Boom"
    lines = [f"{number:06}" for number in range(300_000)]
    last = [
        "\x1b[31mred\x1b[0m\x1b]0;title\x07",
        "x" * 10_000,
        " 10%\r 99%\r100%",
        f"key={server.api_key}",
        "\u202ebidi",
    ]
    (folder / "out.stderr").write_bytes("\n".join([*lines, *last]).encode() + b"\xff\n\n")
    (folder / "out.stdout").write_bytes(b"y" * 1_000_000)

    (component,) = (await found(run)).components
    shown = component.stderr.split("\n")

    assert len(shown) == MAX_LINES
    assert shown[0] == lines[len(last) - MAX_LINES]
    assert [shown[-5], shown[-3], shown[-1]] == ["red\\x1b]0;title\\x07", "100%", "\\u202ebidi\ufffd"]
    assert len(shown[-4]) == len(component.stdout) == MAX_LINE_LENGTH
    assert server.api_key not in component.stderr


def test_only_the_last_lines_are_kept() -> None:
    """Windows line breaks and empty lines at the end do not count."""
    assert last_lines("") == last_lines("\n \r\n") == ""
    assert last_lines("a\r\n\tb\r\n\r\n") == "a\n    b"
    assert last_lines("1\n2\n3\n", 2) == "2\n3"


async def test_waiting_with_check_raises_the_reason(client: Client, server: LocalServer) -> None:
    """For the first five runs; the others are explained on demand."""
    runs = [await client.start("fail") for _ in range(MAX_EXPLAINED + 2)]
    await server.advance(100)

    with pytest.raises(RunFailed, match=rf"stage0\.Boom: {BOOM} \(return code 3, KnownIssue\)") as caught:
        await client.wait(runs, check=True)
    with pytest.raises(RunFailed, match=BOOM) as single:
        await runs[-1].wait(check=True)

    assert list(caught.value.reasons) == [run.id for run in runs[:MAX_EXPLAINED]]
    assert len(caught.value.failures) == len(runs)
    assert single.value.reasons[runs[-1].id].components[0].return_code == 3
    assert "await client.failure(rest_uid)" in str(caught.value)


async def test_the_timeout_of_a_wait_bounds_the_reasons_too(client: Client, server: LocalServer) -> None:
    """A run whose datastore is silent is over in time, without the reason."""
    run = await failed_run(client, server)
    server.faults.add(QUERY, Delay(5), times=10)
    began = time.monotonic()

    with pytest.raises(RunFailed) as caught:
        await run.wait(timeout=0.5, check=True)

    assert time.monotonic() - began < 2
    assert "stage0.Boom failed (return code 1" in str(caught.value)


def failure_of(count: int, stderr: str = "oops") -> Failure:
    """Return a failure with this number of components."""
    status = Status(experiment_state="finished", exit_status="Failed", stage_state="failed")
    components = tuple(ComponentFailure(f"stage0.C{number}", "KnownIssue", 1, stderr) for number in range(count))
    return Failure("demo-abcdef-12345678", status, components)


def test_many_failed_components_are_counted() -> None:
    """The first five are shown."""
    failure = failure_of(1000)

    assert failure.gist == "stage0.C0: oops (return code 1, KnownIssue), and 999 more components"
    assert str(failure).splitlines()[-1] == f"  and {1000 - MAX_COMPONENTS} more components"
    assert "C4" in str(failure)
    assert "C5" not in str(failure)


def test_a_card_shows_the_last_lines_with_their_indentation() -> None:
    """As HTML, where nothing of them is markup, and as text."""
    card = failure_of(1, "Traceback:\n  <b>File</b>\nValueError: no")._card()

    page, text = to_html(card), to_text(card)

    assert "Traceback:\n  &lt;b&gt;File&lt;/b&gt;\nValueError: no" in page
    assert "component failed: stage0.C0: ValueError: no (return code 1, KnownIssue)" in page
    assert "      <b>File</b>" in text.splitlines()
    assert "standard error of stage0.C0:" in text


@pytest.mark.timeout(120)
async def test_a_real_failure_at_set_up_is_explained() -> None:
    """By the orchestrator's own files: a program does not exist."""
    async with LocalServer(engine="elaunch") as server, Client(server.url, api_key=server.api_key) as client:
        run = await client.start_lambda(ABSENT_PROGRAM, validate=False)
        with pytest.raises(RunFailed) as caught:
            await client.wait([run], timeout=100, check=True)
        setup = caught.value.reasons[run.id]

    assert (setup.components, setup.log) == ((), "")
    assert "executable nosuchprogram" in setup.gist
    assert setup.note.startswith("no log is served")
