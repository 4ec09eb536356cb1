"""Obstacles at both ends of a download: names of all kinds, invalid targets, a full disk."""

from __future__ import annotations

import gc
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from st4sd_async import Download, DownloadError
from st4sd_async.local import Reply
from tests.tries import combinations

from .gateways import MANIFEST, failed, files_in, leftovers, whole
from .scenes import COMPUTE, Scene

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

VERBS = ["files", "component", "outputs"]


async def test_many_folders_in_the_way(scene: Scene) -> None:
    """A file that cannot have its name fails, all others are downloaded, and none is requested again and again."""
    for number in range(100):
        scene.write(f"{number}.txt")
    blocked = {f"{COMPUTE}/{number}.txt" for number in range(0, 100, 10)}
    for name in blocked:
        (scene.target / name).mkdir(parents=True)

    outcomes = await scene.files()

    scene.check("files", outcomes)
    assert files_in(scene.target).keys() == scene.expected("files").keys() - blocked
    assert len(failed(outcomes)) == len(blocked)


async def test_names_of_all_kinds(scene: Scene) -> None:
    """Blanks, quotes, percents, other scripts, no content: all as they are. Only a line feed is refused."""
    names = ["a b", 'it\'s "q"', "100%.txt", "%2e%2e", "ä€😀.txt", "e\u0301", "#?&=+;", ".hidden", "-", "[x]*", "$(x)"]
    for name in names:
        scene.write(name, name.encode())
    scene.write("empty", b"")
    scene.write("two\nlines", b"x")

    outcomes = await scene.files()

    scene.check("files", outcomes)
    assert len(failed(outcomes)) == 1
    assert "control character" in str(failed(outcomes)[0])
    assert files_in(scene.target).keys() == scene.expected("files").keys() - {f"{COMPUTE}/two\nlines"}


async def test_names_that_differ_in_case(scene: Scene) -> None:
    """If the disk distinguishes them, both are downloaded."""
    for name in ("a.txt", "A.txt", "A.TXT"):
        scene.write(name, name.encode())

    whole(await scene.files())

    assert files_in(scene.target) == scene.expected("files")


WAYS = ["a file", "below a file", "a link to a file", "a dangling link", "the manifest is a folder"]


@pytest.mark.parametrize(("verb", "way"), combinations(VERBS, WAYS))
async def test_there_can_be_no_such_folder(scene: Scene, verb: str, way: str) -> None:
    """It is an error before anything is fetched, and leaves what was there as it was."""
    (scene.folder / "other").write_bytes(b"mine")
    if way == "a file":
        scene.target.write_bytes(b"mine")
    elif way == "below a file":
        scene.folder /= "other"
    elif way == "a link to a file":
        scene.target.symlink_to(scene.folder / "other")
    elif way == "a dangling link":
        scene.target.symlink_to(scene.folder / "none/none")
    else:
        (scene.target / MANIFEST).mkdir(parents=True)

    with pytest.raises(DownloadError):
        await getattr(scene, verb)()

    if way == "the manifest is a folder":
        assert os.listdir(scene.target) == [MANIFEST]  # noqa: PTH208 -- names are all there is to see
    gc.collect()


OBSTACLES = ["a file for a folder", "a folder", "a link to a folder", "a link to a file"]
"""In this order, a sample has no case of a component that has no folder."""


@pytest.mark.parametrize(("verb", "obstacle"), combinations(VERBS, OBSTACLES))
async def test_something_is_in_the_way(scene: Scene, verb: str, obstacle: str) -> None:
    """The download fails, what is there stays, nothing is written through a link."""
    outside = scene.folder.parent / "elsewhere"
    outside.mkdir()
    (outside / "file").write_bytes(b"mine")
    first = next(iter(scene.expected(verb)))
    place = scene.target / first
    if obstacle in ("a folder", "a link to a file"):
        place.parent.mkdir(parents=True)
        place.mkdir() if obstacle == "a folder" else place.symlink_to(outside / "file")
    else:
        scene.target.mkdir()
        top = scene.target / first.partition("/")[0]
        top.write_bytes(b"mine") if obstacle == "a file for a folder" else top.symlink_to(outside)
        if verb == "component" and "/" not in first:
            pytest.skip("it has no folder there")

    outcomes = await getattr(scene, verb)()

    assert failed(outcomes)
    assert all(isinstance(error, DownloadError) for error in failed(outcomes))
    assert {path.name: path.read_bytes() for path in outside.iterdir()} == {"file": b"mine"}
    assert leftovers(scene.target) == []


async def test_the_manifest_is_a_link(scene: Scene) -> None:
    """Nothing is written where it leads."""
    elsewhere = scene.folder.parent / "elsewhere"
    elsewhere.write_bytes(b"mine\n")
    scene.target.mkdir()
    (scene.target / MANIFEST).symlink_to(elsewhere)

    with suppress(DownloadError):
        await scene.files()

    assert elsewhere.read_bytes() == b"mine\n"


@pytest.mark.parametrize("name", [MANIFEST, ".st4sd-x.part/file", f"results/{MANIFEST}"])
async def test_a_component_has_left_files_of_our_names(scene: Scene, name: str) -> None:
    """A component that downloads something leaves a manifest, which does not replace that of the target."""
    source = scene.write(name, b'{"source": "x", "stamp": "", "files": []}\n', "stages/stage1/Report")

    outcomes = await scene.component()
    whole(await scene.files())

    place = scene.target / name
    if any(isinstance(one, Download) and one.path == place for one in outcomes):
        assert place.is_file()
        assert place.read_bytes() == source.read_bytes()


@contextmanager
def room(size: int) -> Iterator[None]:
    """No file may get larger."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("verb", ["files", "component"])
async def test_no_room(scene: Scene, verb: str) -> None:
    """The large file fails, the others are there; with room the same call completes."""
    scene.write("large.bin", os.urandom(200_000))
    scene.write("large.bin", os.urandom(200_000), "stages/stage1/Report")

    with room(100_000):
        outcomes = await getattr(scene, verb)()

    scene.check(verb, outcomes)
    assert len(failed(outcomes)) == 1
    assert isinstance(failed(outcomes)[0], DownloadError)
    if verb == "files":
        assert files_in(scene.target).keys() == scene.expected(verb).keys() - {f"{COMPUTE}/large.bin"}
    whole(await getattr(scene, verb)())
    assert files_in(scene.target) == scene.expected(verb)


async def test_key_outputs_whose_folders_would_be_the_same(scene: Scene) -> None:
    """None overwrites another: each that is said to be there is what it is."""
    entries = {
        name: {"creationtime": "1795341529.33", "version": "1", "final": "yes", "filepath": "x", "filename": "same.txt"}
        for name in ("a:b", "a?b")
    }
    body = str(entries).replace("'", '"').encode()
    scene.server.faults.add("GET /instances/*/outputs$", Reply(200, {"Content-Type": "application/json"}, body))
    scene.server.faults.add("GET /instances/*/outputs", Reply(200, {"Content-Type": "application/json"}, body))
    for content in (b"first", b"second"):
        lead = {"Content-Type": "application/octet-stream", "Content-Disposition": 'attachment; filename="same.txt"'}
        scene.server.faults.add("GET /instances/*/outputs/*", Reply(200, lead, content))

    whole(await scene.client.download_outputs(scene.run, scene.target))
