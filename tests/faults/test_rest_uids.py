"""A text that is not a rest-uid goes no further than where it enters."""

from __future__ import annotations

import inspect
import json
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

import st4sd_async
from st4sd_async import Client, Config, DecodeError, Run
from st4sd_async._api.status_list import StatusList
from st4sd_async._batch.observer import from_documents, instance_list_call
from st4sd_async._http.call import Response
from st4sd_async.local import LocalServer, Reply
from st4sd_async.models import ExperimentDocument, UserMetadata
from tests.tries import combinations

pytestmark = pytest.mark.anyio

BAD = ["../../.ssh", "a b -i /etc/passwd", "a/b", "\x1b[2J", "", "-rf", "x" * 254, 7, None, ["demo-1"], {"$ne": ""}]
GOOD = "demo-abcdef-01234567"
JSON = {"Content-Type": "application/json"}


@pytest.fixture
async def server() -> AsyncIterator[LocalServer]:
    async with LocalServer() as running:
        yield running


@pytest.fixture
async def client(server: LocalServer) -> AsyncIterator[Client]:
    async with Client(server.url, api_key=server.api_key, config=Config(validate=False)) as opened:
        yield opened


def items() -> list[Any]:
    """A list of instances with one good item among bad ones."""
    status = {"experiment-state": "running", "exit-status": "N/A"}
    return [*({"id": bad, "status": status} for bad in BAD), {"id": GOOD, "status": status}, {"status": {}}, 5, None]


def response(body: Any) -> Response:
    return Response(200, JSON, json.dumps(body).encode())


async def test_a_bad_item_of_the_list_is_left_out_with_one_warning(
    server: LocalServer, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    """And does not hide the others."""
    server.faults.add("GET /rs/instances/", Reply(200, JSON, json.dumps(items()).encode()))

    with caplog.at_level(logging.WARNING, "st4sd_async"):
        found = await client.instances.list()

    assert [one.id for one in found] == [GOOD]
    (record,) = caplog.records
    assert record.getMessage().startswith(f"left out {len(items()) - 1} of {len(items())} instances in the list")
    assert record.getMessage().isprintable()


def test_the_poller_and_a_batch_see_only_rest_uids() -> None:
    """In any format of the list, and in documents of the datastore."""
    documents = [UserMetadata.model_validate({"rest-uid": one}) for one in [*BAD, GOOD]]
    compact = Response(200, JSON, json.dumps(items(), separators=(",", ":")).encode())

    call = StatusList().call([GOOD, *(bad for bad in BAD if isinstance(bad, str))])

    for listed_statuses in map(call.decode, (response(items()), response(items()[:-3]), compact)):
        assert list(listed_statuses.statuses) == [GOOD]
        assert listed_statuses.total == 1
    listed = instance_list_call().decode(response(items()))
    assert (list(listed.instances), listed.is_readable) == ([GOOD], False)
    assert list(from_documents(documents)) == [GOOD]


@pytest.mark.parametrize("bad", BAD, ids=ascii)
async def test_a_document_with_a_bad_rest_uid_has_none(bad: Any) -> None:
    """The other fields are parsed, and ``raw`` has the text."""
    experiment = ExperimentDocument.model_validate(
        {"name": "demo", "metadata": {"userMetadata": {"rest-uid": bad, "mine": "1"}}}
    )
    metadata = UserMetadata.model_validate({"rest-uid": bad, "mine": "1"})

    assert (experiment.name, experiment.rest_uid) == ("demo", None)
    assert (metadata.rest_uid, metadata.raw["rest-uid"], metadata.metadata["mine"]) == (None, bad, "1")


async def test_an_instance_with_a_bad_rest_uid_is_an_error(server: LocalServer, client: Client) -> None:
    """It is a DecodeError."""
    server.faults.add(f"GET /rs/instances/{GOOD}", Reply(200, JSON, b'{"id": "../../x", "status": {}}'))

    with pytest.raises(DecodeError, match="not a rest-uid"):
        await client.instances.get(GOOD)


Verb = Callable[[Client, Any], Awaitable[Any]]
VERBS: dict[str, Verb] = {
    "status": lambda client, run: client.status(run),
    "wait": lambda client, run: client.wait(run),
    "wait for several": lambda client, run: client.wait([run]),
    "watch": lambda client, run: anext(client.watch(run)),
    "show": lambda client, run: client.show([run]),
    "delete": lambda client, run: client.delete(run),
    "outputs": lambda client, run: client.outputs(run),
    "output": lambda client, run: client.output(run, "x"),
    "properties": lambda client, run: client.properties(run),
    "properties_in_parts": lambda client, run: anext(client.properties_in_parts([run])),
    "read_file": lambda client, run: client.read_file(run, "x"),
    "download_files": lambda client, run: client.download_files(run, "results"),
    "download_component": lambda client, run: client.download_component(run, 0, "x", "results"),
    "download_outputs": lambda client, run: client.download_outputs(run, "results"),
    "csv": lambda client, run: client.csv(run),
    "stdout": lambda client, run: client.stdout(run),
    "stderr": lambda client, run: client.stderr(run),
    "failure": lambda client, run: client.failure(run),
    "log": lambda client, run: client.log(run),
    "status_report": lambda client, run: client.status_report(run),
    "instances.get": lambda client, run: client.instances.get(str(run)),
    "datastore.document": lambda client, run: client.datastore.document(str(run)),
    "datastore.experiments": lambda client, run: client.datastore.experiments(rest_uid=str(run)),
}


@pytest.mark.parametrize(
    ("verb", "bad"), combinations(VERBS, ["../../.ssh", "a b", "a/b", "-rf", "\x1b[2J", ""]), ids=ascii
)
async def test_no_verb_takes_what_is_not_a_rest_uid(
    verb: str, bad: str, server: LocalServer, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither as a text nor as a handle; nothing is sent and nothing written."""
    monkeypatch.chdir(tmp_path)
    before = len(server.requests)

    for run in (bad, Run(bad, client)):
        with pytest.raises(ValueError, match="not a rest-uid"):
            await VERBS[verb](client, run)
    with pytest.raises(ValueError, match="not a rest-uid"):
        client.run(bad)

    assert len(server.requests) == before
    assert [path async for path in anyio.Path(tmp_path).iterdir()] == []


def test_all_verbs_that_take_a_run_are_tried() -> None:
    """A verb to come has to be in the table above."""
    known = {name.split()[0] for name in VERBS} | {"watch_many", "fetch_s3_outputs", "run"}
    takers = {
        name
        for name, verb in inspect.getmembers(Client, inspect.isfunction)
        if not name.startswith("_") and {"run", "runs", "rest_uid"} & set(inspect.signature(verb).parameters)
    }

    assert takers <= known


def test_examples_quote_the_rest_uid_in_a_shell() -> None:
    """So that an id never becomes two arguments."""
    root = Path(st4sd_async.__file__).parent
    pages = [root.parent / "README.md", *(root / "docs").glob("*.md")]
    blocks = [
        block
        for page in pages
        if page.exists()
        for block in re.findall(r"```\w*\n(.*?)```", page.read_text(), re.DOTALL)
    ]

    assert not [block for block in blocks if re.search(r'(?<!")\$\{?run\b', block)]
