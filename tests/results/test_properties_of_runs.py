"""Measured properties through sockets: of one run and of many, at each moment of their lives."""

from __future__ import annotations

import json
import math
from collections.abc import AsyncIterator
from math import inf, nan
from typing import Any

import pytest

from st4sd_async import (
    Client,
    Config,
    NoProperties,
    NotReady,
    Properties,
    RetryPolicy,
    Run,
    ServerError,
    Unauthorized,
    UnknownProperty,
    UnknownRun,
)
from st4sd_async.local import Html, LocalServer, Reply
from tests.conftest import FakeClock
from tests.results.demo_runs import INPUTS, JSON, QUERY, ended, finished, start

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

ENERGIES = (("CCCC", -6.0), ("CCO", -4.5), ("NAN", nan))
PROPERTIES = "GET /instances/*/properties"


@pytest.fixture
def clock() -> FakeClock:
    """A clock that leaves the server's alone."""
    return FakeClock()


@pytest.fixture
async def client(server: LocalServer, clock: FakeClock, pushed: set[str]) -> AsyncIterator[Client]:
    """A client whose pauses take no time, and which repeats requests as it does by default."""
    async with Client(server.url, api_key=server.api_key, config=Config(clock=clock)) as opened:
        if "demo" not in pushed:
            await opened.push(server.example("demo"))
            pushed.add("demo")
        yield opened


async def described(client: Client, server: LocalServer, name: str, table: str | None, **interface: Any) -> Run:
    """A finished run of an experiment that leaves this table."""
    spec = interface or {"propertiesSpec": [{"name": "energy"}]}
    server.describe(name, interface=spec, properties=table)
    return await ended(client, server, name)


async def document_of(client: Client, run: Run) -> dict[str, Any]:
    """Return the document of a run, with all its properties."""
    query = {"type": "experiment", "metadata.userMetadata.rest-uid": run.id}
    (document,) = await client.datastore.query(query, include_properties=["*"])
    return document


def requested_names(server: LocalServer, since: int) -> list[str]:
    """Return the last parts of the requested paths."""
    return [path.rstrip("/").rpartition("/")[2] for _, path in server.requests[since:]]


async def test_a_run_has_a_table(client: Client, server: LocalServer) -> None:
    """All columns, or those named, behind the id of the input and in the order of the names; NaN is a number."""
    run = await finished(client, server)
    before = len(server.requests)

    everything = await run.properties()
    some = await client.properties(run.id, ["WEIGHT", "energy"])
    ids = await run.properties([])

    assert requested_names(server, before) == ["properties"] * 3
    assert everything.columns == ("input-id", "smiles", "energy", "weight")
    assert some == Properties(
        ("input-id", "weight", "energy"), (("CCCC", 58.124, -6.0), ("CCO", 46.069, -4.5), ("NAN", nan, nan))
    )
    assert ids == Properties(("input-id",), (("CCCC",), ("CCO",), ("NAN",)))
    assert everything.dataframe()["energy"].dtype.kind == "f"
    assert everything.problems == {}


async def test_the_request_asks_for_json_that_is_valid(client: Client, server: LocalServer) -> None:
    """The traffic can be read in between."""
    run = await finished(client, server)

    columns = await client.instances.properties(run.id, include_properties=["energy"], stringify_nan=True)
    plain = await client.instances.properties(run.id)

    assert json.loads(json.dumps(columns, allow_nan=False)) == {
        "input-id": ["CCCC", "CCO", "NAN"],
        "energy": [-6.0, -4.5, "NaN"],
    }
    assert math.isnan(plain["energy"][2])


async def test_numbers_survive_both_services(client: Client, server: LocalServer) -> None:
    """Infinite ones too, which one service writes as texts and the other does not; texts stay what they are."""
    table = "input-id;energy;count;name;ok\na;inf;1;inf;True\nb;-inf;2;x;False\nc;;3;;True\n"
    run = await described(client, server, "toy", table)
    expected = (("a", inf, 1, "inf", True), ("b", -inf, 2, "x", False), ("c", nan, 3, nan, True))

    one, many = await run.properties(), await client.properties([run])

    assert one.rows == expected
    assert many.rows == tuple((run.id, *row) for row in expected)
    assert [one.dataframe()[name].dtype.kind for name in ("energy", "count", "ok")] == ["f", "i", "b"]


