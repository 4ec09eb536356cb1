"""Key-outputs through sockets: what the docstring of `download_outputs` promises, sentence by sentence."""

from __future__ import annotations

import io
import json
import unicodedata
import zipfile
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from st4sd_async import Client, DownloadFailed, ServerError, UnknownOutput, UnknownRun
from st4sd_async.local import Html, LocalServer, Reply
from tests.results.demo_runs import (
    DEMO,
    JSON,
    MANIFEST,
    OUTPUT,
    count_requests,
    described,
    directory,
    failures,
    finished,
    listed,
    names,
    running,
    tree,
    whole,
)

pytestmark = [pytest.mark.anyio, pytest.mark.slow]


async def test_outputs_are_in_folders_of_their_names(client: Client, server: LocalServer, tmp_path: Path) -> None:
    """A file as it is, a folder as its archive, each with size, checksum and source."""
    run = await finished(client, server)
    source = directory(server, run)

    found = await run.download_outputs(tmp_path)

    assert names(found, tmp_path) == ["Energies/energies.csv", "Folder/results.zip"]
    assert [one.source for one in found] == [f"{run.id}/outputs/Energies", f"{run.id}/outputs/Folder"]
    assert (tmp_path / "Energies/energies.csv").read_bytes() == (source / DEMO[0]).read_bytes()
    with zipfile.ZipFile(tmp_path / "Folder/results.zip") as archive:
        assert archive.namelist() == ["/sub/b.bin", "/summary.json"]
    assert listed(tmp_path) == [MANIFEST, "Energies", "Folder"]


async def test_folders_are_unpacked_on_request(client: Client, server: LocalServer, tmp_path: Path) -> None:
    """Each of their files is returned; a file that is an archive stays one."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("inside", "1")
    outputs: dict[str, Any] = {"Folder": {"sub/b": b"1", "c": b"2"}, "results.zip": buffer.getvalue()}
    run = await described(client, server, **outputs)

    found = await run.download_outputs(tmp_path, unpack=True)

    assert tree(tmp_path) == {"Folder/sub/b": b"1", "Folder/c": b"2", "results.zip/results.zip": buffer.getvalue()}
    assert sorted(names(found, tmp_path)) == sorted(tree(tmp_path))
    assert {one.source for one in found} == {
        f"{run.id}/outputs/{path}" for path in ("Folder/sub/b", "Folder/c", "results.zip")
    }


async def test_outputs_come_in_the_order_given(client: Client, server: LocalServer, tmp_path: Path) -> None:
    """One, some, none, all; one that is named twice comes once."""
    run = await described(client, server, a=b"1", b=b"2", c=b"3", **{"d e.txt": b"4"})

    async def fetched(wanted: Any) -> list[str]:
        return [one.path.parent.name for one in whole(await run.download_outputs(tmp_path, wanted))]

    assert await fetched(["c", "a"]) == ["c", "a"]
    assert await fetched(iter(["b", "b", "a"])) == ["b", "a"]
    assert await fetched("c") == ["c"]
    assert await fetched([]) == []
    assert await fetched(None) == ["a", "b", "c", "d e.txt"]


async def test_an_unknown_output_does_not_hide_the_others(client: Client, server: LocalServer, tmp_path: Path) -> None:
    """It is in its place; with ``strict`` it is raised when all others are there."""
    run = await finished(client, server)

    found = await run.download_outputs(tmp_path / "a", ["Ghost", "Energies"])
    with pytest.raises(UnknownOutput):
        await run.download_outputs(tmp_path / "b", ["Ghost", "Energies"], strict=True)

    failed = found[0]
    assert isinstance(failed, DownloadFailed)
    assert (failed.path, failed.source) == (tmp_path / "a" / "Ghost", f"{run.id}/outputs/Ghost")
    assert isinstance(failed.error, UnknownOutput)
    assert (failed.error.name, failed.error.known) == ("Ghost", ("Energies", "Folder"))
    assert "will be no others" in str(failed.error.advice)
    assert list(tree(tmp_path / "a")) == list(tree(tmp_path / "b")) == ["Energies/energies.csv"]


async def test_there_may_be_no_outputs_yet(client: Client, server: LocalServer, tmp_path: Path) -> None:
    """None is what there is by now; one that is named may come."""
    run = await running(client, server)

    assert await run.download_outputs(tmp_path) == []
    (failed,) = failures(await run.download_outputs(tmp_path, "Energies"))
    assert isinstance(failed.error, UnknownOutput)
    assert "may appear" in str(failed.error.advice)
    with pytest.raises(UnknownRun):
        await client.download_outputs("ghost-abcdefgh", tmp_path)


async def test_a_warning_says_that_there_may_be_more(
    client: Client, server: LocalServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Of a run that goes on, if all were asked for; whether or not there are some, and the status may be missing."""
    run = await running(client, server)
    await run.download_outputs(tmp_path)
    await run.download_outputs(tmp_path, ["Energies"])
    server.faults.add("GET /instances/*/status", Reply(400), times=1)
    await run.download_outputs(tmp_path)
    over = await finished(client, server)
    await over.download_outputs(tmp_path / "over")

    told = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert [text.split(" is not over")[0] for text in told] == [f"run {run.id!r}"]
    assert "and may get more; wait for its end and call again" in told[0]


