"""The page about `ExperimentRestAPI` is complete, every line of it runs, and results are the same."""

from __future__ import annotations

import ast
import asyncio
import copy
import inspect
import json
import re
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import pytest
from anyio import to_thread

import st4sd_async
from st4sd_async import Client, Config, DownloadFailed, models
from st4sd_async.local import LocalServer
from tests.client.definitions import LAMBDA, push_both, relationship
from tests.local.incumbent.shapes import Raises
from tests.local.incumbent.table import TABLE as TABLE_OF_CALLS

pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # warnings of the incumbent and its imports
    pytest.mark.timeout(60),  # its import takes seconds, many on a busy machine
]

PAGE = Path(st4sd_async.__file__).with_name("docs") / "from_experiment_rest_api.md"
TEXT = PAGE.read_text("utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
TABLE = TEXT.partition("| topic |")[2].splitlines()[2:]
ROW = re.compile(r"\| (?P<topic>[a-z ]+) \| `(?P<theirs>\w+)` \| `(?P<ours>[^`]+)` \| (?P<result>.+) \|")
ROWS = [found.groupdict() for found in map(ROW.fullmatch, TABLE) if found]
OURS = {row["theirs"]: row["ours"] for row in ROWS}
AWAIT = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
GATEWAY = "example-cluster"
BUCKET = {"accessKeyID": "i", "secretAccessKey": "k", "bucket": "b", "endpoint": "e"}
INPUTS = {"inputs": [{"filename": "molecules.csv", "content": "index,smiles\n0,CCO\n1,NAN\n2,CCCC\n"}]}
NOTHING, RUN, RELATIONSHIP = "nothing", "a run", "a relationship"
CHANGING = {
    "api_datasets_create": NOTHING,
    "api_experiment_delete": RUN,
    "api_experiment_push": NOTHING,
    "api_experiment_start": RUN,
    "api_experiment_start_lambda": NOTHING,
    "api_experiment_upsert": NOTHING,
    "api_image_pull_secrets_create": NOTHING,
    "api_image_pull_secrets_upsert": NOTHING,
    "api_relationship_delete": RELATIONSHIP,
    "api_relationship_push": RELATIONSHIP,
    "api_relationship_synthesize": RELATIONSHIP,
    "api_request_delete": RUN,
    "api_request_post": RELATIONSHIP,
    "api_request_put": RUN,
    "api_rest_uid_delete": RUN,
    "cdb_upsert_user_metadata": RUN,
}
"""Methods that change what is on the server -> what must be there before."""
NOT_OURS = {"ExperimentRestAPI", "Path"}
MENTIONED = re.compile(r"`(?:await )?(client\.[\w.]+)\(")


def methods() -> dict[str, Any]:
    """Return the methods of the incumbent's class by name."""
    from experiment.service.db import ExperimentRestAPI

    kinds = (staticmethod, classmethod)
    found = vars(ExperimentRestAPI).items()
    return {name: thing for name, thing in found if inspect.isfunction(thing) or isinstance(thing, kinds)}


def test_every_public_method_has_one_row() -> None:
    """50 of 54 methods are public. No row is duplicated or invented; rows are grouped by topic."""
    public = {name for name in methods() if not name.startswith("_")}
    topics = [row["topic"] for row in ROWS]

    assert (len(methods()), len(public)) == (54, 50)
    assert len(ROWS) == len(TABLE)
    assert sorted(row["theirs"] for row in ROWS) == sorted(public)
    assert len(set(topics)) == sum(one != other for one, other in zip(topics, ["", *topics], strict=False))


def test_every_argument_of_the_constructor_is_documented() -> None:
    """Those for MongoDB share a row."""
    table = TEXT.partition("| argument of")[2].partition("\n\n")[0]
    named = set(re.findall(r"`(\w+)`", "\n".join(line.split("|")[1] for line in table.splitlines()[2:])))

    wanted = set(inspect.signature(methods()["__init__"]).parameters) - {"self"}

    assert named == {name for name in wanted if not name.startswith("mongo_")} | {"mongo_host"}


def test_the_methods_that_always_fail_are_named() -> None:
    """They are those that raise, or say False, by themselves in the first call of the table of all methods."""
    text = TEXT.partition("- **Methods that always fail")[2].partition("\n- **")[0]

    def fails(gave: Any) -> bool:
        return gave is False or isinstance(gave, Raises)

    assert set(re.findall(r"`(\w+)`", text)) == {name for name, cases in TABLE_OF_CALLS.items() if fails(cases[0].gave)}


@pytest.mark.parametrize("name", sorted(set(MENTIONED.findall(TEXT))))
def test_every_method_that_is_mentioned_exists(name: str) -> None:
    """In all columns."""
    thing: Any = Client("https://st4sd.example")
    for part in name.split(".")[1:]:
        thing = getattr(thing, part)

    assert callable(thing)


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`([A-Z]\w+)(?:\([^`]*\))?`", TEXT)) - NOT_OURS))
def test_every_class_that_is_named_is_public(name: str) -> None:
    """It can be imported from the package or from its models."""
    assert name in st4sd_async.__all__ or hasattr(models, name)


async def prepare(server: LocalServer, needed: Collection[str]) -> dict[str, Any]:
    """Push and run what lines of the table use; return the names of the run."""
    async with Client(server.url, api_key=server.api_key, config=Config(poll_interval=0.02)) as client:
        if RELATIONSHIP in needed:
            await push_both(client)
            await client.relationships.push(relationship())
        if RUN not in needed:
            return {}
        await client.push(server.example("demo"))
        run = await client.start("demo", {**INPUTS, "metadata": {"campaign": "first"}})
        await server.advance(100)
        await client.datasets.create("known", BUCKET)
        await client.image_pull_secrets.create("known", server="docker.example", username="u", password="a-password")
        document = await run.document()
        return {"document": document, "instance": document.instance, "rest_uid": run.id}


@pytest.fixture(scope="module")
def shared() -> Iterator[tuple[LocalServer, dict[str, Any]]]:
    """A server with everything."""
    with LocalServer(speed=0) as running:
        yield running, asyncio.run(prepare(running, {RUN, RELATIONSHIP}))


@pytest.fixture
def own(theirs: str) -> Iterator[tuple[LocalServer, dict[str, Any]]]:
    """A server with what a method needs."""
    with LocalServer(speed=0) as running:
        yield running, asyncio.run(prepare(running, {CHANGING[theirs]}))


@pytest.fixture
def prepared(request: pytest.FixtureRequest, theirs: str) -> tuple[LocalServer, dict[str, Any]]:
    """A server that lines share if they only read."""
    found: tuple[LocalServer, dict[str, Any]] = request.getfixturevalue("own" if theirs in CHANGING else "shared")
    return found


@pytest.fixture(scope="module")
def incumbent(shared: tuple[LocalServer, dict[str, Any]]) -> Any:
    """Return the incumbent, connected to the shared server."""
    from experiment.service.db import ExperimentRestAPI

    return ExperimentRestAPI(f"{shared[0].url}/rs", cc_bearer_key=shared[0].api_key, max_retries=1)


@pytest.fixture
def server(prepared: tuple[LocalServer, dict[str, Any]]) -> LocalServer:
    return prepared[0]


@pytest.fixture
async def names(
    prepared: tuple[LocalServer, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[dict[str, Any]]:
    """The names that lines of the table use: an open client, a run that is over, definitions."""
    server, of_run = prepared
    monkeypatch.chdir(tmp_path)
    (tmp_path / "key.txt").write_text(server.api_key, "utf-8")
    (tmp_path / "token.txt").write_text(server.auth_token, "utf-8")
    async with Client(server.url, api_key=server.api_key, config=Config(poll_interval=0.02)) as client:
        yield {
            **of_run,
            "Client": Client,
            "Path": Path,
            "bucket": BUCKET,
            "client": client,
            "data": LAMBDA["data"],
            "flowir": LAMBDA["lambdaFlowIR"],
            "package": server.example("demo"),
            "payload": INPUTS,
            "relationship": relationship(),
            "url": server.url,
            "urljoin": urljoin,
            "user": "somebody",
            "word": "a-password",
        }


async def value_of(line: str, names: dict[str, Any]) -> Any:
    """Return the value of a line of the table."""
    code = compile(line, str(PAGE), "eval", flags=AWAIT)
    found = eval(code, names)
    return await found if inspect.isawaitable(found) else found


@pytest.mark.anyio
async def test_the_code_above_the_table_runs(shared: tuple[LocalServer, dict[str, Any]]) -> None:
    """With an address and a key."""
    server, _ = shared
    shown: list[Any] = []
    for block in BLOCKS:
        names = {"url": server.url, "key": server.api_key, "print": shown.append}
        await eval(compile(block, str(PAGE), "exec", flags=AWAIT), names)

    assert len(BLOCKS) == 1
    assert sorted(shown[0]) == ["cdb-gateway-registry", "cdb-rest", "consumable-computing"]


@pytest.mark.slow
@pytest.mark.anyio
@pytest.mark.parametrize("theirs", sorted(OURS))
async def test_every_line_runs(theirs: str, names: dict[str, Any]) -> None:
    """It is an expression whose value has the type in the last column, or None for "nothing"."""
    result = next(row["result"] for row in ROWS if row["theirs"] == theirs)

    found = await value_of(OURS[theirs], names)

    if result.startswith("nothing"):
        assert found is None
    else:
        assert found or found is False
    kind = re.match(r"`([A-Z]\w+)`", result)
    if kind:
        every = list(found.values()) if isinstance(found, dict) else [found]
        assert {type(one).__name__ for one in every} == {kind[1]}
    if "a `Download`" in result:
        assert not any(isinstance(one, DownloadFailed) for one in found)
    if isinstance(found, Client):
        async with found:
            assert await found.experiments.list()


def same_table(theirs: Any, ours: Any) -> bool:
    """Compare a CSV file as a matrix with a DataFrame."""
    (document,), (matrix,) = theirs
    (table,) = ours
    columns = {name: [str(cell) for cell in matrix.columnWithHeader(name)] for name in matrix.columnHeaders()}
    assert document == table.document.raw
    return bool(columns == table.dataframe().astype(str).to_dict("list"))


def same_output(theirs: Any, ours: Any) -> bool:
    return bool(theirs == (ours.filename, ours.content))


def same_files(theirs: Any, ours: Any) -> bool:
    got = {uri: content for uri, (_, content) in theirs.items()}
    return got == {one.source: one.path.read_bytes() for one in ours}


def same_properties(theirs: Any, ours: Any) -> bool:
    _, (measured,) = theirs
    return bool(measured.equals(ours.dataframe()[list(measured.columns)]))


def same_raw(theirs: Any, ours: Any) -> bool:
    return bool(theirs == ours.raw)


def raws(ours: Any) -> dict[str, Any]:
    return {name: one.raw for name, one in ours.items()}


def same_raws(theirs: Any, ours: Any) -> bool:
    if isinstance(ours, dict):
        return bool(theirs == raws(ours))
    return bool(theirs == [one.raw for one in ours])


def same(theirs: Any, ours: Any) -> bool:
    return bool(theirs == ours)


def same_experiment(theirs: Any, ours: Any) -> bool:
    return bool(theirs["metadata"]["registry"]["digest"] == ours.digest and theirs["base"] == ours.base.raw)


def same_listing(theirs: Any, ours: Any) -> bool:
    return sorted(theirs) == sorted(ours) and all(same_experiment(theirs[name], ours[name]) for name in theirs)


def same_status(theirs: Any, ours: Any) -> bool:
    wanted = (theirs["status"]["experiment-state"], theirs["status"]["exit-status"], theirs["id"])
    return wanted == (ours.status.experiment_state, ours.status.exit_status, ours.id)


def same_report(theirs: Any, ours: Any) -> bool:
    return all(f"{row.reference}, {row.raw['state']}, {row.backend}" in theirs for row in ours.rows)


def same_texts(theirs: Any, ours: Any) -> bool:
    return {content.decode() for _, content in theirs.values()} == set(ours.values())


INSTANCE, REST_UID, INTERFACE, DOCUMENT = "<instance>", "<rest-uid>", "<interface>", "<document>"
COMPARED: dict[str, tuple[tuple[Any, ...], dict[str, Any], Callable[[Any, Any], bool]]] = {
    "api_request_get": (("experiments/",), {"params": {"hideNone": "y"}}, same),
    "api_experiment_list": ((), {}, same_listing),
    "api_experiment_get": (("demo",), {}, same_experiment),
    "api_experiment_get_start_skeleton": (("demo",), {}, same_raw),
    "api_rest_uid_status": ((REST_UID, ["*"], True), {"print_too": False}, same_status),
    "api_path_to_url": (("experiments/",), {}, same),
    "api_rest_uid_output_list": ((REST_UID, ""), {}, lambda theirs, ours: bool(json.loads(theirs) == raws(ours))),
    "api_rest_uid_output_get": ((REST_UID, "Energies"), {}, same_output),
    "api_rest_uid_output": ((REST_UID, "Energies"), {}, same_output),
    "cdb_get_properties": ((), {"instance": INSTANCE, "properties": ["energy"]}, same_properties),
    "cdb_get_property_names": ((DOCUMENT,), {}, same),
    "cdb_get_key_output_names": ((DOCUMENT,), {}, same),
    "cdb_get_data": (
        (),
        {"instance": INSTANCE, "component": "Compute", "filename": "energies.csv"},
        same_table,
    ),
    "cdb_get_components_raw_files": ((), {"instance": INSTANCE, "filename": r".*\.csv$"}, same_files),
    "cdb_get_components_last_stdout": ((), {"instance": INSTANCE, "component": "stage1.Report"}, same_texts),
    "cdb_get_file_from_instance_uri": ((INSTANCE, "output/experiment.log"), {}, same),
    "cdb_get_detailed_status_report": ((INSTANCE,), {"print_too": False}, same_report),
    "resolve_gateway": ((GATEWAY,), {}, lambda theirs, ours: bool(f"{theirs}/" == ours)),
    "cdb_get_document": (({"type": "experiment", "name": "demo"},), {}, same),
    "cdb_get_document_experiment": ((INSTANCE,), {"include_properties": ["*"], "stringify_nan": True}, same_raws),
    "cdb_get_document_component": (
        (),
        {"instance": INSTANCE, "component": "Comp.*", "filename": "energies"},
        same_raws,
    ),
    "cdb_get_document_user_metadata": ((), {"query": {"campaign": "first"}}, same_raws),
    "cdb_get_document_experiment_for_rest_uid": ((REST_UID,), {}, same_raw),
    "cdb_get_document_user_metadata_for_rest_uid": ((REST_UID,), {}, same_raw),
    "cdb_get_user_metadata_document_for_rest_uid": ((REST_UID,), {}, same_raw),
    "api_relationship_list": ((), {}, same_raws),
    "api_relationship_get": (("cheaper",), {}, same_raw),
    "api_datasets_list": ((), {}, same),
    "api_image_pull_secrets_list": ((), {}, same),
}
"""Methods that only read -> their arguments, and a comparison of their results with ours."""


@pytest.mark.anyio
@pytest.mark.parametrize("theirs", sorted(COMPARED))
async def test_results_are_those_of_the_incumbent(theirs: str, incumbent: Any, names: dict[str, Any]) -> None:
    """On the same server."""
    placeholders = {
        INSTANCE: names["instance"],
        REST_UID: names["rest_uid"],
        DOCUMENT: copy.deepcopy(names["document"].raw),
    }

    def filled(value: Any) -> Any:
        return placeholders.get(value, value) if isinstance(value, str) else value

    arguments, options, agree = COMPARED[theirs]
    request = partial(
        getattr(incumbent, theirs), *map(filled, arguments), **{key: filled(one) for key, one in options.items()}
    )
    expected = await to_thread.run_sync(request)
    # NaN is not equal to itself, so both return it as a string.
    ours = await value_of(OURS[theirs].replace('["*"])', '["*"], stringify_nan=True)'), names)

    assert agree(expected, ours), (expected, ours)