async def test_not_yet_at_each_moment_before_the_end(client: Client, server: LocalServer, clock: FakeClock) -> None:
    """Without a status (a 500), with an incomplete one (a 400), while it runs (another): an error without waiting."""
    run = await start(client, server)
    said = []

    for seconds in (0.0, 0.4, 1.2, 1.0):
        await server.advance(seconds)
        with pytest.raises(NotReady) as one:
            await run.properties()
        assert isinstance((await client.properties([run])).problems[run.id], NotReady)
        said.append((one.value.status, bool(one.value.detail.get("propertiesNotAvailableYet")), str(one.value)))

    assert [found[:2] for found in said] == [(500, False), (400, False), (400, True), (400, True)]
    assert "has no properties yet: no status yet" in said[0][2]
    assert "try again later" in said[3][2]
    assert clock.slept == []


@pytest.mark.parametrize(
    ("outcome", "words"),
    [
        pytest.param("component-failure", "it did not succeed: failed: .*stage0.Compute", id="component"),
        pytest.param("setup-failure", "it did not succeed: failed: .*no such option", id="set-up"),
        pytest.param("stopped", "it did not succeed: stopped", id="stopped"),
    ],
)
async def test_never_after_a_failure(client: Client, server: LocalServer, outcome: str, words: str) -> None:
    """It says how the run ended, whichever service was asked."""
    run = await finished(client, server, outcome)

    with pytest.raises(NoProperties, match=words) as one:
        await run.properties()
    many = await client.properties([run])

    assert type(one.value) is NoProperties
    assert type(many.problems[run.id]) is NoProperties
    with pytest.raises(NoProperties, match=words):
        raise many.problems[run.id]


async def test_never_if_the_experiment_measures_nothing(client: Client, server: LocalServer) -> None:
    """It says so, and also when it should have measured something."""
    nothing = await described(client, server, "nothing", None, description="measures nothing")
    blank = await finished(client, server, inputs=[{"filename": "molecules.csv", "content": "index,smiles\n"}])

    for run, words in ((nothing, "its experiment measures none"), (blank, "the orchestrator could not measure any")):
        with pytest.raises(NoProperties, match=words):
            await run.properties()
        with pytest.raises(NoProperties, match=words):
            await client.properties([run], strict=True)


@pytest.mark.parametrize("outcome", ["component-failure", "setup-failure", "stopped"])
async def test_a_failed_run_has_no_properties_because_it_failed(
    client: Client, server: LocalServer, outcome: str
) -> None:
    """Also if its experiment would not have measured any."""
    server.describe("nothing", interface={"description": "measures nothing"})
    server.outcome("nothing", outcome, times=1)
    run = await ended(client, server, "nothing")

    for one in (run.properties(), client.properties([run], strict=True)):
        with pytest.raises(NoProperties, match="it did not succeed") as caught:
            await one
        assert "measures none" not in str(caught.value)


async def test_an_unknown_interface_is_not_taken_for_an_empty_one(client: Client, server: LocalServer) -> None:
    """The registry shows none of a package with several platforms, whose runs may measure properties nevertheless."""
    server.describe("many", interface={"propertiesSpec": [{"name": "energy"}]}, properties="input-id,energy\nCO,2\n")
    measured = await ended(client, server, "many", platforms=["cpu", "gpu"])
    server.describe("blank", interface={"propertiesSpec": [{"name": "energy"}]})
    blank = await ended(client, server, "blank", platforms=["cpu", "gpu"])
    server.describe("one")
    nothing = await ended(client, server, "one")

    registry = (await client.experiments.get("many")).metadata.registry
    assert (registry.interface.raw, registry.measures) == ({}, None)
    assert (await measured.properties()).rows == (("CO", 2),)
    assert len(await client.properties([measured])) == 1
    for one in (blank.properties(), client.properties([blank], strict=True)):
        with pytest.raises(NoProperties, match="the orchestrator could not measure any") as caught:
            await one
        assert "its experiment measures none" not in str(caught.value)
    with pytest.raises(NoProperties, match="its experiment measures none"):
        await nothing.properties()


