"""Files get their names when they are whole; what a dead process left behind is removed, what a living one does not."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from st4sd_async._results.directory import Directory
from st4sd_async._results.target import CompleteFile, Destination, DownloadTarget, TemporaryFile
from tests.tries import tries

pytestmark = pytest.mark.slow

WORKER = """
import sys
from pathlib import Path
from st4sd_async._results.target import CompleteFile, Destination, DownloadTarget, TemporaryFile

with DownloadTarget(Path(sys.argv[1])) as opened:
    opened.create_file().write([b"half"])
    print(flush=True)
    sys.stdin.read()
"""
"""Works in a folder until its input ends."""


@contextmanager
def working(target: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that works in a folder."""
    command = [sys.executable, "-c", WORKER, str(target)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "\n"
        try:
            yield process
        finally:
            process.kill()


def complete_file(opened: DownloadTarget, path: str, content: bytes = b"abc") -> CompleteFile:
    """A whole file that has no name yet."""
    with opened.create_file() as writer:
        writer.write([content])
        return writer.finish(Destination(path))


def temporary_folders(target: Path) -> list[str]:
    """What is not whole in a folder."""
    return sorted(path.name for path in target.glob(".st4sd-*.part"))


def tree(target: Path) -> dict[str, bytes]:
    """All files below a folder, hidden ones too."""
    return {str(path.relative_to(target)): path.read_bytes() for path in sorted(target.rglob("*")) if path.is_file()}


def test_it_is_made_and_removed_with_all_that_is_in_it(tmp_path: Path) -> None:
    """The target stays; it is made with the folders above it."""
    target = tmp_path / "a" / "b"

    with DownloadTarget(target) as opened:
        with opened.create_file() as first, opened.create_file() as second:
            first.write([b"half"])
            second.write([b"other"])
        (folder,) = temporary_folders(target)
        assert tree(target / folder) == {"0": b"half", "1": b"other"}

    assert list(target.iterdir()) == []


def test_it_is_removed_after_an_error_too(tmp_path: Path) -> None:
    """The error passes."""

    def fail() -> None:
        with DownloadTarget(tmp_path) as opened:
            opened.create_file().write([b"half"])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()

    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_is_removed_by_the_next(tmp_path: Path) -> None:
    """Not at once, of course; and nothing else is removed."""
    (tmp_path / "results.part").write_bytes(b"mine")
    (tmp_path / ".st4sd-notes").mkdir()
    with working(tmp_path) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert [content for path, content in tree(tmp_path).items() if path.startswith(".st4sd-")] == [b"half"]

    left = temporary_folders(tmp_path)
    with DownloadTarget(tmp_path):
        assert len(temporary_folders(tmp_path)) == 1
        assert temporary_folders(tmp_path) != left

    assert temporary_folders(tmp_path) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == [".st4sd-notes", "results.part"]


def test_what_a_living_process_is_at_is_left_alone(tmp_path: Path) -> None:
    """However often others come and go; it removes it itself."""
    with working(tmp_path) as process:
        (name,) = temporary_folders(tmp_path)

        for _ in range(3):
            with DownloadTarget(tmp_path):
                assert name in temporary_folders(tmp_path)
        assert tree(tmp_path) == {f"{name}/0": b"half"}

        process.communicate("")
        assert process.returncode == 0
    assert temporary_folders(tmp_path) == []


def test_living_and_dead_processes_are_distinguished(tmp_path: Path) -> None:
    """In the same folder at the same time."""
    with working(tmp_path) as living:
        (name,) = temporary_folders(tmp_path)
        with working(tmp_path) as dead:
            dead.send_signal(signal.SIGKILL)
            dead.wait()
        assert len(temporary_folders(tmp_path)) == 2

        with DownloadTarget(tmp_path):
            assert len(temporary_folders(tmp_path)) == 2
            assert name in temporary_folders(tmp_path)

        living.communicate("")
    assert temporary_folders(tmp_path) == []


def test_threads_do_not_remove_each_other(tmp_path: Path) -> None:
    """Many come, work and go in one folder, and all of them get their files to their names."""
    failures: list[BaseException] = []
    ready = threading.Barrier(8)

    def work(who: int) -> None:
        try:
            ready.wait()
            for number in range(25):
                with DownloadTarget(tmp_path) as opened:
                    opened.rename([complete_file(opened, f"{who}/{number}", b"%d" % number)])
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=[who]) for who in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert failures == []
    assert tree(tmp_path) == {f"{who}/{number}": b"%d" % number for who in range(8) for number in range(25)}


