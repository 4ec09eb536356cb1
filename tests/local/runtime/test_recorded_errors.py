"""Bodies that do not match their models are rejected with the recorded texts."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from st4sd_async.local import LocalServer

PAYLOAD = "DeprecatedExperimentStartPayload"
EXTRA = "Extra inputs are not permitted [type=extra_forbidden"
MAPPING = "Input should be a valid dictionary or instance of"
MOLECULES = {"filename": "molecules.csv", "content": "a\n"}
RECORDED: list[tuple[str, Any, str, str]] = [
    ("push", {"metadata": {"package": {"name": "bad"}}, "nope": 1}, "ParameterisedPackage\nnope", f"{EXTRA}, 1, int]"),
    ("push", [], "ParameterisedPackage", f"{MAPPING} ParameterisedPackage [type=model_type, [], list]"),
    ("start", None, PAYLOAD, f"{MAPPING} {PAYLOAD} [type=model_type, None, NoneType]"),
    ("start", {"inputs": "n"}, f"{PAYLOAD}\ninputs", "Input should be a valid list [type=list_type, 'n', str]"),
    ("start", {"bogus": 1, "inputs": [MOLECULES]}, f"{PAYLOAD}\nbogus", f"{EXTRA}, 1, int]"),
    (
        "start",
        {"inputs": [MOLECULES], "s3Store": {"credentials": {"dataset": "d"}}},
        "OptionFromS3Values\ndataset",
        f"{EXTRA}, 'd', str]",
    ),
]


@pytest.mark.parametrize(("action", "body", "where", "problem"), RECORDED, ids=[str(row[1])[:40] for row in RECORDED])
def test_schema_errors_are_as_recorded(
    web: httpx.Client, server: LocalServer, action: str, body: Any, where: str, problem: str
) -> None:
    """The whole text is the same, whichever version of pydantic is installed."""
    web.post("/experiments/", json=server.example("demo")).raise_for_status()
    path, key, message = {
        "push": ("/experiments/", "invalidVirtualExperimentDefinition", "Invalid parameterised package"),
        "start": ("/experiments/demo/start", "invalidStartPayload", "Invalid start payload"),
    }[action]

    reply = web.post(path, content=json.dumps(body), headers={"Content-Type": "application/json"})

    start, value, kind = problem.rsplit(", ", 2)
    text = f"{start}, input_value={value}, input_type={kind}"
    link = f"https://errors.pydantic.dev/2.14/v/{start.partition('type=')[2]}"
    assert reply.status_code == 400
    assert reply.json() == {
        key: f"1 validation error for {where}\n  {text}\n    For further information visit {link}",
        "message": message,
    }
