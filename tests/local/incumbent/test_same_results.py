"""Both clients get the same documents and files of the same runs."""

from __future__ import annotations

import hashlib
import io
import zipfile
from pathlib import Path
from typing import Any

import pytest

from st4sd_async import Client, Download, DownloadFailed, NotFound, UnknownOutput
from tests.local.incumbent.finished import INCUMBENT, Finished
from tests.tries import sample

pytestmark = [pytest.mark.anyio, *INCUMBENT]


def tree(target: Path) -> dict[str, bytes]:
    """Return all downloaded files below a folder."""
    found = {str(path.relative_to(target)): path for path in target.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in found.items() if name != ".st4sd-downloads.jsonl"}


def contents(outcomes: list[Download | DownloadFailed]) -> dict[str, bytes]:
    """Return source -> content, after comparing it with the reported size and hash."""
    found = {}
    for download in outcomes:
        assert isinstance(download, Download), download
        found[download.source] = content = download.path.read_bytes()
        assert (download.size, download.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    return found


def in_order(documents: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Sort documents, as neither client promises an order."""
    return sorted(documents, key=lambda document: (document["type"], document["uid"]))


QUERIES: list[dict[str, Any]] = [
    {"type": "experiment"},
    {"type": "experiment", "name": "demo"},
    {"type": "component", "component-state": "finished"},
    {"status.exit-status": "Failed"},
    {"metadata.userMetadata.campaign": "x"},
    {"campaign": "x"},
    {"files": {"$elemMatch": {"$regex": "out.stdout$"}}},
    {"type": "ghost"},
]


@pytest.mark.parametrize("query", [*sample(QUERIES[:-1], 4), QUERIES[-1]], ids=str)
async def test_documents_of_any_type_are_the_same(finished: Finished, client: Client, query: dict[str, Any]) -> None:
    """``cdb_get_document`` and `Datastore.query` find the same."""
    theirs = await finished.ask("cdb_get_document", query=query)

    ours = await client.datastore.query(query)

    assert in_order(ours) == in_order(theirs)
    assert (ours == []) == ("ghost" in query.values())


async def test_documents_of_experiments_are_the_same(finished: Finished, client: Client) -> None:
    """``cdb_get_document_experiment`` and its variant by rest-uid, with and without properties."""
    for instance in [None, *finished.instances.values()]:
        theirs = await finished.ask("cdb_get_document_experiment", instance=instance)
        ours = await client.datastore.experiments(instance=instance)
        assert in_order([document.raw for document in ours]) == in_order(theirs)
        assert theirs

    uid = finished.runs["demo"]
    plain = await finished.ask("cdb_get_document_experiment_for_rest_uid", uid)
    some = await finished.ask(
        "cdb_get_document_experiment_for_rest_uid", uid, include_properties=["energy"], stringify_nan=True
    )
    (ours_some,) = await client.datastore.experiments(rest_uid=uid, include_properties=["energy"], stringify_nan=True)

    assert [document.raw for document in await client.datastore.experiments(rest_uid=uid)] == [plain]
    assert (await client.run(uid).document()).raw == plain
    assert ours_some.raw == some
    assert ours_some.property_table == {"input-id": ["CCCC", "CCO", "NAN"], "energy": [-6.0, -4.5, "NaN"]}


async def test_documents_of_users_are_the_same(finished: Finished, client: Client) -> None:
    """``cdb_get_document_user_metadata`` and its variant by rest-uid."""
    for options in ({}, {"instance": finished.instances["demo"]}, {"query": {"campaign": "x"}}):
        theirs = await finished.ask("cdb_get_document_user_metadata", **options)
        ours = await client.datastore.user_metadata(**options)
        assert in_order([document.raw for document in ours]) == in_order(theirs)
        assert theirs

    for uid in finished.runs.values():
        theirs = await finished.ask("cdb_get_document_user_metadata_for_rest_uid", uid)
        assert [document.raw for document in await client.datastore.user_metadata(rest_uid=uid)] == [theirs]


COMPONENTS: list[dict[str, Any]] = [
    {},
    {"component": "Comp.*"},
    {"component": "stage0.Compute"},
    {"component": "stage1.Rep"},
    {"stage": 0},
    {"stage": 1, "component": "Report"},
    {"filename": r"b\.bin"},
    {"filename": "out.stdout"},
    {"query": {"producers": {"$ne": {}}}},
    {"query": {"component-state": "failed"}},
    {"component": "Ghost"},
]


@pytest.mark.parametrize(
    ("of_demo", "options"),
    sample([(of_demo, options) for options in COMPONENTS for of_demo in (True, False)], 8),
    ids=str,
)
async def test_documents_of_components_are_the_same(
    finished: Finished, client: Client, options: dict[str, Any], of_demo: bool
) -> None:
    """``cdb_get_document_component`` with each of its filters."""
    where: dict[str, Any] = {"instance": finished.instances["demo"]} if of_demo else {}

    theirs = await finished.ask("cdb_get_document_component", **where, **options)
    ours = await client.datastore.components(**where, **options)

    assert in_order([document.raw for document in ours]) == in_order(theirs)


@pytest.mark.parametrize("experiment", ["demo", "fail"])
async def test_single_files_are_the_same(finished: Finished, client: Client, experiment: str) -> None:
    """``cdb_get_file_from_instance_uri`` and `read_file` return logs, reports and all files of components."""
    instance = finished.instances[experiment]
    components = await client.run(finished.runs[experiment]).components()
    prefix = instance.removeprefix("file://example-cluster")
    paths = [path.removeprefix(f"{prefix}/") for component in components for path in component.files]

    for path in ["output/experiment.log", "output/status_details.json", *paths]:
        theirs = await finished.ask("cdb_get_file_from_instance_uri", instance, path)

        assert await client.read_file(instance, path) == theirs
        assert await client.read_file(finished.runs[experiment], f"{prefix}/{path}") == theirs
    assert len(paths) >= 2


FILES: list[dict[str, Any]] = [
    {"filename": ".*"},
    {"filename": ".*", "component": "Compute"},
    {"filename": ".*", "component": "stage1.Report"},
    {"filename": ".*", "stage": 1},
    {"filename": "(b.bin|energies.csv)"},
    {"component": "Report", "filename": r"\.json$"},
    {"filename": "out"},
]


@pytest.mark.parametrize("options", sample(FILES, 3), ids=str)
async def test_files_of_components_are_the_same(
    finished: Finished, client: Client, tmp_path: Path, options: dict[str, Any]
) -> None:
    """``cdb_get_components_raw_files``, which needs a file name, returns what `download_files` writes."""
    instance = finished.instances["demo"]
    theirs = await finished.ask("cdb_get_components_raw_files", instance=instance, **options)

    ours = await client.download_files(finished.runs["demo"], tmp_path, **options, strict=True)

    expected = {uri: content for uri, (_, content) in theirs.items()}
    assert contents(ours) == expected != {}
    assert tree(tmp_path) == {uri.partition(".instance/")[2]: content for uri, content in expected.items()}


@pytest.mark.parametrize(
    ("experiment", "stage", "name"), [("demo", 0, "Compute"), ("demo", 1, "Report"), ("fail", 0, "Boom")]
)
async def test_directories_of_components_are_the_same(
    finished: Finished, client: Client, tmp_path: Path, experiment: str, stage: int, name: str
) -> None:
    """``cdb_download_component_files`` and `download_component` extract the same files."""
    instance = finished.instances[experiment]
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    await finished.ask("cdb_download_component_files", instance, stage, name, str(theirs))

    ours = await client.download_component(finished.runs[experiment], stage, name, tmp_path / "ours", strict=True)

    assert tree(tmp_path / "ours") == tree(theirs) != {}
    assert len(contents(ours)) == len(tree(theirs))


async def test_key_outputs_are_the_same(finished: Finished, client: Client, tmp_path: Path) -> None:
    """``api_rest_uid_output_get``, `output` and `download_outputs` return the same; archives contain the same files."""
    uid = finished.runs["demo"]
    fetched = [await finished.ask("api_rest_uid_output_get", uid, name) for name in ("Energies", "Folder")]
    (file_name, file), (folder_name, folder) = fetched
    sub_name, sub = await finished.ask("api_rest_uid_output_get", uid, "Folder/sub/b.bin")

    energies, packed = await client.output(uid, "Energies"), await client.output(uid, "Folder")
    await client.download_outputs(uid, tmp_path / "ours", strict=True)
    await client.download_outputs(uid, tmp_path / "unpacked", unpack=True, strict=True)

    assert (energies.filename, energies.content) == (file_name, file)
    assert packed.filename == folder_name
    inside = await client.output(uid, "Folder", "sub/b.bin")
    assert (inside.filename, inside.content) == (sub_name, sub)
    assert tree(tmp_path / "ours").keys() == {f"Energies/{file_name}", f"Folder/{folder_name}"}
    assert tree(tmp_path / "ours")[f"Energies/{file_name}"] == file
    assert _members(tree(tmp_path / "ours")[f"Folder/{folder_name}"]) == _members(folder)
    unpacked = {f"Folder{name}": content for name, content in _members(folder).items()}
    assert tree(tmp_path / "unpacked") == {f"Energies/{file_name}": file, **unpacked}


async def test_missing_files_are_missing_for_both(finished: Finished, client: Client, tmp_path: Path) -> None:
    """The incumbent fails in various ways; our error says what is missing."""
    uid, instance = finished.runs["demo"], finished.instances["demo"]

    with pytest.raises(Exception, match=r"."):
        await finished.ask("api_rest_uid_output_get", uid, "Ghost")
    with pytest.raises(UnknownOutput):
        await client.output(uid, "Ghost")
    with pytest.raises(Exception, match=r"."):
        await finished.ask("cdb_download_component_files", instance, 0, "Ghost", str(tmp_path))
    with pytest.raises(NotFound):
        await client.download_component(uid, 0, "Ghost", tmp_path, strict=True)
    with pytest.raises(Exception, match=r"."):
        await finished.ask("cdb_get_file_from_instance_uri", instance, "output/ghost")
    with pytest.raises(NotFound):
        await client.read_file(uid, "output/ghost")


def _members(archive: bytes) -> dict[str, bytes]:
    """Return the files of a zip archive."""
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        return {name: opened.read(name) for name in opened.namelist()}
