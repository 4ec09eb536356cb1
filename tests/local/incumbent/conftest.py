"""Fixtures: finished runs of both engines with the client of st4sd-runtime-core, and our client."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from st4sd_async import Client
from st4sd_async.local import LocalServer
from tests.local.helpers import MOLECULES
from tests.local.incumbent.finished import Finished


@pytest.fixture(scope="module", params=["simulator", pytest.param("elaunch", marks=pytest.mark.slow)])
def finished(request: pytest.FixtureRequest) -> Iterator[Finished]:
    """Return a run of each example by both engines."""
    from experiment.service.db import ExperimentRestAPI

    with LocalServer(engine=request.param, speed=0) as server:
        key = server.api_key
        api = ExperimentRestAPI(f"{server.url}/rs", max_retries=2, secs_between_retries=0.01, cc_bearer_key=key)
        for name in ("demo", "fail"):
            api.api_experiment_push(server.example(name))
        runs = {
            "demo": api.api_experiment_start("demo", {"inputs": [MOLECULES], "metadata": {"campaign": "x"}}),
            "fail": api.api_experiment_start("fail", {}),
        }
        finished = Finished(request.param, server, api, runs, {})
        finished.wait()
        yield finished


@pytest.fixture
async def client(finished: Finished) -> AsyncIterator[Client]:
    """Return our client of the same server."""
    async with Client(finished.server.url, api_key=finished.server.api_key) as opened:
        yield opened
