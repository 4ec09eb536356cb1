"""A start by its fields: the call that people try first."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas
import pytest

from st4sd_async import (
    Client,
    FileContent,
    InvalidPayload,
    Launch,
    MissingInputs,
    PayloadTooLarge,
    StartPayload,
    Volume,
    sync,
)
from st4sd_async._payload.options import payload_of
from st4sd_async._payload.prepare import prepare
from st4sd_async.local import LocalServer
from st4sd_async.models.payloads import VolumeType

pytestmark = pytest.mark.anyio

TEXT = "smiles\nCO\n"
FIELDS: dict[str, Any] = {
    "variables": {"scale": 2},
    "platform": "default",
    "metadata": {"campaign": "water"},
}


async def sent(fields: dict[str, Any]) -> Any:
    """Return the body that these arguments become."""
    return json.loads((await prepare(payload_of(None, **fields))).content)


async def test_fields_are_the_payload(tmp_path: Path) -> None:
    """Files by name, whatever their content is given as; the others as they are."""
    path = tmp_path / "another name.csv"
    path.write_text(TEXT)
    inputs = {"a": TEXT, "b": TEXT.encode(), "c": path, "d": pandas.DataFrame({"smiles": ["CO"]})}

    body = await sent({**FIELDS, "inputs": inputs, "data": {"e": TEXT}})

    assert body == {
        **FIELDS,
        "inputs": [{"filename": name, "content": TEXT} for name in inputs],
        "data": [{"filename": "e", "content": TEXT}],
    }
    assert await sent({}) == {}
    assert await sent({"inputs": {"a.csv": "b.csv\n"}}) == {"inputs": [{"filename": "a.csv", "content": "b.csv\n"}]}
    assert await sent({"inputs": {}, "variables": {}}) == {"inputs": [], "variables": {}}


def test_a_file_may_be_elsewhere() -> None:
    """As a `FileContent` under the name that the experiment sees."""
    elsewhere = FileContent(sourceFilename="big.csv", targetFilename="a", volume="v")

    assert payload_of(None, inputs={"a": elsewhere}) == {"inputs": [elsewhere]}
    with pytest.raises(InvalidPayload, match="would see the file as 'a': set targetFilename='b'"):
        payload_of(None, inputs={"b": elsewhere})


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"inputs": ["molecules.csv"]}, 'inputs: .* such as inputs={"molecules.csv": Path.*, not list'),
    ({"inputs": "molecules.csv"}, 'inputs: .* such as inputs={"molecules.csv": Path.*, not str'),
    ({"data": Path("a")}, 'data: .* such as data={"molecules.csv": Path.*, not PosixPath'),
    ({"inputs": {"a": 3}}, r"inputs\.a: .*text, bytes, a Path or a DataFrame.*not int"),
    ({"inputs": {"a": None}}, r"inputs\.a: .*text, bytes, a Path or a DataFrame.*not NoneType"),
    ({"inputs": {3: "a"}}, r"inputs\.3: names must be strings, not 3"),
    ({"inputs": {"a.csv": "there/a.csv"}}, r"inputs\.a\.csv: .*the text 'there/a\.csv': .*Path\('there/a\.csv'\)"),
    ({"inputs": {"a.csv": "a.csv"}}, r"inputs\.a\.csv: .*the text 'a\.csv': .*Path\('a\.csv'\)"),
    (
        {"inputs": {"a.csv": "mine/b.csv"}},
        r"the text 'mine/b\.csv': .*Path\('mine/b\.csv'\); .* end it with a line break",
    ),
    ({"variables": "scale=2"}, 'variables: must be a mapping, such as {"scale": 2}'),
    ({"variables": [("scale", 2)]}, 'variables: must be a mapping, such as {"scale": 2}'),
    ({"variables": {"scale": [2]}}, r"variables\.scale: must be a string, a number or a boolean, not list"),
    ({"variables": {2: 2}}, "variables.*: names must be strings"),
    ({"platform": 3}, 'platform: must be a string, such as "default"'),
    ({"metadata": "water"}, 'metadata: must be a mapping, such as {"campaign": "water"}'),
]


@pytest.mark.parametrize(("fields", "problem"), WRONG, ids=[str(fields) for fields, _ in WRONG])
async def test_a_wrong_type_is_explained_with_an_example(fields: dict[str, Any], problem: str) -> None:
    """Before anything is sent, and in our own words."""
    with pytest.raises(InvalidPayload, match=problem) as caught:
        await sent(fields)

    assert "Input should be" not in str(caught.value)


WHOLE: list[tuple[dict[str, Any], str]] = [
    ({"inputs": ["molecules.csv"]}, r'inputs\[0\]: must be a mapping, such as {"filename": .*"content": '),
    ({"inputs": [{"filename": 3}]}, r"inputs\[0\]\.filename: must be a string"),
    (
        {"inputs": {"a.csv": TEXT}},
        r'inputs: must be a list of files, .*; or give fields .* inputs={"molecules.csv": Path',
    ),
    ({"data": {"a.csv": TEXT}}, r'data: must be a list of files, .*; or give fields .* data={"molecules.csv": Path'),
    ({"additionalOptions": "-x"}, "additionalOptions: must be a list, such as "),
    ({"s3": "mine"}, 's3: must be a mapping, such as {"dataset": "mine"}'),
    ({"volumes": {}}, r"volumes: must be a list, such as \[{"),
    ({"environmentVariables": "A=1"}, "environmentVariables: must be a mapping, such as "),
    ({"orchestrator_resources": 3}, "orchestrator_resources: must be a mapping, such as "),
    ({"s3Store": 3}, "s3Store: must be a mapping, such as "),
    ({"runtimePolicy": "x"}, "runtimePolicy: must be a mapping, such as "),
]


@pytest.mark.parametrize(("payload", "problem"), WHOLE, ids=[str(payload) for payload, _ in WHOLE])
async def test_a_wrong_type_in_a_payload_is_explained_too(payload: dict[str, Any], problem: str) -> None:
    """With an example of the field, if it is one of the payload itself."""
    with pytest.raises(InvalidPayload, match=problem) as caught:
        await prepare(payload)

    assert "Input should be" not in str(caught.value)


@pytest.mark.parametrize("experiment", [None, 3, {"name": "demo"}])
async def test_an_experiment_of_another_type_is_refused(experiment: Any) -> None:
    """Before anything is sent."""
    with pytest.raises(TypeError, match="experiment must be an identifier, an Experiment or a Draft, not "):
        await Client("http://127.0.0.1:1").start(experiment, inputs={"a": TEXT})


@pytest.mark.parametrize("payload", [{}, StartPayload(), {"volumes": [Volume(type=VolumeType(configMap="a"))]}])
async def test_a_payload_and_fields_exclude_one_another(payload: Any) -> None:
    """Whoever gives both may mean either; in a start of both clients and in a launch."""
    client: Any = Client("http://127.0.0.1:1")
    launch: Any = Launch
    problem = "a payload and inputs, variables exclude one another"

    with pytest.raises(TypeError, match=problem):
        await client.start("demo", payload, inputs={"a": TEXT}, variables={"scale": 2})
    with pytest.raises(TypeError, match=problem):
        launch("a", "demo", payload, inputs={"a": TEXT}, variables={"scale": 2})


def test_a_launch_takes_the_same_fields() -> None:
    """Which become its payload, so that it equals the launch with that payload."""
    launch = Launch("a", "demo", inputs={"a": TEXT}, **FIELDS)

    assert launch == Launch("a", "demo", {"inputs": [FileContent(filename="a", content=TEXT)], **FIELDS})
    assert [one.payload for one in Launch.sweep("demo", {"n": "1:2"}, inputs={"a": TEXT}, platform="x")] == [
        StartPayload(inputs=[FileContent(filename="a", content=TEXT)], platform="x", variables={"n": n}) for n in "12"
    ]
    with pytest.raises(TypeError, match="a payload and inputs exclude one another"):
        Launch.sweep("demo", {"n": "1:2"}, {}, inputs={"a": TEXT})
    with pytest.raises(InvalidPayload, match="inputs: must be a mapping"):
        Launch("a", "demo", inputs=["a"])  # type: ignore[call-overload]


async def test_the_first_guess_starts_a_run(client: Client, server: LocalServer) -> None:
    """By identifier, by experiment and with a draft; in a batch; and with the blocking client."""
    experiment = await client.push(server.example("demo"))
    server.outcome("demo", "success", stretch=0.01)
    inputs = {"molecules.csv": pandas.DataFrame({"smiles": ["CO"]})}
    launch = Launch("a", "demo", inputs=inputs, variables={"scale": 3})

    runs = [
        await client.start("demo", inputs=inputs, **FIELDS),
        await client.start(experiment, inputs=inputs, **FIELDS),
    ]
    draft = await client.draft(experiment)
    draft.inputs["molecules.csv"] = TEXT
    draft.variables["scale"] = 2
    runs.append(await client.start(draft, metadata={"campaign": "water"}))
    async with client.batch() as batch:
        await batch.add([launch])
        runs += [item.run async for item in batch.run() if item.run]
    statuses = await client.wait(runs)

    assert [status.is_success for status in statuses] == [True] * 4
    metas = [status.meta for status in statuses if status.meta]
    assert [meta.user_variables["global"]["scale"] for meta in metas] == ["2", "2", "2", "3"]
    assert [meta.user_metadata.get("campaign") for meta in metas] == ["water", "water", "water", None]
    with pytest.raises(MissingInputs):
        await client.start("demo", variables={"scale": 2})
    with pytest.raises(PayloadTooLarge):
        await client.start("demo", inputs={"molecules.csv": "C" * (1 << 20)})


def test_the_first_guess_works_without_async(server: LocalServer) -> None:
    """With the same arguments."""
    with sync.Client(server.url, api_key=server.api_key) as client:
        client.push(server.example("demo"))
        run = client.start("demo", inputs={"molecules.csv": TEXT}, variables={"scale": 2})
        assert run.status().rest_uid == run.id
        with pytest.raises(TypeError, match="exclude one another"):
            client.start("demo", {}, inputs={"molecules.csv": TEXT})  # type: ignore[call-overload]
