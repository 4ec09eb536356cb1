"""What the real servers do about results (FACTS.md, rows 9 to 11 and 30 to 37), and what users of the client see."""

from __future__ import annotations

import io
import json
import math
import os
import zipfile
from pathlib import Path
from typing import Any

import pytest

from st4sd_async import (
    Client,
    Download,
    DownloadError,
    DownloadFailed,
    NotFound,
    NotReady,
    ServerError,
    Unauthorized,
    UnknownOutput,
    UnknownProperty,
)
from st4sd_async.local import CutBody, Html, LocalServer, Reply
from tests.conftest import ServersClock
from tests.results.demo_runs import (
    ARCHIVE,
    COMPUTE,
    FILES,
    JSON,
    MIB,
    OUTPUT,
    REPORT,
    described,
    directory,
    finished,
    start,
)
from tests.tries import sample, tries

pytestmark = [pytest.mark.anyio, pytest.mark.slow]


def files_below(target: Path) -> list[Path]:
    """What is in a folder."""
    return [path for path in target.rglob("*") if path.is_file()]


def contents(outcomes: list[Download | DownloadFailed], target: Path) -> dict[str, bytes]:
    """What was fetched, below the folder."""
    for one in outcomes:
        assert isinstance(one, Download), one
    return {str(one.path.relative_to(target)): one.path.read_bytes() for one in outcomes}


async def test_09_properties_that_are_not_there_say_whether_they_may_come(client: Client, server: LocalServer) -> None:
    """FACTS [9]: 500 without a status, 400 without meta and while it runs, 404 when it is over without any."""
    run = await start(client, server)
    with pytest.raises(ServerError):
        await client.instances.properties(run.id)
    for seconds in (0, 0.5, 2):  # no status, no meta, running
        await server.advance(seconds)
        with pytest.raises(NotReady):
            await run.properties()
    await server.advance(100)
    assert len(await run.properties()) == 3

    toy = await described(client, server)
    with pytest.raises(NotFound) as error:
        await toy.properties()
    assert not isinstance(error.value, UnknownProperty)
    assert (await client.instances.get(toy.id)).id == toy.id  # without includeProperties it stays there


async def test_10_missing_numbers_are_nan(client: Client, server: LocalServer) -> None:
    """FACTS [10]: bare NaN, ``input-id`` in front, rows sorted by it, unknown columns silently dropped."""
    run = await finished(client, server)

    plain = await client.instances.properties(run.id)
    texts = await client.instances.properties(run.id, stringify_nan=True)
    some = await client.instances.properties(run.id, include_properties=["Energy", "ghost"])
    (document,) = await client.datastore.experiments(rest_uid=run.id, include_properties=["Energy", "ghost"])
    table = await run.properties(["Energy"])

    assert plain["input-id"] == sorted(plain["input-id"]) == ["CCCC", "CCO", "NAN"]
    assert math.isnan(plain["energy"][2])
    assert texts["energy"] == [-6.0, -4.5, "NaN"]
    assert document.property_table is not None
    assert sorted(some) == sorted(document.property_table) == ["energy", "input-id"]
    assert table.columns == ("input-id", "energy")
    with pytest.raises(UnknownProperty) as error:
        await run.properties(["energy", "Ghost"])
    assert error.value.names == ("ghost",)


async def test_11_outputs_that_are_not_there_say_whether_they_may_come(
    client: Client, server: LocalServer, tmp_path: Path
) -> None:
    """FACTS [11]: ``{}`` and 404 look the same at any time; values are texts, and others in documents."""
    run = await start(client, server)
    advice: list[str | None] = []
    for seconds in (0, 3, 97):
        await server.advance(seconds)
        with pytest.raises(UnknownOutput) as error:
            await run.output("Ghost")
        (failed,) = await run.download_outputs(tmp_path, ["Ghost"])
        assert isinstance(failed, DownloadFailed)
        assert isinstance(failed.error, UnknownOutput)
        advice += [failed.error.advice, error.value.advice] if seconds else []

    assert ["will be no others" in str(one) for one in advice] == [False, False, True, True]
    output, document = (await run.outputs())["Energies"], await run.document()
    assert (output.version, output.final, output.filename) == (1, True, "energies.csv")
    assert output.created is not None
    assert document.outputs["Energies"].version == 1
    assert document.outputs["Energies"].created == output.created
    assert document.status.stages == ["stage0", "stage1"]


