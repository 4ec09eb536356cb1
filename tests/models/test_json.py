"""The JSON of public models can be read back, for values as real servers sent and accepted them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from st4sd_async import models
from tests.models.test_reports import REPORT, parse

pytestmark = pytest.mark.slow

RECORDINGS = Path(__file__).parents[1] / "local" / "recorded"
ABSTRACT = {models.Reply, models.Payload, models.Document, models.StartOptions}
PUBLIC = {
    cls
    for cls in (getattr(models, name) for name in models.__all__)
    if isinstance(cls, type) and issubclass(cls, BaseModel) and cls not in ABSTRACT
}
PLACEHOLDERS = {r"<<run:([a-z-]+)-(\d)>>": r"\1-c52cd4-76k4hf8\2", r"<<epoch>>": "1795341922.972908"}
"""Placeholders whose values must be readable; others stay."""
REPLIES: dict[str, tuple[type[BaseModel], tuple[str, ...]]] = {
    r"GET /rs/experiments/": (models.Experiment, ("entries", "*")),
    r"GET /rs/experiments/[a-z]+": (models.Experiment, ("entry",)),
    r"POST /rs/experiments/": (models.Experiment, ("result",)),
    r"GET .*/history/?": (models.History, ()),
    r"GET .*/package-inheritance": (models.Inheritance, ("result",)),
    r"GET .*/start/payload/": (models.StartSkeleton, ()),
    r"GET /rs/instances/": (models.Instance, ("*",)),
    r"GET /rs/instances/[^/]+": (models.Instance, ()),
    r"GET /rs/instances/[^/]+/status": (models.Status, ()),
    r"GET /rs/instances/[^/]+/outputs": (models.KeyOutput, ("*",)),
    r"POST /rs/utilities/pvep/": (models.GeneratedPackage, ()),
    r"GET /rs/relationships/": (models.Relationship, ("entries", "*")),
    r"POST /rs/relationships/[^/]+/synthesize/.*": (models.Synthesis, ()),
    r"GET /rs/relationships/[^/]+/preview/.*": (models.SynthesisPreview, ()),
}
"""Method and path of a call -> the model of its response, and where in the response its values are."""
REQUESTS: dict[str, type[BaseModel]] = {
    r"POST /rs/relationships/": models.RelationshipPayload,
    r"POST /rs/experiments/lambda/start": models.LambdaPayload,
    r"POST /rs/experiments/(?!lambda)[a-z-]+/start": models.StartPayload,
}
REFUSED = {"06.74"}
"""Calls whose payload this client does not send: a variable is null."""
DOCUMENTS: dict[str, type[BaseModel]] = {
    "experiment": models.ExperimentDocument,
    "component": models.ComponentDocument,
    "user-metadata": models.UserMetadata,
}
NEVER_RECORDED: list[BaseModel] = [
    models.Inheritance.model_validate(
        {
            "variables": {
                "scale": {
                    "fromBasePackage": "main",
                    "values": [
                        {"value": 2, "platform": "default", "overrides": [{"fromBasePackage": "b", "value": 1}]}
                    ],
                    "executionOptions": {"name": "scale"},
                }
            }
        }
    ),
    models.LinksPayload.model_validate(
        {
            "graphParameters": [{"inputGraphParameter": {"name": "a"}, "outputGraphParameter": {"name": "b"}}],
            "graphResults": [{"inputGraphResult": {"name": "c"}, "outputGraphResult": {"name": "d"}}],
            "variablesMergePolicy": "outputGraphOverridesInputGraph",
        }
    ),
    models.UserMetadata.model_validate({"rest-uid": "demo-1", "rest_uid": "a key of the user"}),
    models.StartPayload.model_validate(
        {
            "volumes": [{"type": {"dataset": "mine"}, "identifier": "mine", "readOnly": False}],
            "s3Store": {"credentials": {"dataset": "mine"}, "bucketPath": "%(instanceDir)s"},
            "runtimePolicy": {"name": "cheapest", "config": {"most": 3}},
        }
    ),
    models.Status.pending({"warning": "Workflow has no status"}),
]
"""Values of models, or with models inside, that no recorded call has."""


def calls() -> Iterator[dict[str, Any]]:
    """Yield the recorded calls that succeeded with JSON."""
    for path in sorted(RECORDINGS.glob("*[a-z].json")):
        text = path.read_text("utf-8")
        for placeholder, value in PLACEHOLDERS.items():
            text = re.sub(placeholder, value, text)
        recording = json.loads(text, parse_constant=lambda _: None)  # NaN is null in JSON of models
        yield from (call for call in recording.get("calls", ()) if _is_usable(call))


def _is_usable(call: dict[str, Any]) -> bool:
    return call["status"] < 300 and "json body" in call and call["call"] not in REFUSED


def recorded() -> Iterator[BaseModel]:
    """Yield the models of what was sent and received."""
    for call in calls():
        name, body = f"{call['method']} {call['path']}", call["json body"]
        if call["path"].endswith("/query"):
            for document in body["document-descriptors"]:
                yield DOCUMENTS[document["type"]].model_validate(document)
        yield from (cls.model_validate(call["json"]) for path, cls in REQUESTS.items() if re.fullmatch(path, name))
        for path, (cls, steps) in REPLIES.items():
            if re.fullmatch(path, name):
                yield from map(cls.model_validate, found(body, steps))


def found(value: Any, steps: Iterable[str]) -> list[Any]:
    """Return the objects at a path in a response, without those that were cut. A star stands for all items."""
    values = [value]
    for step in steps:
        if step == "*":
            values = [item for one in values for item in (one.values() if isinstance(one, dict) else one)]
        else:
            values = [one[step] for one in values]
    return [one for one in values if isinstance(one, dict)]


def parts(value: Any) -> Iterator[BaseModel]:
    """Yield a model and all models inside it."""
    if isinstance(value, BaseModel):
        yield value
        value = [getattr(value, name) for name in type(value).model_fields]
    if isinstance(value, dict):
        value = value.values()
    if not isinstance(value, str | bytes) and isinstance(value, Iterable):
        for item in value:
            yield from parts(item)


@pytest.fixture(scope="module")
def values() -> list[BaseModel]:
    """Return models of everything that was recorded."""
    return [part for whole in [*recorded(), *parse(REPORT).rows, *NEVER_RECORDED] for part in parts(whole)]


def test_each_public_model_has_values(values: list[BaseModel]) -> None:
    """So that the tests below say something about each of them."""
    assert {cls.__name__ for cls in PUBLIC - {type(value) for value in values}} == set()


@pytest.mark.parametrize("by_alias", [None, True], ids=["by default", "by alias"])
def test_each_model_survives_its_json(values: list[BaseModel], by_alias: bool | None) -> None:
    """The value that is read back is equal, and so is that of the Python form."""
    for value in values:
        written = value.model_dump_json(by_alias=by_alias)

        assert type(value).model_validate_json(written) == value, written
        assert type(value).model_validate(value.model_dump(by_alias=by_alias)) == value, written
