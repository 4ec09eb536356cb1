"""The registry of gateways, and the gateway that serves the files of instances."""

from __future__ import annotations

import contextlib
import io
import os
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from st4sd_async.local import BadJson, CutBody, Delay, LocalServer
from st4sd_async.local.http.archives import zipped
from tests.local.helpers import start

BROKEN = (500, {"message": "Internal Server Error"})
MIB = 1024 * 1024


@pytest.fixture
def folder(server: LocalServer, web: httpx.Client, push: Any) -> Path:
    """The working directory of a component of a run that is over: two small files, one of which is in a folder."""
    push()
    rest_uid = start(web)
    server.advance(100)
    directory = server.directory(rest_uid)
    assert directory is not None
    made = directory / "stages/stage1/Compute"
    (made / "sub/empty").mkdir(parents=True)
    (made / "sub/b.bin").write_bytes(bytes(range(256)))
    (made / "out.stderr").unlink()
    return made


@pytest.fixture
def gateway(server: LocalServer, web: httpx.Client) -> Iterator[httpx.Client]:
    """A client of the gateway."""
    with httpx.Client(base_url=f"{server.url}/ds-gateway", headers=web.headers, timeout=30) as client:
        yield client


def uri(folder: Path) -> str:
    """What documents call the instance of a component's directory."""
    return f"file://example-cluster{folder.parents[2]}"


def place(folder: Path, **changes: Any) -> dict[str, Any]:
    """The query that names a component's directory."""
    return {"experiment": str(folder.parents[2]), "stage": 1, "component": "Compute", **changes}


def fetch(gateway: httpx.Client, folder: Path, *paths: Path | str) -> zipfile.ZipFile:
    """The archive of some files."""
    reply = gateway.post("/files/api/v1.1", json={uri(folder): [str(path) for path in paths]})
    assert reply.status_code == 200, reply.text
    return zipfile.ZipFile(io.BytesIO(reply.content))


def test_the_registry_knows_one_gateway(server: LocalServer, web: httpx.Client) -> None:
    """Unknown ids are left out of a list, and break the service alone."""
    registry = f"{server.url}/ds-registry"
    entry = {"unique_id": "example-cluster", "host": f"{server.url}/ds-gateway", "label": "example-cluster"}

    many = web.post(f"{registry}/gateways/api/v1.0/unique_ids", json=["example-cluster", "ghost"])
    one = web.get(f"{registry}/gateway/api/v1.0/unique_id/example-cluster")
    ghost = web.get(f"{registry}/gateway/api/v1.0/unique_id/ghost")
    no_list = web.post(f"{registry}/gateways/api/v1.0/unique_ids", json=7)

    assert many.json() == {"example-cluster": entry}
    assert one.json() == entry
    assert (ghost.status_code, ghost.json()) == (no_list.status_code, no_list.json()) == BROKEN


def test_a_gateway_tells_whether_a_component_has_a_directory(gateway: httpx.Client, folder: Path) -> None:
    """It answers with texts, or with a bare false about an experiment that it does not know."""
    answers = [
        gateway.get("/experiment/", params=place(folder, **changes)).text
        for changes in ({}, {"component": "Ghost"}, {"stage": 7}, {"component": "../../.."}, {"experiment": "/x"})
    ]
    broken = gateway.get("/experiment/", params={"experiment": "/x"})
    moved = gateway.get("/experiment", params=place(folder))

    assert answers == ['"True"\n', '"False"\n', '"False"\n', '"False"\n', "false\n"]
    assert (broken.status_code, broken.json()) == BROKEN
    assert moved.status_code == 308


