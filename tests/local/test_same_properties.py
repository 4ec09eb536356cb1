"""Measured properties and interfaces are those that the client of st4sd-runtime-core gets from the same runs."""

from __future__ import annotations

from typing import Any

import pytest

from st4sd_async import Client, NotFound, UnknownProperty
from tests.local.helpers import definition
from tests.local.same import INCUMBENT, Finished
from tests.local.same import client as client
from tests.local.same import finished as finished

pytestmark = [pytest.mark.anyio, *INCUMBENT]

FORMERLY = {
    "propertiesSpec": [
        {"name": "energy", "source": {"output": "Energies", "extractionMethod": {"hook": True}}},
        {"name": "weight", "source": {"output": "Energies", "extractionMethod": {"hook": True}}},
        {"name": "gap", "source": {"output": "Gaps"}},
    ]
}
"""An interface as it was before the incumbent's own orchestrator changed its form."""
TABLE = "input-id;energy;weight;gap\nCCO;-4.5;;inf\nCO;-3;30;2\n"


@pytest.fixture(scope="module", autouse=True)
def former(finished: Finished) -> None:
    """A run of an old experiment too, which only the simulator can do."""
    if finished.engine == "simulator":
        outputs = {"Energies": b"", "Gaps": b""}
        finished.server.describe("former", interface=FORMERLY, properties=TABLE, outputs=outputs)
        finished.api.api_experiment_push(definition("former"))
        finished.runs["former"] = finished.api.api_experiment_start("former", {})
        finished.wait()


def _needs(finished: Finished, experiment: str) -> None:
    if experiment not in finished.runs:
        pytest.skip("the orchestrator knows this form of an interface no longer")


async def document(finished: Finished, experiment: str) -> dict[str, Any]:
    """What the incumbent finds of a run."""
    found: dict[str, Any] = await finished.ask("cdb_get_document_experiment_for_rest_uid", finished.runs[experiment])
    return found


@pytest.mark.parametrize("names", [None, ["energy"], ["weight", "energy"]])
@pytest.mark.parametrize("experiment", ["demo", "former"])
async def test_tables_are_the_same(
    finished: Finished, client: Client, experiment: str, names: list[str] | None
) -> None:
    """Values, missing ones and types, from either service."""
    from pandas.testing import assert_frame_equal

    _needs(finished, experiment)
    instance = finished.instances[experiment]
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
    theirs = await document(finished, experiment)

    ours = await client.run(finished.runs[experiment]).document()

    assert ours.interface.property_names == finished.api.cdb_get_property_names(theirs) != []
    assert list(ours.outputs) == finished.api.cdb_get_key_output_names(theirs) != []


async def test_what_is_not_there_is_an_error_for_both(finished: Finished, client: Client) -> None:
    """The columns that there are come with it."""
    from experiment.service.errors import NoPropertyError

    demo, fail = finished.instances["demo"], await document(finished, "fail")

    with pytest.raises(NoPropertyError, match="zzz") as theirs:
        await finished.ask("cdb_get_properties", instance=demo, properties=["zzz"], _api_verbose=False)
    with pytest.raises(UnknownProperty) as error:
        await client.properties(finished.runs["demo"], ["zzz"])
    assert list(error.value.known) == theirs.value.known_properties == ["input-id", "smiles", "energy", "weight"]

    with pytest.raises(NoPropertyError):
        finished.api.cdb_get_property_names(fail)
    with pytest.raises(NotFound, match="it did not succeed: finished, Failed"):
        await client.properties(finished.runs["fail"])
    with pytest.raises(NotFound, match="it did not succeed: finished, Failed"):
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
    theirs = await document(finished, "former")
    interface = (await client.run(finished.runs["former"]).document()).interface

    _, (frame,) = await finished.ask(
        "cdb_get_properties", instance=theirs["instance"], outputs=["Energies"], _api_verbose=False
    )
    ours = await client.properties(finished.runs["former"], interface.properties_by_output["Energies"])

    assert interface.properties_by_output == finished.api.cdb_map_outputs_to_properties(theirs["interface"])
    assert interface.properties_by_output == {"Energies": ["energy", "weight"], "Gaps": ["gap"]}
    assert_frame_equal(ours.dataframe()[list(frame.columns)], frame)
