"""
Fixtures of the comparisons with the client of st4sd-runtime-core: finished runs of both engines, both clients.

A test module that imports ``client`` needs ``finished`` too.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import pytest
from anyio import to_thread

from st4sd_async import Client
from st4sd_async.local import LocalServer
from tests.local.helpers import MOLECULES

INCUMBENT = [
    pytest.mark.filterwarnings("ignore"),  # of the incumbent and its dependencies
    pytest.mark.timeout(120),
]
"""Marks of tests that use the incumbent."""


@dataclass
class Finished:
    """Finished runs, and the incumbent's client."""

    engine: Literal["simulator", "elaunch"]
    server: LocalServer
    api: Any
    runs: dict[str, str]
    """experiment -> rest-uid."""
    instances: dict[str, str]
    """experiment -> the run's ``instance`` in documents."""

    async def ask(self, method: str, *args: Any, **options: Any) -> Any:
        """Call a method of the incumbent, which blocks, in a thread."""
        return await to_thread.run_sync(partial(getattr(self.api, method), *args, **options))

    def wait(self) -> None:
        """Wait until the runs are over and in the datastore."""
        if self.engine == "simulator":
            self.server.advance(100)
        over = {"status.experiment-state": "finished"}
        while len(found := self.api.cdb_get_document_experiment(query=over, _api_verbose=False)) < len(self.runs):
            time.sleep(0.05)
        self.api.cdb_get_document_component(_api_verbose=False)  # makes the simulator write its files
        self.instances = {document["name"]: document["instance"] for document in found}


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
        made = Finished(request.param, server, api, runs, {})
        made.wait()
        yield made


@pytest.fixture
async def client(finished: Finished) -> AsyncIterator[Client]:
    """Return our client of the same server."""
    async with Client(finished.server.url, api_key=finished.server.api_key) as opened:
        yield opened
