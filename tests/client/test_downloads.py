"""Downloads through sockets: what the docstrings of the verbs promise, sentence by sentence."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import zipfile
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest

from st4sd_async import (
    APIError,
    Client,
    Config,
    ConfigError,
    Download,
    DownloadError,
    DownloadFailed,
    NotFound,
    NotReady,
    RetryPolicy,
    Run,
    ServerError,
    St4sdError,
    Step,
    UnknownOutput,
    UnknownRun,
)
from st4sd_async._ledger import NAME
from st4sd_async._resources.documents import upsert_calls
from st4sd_async.local import BadJson, CutBody, Delay, Html, LocalServer, Reply
from tests.conftest import FakeClock
from tests.faults.raw import Exchange, RawServer, after, reply

pytestmark = pytest.mark.anyio

INPUTS = [{"filename": "molecules.csv", "content": "index,smiles\n0,CCO\n1,NAN\n2,CCCC\n"}]
JSON = {"Content-Type": "application/json"}
MIB = 1 << 20

FILES, ARCHIVE = "POST /ds-gateway/files/api/v1.1", "GET /ds-gateway/experiment/download"
REGISTRY, QUERY = "POST /ds-registry/gateways/api/v1.0/unique_ids", "POST /ds-mongodb-proxy/documents/api/v1.0/query"
OUTPUT = "GET /instances/*/outputs/*"
GATEWAY = "example-cluster"

COMPUTE, REPORT = "stages/stage0/Compute", "stages/stage1/Report"
DEMO = [
    f"{COMPUTE}/energies.csv",
    f"{COMPUTE}/molecules.csv",
    f"{COMPUTE}/out.stderr",
    f"{COMPUTE}/out.stdout",
    f"{REPORT}/out.stderr",
    f"{REPORT}/out.stdout",
    f"{REPORT}/results/sub/b.bin",
    f"{REPORT}/results/summary.json",
]
"""What the components of the demo leave."""


class ServersClock(FakeClock):
    """A clock that takes the server's along."""

    server: LocalServer

    async def sleep(self, seconds: float) -> None:
        await super().sleep(seconds)
        await self.server.advance(seconds)


@pytest.fixture
def server() -> Any:
    """A server whose time stands still until it is moved."""
    with LocalServer(speed=0, slots=64) as running:
        yield running


@pytest.fixture
def clock(server: LocalServer) -> ServersClock:
    """A clock that both sides go by."""
    clock = ServersClock()
    clock.server = server
    return clock


@pytest.fixture
async def client(server: LocalServer, clock: ServersClock) -> AsyncIterator[Client]:
    """A client whose pauses take no time."""
    config = Config(clock=clock, retry=RetryPolicy(attempts=2))
    async with Client(server.url, api_key=server.api_key, config=config) as opened:
        await opened.push(server.example("demo"))
        yield opened


async def start(client: Client, server: LocalServer, outcome: str = "success", inputs: Any = INPUTS) -> Run:
    """A run of the demo."""
    server.outcome("demo", outcome, times=1)
    return await client.start("demo", {"inputs": inputs})


async def finished(client: Client, server: LocalServer, outcome: str = "success", inputs: Any = INPUTS) -> Run:
    """A run that is over, and known to be."""
    run = await start(client, server, outcome, inputs)
    await server.advance(100)
    return run


async def described(client: Client, server: LocalServer, **outputs: bytes | dict[str, bytes]) -> Run:
    """A finished run of an experiment with these key-outputs."""
    server.describe("toy", outputs=outputs)
    location = {"url": "https://git.example/toy.git", "tag": "1"}
    package = {"base": {"packages": [{"source": {"git": {"location": location}}}]}, "parameterisation": {}}
    await client.push({**package, "metadata": {"package": {"name": "toy"}}})
    run = await client.start("toy")
    await server.advance(100)
    return run


async def running(client: Client, server: LocalServer) -> Run:
    """A run that goes on, and is known to the datastore."""
    return await finished(client, server, "stuck")


def directory(server: LocalServer, run: Run) -> Path:
    """The instance directory at the server."""
    found = server.directory(run.id)
    assert found is not None
    return found


def uri(server: LocalServer, run: Run) -> str:
    """What documents call the run."""
    return f"file://{GATEWAY}{directory(server, run)}"


def tree(target: Path) -> dict[str, bytes]:
    """All files below a folder but the ledger: what is not whole would be seen."""
    found = {str(path.relative_to(target)): path for path in sorted(target.rglob("*")) if path.is_file()}
    return {name: path.read_bytes() for name, path in found.items() if path.name != NAME}


def listed(target: Path) -> list[str]:
    """What is in a folder, hidden things too."""
    return sorted(path.name for path in target.iterdir())


def names(outcomes: list[Download | DownloadFailed], target: Path) -> list[str]:
    """Where files are, below the folder."""
    return [str(one.path.relative_to(target)) for one in whole(outcomes)]


