"""Both clients get the same properties and interfaces of the same runs."""

from __future__ import annotations

from typing import Any

import pytest

from st4sd_async import Client, NotFound, UnknownProperty
from tests.local.helpers import definition
from tests.local.incumbent.finished import INCUMBENT, Finished

pytestmark = [pytest.mark.anyio, *INCUMBENT]

FORMERLY = {
    "propertiesSpec": [
        {"name": "energy", "source": {"output": "Energies", "extractionMethod": {"hook": True}}},
        {"name": "weight", "source": {"output": "Energies", "extractionMethod": {"hook": True}}},
        {"name": "gap", "source": {"output": "Gaps"}},
    ]
}
"""An interface in the old form, which the orchestrator no longer accepts."""
TABLE = "input-id;energy;weight;gap\nCCO;-4.5;;inf\nCO;-3;30;2\n"


@pytest.fixture(scope="module", autouse=True)
def former(finished: Finished) -> None:
    """Also run an experiment with an old interface, which only the simulator can do."""
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
    """Return the document of a run that the incumbent finds."""
    found: dict[str, Any] = await finished.ask("cdb_get_document_experiment_for_rest_uid", finished.runs[experiment])
    return found


@pytest.mark.parametrize("names", [None, ["energy"], ["weight", "energy"]])
@pytest.mark.parametrize("experiment", ["demo", "former"])
async def test_tables_are_the_same(
    finished: Finished, client: Client, experiment: str, names: list[str] | None
) -> None:
    """Values, missing values and types are the same, from both services."""
    from pandas.testing import assert_frame_equal

    _needs(finished, experiment)
    instance = finished.instances[experiment]
    _, (theirs,) = await finished.ask("cdb_get_properties", instance=instance, properties=names, _api_verbose=False)

    table = await client.properties(finished.runs[experiment], names)
    many = await client.properties([finished.runs[experiment]], names, strict=True)

    assert len(theirs) == len(table) > 1
    assert theirs.isna().any().any() or names == ["energy"]
    assert_frame_equal(table.dataframe(), theirs)
    assert_frame_equal(many.dataframe().drop(columns="rest-uid"), theirs)
    assert set(many["rest-uid"]) == {finished.runs[experiment]}


@pytest.mark.parametrize("experiment", ["demo", "former"])
async def test_names_are_the_same(finished: Finished, client: Client, experiment: str) -> None:
    """The names of properties and of key-outputs are the same."""
    _needs(finished, experiment)
    theirs = await document(finished, experiment)

    ours = await client.run(finished.runs[experiment]).document()

    assert ours.interface.property_names == finished.api.cdb_get_property_names(theirs) != []
    assert list(ours.outputs) == finished.api.cdb_get_key_output_names(theirs) != []


async def test_unknown_columns_are_an_error_in_both(finished: Finished, client: Client) -> None:
    """The error contains the known columns."""
    from experiment.service.errors import NoPropertyError

    demo, fail = finished.instances["demo"], await document(finished, "fail")

    with pytest.raises(NoPropertyError, match="zzz") as theirs:
        await finished.ask("cdb_get_properties", instance=demo, properties=["zzz"], _api_verbose=False)
    with pytest.raises(UnknownProperty) as error:
        await client.properties(finished.runs["demo"], ["zzz"])
    assert list(error.value.known) == theirs.value.known_properties == ["input-id", "smiles", "energy", "weight"]

    with pytest.raises(NoPropertyError):
        finished.api.cdb_get_property_names(fail)
    with pytest.raises(NotFound, match="it did not succeed: failed"):
        await client.properties(finished.runs["fail"])
    with pytest.raises(NotFound, match="it did not succeed: failed"):
        await client.properties([finished.runs["fail"]], strict=True)


async def test_inputs_and_outputs_of_an_interface_are_read(finished: Finished, client: Client) -> None:
    """The incumbent only knows the form that the orchestrator rejects."""
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


async def test_key_outputs_have_the_same_properties_in_the_old_form(finished: Finished, client: Client) -> None:
    """The mapping and the columns that it selects are the same."""
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
