"""Measured properties and interfaces are those that the client of st4sd-runtime-core gets from the same runs."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import pytest
from anyio import to_thread

from st4sd_async import Client, NotFound, UnknownProperty
from st4sd_async.local import LocalServer
from tests.local.helpers import MOLECULES, definition

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.filterwarnings("ignore"),  # of the incumbent and of what it imports
    pytest.mark.timeout(120),
]

FORMERLY = {
    "propertiesSpec": [
        {"name": "energy", "source": {"output": "Energies", "extractionMethod": {"hook": True}}},
        {"name": "weight", "source": {"output": "Energies", "extractionMethod": {"hook": True}}},
        {"name": "gap", "source": {"output": "Gaps"}},
    ]
}
"""An interface as it was before the incumbent's own orchestrator changed its form."""
TABLE = "input-id;energy;weight;gap\nCCO;-4.5;;inf\nCO;-3;30;2\n"


@dataclass
class Finished:
    """Runs that are over, and the incumbent that looks at them."""

    server: LocalServer
    api: Any
    runs: dict[str, str]
    """experiment -> rest-uid."""

    async def ask(self, method: str, *args: Any, **options: Any) -> Any:
        """What the incumbent answers; it blocks."""
        return await to_thread.run_sync(partial(getattr(self.api, method), *args, **options))

    async def document(self, experiment: str) -> dict[str, Any]:
        """What the incumbent finds of a run."""
        found: dict[str, Any] = await self.ask("cdb_get_document_experiment_for_rest_uid", self.runs[experiment])
        return found


@pytest.fixture(scope="module", params=["simulator", pytest.param("elaunch", marks=pytest.mark.slow)])
def finished(request: pytest.FixtureRequest) -> Iterator[Finished]:
    """A run of each example by both engines; and one of an old experiment, which only the simulator can do."""
    from experiment.service.db import ExperimentRestAPI

    engine: Literal["simulator", "elaunch"] = request.param
    with LocalServer(engine=engine, speed=0) as server:
        key = server.api_key
        api = ExperimentRestAPI(f"{server.url}/rs", max_retries=2, secs_between_retries=0.01, cc_bearer_key=key)
        for name in ("demo", "fail"):
            api.api_experiment_push(server.example(name))
        runs = {
            "demo": api.api_experiment_start("demo", {"inputs": [MOLECULES]}),
            "fail": api.api_experiment_start("fail", {}),
        }
        if engine == "simulator":
            server.describe("former", interface=FORMERLY, properties=TABLE, outputs={"Energies": b"", "Gaps": b""})
            api.api_experiment_push(definition("former"))
            runs["former"] = api.api_experiment_start("former", {})
            server.advance(100)
        while len(api.cdb_get_document_experiment(query={"status.experiment-state": "finished"})) < len(runs):
            time.sleep(0.05)
        yield Finished(server, api, runs)


@pytest.fixture
async def client(finished: Finished) -> AsyncIterator[Client]:
    async with Client(finished.server.url, api_key=finished.server.api_key) as opened:
        yield opened


def _needs(finished: Finished, experiment: str) -> None:
    if experiment not in finished.runs:
        pytest.skip("the orchestrator knows this form of an interface no longer")


@pytest.mark.parametrize("names", [None, ["energy"], ["weight", "energy"]])
@pytest.mark.parametrize("experiment", ["demo", "former"])
async def test_tables_are_the_same(
    finished: Finished, client: Client, experiment: str, names: list[str] | None
) -> None:
    """Values, missing ones and types, from either service."""
    from pandas.testing import assert_frame_equal

    _needs(finished, experiment)
    instance = (await finished.document(experiment))["instance"]
    _, (theirs,) = await finished.ask("cdb_get_properties", instance=instance, properties=names, _api_verbose=False)

    one = await client.properties(finished.runs[experiment], names)
    many = await client.properties([finished.runs[experiment]], names, strict=True)

    assert len(theirs) == len(one) > 1
    assert theirs.isna().any().any() or names == ["energy"]
    assert_frame_equal(one.dataframe(), theirs)
    assert_frame_equal(many.dataframe().drop(columns="rest-uid"), theirs)
    assert set(many["rest-uid"]) == {finished.runs[experiment]}


@pytest.mark.parametrize("experiment", ["demo", "former"])
async def test_names_are_the_same(finished: Finished, client: Client, experiment: str) -> None:
    """Of properties and of key-outputs."""
    _needs(finished, experiment)
    theirs = await finished.document(experiment)

    ours = await client.run(finished.runs[experiment]).document()

    assert ours.interface.property_names == finished.api.cdb_get_property_names(theirs) != []
    assert list(ours.outputs) == finished.api.cdb_get_key_output_names(theirs) != []


async def test_what_is_not_there_is_an_error_for_both(finished: Finished, client: Client) -> None:
    """The columns that there are come with it."""
    from experiment.service.errors import NoPropertyError

    demo, fail = await finished.document("demo"), await finished.document("fail")

    with pytest.raises(NoPropertyError, match="zzz") as theirs:
        await finished.ask("cdb_get_properties", instance=demo["instance"], properties=["zzz"], _api_verbose=False)
    with pytest.raises(UnknownProperty) as error:
        await client.properties(finished.runs["demo"], ["zzz"])
    assert list(error.value.known) == theirs.value.known_properties == ["input-id", "smiles", "energy", "weight"]

    with pytest.raises(NoPropertyError):
        finished.api.cdb_get_property_names(fail)
    with pytest.raises(NotFound, match="its experiment measures none"):
        await client.properties(finished.runs["fail"])
    with pytest.raises(NotFound, match="its experiment measures none"):
        await client.properties([finished.runs["fail"]], strict=True)


async def test_inputs_and_outputs_of_an_interface_are_read(finished: Finished, client: Client) -> None:
    """Here the incumbent only knows the form that the orchestrator refuses."""
    document = await client.run(finished.runs["demo"]).document()
    experiment = await client.experiments.get("demo")

    with pytest.raises(KeyError, match="source"):
        finished.api.cdb_map_outputs_to_properties(document.interface.raw)
    assert document.interface.properties_by_output == {"Energies": ["energy", "weight"]}
    assert document.interface.input_ids == ["CCO", "NAN", "CCCC"]
    assert document.interface.input_spec.naming_scheme == "SMILES"
    assert document.interface.output_files == ["output/input-ids.json", "output/properties.csv"]
    assert experiment.metadata.registry.interface.properties_by_output == document.interface.properties_by_output
    assert experiment.metadata.registry.interface.input_ids == []


async def test_key_outputs_lead_to_the_same_properties_as_formerly(finished: Finished, client: Client) -> None:
    """The mapping, and the columns got by it."""
    from pandas.testing import assert_frame_equal

    _needs(finished, "former")
    theirs = await finished.document("former")
    interface = (await client.run(finished.runs["former"]).document()).interface

    _, (frame,) = await finished.ask(
        "cdb_get_properties", instance=theirs["instance"], outputs=["Energies"], _api_verbose=False
    )
    ours = await client.properties(finished.runs["former"], interface.properties_by_output["Energies"])

    assert interface.properties_by_output == finished.api.cdb_map_outputs_to_properties(theirs["interface"])
    assert interface.properties_by_output == {"Energies": ["energy", "weight"], "Gaps": ["gap"]}
    assert_frame_equal(ours.dataframe()[list(frame.columns)], frame)