async def test_a_run_that_may_still_come_up_is_not_given_up(client: Client, server: LocalServer) -> None:
    """One reply does not prove that a container which failed before the start is the end."""
    run = await finished(client, server, "init-failure")

    with pytest.raises(NotReady, match="has no properties yet: failed: "):
        await run.properties()


async def test_unknown_runs_are_unknown(client: Client, server: LocalServer) -> None:
    """To both services."""
    with pytest.raises(UnknownRun, match="no datastore has a document of it either"):
        await client.run("ghost").properties()

    found = await client.properties(["ghost"], ["Energy"])

    assert isinstance(found.problems["ghost"], UnknownRun)
    assert (found.columns, found.rows) == (("rest-uid", "input-id", "energy"), ())


async def test_unknown_columns_are_named_and_so_are_those_there_are(client: Client, server: LocalServer) -> None:
    """The services leave them out without a word."""
    run = await finished(client, server)
    there = ("input-id", "smiles", "energy", "weight")

    with pytest.raises(UnknownProperty, match=r"did not measure \['zzz', 'gap'\]; it measured \['energy', ") as one:
        await run.properties(["energy", "zzz", "Gap"])
    with pytest.raises(UnknownProperty, match=r"did not measure \['zzz'\]; it measured \['energy', ") as many:
        await client.properties([run, "ghost"], ["zzz"])

    assert (one.value.names, many.value.names) == (("zzz", "gap"), ("zzz",))
    assert one.value.known == many.value.known == there


async def test_a_column_that_no_run_has_is_an_error_of_all(client: Client, server: LocalServer) -> None:
    """It is misspelt, unlike one that some have: each run may lack another."""
    run, toy = await finished(client, server), await described(client, server, "toy", "input-id,gap\nCCO,2\n")

    with pytest.raises(
        UnknownProperty, match=r"none of the 2 runs that have properties measured \['energi'\]"
    ) as error:
        await client.properties([run, toy], ["Energi", "gap"])
    found = await client.properties([run, toy], ["energy", "gap"])

    assert error.value.names == ("energi",)
    assert error.value.known == ("input-id", "smiles", "energy", "weight", "gap")
    assert (list(found.problems), found.rows) == ([run.id, toy.id], ())


async def test_an_unknown_column_is_an_error_even_if_the_others_are_not_known(
    client: Client, server: LocalServer
) -> None:
    """What there is instead is only a help."""
    run = await finished(client, server)
    answer = Reply(200, JSON, b'{"input-id": ["CCO"]}')
    server.faults.add(PROPERTIES, answer)
    server.faults.add(PROPERTIES, Reply(404, JSON, b'{"message": "gone"}'))

    with pytest.raises(UnknownProperty, match=r"did not measure \['zzz'\]$") as error:
        await run.properties(["zzz"])

    assert error.value.known == ()


async def test_deleted_runs_have_their_properties_still(client: Client, server: LocalServer) -> None:
    """The datastore knows them, and which columns they have."""
    run = await finished(client, server)
    before = await run.properties()
    await run.delete()

    assert await run.properties() == before
    assert (await run.properties(["energy"])).rows == ENERGIES
    assert len(await client.properties([run])) == 3
    with pytest.raises(UnknownProperty) as error:
        await run.properties(["zzz"])
    assert error.value.known == before.columns


async def test_a_run_deleted_too_early_is_unknown(client: Client, server: LocalServer) -> None:
    """Unless there is something after all, it says what the datastore heard of it last."""
    stuck, stopped = await finished(client, server, "killed"), await finished(client, server, "stuck")
    await stuck.delete()
    await stopped.delete()

    with pytest.raises(UnknownRun, match="its last known status: running"):
        await stuck.properties()
    await server.advance(100)
    with pytest.raises(NoProperties, match=r"it did not succeed: stopped"):
        await stopped.properties()


