"""Results as files of fsspec, read from a server on a socket."""

from __future__ import annotations

import gc
import io
import json
import multiprocessing
import os
import pickle
import threading
import time
import tomllib
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import fsspec
import pandas
import pytest
from fsspec.core import OpenFile

from st4sd_async import ConfigError, ConnectionLost, DownloadError, NotFound, Unauthorized, UnknownOutput, UnknownRun
from st4sd_async._results.result_tree import Folder
from st4sd_async.integrations.fsspec import St4sdFileSystem
from st4sd_async.local import CutBody, LocalServer
from st4sd_async.sync import Client
from tests import keyrings
from tests.integrations.filesystems import filesystems
from tests.sync.conftest import loops
from tests.tries import sample

OUTPUT, FILES = "GET /instances/*/outputs/*", "POST /ds-gateway/files/api/v1.1"
QUERY = "POST /ds-mongodb-proxy/documents/api/v1.0/query"
ENERGIES = b"input-id,smiles,energy,weight\nCO,CO,-3.0,32.042\nCCO,CCO,-4.5,46.069\n"
COMPONENT = "components/0/Compute"
NAMES = ["a b.csv", "naïve-Ü.csv", "100%.csv", "%2e%2e", "x%2fy", "a#b?c=d&e", "[x]*", "'\"", ".hidden", "..a"]


@dataclass
class Results:
    """A server with a run of the demo that is over, and the file of its key."""

    server: LocalServer
    key_file: Path
    run: str

    @property
    def options(self) -> dict[str, Any]:
        return {"deployment": self.server.url, "api_key_file": str(self.key_file)}

    def start(self, name: str = "demo", **outputs: Any) -> str:
        """Return another run that is over; if it has key-outputs, of an experiment that is only described."""
        with Client(self.server.url, api_key=self.server.api_key) as client:
            package = self.server.example("demo")
            if outputs:
                self.server.describe(name, outputs=outputs)
                location = {"url": f"https://git.example/{name}.git", "tag": "1"}
                package = {"base": {"packages": [{"source": {"git": {"location": location}}}]}}
                package |= {"metadata": {"package": {"name": name}}, "parameterisation": {}}
            client.push(package)
            inputs = {} if outputs else {"molecules.csv": "smiles\nCO\nCCO\n"}
            run = client.start(name, inputs=inputs)
        self.server.advance(100)
        return str(run)

    def directory(self, run: str, component: str = "stages/stage0/Compute") -> Path:
        """Return the directory of a component at the server."""
        found = self.server.directory(run)
        assert found is not None
        return found / component


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Results]:
    with filesystems(), LocalServer(speed=0) as server:
        key_file = tmp_path_factory.mktemp("credentials") / "key"
        key_file.write_text(server.api_key)
        results = Results(server, key_file, "")
        results.run = results.start()
        yield results


