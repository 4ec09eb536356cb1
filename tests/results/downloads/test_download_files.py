"""Files of components through sockets: what the docstring of `download_files` promises, sentence by sentence."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from st4sd_async import Client, DownloadError, DownloadFailed, NotFound, NotReady, Run
from st4sd_async.local import CutBody, LocalServer
from tests.conftest import ServersClock
from tests.results.demo_runs import (
    ARCHIVE,
    COMPUTE,
    DEMO,
    FILES,
    GATEWAY,
    MANIFEST,
    MIB,
    REPORT,
    count_requests,
    directory,
    failures,
    finished,
    listed,
    names,
    running,
    start,
    tree,
    upsert,
    uri,
    whole,
)
from tests.tries import sample, tries

pytestmark = [pytest.mark.anyio, pytest.mark.slow]


async def test_files_are_laid_out_as_in_the_instance(client: Client, server: LocalServer, tmp_path: Path) -> None:
    """By stages and components, each with its size, checksum and source; the only other file is the manifest."""
    run = await finished(client, server)
    source = directory(server, run)

    found = await run.download_files(tmp_path / "new" / "folder")

    target = tmp_path / "new" / "folder"
    assert names(found, target) == DEMO
    assert tree(target) == {name: (source / name).read_bytes() for name in DEMO}
    assert [one.source for one in found] == [f"file://{GATEWAY}{source}/{name}" for name in DEMO]
    assert listed(target) == [MANIFEST, "stages"]


async def test_a_run_may_be_given_in_many_ways(
    client: Client, server: LocalServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the folder too: as a path, as a text, relative."""
    run = await finished(client, server)
    monkeypatch.chdir(tmp_path)

    ways: list[tuple[Run | str, Path | str]] = [
        (run, Path("handle")),
        (run.id, Path("id")),
        (uri(server, run), Path("location")),
        (run, "text"),
    ]
    for given, target in ways:
        assert names(await client.download_files(given, target), Path(target)) == DEMO, target


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


async def test_files_are_chosen(client: Client, server: LocalServer, tmp_path: Path) -> None:
    """By expressions, references and stages; [] if none fits."""
    run = await finished(client, server)

    for number, (chosen, expected) in enumerate(sample(FILTERS, 6)):
        target = tmp_path / f"{number}"
        found = await run.download_files(target, **chosen)
        assert names(found, target) == sorted(tree(target)) == expected, chosen


async def test_filters_that_make_no_sense_send_nothing(client: Client, server: LocalServer, tmp_path: Path) -> None:
    """They raise before any request, and before a folder is created."""
    before = len(server.requests)

    wrongs: list[dict[str, Any]] = [
        {"component": "stage0.A", "stage": 0},
        {"component": "("},
        {"filename": "["},
        {"stage": -1},
    ]
    for wrong in wrongs:
        with pytest.raises(ValueError, match=r"leave out|not a regular expression|whole number"):
            await client.download_files("demo-abcdefgh", tmp_path / "new", **wrong)

    assert len(server.requests) == before
    assert listed(tmp_path) == []


async def test_if_no_component_is_meant_those_that_are_there_are_named(
    client: Client, server: LocalServer, tmp_path: Path
) -> None:
    """It is an error: [] means that a component left no such file."""
    run = await finished(client, server)

    wrongs: list[dict[str, Any]] = [{"component": "Ghost"}, {"stage": 7}, {"component": "stage1.Compute"}]
    for wrong in wrongs:
        with pytest.raises(NotFound, match=r"\['stage0.Compute', 'stage1.Report'\]"):
            await run.download_files(tmp_path, **wrong)


async def test_nothing_is_fetched_again(client: Client, server: LocalServer, tmp_path: Path) -> None:
    """What came from the same place and is as it was is known, by another client and through other filters too."""
    run = await finished(client, server)
    before = server.traffic[ARCHIVE].requests
    first = await run.download_files(tmp_path)

    async with Client(server.url, api_key=server.api_key) as other:
        for given in (run.id, uri(server, run)):
            assert await count_requests(server, FILES, other.download_files(given, str(tmp_path))) == 0
        again = await other.download_files(run.id, tmp_path)
        some = await other.download_files(run.id, tmp_path, filename=r"\.csv$")

    assert again == first
    assert some == first[:2]
    assert server.traffic[ARCHIVE].requests == before


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

    for index in (0, 1, 0, 0, 1, 1)[: tries(6, 4)]:
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

    assert await count_requests(server, ARCHIVE, run.download_files(tmp_path, filename="large$")) == 1

    assert list(tree(tmp_path)) == [f"{REPORT}/results/large"]
    assert (tmp_path / f"{REPORT}/results/large").stat().st_size == 32 * MIB + 1
    assert await count_requests(server, ARCHIVE, run.download_files(tmp_path)) == 0
    assert len(tree(tmp_path)) == 9


