"""
Replay the recorded calls against the embedded server, and list what differs.

Usage: ``python -m tests.local.recorded.replay --engine simulator [--call 01.38] [--all] [--rewrite]``

Each recording is a JSON file. Its ``earlier`` calls bring the server into the state that the recording began with;
their replies are not compared. Its ``calls`` are sent in order, with these keys:

- ``call``: number of the recording and of the call in it. ``label``: what it was made for.
- ``before``: what to wait for or to change before it; see `Replay.prepare`.
- ``method``, ``path``, ``query``, ``headers sent``; ``without tls``; ``credentials`` other than the API key; and the
  body as ``json``, ``content``, or ``filler``, a number of bytes.
- ``status``, ``headers``, and ``json body`` or ``body``: what the real servers answered. `matching` describes the
  placeholders. Calls without a body were recorded without one. The length of a body without placeholders is exact, so
  it must be serialized in the same way. ``rest``: the bytes that follow the text ``after``, of a body that was cut.

Two recorded calls are left out, 02.92 and 02.107: they switched the scheduler of the recorded cluster.
"""

from __future__ import annotations

import argparse
import json
import ssl
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal
from unittest import mock

import httpx

from st4sd_async.local import LocalServer
from st4sd_async.local.engine import elaunch
from tests.local.recorded.exceptions import excepted_fields, rewrite
from tests.local.recorded.matching import Difference, Names, differences
from tests.local.recorded.packages import PROPERTIES, REPOSITORIES, Repositories, demo_outputs

Engine = Literal["simulator", "elaunch"]
SESSIONS = (("01-life-of-runs", "02-every-endpoint", "03-payload-edge-cases"), ("06-second-round",))
"""The recordings of each server; those of one session were recorded one after another."""
SLOTS = 2
"""Instances that run at the same time."""
PATIENCE = 120.0
"""Seconds after which a run that is waited for is taken as stuck."""
PAUSE = 0.1
"""Seconds between two requests that wait for the orchestrator."""
POD_DELAY = 1.0
"""Seconds for which a run of the orchestrator has no status: enough for a request of a busy machine."""
LONG = {"variables": {"seconds": 300}}
"""Payload of a run that does not end."""
STEP = 1.0
"""Virtual seconds by which the clock of the simulator is moved between two requests that wait."""
FOLDER = Path(__file__).parent


def load(recording: str) -> dict[str, list[dict[str, Any]]]:
    """Return the earlier calls and the calls of a recording."""
    content: dict[str, list[dict[str, Any]]] = json.loads((FOLDER / f"{recording}.json").read_text(encoding="utf-8"))
    return content


class Replay:
    """A server to which recorded calls are sent."""

    def __init__(self, server: LocalServer, engine: Engine, web: httpx.Client, repositories: Repositories) -> None:
        """Set what is known about the server before the first call."""
        self.server = server
        self._engine = engine
        self._web = web
        self._repositories = repositories
        self._fillers: list[str] = []
        known = {"<<host>>": server.url.partition("://")[2], "<<token>>": server.auth_token}
        known["<<plain>>"] = httpx.URL(web.get("/rs/instances").headers["location"]).netloc.decode()
        self._names = Names(known | {f"<<git:{name}>>": repositories.url(name) for name in REPOSITORIES})

    def recording(self, name: str) -> Iterator[tuple[str, list[Difference]]]:
        """Replay a recording; yield each call with its differences."""
        content = load(name)
        failed = [f"earlier: {call['path']}" for call in content["earlier"] if not self._send_earlier(call)]
        for call in content["calls"]:
            failed += [f"before: {step}" for step in call.get("before", []) if not self.prepare(step)]
            unprepared = [Difference(call["call"], field, "done", "failed") for field in failed]
            yield call["call"], unprepared + differences(call, self.send(call), self._names)
            failed.clear()

    def prepare(self, step: str) -> bool:
        """
        Bring the server into the state in which the next call was recorded; return whether it was reached.

        Args:
            step: What to wait for or to do: "finish run:NAME", its final status; "document run:NAME", its datastore
                document; "report run:NAME", a status with metadata; "run run:NAME", the state "running"; "queue
                run:NAME", any status; "fill slots", so that no further run is scheduled; "free slots"; "remove
                git:NAME"; "commit NAME...", new commits to which the tags move.
        """
        action, _, target = step.partition(" ")
        rest_uid = self._names.fill(f"<<{target}>>")
        if action == "remove":
            self._repositories.remove(target.removeprefix("git:"))
        elif action == "commit":
            for name in target.split():
                self._repositories.commit(name)
        elif step == "fill slots":
            self._fillers = [self._web.post("/rs/experiments/slow/start", json=LONG).json() for _ in range(SLOTS)]
        elif step == "free slots":
            for filler in self._fillers:
                self._web.delete(f"/rs/instances/{filler}")
        elif action == "document":
            return self._wait(lambda: self._is_documented(rest_uid))
        else:
            return self._wait(lambda: _is_reached(action, self._status(rest_uid)))
        return True

    def _wait(self, is_reached: Callable[[], bool]) -> bool:
        deadline = time.monotonic() + PATIENCE
        virtual_seconds = 0.0
        while not is_reached():
            if time.monotonic() > deadline or virtual_seconds > PATIENCE:
                return False
            if self._engine == "simulator":
                self.server.advance(STEP)
                virtual_seconds += STEP
            else:
                time.sleep(PAUSE)
        return True

    def _status(self, rest_uid: str) -> dict[str, Any] | None:
        reply = self._web.get(f"/rs/instances/{rest_uid}/status")
        return reply.json() if reply.status_code == 200 else None

    def _is_documented(self, rest_uid: str) -> bool:
        query = {
            "type": "experiment",
            "metadata.userMetadata.rest-uid": rest_uid,
            "status.experiment-state": "finished",
        }
        reply = self._web.post("/ds-mongodb-proxy/documents/api/v1.0/query", json=query)
        return bool(reply.json()["document-descriptors"])

    def _send_earlier(self, call: Mapping[str, Any]) -> bool:
        reply = self.send(call)
        if reply.status_code != 200:
            return False
        action, _, target = call.get("then", "").partition(" ")
        if action == "delete":
            self._web.delete(f"/rs/instances/{reply.json()}")
        elif action == "name":
            self._names.match(f"<<{target}>>", reply.json())
        elif action == "commit":
            self.prepare(call["then"])
        return True

    def send(self, call: Mapping[str, Any]) -> httpx.Response:
        """Send a recorded call, with the names of this server."""
        path = self._names.fill(call["path"])
        query = self._names.fill(call.get("query", ""), quoted=True)
        headers = {"Accept-Encoding": "gzip", **call.get("headers sent", {}), **self._credentials(call)}
        content: bytes | None = None
        if "filler" in call:
            content = json.dumps({"inputs": [{"content": "x" * call["filler"]}]}).encode()
        elif "content" in call:
            content = call["content"].encode()
        elif "json" in call:
            content = json.dumps(self._names.fill(call["json"])).encode()
        if content is not None and call.get("content-type", "json"):
            headers["Content-Type"] = "application/json"
        origin = self._names.fill("http://<<plain>>") if "without tls" in call else self.server.url
        url = httpx.URL(f"{origin}{path}{'?' * bool(query)}{query}")
        return self._web.request(call["method"], url, headers=headers, content=content)

    def _credentials(self, call: Mapping[str, Any]) -> dict[str, str]:
        return {
            "key": {"Authorization": f"Bearer {self.server.api_key}"},
            "none": {"Authorization": ""},
            "wrong bearer": {"Authorization": "Bearer wrong"},
            "cookie": {"Authorization": "", "Cookie": f"oauth-proxy={self.server.auth_token}"},
            "wrong cookie": {"Authorization": "", "Cookie": "oauth-proxy=wrong"},
        }[call.get("credentials", "key")]


