"""A server with a state continues where the last one ended."""

from __future__ import annotations

import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from st4sd_async.local import LocalServer, StateError
from st4sd_async.local.saved_state import SavedState
from tests.client.definitions import DSL, LAMBDA, related, relationship
from tests.local.helpers import MOLECULES, definition, start

pytestmark = pytest.mark.slow

DATASTORE = "/ds-mongodb-proxy/documents/api/v1.0"
BUCKET = {"accessKeyID": "i", "secretAccessKey": "dataset-key", "bucket": "b", "endpoint": "e"}
PULL = {"username": "somebody", "password": "a-password", "server": "quay.example"}


@contextmanager
def serving(state: Path, **options: Any) -> Iterator[tuple[LocalServer, httpx.Client]]:
    """Serve a state with a clock that stands still, and yield a client too."""
    with LocalServer(state=state, **{"speed": 0, "slots": 2, **options}) as server:
        headers = {"Authorization": f"Bearer {server.api_key}"}
        with httpx.Client(base_url=server.url, headers=headers, timeout=30, verify=False) as web:
            yield server, web


def everything(web: httpx.Client) -> dict[str, Any]:
    """Return all that the services show: path -> response."""
    paths = ["/experiments/?hideNone=n&hideBeta=n", "/instances/", "/relationships/", "/library/", "/datasets/"]
    paths += ["/image-pull-secrets/", "/experiments/toy/history", "/experiments/both/dsl", "/experiments/both"]
    for item in web.get("/instances/").json():
        uid = item["id"]
        paths += [f"/instances/{uid}{part}" for part in ("", "/status", "/outputs", "/properties")]
        paths += [f"/instances/{uid}/outputs/{key}" for key in item["outputs"]]
    replies = {path: web.get(path) for path in paths}
    documents = web.post(f"{DATASTORE}/query", json={}).json()
    return {path: (reply.status_code, reply.text) for path, reply in replies.items()} | {"documents": documents}


def test_everything_survives_a_restart(tmp_path: Path) -> None:
    """Experiments with versions and tags, runs in all states, documents, library, datasets and credentials."""
    with serving(tmp_path / "state") as (server, web):
        for package in (*related(), definition("toy"), server.example("demo"), server.example("fail")):
            web.post("/experiments/", json=package).raise_for_status()
        options = {"variables": [{"name": "x", "value": "1"}]}
        web.post("/experiments/", json=definition("toy", options)).raise_for_status()
        web.put("/experiments/toy/tag?newTags=latest,best").raise_for_status()
        web.post("/relationships/", json=relationship()).raise_for_status()
        web.post("/relationships/cheaper/synthesize/both", json={}).raise_for_status()
        web.post("/library/", json=DSL).raise_for_status()
        web.post("/datasets/s3/data", json=BUCKET).raise_for_status()
        web.post("/image-pull-secrets/quay", json=PULL).raise_for_status()
        server.outcome("toy", "stuck", times=2)
        server.outcome("toy", [(0.0, {}), (1.0, {"experiment-state": "running", "exit-status": "N/A"})])
        done, failed = start(web, "demo", inputs=[MOLECULES], metadata={"a": "b"}), start(web, "fail")
        (other,) = server.populate("toy", 1, "setup-failure")
        server.advance(30)
        lambda_uid = web.post("/experiments/lambda/start", json=LAMBDA).json()
        server.advance(30)
        stuck, deleted, recorded, waiting = (start(web, "toy") for _ in range(4))
        server.advance(2)
        assert web.delete(f"/instances/{deleted}").status_code == 200
        server.advance(2)
        tagged = web.post(f"{DATASTORE}/query", json={"type": "user-metadata", "rest-uid": done}).json()
        document = {**tagged["document-descriptors"][0], "tag": "best"}
        web.post(f"{DATASTORE}/upsert", json={"documents": [document]}).raise_for_status()
        server.advance(10)
        before, credentials = everything(web), (server.api_key, server.auth_token)
        starts = server.started

    with serving(tmp_path / "state") as (server, web):
        after = everything(web)
        assert (server.api_key, server.auth_token) == credentials
        assert server.started == starts
        web.delete(f"/instances/{stuck}").raise_for_status()
        server.advance(1)
        states = {item["id"]: item["status"]["experiment-state"] for item in web.get("/instances/").json()}

    assert after == before
    assert list(states) == [done, failed, other, lambda_uid, recorded, waiting]
    assert states[waiting] == "running"
    assert [item["tag"] for item in before["documents"]["document-descriptors"] if "tag" in item] == ["best"]


def test_simulated_time_goes_on_while_the_server_is_stopped(tmp_path: Path) -> None:
    """A run that would have ended meanwhile has ended, and its slot went to the next one."""
    with serving(tmp_path, speed=1000, slots=1) as (server, web):
        web.post("/experiments/", json=server.example("demo")).raise_for_status()
        server.outcome("demo", "success", stretch=200)
        uids = [start(web, "demo", inputs=[MOLECULES]) for _ in range(2)]

    with sqlite3.connect(tmp_path / "state.sqlite") as state:  # as if the server had been stopped an hour ago
        state.execute(
            "UPDATE entries SET value = json_set(value, '$.real', value -> '$.real' - 3600.0) WHERE name='clock'"
        )
    state.close()
    with serving(tmp_path, speed=0, slots=5) as (_, web):
        states = [web.get(f"/instances/{uid}/status").json()["exit-status"] for uid in uids]
        written = web.get(f"/instances/{uids[0]}/outputs/Energies")

    assert states == ["Success", "Success"]
    assert written.status_code == 200


