"""Faults hit the matching requests as often as configured, and do what they document."""

from __future__ import annotations

import time
from typing import Any

import httpx
import pytest

from st4sd_async.local import (
    BadJson,
    BreakOff,
    CutBody,
    Delay,
    DropAfter,
    DropBefore,
    Faults,
    Html,
    LocalServer,
    Reply,
    ShortList,
)
from tests.local.helpers import start


def instances(web: httpx.Client) -> int:
    """Return the number of instances."""
    return len(web.get("/instances/").json())


def test_a_reply_replaces_the_handler(server: LocalServer, web: httpx.Client) -> None:
    """The status, headers and body of the fault arrive, for the configured number of requests."""
    server.faults.add("GET /url-map/", Reply(503, {"Retry-After": "1", "Content-Type": "text/x"}, b"no"), times=2)

    first, second, third = (web.get("/url-map/") for _ in range(3))

    for reply in (first, second):
        assert (reply.status_code, reply.content) == (503, b"no")
        assert (reply.headers["retry-after"], reply.headers["content-type"]) == ("1", "text/x")
    assert third.status_code == 200


def test_a_reply_can_hide_that_the_request_was_handled(server: LocalServer, web: httpx.Client, push: Any) -> None:
    """The run was created, but the client gets an internal error."""
    push()
    server.faults.add("POST /experiments/*/start", Reply(500, handled=True))

    reply = web.post("/experiments/toy/start", json={})

    assert reply.status_code == 500
    assert instances(web) == 1


def test_html_is_a_page_of_the_proxy(server: LocalServer, web: httpx.Client, push: Any) -> None:
    """A gateway error is HTML, and the request is not handled."""
    push()
    server.faults.add("POST /experiments/*/start", Html(502))

    reply = web.post("/experiments/toy/start", json={})

    assert (reply.status_code, reply.headers["content-type"]) == (502, "text/html")
    assert "502 Bad Gateway" in reply.text
    assert instances(web) == 0


def test_a_drop_before_starts_nothing(server: LocalServer, web: httpx.Client, push: Any) -> None:
    """The connection is closed, nothing was started, and the next request succeeds."""
    push()
    server.faults.add("POST /experiments/", DropBefore())

    with pytest.raises(httpx.TransportError):
        web.post("/experiments/toy/start", json={})

    assert instances(web) == 0


def test_a_drop_after_has_started_the_instance(server: LocalServer, web: httpx.Client, push: Any) -> None:
    """The connection is closed without a response, but the instance was started."""
    push()
    server.faults.add("POST /experiments/*/start", DropAfter())

    with pytest.raises(httpx.TransportError):
        web.post("/experiments/toy/start", json={})

    assert instances(web) == 1
    assert server.requests.count(("POST", "/rs/experiments/toy/start")) == 1


@pytest.mark.parametrize("after", [0, 2])
def test_a_cut_body_sends_less_than_its_content_length(
    server: LocalServer, web: httpx.Client, push: Any, after: int
) -> None:
    """The headers and the first bytes arrive, then the connection is closed."""
    server.describe("toy", outputs={"A": b"abcdef"})
    push()
    rest_uid = start(web)
    server.advance(10)
    server.faults.add(f"GET /instances/{rest_uid}/outputs/A", CutBody(after))

    received: list[bytes] = []
    with web.stream("GET", f"/instances/{rest_uid}/outputs/A") as reply:
        assert (reply.status_code, reply.headers["content-length"]) == (200, "6")
        with pytest.raises(httpx.RemoteProtocolError):
            received.extend(reply.iter_raw())

    assert b"".join(received) == b"abcdef"[:after]
    assert web.get(f"/instances/{rest_uid}/outputs/A").content == b"abcdef"


def test_bad_json_is_half_a_body(server: LocalServer, web: httpx.Client, push: Any) -> None:
    """The request is handled; the response is valid HTTP but not valid JSON."""
    push()
    server.faults.add("POST /experiments/*/start", BadJson())

    reply = web.post("/experiments/toy/start", json={})

    assert reply.status_code == 200
    assert reply.text.startswith('"toy-')
    with pytest.raises(ValueError, match="Unterminated string"):
        reply.json()
    assert instances(web) == 1


