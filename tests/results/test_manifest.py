"""What a folder remembers of what was downloaded into it, whatever happened to its file or to the folder."""

from __future__ import annotations

import os
import shutil
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from st4sd_async._results.directory import Directory
from st4sd_async._results.manifest import NAME, Kept, Ledger, Origin
from st4sd_async._results.workspace import Part, Place, Workspace

GATEWAY = "file://cluster/workdir/demo.instance"
DIGEST = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
"""Of ``abc``."""


def opened(folder: Path) -> Ledger:
    """The ledger of a folder, which is closed with it."""
    directory = Directory.open(str(folder))
    ledger = Ledger(directory)
    weakref.finalize(ledger, directory.close)
    return ledger


def arrive(folder: Path, ledger: Ledger, origin: Origin, *paths: str, content: bytes = b"abc") -> None:
    """Let files come from somewhere, as a download does."""
    with Workspace(folder) as space:
        parts = []
        for path in paths:
            with space.new() as writer:
                writer.write([content])
                parts.append(writer.finish(Place(path, f"{GATEWAY}/{path}")))
        ledger.note([(origin, parts)])
        space.place(parts)


def origin(name: str, stamp: str = "") -> Origin:
    """Where something comes from."""
    return Origin(f"{GATEWAY}/{name}", stamp)


def known(folder: Path, asked: Origin) -> list[str]:
    """The paths that a later process knows to be there."""
    return [kept.path for kept in opened(folder).complete([asked])[0]]


def test_files_that_came_are_known_to_this_and_later_processes(tmp_path: Path) -> None:
    """With their sizes, sources and checksums; an empty or missing ledger knows nothing."""
    here = opened(tmp_path)
    assert here.complete([origin("a/b.txt")]) == [[]]

    arrive(tmp_path, here, origin("a"), "a/b.txt", "a/ü 1.txt")

    modified = (tmp_path / "a/b.txt").stat().st_mtime_ns
    ((first, second),) = opened(tmp_path).complete([origin("a")])
    assert here.complete([origin("a")]) == [[first, second]]
    assert first == Kept("a/b.txt", f"{GATEWAY}/a/b.txt", 3, DIGEST, modified)
    assert second.path == "a/ü 1.txt"
    assert (tmp_path / NAME).read_text("utf-8").count("\n") == 2


def test_the_source_and_the_stamp_must_be_the_same(tmp_path: Path) -> None:
    """Another version, another way to store it, another run: it is fetched again."""
    arrive(tmp_path, opened(tmp_path), origin("a", "version 1"), "a")

    assert known(tmp_path, origin("a", "version 1")) == ["a"]
    assert known(tmp_path, origin("a", "version 2")) == known(tmp_path, origin("a")) == []
    assert known(tmp_path, Origin("file://cluster/workdir/other.instance/a", "version 1")) == []


def _other_content(path: Path) -> None:
    path.write_bytes(b"xyz")
    os.utime(path, ns=(0, 7))


CHANGES: dict[str, Callable[[Path], object]] = {
    "removed": lambda path: path.unlink(),
    "longer": lambda path: path.write_bytes(b"abcd"),
    "shorter": lambda path: os.truncate(path, 2),
    "another content of the same length": _other_content,
    "touched": lambda path: os.utime(path, ns=(0, 7)),
    "a link to the same": lambda path: path.symlink_to(path.rename(f"{path}.away")),
    "a folder": lambda path: path.rename(f"{path}.away").parent.joinpath(path.name).mkdir(),
    "its folder is gone": lambda path: shutil.rmtree(path.parent),
    "its folder is a file": lambda path: path.parent.rename(f"{path.parent}.away").with_name("sub").touch(),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=list(CHANGES))
def test_what_is_not_as_it_was_is_not_there(tmp_path: Path, change: Callable[[Path], object]) -> None:
    """All that came together with a changed file is fetched again, other things are not."""
    ledger = opened(tmp_path)
    arrive(tmp_path, ledger, origin("two"), "sub/a", "b")
    arrive(tmp_path, ledger, origin("one"), "c")

    change(tmp_path / "sub/a")

    assert ledger.complete([origin("two")]) == [[]]
    assert known(tmp_path, origin("two")) == []
    assert known(tmp_path, origin("one")) == ["c"]


def test_what_was_noted_and_got_no_name_is_not_there(tmp_path: Path) -> None:
    """Whoever was killed in between fetches it again."""
    with Workspace(tmp_path) as space:
        with space.new() as writer:
            part = writer.finish(Place("a", f"{GATEWAY}/a"))
        opened(tmp_path).note([(origin("a"), [part])])

    assert known(tmp_path, origin("a")) == []


def test_the_last_word_counts(tmp_path: Path) -> None:
    """A later download of the same is known, also by another stamp."""
    ledger = opened(tmp_path)
    for stamp, path in (("1", "a"), ("2", "b"), ("3", "c")):
        arrive(tmp_path, ledger, origin("x", stamp), path)

    assert known(tmp_path, origin("x", "3")) == ["c"]
    assert known(tmp_path, origin("x", "1")) == []