async def test_30_nothing_is_continued_in_the_middle(client: Client, server: LocalServer, tmp_path: Path) -> None:
    """FACTS [30]: outputs have a length and no Range, the gateway has neither; what breaks off comes anew."""
    noise = os.urandom(MIB)
    run = await described(client, server, Energies=noise)
    before = [server.traffic[kind].requests for kind in (OUTPUT, ARCHIVE)]
    server.faults.add("GET /instances/*/outputs/Energies", CutBody(MIB // 2))
    server.faults.add(ARCHIVE, CutBody(MIB // 2))

    output = await run.download_outputs(tmp_path / "a")
    component = await run.download_component(1, "Compute", tmp_path / "b")

    assert contents(output, tmp_path / "a") == {"Energies/Energies": noise}
    assert contents(component, tmp_path / "b")["Energies"] == noise
    assert [server.traffic[kind].requests for kind in (OUTPUT, ARCHIVE)] == [number + 2 for number in before]

    server.faults.add("GET /instances/*/outputs/Energies", Html(504), times=None)
    (failed,) = await run.download_outputs(tmp_path / "c")
    assert isinstance(failed, DownloadFailed)
    assert isinstance(failed.error, ServerError)
    assert "download_component(run, 1, 'Compute', to)" in str(failed.error.advice)


@pytest.mark.parametrize("name", sample(['say "x".csv', "two words", "ümläut.csv", "100%25", "a;filename=b.csv"], 3))
async def test_31_names_that_the_service_does_not_escape(
    client: Client, server: LocalServer, tmp_path: Path, name: str
) -> None:
    """FACTS [31]: quotes and UTF-8 come as they are; a file has its name, without what no file may have."""
    run = await described(client, server, **{name: b"1"})

    assert (await run.output(name)).filename == name
    (path,) = contents(await run.download_outputs(tmp_path), tmp_path)

    folder, _, file = path.partition("/")
    assert file == name.replace('"', "_")
    assert folder.startswith(file)


async def test_31_a_folder_is_distinguished_from_an_archive(
    client: Client, server: LocalServer, tmp_path: Path
) -> None:
    """FACTS [31]: ``application/zip`` is a folder, ``application/.zip`` is a file that is an archive."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("inside", "1")
    outputs: dict[str, Any] = {"Folder": {"a": b"1"}, "File.zip": buffer.getvalue()}
    run = await described(client, server, **outputs)

    packed = contents(await run.download_outputs(tmp_path / "a"), tmp_path / "a")
    unpacked = contents(await run.download_outputs(tmp_path / "b", unpack=True), tmp_path / "b")

    assert list(packed) == ["Folder/Folder.zip", "File.zip/File.zip"]
    assert unpacked == {"Folder/a": b"1", "File.zip/File.zip": buffer.getvalue()}


async def test_32_archives_of_the_servers_are_unpacked(client: Client, server: LocalServer, tmp_path: Path) -> None:
    """FACTS [32]: names with a slash in front, zip64 with descriptors, lost folders; sub-paths, no way out of them."""
    run = await finished(client, server)
    (directory(server, run) / REPORT / "results" / "empty").mkdir()

    folder = await run.output("Folder")
    found = contents(await run.download_outputs(tmp_path, "Folder", unpack=True), tmp_path)

    with zipfile.ZipFile(io.BytesIO(folder.content)) as archive:
        assert archive.namelist() == ["/sub/b.bin", "/summary.json"]
        assert all(one.flag_bits & 8 and one.extract_version == 45 for one in archive.infolist())
    assert list(found) == ["Folder/sub/b.bin", "Folder/summary.json"]
    assert not (tmp_path / "Folder" / "empty").exists()
    assert (await run.output("Folder", "sub/b.bin")).content == bytes(range(256))
    for path in ("../x", "sub/../../x", "..", "/etc/passwd"):
        with pytest.raises(ValueError, match="must be relative"):
            await run.output("Folder", path)


async def test_33_words_in_place_of_an_archive_are_failures(
    client: Client, server: LocalServer, tmp_path: Path
) -> None:
    """FACTS [33]: 200 ``""`` and 200 ``false`` are no archives; ``"True"``, ``"False"`` and false are flags."""
    run = await finished(client, server)
    instance = (await run.document()).instance
    ghost = "file://example-cluster/ghost.instance"

    (component,) = await run.download_component(0, "Ghost", tmp_path)
    (unknown,) = await client.download_component(ghost, 0, "Compute", tmp_path)

    assert isinstance(component, DownloadFailed)
    assert isinstance(unknown, DownloadFailed)
    assert isinstance(component.error, NotFound)
    assert isinstance(unknown.error, NotFound)
    assert "there is no directory of component stage0.Ghost" in str(component.error)
    assert "does not know the instance" in str(unknown.error)
    asked = [(instance, "Compute"), (instance, "Ghost"), (ghost, "Compute")]
    assert [await client.gateways.has_component(one, 0, name) for one, name in asked] == [True, False, False]
    assert files_below(tmp_path) == []


async def test_34_what_is_left_out_in_silence_is_asked_for_again(
    client: Client, server: LocalServer, tmp_path: Path
) -> None:
    """FACTS [34]: 32 MiB come at once, so that 8 files of 16 MiB take 4 requests; they may not be more than a few."""
    count = tries(8, 4)
    run = await finished(client, server)
    for number in range(count):
        path = directory(server, run) / COMPUTE / f"large{number}"
        path.touch()
        os.truncate(path, 16 * MIB)
    files, archives = server.traffic[FILES].requests, server.traffic[ARCHIVE].requests

    found = await run.download_files(tmp_path, filename="large")

    assert [one.size for one in found if isinstance(one, Download)] == [16 * MIB] * count
    assert count // 2 <= server.traffic[FILES].requests - files <= count
    assert server.traffic[ARCHIVE].requests == archives


async def test_34_a_thousand_files_come_at_once(client: Client, server: LocalServer, tmp_path: Path) -> None:
    """FACTS [34]: 1,000 files in a request, so that 1,100 take a few, and 200 no more than there are streams."""
    run = await finished(client, server)
    for number in range(1100):
        (directory(server, run) / COMPUTE / f"f{number}").touch()
    before = server.traffic[FILES].requests

    found = await run.download_files(tmp_path / "a", filename=r"^f\d+$")
    requests = server.traffic[FILES].requests
    some = await run.download_files(tmp_path / "b", filename=r"^f1?\d\d$")

    assert len(contents(found, tmp_path / "a")) == 1100
    assert 2 <= requests - before <= 6
    assert len(contents(some, tmp_path / "b")) == 190
    assert server.traffic[FILES].requests - requests <= 4


async def test_34_files_that_are_always_left_out_come_another_way_or_fail(
    client: Client, server: LocalServer, tmp_path: Path
) -> None:
    """FACTS [34]: a file over 32 MiB, one that is missing, and an archive of nothing, which is 200 too."""
    run = await finished(client, server)
    path = directory(server, run) / REPORT / "large"
    path.touch()
    os.truncate(path, 32 * MIB + 1)

    (large,) = await run.download_files(tmp_path, filename="large")

    assert isinstance(large, Download)
    assert large.size == 32 * MIB + 1
    with pytest.raises(DownloadError, match="larger than the 32 MiB"):
        await run.read_file(f"{REPORT}/large")
    with pytest.raises(NotFound):
        await run.read_file(f"{REPORT}/ghost")


async def test_35_unknown_gateways_are_named(client: Client, server: LocalServer) -> None:
    """FACTS [35]: they are missing in the answer for many; for one alone the registry breaks, so it is never asked."""
    before = len(server.requests)

    with pytest.raises(NotFound, match=r"\['ghost', 'other'\]"):
        await client.gateways.resolve(["ghost", "example-cluster", "other"])

    paths = [path for _, path in server.requests[before:] if path.startswith("/ds-registry")]
    assert paths == ["/ds-registry/gateways/api/v1.0/unique_ids"]


async def test_36_no_token_is_requested(client: Client, server: LocalServer, tmp_path: Path) -> None:
    """FACTS [36]: its page is 500 with a bearer; it is for people, whom the error of a refusal sends there."""
    before = len(server.requests)
    run = await finished(client, server)
    await run.download_files(tmp_path)
    server.renew()

    with pytest.raises(Unauthorized) as error:
        await run.read_file("output/experiment.log")

    assert error.value.token_page == f"{server.url}/authorisation/token"
    assert [path for _, path in server.requests[before:] if "token" in path] == []


async def test_37_services_are_behind_the_deployments_own_door(server: LocalServer) -> None:
    """FACTS [37]: the map of services says https and has no slashes; they are reached as the deployment is."""
    names = {"cdb-rest": "ds-mongodb-proxy", "cdb-gateway-registry": "ds-registry"}
    urls = {name: f"https://127.0.0.1/{path}" for name, path in names.items()}
    server.faults.add("GET /url-map/", Reply(200, JSON, json.dumps(urls).encode()))
    async with Client(server.url, api_key=server.api_key) as client:
        found = await client.gateways.resolve(["example-cluster"])
        documents = await client.datastore.experiments(rest_uid="demo-abcdefgh")

    assert (found, documents) == ({"example-cluster": f"{server.url}/ds-gateway/"}, [])


async def test_37_documents_that_are_late_are_waited_for(
    client: Client, server: LocalServer, clock: ServersClock, tmp_path: Path
) -> None:
    """FACTS [37]: 10 to 20 s after a run is over, its files are known; until then it is not reported to have none."""
    run = await start(client, server)
    await server.advance(6)
    assert (await run.status()).is_final
    assert await client.datastore.experiments(rest_uid=run.id) == []

    found = await run.download_files(tmp_path)

    assert len(contents(found, tmp_path)) == 8
    assert 4 <= sum(clock.slept) <= 20
