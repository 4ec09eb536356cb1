"""The server counts requests and their cost."""

from __future__ import annotations

import dataclasses
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from st4sd_async.local import BadJson, Cost, CutBody, Delay, DropAfter, DropBefore, Html, LocalServer, Reply, Traffic
from st4sd_async.local.http.messages import proxy_page
from st4sd_async.local.http.traffic import RequestLog
from tests.local.helpers import start


def test_requests_are_counted_by_kind(server: LocalServer, web: httpx.Client, push: Any) -> None:
    """Ids become asterisks; prefix, query and trailing slash do not count."""
    push()
    rest_uid = start(web)
    bodies = [web.get("/instances/").content, web.get(f"{server.url}/instances/").content]
    for path in ("/status", "/status/", "/outputs?a=b", "/outputs/Folder/sub/b.bin", "/"):
        web.get(f"/instances/{rest_uid}{path}")
    web.get("/nope")
    web.get(f"{server.url}/ds-registry/hello/")

    traffic = server.traffic

    assert {kind: cost.requests for kind, cost in traffic.kinds.items()} == {
        "POST /experiments/": 1,
        "POST /experiments/*/start": 1,
        "GET /instances/": 2,
        "GET /instances/*/status": 2,
        "GET /instances/*/outputs": 1,
        "GET /instances/*/outputs/*": 1,
        "GET /instances/*": 1,
        "GET *": 1,
        "GET /ds-registry/hello/": 1,
    }
    assert traffic["GET /instances/"].sent == sum(map(len, bodies))
    assert traffic["GET /instances/"].seconds > 0
    assert traffic["DELETE /instances/*"] == Cost()
    assert traffic.requests == len(server.requests) == 11


def test_the_total_is_the_sum_and_does_not_change(server: LocalServer, web: httpx.Client) -> None:
    """A snapshot is immutable and does not include later requests."""
    web.get("/url-map/")
    before = server.traffic
    web.get("/")

    assert isinstance(before, Traffic)
    assert before.requests == 1
    assert before.sent == sum(cost.sent for cost in server.traffic.kinds.values()) - server.traffic["GET /"].sent
    assert server.traffic.seconds >= server.traffic["GET /"].seconds > 0
    with pytest.raises(dataclasses.FrozenInstanceError):
        before.requests = 2  # type: ignore[misc]  # what is tested


def test_rejected_requests_count(server: LocalServer) -> None:
    """Requests without credentials, large bodies and HEAD count with the bytes they were sent."""
    stranger = httpx.get(f"{server.url}/rs/instances/", headers={"Accept-Encoding": "identity"}, verify=False)
    headers = {"Authorization": f"Bearer {server.api_key}"}
    large = httpx.post(f"{server.url}/experiments/", content=b" " * (1024 * 1024 + 1), headers=headers, verify=False)
    httpx.head(f"{server.url}/instances/", headers=headers)

    assert (stranger.status_code, large.status_code) == (403, 413)
    traffic = server.traffic
    assert (traffic["GET /instances/"].requests, traffic["GET /instances/"].sent) == (1, len(stranger.content))
    assert traffic["POST /experiments/"].sent == len(large.content)
    assert (traffic["HEAD /instances/"].requests, traffic["HEAD /instances/"].sent) == (1, 0)


@pytest.mark.parametrize(
    ("fault", "sent"),
    [
        (DropBefore(), 0),
        (DropAfter(), 0),
        (CutBody(3), 3),
        (CutBody(999), 6),
        (BadJson(), 3),
        (Reply(503, body=b"no"), 2),
        (Reply(500, body=b"no", handled=True), 2),
        (Html(504), len(proxy_page(504, "Gateway Time-out").body)),
        (Delay(0), 6),
    ],
    ids=repr,
)
def test_faulted_requests_count_what_was_sent(
    server: LocalServer, web: httpx.Client, push: Any, fault: Any, sent: int
) -> None:
    """Of a cut body only the sent bytes count, of a dropped connection none."""
    server.describe("toy", outputs={"A": b"abcdef"})
    push()
    rest_uid = start(web)
    server.advance(10)
    server.faults.add("GET /instances/", fault)

    try:
        web.get(f"/instances/{rest_uid}/outputs/A")
    except httpx.TransportError:
        assert isinstance(fault, DropBefore | DropAfter | CutBody)

    cost = server.traffic["GET /instances/*/outputs/*"]
    assert (cost.requests, cost.sent) == (1, sent)
    assert (cost.seconds > 0) == (not isinstance(fault, DropBefore | Html) and fault != Reply(503, body=b"no"))


def test_nothing_is_sent_to_a_client_that_gave_up(server: LocalServer, web: httpx.Client, push: Any) -> None:
    """Its request is handled, but no bytes are counted as sent."""
    push()
    server.faults.add("POST /experiments/*/start", Delay(0.3))

    with pytest.raises(httpx.ReadTimeout):
        web.post("/experiments/toy/start", json={}, timeout=httpx.Timeout(5, read=0.01))

    limit = time.monotonic() + 5
    while not server.traffic["POST /experiments/*/start"].seconds:
        assert time.monotonic() < limit
        time.sleep(0.01)
    web.get("/url-map/")
    assert server.traffic["POST /experiments/*/start"].sent == 0


def test_counting_is_exact_with_many_threads() -> None:
    """No count is lost if many requests end at once; only the last ones are listed."""
    log = RequestLog()

    def work(_: int) -> None:
        for _ in range(1500):
            log.record_request("GET", "/rs/url-map/", "GET /url-map/")
            log.record_cost("GET /url-map/", sent=2, seconds=0.5)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))

    assert log.traffic()["GET /url-map/"] == Cost(12_000, 24_000, 6_000.0)
    assert len(log.requests()) == 10_000