async def test_a_file_that_is_gone_does_not_hide_the_others(
    client: Client, server: LocalServer, tmp_path: Path
) -> None:
    """It is in its place in the list; with ``strict`` it is an error when all others are there."""
    run = await finished(client, server)
    source = directory(server, run)
    (document, *_) = await run.components()
    gone = document.raw | {"files": [f"{document.location}/a-ghost", *document.files]}
    await upsert(client, gone)

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


async def test_a_file_that_cannot_have_its_name_here_fails(client: Client, server: LocalServer, tmp_path: Path) -> None:
    """A name with a control character, and a file that is not in the directory of its run."""
    run = await finished(client, server)
    (document, *_) = await run.components()
    wrong = [f"{document.location}/a\nb", "/etc/passwd", f"{document.location}/../../../../x"]
    await upsert(client, document.raw | {"files": [*wrong, *document.files]})

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


async def test_nothing_is_left_if_the_manifest_cannot_be_read(
    client: Client, server: LocalServer, tmp_path: Path
) -> None:
    """It is an error, and the folder is unchanged."""
    run = await finished(client, server)
    (tmp_path / MANIFEST).mkdir()

    with pytest.raises(DownloadError):
        await run.download_files(tmp_path)

    assert listed(tmp_path) == [MANIFEST]


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
    """A request may have 1 MiB, and 1,150 long names have more."""
    count = tries(1300, 1150)
    run = await finished(client, server)
    folder = directory(server, run) / COMPUTE / "/".join("d" * 200 for _ in range(4))
    folder.mkdir(parents=True)
    for number in range(count):
        (folder / f"f{number}").write_text(str(number))

    found = await run.download_files(tmp_path, filename=r"/f\d+$")

    assert sum(len(one.source) for one in whole(found)) > MIB
    assert len(found) == count


async def test_names_that_differ_only_in_case_are_different(
    client: Client, server: LocalServer, tmp_path: Path
) -> None:
    """If the file system distinguishes them, all of them are downloaded."""
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
    """Components that run have no files yet, and are not waited for; when they are over, they have."""
    run = await running(client, server)
    assert await run.download_files(tmp_path) == []

    (document, *_) = await run.components()
    log = directory(server, run) / COMPUTE / "out.stdout"
    log.parent.mkdir(parents=True)
    log.write_bytes(b"done")
    over = document.raw | {"component-state": "finished", "files": [str(log)]}
    await upsert(client, over)

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
    """A run that is over is never reported to have no files, by its id and by its location."""
    run = await start(client, server)
    await server.advance(12)
    assert (await run.status()).is_final
    (early,) = await client.datastore.experiments(rest_uid=run.id)
    assert not early.status.is_final

    found = await client.download_files(early.instance, tmp_path)

    assert names(found, tmp_path) == DEMO


async def test_a_run_whose_component_failed_has_files(client: Client, server: LocalServer, tmp_path: Path) -> None:
    """They tell why."""
    await client.push(server.example("fail"))
    run = await client.start("fail")
    await server.advance(100)

    found = await run.download_files(tmp_path, component="Boom", filename="stdout")

    assert [one.path.read_bytes() for one in whole(found)] == [b"about to fail\n"]


async def test_files_of_another_run_are_not_replaced_without_a_word(
    client: Client, server: LocalServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is a warning, once for each file; fetching the same file again is not."""
    first, second = await finished(client, server), await finished(client, server)
    for _ in range(2):
        await first.download_files(tmp_path, filename="energies")
    assert caplog.records == []

    await second.download_files(tmp_path, filename="energies")

    (record,) = caplog.records
    assert f"files from {uri(server, first)}" in record.getMessage()
