"""Work beneath an open directory: with descriptors and, as on other systems, without; no link is followed."""

from __future__ import annotations

import itertools
import os
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from st4sd_async._results.directory import Directory, Tree
from st4sd_async._results.target import CompleteFile, Destination, DownloadTarget
from tests.tries import tries

pytestmark = pytest.mark.timeout(20)  # what waits for the other end of a FIFO waits for ever

WAYS = pytest.mark.parametrize("uses_descriptors", [True, False], ids=["descriptors", "paths"])


@pytest.fixture(params=[True, False], ids=["descriptors", "paths"])
def directory(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Directory]:
    """A directory, beside which is a file."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/file").write_bytes(b"mine")
    (tmp_path / "inside").mkdir()
    with Directory.open(str(tmp_path / "inside"), uses_descriptors=request.param) as opened:
        yield opened


OTHERS: dict[str, Callable[[Path], object]] = {
    "link": lambda path: path.symlink_to("../outside/file"),
    "link to a folder": lambda path: path.symlink_to("../outside"),
    "link to nothing": lambda path: path.symlink_to("nowhere"),
    "named pipe": os.mkfifo,
    "folder": lambda path: path.mkdir(),
    "socket": lambda path: os.mknod(path, stat.S_IFSOCK | 0o600),
}


@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_WRONLY | os.O_APPEND | os.O_CREAT, os.O_RDWR])
@pytest.mark.parametrize("make", OTHERS.values(), ids=list(OTHERS))
def test_only_a_regular_file_is_opened(
    directory: Directory, make: Callable[[Path], object], flags: int, tmp_path: Path
) -> None:
    """Anything else is refused at once and by name."""
    make(Path(directory.path) / "x")

    with pytest.raises(OSError, match="'x' is in the target already, as a"):
        directory.open_file("x", flags)

    assert (tmp_path / "outside/file").read_bytes() == b"mine"


def test_a_pipe_with_a_reader_gets_nothing(directory: Directory) -> None:
    """Another user waits at its other end."""
    pipe = Path(directory.path) / "x"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        with pytest.raises(FileExistsError, match="as a named pipe"):
            directory.open_file("x", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        assert os.read(reader, 10) == b""
    finally:
        os.close(reader)


@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_WRONLY | os.O_APPEND | os.O_CREAT])
def test_a_device_is_not_opened_for_work(directory: Directory, flags: int) -> None:
    """One that gives zeros without end, which takes rights to make."""
    try:
        os.mknod(Path(directory.path) / "x", stat.S_IFCHR | 0o600, os.makedev(1, 5))
    except PermissionError:
        pytest.skip("no right to make a device")

    with pytest.raises(OSError, match=r"'x' is in the target already, as a device|Permission denied"):
        directory.open_file("x", flags)


@pytest.mark.parametrize("name", ["", ".", "..", "../outside", "a/b", "/etc"])
def test_a_name_is_that_of_an_entry(directory: Directory, name: str) -> None:
    """It leads nowhere else."""
    for act in (directory.child, directory.stat, directory.make, directory.create, directory.remove):
        with pytest.raises(OSError, match="not the name of an entry"):
            act(name)


@pytest.mark.parametrize(
    "path", ["link/file", "up/../link/file", "sub/link/file", "../outside/file", "sub/./x", "a//b"]
)
def test_a_path_leads_through_no_link_and_not_up(directory: Directory, path: str, tmp_path: Path) -> None:
    """Looks, too."""
    inside = Path(directory.path)
    (inside / "sub").mkdir()
    (inside / "link").symlink_to(tmp_path / "outside")
    (inside / "sub/link").symlink_to(tmp_path / "outside")

    with Tree(directory) as tree, pytest.raises(OSError):  # noqa: PT011 -- of several kinds
        tree.stat(path)


def test_neighbours_are_found_whatever_was_asked_before(directory: Directory) -> None:
    """Deeper, higher, beside, missing and again."""
    inside = Path(directory.path)
    for number, path in enumerate(["x", "a/x", "a/b/x", "a/b/c/x", "a/d/x", "ab/x"]):
        (inside / path).parent.mkdir(parents=True, exist_ok=True)
        (inside / path).write_bytes(bytes(number))
    order = [
        "a/b/c/x",
        "x",
        "a/x",
        "ab/x",
        "a/d/x",
        "a/none/x",
        "a/b/x",
        "a/b/c/x",
        "a/b/c/none/x",
        "a/b/c/x",
        "none/x",
        "a/x",
        "x",
    ]

    with Tree(directory) as tree:
        for path in order:
            if "none" in path:
                with pytest.raises(FileNotFoundError):
                    tree.stat(path)
            else:
                assert tree.stat(path).st_ino == (inside / path).stat().st_ino


def test_the_obstacles_of_neighbours_are_those_of_each(directory: Directory) -> None:
    """Whether their folder is missing, a link, a file, or there with something in it."""
    inside = Path(directory.path)
    (inside / "a/folder").mkdir(parents=True)
    (inside / "file").write_bytes(b"")
    (inside / "link").symlink_to("../outside")
    names = ("x", "folder", "y")
    folders = ("none", "a", "none", "none/deep", "link", "none", "file", "a/folder", "none")
    paths = [f"{folder}/{name}" for folder in folders for name in names] + ["link", "a", "x", "none/x"]

    with Tree(directory) as tree:
        found = list(tree.obstacles(paths))

    with Tree(directory) as tree:
        assert found == [tree.obstacle(path) for path in paths]
    assert [path for path, obstacle in zip(paths, found, strict=True) if obstacle] == [
        "a/folder",
        *(f"{folder}/{name}" for folder in ("link", "file") for name in names),
        "link",
        "a",
    ]


def descriptors() -> int:
    """How many files this process has open."""
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 -- one look, nothing opened beside it


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="only Linux lists what is open")
@WAYS
def test_nothing_stays_open(tmp_path: Path, uses_descriptors: bool) -> None:
    """Whatever happens in a target."""
    (tmp_path / "link").symlink_to("/")
    (tmp_path / ".st4sd-x.file").mkdir()
    before = descriptors()

    for path in ("a/b/c", "link/x", ".st4sd-x.file/y", "a/b/c/d"):
        with DownloadTarget(tmp_path, uses_descriptors=uses_descriptors) as opened:
            with opened.create_file() as writer:
                file = writer.finish(Destination(path))
            opened.obstacles([path, "a/none/x"])
            opened.remove([f"{path}/none", "link/etc/none"])
            try:
                opened.rename([file])
            except OSError:
                continue

    assert descriptors() == before


@WAYS
def test_a_target_works_either_way(tmp_path: Path, uses_descriptors: bool) -> None:
    """Files get their names, links are obstacles, files are removed, and nothing is left behind."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out/file").write_bytes(b"mine")
    target = tmp_path / "target"
    target.mkdir()
    (target / "link").symlink_to("../out")

    with DownloadTarget(target, uses_descriptors=uses_descriptors) as opened:
        files: list[CompleteFile] = []
        for path in ("a/b/x", "a/y", "z"):
            with opened.create_file() as writer:
                writer.write([path.encode()])
                files.append(writer.finish(Destination(path)))
        opened.rename(files, ["e/f"])
        opened.remove(["a/y", "link/file", "none/x"])
        obstacles = opened.obstacles(["link/file", "a", "a/b/x", "z/x", "new"])

    assert sorted(path.relative_to(target).as_posix() for path in target.rglob("*")) == sorted(
        ["a", "a/b", "a/b/x", "e", "e/f", "link", "z"]
    )
    assert (target / "a/b/x").read_bytes() == b"a/b/x"
    assert (tmp_path / "out/file").read_bytes() == b"mine"
    assert list(obstacles) == ["link/file", "a", "z/x"]


@pytest.mark.slow
def test_a_folder_that_is_swapped_for_a_link_again_and_again_leads_nowhere(tmp_path: Path) -> None:
    """Between any check and its use another process may put a link there: no file is written or deleted behind it."""
    target, outside = tmp_path / "target", tmp_path / "outside"
    (target / "sub").mkdir(parents=True)
    outside.mkdir()
    (outside / "old").write_bytes(b"mine")
    over = threading.Event()

    def swap() -> None:
        for number in itertools.takewhile(lambda _: not over.is_set(), itertools.count()):
            with suppress(OSError):  # the target may have created the folder again
                (target / "sub").rename(target / f"away{number}")
                (target / "sub").symlink_to(outside)
                (target / "sub").unlink()

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        with DownloadTarget(target) as opened:
            for number in range(tries(3000, 1000)):
                with opened.create_file() as writer:
                    file = writer.finish(Destination(f"sub/{number}"))
                try:
                    opened.rename([file])
                    opened.remove(["sub/old"])
                except OSError:
                    continue
    finally:
        over.set()
        thread.join()

    assert sorted(path.name for path in outside.iterdir()) == ["old"]
