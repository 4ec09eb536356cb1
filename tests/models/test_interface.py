"""Interfaces of experiments in registries and documents."""

from __future__ import annotations

from typing import Any

import pytest

from st4sd_async import Experiment, ExperimentDocument, Interface

TODAY: dict[str, Any] = {
    "description": "Computes toy energies",
    "inputSpec": {
        "namingScheme": "SMILES",
        "inputExtractionMethod": {"csvColumn": {"source": {"path": "input/a.csv"}, "args": {"column": "smiles"}}},
        "hasAdditionalData": True,
    },
    "propertiesSpec": [
        {
            "name": "Energy",
            "description": "toy energy",
            "propertyExtractionMethod": {"csvDataFrame": {"source": {"keyOutput": "Energies"}}},
        },
        {
            "name": "weight",
            "propertyExtractionMethod": {
                "csvDataFrame": None,
                "hookGetProperties": {"source": {"keyOutput": "Energies"}},
            },
        },
        {"name": "gap", "propertyExtractionMethod": {"hookGetProperties": {"source": {"pathList": ["stages/a.csv"]}}}},
        {"name": "dipole", "propertyExtractionMethod": {"hookGetProperties": {"source": {"keyOutput": "Dipoles"}}}},
    ],
    "inputs": ["CCO", "NAN"],
    "additionalInputData": {"CCO": ["input/cco.xyz"]},
    "outputFiles": ["output/input-ids.json", "output/properties.csv"],
    "propertyTable": {"input-id": ["CCO"]},
}
FORMERLY: dict[str, Any] = {
    "propertiesSpec": [
        {"name": "energy", "source": {"output": "Energies", "extractionMethod": {"hook": True}}},
        {"name": "weight", "source": {"output": "Energies", "extractionMethod": {"hook": True}}},
        {"name": "gap", "source": {"output": "Gaps"}},
    ]
}


def test_an_interface_is_typed() -> None:
    """Inputs and properties have attributes; unknown fields are in `raw`."""
    interface = Interface.model_validate({**TODAY, "new": 1})

    assert interface.description == "Computes toy energies"
    assert (interface.input_spec.naming_scheme, interface.input_spec.has_additional_data) == ("SMILES", True)
    assert interface.input_spec.extraction == TODAY["inputSpec"]["inputExtractionMethod"]
    assert [(one.name, one.description) for one in interface.properties][:2] == [
        ("Energy", "toy energy"),
        ("weight", ""),
    ]
    assert interface.property_names == ["Energy", "weight", "gap", "dipole"]
    assert interface.input_ids == ["CCO", "NAN"]
    assert interface.additional_input_data == {"CCO": ["input/cco.xyz"]}
    assert interface.output_files == ["output/input-ids.json", "output/properties.csv"]
    assert interface.raw == {**TODAY, "new": 1}


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        pytest.param(TODAY, {"Energies": ["Energy", "weight"], "Dipoles": ["dipole"]}, id="runtime-core-2.7"),
        pytest.param(FORMERLY, {"Energies": ["energy", "weight"], "Gaps": ["gap"]}, id="formerly"),
        pytest.param({}, {}, id="none"),
    ],
)
def test_key_outputs_know_the_properties_read_from_them(raw: dict[str, Any], expected: dict[str, list[str]]) -> None:
    """In today's form and in the previous one; properties read from other files belong to no key-output."""
    assert Interface.model_validate(raw).properties_by_output == expected


def test_an_interface_before_a_run_has_no_results() -> None:
    """The registry has null for what only a run knows."""
    before = {**TODAY, "inputs": None, "additionalInputData": None, "outputFiles": [], "description": None}

    interface = Interface.model_validate(before)

    assert (interface.input_ids, interface.additional_input_data, interface.output_files) == ([], {}, [])
    assert (interface.description, interface.property_names[0]) == ("", "Energy")


@pytest.mark.parametrize(
    "raw",
    [
        {"inputs": "CCO", "outputFiles": 3, "additionalInputData": ["CCO"], "propertiesSpec": {"name": "energy"}},
        {"inputSpec": [], "propertiesSpec": "energy", "additionalInputData": {"CCO": 1}},
        {"inputSpec": {"namingScheme": 1, "inputExtractionMethod": []}, "propertiesSpec": [None, "energy"]},
    ],
)
def test_fields_that_cannot_be_read_are_missing(raw: dict[str, Any]) -> None:
    """All other fields are read."""
    interface = Interface.model_validate({**raw, "description": "odd"})

    assert interface.model_dump() == {**Interface().model_dump(), "description": "odd"}
    assert interface.raw == {**raw, "description": "odd"}


@pytest.mark.parametrize(
    "entry",
    [
        {"name": "energy", "propertyExtractionMethod": {"csvDataFrame": {"source": {"keyOutput": ["Energies"]}}}},
        {"name": "energy", "propertyExtractionMethod": {"csvDataFrame": {"source": "Energies"}}},
        {"name": "energy", "propertyExtractionMethod": {"csvDataFrame": "Energies"}},
        {"name": "energy", "source": {"output": None}},
        {"name": "energy", "source": "Energies"},
    ],
)
def test_a_property_of_an_unknown_form_has_no_output(entry: dict[str, Any]) -> None:
    """It has its name."""
    interface = Interface.model_validate({"propertiesSpec": [entry]})

    assert interface.property_names == ["energy"]
    assert interface.properties_by_output == {}


def test_input_ids_are_texts() -> None:
    """Also if a hook makes numbers of them."""
    assert Interface.model_validate({"inputs": [1, "b"]}).input_ids == ["1", "b"]


def test_documents_and_definitions_have_an_interface() -> None:
    """It is equal in both, and empty if there is none."""
    document = ExperimentDocument.model_validate({"interface": TODAY})
    experiment = Experiment.model_validate({"metadata": {"registry": {"interface": TODAY}}})

    assert document.interface == experiment.metadata.registry.interface == Interface.model_validate(TODAY)
    assert document.property_table == {"input-id": ["CCO"]}
    without: list[dict[str, Any]] = [{}, {"interface": {}}, {"interface": None}]
    blank = [
        *(ExperimentDocument.model_validate(raw).interface for raw in without),
        Experiment.model_validate({"metadata": {"registry": {"interface": None}}}).metadata.registry.interface,
        Experiment.model_validate({}).metadata.registry.interface,
    ]
    assert all(one == Interface() and one.raw == {} for one in blank)
