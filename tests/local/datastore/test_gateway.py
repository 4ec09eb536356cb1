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
from urllib.parse import quote

import httpx
import pytest

from st4sd_async.local import BadJson, CutBody, Delay, LocalServer
from st4sd_async.local.http.archives import zipped
from tests.local.helpers import start

SERVER_ERROR = (500, {"message": "Internal Server Error"})
MIB = 1024 * 1024


@pytest.fixture
def folder(server: LocalServer, web: httpx.Client, push: Any) -> Path:
    """Return the working directory of a component of a finished run, with two small files."""
    push()
    rest_uid = start(web)
    server.advance(100)
    directory = server.directory(rest_uid)
    assert directory is not None
    component = directory / "stages/stage1/Compute"
    (component / "sub/empty").mkdir(parents=True)
    (component / "sub/b.bin").write_bytes(bytes(range(256)))
    (component / "out.stderr").unlink()
    return component


@pytest.fixture
def gateway(server: LocalServer, web: httpx.Client) -> Iterator[httpx.Client]:
    """Return a client of the gateway."""
    with httpx.Client(base_url=f"{server.url}/ds-gateway", headers=web.headers, timeout=30, verify=False) as client:
        yield client


def uri(folder: Path) -> str:
    """Return the URI of the instance of a component's directory."""
    return f"file://example-cluster{folder.parents[2]}"


def parameters(folder: Path, **changes: Any) -> dict[str, Any]:
    """Return the query parameters for a component's directory."""
    return {"experiment": str(folder.parents[2]), "stage": 1, "component": "Compute", **changes}


def fetch(gateway: httpx.Client, folder: Path, *paths: Path | str) -> zipfile.ZipFile:
    """Return an archive of some files."""
    reply = gateway.post("/files/api/v1.1", json={uri(folder): [str(path) for path in paths]})
    assert reply.status_code == 200, reply.text
    return zipfile.ZipFile(io.BytesIO(reply.content))


def test_the_registry_contains_one_gateway(server: LocalServer, web: httpx.Client) -> None:
    """A list leaves out unknown ids; a request for an unknown one is an internal server error."""
    registry = f"{server.url}/ds-registry"
    entry = {"unique_id": "example-cluster", "host": f"{server.url}/ds-gateway", "label": "example-cluster"}

    many = web.post(f"{registry}/gateways/api/v1.0/unique_ids", json=["example-cluster", "ghost"])
    single = web.get(f"{registry}/gateway/api/v1.0/unique_id/example-cluster")
    ghost = web.get(f"{registry}/gateway/api/v1.0/unique_id/ghost")
    not_a_list = web.post(f"{registry}/gateways/api/v1.0/unique_ids", json=7)

    assert many.json() == {"example-cluster": entry}
    assert single.json() == entry
    assert (ghost.status_code, ghost.json()) == (not_a_list.status_code, not_a_list.json()) == SERVER_ERROR


def test_the_gateway_reports_whether_a_component_has_a_directory(gateway: httpx.Client, folder: Path) -> None:
    """The response is a string, or a plain false if the experiment is unknown."""
    answers = [
        gateway.get("/experiment/", params=parameters(folder, **changes)).text
        for changes in ({}, {"component": "Ghost"}, {"stage": 7}, {"component": "../../.."}, {"experiment": "/x"})
    ]
    broken = gateway.get("/experiment/", params={"experiment": "/x"})
    moved = gateway.get("/experiment", params=parameters(folder))

    assert answers == ['"True"\n', '"False"\n', '"False"\n', '"False"\n', "false\n"]
    assert (broken.status_code, broken.json()) == SERVER_ERROR
    assert moved.status_code == 308


