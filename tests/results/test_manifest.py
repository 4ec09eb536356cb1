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
from st4sd_async._results.target import CompleteFile, Destination, DownloadTarget, Manifest, ManifestEntry, Origin
from tests.tries import tries

MANIFEST = ".st4sd-downloads.jsonl"
GATEWAY = "file://cluster/workdir/demo.instance"
DIGEST = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
"""Of ``abc``."""


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a folder, which is closed with it."""
    directory = Directory.open(str(folder))
    manifest = Manifest(directory)
    weakref.finalize(manifest, directory.close)
    return manifest


def arrive(folder: Path, manifest: Manifest, origin: Origin, *paths: str, content: bytes = b"abc") -> None:
    """Let files come from somewhere, as a download does."""
    with DownloadTarget(folder) as target:
        files = []
        for path in paths:
            with target.create_file() as temporary:
                temporary.write([content])
                files.append(temporary.finish(Destination(path, f"{GATEWAY}/{path}")))
        manifest.record([(origin, files)])
        target.rename(files)


def origin(name: str, version: str = "") -> Origin:
    """Where something comes from."""
    return Origin(f"{GATEWAY}/{name}", version)


def known(folder: Path, asked: Origin) -> list[str]:
    """The paths that a later process knows to be there."""
    return [entry.path for entry in read_manifest(folder).complete([asked])[0]]


def test_files_that_came_are_known_to_this_and_later_processes(tmp_path: Path) -> None:
    """With their sizes, sources and checksums; an empty or missing manifest knows nothing."""
    here = read_manifest(tmp_path)
    assert here.complete([origin("a/b.txt")]) == [[]]

    arrive(tmp_path, here, origin("a"), "a/b.txt", "a/ü 1.txt")

    modified = (tmp_path / "a/b.txt").stat().st_mtime_ns
    ((first, second),) = read_manifest(tmp_path).complete([origin("a")])
    assert here.complete([origin("a")]) == [[first, second]]
    assert first == ManifestEntry("a/b.txt", f"{GATEWAY}/a/b.txt", 3, DIGEST, modified)
    assert second.path == "a/ü 1.txt"
    assert (tmp_path / MANIFEST).read_text("utf-8").count("\n") == 2


def test_the_source_and_the_stamp_must_be_the_same(tmp_path: Path) -> None:
    """Another version, another way to store it, another run: it is fetched again."""
    arrive(tmp_path, read_manifest(tmp_path), origin("a", "version 1"), "a")

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
    manifest = read_manifest(tmp_path)
    arrive(tmp_path, manifest, origin("two"), "sub/a", "b")
    arrive(tmp_path, manifest, origin("one"), "c")

    change(tmp_path / "sub/a")

    assert manifest.complete([origin("two")]) == [[]]
    assert known(tmp_path, origin("two")) == []
    assert known(tmp_path, origin("one")) == ["c"]


def test_what_was_noted_and_got_no_name_is_not_there(tmp_path: Path) -> None:
    """After a crash in between it is fetched again."""
    with DownloadTarget(tmp_path) as target:
        with target.create_file() as temporary:
            file = temporary.finish(Destination("a", f"{GATEWAY}/a"))
        read_manifest(tmp_path).record([(origin("a"), [file])])

    assert known(tmp_path, origin("a")) == []


def test_the_last_word_counts(tmp_path: Path) -> None:
    """A later download of the same is known, also by another version."""
    manifest = read_manifest(tmp_path)
    for version, path in (("1", "a"), ("2", "b"), ("3", "c")):
        arrive(tmp_path, manifest, origin("x", version), path)

    assert known(tmp_path, origin("x", "3")) == ["c"]
    assert known(tmp_path, origin("x", "1")) == []


def test_a_file_that_another_run_replaced_is_not_that_of_the_first(tmp_path: Path) -> None:
    """Even if it has the same length, and both were written within one tick of the file system's clock."""
    manifest, theirs = read_manifest(tmp_path), Origin("file://cluster/workdir/other.instance/a")
    arrive(tmp_path, manifest, origin("a"), "a")
    modified = (tmp_path / "a").stat().st_mtime_ns
    with DownloadTarget(tmp_path) as target:
        with target.create_file() as temporary:
            temporary.write([b"xyz"])
            file = temporary.finish(Destination("a", theirs.source))
        file = file._replace(modified_ns=modified)
        manifest.record([(theirs, [file])])
        target.rename([file])
    os.utime(tmp_path / "a", ns=(modified, modified))

    assert known(tmp_path, theirs) == ["a"]
    assert known(tmp_path, origin("a")) == []
    assert manifest.complete([origin("a")]) == [[]]


