"""Experiments that are in no registry: the start of a lambda."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from st4sd_async.local import LocalServer

BUCKET = {"accessKeyID": "a", "secretAccessKey": "b", "bucket": "c", "endpoint": "http://127.0.0.1:9"}
LAMBDA = {"lambdaFlowIR": {"components": [{"name": "A", "command": {"executable": "echo"}}]}}


BAD_PLACES = [
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


@pytest.mark.parametrize(("payload", "words"), [row[1:] for row in BAD_PLACES], ids=[row[0] for row in BAD_PLACES])
def test_a_lambda_with_half_a_place_is_an_error_of_the_server(
    web: httpx.Client, payload: dict[str, Any], words: str
) -> None:
    """The service hands what it is given to code that trips over it."""
    reply = web.post("/experiments/lambda/start", json={**LAMBDA, **payload})

    assert reply.status_code == 500
    assert words in reply.json()["message"]


def test_a_lambda_may_take_its_data_from_a_dataset_and_upload_to_a_bucket(
    server: LocalServer, web: httpx.Client, tmp_path: Path
) -> None:
    """A folder stands for the dataset; the bucket that does not answer is no failure of the run."""
    (tmp_path / "a.txt").write_text("x")
    server.mount("dataset", "mine", tmp_path)
    places = {"s3": {"dataset": "mine"}, "s3Store": {"credentials": BUCKET, "bucketPath": "/a"}}
    flowir = {**LAMBDA["lambdaFlowIR"], "output": {"Out": {}}}

    reply = web.post(
        "/experiments/lambda/start", json={"lambdaFlowIR": flowir, "data": [{"filename": "a.txt:b.txt"}], **places}
    )
    server.advance(10)

    assert web.get(f"/instances/{reply.json()}/status").json()["exit-status"] == "Success"
    directory = server.directory(reply.json())
    assert directory is not None
    assert (directory / "data/b.txt").read_text() == "x"