@pytest.mark.parametrize("unpack", [False, True])
async def test_outputs_that_are_there_are_not_fetched_again(
    client: Client, server: LocalServer, tmp_path: Path, unpack: bool
) -> None:
    """Changed or removed ones are."""
    run = await finished(client, server)
    first = await run.download_outputs(tmp_path, unpack=unpack)
    assert await count_requests(server, OUTPUT, run.download_outputs(tmp_path, unpack=unpack)) == 0
    assert await run.download_outputs(tmp_path, unpack=unpack) == first

    first[-1].path.unlink()

    assert await count_requests(server, OUTPUT, run.download_outputs(tmp_path, unpack=unpack)) == 1
    assert len(whole(first)) == len(first)


async def test_a_newer_version_is_fetched(client: Client, server: LocalServer, tmp_path: Path) -> None:
    """A version has another number or another time; an output of the same version is not fetched."""
    run = await described(client, server, a=b"old", b=b"same")
    await run.download_outputs(tmp_path)
    (directory(server, run) / "stages/stage1/Compute/a").write_bytes(b"new")
    entries = {
        name: {"filename": name, "filepath": f"stages/stage1/Compute/{name}", "final": "no", **times}
        for name, output in (await run.outputs()).items()
        if output.created
        for times in [{"creationtime": str(output.created.timestamp()), "version": "1"}]
    }

    for change in ({"version": "2"}, {"creationtime": str(datetime(2031, 1, 1, tzinfo=UTC).timestamp())}):
        entries["a"] |= change
        server.faults.add("GET /instances/*/outputs$", Reply(200, JSON, json.dumps(entries).encode()), times=2)

        assert await count_requests(server, OUTPUT, run.download_outputs(tmp_path)) == 1
        assert await count_requests(server, OUTPUT, run.download_outputs(tmp_path)) == 0

    assert tree(tmp_path) == {"a/a": b"new", "b/b": b"same"}


async def test_of_an_older_version_nothing_is_left(client: Client, server: LocalServer, tmp_path: Path) -> None:
    """Except files that the user has changed."""
    run = await described(client, server, Folder={"same": b"1", "gone": b"2", "mine": b"3", "sub/gone": b"4"})
    await run.download_outputs(tmp_path, unpack=True)
    (tmp_path / "Folder" / "mine").write_bytes(b"changed")
    for name in ("gone", "mine", "sub/gone"):
        (directory(server, run) / "stages/stage1/Compute/Folder" / name).unlink()
    entries = {"Folder": {"filename": "Folder", "filepath": "stages/stage1/Compute/Folder", "version": "2"}}
    server.faults.add("GET /instances/*/outputs$", Reply(200, JSON, json.dumps(entries).encode()))

    found = await run.download_outputs(tmp_path, unpack=True)

    assert names(found, tmp_path) == ["Folder/same"]
    assert tree(tmp_path) == {"Folder/same": b"1", "Folder/mine": b"changed"}


async def test_an_output_without_a_version_is_always_fetched(
    client: Client, server: LocalServer, tmp_path: Path
) -> None:
    """It is unknown whether it is the same."""
    run = await described(client, server, a=b"1")
    server.faults.add("GET /instances/*/outputs$", Reply(200, JSON, b'{"a": {"filename": "a"}}'), times=2)

    for _ in range(2):
        assert await count_requests(server, OUTPUT, run.download_outputs(tmp_path)) == 1


async def test_an_output_that_the_service_cannot_give_is_elsewhere(
    client: Client, server: LocalServer, tmp_path: Path
) -> None:
    """The error for one of gigabytes says how to get it; the others are downloaded."""
    run = await finished(client, server)
    server.faults.add("GET /instances/*/outputs/Folder", Html(504), times=None)

    found = await run.download_outputs(tmp_path)

    (failed,) = failures(found)
    assert isinstance(failed.error, ServerError)
    assert failed.error.advice == "download_component(run, 1, 'Report', to) has it too, from another service"
    assert list(tree(tmp_path)) == ["Energies/energies.csv"]


