"""What the comparisons with the client of st4sd-runtime-core share: their marks, and finished runs."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import pytest
from anyio import to_thread

from st4sd_async.local import LocalServer

INCUMBENT = [
    pytest.mark.filterwarnings("ignore"),  # of the incumbent and its dependencies
    pytest.mark.timeout(120),
]
"""Marks of tests that use the incumbent."""


def attempt(call: Callable[[], Any]) -> Any:
    """Return what a call returns, or raises."""
    try:
        return call()
    except Exception as error:
        return error


@dataclass
class Finished:
    """Finished runs, and the incumbent's client."""

    engine: Literal["simulator", "elaunch"]
    server: LocalServer
    api: Any
    runs: dict[str, str]
    """experiment -> rest-uid."""
    instances: dict[str, str] = field(default_factory=dict)
    """experiment -> the run's ``instance`` in documents."""
    began: dict[str, Any] = field(default_factory=dict)
    """What calls gave, or raised, that are only possible while a run begins; see ``conftest.py``."""

    async def ask(self, method: str, *args: Any, **options: Any) -> Any:
        """Call a method of the incumbent, which blocks, in a thread."""
        return await to_thread.run_sync(partial(getattr(self.api, method), *args, **options))

    def wait(self) -> None:
        """Wait until the runs are over and in the datastore."""
        if self.engine == "simulator":
            self.server.advance(100)
        over = {"status.experiment-state": "finished"}
        for name, rest_uid in self.runs.items():
            query = {**over, "type": "experiment", "metadata.userMetadata.rest-uid": rest_uid}
            while not (found := self.api.cdb_get_document(query=query, _api_verbose=False)):
                time.sleep(0.25)
            self.instances[name] = found[0]["instance"]
        self.api.cdb_get_document_component(_api_verbose=False)  # makes the simulator write its files
