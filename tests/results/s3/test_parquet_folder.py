"""A folder of Parquet files in a bucket, with credentials in the environment."""

from __future__ import annotations

from urllib.parse import quote, urlsplit

import pyarrow
import pytest

from st4sd_async._results.parquet import ParquetFolder
from tests.results.s3.storage import KEY_ID, SECRET, Storage

pytestmark = pytest.mark.slow

SCHEMA = pyarrow.schema([("key", "string"), ("energy", "float64")])


@pytest.fixture
def url(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of a folder, as Arrow reads it."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY_ID)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    endpoint = quote(urlsplit(storage.url).netloc, safe="")
    return f"s3://{storage.name}/table?scheme=http&region=us-east-1&endpoint_override={endpoint}"


def test_files_are_written_read_and_listed(url: str, storage: Storage) -> None:
    """A file that a killed process left is removed; no incomplete one is among the others."""
    folder = ParquetFolder(url)

    assert (folder.names(), folder.read_schema()) == ([], None)
    folder.write_schema(SCHEMA, {"names": None})
    folder.write("b.parquet", pyarrow.table({"key": ["b"], "energy": [1.5]}, SCHEMA), {"launches": "2"})
    folder.write("a.parquet", pyarrow.table({"key": ["a"], "energy": [2.5]}, SCHEMA), {"launches": "1"})
    folder._files.open_output_stream(folder._path(".0123456789abcdef.part")).close()

    again = ParquetFolder(url)
    assert again.names() == ["a.parquet", "b.parquet"]
    assert again.read_schema() == SCHEMA
    assert [again.facts(name) for name in again.names()] == [{"launches": "1"}, {"launches": "2"}]
    assert again.path("a.parquet").startswith(f"s3://{storage.name}/table/a.parquet?scheme=http")
    assert sorted(storage.listed()) == ["table/", "table/_common_metadata", "table/a.parquet", "table/b.parquet"]
