"""The datastore through sockets: searches, tags, documents that are late, and the same as the incumbent finds."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from typing import Any

import pytest
from anyio import to_thread

from st4sd_async import (
    Client,
    Config,
    ExperimentDocument,
    NotFound,
    NotReady,
    RetryPolicy,
    Run,
    Unauthorized,
    UnknownRun,
    UserMetadata,
)
from st4sd_async.local import Html, LocalServer, Reply
from tests.conftest import ServersClock
from tests.results.demo_runs import INPUTS, upsert

pytestmark = [pytest.mark.anyio, pytest.mark.slow]


@pytest.fixture
async def client(server: LocalServer, clock: ServersClock) -> AsyncIterator[Client]:
    """A client whose pauses take no time, and which repeats nothing."""
    config = Config(clock=clock, retry=RetryPolicy(attempts=1))
    async with Client(server.url, api_key=server.api_key, config=config) as opened:
        await opened.push(server.example("demo"))
        yield opened


async def start(client: Client, **metadata: str) -> Run:
    """A run of the demo."""
    return await client.start("demo", {"inputs": INPUTS, "metadata": metadata})


async def finished(client: Client, server: LocalServer, **metadata: str) -> Run:
    """A run that is over, and known to be."""
    run = await start(client, **metadata)
    await server.advance(100)
    return run


async def test_documents_are_found_by_filters(client: Client, server: LocalServer) -> None:
    """Expressions, references, ids and queries of MongoDB lead to them."""
    run, other = await finished(client, server, campaign="x"), await finished(client, server, campaign="y")
    datastore = client.datastore
    (document,) = await datastore.experiments(rest_uid=run.id)

    async def references(**wanted: Any) -> list[str]:
        return [one.reference for one in await datastore.components(rest_uid=run.id, **wanted)]

    assert (document.rest_uid, document.status.is_success) == (run.id, True)
    assert document.status.stages == ["stage0", "stage1"]
    assert await datastore.experiments(instance=f"^{document.instance}$") == [document]
    assert {one.rest_uid for one in await datastore.experiments()} == {run.id, other.id}
    assert [one.rest_uid for one in await datastore.user_metadata(query={"campaign": "y"})] == [other.id]
    assert await datastore.query({"metadata.userMetadata.campaign": "x"}) == [document.raw]
    assert await references() == ["stage0.Compute", "stage1.Report"]
    assert await references(component="stage0.Comp") == await references(stage=0) == ["stage0.Compute"]
    assert await references(filename=r"/b\.bin$") == await references(component="^Report$") == ["stage1.Report"]
    assert await references(query={"producers": {"$ne": {}}}) == ["stage1.Report"]
    assert await references(component="Ghost") == []
    assert len(await datastore.components(component="Compute")) == 2
    assert await datastore.components(rest_uid="ghost") == []
    assert await datastore.experiments(rest_uid="ghost") == []


async def test_properties_come_with_documents(client: Client, server: LocalServer) -> None:
    """NaN is a number, or a text if requested; unknown columns are left out, the input's id never is."""
    run = await finished(client, server)

    (plain,) = await client.datastore.experiments(rest_uid=run.id)
    (some,) = await client.datastore.experiments(rest_uid=run.id, include_properties=["ENERGY", "ghost"])
    (everything,) = await client.datastore.query({"type": "experiment"}, include_properties=["*"], stringify_nan=True)

    assert plain.property_table is None
    assert some.property_table is not None
    assert sorted(some.property_table) == ["energy", "input-id"]
    assert some.property_table["energy"][:2] == [-6.0, -4.5]
    assert math.isnan(some.property_table["energy"][2])
    assert sorted(everything["interface"]["propertyTable"]) == ["energy", "input-id", "smiles", "weight"]
    assert everything["interface"]["propertyTable"]["energy"] == [-6.0, -4.5, "NaN"]


async def test_wrong_filters_send_nothing(client: Client, server: LocalServer) -> None:
    """Errors are raised at once, also for a rest-uid beside another name of the run."""
    before = len(server.requests)

    wrongs: list[dict[str, Any]] = [
        {"component": "stage0.A", "stage": 0},
        {"filename": "("},
        {"rest_uid": "a", "instance": "b"},
        {"rest_uid": "a", "query": {"instance": "b"}},
    ]
    for wrong in wrongs:
        with pytest.raises(ValueError, match=r"leave out|not a regular expression"):
            await client.datastore.components(**wrong)
    with pytest.raises(TypeError, match="a query is a mapping"):
        await client.datastore.query("type")  # type: ignore[arg-type] # on purpose
    with pytest.raises(ValueError, match="timeout must be a number of seconds, not -1"):
        await client.run("a").document(timeout=-1)

    assert len(server.requests) == before


