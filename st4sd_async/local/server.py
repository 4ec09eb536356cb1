"""
`LocalServer`: an ST4SD on a loopback port of this machine, for tests, demos and users without a cluster.
"""

from __future__ import annotations

import contextlib
import importlib.util
import tempfile
import time
from collections.abc import Awaitable, Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

from st4sd_async.local.engine.interface import AcceptedStart, Engine
from st4sd_async.local.examples.examples import Examples
from st4sd_async.local.http.credentials import Credentials
from st4sd_async.local.http.faults import Faults
from st4sd_async.local.http.traffic import RequestLog, Traffic
from st4sd_async.local.simulator.packages import PackageDescription, Packages
from st4sd_async.local.simulator.simulator import Simulator, VirtualClock

if TYPE_CHECKING:
    from st4sd_async.local.runtime.service import RuntimeService
    from st4sd_async.local.simulator.outcomes import Row

THREADS = 16
"""Requests that are handled at the same time."""
SIMULATED_SLOTS, REAL_SLOTS = 100, 2
"""Instances that run at the same time by default."""
_MISSING = 'the embedded server needs {module}, which is not installed: pip install "st4sd_async[{extra}]"'


class LocalServer:
    """
    An embedded ST4SD: a plain or asynchronous context manager that serves while it is entered.

    Examples::

        with LocalServer() as server:                      # runs are simulated on a virtual clock
            print(server.url, server.api_key)

        async with LocalServer(speed=0) as server:         # the virtual clock stands still...
            await server.advance(5)                        # ...until it is moved

        with LocalServer(engine="elaunch") as server:      # runs are executed on this machine
            definition = server.example("demo")

    All methods may be called from any thread.

    Attributes:
        url: ``http://127.0.0.1:PORT``, or https with TLS; without a trailing slash.
        ca_file: With TLS, the CA file to trust; it is removed when the server is left. None without TLS.
        faults: Faults to inject; see `Faults`.
    """

    url: str
    ca_file: Path | None
    faults: Faults

    def __init__(
        self,
        *,
        engine: Literal["simulator", "elaunch"] | Engine = "simulator",
        tls: bool = False,
        port: int = 0,
        speed: float = 1.0,
        slots: int | None = None,
        keep: Path | None = None,
        token_lifetime: float | None = None,
        open_registry: bool = False,
    ) -> None:
        """
        Create a server; it listens once it is entered.

        Args:
            engine: "simulator" simulates instances, "elaunch" executes them; or your own engine.
            tls: Serve https, with a certificate of a temporary CA for 127.0.0.1 and localhost.
            port: Port on 127.0.0.1 to listen on. 0 means any free port.
            speed: Virtual seconds of the simulator per real second. 0 means that only `advance` moves the clock.
            slots: Number of instances that run at the same time, at least 1; others are unscheduled. None means 100
                simulated instances or 2 real ones.
            keep: Folder for instance directories that are to outlive the server; its mode becomes 0700. Only files
                are kept: a new server has no runs. None means that they are removed with the server.
            token_lifetime: Seconds until `auth_token` expires, virtual ones with the simulator. None means never.
                API keys do not expire.
            open_registry: Whether the registry (``/registry-ui/``) can be read without credentials, as the global
                one can, so that experiments can be imported from it.

        Raises:
            ImportError: A package is not installed; the text names the extra that contains it.
            ValueError: The engine is unknown, speed is below 0, or slots is below 1.
        """
        if slots is None:
            slots = REAL_SLOTS if engine == "elaunch" else SIMULATED_SLOTS
        if slots < 1:
            raise ValueError(f"slots must be at least 1, not {slots!r}")
        if isinstance(engine, str) and engine not in ("simulator", "elaunch"):
            raise ValueError(f"engine must be 'simulator', 'elaunch' or an engine, not {engine!r}")
        _require("local", "mongomock", "starlette", "uvicorn", *(["trustme"] if tls else []))
        self._engine_option = engine
        self._engine: Engine | None = None
        self._runtime: RuntimeService | None = None
        self._tls = tls
        self._slots = slots
        self._port = port
        self._keep = None if keep is None else keep.absolute()
        self._clock = VirtualClock(speed)
        now = self._clock.now if engine == "simulator" else time.monotonic
        self._credentials = Credentials(now, token_lifetime, is_registry_open=open_registry)
        self._resources = ExitStack()
        self._log = RequestLog()
        self._examples: Examples | None = None
        self.faults = Faults()

    @property
    def api_key(self) -> str:
        """The key to send as a bearer token."""
        return self._credentials.api_key

    @property
    def auth_token(self) -> str:
        """The token to send in the cookie ``oauth-proxy``."""
        return self._credentials.auth_token

    @property
    def requests(self) -> list[tuple[str, str]]:
        """Method and path of the last 10,000 requests, including rejected ones."""
        return self._log.requests()

    @property
    def traffic(self) -> Traffic:
        """A snapshot of how many requests arrived and what they cost, in total and by kind."""
        return self._log.traffic()

    def renew(self) -> None:
        """Create a new `api_key` and `auth_token`; the old ones are rejected from now on."""
        self._credentials.renew()

    def example(self, name: str) -> dict[str, Any]:
        """
        Return the definition of an example experiment to push: "demo" succeeds, "fail" fails.

        Raises:
            RuntimeError: The server was not entered.
        """
        if self._examples is None:
            raise RuntimeError("example needs a running server: enter it first")
        return self._examples.definition(name)

    def directory(self, rest_uid: str) -> Path | None:
        """
        Return the instance directory of a run, even if it was deleted; None if it does not exist yet.

        The simulator writes the files on the first call, which takes a moment. Files that you add below
        ``stages/stageN/COMPONENT`` of a finished run are listed and served like files of the run.

        Raises:
            RuntimeError: The server was not entered.
        """
        if self._engine is None:
            raise RuntimeError("directory needs a running server: enter it first")
        return self._engine.directory(rest_uid)

    def advance(self, seconds: float) -> Awaitable[None]:
        """
        Move the virtual clock of the simulator forward.

        Returns:
            An awaitable that is already done, so that synchronous code need not await it.

        Raises:
            RuntimeError: The engine is not the simulator.
        """
        self._simulator("advance")
        self._clock.advance(seconds)
        return _Done()

    def outcome(
        self, experiment: str, outcome: str | Sequence[Row], *, times: int | None = None, stretch: float = 1.0
    ) -> None:
        """
        Set the outcome of simulated runs of an experiment that are started from now on.

        Named outcomes:

        - "success": the run succeeds after 5 s. "state-first": the same, but experiment-state becomes final first.
        - "component-failure": a component exits with an error. "stopped": a signal stops the orchestrator.
        - "setup-failure": the orchestrator rejects its arguments. "init-failure": the package cannot be cloned.
        - "unscheduled": the cluster is full for 3 s, then the run succeeds.
        - "image-pull": pulling an image fails twice, then the run succeeds. "unschedulable": the cluster gives up
          pulling an image; this is repaired after 3 s, then the run succeeds.
        - "killed": the orchestrator is killed. "killed-after-failure": it is killed after a component failed.
        - "monitor-stuck": no status is reported until the run succeeds after 5 s.
        - "stuck": a component never ends.

        A recorded sequence of statuses is replayed literally. Each row is the seconds since the run was scheduled
        and the status from then on, with the keys of the service; None means that there is no status yet. Missing
        keys, ``meta`` and ``stages`` included, have the usual values of that state. An optional third entry is what
        the list shows instead; None means only nulls. ::

            server.outcome("demo", [
                (0.0, None),                                                          # 400, or the warning
                (0.3, {}),                                                            # all null
                (2.4, {"experiment-state": "running", "exit-status": "N/A"}),
                (9.0, {"experiment-state": "Failed", "exit-status": ""},              # only the cluster knows
                      {"experiment-state": "running", "exit-status": "N/A"}),
            ])

        The run releases its slot at the last row with a final experiment-state and a final exit-status. Its
        key-outputs exist while the exit-status is "Success".

        Args:
            experiment: Name of the experiment.
            outcome: A named outcome, or the rows of a sequence.
            times: Number of starts, after those of earlier calls. None means all others.
            stretch: Factor by which the run takes longer.

        Raises:
            RuntimeError: The engine is not the simulator.
            ValueError: The outcome is unknown, rows do not start at 0 s or do not rise, a row has another form or an
                unknown key, or a number is out of range.
        """
        self._simulator("outcome").set_outcome(experiment, outcome, times, stretch)

    def populate(
        self,
        experiment: str,
        count: int,
        outcome: str | Sequence[Row] = "success",
        *,
        payload: Mapping[str, Any] | None = None,
    ) -> list[str]:
        """
        Add instances that were started a month ago, one per second, without requests and without using slots.

        They are at the end of their outcome.

        Args:
            experiment: Name or identifier of an experiment that was pushed.
            count: Number of instances; 20,000 take about a second.
            outcome: As in `outcome`.
            payload: Payload of each start; inputs that it does not name are blank.

        Returns:
            Their ids, oldest first.

        Raises:
            RuntimeError: The engine is not the simulator.
            ValueError: The experiment or outcome is unknown, count is below 1, or the payload is rejected.
        """
        simulator = self._simulator("populate")
        runtime = self._entered("populate")
        starts = runtime.accepted_starts(experiment, count, payload or {})
        simulator.populate(starts, outcome)
        runtime.add_instances(starts)
        return [start.rest_uid for start in starts]

    @property
    def started(self) -> list[AcceptedStart]:
        """
        All starts so far in order, including those whose response was lost and those that were deleted.

        Raises:
            RuntimeError: The engine is not the simulator.
        """
        return self._simulator("started").starts()

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
        Describe the content of a package before it is pushed, as the simulator does not read packages.

        Args:
            name_or_url: Name of the experiment, or the URL in the location of its package.
            inputs: Input files that every start must provide.
            data: Data files of the package.
            outputs: key-output -> content; bytes, or for a folder a dictionary path -> bytes.
            variables: variable -> default.
            interface: The virtual experiment interface.
            properties: The table of measured properties as CSV text. None means that nothing is measured.
            problem: Text with which to reject the push. None means to accept it.

        Raises:
            RuntimeError: The engine is not the simulator.
        """
        simulator = self._simulator("describe")
        fields = (inputs, data, outputs or {}, variables or {}, interface or {}, properties, problem)
        simulator.packages.describe(name_or_url, PackageDescription(*fields))

    def mount(self, kind: str, name: str, folder: Path) -> None:
        """
        Use a local folder as a volume or dataset of the cluster, with either engine.

        Args:
            kind: "persistentVolumeClaim", "configMap", "secret" or "dataset".
            name: Its name in the ``volumes`` or in ``s3.dataset`` of a payload.
            folder: The folder.

        Raises:
            RuntimeError: The server was not entered.
            ValueError: The kind is unknown, or there is no such folder.
        """
        self._entered("mount").storage.mount(kind, name, folder)

    def _entered(self, method: str) -> RuntimeService:
        if self._runtime is None:
            raise RuntimeError(f"{method} needs a running server: enter it first")
        return self._runtime

    def _simulator(self, method: str) -> Simulator:
        self._entered(method)
        if not isinstance(self._engine, Simulator):
            raise RuntimeError(f"{method} needs the simulator: this server's runs are real and take real time")
        return self._engine

    def __enter__(self) -> Self:
        """
        Start serving.

        Raises:
            OSError: Listening on ``port`` failed; it may be in use.
        """
        with ExitStack() as stack:
            temporary = tempfile.TemporaryDirectory(prefix="st4sd-", ignore_cleanup_errors=True)
            folder = Path(stack.enter_context(temporary))
            self._examples = Examples(folder / "examples")
            self._engine = self._create_engine(folder, self._examples)
            stack.callback(self._engine.close)
            threads = ThreadPoolExecutor(THREADS, "st4sd-local-handler")
            stack.callback(threads.shutdown, wait=False, cancel_futures=True)
            self.ca_file = _create_certificate(folder) if self._tls else None
            port = self._listen(self._engine, threads, folder, stack)
            self.url = f"{'https' if self._tls else 'http'}://127.0.0.1:{port}"
            self._resources = stack.pop_all()
        return self

    def _create_engine(self, folder: Path, examples: Examples) -> Engine:
        if self._keep is not None:
            self._keep.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._keep.chmod(0o700)  # it may exist already, or the umask may have removed bits
        if self._engine_option == "simulator":
            instances = self._keep or folder / "instances"
            packages = Packages(examples, folder / "results")
            return Simulator(instances, packages, self._clock, slots=self._slots)
        if self._engine_option == "elaunch":
            from st4sd_async.local.engine.elaunch import ElaunchEngine

            return ElaunchEngine(folder, slots=self._slots, keep=self._keep, scratch=folder)
        return self._engine_option

    def _listen(self, engine: Engine, threads: ThreadPoolExecutor, folder: Path, stack: ExitStack) -> int:
        """Serve until the stack unwinds; return the port."""
        from st4sd_async.local.datastore.datastore import Datastore
        from st4sd_async.local.datastore.gateway import Gateway
        from st4sd_async.local.http.app import Application
        from st4sd_async.local.http.listener import Connections, Listener
        from st4sd_async.local.http.messages import Router
        from st4sd_async.local.runtime.service import RuntimeService

        connections = Connections()
        self._runtime = RuntimeService(engine, folder / "fetched")
        runtime = Router(self._runtime.routes())
        datastore = Router([*Datastore(engine).routes(), *Gateway(engine).routes()])
        application = Application(self._credentials, self.faults, runtime, datastore, threads, connections, self._log)
        certificate = folder / "server.pem" if self._tls else None
        listener = Listener(application, connections, certificate, self._port)
        stack.callback(listener.stop)
        listener.start()
        return listener.port

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop serving: close connections, end runs, remove files."""
        self._resources.close()

    async def __aenter__(self) -> Self:
        """
        Start serving.

        Raises:
            OSError: Listening on ``port`` failed; it may be in use.
        """
        from starlette.concurrency import run_in_threadpool

        return await run_in_threadpool(self.__enter__)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop serving: close connections, end runs, remove files."""
        from starlette.concurrency import run_in_threadpool

        await run_in_threadpool(self.__exit__, kind, error, traceback)


class _Done:
    """An awaitable that is done."""

    def __await__(self) -> Generator[None, None, None]:
        return
        yield


def _require(extra: str, *modules: str) -> None:
    """Check that modules are installed, without importing them."""
    for module in modules:
        with contextlib.suppress(ModuleNotFoundError):
            if importlib.util.find_spec(module) is not None:
                continue
        raise ImportError(_MISSING.format(module=module, extra=extra))


def _create_certificate(folder: Path) -> Path:
    """Create a CA and a certificate; return the file of the CA."""
    import trustme

    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1", "localhost")
    certificate.private_key_and_cert_chain_pem.write_to_path(folder / "server.pem")
    ca_file = folder / "ca.pem"
    authority.cert_pem.write_to_path(ca_file)
    return ca_file