@pytest.fixture
def fs(results: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[St4sdFileSystem]:
    """The filesystem. It must leave nothing where temporary files go."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    yield fsspec.filesystem("st4sd", **results.options)
    results.server.faults.clear()
    assert list(folder.iterdir()) == []


def cause(caught: pytest.ExceptionInfo[BaseException]) -> BaseException:
    found = caught.value.__cause__
    assert found is not None
    return found


# Reading by url


@pytest.mark.parametrize("path", ["Energies", f"{COMPONENT}/energies.csv"], ids=["key-output", "component"])
def test_pandas_reads_a_url(results: Results, path: str) -> None:
    """With the options of the filesystem as ``storage_options``."""
    table = pandas.read_csv(f"st4sd://{results.run}/{path}", storage_options=results.options)

    assert list(table["energy"]) == [-3.0, -4.5]


def test_the_environment_is_enough(results: Results, monkeypatch: pytest.MonkeyPatch) -> None:
    """As for `Client.from_env`."""
    monkeypatch.setenv("ST4SD_URL", results.server.url)
    monkeypatch.setenv("ST4SD_API_KEY", results.server.api_key)

    assert len(pandas.read_csv(f"st4sd://{results.run}/Energies")) == 2


def test_fsspec_finds_the_filesystem() -> None:
    """By the entry point that the package declares."""
    project = Path(__file__).parents[2] / "pyproject.toml"
    points = tomllib.loads(project.read_text("utf-8"))["project"]["entry-points"]["fsspec.specs"]
    module, _, name = points[St4sdFileSystem.protocol].partition(":")

    assert getattr(import_module(module), name) is St4sdFileSystem


def test_an_open_file_can_be_sought(results: Results, fs: St4sdFileSystem) -> None:
    """It is complete before it can be read."""
    with fs.open(f"{results.run}/Energies") as file:
        assert file.seekable()
        assert (file.seek(-4, os.SEEK_END), file.read(), file.seek(0), file.read(8)) == (
            len(ENERGIES) - 4,
            b"069\n",
            0,
            b"input-id",
        )
        assert file.size == len(ENERGIES)
        with pytest.raises(io.UnsupportedOperation):
            file.write(b"x")

    with fsspec.open(f"st4sd://{results.run}/Energies", "rt", **results.options) as text:
        assert next(iter(text)) == "input-id,smiles,energy,weight\n"


@pytest.mark.parametrize(
    ("start", "end"),
    [(None, None), (0, 8), (5, None), (-4, None), (None, -4), (-9, -4), (10, 5), (3, 9999), (9999, None)],
)
def test_ranges_are_those_of_a_slice(results: Results, fs: St4sdFileSystem, start: int | None, end: int | None) -> None:
    """As fsspec says: "like usual python slices"."""
    assert fs.cat_file(f"{results.run}/Energies", start, end) == ENERGIES[start:end]


def test_parts_of_a_file_are_read_from_one_response(results: Results, fs: St4sdFileSystem) -> None:
    """The service serves no parts, so it sends the file once."""
    path, missing = f"{results.run}/Energies", f"{results.run}/Energie"
    before = results.server.traffic[OUTPUT].requests

    found = fs.cat_ranges([path, missing, path], [0, 0, -4], [8, 1, None])

    assert results.server.traffic[OUTPUT].requests == before + 2
    assert (found[0], type(found[1]), found[2]) == (b"input-id", FileNotFoundError, b"069\n")
    with pytest.raises(FileNotFoundError):
        fs.cat_ranges([path, missing], 0, 8, on_error="raise")
    with pytest.raises(ValueError, match="argument 2"):
        fs.cat_ranges([path, path], [0], 8)


@pytest.mark.slow
def test_a_large_file_takes_little_memory(results: Results, fs: St4sdFileSystem, tmp_path: Path) -> None:
    """It goes to a temporary file on the disk, in pieces."""
    size = 24 << 20
    run = results.start("large", Large=b"")
    (file,) = results.directory(run, ".").rglob("Large*")
    with file.open("wb") as handle:
        handle.truncate(size)

    tracemalloc.start()
    try:
        with fs.open(f"{run}/Large") as opened:
            assert opened.size == size
            opened.seek(-1, os.SEEK_END)
            assert opened.read() == b"\0"
        fs.get(f"{run}/Large", str(tmp_path / "copy"))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert (tmp_path / "copy").stat().st_size == size
    assert peak < size / 2


@pytest.mark.slow
def test_a_component_file_may_be_larger_than_a_response_of_the_gateway(results: Results, fs: St4sdFileSystem) -> None:
    """Over 32 MiB it comes with the archive of its component."""
    run = results.start()
    with (results.directory(run) / "large.bin").open("wb") as handle:
        handle.truncate((32 << 20) + 1)

    with (results.directory(run) / "medium.bin").open("wb") as handle:
        handle.truncate((1 << 20) + 1)

    assert fs.size(f"{run}/{COMPONENT}/large.bin") == (32 << 20) + 1
    assert fs.cat_file(f"{run}/{COMPONENT}/medium.bin") == bytes((1 << 20) + 1)


# The tree


def test_the_tree_of_a_run(results: Results, fs: St4sdFileSystem) -> None:
    """Key-outputs, what is in them, and the files of components."""
    run = results.run
    output = {"version": 1, "final": True, "created": fs.modified(f"{run}/Energies")}

    assert {"name": run, "size": 0, "type": "directory"} in fs.ls("st4sd://")
    assert fs.ls(f"st4sd://{run}/") == [
        {"name": f"{run}/Energies", "size": len(ENERGIES), "type": "file", **output},
        {"name": f"{run}/Folder", "size": 0, "type": "directory", **output},
        {"name": f"{run}/components", "size": 0, "type": "directory"},
    ]
    assert fs.ls(f"{run}/Folder", detail=False) == [f"{run}/Folder/sub", f"{run}/Folder/summary.json"]
    assert fs.ls(f"{run}/Energies", detail=False) == [f"{run}/Energies"]
    assert fs.ls(f"{run}/Folder/sub") == [fs.info(f"{run}/Folder/sub/b.bin")]
    assert list(fs.walk(f"{run}/components/0")) == [
        (f"{run}/components/0", ["Compute"], []),
        (f"{run}/{COMPONENT}", [], ["energies.csv", "molecules.csv", "out.stderr", "out.stdout"]),
    ]
    assert len(fs.find(run)) == 1 + 2 + 4 + 4
    assert fs.glob(f"{run}/*.nothing") == []
    assert fs.glob(f"{run}/components/*/*/*.csv") == [
        f"{run}/{COMPONENT}/energies.csv",
        f"{run}/{COMPONENT}/molecules.csv",
    ]


@pytest.mark.slow
def test_info(results: Results, fs: St4sdFileSystem) -> None:
    """Each path of a listing has the same info, and sizes that are not known are fetched on demand."""
    run = results.run

    for path in ("", run, f"{run}/components", f"{run}/components/1", f"{run}/{COMPONENT}", f"{run}/Folder"):
        assert fs.info(path) in (fs.ls(fs._parent(path)) if path else [fs.info("")])
        assert (fs.isdir(path), fs.isfile(path), fs.size(path)) == (True, False, 0)
    for path in (f"{run}/Energies", f"{run}/Folder/sub/b.bin", f"{run}/{COMPONENT}/energies.csv"):
        assert fs.info(path) in fs.ls(fs._parent(path))
        assert (fs.isdir(path), fs.isfile(path), fs.size(path)) == (False, True, len(fs.cat_file(path)))
    assert fs.info(f"{run}/{COMPONENT}/energies.csv")["size"] is None
    with pytest.raises(NotImplementedError, match="does not say when"):
        fs.modified(f"{run}/{COMPONENT}/energies.csv")


def test_a_listing_receives_no_files(results: Results, fs: St4sdFileSystem) -> None:
    """It needs only the headers."""
    run = results.start("listed", Large=b"")
    (file,) = results.directory(run, ".").rglob("Large*")
    with file.open("wb") as handle:
        handle.truncate(1 << 40)  # no response of this length would end

    assert fs.info(f"{run}/Large")["size"] == 1 << 40
    assert [one["size"] for one in fs.ls(run)] == [1 << 40, 0]


@pytest.mark.parametrize("name", sample(NAMES, 5))
def test_names_are_written_as_they_are(results: Results, fs: St4sdFileSystem, name: str) -> None:
    """In key-outputs, in their folders, and in components, without any quoting."""
    run = _run_with_names(results)

    found = [one["name"].removeprefix(f"{run}/{COMPONENT}/") for one in fs.ls(f"{run}/{COMPONENT}")]
    assert name in found
    assert fs.cat_file(f"st4sd://{run}/{COMPONENT}/{name}") == name.encode()
    assert fs.cat_file(f"st4sd://{run}/Folder/sub {name}/{name}") == name.encode()
    assert fs.exists(f"{run}/Folder/sub {name}/{name}")
    assert fs.ls(f"{run}/Folder/sub {name}", detail=False) == [f"{run}/Folder/sub {name}/{name}"]


def _run_with_names(results: Results, runs: list[str] = []) -> str:  # noqa: B006 -- one run for all names
    if not runs:
        runs.append(results.start())
        for name in NAMES:
            (results.directory(runs[0]) / name).write_bytes(name.encode())
            folder = results.directory(runs[0], "stages/stage1/Report/results") / f"sub {name}"
            folder.mkdir()
            (folder / name).write_bytes(name.encode())
    return runs[0]


def test_a_name_that_no_archive_may_have_is_an_error(results: Results, fs: St4sdFileSystem) -> None:
    """It comes from a server: a backslash separates folders on some machines."""
    run = results.start()
    (results.directory(run) / "a\\b").write_bytes(b"")
    (results.directory(run, "stages/stage1/Report/results") / "a\\b").write_bytes(b"")

    with pytest.raises(DownloadError, match="backslash"):
        fs.open(f"{run}/{COMPONENT}/a\\b")
    with pytest.raises(DownloadError, match="backslash"):
        fs.ls(f"{run}/Folder")
    assert fs.cat_file(f"{run}/Folder/a\\b") == b""


def test_names_of_key_outputs_are_written_as_they_are(results: Results, fs: St4sdFileSystem) -> None:
    """Unless they have slashes, or the name of the folder of components."""
    names = ["My energies", "naïve-Ü", "100%", "%2e%2e", "a#b?c"]
    run = results.start("names", **{name: name.encode() for name in names}, components=b"hidden")

    listed = [path.removeprefix(f"{run}/") for path in fs.ls(run, detail=False)]

    assert listed == sorted([*names, "components"])
    assert [fs.cat_file(f"st4sd://{run}/{name}") for name in names] == [name.encode() for name in names]
    assert fs.isdir(f"{run}/components")


def test_names_that_lead_elsewhere_are_not_listed() -> None:
    """A server chooses the names of files, and `get` writes files of these names."""
    folder = Folder("run/components")
    for path in ("../up", "0/../../up", "/absolute", "0//b", "", ".", "0/Compute/", "fine"):
        folder.add(path)

    assert [entry.path for entry in folder.entries("")] == ["run/components/fine"]


# Paths that do not exist


@pytest.mark.parametrize(
    ("path", "error", "text"),
    sample(
        [
            ("{run}/Energies/inside", None, "is not a folder"),
            ("ghost", UnknownRun, "ghost not found"),
            ("ghost/Energies", UnknownRun, "instance ghost"),
            ("ghost/components/0/Compute/energies.csv", UnknownRun, "no document"),
            ("{run}/Energie", UnknownOutput, "did you mean 'Energies'"),
            ("{run}/Folder/nothing", UnknownOutput, "nothing"),
            ("{run}/components/7", NotFound, "has no '7'"),
            ("{run}/components/00/Compute/energies.csv", NotFound, "has no '00"),
            ("{run}/components/0/Compute/nothing", NotFound, "once it is over"),
            ("{run}/components/0/Compute/energies.csv/x", NotFound, "has no"),
            ("{run}/..", NotFound, "..'"),
            ("{run}/Folder/../Energies", NotFound, "'.', '..'"),
            ("{run}/components/0/Compute/../../1/Report/out.stdout", NotFound, "'.', '..'"),
            ("../{run}/Energies", NotFound, "not a rest-uid"),
            ("{run}//Energies", NotFound, "without slashes"),
            ("{run}/ /x", NotFound, "' '"),
            ("{run}/Folder/a\0b", NotFound, "NUL"),
            ("{run}/\ud800", NotFound, "UTF-8"),
            ("no such run/Energies", NotFound, "not a rest-uid"),
        ],
        10,
    ),
)
def test_a_missing_path_is_a_file_not_found_error(
    results: Results, fs: St4sdFileSystem, path: str, error: type[Exception] | None, text: str
) -> None:
    """With the error of the library as its cause, and its text; nothing waits for documents of an unknown run."""
    path = path.format(run=results.run)

    for action in (fs.info, fs.ls, fs.open, fs.cat_file):
        with pytest.raises(FileNotFoundError) as caught:
            action(path)
        assert caught.value.filename == path
        assert error is None or isinstance(cause(caught), error)
    assert text in str(caught.value)
    assert not fs.exists(f"st4sd://{path}")
    assert not fs.isdir(path)
    assert not fs.isfile(path)


def test_a_folder_cannot_be_opened(results: Results, fs: St4sdFileSystem) -> None:
    """Its archive is not received."""
    for path in ("", "{run}", "{run}/Folder", "{run}/Folder/sub", "{run}/components", f"{{run}}/{COMPONENT}"):
        with pytest.raises(IsADirectoryError):
            fs.open(path.format(run=results.run))


def test_files_that_change_between_two_calls(results: Results, fs: St4sdFileSystem) -> None:
    """What is opened is complete, and stays as it was; what was removed is not found."""
    run = results.start()
    energies, component = f"{run}/Energies", f"{run}/{COMPONENT}/out.stdout"
    assert fs.info(energies)["size"] == len(ENERGIES)
    assert fs.exists(component)

    file = results.directory(run) / "energies.csv"
    file.write_bytes(b"longer" * 100_000)
    with fs.open(energies) as opened:
        file.write_bytes(b"shorter")
        assert opened.read() == b"longer" * 100_000
    assert fs.cat_file(energies) == b"shorter"
    file.unlink()
    (results.directory(run) / "out.stdout").unlink()
    for path in (energies, component):
        with pytest.raises(FileNotFoundError):
            fs.open(path)
    assert f"{run}/Energies" not in fs.ls(run, detail=False)


def test_a_deleted_run_keeps_the_files_of_its_components(results: Results, fs: St4sdFileSystem) -> None:
    """The datastore knows it still, at once."""
    run = results.start()
    with Client(results.server.url, api_key=results.server.api_key) as client:
        client.delete(run)
    results.server.advance(100)

    assert fs.ls(run, detail=False) == [f"{run}/components"]
    assert fs.cat_file(f"{run}/{COMPONENT}/energies.csv") == ENERGIES
    with pytest.raises(FileNotFoundError):
        fs.open(f"{run}/Energies")


@pytest.mark.slow
def test_a_response_that_breaks_off_is_requested_again(results: Results, fs: St4sdFileSystem) -> None:
    """Until it has broken off several times; then the error is that of the library."""
    paths = f"{results.run}/Energies", f"{results.run}/{COMPONENT}/energies.csv"
    for kind in (OUTPUT, FILES):
        results.server.faults.add(kind, CutBody(20), times=1)

    assert [fs.cat_file(path) for path in paths] == [ENERGIES, ENERGIES]

    results.server.faults.add(OUTPUT, CutBody(20), times=None)
    with pytest.raises(ConnectionLost):
        fs.open(paths[0])


# Writing


@pytest.mark.parametrize("mode", ["wb", "ab", "xb", "r+b", "w"])
def test_a_file_cannot_be_opened_for_writing(results: Results, fs: St4sdFileSystem, mode: str) -> None:
    """And nothing is sent."""
    before = len(results.server.requests)

    with pytest.raises(OSError, match="read-only"):
        fs.open(f"{results.run}/Energies", mode)

    assert len(results.server.requests) == before


@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ("pipe_file", ["{path}", b""]),
        ("put_file", ["{here}", "{path}"]),
        ("touch", ["{path}"]),
        ("rm", ["{path}"]),
        ("mv", ["{path}", "{path}2"]),
        ("copy", ["{path}", "{path}2"]),
        ("mkdir", ["{run}/new"]),
        ("makedirs", ["{run}/new"]),
        ("rmdir", ["{run}/Folder"]),
    ],
)
def test_nothing_is_written(results: Results, fs: St4sdFileSystem, method: str, arguments: list[Any]) -> None:
    """Every write is the same error."""
    names = {"path": f"{results.run}/Energies", "run": results.run, "here": __file__}

    with pytest.raises(OSError, match="read-only"):
        getattr(fs, method)(*(one.format(**names) if isinstance(one, str) else one for one in arguments))


# Credentials


def test_refused_credentials_are_not_a_missing_file(results: Results) -> None:
    """Each call raises our error, with its advice."""
    fs = fsspec.filesystem("st4sd", deployment=results.server.url, api_key="wrong-key")
    path = f"{results.run}/Energies"

    for action in (fs.open, fs.info, fs.exists, fs.isfile, fs.isdir, fs.ls, fs.cat, fs.glob, fs.find):
        with pytest.raises(Unauthorized, match="get a new token at") as caught:
            action(path)
        assert "wrong-key" not in str(caught.value)


def test_a_literal_key_leaves_the_process_nowhere(results: Results, tmp_path: Path) -> None:
    """Not in a pickle, JSON, repr, token, or the names and files of a cache."""
    key = results.server.api_key
    options = {"deployment": results.server.url, "api_key": key}
    fs = fsspec.filesystem("st4sd", **options)
    url = f"st4sd://{results.run}/Energies"

    for action in (
        lambda: pickle.dumps(fs),
        lambda: pickle.dumps(OpenFile(fs, url)),
        lambda: pickle.dumps(fs.get_mapper(results.run)),
        fs.to_json,
        fs.to_dict,
        lambda: fs.storage_options,
    ):
        with pytest.raises(TypeError, match="pass api_key_file or context instead") as caught:
            action()
        assert key not in str(caught.value)
    texts = [repr(fs), str(fs), fs._fs_token, repr(OpenFile(fs, url)), str(fs.storage_args), fs.ukey(url)]
    with fsspec.open(f"filecache::{url}", st4sd=options, filecache={"cache_storage": str(tmp_path)}) as file:
        assert file.read() == ENERGIES
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) == 2
    assert not any(key in text for text in [*texts, *map(str, files)])
    assert not any(key.encode() in path.read_bytes() for path in files)


def test_filesystems_are_equal_if_their_logins_are(results: Results, tmp_path: Path) -> None:
    """Whatever thread made them, and even with another form of the address."""
    made = fsspec.filesystem("st4sd", **results.options)
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(lambda: fsspec.filesystem("st4sd", **results.options)).result()
    same = St4sdFileSystem(deployment=f"{results.server.url}/rs/", api_key_file=results.key_file)
    literal, another = (St4sdFileSystem(deployment=results.server.url, api_key=key) for key in ("one", "two"))

    assert made is not other
    assert made == other == same
    assert len({made, other, same, literal, another}) == 3


def test_the_source_of_a_credential_goes_to_another_process(
    results: Results, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """In a pickle and as JSON, with an absolute path, and never the credential."""
    monkeypatch.chdir(results.key_file.parent)
    server = results.server
    monkeypatch.setenv("ST4SD_URL", server.url)
    monkeypatch.setenv("ST4SD_API_KEY", server.api_key)
    token_file = tmp_path / "token"
    token_file.write_text(server.auth_token)
    for options in (
        {"deployment": server.url, "api_key_file": results.key_file.name},
        {"deployment": server.url, "api_key": Path(results.key_file.name)},
        {"deployment": server.url, "auth_token_file": str(token_file), "trusted_hosts": ["files.example"]},
        {},
    ):
        fs = fsspec.filesystem("st4sd", **options)
        pickled, text = pickle.dumps(fs), fs.to_json()
        assert server.api_key.encode() not in pickled
        assert server.api_key not in text
        assert str(results.key_file) in text or "api_key_file" not in options
        fsspec.filesystem("st4sd").clear_instance_cache()

        for arrived in (pickle.loads(pickled), fsspec.AbstractFileSystem.from_json(text)):
            assert arrived == fs
            assert arrived.cat_file(f"{results.run}/Energies") == ENERGIES


def test_credentials_of_the_environment_are_not_sent_elsewhere(
    results: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They belong to the deployment that ``ST4SD_URL`` names."""
    monkeypatch.setenv("ST4SD_URL", "https://other.example")
    monkeypatch.setenv("ST4SD_API_KEY", results.server.api_key)

    with pytest.raises(Unauthorized):
        St4sdFileSystem(deployment=results.server.url).ls("")


def test_a_context_of_stp(results: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its token is read from the keyring, and its name is all that a pickle has."""
    entries = {"here": {"name": "here", "url": results.server.url}}
    for name, value in keyrings.write(tmp_path, active="here", entries=entries).items():
        monkeypatch.setenv(name, value)
    keyrings.in_use(monkeypatch).passwords[results.server.url, "here"] = results.server.auth_token

    fs = St4sdFileSystem(context="here")

    assert fs.cat_file(f"{results.run}/Energies") == ENERGIES
    assert json.loads(fs.to_json())["context"] == "here"
    assert results.server.auth_token not in fs.to_json()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({}, "ST4SD_URL is not set"),
        ({"api_key": "x"}, "deployment is missing"),
        ({"deployment": "https://a.example", "api_key": "x", "api_key_file": "y"}, "not both"),
        ({"deployment": "https://a.example", "api_key": b"x"}, "must be a string"),
        ({"deployment": "http://a.example", "api_key": "x"}, "clear text"),
        ({"context": "a", "deployment": "https://a.example"}, "pass no others"),
        ({"deployment": "nonsense"}, "must look like"),
    ],
)
def test_invalid_options_are_an_error_at_once(options: dict[str, Any], text: str) -> None:
    """Of the same class as for a client."""
    with pytest.raises(ConfigError, match=text):
        fsspec.filesystem("st4sd", **options, skip_instance_cache=True)


# Threads and processes


def test_threads_share_one_connection(results: Results) -> None:
    """Although fsspec gives each thread a filesystem of its own."""
    barrier, server = threading.Barrier(4), results.server
    key_file = Path(f"{results.key_file}2")
    key_file.write_text(server.api_key)
    options: dict[str, Any] = {"deployment": server.url, "api_key_file": key_file}
    St4sdFileSystem(**options).exists(results.run)
    before = server.traffic["GET /url-map/"].requests

    def read(_: int) -> Any:
        barrier.wait()
        fs = fsspec.filesystem("st4sd", **options)
        return fs.cat_file(f"{results.run}/Energies"), id(fs)

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(read, range(4)))

    assert {content for content, _ in found} == {ENERGIES}
    assert len({identity for _, identity in found}) == 4
    assert server.traffic["GET /url-map/"].requests == before


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # threads and fork
def test_a_filesystem_connects_again_after_a_fork(results: Results, fs: St4sdFileSystem) -> None:
    """One that was in use, and one that is made there."""
    path = f"{results.run}/Energies"
    assert fs.cat_file(path) == ENERGIES
    context = multiprocessing.get_context("fork")
    received, sent = context.Pipe(duplex=False)
    process = context.Process(target=_read_in_child, args=(sent, fs, path, results.options))

    process.start()
    sent.close()
    found = received.recv()
    process.join()

    assert found == [ENERGIES, ENERGIES]
    assert fs.cat_file(path) == ENERGIES


def _read_in_child(sent: Any, fs: St4sdFileSystem, path: str, options: dict[str, Any]) -> None:
    sent.send([fs.cat_file(path), fsspec.filesystem("st4sd", **options).cat_file(path)])


def test_the_names_of_files_of_a_finished_run_are_requested_once(
    results: Results, fs: St4sdFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the runs that were read last."""
    monkeypatch.setattr("st4sd_async._results.result_tree.MAX_CACHED_RUNS", 1)
    folders = [f"{run}/components" for run in (results.start(), results.start())]

    def queries(folder: str) -> int:
        before = results.server.traffic[QUERY].requests
        assert len(fs.ls(folder)) == 2
        return results.server.traffic[QUERY].requests - before

    assert [queries(folders[index]) for index in (0, 0, 1, 0)] == [2, 0, 2, 2]


def test_a_run_that_is_not_over_has_files_of_components_that_are(results: Results, fs: St4sdFileSystem) -> None:
    """Their names are not kept."""
    server = results.server
    server.outcome("demo", "stuck", times=1)
    run = results.start()

    assert fs.ls(f"{run}/{COMPONENT}") == []
    with pytest.raises(FileNotFoundError, match="once it is over"):
        fs.open(f"{run}/{COMPONENT}/energies.csv")
    with pytest.raises(FileNotFoundError, match="others may appear until the run is over"):
        fs.open(f"{run}/Energies")


def test_files_of_components_are_waited_for(results: Results, fs: St4sdFileSystem) -> None:
    """The documents of a run come 10 to 20 s after its end, as for `Client.download_files`."""
    with Client(results.server.url, api_key=results.server.api_key) as client:
        run = str(client.start("demo", inputs={"molecules.csv": "smiles\nCO\nCCO\n"}))
    before = results.server.traffic[QUERY].requests

    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(fs.cat_file, f"{run}/{COMPONENT}/energies.csv")
        while results.server.traffic[QUERY].requests == before and not reading.done():
            time.sleep(0.01)
        results.server.advance(100)

        assert reading.result() == ENERGIES


@pytest.mark.slow
def test_a_filesystem_that_is_dropped_ends_its_thread(results: Results) -> None:
    """It has no method to close it, as other filesystems have none."""
    before = set(loops())
    login = {"deployment": results.server.url, "auth_token": results.server.auth_token}
    fs = fsspec.filesystem("st4sd", **login, skip_instance_cache=True)
    assert fs.exists(results.run)
    (thread,) = set(loops()) - before

    del fs
    gc.collect()
    thread.join(30)

    assert not thread.is_alive()