@pytest.mark.timeout(60)
@settings(max_examples=tries(60, 30), deadline=None)
@given(cut=st.integers(0, 10_000), junk=st.binary(max_size=40))
def test_a_torn_tail_hides_only_what_was_torn(cut: int, junk: bytes) -> None:
    """Wherever a crash cut the file, and whatever it left there: lines before it count, and those written after it."""
    with TemporaryDirectory() as folder:
        target = Path(folder)
        manifest = read_manifest(target)
        arrive(target, manifest, origin("a"), "a")
        arrive(target, manifest, origin("b"), "b", "b2")
        whole = (target / MANIFEST).read_bytes()
        first = whole.index(b"\n", 1) + 1
        cut = first + cut % (len(whole) - first)
        (target / MANIFEST).write_bytes(whole[:cut] + junk)

        arrive(target, read_manifest(target), origin("c"), "c")

        assert known(target, origin("a")) == ["a"]
        assert known(target, origin("b")) in ([], ["b", "b2"])
        assert known(target, origin("c")) == ["c"]


@pytest.mark.timeout(60)
@settings(max_examples=tries(60, 30), deadline=None)
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
        (target / MANIFEST).write_bytes(b"\n".join(lines) + b"\n")
        arrive(target, read_manifest(target), origin("a"), "a")

        assert read_manifest(target).complete([Origin("s")]) == [[]]
        assert known(target, origin("a")) == ["a"]


@given(st.lists(st.sampled_from("ab"), max_size=12))
@pytest.mark.timeout(60)
@settings(max_examples=tries(40, 20), deadline=None)
def test_two_writers_may_take_turns(turns: list[str]) -> None:
    """Whatever the order in which two processes add lines, both their files are known to a third."""
    with TemporaryDirectory() as folder:
        target = Path(folder)
        writers = {"a": read_manifest(target), "b": read_manifest(target)}
        names = [f"{who}{number}" for number, who in enumerate(turns)]
        for name in names:
            arrive(target, writers[name[0]], origin(name), name)

        third = read_manifest(target)

        assert [entry.path for (entry,) in third.complete(map(origin, names))] == names


@pytest.mark.slow
def test_many_threads_write_whole_lines(tmp_path: Path) -> None:
    """None is mixed up with that of another, however long they are."""
    paths = [[f"{who}/{number}/{'x' * 150}" for number in range(60)] for who in range(8)]
    ready = threading.Barrier(len(paths))

    def write(who: int) -> None:
        manifest = read_manifest(tmp_path)
        ready.wait()
        arrive(tmp_path, manifest, origin(str(who)), *paths[who])

    threads = [threading.Thread(target=write, args=[who]) for who in range(len(paths))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [known(tmp_path, origin(str(who))) for who in range(len(paths))] == paths


def test_a_line_that_is_nested_too_deeply_is_passed_over(tmp_path: Path) -> None:
    """It is not ours either."""
    (tmp_path / MANIFEST).write_text("[" * 100_000)

    assert known(tmp_path, origin("a")) == []


def test_nothing_outside_of_the_folder_is_believed(tmp_path: Path) -> None:
    """A line that another user wrote cannot make a file elsewhere count as downloaded."""
    outside, folder = tmp_path / "outside", tmp_path / "folder"
    folder.mkdir()
    outside.write_bytes(b"abc")
    for path in ("../outside", str(outside), f"/{outside}", "."):
        file = CompleteFile(Destination(path, f"{GATEWAY}/a"), "0", 3, DIGEST, outside.stat().st_mtime_ns)
        read_manifest(folder).record([(origin("a"), [file])])

        assert known(folder, origin("a")) == []


def _record_at_once(folder: Path, manifests: list[Manifest]) -> None:
    """Record a file of its own through each manifest, in threads that begin together."""
    at_once = threading.Barrier(len(manifests))

    def record(name: str, manifest: Manifest) -> None:
        at_once.wait(5)
        arrive(folder, manifest, origin(name), name)

    threads = [threading.Thread(target=record, args=[str(number), one]) for number, one in enumerate(manifests)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(5)


@pytest.mark.parametrize("is_one_download", [True, False])
def test_threads_that_record_at_once_write_to_no_file_elsewhere(tmp_path: Path, is_one_download: bool) -> None:
    """The manifest has another name, which only the first of them finds. Threads of one download lose no line."""
    for attempt in range(tries(20, 8)):
        folder = tmp_path / str(attempt)
        folder.mkdir()
        arrive(folder, read_manifest(folder), origin("before"), "before")
        elsewhere = tmp_path / f"{attempt} elsewhere"
        os.link(folder / MANIFEST, elsewhere)
        before = elsewhere.read_bytes()

        manifest = read_manifest(folder)
        _record_at_once(folder, [manifest if is_one_download else read_manifest(folder) for _ in range(4)])

        assert elsewhere.read_bytes() == before
        assert (folder / MANIFEST).stat().st_nlink == 1
        if is_one_download:
            assert [known(folder, origin(name)) for name in ("before", *"0123")] == [["before"], *map(list, "0123")]
