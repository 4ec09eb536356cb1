"""A target that other users of the machine can write to: what they put there cannot hang or redirect a download."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from st4sd_async import DownloadError
from st4sd_async._results.target import DownloadTarget
from st4sd_async._util import file_lock
from tests.tries import combinations

from .gateways import MANIFEST, failed, files_in, leftovers, whole
from .scenes import Scene

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(30), pytest.mark.slow]  # opening a FIFO may wait for ever

VERBS = ["files", "component", "outputs"]


def link_to(path: Path, elsewhere: Path) -> None:
    """A link to a file with a line of a manifest in it."""
    elsewhere.write_bytes(b'[["x", ""], []]\n')
    path.symlink_to(elsewhere)


OTHERS: dict[str, Callable[[Path, Path], object]] = {
    "named pipe": lambda path, _: os.mkfifo(path),
    "symbolic link": link_to,
    "folder": lambda path, _: path.mkdir(),
    "device": lambda path, _: path.symlink_to("/dev/zero"),
}


@pytest.mark.parametrize(("verb", "kind"), combinations(VERBS, OTHERS))
async def test_a_manifest_that_is_no_file_is_refused_at_once(scene: Scene, verb: str, kind: str) -> None:
    """The error names it; nothing is read from it, written to it or left behind."""
    elsewhere = scene.folder.parent / "elsewhere"
    scene.target.mkdir()
    OTHERS[kind](scene.target / MANIFEST, elsewhere)

    with pytest.raises(DownloadError, match=f"'{MANIFEST}' is in the target already, as a"):
        await getattr(scene, verb)()

    assert files_in(scene.target) == {}
    assert leftovers(scene.target) == []
    if elsewhere.exists():
        assert elsewhere.read_bytes() == b'[["x", ""], []]\n'


async def test_a_manifest_with_another_name_elsewhere_is_not_written_to(scene: Scene) -> None:
    """A hard link to a file of the user: the target gets a manifest of its own, with the same lines."""
    other = scene.folder.parent / "elsewhere"
    whole(await scene.component())
    (scene.target / MANIFEST).rename(other)
    os.link(other, scene.target / MANIFEST)
    before = other.read_bytes()

    whole(await scene.files())

    assert other.read_bytes() == before
    assert before in (scene.target / MANIFEST).read_bytes()
    assert (scene.target / MANIFEST).stat().st_nlink == 1


@pytest.mark.parametrize("verb", VERBS)
async def test_names_of_our_own_that_are_taken_are_no_hindrance(scene: Scene, verb: str) -> None:
    """Pipes, links, files and folders with many levels that are named like folders for what is not whole."""
    elsewhere = scene.folder.parent / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "file").write_bytes(b"mine")
    scene.target.mkdir()
    os.mkfifo(scene.target / ".st4sd-pipe.part")
    (scene.target / ".st4sd-link.part").symlink_to(elsewhere)
    (scene.target / ".st4sd-file.part").write_bytes(b"1")
    (scene.target / ".st4sd-device.part").symlink_to("/dev/zero")
    (scene.target / ".st4sd-folder.part").mkdir()
    (scene.target / ".st4sd-folder.part/link").symlink_to(elsewhere)
    os.mkfifo(scene.target / ".st4sd-folder.part/0")
    deep = scene.target / ".st4sd-folder.part"
    for _ in range(300):
        deep /= "x"
        deep.mkdir()

    found = whole(await getattr(scene, verb)())

    assert {one.path.relative_to(scene.target).as_posix() for one in found} == set(scene.expected(verb))
    assert (elsewhere / "file").read_bytes() == b"mine"
    assert not (scene.target / ".st4sd-folder.part").exists()
    with suppress(FileNotFoundError):
        assert (scene.target / ".st4sd-link.part").is_symlink()


@pytest.mark.parametrize(("verb", "kind"), combinations(VERBS, ["pipe", "device"]))
async def test_a_pipe_or_a_device_under_the_name_of_a_file(scene: Scene, verb: str, kind: str) -> None:
    """It is a failure of that file, nothing is written into it, and the others are there."""
    first = next(iter(scene.expected(verb)))
    place = scene.target / first
    place.parent.mkdir(parents=True)
    os.mkfifo(place) if kind == "pipe" else place.symlink_to("/dev/null")

    outcomes = await getattr(scene, verb)()

    assert failed(outcomes)
    for error in failed(outcomes):
        assert isinstance(error, DownloadError)
        assert f"{first!r} is in the target already" in str(error)
    assert leftovers(scene.target) == []


@pytest.mark.parametrize("verb", VERBS)
async def test_a_target_that_is_a_pipe(scene: Scene, verb: str) -> None:
    """It is a clear error at once."""
    os.mkfifo(scene.target)

    with pytest.raises(DownloadError, match="cannot be stored"):
        await getattr(scene, verb)()


HOLDER = """
import fcntl, os, sys
for name in sys.argv[1:]:
    fcntl.flock(os.open(name, os.O_RDONLY), fcntl.LOCK_EX)
print(flush=True)
sys.stdin.read()
"""


@contextmanager
def locked(*folders: Path) -> Iterator[None]:
    """Another process holds locks on folders."""
    command = [sys.executable, "-c", HOLDER, *map(str, folders)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        yield
        process.stdin.close()


async def test_a_lock_that_another_process_holds_is_not_waited_for(scene: Scene) -> None:
    """On a folder that is named like ours, or on the target itself."""
    scene.target.mkdir()
    (held := scene.target / ".st4sd-held.part").mkdir()
    with locked(held, scene.target):
        whole(await scene.files())

    assert leftovers(scene.target) == [held]


class NoLocks:
    """The module `fcntl` on a file system without locks."""

    LOCK_EX, LOCK_NB = fcntl.LOCK_EX, fcntl.LOCK_NB

    def __init__(self, number: int) -> None:
        self.number = number

    def flock(self, descriptor: int, operation: int) -> None:
        raise OSError(self.number, os.strerror(self.number))


@pytest.mark.parametrize(("verb", "name"), combinations(VERBS, ["ENOSYS", "ENOLCK", "EOPNOTSUPP", "EBADF"]))
async def test_downloads_work_without_file_locks(
    scene: Scene, verb: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was left behind is not known then, so it stays. Only the file system's answer is replaced here."""
    scene.target.mkdir()
    (left := scene.target / ".st4sd-left.part").mkdir()
    monkeypatch.setattr(file_lock, "fcntl", NoLocks(getattr(errno, name)))

    whole(await getattr(scene, verb)())

    assert files_in(scene.target) == scene.expected(verb)
    assert leftovers(scene.target) == [left]


def test_a_folder_that_others_remove_at_once_is_an_error_in_the_end(tmp_path: Path) -> None:
    """A process that takes all of them for left behind does not keep a download busy for ever."""
    stop, ready = tmp_path / "stop", tmp_path / "ready"
    target = tmp_path / "target"
    target.mkdir()
    hostile = f"""
import os, pathlib
target = pathlib.Path({str(target)!r})
pathlib.Path({str(ready)!r}).touch()
while not os.path.exists({str(stop)!r}):
    for name in os.listdir(target):
        try: os.rmdir(target / name)
        except OSError: pass
"""
    with subprocess.Popen([sys.executable, "-c", hostile]) as process:
        try:
            while not ready.exists():
                time.sleep(0.01)
            for _ in range(20):
                with suppress(OSError), DownloadTarget(target) as opened, opened.create_file() as file:
                    file.write([b"1"])
        finally:
            stop.touch()
            process.wait()