async def test_tags_are_in_both_documents(client: Client, server: LocalServer) -> None:
    """They are added to existing ones, can be searched for, and outlive the run; other runs have none."""
    run, other = await finished(client, server, campaign="x"), await finished(client, server)
    about = [*await run.components(), *await client.datastore.user_metadata(rest_uid=run.id)]

    written = await client.datastore.tag(about, {"rating": "5", "campaign": "z"})
    again = await client.datastore.tag([written[0].raw, await other.document()], {"checked": True})
    await run.delete()

    assert [(one.rest_uid, one.metadata["rating"]) for one in written] == [(run.id, "5")]
    assert [one.rest_uid for one in again] == [run.id, other.id]
    (found,) = await client.datastore.user_metadata(query={"rating": "5", "checked": True})
    assert found.metadata == {**written[0].metadata, "checked": True, "campaign": "z"}
    assert (await run.document()).metadata.user_metadata == found.metadata
    assert len(await client.datastore.query({"instance": found.instance})) == 4
    assert "rating" not in (await other.document()).metadata.user_metadata


async def test_tags_for_an_unknown_run_are_refused(client: Client, server: LocalServer) -> None:
    """Nothing is written for runs of the same call, also if only one of the documents is missing."""
    run = await finished(client, server)
    known = await run.document()
    lonely = {"instance": "file://elsewhere/a", "type": "user-metadata", "uid": "a"}
    await upsert(client, lonely)

    with pytest.raises(NotFound, match="the datastore has no user-metadata of 'file://ghost/x'"):
        await client.datastore.tag([known, {"instance": "file://ghost/x"}], {"a": "b"})
    with pytest.raises(NotFound, match="no experiment of 'file://elsewhere/a'"):
        await client.datastore.tag([known, lonely], {"a": "b"})

    assert await client.datastore.user_metadata(query={"a": "b"}) == []
    assert await client.datastore.tag([], {"a": "b"}) == []


async def test_a_late_document_is_waited_for(client: Client, clock: ServersClock) -> None:
    """It appears about 10 s after the run registered, with the end if the run is over by then."""
    run = await start(client, campaign="x")

    document = await run.document()
    components = await run.components()

    assert (document.rest_uid, document.status.is_success) == (run.id, True)
    assert 10 <= sum(clock.slept) <= 20
    assert clock.slept[0] == 0.5
    assert {component.state for component in components} == {"finished"}
    assert all(component.files for component in components)


async def test_a_run_that_goes_on_has_the_document_of_now(
    client: Client, server: LocalServer, clock: ServersClock
) -> None:
    """The call does not wait for the end."""
    server.outcome("demo", "stuck", times=1)
    run = await finished(client, server)

    document = await run.document()

    assert (document.status.experiment_state, document.status.is_final) == ("running", False)
    assert clock.slept == []


async def test_a_run_that_has_just_ended_has_a_document_that_says_so(
    client: Client, server: LocalServer, clock: ServersClock
) -> None:
    """The older one, whose components have no files yet, is not taken for the last word."""
    server.outcome("demo", "success", times=1, stretch=10)
    run = await start(client)
    await server.advance(40)
    early = await run.components()
    await server.advance(10.5)
    assert (await client.status(run)).is_final
    (stale,) = await client.datastore.experiments(rest_uid=run.id)
    assert (await run.document(timeout=0)).status == stale.status

    late = await run.components()

    assert (stale.status.is_final, [one.files for one in early]) == (False, [[], []])
    assert all(component.files for component in late)
    assert 5 < sum(clock.slept) <= 20


async def test_a_deleted_run_is_still_found(client: Client, server: LocalServer, clock: ServersClock) -> None:
    """The document with Stopped comes late; if it does not come, the last one is returned."""
    server.outcome("demo", "stuck", times=1)
    stopped = await finished(client, server)
    server.outcome("demo", "killed", times=1)
    killed = await finished(client, server)
    assert (await killed.document()).status.experiment_state == "running"
    await stopped.delete()
    await killed.delete()

    assert (await stopped.document()).status.exit_status == "Stopped"
    clock.slept.clear()
    assert (await killed.document()).status.experiment_state == "running"
    assert sum(clock.slept) == pytest.approx(20)


async def test_no_document_is_never_nothing(client: Client, server: LocalServer, clock: ServersClock) -> None:
    """Not yet, never and unknown are different errors."""
    waiting = await start(client)
    with pytest.raises(NotReady, match=f"no document of run '{waiting.id}' yet"):
        await waiting.document(timeout=0)
    assert clock.slept == []
    with pytest.raises(NotReady):
        await waiting.components(timeout=2)
    assert sum(clock.slept) == pytest.approx(2)

    server.outcome("demo", "setup-failure", times=1)
    failed = await finished(client, server)
    clock.slept.clear()
    with pytest.raises(NotFound, match="is over and left no document"):
        await failed.document()
    assert clock.slept == []

    with pytest.raises(UnknownRun, match="the datastore has no document of it either"):
        await client.run("ghost").components()
    assert sum(clock.slept) == pytest.approx(20)
    assert len(clock.slept) <= 10
    clock.slept.clear()
    with pytest.raises(UnknownRun):
        await client.run("ghost").document()
    assert clock.slept == []


