"""Thousands of instances are fast to create, list and delete."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest

from st4sd_async.local import LocalServer
from tests.local.helpers import MOLECULES, definition, start
from tests.tries import tries

pytestmark = [pytest.mark.timeout(60), pytest.mark.slow]  # thousands of instances on a busy machine

COUNT = tries(1000, 300)


def test_populated_instances_are_listed_first(server: LocalServer, web: httpx.Client, push: Any) -> None:
    """They are finished, in the order of their starts, and come before started ones."""
    server.describe("toy", inputs=["in.csv"], outputs={"A": b"a"})
    push()
    old = server.populate("toy", 3, payload={"metadata": {"campaign": "x"}})
    new = start(web, inputs=[{"filename": "in.csv", "content": "x"}])

    items = web.get("/instances/").json()

    assert [item["id"] for item in items] == [*old, new]
    first, last = items[0]["status"], items[2]["status"]
    assert (first["experiment-state"], first["exit-status"]) == ("finished", "Success")
    assert first["meta"]["userMetadata"]["campaign"] == "x"
    assert first["meta"]["instanceName"] < last["meta"]["instanceName"]
    assert items[0]["outputs"]["A"]["filepath"].endswith("/A")
    assert items[0]["experiment"]["metadata"]["registry"]["timesExecuted"] == 4
    assert web.get(f"/instances/{old[0]}/status").json() == first
    assert web.get(f"/instances/{old[1]}/outputs/A").content == b"a"
    assert web.delete(f"/instances/{old[0]}").status_code == 200
    assert [item["id"] for item in web.get("/instances/").json()] == [*old[1:], new]


def test_populated_instances_are_at_the_end_of_their_outcome(server: LocalServer, web: httpx.Client, push: Any) -> None:
    """The outcome may be rows or may never end; they use no slots, even if they are deleted."""
    push()
    (failed,) = server.populate("toy", 1, "component-failure")
    (scripted,) = server.populate("toy", 1, [(0, None), (1, {"experiment-state": "running", "exit-status": "N/A"})])
    stuck = server.populate("toy", 5, "stuck")
    assert all(web.delete(f"/instances/{rest_uid}").status_code == 200 for rest_uid in stuck)
    runs = [start(web) for _ in range(3)]
    server.advance(1)

    states = [web.get(f"/instances/{uid}/status").json()["experiment-state"] for uid in (failed, scripted, *runs)]

    assert states == ["finished", "running", "Initialising", "Initialising", "unscheduled"]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("ghost", 1), "no experiment 'ghost' was pushed"),
        (("toy", 0), "count must be at least 1, not 0"),
        (("toy", 1, "wonder"), "no outcome 'wonder'"),
        (("toy", 1, [(1, None)]), "the first row must be at 0 s"),
    ],
)
def test_invalid_populations_are_errors(server: LocalServer, push: Any, arguments: Any, text: str) -> None:
    """Unknown names and out-of-range numbers are ValueErrors."""
    push()

    with pytest.raises(ValueError, match=text):
        server.populate(*arguments)
    with pytest.raises(ValueError, match=r"the payload is refused: .*Invalid start payload"):
        server.populate("toy", 1, payload={"bogus": 1})


def test_an_item_is_rendered_again_only_if_it_changed(server: LocalServer, web: httpx.Client, push: Any) -> None:
    """A long list costs less than half the second time, and shows later changes."""
    push()
    server.populate("toy", COUNT)
    rest_uid = start(web)
    server.advance(2)
    first = web.get("/instances/").json()
    costs = [server.traffic["GET /instances/"].seconds]
    for _ in range(5):  # one of them may include a garbage collection
        again = web.get("/instances/").json()
        costs.append(server.traffic["GET /instances/"].seconds)
    cold, warm = costs[0], min(later - sooner for sooner, later in pairwise(costs))

    server.advance(10)
    web.put("/experiments/toy/tag?newTags=latest,new")
    later = web.get("/instances/").json()

    assert first == again
    assert warm < cold / 2
    assert later[COUNT]["id"] == rest_uid
    assert (first[COUNT]["status"]["exit-status"], later[COUNT]["status"]["exit-status"]) == ("N/A", "Success")
    assert {tuple(item["experiment"]["metadata"]["registry"]["tags"]) for item in later} == {("latest", "new")}
    assert [item["status"] for item in later[:COUNT]] == [item["status"] for item in first[:COUNT]]


def test_the_list_writes_no_files(tmp_path: Path) -> None:
    """Names and paths of key-outputs are known without running an example or writing a file."""
    with LocalServer(speed=0, keep=tmp_path) as server:
        headers = {"Authorization": f"Bearer {server.api_key}"}
        with httpx.Client(base_url=server.url, headers=headers, timeout=30, verify=False) as web:
            web.post("/experiments/", json=server.example("demo"))
            rest_uid = start(web, "demo", inputs=[MOLECULES])
            server.advance(10)
            (item,) = web.get("/instances/").json()
            untouched = list(tmp_path.iterdir())
            energies = web.get(f"/instances/{rest_uid}/outputs/Energies")
            outputs = web.get(f"/instances/{rest_uid}/outputs").json()

    assert untouched == []
    assert energies.content.startswith(b"input-id,smiles")
    assert item["outputs"] == outputs
    assert item["outputs"]["Energies"]["filename"] == "energies.csv"


def test_the_failing_example_has_no_outputs_whatever_its_outcome(server: LocalServer, web: httpx.Client) -> None:
    """Its programs cannot write them, so that even a success lists none."""
    web.post("/experiments/", json=server.example("fail"))
    server.outcome("fail", "success")
    rest_uid = start(web, "fail")
    server.advance(10)

    assert web.get(f"/instances/{rest_uid}/outputs").json() == {}


def test_many_runs_begin_and_end_in_the_order_of_their_starts() -> None:
    """Many starts share few slots; deleting most of them lets the others move up."""
    with LocalServer(speed=0, slots=10) as server:
        headers = {"Authorization": f"Bearer {server.api_key}"}
        with httpx.Client(base_url=server.url, headers=headers, timeout=30, verify=False) as web:
            web.post("/experiments/", json=definition())
            runs = [start(web) for _ in range(tries(100, 40))]
            for rest_uid in runs[:-15]:
                assert web.delete(f"/instances/{rest_uid}").status_code == 200
            server.advance(5)
            states = [item["status"]["experiment-state"] for item in web.get("/instances/").json()]

    assert states == ["finished"] * 10 + [None] * 5


def test_runs_catch_up_with_everything_that_happened_since() -> None:
    """However late the first request is, each run began when the previous one released its slot."""
    with LocalServer(speed=0, slots=1) as server:
        headers = {"Authorization": f"Bearer {server.api_key}"}
        with httpx.Client(base_url=server.url, headers=headers, timeout=30, verify=False) as web:
            web.post("/experiments/", json=definition())
            for _ in range(5):
                start(web)
            server.advance(16)
            states = [item["status"]["experiment-state"] for item in web.get("/instances/").json()]

    assert states == ["finished", "finished", "finished", "Initialising", None]