def _is_reached(action: str, status: Mapping[str, Any] | None) -> bool:
    if action == "queue" or status is None:
        return status is not None
    if action == "report":
        return bool(status["meta"])
    state, exit_status = status["experiment-state"], status["exit-status"]
    if action == "run":
        return bool(state == "running")
    return state == "failed" or (state == "finished" and exit_status in ("Success", "Failed", "Stopped"))


@contextmanager
def open_replay(engine: Engine, folder: Path, slots: int = SLOTS) -> Iterator[Replay]:
    """Start a server and yield a replay against it."""
    repositories = Repositories(folder)
    speed = 0.0 if engine == "simulator" else 1.0
    with (
        mock.patch.object(elaunch, "POD_DELAY", POD_DELAY),
        LocalServer(engine=engine, tls=True, slots=slots, speed=speed) as server,
    ):
        context = ssl.create_default_context(cafile=str(server.ca_file))
        headers = {"Authorization": f"Bearer {server.api_key}"}
        with httpx.Client(base_url=server.url, headers=headers, verify=context, timeout=60) as web:
            if engine == "simulator":
                server.describe("demo", outputs=demo_outputs(), properties=PROPERTIES)
            yield Replay(server, engine, web, repositories)


def replay(
    engine: Engine, sessions: Sequence[Sequence[str]] = SESSIONS, slots: int = SLOTS
) -> dict[str, list[Difference]]:
    """Replay all recordings, or some; return call -> differences, in the order of the calls."""
    found: dict[str, list[Difference]] = {}
    for names in sessions:
        with (
            tempfile.TemporaryDirectory(prefix="st4sd-recorded-") as folder,
            open_replay(engine, Path(folder), slots) as session,
        ):
            for name in names:
                found |= dict(session.recording(name))
    return found


def main() -> None:
    """Print the differences."""
    parser = argparse.ArgumentParser(prog="python -m tests.local.recorded.replay", description=__doc__.splitlines()[1])
    parser.add_argument("--engine", choices=["simulator", "elaunch"], default="simulator")
    parser.add_argument("--call", action="append", help="print only this call, such as 01.38; may be repeated")
    parser.add_argument("--all", action="store_true", help="print excepted differences too")
    help_text = (
        "remove the exceptions that no longer differ, and add what differs, to be mended or to be given a reason"
    )
    parser.add_argument("--rewrite", action="store_true", help=help_text)
    options = parser.parse_args()
    begin = time.monotonic()
    found = replay(options.engine)
    excepted = excepted_fields(options.engine)
    calls = {"alike": 0, "excepted": 0, "different": 0}
    for call, different in found.items():
        unexpected = [difference for difference in different if (call, difference.field) not in excepted]
        calls["different" if unexpected else "excepted" if different else "alike"] += 1
        if not options.call or call in options.call:
            for difference in different if options.all or options.call else unexpected:
                sys.stdout.write(f"{difference}\n")
    counts = ", ".join(f"{count} {name}" for name, count in calls.items())
    sys.stdout.write(f"{options.engine}: {len(found)} calls, {counts}; {time.monotonic() - begin:.0f} s\n")
    if options.rewrite:
        rewrite(options.engine, [(call, difference.field) for call in found for difference in found[call]])


if __name__ == "__main__":
    main()
