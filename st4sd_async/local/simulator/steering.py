"""
What a test tells the simulator through its server: how runs go, what packages hold, what time it is.
"""

from __future__ import annotations

from collections.abc import Awaitable, Generator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from st4sd_async.local.simulator.clock import VirtualClock
from st4sd_async.local.simulator.descriptions import Description
from st4sd_async.local.simulator.simulator import Simulator

if TYPE_CHECKING:
    from st4sd_async.local.engine.interface import AcceptedStart, Engine
    from st4sd_async.local.runtime.service import RuntimeService
    from st4sd_async.local.simulator.scripts import Row


class Steering:
    """The methods of a server that need the simulator; any thread may call them."""

    _clock: VirtualClock
    _engine: Engine | None = None
    _runtime: RuntimeService

    def advance(self, seconds: float) -> Awaitable[None]:
        """
        Move the virtual time of the simulator on, at once.

        Returns:
            Something to await that is already done, so that plain code can do without ``await``.

        Raises:
            RuntimeError: The engine is not the simulator: real runs take real time.
        """
        self._simulator("advance")
        self._clock.advance(seconds)
        return _Done()

    def outcome(
        self, experiment: str, outcome: str | Sequence[Row], *, times: int | None = None, stretch: float = 1.0
    ) -> None:
        """
        Say how simulated runs of an experiment go that are started from now on.

        A recorded life is played word for word. A row is the seconds since the run got its slot and the
        status from then on, in the words of the wire: None while there is none. What a status leaves out is
        as usual in such a state, ``meta`` and ``stages`` included. A third entry is what the list shows
        instead; None: only nulls. ::

            server.outcome("demo", [
                (0.0, None),                                                          # 400, or the warning
                (0.3, {}),                                                            # all null
                (2.4, {"experiment-state": "running", "exit-status": "N/A"}),
                (9.0, {"experiment-state": "Failed", "exit-status": ""},              # only the cluster knows
                      {"experiment-state": "running", "exit-status": "N/A"}),
            ])

        The run gives its slot back at the last row with an experiment-state and an exit-status that are
        final; its key-outputs are there while the exit-status is "Success".

        The outcomes with a name:

        - "success": the run ends well after 5 s. "state-first": the same, but the experiment-state is final first.
        - "component-failure": a component exits with an error. "stopped": the orchestrator is stopped by a signal.
        - "setup-failure": the orchestrator refuses its arguments. "init-failure": the package cannot be cloned.
        - "unscheduled": the cluster is full for 3 s, then the run succeeds.
        - "image-pull": pulling an image fails twice, then the run succeeds. "unschedulable": the cluster gives up
          pulling an image, which is repaired after 3 s, then the run succeeds.
        - "killed": the orchestrator is killed. "killed-after-failure": after a component failed.
        - "monitor-stuck": no status is reported before the run ends well after 5 s.
        - "stuck": a component never ends.

        Args:
            experiment: The name of the experiment.
            outcome: One of these names; or the rows of a life.
            times: For how many starts, after those that were planned so before; None: for all others.
            stretch: How many times longer than usual the run takes.

        Raises:
            RuntimeError: The engine is not the simulator.
            ValueError: There is no such outcome, the rows do not begin at 0 s and rise, one has another form
                or an unknown word for a key, or a number is out of range.
        """
        self._simulator("outcome").plan(experiment, outcome, times, stretch)

    def populate(
        self,
        experiment: str,
        count: int,
        outcome: str | Sequence[Row] = "success",
        *,
        payload: Mapping[str, Any] | None = None,
    ) -> list[str]:
        """
        Add instances that were started a month ago, one a second, without a request and without a slot.

        They stand in the last moment of their outcome.

        Args:
            experiment: The name or identifier of an experiment that was pushed.
            count: How many; 20,000 take about a second.
            outcome: As in `outcome`.
            payload: What each was started with; inputs that it does not name are blank.

        Returns:
            Their ids, the oldest first.

        Raises:
            RuntimeError: The engine is not the simulator.
            ValueError: There is no such experiment or outcome, count is below 1, or the payload is refused.
        """
        simulator = self._simulator("populate")
        launches = self._runtime.accepted_starts(experiment, count, payload or {})
        simulator.populate(launches, outcome)
        self._runtime.add_instances(launches)
        return [launch.rest_uid for launch in launches]

    @property
    def started(self) -> list[AcceptedStart]:
        """
        Everything that was ever started, in that order, whether or not it was answered, shown, or deleted since.

        Raises:
            RuntimeError: The engine is not the simulator.
        """
        return self._simulator("started").launches()

    def describe(
        self,
        name_or_url: str,
        *,
        inputs: Sequence[str] = (),
        data: Sequence[str] = (),
        outputs: Mapping[str, bytes | Mapping[str, bytes]] | None = None,
        variables: Mapping[str, str] | None = None,
        interface: Mapping[str, Any] | None = None,
        properties: str | None = None,
        problem: str | None = None,
    ) -> None:
        """
        Say what a package contains that the simulator will never read; before it is pushed.

        Args:
            name_or_url: The name of the experiment, or the url in the location of its package.
            inputs: Input files that every start must bring.
            data: Data files of the package.
            outputs: key-output -> content: bytes, or for a folder a dictionary path -> bytes.
            variables: variable -> default.
            interface: The virtual experiment interface.
            properties: The table of measured properties as CSV text; None: nothing is measured.
            problem: Refuse the push, with this text; None: accept it.

        Raises:
            RuntimeError: The engine is not the simulator.
        """
        description = Description(inputs, data, outputs or {}, variables or {}, interface or {}, properties, problem)
        self._simulator("describe").describe(name_or_url, description)

    def mount(self, kind: str, name: str, folder: Path) -> None:
        """
        Let a folder stand for a volume or dataset of the cluster, with either engine.

        Args:
            kind: "persistentVolumeClaim", "configMap", "secret" or "dataset".
            name: Its name, as the ``volumes`` of a payload give it, or ``s3.dataset``.
            folder: What is in it.

        Raises:
            RuntimeError: The server was not entered.
            ValueError: Another kind, or no folder.
        """
        if self._engine is None:
            raise RuntimeError("mount needs a server that was entered")
        self._runtime.storage.mount(kind, name, folder)

    def _simulator(self, method: str) -> Simulator:
        if self._engine is None:
            raise RuntimeError(f"{method} needs a server that was entered")
        if not isinstance(self._engine, Simulator):
            raise RuntimeError(f"{method} needs the simulator: this server's runs are real and take real time")
        return self._engine


class _Done:
    """An awaitable that is done."""

    def __await__(self) -> Generator[None, None, None]:
        return
        yield