def test_more_slots_start_waiting_runs(tmp_path: Path) -> None:
    """From the restart on; fewer slots take no slot away."""

    def running(web: httpx.Client) -> list[bool]:
        return [web.get(f"/instances/{uid}/status").json()["experiment-state"] == "running" for uid in uids]

    with serving(tmp_path, slots=1) as (server, web):
        web.post("/experiments/", json=definition()).raise_for_status()
        server.outcome("toy", "stuck")
        uids = [start(web) for _ in range(3)]
        server.advance(9)
        one = running(web)
    with serving(tmp_path, slots=2) as (server, web):
        server.advance(9)
        two = running(web)
    with serving(tmp_path, slots=1) as (server, web):
        web.delete(f"/instances/{uids.pop(0)}").raise_for_status()
        server.advance(9)
        one_left = running(web)

    assert [one, two, one_left] == [[True, False, False], [True, True, False], [True, False]]


def test_a_new_key_replaces_the_saved_one(tmp_path: Path) -> None:
    """By `renew`, or by an argument."""
    with serving(tmp_path) as (server, _):
        server.renew()
        renewed = server.api_key
    with serving(tmp_path) as (server, _):
        assert server.api_key == renewed
    with serving(tmp_path, api_key="mine") as (server, _):
        assert server.api_key == "mine"
    with serving(tmp_path) as (server, _):
        assert server.api_key == "mine"


def test_a_restarted_server_has_the_same_address(tmp_path: Path) -> None:
    """If another program has the port, the server listens on a free one."""
    with serving(tmp_path / "state") as (server, _):
        first = server.url
    with serving(tmp_path / "state") as (server, _):
        again = server.url
    with socket.create_server(("127.0.0.1", httpx.URL(first).port or 0)), serving(tmp_path / "state") as (server, web):
        assert server.url not in (first, "http://127.0.0.1:0")
        assert web.get("/experiments/").is_success

    assert again == first


def test_secrets_are_readable_by_the_owner_only(tmp_path: Path) -> None:
    """The folder, and each file with a credential, even if the folder was there before."""
    state = tmp_path / "state"
    state.mkdir(mode=0o777)
    with serving(state) as (server, web):
        web.post("/datasets/s3/data", json=BUCKET).raise_for_status()
        secrets = [server.api_key.encode(), b"dataset-key"]
        files = [path for path in state.rglob("*") if path.is_file() and any(s in path.read_bytes() for s in secrets)]
        modes = {path.stat().st_mode & 0o777 for path in files}

    assert files
    assert modes == {0o600}
    assert state.stat().st_mode & 0o777 == 0o700


def break_file(state: Path) -> None:
    (state / "state.sqlite").write_bytes(b"no database, but long enough to be one" * 100)


def break_rows(state: Path) -> None:
    with sqlite3.connect(state / "state.sqlite") as connection:
        connection.execute("UPDATE entries SET value = '{' WHERE name = 'server'")
    connection.close()


def write_newer(state: Path) -> None:
    with sqlite3.connect(state / "state.sqlite") as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()


def replace_folder(state: Path) -> None:
    for file in state.iterdir():
        file.unlink() if file.is_file() else file.rmdir()
    state.rmdir()
    state.write_text("a file")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (break_file, "file is not a database"),
        (break_rows, "Expecting property name"),
        (write_newer, "it has the format 99, not 1"),
        (replace_folder, "File exists"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_an_unreadable_state_is_an_error(tmp_path: Path, change: Callable[[Path], None], reason: str) -> None:
    """The message has the folder, the reason and what to do; nothing is overwritten."""
    state = tmp_path / "state"
    with serving(state):
        pass
    change(state)

    with pytest.raises(StateError, match=f"{state}.*cannot be read: .*{reason}.*move this one away"), serving(state):
        pass


def test_a_state_in_use_is_refused(tmp_path: Path) -> None:
    """Also in the same process, and the first server goes on."""
    with serving(tmp_path) as (_, web):
        for _ in range(2):
            with pytest.raises(StateError, match="is in use by another server: stop it"), serving(tmp_path):
                pass
        with pytest.raises(StateError, match="in use"):
            SavedState(tmp_path)
        assert web.post("/experiments/", json=definition()).status_code == 200
    with serving(tmp_path) as (_, web):
        assert len(web.get("/experiments/").json()["entries"]) == 1


def test_a_state_belongs_to_one_engine(tmp_path: Path) -> None:
    """Simulated runs cannot be executed."""
    with serving(tmp_path):
        pass

    advice = "was written by the engine 'simulator': use engine 'simulator', or another folder"
    with pytest.raises(StateError, match=advice), LocalServer(engine="elaunch", state=tmp_path):
        pass


def test_a_state_keeps_the_directories_itself(tmp_path: Path) -> None:
    """So another folder for them is refused."""
    with pytest.raises(ValueError, match="no keep"):
        LocalServer(state=tmp_path, keep=tmp_path / "keep")


WRITER = """
import sys
from pathlib import Path
from st4sd_async.local.saved_state import SavedState
state = SavedState(Path(sys.argv[1]))
left, right = state.table("left"), state.table("right")
for number in range(len(left), 10**9):
    with state.transaction():
        left[str(number)] = right[str(number)] = "x" * 1000
    print(number, flush=True)
"""


def test_a_change_is_complete_whenever_the_process_is_killed(tmp_path: Path) -> None:
    """What was confirmed is there, and both halves of each transaction or none."""
    for kill_after in (1, 40):
        command = [sys.executable, "-c", WRITER, str(tmp_path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout
            confirmed = [process.stdout.readline() for _ in range(kill_after)]
            process.send_signal(signal.SIGKILL)
            confirmed += process.stdout.readlines()

        state = SavedState(tmp_path)
        left, right = state.table("left"), state.table("right")
        state.close()

        assert dict(left) == dict(right)
        assert int(confirmed[-1]) < len(left)