async def test_a_run_without_components_is_not_ready(client: Client) -> None:
    """Its document came, theirs did not."""
    document: dict[str, Any] = {
        "instance": "file://elsewhere/a",
        "type": "experiment",
        "uid": "file:///a",
        "metadata": {"userMetadata": {"rest-uid": "a"}},
        "status": {"experiment-state": "finished", "exit-status": "Success"},
    }
    await upsert(client, document)

    assert (await client.run("a").document()).status.is_success
    with pytest.raises(NotReady, match="none of its components yet"):
        await client.run("a").components()


async def test_health_is_whether_it_answers(client: Client, server: LocalServer) -> None:
    """A proxy without a backend and a page where a greeting is due are not healthy; a refused login is an error."""
    hello = "GET /ds-mongodb-proxy/hello"

    assert await client.datastore.is_healthy()
    for fault in (Html(502), Html(404), Reply(200, {}, b"<html>Welcome</html>"), Reply(200, {}, b'"bye"')):
        server.faults.add(hello, fault)
        assert not await client.datastore.is_healthy()
    server.renew()
    with pytest.raises(Unauthorized):
        await client.datastore.is_healthy()


async def test_a_deployment_without_a_datastore(server: LocalServer, clock: ServersClock) -> None:
    """Each method says so; a wait for a run's document does not begin."""
    body = b'{"localDeployment": true, "message": "Local deployment"}'
    server.faults.add("GET /url-map", Reply(400, {"Content-Type": "application/json"}, body))
    async with Client(server.url, api_key=server.api_key, config=Config(clock=clock)) as client:
        for asking in (client.datastore.is_healthy(), client.datastore.experiments(), client.run("a").document()):
            with pytest.raises(NotFound, match="this deployment has no datastore"):
                await asking

    assert clock.slept == []


@pytest.mark.filterwarnings("ignore")  # those of the incumbent and of what it imports
@pytest.mark.timeout(60)  # the incumbent's import takes seconds on a busy machine
async def test_the_incumbent_finds_the_same(client: Client, server: LocalServer) -> None:
    """Its filters, unmodified, lead to the same documents as ours."""
    from experiment.service.db import ExperimentRestAPI

    run, _ = await finished(client, server, campaign="x"), await finished(client, server)
    datastore, location = client.datastore, (await run.document()).instance
    components: list[dict[str, Any]] = [
        {},
        {"instance": location},
        {"instance": location.removeprefix("file://example-cluster")},
        {"component": "Comp.*"},
        {"component": "stage0.Comp"},
        {"component": "omp", "stage": 0},
        {"filename": "b.bin"},
        {"filename": "/.*/energies.csv"},
        {"query": {"producers": {"$ne": {}}}, "stage": 1},
        {"component": "Ghost"},
    ]

    def ask() -> dict[str, Any]:
        api = ExperimentRestAPI(f"{server.url}/rs", max_retries=1, cc_bearer_key=server.api_key)
        return {
            "components": [api.cdb_get_document_component(**one, _api_verbose=False) for one in components],
            "experiments": api.cdb_get_document_experiment(_api_verbose=False),
            "properties": api.cdb_get_document_experiment(
                instance=location, include_properties=["Energy"], stringify_nan=True, _api_verbose=False
            ),
            "of_run": api.cdb_get_document_experiment_for_rest_uid(run.id, _api_verbose=False),
            "metadata": api.cdb_get_document_user_metadata(query={"campaign": "x"}, _api_verbose=False),
            "anything": api.cdb_get_document(query={"stage": 1}, _api_verbose=False),
        }

    theirs = await to_thread.run_sync(ask)

    def raw(found: list[Any]) -> list[dict[str, Any]]:
        return [one.raw for one in found]

    assert [len(found) for found in theirs["components"]] == [4, 2, 2, 2, 2, 2, 2, 2, 2, 0]
    assert [raw(await datastore.components(**one)) for one in components] == theirs["components"]
    assert raw(await datastore.experiments()) == theirs["experiments"]
    properties = await datastore.experiments(instance=location, include_properties=["Energy"], stringify_nan=True)
    assert raw(properties) == theirs["properties"]
    document = await run.document()
    assert isinstance(document, ExperimentDocument)
    assert document.raw == theirs["of_run"]
    metadata = await datastore.user_metadata(query={"campaign": "x"})
    assert isinstance(metadata[0], UserMetadata)
    assert raw(metadata) == theirs["metadata"]
    assert await datastore.query({"stage": 1}) == theirs["anything"]


@pytest.mark.parametrize("about", [[7], ["demo-1"], 7])
async def test_only_documents_can_be_tagged(client: Client, about: Any) -> None:
    """A run or an id is not a document, and the error says so."""
    with pytest.raises(TypeError, match="document"):
        await client.datastore.tag(about, {"a": "b"})
