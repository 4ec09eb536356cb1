"""Fixtures: finished runs of both engines with the client of st4sd-runtime-core, and our client."""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import pytest

from st4sd_async import Client
from st4sd_async.local import LocalServer
from tests.client.definitions import LAMBDA
from tests.local.helpers import MOLECULES
from tests.local.incumbent.finished import Finished, attempt

WEIGHTS = {"filename": "weights.csv", "content": "element,weight\nC,12.011\nO,15.999\n"}
DEMO = {"inputs": [MOLECULES], "variables": {"scale": 1}, "data": [WEIGHTS], "metadata": {"campaign": "x"}}


@contextmanager
def finished_runs(engine: Literal["simulator", "elaunch"]) -> Iterator[Finished]:
    """
    Execute a run of each example and of a lambda experiment; real ones take 10 s.

    A fourth run waits for a slot until it is deleted.
    """
    from experiment.service.db import ExperimentRestAPI

    with LocalServer(engine=engine, speed=0, slots=3) as server:
        key = server.api_key
        api = ExperimentRestAPI(f"{server.url}/rs", max_retries=2, secs_between_retries=0.01, cc_bearer_key=key)
        began: dict[str, Any] = {}

        def ask(name: str, method: str, *args: Any, **options: Any) -> Any:
            began[name] = attempt(lambda: getattr(api, method)(*args, **options))
            return began[name]

        ask("push", "api_experiment_push", server.example("demo"))
        ask("upsert", "api_experiment_upsert", server.example("fail"))
        runs = {"demo": ask("start", "api_experiment_start", "demo", DEMO)}
        ask("status at once", "api_rest_uid_status", runs["demo"])
        ask("output at once", "api_rest_uid_output_get", runs["demo"], "Energies")
        runs["fail"] = api.api_experiment_start("fail", {})
        runs["lambda"] = ask("start a lambda", "api_experiment_start_lambda", copy.deepcopy(LAMBDA))
        stopped = api.api_experiment_start("demo", DEMO)
        ask("delete", "api_rest_uid_delete", stopped)
        ask("delete again", "api_rest_uid_delete", stopped)
        ask("status after deletion", "api_rest_uid_status", stopped)
        finished = Finished(engine, server, api, runs, began=began)
        finished.wait()
        yield finished


@pytest.fixture(scope="session")
def simulated() -> Iterator[Finished]:
    """Return the runs of the simulator."""
    with finished_runs("simulator") as finished:
        yield finished


@pytest.fixture(scope="session")
def executed() -> Iterator[Finished]:
    """Return the runs of the orchestrator."""
    with finished_runs("elaunch") as finished:
        yield finished


# The first of these tests waits until all real runs are over. That takes 10 s, and minutes on a busy machine.
EXECUTED = pytest.param("elaunch", marks=[pytest.mark.slow, pytest.mark.timeout(300)])


@pytest.fixture(scope="module", params=["simulator", EXECUTED])
def finished(request: pytest.FixtureRequest) -> Finished:
    """Return the runs of both engines in turn; a session fixture with parameters would execute them in each module."""
    finished: Finished = request.getfixturevalue("simulated" if request.param == "simulator" else "executed")
    return finished


@pytest.fixture
async def client(finished: Finished) -> AsyncIterator[Client]:
    """Return our client of the same server."""
    async with Client(finished.server.url, api_key=finished.server.api_key) as opened:
        yield opened
