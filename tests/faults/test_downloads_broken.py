"""What breaks on the way of a download: what is still true afterwards, and that a repeated call completes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from st4sd_async import Client, DownloadFailed, RetryPolicy
from st4sd_async.local import CutBody, DropAfter, DropBefore, Html, LocalServer, Reply
from st4sd_async.local.http.faults import Fault
from tests.tries import combinations, sample

from .answers import BROKEN, HARMLESS, patience
from .clients import settings
from .gateways import archive, failed, files_in, forward, gateway, register, requested_paths, when, whole, zipped
from .raw import RawServer, close, never, sign_in
from .scenes import COMPUTE, Scene, staged

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60), pytest.mark.slow]  # large files, on a busy machine


VERBS = ["files", "component"]


@pytest.mark.parametrize(("verb", "broken"), combinations(VERBS, sample(BROKEN, 14)))
async def test_a_gateway_that_fails_leaves_nothing_half(
    shared_server: LocalServer, verb: str, broken: str, tmp_path: Path
) -> None:
    """Each file is whole or failed with an error of ours; when the gateway is well again, the same call completes."""
    async with staged(shared_server, tmp_path, timeout=patience(broken)) as scene:
        if verb == "files":
            for number in range(3):
                scene.write(f"{number}.txt", b"%d\n" % number * 99)
        answer = BROKEN[broken]
        async with RawServer([answer or close()], listening=answer is not None) as bad:
            register(scene.server, bad.url)
            outcomes = await getattr(scene, verb)()
            scene.check(verb, outcomes)
            if verb not in HARMLESS.get(broken, ()):
                assert outcomes
                assert failed(outcomes), outcomes
            scene.server.faults.clear()

        async with Client(scene.server.url, api_key=scene.server.api_key, config=settings()) as scene.client:
            whole(await getattr(scene, verb)())
        scene.check(verb)
        assert files_in(scene.target) == scene.expected(verb)


ONCE = [
    *sample([name for name in BROKEN if "cut " in name], 3),
    *sample(["silent in the middle", "silent"], 1),
    *sample(["reset", "reset in the middle", "closed"], 1),
    *sample(["502", "503", "504"], 1),
    "a wrong byte",
]


@pytest.mark.parametrize(("verb", "broken"), combinations(VERBS, ONCE))
async def test_what_breaks_once_is_made_good_in_the_same_call(
    shared_server: LocalServer, verb: str, broken: str, tmp_path: Path
) -> None:
    """The caller does not notice."""
    async with staged(shared_server, tmp_path, timeout=patience(broken)) as scene:
        scene.write("a.txt", b"a" * 9999)
        answer = BROKEN[broken]
        assert answer
        async with gateway(scene.server, answer, forward(scene.server)):
            whole(await getattr(scene, verb)())

        scene.check(verb)
        assert files_in(scene.target) == scene.expected(verb)


OUTPUT = "GET /instances/*/outputs/*"
FAULTS: dict[str, Fault] = {
    "cut": CutBody(20),
    "cut at once": CutBody(0),
    "dropped before": DropBefore(),
    "dropped after": DropAfter(),
    **{str(status): Html(status) for status in (502, 503, 504, 500, 403, 200)},
    "false": Reply(200, {"Content-Type": "application/json"}, b"false"),
    "a wrong archive": Reply(200, {"Content-Type": "application/zip"}, b"PK"),
    "a hostile archive": Reply(200, {"Content-Type": "application/zip"}, zipped([("/../../outside.txt", b"")])),
    "308": Reply(308, {"Location": "http://elsewhere.example/"}),
}


@pytest.mark.parametrize("fault", sample(FAULTS, 7))
async def test_a_service_that_fails_leaves_no_half_output(scene: Scene, fault: str) -> None:
    """As with gateways."""
    scene.server.faults.add(OUTPUT, FAULTS[fault], times=None)

    outcomes = await scene.outputs()

    scene.check("outputs", outcomes)
    assert len(failed(outcomes)) == 2
    scene.server.faults.clear()
    whole(await scene.outputs())
    assert files_in(scene.target) == scene.expected("outputs")


async def test_a_service_that_fails_is_asked_again(shared_server: LocalServer, tmp_path: Path) -> None:
    """Of two key-outputs, whichever breaks off, or one of them twice."""
    async with staged(shared_server, tmp_path, retry=RetryPolicy(attempts=3)) as scene:
        for fault in (CutBody(10), Html(502)):
            scene.server.faults.add(OUTPUT, fault)

        whole(await scene.outputs())

        assert files_in(scene.target) == scene.expected("outputs")


@pytest.mark.parametrize("verb", VERBS)
async def test_a_renewed_credential_opens_the_door(shared_server: LocalServer, verb: str, tmp_path: Path) -> None:
    """A sign-in page in place of an archive makes the provider be asked once more."""
    given: list[str] = []
    trusting = settings(trusted_hosts=("127.0.0.1",), downloads=1)

    async with staged(shared_server, tmp_path) as scene:

        def provide() -> str:
            if given:
                scene.server.renew()
            given.append(scene.server.api_key)
            return given[-1]

        async with (
            gateway(scene.server, sign_in(), forward(scene.server)) as door,
            Client(scene.server.url, api_key=provide, config=trusting) as scene.client,
        ):
            whole(await getattr(scene, verb)())

    assert len(set(given)) == 2
    assert [seen.headers["authorization"] for seen in door.requests][:2] == [f"Bearer {key}" for key in given]


async def test_one_unreadable_file_among_many(scene: Scene) -> None:
    """Every answer with it breaks off: it fails, all others are there."""
    for number in range(60):
        scene.write(f"{number}.txt")
    bad = scene.write("bad.txt")
    bodies = when(lambda seen: b"bad.txt" in seen.body or seen.method == "GET", archive(missing=20), archive())
    async with gateway(scene.server, bodies):
        outcomes = await scene.files()

    scene.check("files", outcomes)
    assert [one.source.rpartition("/")[2] for one in outcomes if isinstance(one, DownloadFailed)] == [bad.name]
    assert files_in(scene.target).keys() == scene.expected("files").keys() - {f"{COMPUTE}/bad.txt"}


async def test_several_unreadable_files_among_many(scene: Scene) -> None:
    """However many they are, the others are there, with no more requests than it takes."""
    for number in range(50):
        scene.write(f"{number}{'.bad' * (number % 8 == 0)}")
    bodies = when(lambda seen: b".bad" in seen.body or seen.method == "GET", archive(missing=20), archive())
    async with gateway(scene.server, bodies):
        outcomes = await scene.files()

    scene.check("files", outcomes)
    assert {name for name in scene.expected("files") if ".bad" not in name} <= files_in(scene.target).keys()
    assert len(failed(outcomes)) == 7


async def test_one_file_at_which_the_gateway_falls_silent(shared_server: LocalServer, tmp_path: Path) -> None:
    """It fails, all others are there."""
    async with staged(shared_server, tmp_path, timeout=patience("silent")) as scene:
        for number in range(20):
            scene.write(f"{number}.txt")
        scene.write("bad.txt")
        silent = archive(missing=20, then=never())
        bodies = when(lambda seen: b"bad.txt" in seen.body or seen.method == "GET", silent, archive())
        async with gateway(scene.server, bodies):
            outcomes = await scene.files()

        scene.check("files", outcomes)
        assert len(failed(outcomes)) == 1
        assert files_in(scene.target).keys() == scene.expected("files").keys() - {f"{COMPUTE}/bad.txt"}


async def test_a_file_that_no_answer_holds_comes_with_its_component(scene: Scene) -> None:
    """One of 33 MiB among small ones; one that is gone fails."""
    scene.write("large.bin", os.urandom(1 << 10) * (33 << 10))
    gone = scene.write("gone.txt")
    async with gateway(scene.server, when(lambda _: gone.unlink(missing_ok=True), close(), forward(scene.server))):
        outcomes = await scene.files()

    scene.check("files", outcomes)
    assert files_in(scene.target) == scene.expected("files")
    assert [type(error).__name__ for error in failed(outcomes)] == ["NotFound"]


@pytest.mark.parametrize(("count", "size", "most"), [(1001, 10, 8), (5, 7 << 20, 8)])
async def test_what_does_not_fit_into_an_answer_is_asked_for_again(
    scene: Scene, count: int, size: int, most: int
) -> None:
    """1,001 files, or 35 MiB, with one worker, so that all are asked for at once."""
    for number in range(count):
        scene.write(f"{number}.bin", os.urandom(10) * (size // 10))

    alone = Client(scene.server.url, api_key=scene.server.api_key, config=settings(downloads=1))
    async with alone as scene.client, gateway(scene.server) as asked_gateway:
        whole(await scene.files())

    assert files_in(scene.target) == scene.expected("files")
    assert 2 <= len(asked_gateway.requests) <= most
    assert {seen.method for seen in asked_gateway.requests} == {"POST"}
    assert max(map(len, requested_paths(asked_gateway.requests))) <= 1000