def test_a_file_that_another_run_replaced_is_not_that_of_the_first(tmp_path: Path) -> None:
    """Even if it has the same length, and both were written within one tick of the file system's clock."""
    ledger, theirs = opened(tmp_path), Origin("file://cluster/workdir/other.instance/a")
    arrive(tmp_path, ledger, origin("a"), "a")
    modified = (tmp_path / "a").stat().st_mtime_ns
    with Workspace(tmp_path) as space:
        with space.new() as writer:
            writer.write([b"xyz"])
            part = writer.finish(Place("a", theirs.source))
        part = part._replace(modified=modified)
        ledger.note([(theirs, [part])])
        space.place([part])
    os.utime(tmp_path / "a", ns=(modified, modified))

    assert known(tmp_path, theirs) == ["a"]
    assert known(tmp_path, origin("a")) == []
    assert ledger.complete([origin("a")]) == [[]]


@pytest.mark.timeout(60)
@settings(max_examples=60, deadline=None)
@given(cut=st.integers(0, 10_000), junk=st.binary(max_size=40))
def test_a_torn_tail_hides_only_what_was_torn(cut: int, junk: bytes) -> None:
    """Wherever a crash cut the file, and whatever it left there: lines before it count, and those written after it."""
    with TemporaryDirectory() as folder:
        target = Path(folder)
        ledger = opened(target)
        arrive(target, ledger, origin("a"), "a")
        arrive(target, ledger, origin("b"), "b", "b2")
        whole = (target / NAME).read_bytes()
        first = whole.index(b"\n", 1) + 1
        cut = first + cut % (len(whole) - first)
        (target / NAME).write_bytes(whole[:cut] + junk)

        arrive(target, opened(target), origin("c"), "c")

        assert known(target, origin("a")) == ["a"]
        assert known(target, origin("b")) in ([], ["b", "b2"])
        assert known(target, origin("c")) == ["c"]


@pytest.mark.timeout(60)
@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.binary(max_size=30),
            st.sampled_from(
                [
                    b"{}",
                    b"[]",
                    b"null",
                    b"7",
                    b'{"source": "s", "stamp": "", "files": []}',
                    b'[["s", ""]]',
                    b'[["s", ""], 7]',
                    b'[["s", ""], [[]]]',
                    b'[["s", ""], ["abcde"]]',
                    b'[["s", ""], [[1, 2, 3, 4, 5]]]',
                    b'[["s", ""], [["\\u0000", "s", 0, "", 0]]]',
                    b'[["s", ""], [["", "s", 0, "", 0]]]',
                    b'[["s", ""], [["../x", "s", 0, "", 0]]]',
                    b'[["s", ""], [["/etc/passwd", "s", 0, "", 0]]]',
                    b'[["s", ""], [["x", "s", 1e400, "", 0]]]',
                    b'[[["s"], ""], []]',
                ]
            ),
        ),
        max_size=8,
    )
)
def test_whatever_stands_in_the_file_is_read(lines: list[bytes]) -> None:
    """What is no line of ours is passed over; nothing of it is believed to be there."""
    with TemporaryDirectory() as folder:
        target = Path(folder)
        (target / NAME).write_bytes(b"\n".join(lines) + b"\n")
        arrive(target, opened(target), origin("a"), "a")

        assert opened(target).complete([Origin("s")]) == [[]]
        assert known(target, origin("a")) == ["a"]


@given(st.lists(st.sampled_from("ab"), max_size=12))
@pytest.mark.timeout(60)
@settings(max_examples=40, deadline=None)
def test_two_writers_may_take_turns(turns: list[str]) -> None:
    """Whatever the order in which two processes add lines, both their files are known to a third."""
    with TemporaryDirectory() as folder:
        target = Path(folder)
        writers = {"a": opened(target), "b": opened(target)}
        names = [f"{who}{number}" for number, who in enumerate(turns)]
        for name in names:
            arrive(target, writers[name[0]], origin(name), name)

        third = opened(target)

        assert [kept.path for (kept,) in third.complete(map(origin, names))] == names


def test_many_threads_write_whole_lines(tmp_path: Path) -> None:
    """None is mixed up with that of another, however long they are."""
    paths = [[f"{who}/{number}/{'x' * 150}" for number in range(60)] for who in range(8)]
    ready = threading.Barrier(len(paths))

    def write(who: int) -> None:
        ledger = opened(tmp_path)
        ready.wait()
        arrive(tmp_path, ledger, origin(str(who)), *paths[who])

    threads = [threading.Thread(target=write, args=[who]) for who in range(len(paths))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [known(tmp_path, origin(str(who))) for who in range(len(paths))] == paths


def test_a_line_that_is_nested_too_deeply_is_passed_over(tmp_path: Path) -> None:
    """It is not ours either."""
    (tmp_path / NAME).write_text("[" * 100_000)

    assert known(tmp_path, origin("a")) == []


def test_nothing_outside_of_the_folder_is_believed(tmp_path: Path) -> None:
    """A line that somebody else wrote cannot pass off a file elsewhere as one that was downloaded."""
    outside, folder = tmp_path / "outside", tmp_path / "folder"
    folder.mkdir()
    outside.write_bytes(b"abc")
    for path in ("../outside", str(outside), f"/{outside}", "."):
        part = Part(Place(path, f"{GATEWAY}/a"), "0", 3, DIGEST, outside.stat().st_mtime_ns)
        opened(folder).note([(origin("a"), [part])])

        assert known(folder, origin("a")) == []