def test_a_link_that_looks_left_behind_leads_nowhere(tmp_path: Path) -> None:
    """What it points at is not removed, and neither is a file of such a name."""
    target, precious = tmp_path / "target", tmp_path / "precious"
    target.mkdir()
    precious.mkdir()
    (precious / "data").write_bytes(b"1")
    (target / ".st4sd-link.part").symlink_to(precious)
    (target / ".st4sd-file.part").write_bytes(b"2")
    (target / ".st4sd-dangling.part").symlink_to(tmp_path / "nowhere")

    with DownloadTarget(target):
        pass

    assert tree(precious) == {"data": b"1"}
    assert (target / ".st4sd-file.part").read_bytes() == b"2"


def test_a_target_that_is_a_file_is_an_error(tmp_path: Path) -> None:
    """And the file is still there."""
    (tmp_path / "file").write_bytes(b"1")

    with pytest.raises(FileExistsError):
        DownloadTarget(tmp_path / "file").__enter__()

    assert tree(tmp_path) == {"file": b"1"}


def test_a_complete_file_has_size_and_checksum(tmp_path: Path) -> None:
    """Of what came after the last beginning."""
    with Directory.open(str(tmp_path)) as folder, TemporaryFile(folder, "0") as writer:
        writer.write([b"something that was cut", b" short"])
        writer.restart()
        assert writer.size == 0
        writer.write([b"a", b"", b"bc"])
        whole = writer.finish(Destination("x", "there"))

    digest = hashlib.sha256(b"abc").hexdigest()
    assert whole == CompleteFile(Destination("x", "there"), "0", 3, digest, (tmp_path / "0").stat().st_mtime_ns)
    assert (tmp_path / "0").read_bytes() == b"abc"


def test_a_temporary_file_does_not_replace_a_file(tmp_path: Path) -> None:
    """It would belong to someone else."""
    (tmp_path / "0").write_bytes(b"1")

    with Directory.open(str(tmp_path)) as folder, pytest.raises(FileExistsError):
        TemporaryFile(folder, "0")


def test_files_get_their_names_and_folders(tmp_path: Path) -> None:
    """In place of files of the same names; folders without files are made too."""
    (tmp_path / "a").write_bytes(b"old")

    with DownloadTarget(tmp_path) as opened:
        large = bytes(1 << 20)
        opened.rename(
            [
                complete_file(opened, "a", b"new"),
                complete_file(opened, "b/c/d"),
                complete_file(opened, "b/large", large),
            ],
            ["e", "e/f"],
        )

    assert tree(tmp_path) == {"a": b"new", "b/c/d": b"abc", "b/large": large}
    assert (tmp_path / "e/f").is_dir()


def made(folder: Path) -> Path:
    """The folder, which is there now."""
    folder.mkdir()
    return folder


OBSTACLES: dict[str, Callable[[Path], object]] = {
    "a folder where a file belongs": lambda target: (target / "x/y").mkdir(parents=True),
    "a file where a folder belongs": lambda target: (target / "x").write_bytes(b"1"),
    "a link to a folder": lambda target: (target / "x").symlink_to(target.parent),
    "a link to a file": lambda target: made(target / "x").joinpath("y").symlink_to(target.parent / "other"),
    "a link to nothing": lambda target: made(target / "x").joinpath("y").symlink_to("nowhere"),
    "a pipe": lambda target: os.mkfifo(made(target / "x") / "y"),
}


@pytest.mark.parametrize("make", OBSTACLES.values(), ids=list(OBSTACLES))
def test_if_something_is_in_the_way_nothing_is_moved(tmp_path: Path, make: Callable[[Path], object]) -> None:
    """Neither that file nor another one, and nothing is written through a link."""
    target, other = tmp_path / "target", tmp_path / "other"
    target.mkdir()
    other.write_bytes(b"precious")
    make(target)

    with DownloadTarget(target) as opened, pytest.raises(FileExistsError, match="in the target already"):
        opened.rename([complete_file(opened, "first"), complete_file(opened, "x/y")])

    assert not (target / "first").exists()
    assert other.read_bytes() == b"precious"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "target"]


NAMES = st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=8)


@pytest.mark.timeout(60)
@settings(max_examples=tries(50, 20), deadline=None)
@given(st.dictionaries(NAMES.filter(lambda name: name not in (".", "..")), st.binary(max_size=20), max_size=8))
def test_any_names_will_do(contents: dict[str, bytes]) -> None:
    """Spaces, quotes, newlines and signs of all scripts."""
    with TemporaryDirectory() as folder:
        with DownloadTarget(Path(folder)) as opened:
            opened.rename([complete_file(opened, f"sub/{name}", content) for name, content in contents.items()])

        assert tree(Path(folder)) == {f"sub/{name}": content for name, content in contents.items()}