def whole(outcomes: list[Download | DownloadFailed]) -> list[Download]:
    """The outcomes, if all are good and tell the truth."""
    for one in outcomes:
        assert isinstance(one, Download), one
        content = one.path.read_bytes()
        assert (one.size, one.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    return [one for one in outcomes if isinstance(one, Download)]


def failures(outcomes: list[Download | DownloadFailed]) -> list[DownloadFailed]:
    """Those that could not be had."""
    return [one for one in outcomes if isinstance(one, DownloadFailed)]


async def asked(server: LocalServer, kind: str, action: Awaitable[Any]) -> int:
    """How many requests of a kind something took."""
    before = server.traffic[kind].requests
    await action
    return server.traffic[kind].requests - before


# read_file


async def test_a_file_is_read_by_any_name_of_the_run_and_either_path(client: Client, server: LocalServer) -> None:
    """A handle, an id or a location; relative or absolute, as documents have it."""
    run = await finished(client, server)
    absolute = (await run.components())[0].files[0]
    content = (directory(server, run) / DEMO[0]).read_bytes()

    for same in (run, run.id, uri(server, run), f"{uri(server, run)}/"):
        for path in (f"{COMPUTE}/energies.csv", absolute):
            assert await client.read_file(same, path) == content
    assert await run.read_file("output/experiment.log") != b""
    assert await run.read_file(f"{COMPUTE}/out.stderr") == b""


@pytest.mark.parametrize("path", ["", "../x", "a/../b", "/etc/passwd", "./a", "a//b", "a/"])
async def test_a_path_that_leads_elsewhere_is_not_asked_for(client: Client, server: LocalServer, path: str) -> None:
    """It is an error of whoever calls; of a location nothing at all is asked."""
    run = await finished(client, server)
    before = len(server.requests)

    with pytest.raises(ValueError, match="relative to the instance"):
        await client.read_file(uri(server, run), path)
    assert len(server.requests) == before

    with pytest.raises(ValueError, match="relative to the instance"):
        await run.read_file(path)
    assert server.traffic[FILES].requests == 0


async def test_what_is_not_there_cannot_be_read(client: Client, server: LocalServer) -> None:
    """A file, an instance and a gateway; the message names them."""
    run = await finished(client, server)

    with pytest.raises(NotFound, match="output/ghost"):
        await run.read_file("output/ghost")
    with pytest.raises(NotFound, match=r"ghost\.instance"):
        await client.read_file(f"file://{GATEWAY}/ghost.instance", "x")
    with pytest.raises(NotFound, match="'elsewhere'"):
        await client.read_file("file://elsewhere/ghost.instance", "x")
    with pytest.raises(UnknownRun):
        await client.read_file("ghost-abcdefgh", "x")


async def test_a_file_may_have_so_many_bytes(client: Client, server: LocalServer) -> None:
    """Just the limit will do; one more will not, however small it was packed, and it is not received in full."""
    run = await finished(client, server)
    folder = directory(server, run) / COMPUTE
    (folder / "zeros").write_bytes(bytes(MIB))
    (folder / "noise").write_bytes(os.urandom(MIB))

    assert await run.read_file(f"{COMPUTE}/zeros", limit=MIB) == bytes(MIB)
    assert len(await run.read_file(f"{COMPUTE}/noise", limit=MIB)) == MIB
    for name in ("zeros", "noise"):
        with pytest.raises(DownloadError, match=f"larger than limit={MIB - 1}"):
            await run.read_file(f"{COMPUTE}/{name}", limit=MIB - 1)


async def test_a_gateway_gives_nothing_of_more_than_32_mib(client: Client, server: LocalServer) -> None:
    """Just as much will do."""
    run = await finished(client, server)
    folder = directory(server, run) / COMPUTE
    for name, size in (("most", 32 * MIB), ("more", 32 * MIB + 1)):
        (folder / name).touch()
        os.truncate(folder / name, size)

    assert len(await run.read_file(f"{COMPUTE}/most")) == 32 * MIB
    with pytest.raises(DownloadError, match="larger than the 32 MiB"):
        await run.read_file(f"{COMPUTE}/more", limit=64 * MIB)


async def test_a_file_that_came_damaged_is_no_content(client: Client, server: LocalServer) -> None:
    """Half an archive is an error; one that breaks off is asked for again."""
    run = await finished(client, server)

    server.faults.add(FILES, CutBody(50))
    assert (await run.read_file(f"{COMPUTE}/energies.csv")).startswith(b"input-id")
    server.faults.add(FILES, BadJson(), times=None)
    with pytest.raises(DownloadError):
        await run.read_file(f"{COMPUTE}/energies.csv")


async def test_a_file_of_a_running_run_is_read_as_it_is_now(client: Client, server: LocalServer) -> None:
    """Nobody waits for the end."""
    run = await running(client, server)

    assert await run.read_file("input/molecules.csv") == INPUTS[0]["content"].encode()


async def test_where_a_run_is_is_waited_for(client: Client, server: LocalServer, clock: ServersClock) -> None:
    """Its documents come 10 s after it began; if they do not come, that is no missing file."""
    run = await start(client, server)
    assert await run.read_file("input/molecules.csv") == INPUTS[0]["content"].encode()
    assert 10 <= sum(clock.slept) <= 20

    server.outcome("demo", "success", times=1, stretch=1000)
    slow = await client.start("demo", {"inputs": INPUTS})
    with pytest.raises(NotReady, match=slow.id):
        await slow.read_file("input/molecules.csv")


# download_files


async def test_files_are_laid_out_as_in_the_instance(client: Client, server: LocalServer, tmp_path: Path) -> None:
    """By stages and components, each told with its size, checksum and source; beside them only the ledger."""
    run = await finished(client, server)
    source = directory(server, run)

    found = await run.download_files(tmp_path / "new" / "folder")

    target = tmp_path / "new" / "folder"
    assert names(found, target) == DEMO
    assert tree(target) == {name: (source / name).read_bytes() for name in DEMO}
    assert [one.source for one in found] == [f"file://{GATEWAY}{source}/{name}" for name in DEMO]
    assert listed(target) == [NAME, "stages"]


@pytest.mark.parametrize("kind", ["handle", "id", "location", "text"])
async def test_a_run_may_be_given_in_many_ways(
    client: Client, server: LocalServer, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the folder too: as a path, as a text, relative."""
    run = await finished(client, server)
    monkeypatch.chdir(tmp_path)
    given: Run | str = {"id": run.id, "location": uri(server, run)}.get(kind) or run
    target: Path | str = "here" if kind == "text" else Path("here")

    found = await client.download_files(given, target)

    assert names(found, Path("here")) == DEMO


FILTERS: list[tuple[dict[str, Any], list[str]]] = [
    ({}, DEMO),
    ({"component": "Comp.*"}, DEMO[:4]),
    ({"component": "o"}, DEMO),
    ({"component": "^Report$"}, DEMO[4:]),
    ({"component": "stage0.Comp"}, DEMO[:4]),
    ({"component": "stage1..*"}, DEMO[4:]),
    ({"stage": 0}, DEMO[:4]),
    ({"stage": 1, "component": "Rep"}, DEMO[4:]),
    ({"filename": r"\.csv$"}, DEMO[:2]),
    ({"filename": "^energies.csv$"}, DEMO[:1]),
    ({"filename": "^results/.*json"}, DEMO[7:]),
    ({"filename": "stage1/Report/out"}, DEMO[4:6]),
    ({"filename": "^/.*b.bin$"}, DEMO[6:7]),
    ({"filename": "out.std(err|out)", "stage": 0}, DEMO[2:4]),
    ({"filename": ""}, DEMO),
    ({"filename": "^nothing like that$"}, []),
]


@pytest.mark.parametrize(("chosen", "expected"), FILTERS, ids=[str(chosen) for chosen, _ in FILTERS])
async def test_files_are_chosen(
    client: Client, server: LocalServer, tmp_path: Path, chosen: dict[str, Any], expected: list[str]
) -> None:
    """By expressions, references and stages; [] if none fits."""
    run = await finished(client, server)

    found = await run.download_files(tmp_path, **chosen)

    assert names(found, tmp_path) == sorted(tree(tmp_path)) == expected


async def test_filters_that_make_no_sense_send_nothing(client: Client, server: LocalServer, tmp_path: Path) -> None:
    """They are told before anything is asked, and before a folder is made."""
    before = len(server.requests)

    wrongs: list[dict[str, Any]] = [
        {"component": "stage0.A", "stage": 0},
        {"component": "("},
        {"filename": "["},
        {"stage": -1},
    ]
    for wrong in wrongs:
        with pytest.raises(ValueError, match=r"leave out|no regular expression|whole number"):
            await client.download_files("demo-abcdefgh", tmp_path / "new", **wrong)

    assert len(server.requests) == before
    assert listed(tmp_path) == []


@pytest.mark.parametrize("wrong", [{"component": "Ghost"}, {"stage": 7}, {"component": "stage1.Compute"}])
async def test_if_no_component_is_meant_those_that_are_there_are_named(
    client: Client, server: LocalServer, tmp_path: Path, wrong: dict[str, Any]
) -> None:
    """It is an error: [] means that a component left no such file."""
    run = await finished(client, server)

    with pytest.raises(NotFound, match=r"\['stage0.Compute', 'stage1.Report'\]"):
        await run.download_files(tmp_path, **wrong)


async def test_nothing_is_fetched_again(client: Client, server: LocalServer, tmp_path: Path) -> None:
    """What came from the same place and is as it was is known, by another client and through other filters too."""
    run = await finished(client, server)
    first = await run.download_files(tmp_path)

    async with Client(server.url, api_key=server.api_key) as other:
        for given in (run.id, uri(server, run)):
            assert await asked(server, FILES, other.download_files(given, str(tmp_path))) == 0
        again = await other.download_files(run.id, tmp_path)
        some = await other.download_files(run.id, tmp_path, filename=r"\.csv$")

    assert again == first
    assert some == first[:2]
    assert server.traffic[ARCHIVE].requests == 0


async def test_what_was_changed_or_removed_is_fetched_again(
    client: Client, server: LocalServer, tmp_path: Path
) -> None:
    """And only that."""
    run = await finished(client, server)
    (directory(server, run) / COMPUTE / "large").write_bytes(os.urandom(MIB))
    first = await run.download_files(tmp_path)
    original = tree(tmp_path)
    (tmp_path / DEMO[0]).write_bytes(original[DEMO[0]][::-1])
    os.utime(tmp_path / DEMO[0], ns=(0, 0))
    (tmp_path / DEMO[6]).unlink()
    before = server.traffic[FILES].sent

    again = await run.download_files(tmp_path)

    assert tree(tmp_path) == original
    assert again == first
    assert 0 < server.traffic[FILES].sent - before < MIB


async def test_new_files_join_those_that_are_there(client: Client, server: LocalServer, tmp_path: Path) -> None:
    """A wider choice fetches only what is missing; files of others stay."""
    run = await finished(client, server)
    (tmp_path / "notes.txt").write_bytes(b"mine")
    await run.download_files(tmp_path, stage=0)

    found = await run.download_files(tmp_path)

    assert names(found, tmp_path) == DEMO
    assert sorted(tree(tmp_path)) == ["notes.txt", *DEMO]


async def test_files_of_two_runs_are_never_mixed_up(client: Client, server: LocalServer, tmp_path: Path) -> None:
    """In one folder each call leaves the files of its own run, however often they take turns."""
    inputs = [[{"filename": "molecules.csv", "content": f"smiles\n{name}\n"}] for name in ("CO", "CN")]
    runs = [await finished(client, server, inputs=one) for one in inputs]
    sources = [directory(server, run) for run in runs]
    assert (sources[0] / DEMO[1]).stat().st_size == (sources[1] / DEMO[1]).stat().st_size

    for index in (0, 1, 0, 0, 1, 1):
        found = await runs[index].download_files(tmp_path)

        assert names(found, tmp_path) == DEMO
        assert {one.source for one in found} == {f"file://{GATEWAY}{sources[index]}/{name}" for name in DEMO}
        assert tree(tmp_path) == {name: (sources[index] / name).read_bytes() for name in DEMO}


async def test_what_a_gateway_leaves_out_comes_with_its_component(
    client: Client, server: LocalServer, tmp_path: Path
) -> None:
    """A file over 32 MiB is taken from the archive of its component, without the other files of it, and only once."""
    run = await finished(client, server)
    large = directory(server, run) / REPORT / "results" / "large"
    large.touch()
    os.truncate(large, 32 * MIB + 1)

    assert await asked(server, ARCHIVE, run.download_files(tmp_path, filename="large$")) == 1

    assert list(tree(tmp_path)) == [f"{REPORT}/results/large"]
    assert (tmp_path / f"{REPORT}/results/large").stat().st_size == 32 * MIB + 1
    assert await asked(server, ARCHIVE, run.download_files(tmp_path)) == 0
    assert len(tree(tmp_path)) == 9


async def test_a_file_that_is_gone_does_not_hide_the_others(
    client: Client, server: LocalServer, tmp_path: Path
) -> None:
    """It is in its place in the list; with ``strict`` it is an error when all others are there."""
    run = await finished(client, server)
    source = directory(server, run)
    (document, *_) = await run.components()
    gone = document.raw | {"files": [f"{document.location}/a-ghost", *document.files]}
    for call in upsert_calls(await client._documents(), [gone]):
        await client._send(call)

    found = await run.download_files(tmp_path / "a")
    with pytest.raises(NotFound, match=r"stage0\.Compute lists it") as error:
        await run.download_files(tmp_path / "b", strict=True)

    failed = found[0]
    assert isinstance(failed, DownloadFailed)
    assert failed.path == tmp_path / "a" / COMPUTE / "a-ghost"
    assert failed.source == f"file://{GATEWAY}{source}/{COMPUTE}/a-ghost"
    assert isinstance(failed.error, NotFound)
    assert names(found[1:], tmp_path / "a") == DEMO
    assert sorted(tree(tmp_path / "a")) == sorted(tree(tmp_path / "b")) == DEMO
    assert error.value.__notes__ == [f"1 of 9 downloads failed, this one from {failed.source}"]


async def test_what_cannot_have_its_name_here_is_told(client: Client, server: LocalServer, tmp_path: Path) -> None:
    """A name with a control character, and a file that is not in the directory of its run."""
    run = await finished(client, server)
    (document, *_) = await run.components()
    wrong = [f"{document.location}/a\nb", "/etc/passwd", f"{document.location}/../../../../x"]
    for call in upsert_calls(await client._documents(), [document.raw | {"files": [*wrong, *document.files]}]):
        await client._send(call)

    found = await run.download_files(tmp_path, stage=0)

    assert [one.source for one in failures(found)] == [f"file://{GATEWAY}{path}" for path in wrong]
    assert names(found[3:], tmp_path) == sorted(tree(tmp_path)) == DEMO[:4]


async def test_a_file_is_under_its_name_only_when_it_is_whole(
    client: Client, server: LocalServer, tmp_path: Path
) -> None:
    """What had that name stays until then; repeated, the call goes on where it was."""
    run = await finished(client, server)
    old = tmp_path / DEMO[0]
    old.parent.mkdir(parents=True)
    old.write_bytes(b"old")
    server.faults.add(FILES, CutBody(60), times=None)

    failed = await run.download_files(tmp_path)

    assert len(failures(failed)) == len(DEMO)
    assert tree(tmp_path) == {DEMO[0]: b"old"}
    server.faults.clear()
    assert names(await run.download_files(tmp_path), tmp_path) == DEMO
    assert tree(tmp_path)[DEMO[0]] != b"old"


async def test_there_can_be_no_such_folder(client: Client, server: LocalServer, tmp_path: Path) -> None:
    """For all of the verbs it is one error, and nothing is left."""
    run = await described(client, server, Energies=b"1")
    (tmp_path / "file").write_bytes(b"mine")

    for target in (tmp_path / "file", tmp_path / "file" / "below"):
        for verb in (run.download_files, run.download_outputs, partial(run.download_component, 0, "Compute")):
            with pytest.raises(DownloadError, match="cannot be stored"):
                await verb(target)

    assert tree(tmp_path) == {"file": b"mine"}


async def test_nothing_is_left_if_the_ledger_cannot_be_read(
    client: Client, server: LocalServer, tmp_path: Path
) -> None:
    """The folder will not do, and is as it was."""
    run = await finished(client, server)
    (tmp_path / NAME).mkdir()

    with pytest.raises(DownloadError):
        await run.download_files(tmp_path)

    assert listed(tmp_path) == [NAME]


async def test_some_names_that_are_taken_do_not_hide_other_files(
    client: Client, server: LocalServer, tmp_path: Path
) -> None:
    """Six links, where a user has put results elsewhere, fail; the other files of hundreds are there."""
    run = await finished(client, server)
    for number in range(200):
        (directory(server, run) / COMPUTE / f"f{number}").write_text(str(number))
    taken = [tmp_path / COMPUTE / f"f{number}" for number in (3, 40, 60, 110, 160, 190)]
    taken[0].parent.mkdir(parents=True)
    for path in taken:
        path.symlink_to(tmp_path / "elsewhere")

    found = await run.download_files(tmp_path, filename=r"^f\d+$")

    assert sorted(one.path for one in failures(found)) == sorted(taken)


async def test_names_that_do_not_fit_into_a_request_are_asked_for_in_several(
    client: Client, server: LocalServer, tmp_path: Path
) -> None:
    """A request may have 1 MiB, and 1,000 long names have more."""
    run = await finished(client, server)
    folder = directory(server, run) / COMPUTE / "/".join("d" * 200 for _ in range(4))
    folder.mkdir(parents=True)
    for number in range(1300):
        (folder / f"f{number}").write_text(str(number))

    found = await run.download_files(tmp_path, filename=r"/f\d+$")

    assert len(whole(found)) == 1300


async def test_names_that_differ_only_in_case_are_different(
    client: Client, server: LocalServer, tmp_path: Path
) -> None:
    """Where the file system tells them apart, all of them come."""
    run = await finished(client, server)
    for letter in "abcdefghijklmnopqrstuvwxyz":
        for name in (letter, letter.upper()):
            (directory(server, run) / COMPUTE / f"{name}.xyz").write_text(name)

    found = await run.download_files(tmp_path, filename=r"\.xyz$")

    assert {one.path.stem: one.path.read_text() for one in whole(found)} == {
        one.path.stem: one.path.stem for one in found
    }
    assert len(found) == 52


async def test_of_a_run_that_goes_on_there_are_the_components_that_are_over(
    client: Client, server: LocalServer, tmp_path: Path
) -> None:
    """Those that run have no files yet, and nobody waits for them; when they are over, they have."""
    run = await running(client, server)
    assert await run.download_files(tmp_path) == []

    (document, *_) = await run.components()
    log = directory(server, run) / COMPUTE / "out.stdout"
    log.parent.mkdir(parents=True)
    log.write_bytes(b"done")
    over = document.raw | {"component-state": "finished", "files": [str(log)]}
    for call in upsert_calls(await client._documents(), [over]):
        await client._send(call)

    assert names(await run.download_files(tmp_path), tmp_path) == [f"{COMPUTE}/out.stdout"]


async def test_documents_that_are_late_are_waited_for(
    client: Client, server: LocalServer, tmp_path: Path, clock: ServersClock
) -> None:
    """A run that has just ended has all its files; where there is no run, there are no documents."""
    run = await start(client, server)
    await server.advance(6)
    assert (await run.status()).is_final

    found = await run.download_files(tmp_path)

    assert names(found, tmp_path) == DEMO
    assert 5 < sum(clock.slept) <= 20
    with pytest.raises(NotReady, match="no documents of the components"):
        await client.download_files(f"file://{GATEWAY}/ghost.instance", tmp_path)


async def test_the_documents_of_a_location_are_waited_for_too(
    client: Client, server: LocalServer, tmp_path: Path
) -> None:
    """A run that is over is never told to have left nothing, whatever it is called by."""
    run = await start(client, server)
    await server.advance(12)
    assert (await run.status()).is_final
    (early,) = await client.datastore.experiments(rest_uid=run.id)
    assert not early.status.is_final

    found = await client.download_files(early.instance, tmp_path)

    assert names(found, tmp_path) == DEMO


async def test_runs_without_documents_are_told_apart(client: Client, server: LocalServer, tmp_path: Path) -> None:
    """Never, not yet and unknown; nothing is written."""
    failed = await finished(client, server, "setup-failure")
    server.outcome("demo", "success", times=1, stretch=1000)
    slow = await client.start("demo", {"inputs": INPUTS})

    for run, expected in ((failed, NotFound), (slow, NotReady), (client.run("ghost"), UnknownRun)):
        for verb in (run.download_files, partial(run.download_component, 0, "Compute")):
            with pytest.raises(expected) as error:
                await verb(tmp_path / "new")
            assert type(error.value) is expected

    assert tree(tmp_path) == {}


async def test_a_run_whose_component_failed_has_files(client: Client, server: LocalServer, tmp_path: Path) -> None:
    """They tell why."""
    await client.push(server.example("fail"))
    run = await client.start("fail")
    await server.advance(100)

    found = await run.download_files(tmp_path, component="Boom", filename="stdout")

    assert [one.path.read_bytes() for one in whole(found)] == [b"about to fail\n"]


async def test_files_outlive_their_run_and_outputs_do_not(client: Client, server: LocalServer, tmp_path: Path) -> None:
    """Documents and directories stay when a run is deleted."""
    run = await finished(client, server)
    await run.delete()

    assert names(await run.download_files(tmp_path / "a"), tmp_path / "a") == DEMO
    assert len(whole(await run.download_component(0, "Compute", tmp_path / "b"))) == 4
    assert await run.read_file("input/molecules.csv") == INPUTS[0]["content"].encode()
    with pytest.raises(UnknownRun):
        await run.download_outputs(tmp_path / "c")


# download_component


async def test_a_component_is_fetched_as_a_whole(client: Client, server: LocalServer, tmp_path: Path) -> None:
    """What is in its directory is in the folder; empty folders are lost, other files there stay."""
    run = await finished(client, server)
    source = directory(server, run) / REPORT
    (source / "empty").mkdir()
    (source / "ü b.txt").write_bytes(b"1")
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "mine").write_bytes(b"2")
    (tmp_path / "new" / "out.stdout").write_bytes(b"old")

    found = await run.download_component(1, "Report", str(tmp_path / "new"))

    assert tree(tmp_path / "new") == {**tree(source), "mine": b"2"}
    assert sorted(names(found, tmp_path / "new")) == sorted(tree(source))
    assert not (tmp_path / "new" / "empty").exists()
    uris = {one.source.removeprefix(f"{uri(server, run)}/{REPORT}/") for one in found}
    assert uris == set(tree(source))


async def test_a_component_that_is_there_is_not_fetched_again(
    client: Client, server: LocalServer, tmp_path: Path
) -> None:
    """Unless one of its files is changed or gone, and by its location too."""
    run = await finished(client, server)
    first = await run.download_component(1, "Report", tmp_path)
    for given in (run.id, uri(server, run)):
        assert await client.download_component(given, 1, "Report", tmp_path) == first
    assert server.traffic[ARCHIVE].requests == 1

    (tmp_path / "out.stdout").write_bytes(b"changed")
    assert await run.download_component(1, "Report", tmp_path) == first
    whole(first)
    assert server.traffic[ARCHIVE].requests == 2


async def test_a_component_that_runs_is_fetched_as_it_is_now(
    client: Client, server: LocalServer, tmp_path: Path
) -> None:
    """Each time anew."""
    run = await running(client, server)
    log = directory(server, run) / COMPUTE / "out.stdout"
    log.parent.mkdir(parents=True)

    for content in (b"1", b"2", b"3"):
        log.write_bytes(content)
        (found,) = whole(await run.download_component(0, "Compute", tmp_path))
        assert found.path.read_bytes() == content


async def test_a_directory_without_files_is_empty(client: Client, server: LocalServer, tmp_path: Path) -> None:
    """That is no failure."""
    run = await running(client, server)
    (directory(server, run) / COMPUTE / "sub").mkdir(parents=True)

    assert await run.download_component(0, "Compute", tmp_path, strict=True) == []
    assert tree(tmp_path) == {}


@pytest.mark.parametrize(("stage", "name"), [(0, "Comp"), (0, "compute"), (1, "Compute"), (7, "Compute"), (0, "C.*")])
async def test_the_name_of_a_component_is_exact(
    client: Client, server: LocalServer, tmp_path: Path, stage: int, name: str
) -> None:
    """What is not there is one failure, which names those that are; with ``strict`` it is raised."""
    run = await finished(client, server)

    (failed,) = failures(await run.download_component(stage, name, tmp_path))
    with pytest.raises(NotFound):
        await run.download_component(stage, name, tmp_path, strict=True)

    assert failed.path == tmp_path
    assert failed.source == f"{uri(server, run)}/stages/stage{stage}/{name}"
    assert isinstance(failed.error, NotFound)
    assert failed.error.advice is not None
    assert "['stage0.Compute', 'stage1.Report']" in failed.error.advice
    assert tree(tmp_path) == {}


@pytest.mark.parametrize("fault", [CutBody(300), BadJson(), Html(502)], ids=["cut", "half", "502"])
async def test_a_component_comes_whole_or_not_at_all(
    client: Client, server: LocalServer, tmp_path: Path, fault: Any
) -> None:
    """One failure for all of it; what was there is as it was, and a repeated call completes."""
    run = await finished(client, server)
    (tmp_path / "out.stdout").write_bytes(b"old")
    server.faults.add(ARCHIVE, fault, times=None)

    (failed,) = await run.download_component(1, "Report", tmp_path)

    assert isinstance(failed, DownloadFailed)
    assert isinstance(failed.error, St4sdError)
    assert tree(tmp_path) == {"out.stdout": b"old"}
    server.faults.clear()
    assert len(whole(await run.download_component(1, "Report", tmp_path))) == 4


async def test_a_ledger_in_a_component_does_not_replace_that_of_the_folder(
    client: Client, server: LocalServer, tmp_path: Path
) -> None:
    """A component that downloads something with this library leaves one in its directory."""
    run = await finished(client, server)
    (directory(server, run) / COMPUTE / NAME).write_text("{}\n")
    await run.download_component(0, "Compute", tmp_path)

    assert await asked(server, ARCHIVE, run.download_component(0, "Compute", tmp_path)) == 0


async def test_a_workspace_in_a_component_is_not_removed_from_the_folder(
    client: Client, server: LocalServer, tmp_path: Path
) -> None:
    """A component that was killed while it downloaded something leaves one in its directory."""
    run = await finished(client, server)
    left = directory(server, run) / COMPUTE / ".st4sd-abc.part"
    left.mkdir()
    (left / "0").write_bytes(b"1")
    found = await run.download_component(0, "Compute", tmp_path)

    await run.download_files(tmp_path, filename="energies")

    assert len(whole(found)) == 5


# download_outputs


async def test_outputs_are_in_folders_of_their_names(client: Client, server: LocalServer, tmp_path: Path) -> None:
    """A file as it is, a folder as its archive; sizes, checksums and sources are told."""
    run = await finished(client, server)
    source = directory(server, run)

    found = await run.download_outputs(tmp_path)

    assert names(found, tmp_path) == ["Energies/energies.csv", "Folder/results.zip"]
    assert [one.source for one in found] == [f"{run.id}/outputs/Energies", f"{run.id}/outputs/Folder"]
    assert (tmp_path / "Energies/energies.csv").read_bytes() == (source / DEMO[0]).read_bytes()
    with zipfile.ZipFile(tmp_path / "Folder/results.zip") as archive:
        assert archive.namelist() == ["/sub/b.bin", "/summary.json"]
    assert listed(tmp_path) == [NAME, "Energies", "Folder"]


async def test_folders_are_unpacked_on_request(client: Client, server: LocalServer, tmp_path: Path) -> None:
    """Each file of them is told; a file that is an archive stays one."""
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
    assert "may come" in str(failed.error.advice)
    with pytest.raises(UnknownRun):
        await client.download_outputs("ghost-abcdefgh", tmp_path)


@pytest.mark.parametrize("unpack", [False, True])
async def test_outputs_that_are_there_are_not_fetched_again(
    client: Client, server: LocalServer, tmp_path: Path, unpack: bool
) -> None:
    """Changed or removed ones are."""
    run = await finished(client, server)
    first = await run.download_outputs(tmp_path, unpack=unpack)
    assert await asked(server, OUTPUT, run.download_outputs(tmp_path, unpack=unpack)) == 0
    assert await run.download_outputs(tmp_path, unpack=unpack) == first

    first[-1].path.unlink()

    assert await asked(server, OUTPUT, run.download_outputs(tmp_path, unpack=unpack)) == 1
    assert len(whole(first)) == len(first)


async def test_a_newer_version_is_fetched(client: Client, server: LocalServer, tmp_path: Path) -> None:
    """Another number or another time, as the service tells them; others are not."""
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

        assert await asked(server, OUTPUT, run.download_outputs(tmp_path)) == 1
        assert await asked(server, OUTPUT, run.download_outputs(tmp_path)) == 0

    assert tree(tmp_path) == {"a/a": b"new", "b/b": b"same"}


async def test_of_an_older_version_nothing_is_left(client: Client, server: LocalServer, tmp_path: Path) -> None:
    """But what somebody has changed since."""
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
    """Nobody can tell whether it is the same."""
    run = await described(client, server, a=b"1")
    server.faults.add("GET /instances/*/outputs$", Reply(200, JSON, b'{"a": {"filename": "a"}}'), times=2)

    for _ in range(2):
        assert await asked(server, OUTPUT, run.download_outputs(tmp_path)) == 1


async def test_an_output_that_the_service_cannot_give_is_elsewhere(
    client: Client, server: LocalServer, tmp_path: Path
) -> None:
    """The error of one of gigabytes says where it may be had; the others are there."""
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
    """Whatever names the service tells of, errors are ours and in their places."""
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

    assert await asked(server, OUTPUT, run.download_outputs(tmp_path, unpack=False)) == 0


# progress


async def test_progress_tells_the_first_the_growing_and_the_last_step(
    client: Client, server: LocalServer, tmp_path: Path
) -> None:
    """For each verb, with what is done in its own unit; what is there already is done at once, without bytes."""
    run = await finished(client, server)
    steps: list[Step] = []
    told = client.with_options(progress=steps.append)
    verbs: list[tuple[str, str, int, Callable[[], Awaitable[Any]]]] = [
        (f"files of {run.id}", "files", 8, lambda: told.download_files(run, tmp_path)),
        (f"stage1.Report of {run.id}", "components", 1, lambda: told.download_component(run, 1, "Report", tmp_path)),
        (f"key-outputs of {run.id}", "key-outputs", 2, lambda: told.download_outputs(run, tmp_path)),
    ]

    for work, unit, total, verb in verbs:
        for is_new in (True, False):
            steps.clear()
            await verb()

            assert {(step.work, step.unit, step.total) for step in steps} == {(work, unit, total)}
            assert (steps[0].done, steps[0].received, steps[0].is_over) == (0, 0, False)
            assert (steps[-1].done, steps[-1].is_over) == (total, True)
            assert [step.is_over for step in steps[:-1]] == [False] * (len(steps) - 1)
            assert [(step.done, step.received) for step in steps] == sorted((s.done, s.received) for s in steps)
            assert (steps[-1].received > 0) == is_new


async def test_progress_counts_bytes_and_failures(client: Client, server: LocalServer, tmp_path: Path) -> None:
    """Bytes grow while one file comes, what came twice counts twice, and what failed is done."""
    run = await finished(client, server)
    (directory(server, run) / COMPUTE / "noise").write_bytes(os.urandom(2 * MIB))
    steps: list[Step] = []
    told = client.with_options(progress=steps.append)

    server.faults.add(FILES, CutBody(MIB))
    await told.download_files(run, tmp_path, filename="noise")
    assert steps[-1].received > 2.2 * MIB  # of what was cut, some may never have been received
    assert len({step.received for step in steps}) > 5

    steps.clear()
    server.faults.add(ARCHIVE, Html(502), times=None)
    await told.download_component(run, 0, "Compute", tmp_path)
    assert (steps[-1].done, steps[-1].total, steps[-1].is_over) == (1, 1, True)


async def test_a_progress_that_raises_does_not_stop_the_work(
    client: Client, server: LocalServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged once, and not called again for that work."""
    run = await finished(client, server)
    steps: list[Step] = []

    def show(step: Step) -> None:
        steps.append(step)
        raise RuntimeError("broken bar")

    found = await client.with_options(progress=show).download_files(run, tmp_path)

    assert names(found, tmp_path) == DEMO
    assert len(steps) == 1
    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == [
        f"progress of files of {run.id} is not shown any more"
    ]


async def test_progress_belongs_to_a_client(server: LocalServer, client: Client, tmp_path: Path) -> None:
    """It is a setting; a client without it tells nothing, and so does one from which it was taken."""
    run = await finished(client, server)
    steps: list[Step] = []
    async with Client(server.url, api_key=server.api_key, config=Config(progress=steps.append)) as told:
        await told.with_options(progress=None).download_outputs(run, tmp_path / "a")
        await client.download_outputs(run, tmp_path / "b")
        assert steps == []

        await told.with_options(timeout=30).download_outputs(run, tmp_path / "c")
        assert steps[-1].is_over


# gateways


async def test_gateways_are_resolved_in_one_request(client: Client, server: LocalServer, clock: ServersClock) -> None:
    """However many tasks want however many of them; known for ten minutes, then asked for again."""
    hosts = {name: {"unique_id": name, "host": f"http://127.0.0.1:1/{name}"} for name in "abc"}
    server.faults.add(REGISTRY, Reply(200, JSON, json.dumps(hosts).encode()), times=None)
    found: list[dict[str, str]] = []

    async def resolve(*ids: str) -> None:
        found.append(await client.gateways.resolve(ids))

    async with anyio.create_task_group() as group:
        for _ in range(20):
            group.start_soon(resolve, "c", "a")
    assert server.traffic[REGISTRY].requests == 1
    assert [list(one.items()) for one in found] == [
        [("c", "http://127.0.0.1:1/c/"), ("a", "http://127.0.0.1:1/a/")]
    ] * 20

    await resolve("b", "a")  # the registry told of b too, although nobody asked
    clock.time += 600
    await resolve("a")
    assert server.traffic[REGISTRY].requests == 1
    clock.time += 1
    await resolve("a", "b")
    await resolve("a")
    await client.with_options(timeout=9).gateways.resolve(("a", "b"))
    assert server.traffic[REGISTRY].requests == 2


async def test_one_request_is_in_flight_while_others_wait(server: LocalServer, client: Client, tmp_path: Path) -> None:
    """Many runs' files are read at once; all of them wait for the same answer."""
    run = await finished(client, server)
    server.faults.add(REGISTRY, Delay(0.03))

    async with anyio.create_task_group() as group:
        for number in range(20):
            group.start_soon(run.read_file, DEMO[number % 8])

    assert server.traffic[REGISTRY].requests == 1


async def test_an_unknown_gateway_is_named(client: Client, server: LocalServer) -> None:
    """Among known ones, which are kept; it may be registered at any time, so it is asked for again."""
    for _ in range(2):
        with pytest.raises(NotFound, match=r"\['ghost'\]"):
            await client.gateways.resolve([GATEWAY, "ghost"])
    assert server.traffic[REGISTRY].requests == 2

    assert await client.gateways.resolve(GATEWAY) == {GATEWAY: f"{server.url}/ds-gateway/"}
    assert await client.gateways.resolve([]) == {}
    assert server.traffic[REGISTRY].requests == 2


async def test_tasks_that_want_an_unknown_gateway_share_the_answer(client: Client, server: LocalServer) -> None:
    """One request serves all who waited for it, whatever it says."""
    errors: list[Exception] = []

    async def resolve() -> None:
        try:
            await client.gateways.resolve(["ghost"])
        except NotFound as error:
            errors.append(error)

    async with anyio.create_task_group() as group:
        for _ in range(10):
            group.start_soon(resolve)

    assert len(errors) == 10
    assert server.traffic[REGISTRY].requests == 1


async def test_a_registry_that_fails_is_an_error_of_the_call(
    client: Client, server: LocalServer, tmp_path: Path
) -> None:
    """A 500 is not asked for again, a 503 is; a later call finds the gateway."""
    run = await finished(client, server)
    server.faults.add(REGISTRY, Reply(500, JSON, b'{"message": "Internal Server Error"}'))

    with pytest.raises(ServerError):
        await run.read_file("input/molecules.csv")
    assert server.traffic[REGISTRY].requests == 1

    server.faults.add(REGISTRY, Html(503))
    assert await run.read_file("input/molecules.csv")
    assert server.traffic[REGISTRY].requests == 3


async def test_a_deployment_without_gateways(server: LocalServer, tmp_path: Path) -> None:
    """Each method says so."""
    server.faults.add("GET /url-map", Reply(200, JSON, json.dumps({"cdb-rest": server.url}).encode()))
    where = f"file://{GATEWAY}/x"
    async with Client(server.url, api_key=server.api_key) as client:
        for asking in (
            client.gateways.resolve([GATEWAY]),
            client.gateways.has_component(where, 0, "A"),
            client.read_file(where, "x"),
        ):
            with pytest.raises(NotFound, match="this deployment has no gateways"):
                await asking


async def test_whether_a_component_has_a_directory(client: Client, server: LocalServer) -> None:
    """The name is exact; of a run that is unknown there no component has one."""
    run = await finished(client, server)
    has = client.gateways.has_component

    assert await has(uri(server, run), 0, "Compute")
    assert not await has(uri(server, run), 1, "Compute")
    assert not await has(uri(server, run), 0, "Comp")
    assert not await has(f"file://{GATEWAY}/ghost", 0, "Compute")
    with pytest.raises(NotFound, match="elsewhere"):
        await has("file://elsewhere/ghost", 0, "Compute")
    with pytest.raises(ValueError, match="the uri of an instance"):
        await has(run.id, 0, "Compute")


# the bound on streams


def archive_of(exchange: Exchange) -> bytes:
    """What a gateway answers that has all files."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for paths in json.loads(exchange.seen.body).values():
            for path in paths:
                archive.writestr(zipfile.ZipInfo(path), b"content")
    return buffer.getvalue()


async def send_all(exchange: Exchange) -> None:
    """Answer with all files that were asked for."""
    await reply(200, archive_of(exchange), media="application/zip")(exchange)


async def test_streams_are_bounded_and_delay_nothing_else(server: LocalServer, clock: ServersClock) -> None:
    """At most `Config.downloads` at once reach a gateway, of all tasks and clients together; requests pass them by."""
    release = anyio.Event()
    config = Config(clock=clock, downloads=3, concurrency=1)
    async with (
        RawServer([after(release, send_all)]) as gateway,  # type: ignore[arg-type] # an event is an event
        Client(server.url, api_key=server.api_key, config=config) as client,
    ):
        entry = {"elsewhere": {"unique_id": "elsewhere", "host": gateway.url}}
        server.faults.add(REGISTRY, Reply(200, JSON, json.dumps(entry).encode()), times=None)
        other = client.with_options(timeout=30)
        contents: list[bytes] = []

        async def read(reader: Client, number: int) -> None:
            contents.append(await reader.read_file("file://elsewhere/x", f"f{number}"))

        async with anyio.create_task_group() as group:
            for number in range(10):
                group.start_soon(read, (client, other)[number % 2], number)
            await gateway.until(lambda: gateway.in_flight == 3)
            with anyio.fail_after(5):
                assert await client.instances.list() == []
            release.set()

    assert contents == [b"content"] * 10
    assert gateway.most_in_flight == 3


@pytest.mark.parametrize("downloads", [1, 2, 5])
async def test_files_of_one_call_come_over_as_many_streams(
    server: LocalServer, clock: ServersClock, tmp_path: Path, downloads: int
) -> None:
    """All of them are used, and none more."""
    release = anyio.Event()
    config = Config(clock=clock, downloads=downloads)
    async with (
        RawServer([after(release, send_all)]) as gateway,  # type: ignore[arg-type] # an event is an event
        Client(server.url, api_key=server.api_key, config=config) as client,
    ):
        entry = {"elsewhere": {"unique_id": "elsewhere", "host": gateway.url}}
        server.faults.add(REGISTRY, Reply(200, JSON, json.dumps(entry).encode()))
        document: dict[str, Any] = {
            "instance": "file://elsewhere/x",
            "type": "component",
            "uid": "file://elsewhere/x&stage0.A",
            "component-identifier": "stage0.A",
            "component-state": "finished",
            "name": "A",
            "stage": 0,
            "location": "/x/stages/stage0/A",
            "files": [f"/x/stages/stage0/A/{number}" for number in range(20)],
        }
        for call in upsert_calls(await client._documents(), [document]):
            await client._send(call)
        found: list[Download | DownloadFailed] = []

        async def fetch() -> None:
            found.extend(await client.download_files("file://elsewhere/x", tmp_path))

        async with anyio.create_task_group() as group:
            group.start_soon(fetch)
            await gateway.until(lambda: gateway.in_flight == downloads)
            release.set()

    assert len(whole(found)) == 20
    assert gateway.most_in_flight == downloads


@pytest.mark.parametrize("downloads", [0, -1, 1.5, "4", None])
def test_the_bound_is_a_whole_number(downloads: Any) -> None:
    """Of at least 1."""
    with pytest.raises(
        ConfigError, match=re.escape(f"downloads must be a whole number of at least 1, not {downloads!r}")
    ):
        Config(downloads=downloads)


async def test_what_is_no_run_is_refused(client: Client, server: LocalServer, tmp_path: Path) -> None:
    """Before anything is sent: something else, and a location that is none."""
    before = len(server.requests)

    for verb in (
        lambda run: client.read_file(run, "x"),
        lambda run: client.download_files(run, tmp_path),
        lambda run: client.download_component(run, 0, "A", tmp_path),
        lambda run: client.download_outputs(run, tmp_path),
    ):
        with pytest.raises(TypeError, match="a run is a Run or a rest-uid"):
            await verb(7)
    for verb in (
        lambda run: client.read_file(run, "x"),
        lambda run: client.download_files(run, tmp_path),
        lambda run: client.download_component(run, 0, "A", tmp_path),
    ):
        with pytest.raises(ValueError, match="the uri of an instance is"):
            await verb("file://nothing")

    assert len(server.requests) == before


@pytest.mark.parametrize(
    ("verb", "arguments"),
    [
        (Run.read_file, {"path": "x", "limit": -1}),
        (Run.download_component, {"stage": -1, "component": "Compute"}),
        (Run.download_component, {"stage": None, "component": "Compute"}),
        (Run.download_component, {"stage": 0, "component": ""}),
        (Run.download_component, {"stage": 0, "component": "../stage1/Report"}),
        (Run.download_outputs, {"names": [7]}),
        (Run.download_outputs, {"names": ["Energies", None]}),
    ],
    ids=["limit", "stage", "no stage", "no component", "component elsewhere", "name", "no name"],
)
async def test_arguments_that_make_no_sense_send_nothing(
    client: Client, server: LocalServer, tmp_path: Path, verb: Any, arguments: dict[str, Any]
) -> None:
    """They are errors of whoever calls, told before any request."""
    run = await finished(client, server)
    before, to = len(server.requests), {} if verb is Run.read_file else {"to": tmp_path / "new"}

    with pytest.raises((ValueError, TypeError)):
        await verb(run, **arguments, **to)

    assert len(server.requests) == before
    assert listed(tmp_path) == []


async def test_errors_of_a_service_that_refuses_are_ours(client: Client, server: LocalServer, tmp_path: Path) -> None:
    """They are raised where they stop everything, and told where they stop one thing."""
    run = await finished(client, server)
    server.faults.add(QUERY, Html(404), times=None)
    with pytest.raises(APIError):
        await run.download_files(tmp_path)
    server.faults.clear()

    server.faults.add(FILES, Html(404), times=None)
    found = await run.download_files(tmp_path)

    assert len(failures(found)) == len(DEMO)
    assert all(isinstance(one.error, APIError) for one in failures(found))