def test_a_directory_is_downloaded_as_the_service_packs_it(gateway: httpx.Client, folder: Path) -> None:
    """Names begin with a slash, members have data descriptors, empty folders are lost, nobody knows the length."""
    (folder / "late.txt").write_text("x")
    os.utime(folder / "late.txt", (0, 0))

    reply = gateway.get("/experiment/download", params=place(folder))

    assert reply.headers["content-type"] == "application/zip"
    assert reply.headers["content-disposition"] == "attachment; filename=files.zip"
    assert reply.headers["transfer-encoding"] == "chunked"
    assert "content-length" not in reply.headers
    members = zipfile.ZipFile(io.BytesIO(reply.content)).infolist()
    assert [member.filename for member in members] == ["/late.txt", "/out.stdout", "/sub/b.bin"]
    assert {member.compress_type for member in members} == {zipfile.ZIP_DEFLATED}
    assert all(member.flag_bits & 8 and member.extract_version == 45 for member in members)
    assert members[0].date_time[0] == 1980


@pytest.mark.parametrize(
    ("changes", "text"),
    [({"component": "Ghost"}, '""\n'), ({"component": "/etc"}, '""\n'), ({"experiment": "/x"}, "false\n")],
)
def test_what_cannot_be_downloaded_is_a_success(
    gateway: httpx.Client, folder: Path, changes: dict[str, str], text: str
) -> None:
    """Only the type of the content tells."""
    reply = gateway.get("/experiment/download", params=place(folder, **changes))

    assert (reply.status_code, reply.headers["content-type"], reply.text) == (200, "application/json", text)


def test_files_come_under_the_names_they_were_asked_for(gateway: httpx.Client, folder: Path) -> None:
    """A missing slash is added, what is asked for twice comes twice."""
    twice = str(folder / "sub/b.bin")
    asked = [twice, f"{folder}/sub/../out.stdout", str(folder / "out.stdout")[1:], twice]

    archive = fetch(gateway, folder, *asked)

    assert archive.namelist() == [f"/{path.removeprefix('/')}" for path in asked]
    assert archive.read(archive.infolist()[0]) == bytes(range(256))
    assert archive.read(archive.infolist()[1]) == b"This is stage1.Compute\n"


def test_what_is_missing_or_elsewhere_is_left_out(gateway: httpx.Client, folder: Path) -> None:
    """Nothing tells; an archive may be empty."""
    instance = str(folder.parents[2])
    elsewhere = ["/etc/passwd", f"{folder}/../../../../../x", f"{instance}-other", instance]

    archive = fetch(gateway, folder, folder / "none", *elsewhere)
    unknown = gateway.post("/files/api/v1.1", json={"file://example-cluster/x": ["/etc/passwd"]})

    assert archive.namelist() == []
    assert unknown.content == b"PK\x05\x06" + bytes(18)


@pytest.mark.parametrize("payload", [{"nope": []}, ["x"], {"file://example-cluster/x": 7}, 7])
def test_requests_for_files_that_name_no_instance_break_the_service(gateway: httpx.Client, payload: Any) -> None:
    """The address of an instance begins with a scheme, its value is a list."""
    reply = gateway.post("/files/api/v1.1", json=payload)

    assert (reply.status_code, reply.json()) == BROKEN


def test_no_more_than_32_mib_come_at_once(gateway: httpx.Client, folder: Path) -> None:
    """What does not fit is left out, a smaller one behind it is not; one that is larger alone never comes."""
    sizes = {"a": 16 * MIB, "b": 16 * MIB + 1, "c": 16 * MIB - 3, "d": 4, "e": 3, "large": 32 * MIB + 1}
    for name, size in sizes.items():
        with (folder / name).open("wb") as file:
            file.truncate(size)

    names = [Path(name).name for name in fetch(gateway, folder, *(folder / name for name in "abcde")).namelist()]

    assert names == ["a", "c", "e"]
    assert fetch(gateway, folder, folder / "large").namelist() == []


def test_no_more_than_1000_files_come_at_once(gateway: httpx.Client, folder: Path) -> None:
    """The first thousand do."""
    asked = [f"{folder}/sub/..{'/.' * (n % 9)}/out.stdout" for n in range(1001)]

    assert fetch(gateway, folder, *asked).namelist() == asked[:1000]