async def test_a_run_deleted_before_the_datastore_knows_its_end_has_what_it_left(
    client: Client, server: LocalServer
) -> None:
    """The table is there, although the document says that the run goes on."""
    run = await finished(client, server)
    document = await document_of(client, run)
    document["status"]["experiment-state"] = "running"
    await run.delete()
    server.faults.add(QUERY, Reply(200, JSON, json.dumps({"document-descriptors": [document]}).encode()))

    assert len(await run.properties()) == 3


async def test_many_runs_are_one_table(client: Client, server: LocalServer) -> None:
    """In the given order, each once, with the problems of the others; a few requests find all of it."""
    good = [await finished(client, server) for _ in range(3)]
    toy = await described(client, server, "toy", "input-id,gap\nCCO,2\n")
    failed, deleted = await finished(client, server, "component-failure"), await finished(client, server)
    await deleted.delete()
    waiting, fresh = await start(client, server, "stuck"), await start(client, server)
    await server.advance(6)  # over for a second, which the datastore does not know yet
    runs: list[Run | str] = [toy, good[2], waiting, "ghost", deleted, good[0], failed, fresh, good[1], toy.id]
    before = len(server.requests)

    found = await client.properties(runs)

    assert sorted(requested_names(server, before)) == ["properties"] * 3 + ["query"]
    assert found.columns == ("rest-uid", "input-id", "gap", "smiles", "energy", "weight")
    order = [toy, good[2], deleted, good[0], fresh, good[1]]
    assert list(dict.fromkeys(found["rest-uid"])) == [run.id for run in order]
    assert len(found) == 1 + 5 * 3
    assert found.rows[0] == (toy.id, "CCO", 2, nan, nan, nan)
    assert found.rows[1] == (good[2].id, "CCCC", nan, "CCCC", -6.0, 58.124)
    kinds = {run: type(problem) for run, problem in found.problems.items()}
    assert list(kinds.items()) == [(waiting.id, NotReady), ("ghost", UnknownRun), (failed.id, NoProperties)]
    assert found.dataframe()["energy"].isna().sum() == 1 + 5


async def test_hundreds_of_runs_take_a_few_requests(client: Client, server: LocalServer) -> None:
    """The datastore is asked for 500 at a time, and no other service if it knows how they ended."""
    runs = server.populate("demo", 501, "component-failure", payload={"inputs": INPUTS})[::-1]
    before = len(server.requests)

    found = await client.properties(runs)

    assert list(found.problems) == runs
    assert {type(problem) for problem in found.problems.values()} == {NoProperties}
    assert requested_names(server, before) == ["query"] * 2


async def test_a_run_without_a_wanted_column_is_left_out_as_a_whole(client: Client, server: LocalServer) -> None:
    """No cell pretends that it was measured."""
    run, toy = await finished(client, server), await described(client, server, "toy", "input-id,gap\nCCO,2\n")

    found = await client.properties([toy, run], ["energy"])

    assert found.columns == ("rest-uid", "input-id", "energy")
    assert found.rows == tuple((run.id, *row) for row in ENERGIES)
    problem = found.problems[toy.id]
    assert isinstance(problem, UnknownProperty)
    assert problem.known == ("input-id", "gap")


async def test_strict_raises_the_first_problem(client: Client, server: LocalServer) -> None:
    """In the order of the runs."""
    run, failed = await finished(client, server), await finished(client, server, "component-failure")

    with pytest.raises(UnknownRun):
        await client.properties([run, "ghost", failed], strict=True)
    with pytest.raises(NoProperties, match="did not succeed"):
        await client.properties([failed, "ghost"], strict=True)
    assert len(await client.properties([run], strict=True)) == 3


async def test_no_runs_are_an_empty_table_without_requests(client: Client, server: LocalServer) -> None:
    """A campaign may have none yet."""
    before = len(server.requests)

    assert await client.properties([]) == Properties(("rest-uid",), ())
    assert len(server.requests) == before