@pytest.mark.parametrize(
    ("missing", "left"),
    [({1, 3}, [0, 2, 4]), (set(), [0, 1, 2, 3, 4]), (0.4, [0, 1, 3]), (0, [0, 1, 2, 3, 4]), (1.0, [])],
)
def test_a_short_list_silently_lacks_items(
    server: LocalServer, web: httpx.Client, push: Any, missing: Any, left: list[int]
) -> None:
    """The list is 200 without some items, once; other responses are unchanged."""
    push()
    uids = server.populate("toy", 5)
    fault = ShortList({"ghost", *(uids[index] for index in missing)} if isinstance(missing, set) else missing)
    server.faults.add("GET /instances/", fault, times=2)

    single = web.get(f"/instances/{uids[1]}")
    short = web.get("/instances/")

    assert single.json()["id"] == uids[1]
    assert (short.status_code, short.headers["content-length"]) == (200, str(len(short.content)))
    assert [item["id"] for item in short.json()] == [uids[index] for index in left]
    assert [item["id"] for item in web.get("/instances/").json()] == uids


def test_a_short_list_needs_credentials(server: LocalServer) -> None:
    """A request without credentials is rejected as usual."""
    server.faults.add("GET /instances/", ShortList(0.5))

    assert httpx.get(f"{server.url}/rs/instances/", verify=False).status_code == 403


@pytest.mark.parametrize("missing", ["demo-c52cd4-76k4hf87", -0.1, 1.1])
def test_a_short_list_needs_ids_or_a_share(missing: Any) -> None:
    """A single id as text and shares outside of 0 to 1 are errors."""
    with pytest.raises(ValueError, match="missing must be ids or a share from 0 to 1, not"):
        ShortList(missing)


def test_a_short_list_can_lack_random_items(server: LocalServer, web: httpx.Client, push: Any) -> None:
    """About the configured share is missing, and different items in each response."""
    push()
    uids = server.populate("toy", 40)
    server.faults.add("GET /instances/", ShortList(0.5, at_random=True), times=10)

    answers = [[item["id"] for item in web.get("/instances/").json()] for _ in range(10)]

    assert all(answer == [uid for uid in uids if uid in answer] for answer in answers)
    assert len(set(map(tuple, answers))) > 1
    assert 100 < sum(map(len, answers)) < 300


@pytest.mark.parametrize(("at", "left"), [(2, 2), (0, 0), (4, 4), ("ghost", 5), (0.5, 2), (0.0, 0), (1.0, 5)])
def test_a_list_can_end_early(server: LocalServer, web: httpx.Client, push: Any, at: Any, left: int) -> None:
    """All later items are missing too, with status 200, as long as the item exists."""
    push()
    uids = server.populate("toy", 5)
    fault = BreakOff(uids[at] if isinstance(at, int) else at)
    server.faults.add("GET /instances/$", fault, times=None)

    broken = web.get("/instances/")

    assert (broken.status_code, broken.headers["content-length"]) == (200, str(len(broken.content)))
    assert [item["id"] for item in broken.json()] == uids[:left]
    if isinstance(at, int):
        web.delete(f"/instances/{uids[at]}")
        assert len(web.get("/instances/").json()) == 4


@pytest.mark.parametrize("at", [-0.1, 1.1])
def test_a_list_ends_at_an_id_or_a_share(at: float) -> None:
    """Shares outside of 0 to 1 are errors."""
    with pytest.raises(ValueError, match="at must be an id or a share from 0 to 1, not"):
        BreakOff(at)


def test_a_delay_comes_before_the_handler(server: LocalServer, web: httpx.Client, push: Any) -> None:
    """The response is late, or the client gives up; the request is handled in both cases."""
    push()
    server.faults.add("POST /experiments/*/start", Delay(0.03))
    begin = time.monotonic()

    web.post("/experiments/toy/start", json={})

    assert time.monotonic() - begin >= 0.03
    assert instances(web) == 1


