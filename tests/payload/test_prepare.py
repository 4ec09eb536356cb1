"""A payload is checked before it is sent, and sent unchanged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy
import pandas
import pytest

from st4sd_async import InputConflict, InvalidPayload, PayloadTooLarge, StartPayload
from st4sd_async._payload.prepare import prepare

pytestmark = pytest.mark.anyio

MIB = 1 << 20
"""The longest request body."""
FILE = {"filename": "molecules.csv", "content": "smiles\nCO\n"}

BUCKET = {"accessKeyID": "key-id", "secretAccessKey": "key", "bucket": "b", "endpoint": "e"}
S3_D = {"dataset": "d"}
TARGET = "inputs[0].targetFilename"

FULL: dict[str, Any] = {
    "inputs": [FILE, {"filename": "bucket/path/b.csv:b2.csv"}, {"sourceFilename": "x/y", "targetFilename": "z"}],
    "data": [{"filename": "extra.txt", "volume": "disk"}],
    "variables": {"scale": 2, "factor": 1.5, "flag": True, "word": "text"},
    "platform": "openshift",
    "environmentVariables": {"A": "1"},
    "additionalOptions": ["--useMemoization=true"],
    "orchestrator_resources": {"cpu": "1", "memory": "1Gi"},
    "volumes": [{"type": {"persistentVolumeClaim": "claim"}, "identifier": "disk", "readOnly": False}],
    "s3": {"accessKeyID": "key-id", "secretAccessKey": "key", "bucket": "b", "endpoint": "e", "region": ""},
    "s3Store": {
        "credentials": {"accessKeyID": "other", "secretAccessKey": "o", "bucket": "b", "endpoint": "e"},
        "bucketPath": "/run1/",
    },
    "metadata": {"campaign": "first", "number": 3},
    "runtimePolicy": {"name": "prefer-surrogate", "config": {"a": [1]}},
}


@pytest.mark.parametrize(
    "payload", [{}, {"inputs": [FILE]}, {"platform": None}, FULL], ids=["empty", "one", "null", "full"]
)
async def test_a_payload_is_sent_unchanged(payload: dict[str, Any]) -> None:
    """Nothing is added, dropped or converted, whether it is a mapping or a model."""
    as_mapping = await prepare(payload)
    as_model = await prepare(StartPayload.model_validate(payload))

    assert json.loads(as_mapping.content) == payload
    assert as_mapping.content == as_model.content


async def test_none_is_an_empty_payload() -> None:
    """An experiment may need nothing."""
    assert (await prepare(None)).content == b"{}"


async def test_contents_may_be_bytes_a_path_or_a_dataframe(tmp_path: Path) -> None:
    """Each becomes text."""
    path = tmp_path / "in.csv"
    path.write_text("from a file é\n", "utf-8")
    files = [
        {"filename": "a", "content": b"from bytes"},
        {"filename": "b", "content": path},
        {"filename": "c", "content": pandas.DataFrame({"smiles": ["CO", "CCO"]})},
    ]

    body = json.loads((await prepare({"inputs": files})).content)

    assert [one["content"] for one in body["inputs"]] == ["from bytes", "from a file é\n", "smiles\nCO\nCCO\n"]


async def test_numpy_numbers_are_numbers() -> None:
    """Variables often come from tables."""
    variables = {"i": numpy.int64(3), "f": numpy.float32(0.5), "b": numpy.bool_(True)}

    assert json.loads((await prepare({"variables": variables})).content) == {"variables": {"i": 3, "f": 0.5, "b": True}}


WRONG: list[tuple[str, dict[str, Any], str, str]] = [
    ("unknown field", {"input": []}, "input", "did you mean 'inputs'"),
    ("unknown field without a like", {"zzzz": 1}, "zzzz", "unknown field: expected one of ["),
    (
        "unknown field inside",
        {"inputs": [{"filename": "a", "contents": "x"}]},
        "inputs[0].contents",
        "did you mean 'content'",
    ),
    (
        "unknown field deep inside",
        {"volumes": [{"type": {"pvc": "x"}}]},
        "volumes[0].type.pvc",
        "unknown field",
    ),
    ("wrong type", {"inputs": "nope"}, "inputs", "must be a list of files, such as [{"),
    ("files by name", {"data": {"a.csv": "x"}}, "data", "must be a list of files, such as [{"),
    ("empty content", {"inputs": [{"filename": "a", "content": ""}]}, "inputs[0].content", "refuses an empty file"),
    (
        "empty bytes",
        {"data": [{"filename": "a", "content": b""}]},
        "data[0].content",
        "through s3, a dataset or a volume",
    ),
    (
        "binary",
        {"inputs": [{"filename": "a", "content": b"\xff\xfe"}]},
        "inputs[0].content",
        "through s3, a dataset or a volume",
    ),
    ("odd content", {"inputs": [{"filename": "a", "content": 5}]}, "inputs[0].content", "not int"),
    (
        "missing file",
        {"inputs": [{"filename": "a", "content": Path("no/such/file")}]},
        "inputs[0].content",
        "cannot be read",
    ),
    ("no name", {"inputs": [{"content": "x"}]}, "inputs[0].filename", "needs a name"),
    ("no content", {"inputs": [{"filename": "a"}]}, "inputs[0].content", "neither s3 nor a volume"),
    (
        "two names",
        {"inputs": [{**FILE, "targetFilename": "b", "sourceFilename": "c"}]},
        "inputs[0]",
        "give either filename",
    ),
    ("half a rename", {"s3": {"dataset": "d"}, "inputs": [{"targetFilename": "b"}]}, "inputs[0]", "go together"),
    (
        "unknown volume",
        {"inputs": [{"filename": "a", "volume": "v"}]},
        "inputs[0].volume",
        "no volume has the identifier",
    ),
    (
        "volume and content",
        {"inputs": [{**FILE, "volume": "v"}], "volumes": [{"type": {"secret": "s"}, "identifier": "v"}]},
        "inputs[0]",
        "mutually exclusive",
    ),
    ("colon in a name", {"metadata": {"a:b": "c"}}, "metadata.a:b", "cannot contain a colon"),
    ("two stores", {"s3Store": {}, "datasetStoreURI": "dataset://d"}, "s3Store", "mutually exclusive"),
    (
        "a folder in a name",
        {"s3": S3_D, "inputs": [{"sourceFilename": "a", "targetFilename": "b/c"}]},
        TARGET,
        "without a folder",
    ),
    (
        "half a bucket",
        {"s3": {"accessKeyID": "a", "bucket": "b"}},
        "s3",
        "needs secretAccessKey, endpoint, or a dataset",
    ),
    ("bucket and dataset", {"s3": {**BUCKET, **S3_D}}, "s3", "replaces all other fields"),
    (
        "no credentials",
        {"s3Store": {"bucketPath": "out"}},
        "s3Store.credentials",
        "accessKeyID, secretAccessKey, bucket",
    ),
    (
        "store in a dataset",
        {"s3Store": {"credentials": S3_D}},
        "s3Store.credentials.dataset",
        "use datasetStoreURI='data",
    ),
    ("no folder", {"s3Store": {"credentials": BUCKET, "bucketPath": "/"}}, "s3Store.bucketPath", "need a folder"),
    (
        "null for a folder",
        {"s3Store": {"credentials": BUCKET, "bucketPath": None}},
        "s3Store.bucketPath",
        "or omit this",
    ),
    ("no dataset", {"datasetStoreURI": "dataset:///path"}, "datasetStoreURI", "must contain the name of a dataset"),
    ("no address", {"datasetStoreURI": "s3://bucket/path"}, "datasetStoreURI", "must begin with dataset://"),
    (
        "no kind",
        {"volumes": [{"type": {}}]},
        "volumes[0].type",
        "exactly one of persistentVolumeClaim, configMap, dataset,",
    ),
    ("two kinds", {"volumes": [{"type": {"secret": "a", "dataset": "b"}}]}, "volumes[0].type", "exactly one of"),
    (
        "one identifier twice",
        {"volumes": [{"type": {"secret": name}, "identifier": "v"} for name in "ab"]},
        "volumes",
        "'v' is used 2 times",
    ),
    (
        "a folder in a configMap",
        {"volumes": [{"type": {"configMap": "a"}, "subPath": "b"}]},
        "volumes[0].subPath",
        "mounted as a whole",
    ),
    (
        "one volume twice",
        {"volumes": [{"type": {"dataset": "a"}, "identifier": "v"}, {"type": {"persistentVolumeClaim": "a"}}]},
        "volumes",
        "'a' is mounted 2 times",
    ),
    ("none as a variable", {"variables": {"a": None}}, "variables.a", "must be a string, a number or a boolean"),
    ("text that UTF-8 cannot write", {"inputs": [{"filename": "a", "content": "\ud800"}]}, "payload", "UTF-8"),
]


@pytest.mark.parametrize(("payload", "where", "what"), [row[1:] for row in WRONG], ids=[row[0] for row in WRONG])
async def test_each_problem_names_its_entry(payload: dict[str, Any], where: str, what: str) -> None:
    """With a way out, and nothing of the payload."""
    with pytest.raises(InvalidPayload) as caught:
        await prepare(payload)

    (problem,) = caught.value.problems
    assert problem.where == where
    assert what in problem.what
    assert caught.value.__context__ is None
    assert caught.value.status is None


async def test_all_problems_are_reported_at_once() -> None:
    """So that a payload can be corrected in one attempt."""
    with pytest.raises(InvalidPayload) as caught:
        await prepare({"inputs": [{"filename": "a"}, {"filename": "b", "content": ""}], "metadata": {"x:": ""}})

    assert len(caught.value.problems) == 3


async def test_a_name_in_inputs_and_data_is_a_conflict() -> None:
    """The service refuses it too, but only after the upload."""
    with pytest.raises(InputConflict) as caught:
        await prepare({"inputs": [FILE], "data": [FILE]})

    assert caught.value.names == ("molecules.csv",)


async def test_the_error_for_more_than_a_mebibyte_names_the_biggest_entry(tmp_path: Path) -> None:
    """The limit of the proxy is for the whole body. A huge file is not read completely."""
    big = tmp_path / "big"
    big.write_bytes(b"x" * (3 * MIB))
    frame = len(json.dumps({"inputs": [{"filename": "a", "content": ""}]}, separators=(",", ":")))
    fits = {"inputs": [{"filename": "a", "content": "x" * (MIB - frame)}]}

    assert len((await prepare(fits)).content) == MIB
    with pytest.raises(PayloadTooLarge, match=r"inputs\[1\]\.content.*client.stage_inputs uploads big files"):
        await prepare({"inputs": [FILE, {"filename": "b", "content": big}]})


async def test_a_payload_that_is_no_mapping_is_a_type_error() -> None:
    """A list is an error of the program, not of the payload."""
    with pytest.raises(TypeError, match="must be a mapping or a StartPayload, not list"):
        await prepare([])  # type: ignore[arg-type] # on purpose
