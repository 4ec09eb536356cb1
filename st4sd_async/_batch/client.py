"""The methods of the client that a batch calls, as a protocol."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from .._api.datastore import Datastore
    from .._api.instances import Instances
    from .._results.properties import PropertiesReader
    from .._run import Run
    from ..models import Failure, Properties, Status


class BatchClient(Protocol):
    """The methods of `Client` that a batch calls."""

    instances: Instances
    datastore: Datastore

    def run(self, rest_uid: str, /) -> Run:
        """Return the handle on a run."""

    async def status(self, run: str, /) -> Status:
        """Return the current status of a run."""

    async def failure(self, run: str, /) -> Failure | None:
        """Return why a run failed; None if it has not."""

    async def delete(self, run: str, /) -> None:
        """Stop and delete a run."""

    def watch_many(self, runs: Iterable[str], /) -> AsyncGenerator[tuple[Run, Status]]:
        """Yield changes of the statuses of runs until all are over."""

    async def properties(self, run: Iterable[str], names: Iterable[str] | None = None, /) -> Properties:
        """Return the measured properties of runs."""

    def _properties_reader(self, names: Iterable[str] | None, /) -> PropertiesReader:
        """Return what reads these properties of runs."""