def test_files_outlive_their_run(server: LocalServer, web: httpx.Client, gateway: httpx.Client, folder: Path) -> None:
    """Deleting an instance deletes none of its files; one that is not registered yet has none."""
    (item,) = web.get("/instances/").json()
    web.delete(f"/instances/{item['id']}")
    young = start(web)
    server.advance(5)
    directory = server.directory(young)
    assert directory is not None

    early = gateway.get("/experiment/", params=place(folder, experiment=str(directory)))

    assert fetch(gateway, folder, folder / "out.stdout").namelist() == [str(folder / "out.stdout")]
    assert early.text == "false\n"


def test_a_folder_that_is_asked_for_as_a_file_breaks_the_answer(gateway: httpx.Client, folder: Path) -> None:
    """The service finds out after it has begun to answer."""
    with pytest.raises(httpx.RemoteProtocolError):
        fetch(gateway, folder, folder / "out.stdout", folder / "sub")


def test_large_answers_are_sent_while_they_are_made(server: LocalServer, gateway: httpx.Client, folder: Path) -> None:
    """The first bytes come long before the last file is read, and who has gone is sent nothing more."""
    for n in range(4):
        (folder / f"large{n}").write_bytes(os.urandom(4 * MIB))
    kind, before = "GET /ds-gateway/experiment/download", -1

    with gateway.stream("GET", "/experiment/download", params=place(folder)) as reply:
        first = next(reply.iter_raw())
    limit = time.monotonic() + 5
    while (sent := server.traffic[kind].sent) != before:
        assert time.monotonic() < limit
        before = sent
        time.sleep(0.05)

    assert first.startswith(b"PK\x03\x04")
    assert 0 < sent < 12 * MIB


def test_what_is_streamed_is_counted(server: LocalServer, gateway: httpx.Client, folder: Path) -> None:
    """All bytes of the body are, and the time that making them took; a request without a body gets none."""
    (folder / "large").write_bytes(os.urandom(MIB))

    reply = gateway.get("/experiment/download", params=place(folder))
    head = gateway.head("/experiment/download", params=place(folder))

    cost = server.traffic["GET /ds-gateway/experiment/download"]
    assert cost.sent == len(reply.content) > MIB
    assert cost.seconds > 0.001
    assert head.headers["content-type"] == "application/zip"
    assert server.traffic["HEAD /ds-gateway/experiment/download"].sent == 0


def test_streams_can_be_faulty(server: LocalServer, gateway: httpx.Client, folder: Path) -> None:
    """A stream is cut where it is told to, or is the first half of an archive in a whole answer."""
    (folder / "large").write_bytes(os.urandom(MIB))
    whole = gateway.get("/experiment/download", params=place(folder)).content
    for fault in (CutBody(700_000), BadJson(), Delay(0)):
        server.faults.add("GET /ds-gateway/experiment/download", fault)
    received = b""

    with (
        contextlib.suppress(httpx.RemoteProtocolError),
        gateway.stream("GET", "/experiment/download", params=place(folder)) as reply,
    ):
        for piece in reply.iter_raw():
            received += piece
        raise AssertionError("the body did not break off")
    half = gateway.get("/experiment/download", params=place(folder))
    delayed = gateway.get("/experiment/download", params=place(folder))

    assert received == whole[:700_000]
    assert half.content == whole[: len(whole) // 2]
    assert delayed.content == whole


def test_a_member_that_goes_away_is_an_error(tmp_path: Path) -> None:
    """Whoever reads the stream learns of it after what was made before."""
    (tmp_path / "a").write_bytes(b"a")
    stream = zipped([("/a", tmp_path / "a"), ("/b", tmp_path / "b")])

    assert next(stream).startswith(b"PK\x03\x04")
    with pytest.raises(FileNotFoundError):
        next(stream)
