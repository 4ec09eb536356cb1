"""Launches are checked before anything is sent: all of them, with one request for each experiment."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest

from st4sd_async import Batch, Client, Launch, LaunchProblem
from st4sd_async._http.call import MAX_REQUEST_BYTES
from st4sd_async.local import Html, LocalServer
from st4sd_async.sync import Client as BlockingClient

from .batches import launch, launches

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

ROWS = 300


def requests_since(server: LocalServer, before: int) -> list[tuple[str, str]]:
    """Return method and path of the requests after the first ``before`` ones, without the login."""
    return [(method, path) for method, path in server.requests[before:] if "url-map" not in path]


async def test_a_good_table_of_hundreds_of_rows_costs_one_request(
    server: LocalServer, client: Client, tmp_path: Path
) -> None:
    """Nothing is started, and the journal stays empty."""
    file = tmp_path / "molecules.csv"
    file.write_text("smiles\nCO\n")
    rows = [
        Launch(f"mol {n}", "demo", {"inputs": [{"filename": "molecules.csv", "content": file}]}) for n in range(ROWS)
    ]
    before = len(server.requests)

    async with client.batch() as batch:
        found = await batch.check(rows, outputs=["Energies"])
        items = batch.items

    assert found == []
    assert len(items) == 0
    assert [(method, path.rpartition("/experiments")[2]) for method, path in requests_since(server, before)] == [
        ("GET", "/demo")
    ]


async def test_all_bad_rows_are_found(server: LocalServer, client: Client, tmp_path: Path) -> None:
    """Each has its position and its key; nothing is started."""
    empty = tmp_path / "empty.csv"
    empty.touch()
    rows = [
        launch(0, variables={"scale": "2,5"}),
        launch(1, inputs=[], variables={"molecules.csv": "mine.csv"}),
        launch(2, platform="defualt"),
        launch(3, inputs=[{"filename": "molecules.csv", "content": empty}], inptus=[]),
        launch(4, metadata={"st4sd-async-key": "mine"}),
        replace(launch(5), experiment="dmeo"),
        replace(launch(6, metadata={"a:b": 1}), experiment="demo:latst"),
        launch(7),
    ]
    before = len(server.requests)

    async with client.batch() as batch:
        found = await batch.check(rows)

    assert [(one.position, one.key) for one in found] == [
        (number, f"mol {number}") for number in (0, 1, 2, 3, 3, 4, 5, 6, 6)
    ]
    assert [str(one) for one in found] == [
        "'mol 0': variables.scale: '2,5' is not a number, and its default '1' is one: did you mean '2.5'?",
        (
            "'mol 1': variables.molecules.csv: the experiment does not accept it, only ['scale']: "
            "did you mean 'molecules.csv' in inputs?"
        ),
        "'mol 2': platform: the experiment does not run on 'defualt', only on ['default']: did you mean 'default'?",
        "'mol 3': inptus: unknown field: did you mean 'inputs'?",
        (
            "'mol 3': inputs[0].content: the service refuses an empty file ('molecules.csv'): give it a line break, or "
            "provide the file through s3, a dataset or a volume"
        ),
        "'mol 4': metadata.st4sd-async-key: this name is reserved for batches: use another one",
        "'mol 5': experiment: the registry has no experiment 'dmeo': did you mean 'demo'?",
        "'mol 6': experiment: the registry has no experiment 'demo:latst': did you mean 'demo:latest'?",
        "'mol 6': metadata.a:b: names of metadata cannot contain a colon: use another character",
    ]
    sent = requests_since(server, before)
    assert {method for method, _ in sent} == {"GET"}
    assert len(sent) == 4  # three identifiers, and the list


async def test_a_misspelt_output_is_one_problem(client: Client) -> None:
    """It concerns all launches of the experiment."""
    async with client.batch() as batch:
        found = await batch.check(launches(3), outputs=["Energies", "Energy"])

        with pytest.raises(ValueError, match="use \\['Energies'\\]"):
            await batch.check(launches(1), outputs="Energies")

    (problem,) = found
    assert problem == LaunchProblem(None, "", "outputs", problem.what)
    assert (
        str(problem)
        == "outputs: demo has no key-output 'Energy', only ['Energies', 'Folder']: did you mean 'Energies'?"
    )


async def test_keys_are_compared_with_each_other_and_with_the_journal(client: Client, tmp_path: Path) -> None:
    """The same launch may occur again, as in `add`; another one with its key may not."""
    async with client.batch(tmp_path / "campaign.db") as batch:
        await batch.add(launches(2))
        other = replace(launch(0), experiment="other")

        found = await batch.check([launch(1), launch(1), other, launch(2), replace(launch(2), experiment="fail")])

        assert [one.where for one in found if one.position == 2] == ["experiment", "key"]
        assert "with another launch: experiment was 'demo' and is 'other'" in found[1].what
        assert [one.what for one in found if one.where == "key"][1:] == [
            "two different launches have the key 'mol 2': experiment was 'demo' and is 'fail'"
        ]
        assert {one.position for one in found} == {2, 4}
        assert len(batch.items) == 2


async def test_a_payload_at_the_limit_leaves_room_for_the_token(server: LocalServer, client: Client) -> None:
    """What passes the check is accepted, and one byte more is a problem."""

    def padded(size: int) -> Launch:
        return Launch("it", "demo", {"inputs": [{"filename": "molecules.csv", "content": "x" * size}]})

    async def is_found(batch: Batch, size: int) -> bool:
        return bool(await batch.check([padded(size)]))

    async with client.batch() as batch:
        low, high = 0, MAX_REQUEST_BYTES  # bisect
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if await is_found(batch, middle) else (middle, high)
        await batch.add([padded(low)])
        async for item in batch.run():
            assert item.run is not None, item.error
    async with client.batch() as batch:
        await batch.add([padded(high)])
        assert [item.state async for item in batch.run()] == ["refused"]


async def test_an_experiment_given_as_an_object_is_not_requested(server: LocalServer, client: Client) -> None:
    """Unless it was fetched without its registry metadata."""
    whole = await client.experiments.get("demo")
    part = await client.experiments.get("demo", with_registry=False)
    before = len(server.requests)

    async with client.batch() as batch:
        assert await batch.check([replace(launch(0), experiment=whole)]) == []
        assert requests_since(server, before) == []
        assert await batch.check([replace(launch(0), experiment=part)]) == []
    assert len(requests_since(server, before)) == 1


async def test_a_failing_list_hides_no_problem(server: LocalServer, client: Client) -> None:
    """The suggestion is left out."""
    server.faults.add("GET /experiments/$", Html(404), times=None)

    async with client.batch() as batch:
        found = await batch.check([Launch("it", "dmeo")])

    assert [one.what for one in found] == ["the registry has no experiment 'dmeo'"]


async def test_hundreds_of_bad_rows_take_seconds(client: Client) -> None:
    """All are reported."""
    rows = [launch(n, variables={"scael": n}, inputs=[]) for n in range(ROWS)]
    begun = time.monotonic()

    async with client.batch() as batch:
        found = await batch.check(rows)

    assert [one.position for one in found] == [n for n in range(ROWS) for _ in range(2)]
    assert time.monotonic() - begun < 6


def test_the_blocking_client_checks_too(server: LocalServer) -> None:
    """With the same result."""
    with BlockingClient(server.url, api_key=server.api_key) as client:
        client.push(server.example("demo"))
        with client.batch() as batch:
            (problem,) = batch.check([Launch("it", "demo")])

    assert str(problem) == "'it': inputs.molecules.csv: is missing, and the experiment needs it"