async def test_outputs_of_similar_names_do_not_share_a_folder(
    client: Client, server: LocalServer, tmp_path: Path
) -> None:
    """None is silently replaced by another."""
    run = await described(client, server, **{"a:b": b"first", "a_b": b"second"})

    found = await run.download_outputs(tmp_path)

    assert sorted(one.path.read_bytes() for one in whole(found)) == [b"first", b"second"]


async def test_an_output_that_cannot_be_asked_for_does_not_hide_the_others(
    client: Client, server: LocalServer, tmp_path: Path
) -> None:
    """Whatever names the service lists, all errors are ours, each in its place."""
    run = await described(client, server, a=b"1")
    server.faults.add("GET /instances/*/outputs$", Reply(200, JSON, b'{"x/y": {}, "..": {}, "a": {}}'))

    found = await run.download_outputs(tmp_path)

    assert len(failures(found)) == 2
    assert tree(tmp_path) == {"a/a": b"1"}


async def test_packed_and_unpacked_outputs_are_known_beside_each_other(
    client: Client, server: LocalServer, tmp_path: Path
) -> None:
    """Both are there, so neither is fetched again."""
    run = await finished(client, server)
    for unpack in (False, True):
        await run.download_outputs(tmp_path, unpack=unpack)

    assert await count_requests(server, OUTPUT, run.download_outputs(tmp_path, unpack=False)) == 0


LIKE_A_REPLACEMENT = {f"a_b-{sha256(b'a:b').hexdigest()[:8]}": b"2", f"a_b~{sha256(b'a:b').hexdigest()[:12]}": b"3"}
"""Names that look as if they had been made of ``a:b``."""


@pytest.mark.parametrize(
    "outputs",
    [
        {"a:b": b"1", "a_b": b"4", **LIKE_A_REPLACEMENT},
        {"Energies": b"1", "energies": b"2", "ENERGIES": b"3"},
        {"\u00e9": b"1", "e\u0301": b"2"},
        {"漢" * 83: b"1", "漢" * 82: b"2"},
    ],
    ids=["replacements", "case", "Unicode forms", "long"],
)
async def test_each_output_has_a_folder_of_its_own_on_every_disk(
    client: Client, server: LocalServer, tmp_path: Path, outputs: dict[str, Any]
) -> None:
    """Also on one that is blind to case, and whatever a name looks like; asked for alone it has the same."""
    run = await described(client, server, **outputs)

    found = whole(await run.download_outputs(tmp_path))

    assert [one.path.read_bytes() for one in found] == list(outputs.values())
    folders = [one.path.relative_to(tmp_path).parts[0] for one in found]
    assert len({unicodedata.normalize("NFD", one.casefold()) for one in folders}) == len(outputs)
    for name, one in zip(outputs, found, strict=True):
        assert await run.download_outputs(tmp_path, name) == [one]


ANY_NAMES = {
    "300 bytes": "漢" * 100,
    "255 letters": "x" * 255,
    "line feed": "a\nWARNING forged",
    "escape": "a\x1b[2Jb",
    "bidirectional": "a\u202eb",
    "C1": "a\x85b",
    "ours": ".st4sd-x",
}


async def test_an_output_of_any_name_can_be_stored(client: Client, server: LocalServer, tmp_path: Path) -> None:
    """Its folder has a name that every disk takes and every terminal shows."""
    lead = {"Content-Type": "application/octet-stream", "Content-Disposition": 'attachment; filename="x"'}
    server.faults.add(OUTPUT, Reply(200, lead, b"content"), times=None)
    run = await finished(client, server)

    for number, (what, name) in enumerate(ANY_NAMES.items()):
        entries = {name: {"filename": f"{name}.csv", "filepath": "stages/stage1/Compute/x", "version": "1"}}
        server.faults.add("GET /instances/*/outputs$", Reply(200, JSON, json.dumps(entries).encode()))
        target = tmp_path / f"{number}"

        (found,) = whole(await run.download_outputs(target))

        assert found.path.read_bytes() == b"content", what
        assert str(found.path.relative_to(target)).isprintable(), what


async def test_a_name_of_an_output_forges_no_line_of_the_log(
    client: Client, server: LocalServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The warning about files that are replaced, by those of another run, is one line."""
    entries = {"a\nWARNING forged": {"filename": "x", "filepath": "x", "version": "1"}}
    lead = {"Content-Type": "application/octet-stream", "Content-Disposition": 'attachment; filename="x"'}
    server.faults.add("GET /instances/*/outputs$", Reply(200, JSON, json.dumps(entries).encode()), times=None)
    server.faults.add(OUTPUT, Reply(200, lead, b"content"), times=None)

    for run in (await finished(client, server), await finished(client, server)):
        whole(await run.download_outputs(tmp_path))

    (record,) = [one for one in caplog.records if "are replaced" in one.getMessage()]
    assert record.getMessage().isprintable()
