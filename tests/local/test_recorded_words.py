"""Refusals of groups in the words that were recorded."""

from __future__ import annotations

from typing import Any

import httpx

BUCKET = {"accessKeyID": "k", "secretAccessKey": "s", "bucket": "bkt", "endpoint": "http://minio", "region": ""}
PULL = {"server": "quay.example/x", "username": "u", "password": "p"}


def test_what_is_there_already_is_told_as_recorded(web: httpx.Client) -> None:
    """A dataset and an image pull secret that are created twice."""
    calls: dict[str, dict[str, str]] = {"/datasets/s3/rigset": BUCKET, "/image-pull-secrets/sec1": PULL}

    done = [web.post(path, json=body) for path, body in calls.items()]
    again = [web.post(path, json=body) for path, body in calls.items()]

    assert [reply.status_code for reply in done] == [200, 200]
    assert [(reply.status_code, reply.json()) for reply in again] == [
        (409, {"message": 'datasets "rigset" already exists'}),
        (409, {"message": "imagePullSecret already exists but has not become available yet"}),
    ]


def test_a_query_that_makes_no_sense_is_told_as_recorded(web: httpx.Client) -> None:
    """Its problems stand in the message, as JSON with line breaks."""
    reply = web.post("/query/experiments/", json={"package": {"definition": "git"}})
    extra: dict[str, Any] = web.post("/query/experiments/", json={"nope": 1}).json()

    assert reply.status_code == 400
    assert reply.json() == {
        "message": 'Invalid request, problems: [\n  {\n    "type": "model_type",\n    "loc": [\n      '
        '"package",\n      "definition"\n    ],\n    "msg": "Input should be a valid dictionary or instance of '
        'BasePackage",\n    "input": "git",\n    "ctx": {\n      "class_name": "BasePackage"\n    },\n    '
        '"url": "https://errors.pydantic.dev/2.14/v/model_type"\n  }\n]'
    }
    assert '"ctx"' not in extra["message"]
