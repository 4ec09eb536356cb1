"""Targets that another user prepared, or on a full disk."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from st4sd_async import DownloadError, UnsafeArchive
from st4sd_async._results.target import extract

from .archives import LINES, Entry, build, refused, tree, unpack


@pytest.mark.parametrize("name", ["/sub/evil.txt", "/sub/deeper/evil.txt", "/sub/", "/sub"])
@pytest.mark.parametrize("to", ["../elsewhere", "nowhere", "."])
def test_no_link_in_the_target_is_followed(target: Path, to: str, name: str) -> None:
    """Neither out of the target nor within it."""
    (target.parent / "elsewhere").mkdir()
    (target / "sub").symlink_to(to)

    error = refused(build(Entry("/good.txt"), Entry(name, b"" if name.endswith("/") else LINES)), target)

    assert not isinstance(error, UnsafeArchive)
    assert "'sub'" in str(error)


@pytest.mark.parametrize("name", ["/kept.txt/a", "/kept.txt/", "/folder", "/fifo"])
def test_what_is_no_file_is_not_replaced(target: Path, name: str) -> None:
    """A file in place of a folder, a folder in place of a file, and a pipe."""
    (target / "folder").mkdir()
    os.mkfifo(target / "fifo")

    refused(build(Entry("/good.txt"), Entry(name, b"" if name.endswith("/") else LINES)), target)


def test_the_target_itself_may_be_a_link(target: Path) -> None:
    """It is the caller's, as are the folders above it."""
    (target.parent / "link").symlink_to("target")

    unpack(build(Entry()), target.parent / "link")

    assert (target / "file.txt").read_bytes() == LINES


def test_a_target_that_is_a_file_is_an_error_of_ours(target: Path) -> None:
    """The file stays as it is."""
    with pytest.raises(DownloadError, match="File exists"):
        unpack(build(Entry()), target / "kept.txt")

    assert tree(target) == {"kept.txt": b"older"}


@pytest.fixture
def small_disk() -> Iterator[None]:
    """No file can grow over 64 KiB."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.usefixtures("small_disk")
def test_a_disk_that_is_full_is_an_error_of_ours(target: Path) -> None:
    """Its words are kept, and the advice is to make room."""
    error = refused(build(Entry("/good.txt"), Entry("/large", bytes(1 << 20))), target)

    assert "check that there is enough space" in str(error)
    assert isinstance(error.__cause__, OSError)


def test_an_archive_that_is_not_there_is_an_error_of_ours(tmp_path: Path) -> None:
    """Nothing is made for it."""
    with pytest.raises(DownloadError) as caught:
        extract(tmp_path / "none.zip", tmp_path / "target")

    assert caught.value.received == 0
    assert not (tmp_path / "target").exists()
