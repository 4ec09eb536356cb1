"""Each public method of the incumbent does with both engines what it did with the real services."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from types import SimpleNamespace
from typing import Any

import pytest

from tests.local.incumbent.finished import INCUMBENT, Finished, attempt
from tests.local.incumbent.shapes import Raises, differences
from tests.local.incumbent.table import CASES, TABLE, Case
from tests.local.recorded.replay import load
from tests.tries import sample

pytestmark = INCUMBENT

FIRST = [(method, cases[0]) for method, cases in TABLE.items()]
TRIED = [*FIRST, *sample([(method, case) for method, cases in TABLE.items() for case in cases[1:]], 24)]
IDS = [" ".join(filter(None, (method, case.label))).replace(" ", "-") for method, case in TRIED]


def test_every_public_method_has_a_row() -> None:
    """A new method of the incumbent needs one."""
    from experiment.service.db import ExperimentRestAPI

    kinds = (staticmethod, classmethod)
    every = {
        name for name, thing in vars(ExperimentRestAPI).items() if inspect.isfunction(thing) or isinstance(thing, kinds)
    }

    assert TABLE.keys() == {name for name in every if not name.startswith("_")}
    assert all(TABLE.values())


@pytest.mark.parametrize(("method", "case"), TRIED, ids=IDS)
def test_it_gives_what_the_real_services_gave(finished: Finished, method: str, case: Case) -> None:
    """Except where the table has a reason; a difference that is gone fails."""
    value = attempt(lambda: case.call(finished, method))

    expected, why = case.differs.get(finished.engine, (case.gave, ""))
    assert list(differences(expected, value)) == []
    assert not why or list(differences(case.gave, value)), f"{method} no longer differs: {why}"


RECORDED = {
    call["call"]: call
    for recording in ("01-life-of-runs", "02-every-endpoint", "06-second-round")
    for call in load(recording)["calls"]
}
"""number -> recorded call."""
HEARD = [
    (method, case)
    for method, case in CASES
    if isinstance(case.gave, Raises) and case.gave.status and "began" not in case.call.__qualname__
    if RECORDED[case.recorded]["path"] != "/ds-gateway/experiment"  # which is only called after another request
]
"""The calls whose first request the real services rejected."""


@pytest.fixture(scope="module")
def recorder() -> Iterator[tuple[Finished, dict[str, Any]]]:
    """Return the incumbent with a server that gives one reply to any request, and that reply."""
    from experiment.service.db import ExperimentRestAPI

    reply: dict[str, Any] = {}

    class Replying(BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("content-length", 0)))
            text = json.dumps(reply["json body"]) if "json body" in reply else reply["body"]["text"]
            self.send_response(reply["status"])
            self.end_headers()
            text = re.sub("<<run:[a-z0-9-]+>>", "demo-c52cd4-76k4hf87", text)
            self.wfile.write(re.sub("<<.*?>>", "/x", text).encode())

        def log_message(self, *_: Any) -> None:
            pass

        do_GET = do_POST = do_PUT = do_DELETE = answer

    with ThreadingHTTPServer(("127.0.0.1", 0), Replying) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        without = dict.fromkeys(["validate_auth", "discover_cdb_urls", "test_cdb_connection"], False)
        api = ExperimentRestAPI(f"http://127.0.0.1:{server.server_port}/rs", max_retries=0, **without)
        credentials: Any = SimpleNamespace(api_key="key", auth_token="token")
        runs = dict.fromkeys(["demo", "fail"], "demo-c52cd4-76k4hf87")
        yield Finished("simulator", credentials, api, runs, dict.fromkeys(runs, "file://example-cluster/x")), reply
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(("method", "case"), HEARD, ids=[f"{case.recorded}-{method}" for method, case in HEARD])
def test_it_raises_the_same_when_it_hears_the_recorded_reply(
    recorder: tuple[Finished, dict[str, Any]], method: str, case: Case
) -> None:
    """So the errors in the table are those of the real services."""
    run, reply = recorder
    reply.clear()
    reply |= RECORDED[case.recorded]

    assert list(differences(case.gave, attempt(lambda: case.call(run, method)))) == []


@pytest.mark.parametrize("number", sorted({case.recorded for _, case in CASES} - {"own"}))
def test_the_recorded_call_exists(number: str) -> None:
    """Each number in the table is that of a recorded call."""
    assert number in RECORDED
