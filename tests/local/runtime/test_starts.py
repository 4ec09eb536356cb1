"""Payloads are checked against their experiment, and errors have the texts of the service."""

from __future__ import annotations

import json
from typing import Any

import pytest

from st4sd_async.local.engine.interface import AcceptedStart, PackageFacts
from st4sd_async.local.http.messages import HTTPError
from st4sd_async.local.runtime.models import ParameterisedPackage, SchemaError, validate
from st4sd_async.local.runtime.registry import register
from st4sd_async.local.runtime.starts import DeprecatedExperimentStartPayload, accepted_start
from tests.local.helpers import definition

FACTS = PackageFacts("0" * 40, data=("a.txt", "b.txt"), variables={"default": {"n": "1"}, "big": {"n": "2"}})


def complete(presets: dict[str, Any], options: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return a stored definition with these presets and execution options."""
    value = definition(options=options)
    value["parameterisation"]["presets"] = presets
    stored = validate(ParameterisedPackage, value)
    register(stored, FACTS)
    return stored


def accepted(presets: dict[str, Any], payload: dict[str, Any], options: dict[str, Any] | None = None) -> AcceptedStart:
    """Return the start for a payload."""
    return accepted_start(complete(presets, options), payload)


REJECTED: list[tuple[dict[str, Any], dict[str, Any], str, str]] = [
    (
        {"variables": [{"name": "n", "value": "1"}]},
        {"variables": {"n": 2}},
        "reason",
        "Payload overrides workflow variables of parameterisation.presets: n",
    ),
    (
        {"environmentVariables": [{"name": "A", "value": "1"}]},
        {"environmentVariables": {"A": 2}},
        "reason",
        "Payload overrides environment variables of parameterisation.presets: A",
    ),
    (
        {"data": [{"name": "a.txt"}]},
        {"data": [{"filename": "a.txt", "content": "x"}]},
        "message",
        "Payload overrides data files specified in parameterisation.presets.data. Filenames are ['a.txt']",
    ),
    (
        {"platform": "big"},
        {"platform": "default"},
        "message",
        "Payload overrides parameterisation.presets.platform=big",
    ),
    (
        {"runtime": {"resources": {"cpu": "2"}}},
        {},
        "message",
        "payload.orchestrator_resources.cpu overrides parameterisation.presets.runtime.resources.cpu",
    ),
    (
        {},
        {"data": [{"sourceFilename": "x", "targetFilename": "a.txt", "content": "x"}]},
        "reason",
        "'sourceFilename': 'x', 'targetFilename': 'a.txt'} is invalid because .filename is empty",
    ),
]


@pytest.mark.parametrize(("presets", "payload", "key", "text"), REJECTED, ids=[row[3][:40] for row in REJECTED])
def test_presets_cannot_be_overridden(presets: dict[str, Any], payload: dict[str, Any], key: str, text: str) -> None:
    """A payload that overrides a preset is rejected with a reason or a message."""
    with pytest.raises(HTTPError) as rejected:
        accepted(presets, payload)

    response = rejected.value.response
    assert response.status == 400
    assert text in json.loads(response.body)[key]


def test_presets_and_defaults_complete_a_start() -> None:
    """Presets come first, then the payload, then first choices; options keep their order."""
    presets = {
        "variables": [{"name": "p", "value": 1}],
        "environmentVariables": [{"name": "A", "value": "1"}],
        "runtime": {"args": ["--first"]},
        "platform": "big",
    }
    options = {
        "variables": [{"name": "n"}, {"name": "m", "valueFrom": [{"value": "x"}, {"value": "y"}]}],
        "runtime": {"args": ["--second"]},
    }
    payload = {
        "variables": {"n": 3},
        "environmentVariables": {"B": 2},
        "additionalOptions": ["--third"],
        "runtimePolicy": {"name": "prefer-surrogate"},
    }

    started = accepted(presets, payload, options)

    assert started.platform == "big"
    assert started.variables == {"p": "1", "n": "3", "m": "x"}
    assert started.environment == {"A": "1", "B": "2"}
    assert started.options == ("--first", "--second", "--third")


@pytest.mark.parametrize(
    ("requested", "allowed", "platform"),
    [
        (None, [], None),
        ("any", [], "any"),
        (None, ["big", "default"], "big"),
        ("default", ["big", "default"], "default"),
    ],
)
def test_the_platform_is_that_of_the_payload_or_the_first(
    requested: str | None, allowed: list[str], platform: str | None
) -> None:
    """Without a preset the payload selects an allowed platform; the default is the first one."""
    payload = {} if requested is None else {"platform": requested}

    assert accepted({}, payload, {"platform": allowed}).platform == platform


def test_the_registry_lists_defaults_by_platform() -> None:
    """Each variable has its value on every platform that sets it."""
    stored = complete({}, {"variables": [{"name": "n"}], "platform": ["big", "default"]})

    assert stored["metadata"]["registry"]["executionOptionsDefaults"]["variables"] == [
        {"name": "n", "valueFrom": [{"value": "2", "platform": "big"}, {"value": "1", "platform": "default"}]}
    ]


INVALID: list[tuple[Any, str]] = [
    (
        {"metadata": {"registry": {"timesExecuted": True}}},
        "metadata.registry.timesExecuted\n  Input should be a valid integer",
    ),
    ({"metadata": {"package": {"tags": "v1"}}}, "metadata.package.tags\n  Input should be a valid list"),
    (
        {"metadata": {"registry": {"interface": []}}},
        "metadata.registry.interface\n  Input should be a valid dictionary",
    ),
    (
        {"base": {"packages": [{"source": {"git": {}}}]}},
        "source.git.location\n  Field required [type=missing, input_value={}, input_type=dict]",
    ),
    ({"base": {"packages": [{}, {}]}}, "Value error, Multiple definitions of base package main"),
    (
        {"parameterisation": {"executionOptions": {"variables": [{"value": "a", "valueFrom": [{"value": "b"}]}]}}},
        "Value error, Cannot provide both value and valueFrom",
    ),
    ({"x": 1, "y": "z" * 80}, "2 validation errors for ParameterisedPackage\nx\n"),
]


@pytest.mark.parametrize(("value", "text"), INVALID, ids=[row[1][:30].strip() for row in INVALID])
def test_invalid_definitions_are_described(value: Any, text: str) -> None:
    """Each problem has a location, a text, a type and the value, shortened in the middle."""
    with pytest.raises(SchemaError) as problem:
        validate(ParameterisedPackage, value)

    assert text in str(problem.value)
    assert "For further information visit https://errors.pydantic.dev/" in str(problem.value)
    assert "z" * 51 not in str(problem.value)


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ({"filename": "a", "targetFilename": "b"}, "filename is mutually exclusive with sourceFilename"),
        ({"sourceFilename": "a"}, "If either targetFilename and sourceFilename is set"),
        ({"sourceFilename": "a", "targetFilename": "b/c"}, "Cannot contain / character"),
        ({"filename": "a", "content": "b", "volume": "c"}, "volume and content are mutually exclusive"),
    ],
)
def test_files_with_contradicting_fields_are_rejected(file: dict[str, str], text: str) -> None:
    """The fields of a file are mutually exclusive as in the service."""
    with pytest.raises(SchemaError, match=text):
        validate(DeprecatedExperimentStartPayload, {"inputs": [file]})


def test_metadata_may_contain_colons() -> None:
    """The service accepts colons in values and names; the orchestrator cuts names at the colon."""
    metadata = {"when": "10:30", "a:b": "c"}

    assert validate(DeprecatedExperimentStartPayload, {"metadata": metadata})["metadata"] == metadata