def test_a_directory_is_downloaded_as_an_archive_of_the_service(gateway: httpx.Client, folder: Path) -> None:
    """Names begin with a slash, members have data descriptors, empty folders are left out, the length is unknown."""
    (folder / "late.txt").write_text("x")
    os.utime(folder / "late.txt", (0, 0))

    reply = gateway.get("/experiment/download", params=parameters(folder))

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
def test_a_failed_download_has_status_200(
    gateway: httpx.Client, folder: Path, changes: dict[str, str], text: str
) -> None:
    """Only the content type shows the failure."""
    reply = gateway.get("/experiment/download", params=parameters(folder, **changes))

    assert (reply.status_code, reply.headers["content-type"], reply.text) == (200, "application/json", text)


def test_files_have_the_requested_names(gateway: httpx.Client, folder: Path) -> None:
    """A missing slash is added; a file that is requested twice is sent twice."""
    twice = str(folder / "sub/b.bin")
    requested = [twice, f"{folder}/sub/../out.stdout", str(folder / "out.stdout")[1:], twice]

    archive = fetch(gateway, folder, *requested)

    assert archive.namelist() == [f"/{path.removeprefix('/')}" for path in requested]
    assert archive.read(archive.infolist()[0]) == bytes(range(256))
    assert archive.read(archive.infolist()[1]) == b"This is stage1.Compute\n"


def test_missing_files_and_files_of_others_are_left_out(gateway: httpx.Client, folder: Path) -> None:
    """There is no error; an archive may be empty."""
    instance = str(folder.parents[2])
    elsewhere = ["/etc/passwd", f"{folder}/../../../../../x", f"{instance}-other", instance]

    archive = fetch(gateway, folder, folder / "none", *elsewhere)
    unknown = gateway.post("/files/api/v1.1", json={"file://example-cluster/x": ["/etc/passwd"]})

    assert archive.namelist() == []
    assert unknown.content == b"PK\x05\x06" + bytes(18)


@pytest.mark.parametrize(
    "payload", [{"nope": []}, ["x"], {"file://example-cluster/x": 7}, {"file://example-cluster/x": [""]}, 7]
)
def test_malformed_requests_for_files_are_internal_server_errors(gateway: httpx.Client, payload: Any) -> None:
    """The URI of an instance must have a scheme, and its value must be a list."""
    reply = gateway.post("/files/api/v1.1", json=payload)

    assert (reply.status_code, reply.json()) == SERVER_ERROR


def test_a_response_contains_at_most_32_mib(gateway: httpx.Client, folder: Path) -> None:
    """Files that do not fit are left out, but smaller ones after them are not; a larger one is never sent."""
    sizes = {"a": 16 * MIB, "b": 16 * MIB + 1, "c": 16 * MIB - 3, "d": 4, "e": 3, "large": 32 * MIB + 1}
    for name, size in sizes.items():
        with (folder / name).open("wb") as file:
            file.truncate(size)

    names = [Path(name).name for name in fetch(gateway, folder, *(folder / name for name in "abcde")).namelist()]

    assert names == ["a", "c", "e"]
    assert fetch(gateway, folder, folder / "large").namelist() == []


def test_a_response_contains_at_most_1000_files(gateway: httpx.Client, folder: Path) -> None:
    """It contains the first 1000."""
    requested = [f"{folder}/sub/..{'/.' * (n % 9)}/out.stdout" for n in range(1001)]

    assert fetch(gateway, folder, *requested).namelist() == requested[:1000]


def test_files_outlive_their_run(server: LocalServer, web: httpx.Client, gateway: httpx.Client, folder: Path) -> None:
    """Files of a deleted instance are served; those of an instance that is not registered yet are not."""
    (item,) = web.get("/instances/").json()
    web.delete(f"/instances/{item['id']}")
    young = start(web)
    server.advance(5)
    directory = server.directory(young)
    assert directory is not None

    early = gateway.get("/experiment/", params=parameters(folder, experiment=str(directory)))

    assert fetch(gateway, folder, folder / "out.stdout").namelist() == [str(folder / "out.stdout")]
    assert early.text == "false\n"