async def test_what_makes_no_sense_sends_nothing(client: Client, server: LocalServer) -> None:
    """It raises at once."""
    before = len(server.requests)

    with pytest.raises(ValueError, match="without commas"):
        await client.properties("a-1", ["a,b"])
    with pytest.raises(ValueError, match="not a rest-uid"):
        await client.properties(["a-1", "a/b"])
    with pytest.raises(TypeError, match="a run must be a Run or a rest-uid"):
        await client.properties([1])  # type: ignore[list-item] # on purpose
    with pytest.raises(TypeError, match="a run must be a Run or a rest-uid"):
        await client.properties(1)  # type: ignore[arg-type] # on purpose

    assert len(server.requests) == before


async def test_a_table_that_the_datastore_cannot_read_is_asked_of_the_service(
    client: Client, server: LocalServer
) -> None:
    """It does not report what it fails to read, and a table cut short is not a table."""
    run = await finished(client, server)
    document = await document_of(client, run)
    table = document["interface"].pop("propertyTable")
    for interface in (document["interface"], {**document["interface"], "propertyTable": {**table, "energy": []}}):
        body = json.dumps({"document-descriptors": [{**document, "interface": interface}]}).encode()
        server.faults.add(QUERY, Reply(200, JSON, body))

    before = len(server.requests)
    assert len(await client.properties([run])) == 3
    assert len(await client.properties([run])) == 3
    assert requested_names(server, before).count("properties") == 2


async def test_a_deployment_without_a_datastore_is_asked_run_by_run(server: LocalServer) -> None:
    """It has the properties of those that are there."""
    server.faults.add("GET /url-map", Reply(400, JSON, b'{"localDeployment": true, "message": "Local deployment"}'))
    async with Client(server.url, api_key=server.api_key) as client:
        await client.push(server.example("demo"))
        runs = [await finished(client, server) for _ in range(2)]

        found = await client.properties([*runs, "ghost"], ["energy"])

        assert len(found) == 6
        assert isinstance(found.problems["ghost"], UnknownRun)


async def test_a_broken_service_is_an_error(client: Client, server: LocalServer) -> None:
    """A 500 for a run that ended well is no "not yet"; one run that cannot be asked for fails no other."""
    one, other = await finished(client, server), await start(client, server)
    await server.advance(6)
    broken = Reply(500, JSON, b'{"message": "Run into an error while extracting the properties"}')
    server.faults.add(PROPERTIES, broken, times=2)

    with pytest.raises(ServerError, match=r"^Run into an error.*was refused with 500"):
        await one.properties()
    found = await client.properties([one, other])

    assert set(found["rest-uid"]) == {one.id}
    assert isinstance(found.problems[other.id], ServerError)


async def test_a_500_is_raised_unchanged_if_nothing_else_is_known(client: Client, server: LocalServer) -> None:
    """The question how the run is doing may fail as well."""
    run = await finished(client, server)
    server.faults.add(PROPERTIES, Reply(500, JSON, b'{"message": "broken"}'))
    server.faults.add("GET /instances/*", Reply(500, JSON, b'{"message": "broken too"}'))

    with pytest.raises(ServerError, match=r"^broken \(.* was refused with 500\)$"):
        await run.properties()


async def test_a_service_that_is_down_is_a_server_error(server: LocalServer, clock: FakeClock) -> None:
    """No request asks why a run has no properties if the service does not respond."""
    config = Config(clock=clock, retry=RetryPolicy(attempts=2))
    async with Client(server.url, api_key=server.api_key, config=config) as client:
        server.faults.add(PROPERTIES, Html(502), times=2)
        before = len(server.requests)

        with pytest.raises(ServerError, match="502"):
            await client.properties("demo-1")

        assert requested_names(server, before) == ["properties"] * 2


async def test_refused_credentials_are_the_problem_of_all(client: Client, server: LocalServer) -> None:
    """They are raised, and not noted for each run."""
    runs = [await start(client, server) for _ in range(40)]
    server.faults.add(PROPERTIES, Html(403), times=100)
    before = len(server.requests)

    with pytest.raises(Unauthorized):
        await client.properties(runs)

    assert len(server.requests) - before < 40
