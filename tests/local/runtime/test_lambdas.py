"""Starts of experiments that are in no registry."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from st4sd_async.local import LocalServer

BUCKET = {"accessKeyID": "a", "secretAccessKey": "b", "bucket": "c", "endpoint": "http://127.0.0.1:9"}
LAMBDA = {"lambdaFlowIR": {"components": [{"name": "A", "command": {"executable": "echo"}}]}}


INVALID_STORAGE = [
    (
        "two stores",
        {"s3Store": {"credentials": BUCKET, "bucketPath": "a"}, "datasetStoreURI": "dataset://d"},
        "exclusive",
    ),
    ("no path", {"s3Store": {"credentials": BUCKET}}, "bucketPath"),
    ("no keys", {"s3Store": {"credentials": {}, "bucketPath": "a"}}, "bucket"),
    ("no address", {"datasetStoreURI": "s3://d"}, "should begin with dataset://"),
    ("half a bucket", {"data": [{"filename": "a"}], "s3": {"bucket": "b"}}, "endpoint"),
]


@pytest.mark.parametrize(
    ("payload", "words"), [row[1:] for row in INVALID_STORAGE], ids=[row[0] for row in INVALID_STORAGE]
)
def test_incomplete_storage_of_a_lambda_is_a_server_error(
    web: httpx.Client, payload: dict[str, Any], words: str
) -> None:
    """The service does not check these fields before it uses them."""
    reply = web.post("/experiments/lambda/start", json={**LAMBDA, **payload})

    assert reply.status_code == 500
    assert words in reply.json()["message"]


def test_a_lambda_can_read_a_dataset_and_upload_to_a_bucket(
    server: LocalServer, web: httpx.Client, tmp_path: Path
) -> None:
    """A mounted folder is the dataset; the run succeeds even if the bucket does not respond."""
    (tmp_path / "a.txt").write_text("x")
    server.mount("dataset", "mine", tmp_path)
    storage = {"s3": {"dataset": "mine"}, "s3Store": {"credentials": BUCKET, "bucketPath": "/a"}}
    flowir = {**LAMBDA["lambdaFlowIR"], "output": {"Out": {"data-in": "stage0.A/out.stdout:copy"}}}

    reply = web.post(
        "/experiments/lambda/start", json={"lambdaFlowIR": flowir, "data": [{"filename": "a.txt:b.txt"}], **storage}
    )
    server.advance(10)

    assert web.get(f"/instances/{reply.json()}/status").json()["exit-status"] == "Success"
    directory = server.directory(reply.json())
    assert directory is not None
    assert (directory / "data/b.txt").read_text() == "x"