def test_a_folder_requested_as_a_file_breaks_off_the_response(gateway: httpx.Client, folder: Path) -> None:
    """The service detects it after it has started to respond."""
    with pytest.raises(httpx.RemoteProtocolError):
        fetch(gateway, folder, folder / "out.stdout", folder / "sub")


def test_large_archives_are_streamed(server: LocalServer, gateway: httpx.Client, folder: Path) -> None:
    """The first bytes are sent before the last file is read, and nothing after the client has disconnected."""
    for n in range(4):
        (folder / f"large{n}").write_bytes(os.urandom(4 * MIB))
    kind, before = "GET /ds-gateway/experiment/download", -1

    with gateway.stream("GET", "/experiment/download", params=parameters(folder)) as reply:
        first = next(reply.iter_raw())
    limit = time.monotonic() + 5
    while (sent := server.traffic[kind].sent) != before:
        assert time.monotonic() < limit
        before = sent
        time.sleep(0.05)

    assert first.startswith(b"PK\x03\x04")
    assert 0 < sent < 12 * MIB


def test_streamed_bytes_are_counted(server: LocalServer, gateway: httpx.Client, folder: Path) -> None:
    """The traffic contains all bytes of the body and the time to create them; HEAD sends none."""
    (folder / "large").write_bytes(os.urandom(MIB))

    reply = gateway.get("/experiment/download", params=parameters(folder))
    head = gateway.head("/experiment/download", params=parameters(folder))

    cost = server.traffic["GET /ds-gateway/experiment/download"]
    assert cost.sent == len(reply.content) > MIB
    assert cost.seconds > 0.001
    assert head.headers["content-type"] == "application/zip"
    assert server.traffic["HEAD /ds-gateway/experiment/download"].sent == 0