def test_a_delayed_request_is_handled_although_the_client_gave_up(
    server: LocalServer, web: httpx.Client, push: Any
) -> None:
    """The request of a client that timed out is handled later."""
    push()
    server.faults.add("POST /experiments/*/start", Delay(0.3))

    with pytest.raises(httpx.ReadTimeout):
        web.post("/experiments/toy/start", json={}, timeout=httpx.Timeout(5, read=0.02))

    deadline = time.monotonic() + 5
    while not instances(web):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_faults_can_be_cleared(server: LocalServer, web: httpx.Client) -> None:
    """A fault without a number of times stays until it is cleared."""
    server.faults.add("* /", Html(504), times=None)
    broken = [web.get("/url-map/").status_code for _ in range(5)]

    server.faults.clear()

    assert broken == [504] * 5
    assert web.get("/url-map/").status_code == 200


@pytest.mark.parametrize(
    ("match", "method", "path", "hit"),
    [
        ("GET /instances/", "GET", "/rs/instances/", True),
        ("GET /instances/", "GET", "/instances/a/status", True),
        ("GET /instances/$", "GET", "/rs/instances/", True),
        ("GET /instances/$", "GET", "/rs/instances/a", False),
        ("GET /rs/instances/", "GET", "/instances/", False),
        ("get /instances/", "GET", "/instances/", True),
        ("GET /instances/", "POST", "/instances/", False),
        ("* /experiments/*/start", "POST", "/rs/experiments/demo/start", True),
        ("POST /experiments/*/start", "GET", "/rs/experiments/demo/start/payload/", False),
        ("* /instances/?", "GET", "/instances/a", True),
        ("* *", "DELETE", "/anything", True),
    ],
)
def test_matches_are_beginnings_whole_paths_or_patterns(match: str, method: str, path: str, hit: bool) -> None:
    """A match is a method or ``*``, and the beginning of a path, a whole path or a pattern, with or without prefix."""
    faults = Faults()
    faults.add(match, Html())

    assert faults.take(method, path) == (Html() if hit else None)
    assert faults.take(method, path) is None


def test_earlier_faults_are_used_up_first() -> None:
    """Two faults for the same request hit one after the other."""
    faults = Faults()
    faults.add("GET /", Html(502), times=2)
    faults.add("GET /", Html(504))

    assert [faults.take("GET", "/x") for _ in range(4)] == [Html(502), Html(502), Html(504), None]


def test_a_fault_can_hit_every_nth_request() -> None:
    """Every third request is hit, up to the number of times; other requests are left to the next fault."""
    faults = Faults()
    faults.add("GET /", Html(503), times=2, every=3)
    faults.add("GET /", Html(504), every=2)

    hit = [getattr(faults.take("GET", "/x"), "status", None) for _ in range(8)]

    assert hit == [None, 504, 503, None, None, 503, None, None]
    assert faults.hits == {"GET / Html": 3}


def test_a_fault_can_hit_at_random() -> None:
    """It hits about as often as its probability says."""
    faults = Faults()
    faults.add("GET /", Html(), times=None, chance=0.2)
    faults.add("GET /", DropAfter(), times=None, chance=0.0)

    hits = sum(faults.take("GET", "/x") is not None for _ in range(1000))

    assert 100 < hits < 320
    assert faults.hits == {"GET / Html": hits}


def test_faults_are_cleared_by_their_match() -> None:
    """Faults with another match stay, and hits are still counted."""
    faults = Faults()
    faults.add("GET /a", Html(502), times=None)
    faults.add("GET /", Html(504), times=None)
    faults.take("GET", "/a")

    faults.clear("GET /a")

    assert faults.take("GET", "/a") == Html(504)
    assert faults.hits == {"GET /a Html": 1, "GET / Html": 1}


@pytest.mark.parametrize("match", ["/instances/", "GET", "GET instances", ""])
def test_invalid_matches_are_errors(match: str) -> None:
    """A match needs a method and a path."""
    with pytest.raises(ValueError, match="match must look like"):
        Faults().add(match, Html())


def test_faults_for_no_request_are_errors() -> None:
    """The number of times is at least 1."""
    with pytest.raises(ValueError, match="times must be at least 1"):
        Faults().add("GET /", Html(), times=0)


@pytest.mark.parametrize("turns", [{"every": 0}, {"chance": -0.1}, {"chance": 1.1}])
def test_every_and_chance_out_of_range_are_errors(turns: dict[str, Any]) -> None:
    """A fault that could never hit is an error."""
    with pytest.raises(ValueError, match="must be"):
        Faults().add("GET /", Html(), **turns)