@pytest.mark.slow
def test_streams_can_be_faulty(server: LocalServer, gateway: httpx.Client, folder: Path) -> None:
    """A stream is cut after some bytes, or replaced by the first half of the archive in a complete response."""
    (folder / "large").write_bytes(os.urandom(MIB))
    whole = gateway.get("/experiment/download", params=parameters(folder)).content
    for fault in (CutBody(700_000), BadJson(), Delay(0)):
        server.faults.add("GET /ds-gateway/experiment/download", fault)
    received = b""

    with (
        contextlib.suppress(httpx.RemoteProtocolError),
        gateway.stream("GET", "/experiment/download", params=parameters(folder)) as reply,
    ):
        for piece in reply.iter_raw():
            received += piece
        raise AssertionError("the body did not break off")
    half = gateway.get("/experiment/download", params=parameters(folder))
    delayed = gateway.get("/experiment/download", params=parameters(folder))

    assert received == whole[:700_000]
    assert half.content == whole[: len(whole) // 2]
    assert delayed.content == whole


def test_a_missing_member_is_an_error_of_the_stream(tmp_path: Path) -> None:
    """It is raised after the members before it were sent."""
    (tmp_path / "a").write_bytes(b"a")
    stream = zipped([("/a", tmp_path / "a"), ("/b", tmp_path / "b")])

    assert next(stream).startswith(b"PK\x03\x04")
    with pytest.raises(FileNotFoundError):
        next(stream)


def single(gateway: httpx.Client, experiment: str, path: Path | str) -> httpx.Response:
    """Request one file as text."""
    location = quote(str(path).removeprefix("/"), safe="")
    return gateway.get(f"/file/api/v1.0/{quote(experiment, safe='')}/location/{location}")


def test_a_single_file_is_sent_as_a_json_string(gateway: httpx.Client, folder: Path) -> None:
    """Line ends are those of Python's text files."""
    (folder / "a b.txt").write_bytes("é\r\nz".encode())

    reply = single(gateway, uri(folder), folder / "a b.txt")

    assert (reply.status_code, reply.json()) == (200, "é\nz")


def test_failures_of_a_single_file_are_internal_server_errors(gateway: httpx.Client, folder: Path) -> None:
    """Also for a file that is too large, which the gateway means to cut, and for one that is not text."""
    with (folder / "large").open("wb") as file:
        file.truncate(32 * MIB + 1)

    replies = [
        single(gateway, uri(folder), folder / "none.txt"),
        single(gateway, uri(folder), folder / "sub"),
        single(gateway, uri(folder), folder / "sub/b.bin"),
        single(gateway, uri(folder), folder / "large"),
        single(gateway, uri(folder), "/etc/hosts"),
        single(gateway, uri(folder), f"{folder}/../../../../etc/hosts"),
        single(gateway, "file://example-cluster/nope", folder / "out.stdout"),
    ]

    assert [(reply.status_code, reply.json()) for reply in replies] == [SERVER_ERROR] * len(replies)


def test_an_absolute_location_is_redirected(server: LocalServer, gateway: httpx.Client, folder: Path) -> None:
    """Its slash meets the one before it, and the router merges them, also those of the scheme."""
    experiment, location = quote(uri(folder), safe=""), quote(f"{folder}/out.stdout", safe="")

    reply = gateway.get(f"/file/api/v1.0/{experiment}/location/{location}")

    merged = f"file:/example-cluster{folder.parents[2]}/location{folder}/out.stdout"
    assert (reply.status_code, reply.headers["location"]) == (308, f"{server.url}/ds-gateway/file/api/v1.0/{merged}")


def test_an_instance_can_be_registered(server: LocalServer, web: httpx.Client, push: Any) -> None:
    """Its files are served from then on, before the datastore has its documents; asking for it always fails."""
    push()
    rest_uid = start(web)
    server.advance(2)
    directory = server.directory(rest_uid)
    assert directory is not None
    path = f"/ds-gateway/experiment/api/v1.0/location/{quote(f'file://example-cluster{directory}', safe='')}"
    question: dict[str, str | int] = {"experiment": str(directory), "stage": 0, "component": "Compute"}

    before = web.get(f"{server.url}/ds-gateway/experiment/", params=question)
    registered = web.post(f"{server.url}{path}")
    after = web.get(f"{server.url}/ds-gateway/experiment/", params=question)
    asked = web.get(f"{server.url}{path}")

    assert (before.json(), after.json()) == (False, "True")
    assert (registered.status_code, registered.json()) == (200, {"result": True, "error": None})
    assert (asked.status_code, asked.json()) == SERVER_ERROR


def test_only_instances_of_this_gateway_can_be_registered(gateway: httpx.Client) -> None:
    """The response says why not; a location must be a URI."""
    unknown = gateway.post(
        f"/experiment/api/v1.0/location/{quote('file://example-cluster/tmp/none.instance', safe='')}"
    )
    path = gateway.post("/experiment/api/v1.0/location/tmp/none.instance")

    assert unknown.status_code == 200
    assert unknown.json()["result"] is False
    assert "/tmp/none.instance" in unknown.json()["error"]
    assert (path.status_code, path.json()) == SERVER_ERROR


def test_another_gateway_can_be_registered(server: LocalServer, web: httpx.Client) -> None:
    """The registry knows its address then."""
    registry, host = f"{server.url}/ds-registry", "https://st4sd.example/ds-gateway"
    unique_id = f"{registry}/gateway/api/v1.0/unique_id/other"

    reply = web.post(f"{unique_id}/host/{quote(host, safe='')}/label/Other")

    assert (reply.status_code, reply.json()) == (200, "")
    entry = {"unique_id": "other", "host": host, "label": "Other"}
    assert web.get(unique_id).json() == entry
    both = web.post(f"{registry}/gateways/api/v1.0/unique_ids", json=["other", "example-cluster"]).json()
    assert (list(both), both["other"]) == (["other", "example-cluster"], entry)
