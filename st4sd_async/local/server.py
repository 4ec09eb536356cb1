"""
`LocalServer`, an ST4SD on a loopback port of this machine, for tests, demos and users without a cluster.
"""

from __future__ import annotations

import contextlib
import importlib.util
import tempfile
import time
from collections.abc import Awaitable, Generator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

from st4sd_async.local.engine.interface import AcceptedStart, Engine
from st4sd_async.local.http.credentials import Credentials
from st4sd_async.local.http.faults import Faults
from st4sd_async.local.http.traffic import RequestLog, Traffic
from st4sd_async.local.simulator.clock import VirtualClock
from st4sd_async.local.state import State, StateError

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

    from st4sd_async.local.examples.examples import Examples
    from st4sd_async.local.http.listener import Listener
    from st4sd_async.local.runtime.service import RuntimeService
    from st4sd_async.local.simulator.outcomes import Row
    from st4sd_async.local.simulator.simulator import Simulator

THREADS = 16
"""Maximum number of requests that are handled at the same time."""
SIMULATED_SLOTS, REAL_SLOTS = 100, 2
"""Default number of instances that run at the same time, by engine."""
_MISSING = 'the embedded server needs {module}, which is not installed: pip install "st4sd_async[{extra}]"'


class LocalServer:
    """
    An embedded ST4SD. As a context manager, plain or asynchronous, it serves while its block runs.

    Examples::

        with LocalServer() as server:                      # runs are simulated on a virtual clock
            print(server.url, server.api_key)

        async with LocalServer(speed=0) as server:         # the virtual clock stands still...
            await server.advance(5)                        # ...until it is moved

        with LocalServer(engine="elaunch") as server:      # runs are executed on this machine
            definition = server.example("demo")

    The simulator reads packages in FlowIR and DSL 2.0 from git repositories on this machine; with `fetch`, from any
    repository. It reads a package when it is pushed, and again at a start if its branch has a new commit. Runs have the
    inputs, variables, platforms, components, files and key-outputs of the package. They fail at set-up if the
    orchestrator would reject the package.

    The simulator executes no program. The content of files that a run produces is made up, unless it is set with
    `describe`, or the program is ``echo`` or ``cat``. A path without a suffix counts as a file. A package that is not
    read has two made-up components: one in DOSINI or CWL, one that imports documents, or one that is not fetched.

    All methods may be called from any thread.

    Attributes:
        url: ``http://127.0.0.1:PORT``, or https with TLS; without a trailing slash.
        ca_file: The CA file to trust, which is removed when the server stops. None without TLS.
        faults: The faults to inject; see `Faults`.
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
        state: Path | None = None,
        token_lifetime: float | None = None,
        open_registry: bool = False,
        fetch: bool = False,
        api_key: str | None = None,
    ) -> None:
        """
        Create a server, which starts to listen when it is entered.

        Args:
            engine: "simulator" simulates instances, "elaunch" executes them. An `Engine` object is used as it is.
            tls: Whether to serve https, with a certificate of a temporary CA for 127.0.0.1 and localhost. Redirects
                lead to a second port without TLS, which redirects to https, as on a cluster.
            port: Port on 127.0.0.1 to listen on. 0 means the earlier port of the state if it is free, or any free port.
            speed: Virtual seconds of the simulator per real second. 0 means that only `advance` moves the clock.
            slots: Number of instances that run at the same time, at least 1. Further instances are unscheduled. None
                means 100 simulated instances or 2 real ones.
            keep: Folder for instance directories, if they must outlive the server. Its mode becomes 0700. Only files
                are kept: a new server has no runs. None means that the directories are removed with the server.
            state: Folder for everything that must survive a restart, even a kill at any moment: experiments, runs with
                their files, documents, credentials, relationships, the library, and datasets. It is created if
                missing, and its mode becomes 0700. It contains the credentials of starts. One server at a time may use
                it, always with the same engine. `outcome`, `describe`, `mount` and `faults` are not kept. None means
                that nothing is kept.

                The virtual clock continues as if the server had not stopped. With "elaunch", runs that were waiting
                are executed. A run that was executing when the server was killed has the status of a run whose
                orchestrator was killed: ``Failed``, exit code 137.
            token_lifetime: Seconds until `auth_token` expires; virtual seconds with the simulator. None means never.
                API keys do not expire.
            open_registry: Whether the registry (``/registry-ui/``) can be read without credentials, as the global
                registry can, so that experiments can be imported from it.
            fetch: Whether the simulator reads packages from git repositories on other machines, which `git` fetches
                during a push. False means that it reads only packages at a path or a ``file://`` URL. The engine
                "elaunch" always fetches.
            api_key: The key that the server accepts until `renew` is called. None means the key in the state, or a
                random key.

        Raises:
            ImportError: A package is not installed; the message names the extra that contains it.
            ValueError: The engine is unknown, speed is below 0, slots is below 1, or the state cannot be combined with
                `keep` or with an `Engine` object.
        """
        if slots is None:
            slots = REAL_SLOTS if engine == "elaunch" else SIMULATED_SLOTS
        if slots < 1:
            raise ValueError(f"slots must be at least 1, not {slots!r}")
        if isinstance(engine, str) and engine not in ("simulator", "elaunch"):
            raise ValueError(f"engine must be 'simulator', 'elaunch' or an engine, not {engine!r}")
        if state is not None and (keep is not None or not isinstance(engine, str)):
            raise ValueError("state needs engine 'simulator' or 'elaunch', and no keep: it keeps the directories too")
        _require("local", "mongomock", "starlette", "uvicorn", "yaml", *(["trustme"] if tls else []))
        self._engine_option = engine
        self._engine: Engine | None = None
        self._runtime: RuntimeService | None = None
        self._tls = tls
        self._slots = slots
        self._port = port
        self._keep = None if keep is None else keep.absolute()
        self._state_folder = None if state is None else state.absolute()
        self._clock = VirtualClock(speed)
        now = self._clock.now if engine == "simulator" else time.monotonic
        self._credentials = Credentials(now, token_lifetime, is_registry_open=open_registry, api_key=api_key)
        self._resources = ExitStack()
        self._log = RequestLog()
        self._examples: Examples | None = None
        self._fetch = fetch
        self.faults = Faults()

    @property
    def api_key(self) -> str:
        """The key to send as a bearer token. With a state, it is known once the server was entered."""
        return self._credentials.api_key

    @property
    def auth_token(self) -> str:
        """The token to send in the cookie ``oauth-proxy``."""
        return self._credentials.auth_token

    @property
    def requests(self) -> list[tuple[str, str]]:
        """Method and path of the last 10,000 requests, including rejected requests."""
        return self._log.requests()

    @property
    def traffic(self) -> Traffic:
        """A snapshot of the number of requests and their cost, in total and by kind."""
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
            An awaitable that is already done. Synchronous code need not await it.

        Raises:
            RuntimeError: The engine is not the simulator.
        """
        self._simulator("advance").advance(seconds)
        return _Done()

    def outcome(
        self, experiment: str, outcome: str | Sequence[Row], *, times: int | None = None, stretch: float = 1.0
    ) -> None:
        """
        Set the outcome of simulated runs of an experiment, for future starts.

        Named outcomes:

        - "success": the run succeeds after 5 s. "state-first": the same, but experiment-state becomes final first.
        - "component-failure": a component exits with an error. "stopped": a signal stops the orchestrator.
        - "setup-failure": the orchestrator rejects its arguments. "init-failure": the package cannot be cloned.
        - "unscheduled": the cluster is full for 3 s, then the run succeeds.
        - "image-pull": pulling an image fails twice, then the run succeeds. "unschedulable": the cluster gives up
          pulling an image; after 3 s the image is available, and the run succeeds.
        - "killed": the orchestrator is killed. "killed-after-failure": it is killed after a component failed.
        - "monitor-stuck": no status is reported until the run succeeds after 5 s.
        - "stuck": a component never ends.

        A recorded sequence of statuses is replayed literally. Each row has the seconds since the run was scheduled,
        and the status from then on, with the keys of the service. None means that there is no status yet. Missing
        keys, including ``meta`` and ``stages``, get the usual values of that state. An optional third entry is the
        status in the list of instances, if it differs; None means only nulls. ::

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
            times: Number of starts, after those of earlier calls. None means all further starts.
            stretch: Factor by which the times of the outcome are multiplied.

        Raises:
            RuntimeError: The engine is not the simulator.
            ValueError: The outcome is unknown, the times of rows do not start at 0 s or do not rise, a row is
                malformed or has an unknown key, or a number is out of range.
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

        Their runs are over, with the final status of the outcome.

        Args:
            experiment: Name or identifier of an experiment that was pushed.
            count: Number of instances; 20,000 take about a second.
            outcome: As in `outcome`.
            payload: Payload of each start; inputs that it lacks are blank. None means an empty payload.

        Returns:
            Their rest-uids, oldest first.

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
        All starts so far in order, including starts whose response was lost and runs that were deleted.

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
        Describe the content of a package that the simulator does not read, before it is pushed.

        A package that the simulator reads, and an example, need no description. Of a description, it uses only
        `outputs`, `properties` and `problem`.

        Args:
            name_or_url: Name of the experiment, or the URL in the location of its package.
            inputs: Names of the input files that every start must provide.
            data: Names of the data files of the package.
            outputs: key-output -> content: bytes, or for a folder a dictionary path -> bytes. If the package is read,
                key-outputs that it does not have are ignored.
            variables: variable -> default.
            interface: The virtual experiment interface.
            properties: The table of measured properties as CSV text. None means that there are no properties.
            problem: Reason with which the push is rejected. None means that it is accepted.

        Raises:
            RuntimeError: The engine is not the simulator.
        """
        from st4sd_async.local.simulator.packages import PackageDescription

        simulator = self._simulator("describe")
        fields = (inputs, data, outputs or {}, variables or {}, interface or {}, properties, problem)
        simulator.packages.describe(name_or_url, PackageDescription(*fields))

    def mount(self, kind: str, name: str, folder: Path) -> None:
        """
        Use a local folder as a volume or dataset of the cluster, with either engine.

        Args:
            kind: "persistentVolumeClaim", "configMap", "secret" or "dataset".
            name: Name of the volume or dataset in ``volumes`` or ``s3.dataset`` of a payload.
            folder: The local folder.

        Raises:
            RuntimeError: The server was not entered.
            ValueError: The kind is unknown, or the folder does not exist.
        """
        self._entered("mount").storage.mount(kind, name, folder)

    def _entered(self, method: str) -> RuntimeService:
        if self._runtime is None:
            raise RuntimeError(f"{method} needs a running server: enter it first")
        return self._runtime

    def _simulator(self, method: str) -> Simulator:
        from st4sd_async.local.simulator.simulator import Simulator

        self._entered(method)
        if not isinstance(self._engine, Simulator):
            raise RuntimeError(f"{method} needs the simulator: this server executes real runs")
        return self._engine

    def __enter__(self) -> Self:
        """
        Start serving.

        Raises:
            OSError: Listening on ``port`` failed; it may be in use.
            StateError: The state is in use, was written by another engine, or cannot be read.
        """
        # These imports and those below take longer than all others of this package.
        from concurrent.futures import ThreadPoolExecutor

        from st4sd_async.local.examples.examples import Examples

        with ExitStack() as stack:
            temporary = tempfile.TemporaryDirectory(prefix="st4sd-", ignore_cleanup_errors=True)
            folder = Path(stack.enter_context(temporary))
            state = self._open_state()
            stack.callback(state.close)
            self._examples = Examples((self._state_folder or folder) / "examples")
            self._engine, restored = self._create_engine(folder, self._examples, state)
            stack.callback(self._engine.close)
            threads = ThreadPoolExecutor(THREADS, "st4sd-local-handler")
            stack.callback(threads.shutdown, wait=False, cancel_futures=True)
            self.ca_file = _create_certificate(folder) if self._tls else None
            port = self._listen(self._engine, restored, threads, folder, state, stack)
            self.url = f"{'https' if self._tls else 'http'}://127.0.0.1:{port}"
            self._resources = stack.pop_all()
        return self

    def _open_state(self) -> State:
        """Open the state, check its engine, and restore the credentials."""
        if self._state_folder is None:
            return State()
        from st4sd_async.local.saved_state import SavedState

        state = SavedState(self._state_folder)
        try:
            engine = state.table("server").setdefault("engine", self._engine_option)
            if engine != self._engine_option:
                advice = f"use engine {engine!r}, or another folder"
                raise StateError(
                    f"the state in {str(self._state_folder)!r} was written by the engine {engine!r}: {advice}"
                )
            self._credentials.restore(state.table("credentials"))
        except BaseException:
            state.close()
            raise
        return state

    def _create_engine(self, folder: Path, examples: Examples, state: State) -> tuple[Engine, list[AcceptedStart]]:
        """Return the engine, and the starts of the runs that it restored."""
        kept = self._state_folder or folder
        if self._keep is not None:
            self._keep.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._keep.chmod(0o700)  # the folder may exist already, or the umask may have removed bits
        if self._engine_option == "simulator":
            from st4sd_async.local.simulator.packages import Packages
            from st4sd_async.local.simulator.simulator import Simulator

            instances = self._keep or kept / "instances"
            packages = Packages(examples, folder / "results", kept / "packages", fetch=self._fetch)
            simulator = Simulator(instances, packages, self._clock, slots=self._slots, state=state)
            return simulator, simulator.restored()
        if self._engine_option == "elaunch":
            from st4sd_async.local.engine.elaunch import ElaunchEngine

            engine = ElaunchEngine(kept, slots=self._slots, keep=self._keep, scratch=folder, state=state)
            return engine, engine.restored()
        return self._engine_option, []

    def _listen(
        self,
        engine: Engine,
        restored: list[AcceptedStart],
        threads: ThreadPoolExecutor,
        folder: Path,
        state: State,
        stack: ExitStack,
    ) -> int:
        """Start all listeners until the stack unwinds, and return the port."""
        from st4sd_async.local.datastore.datastore import Datastore
        from st4sd_async.local.datastore.gateway import Gateway
        from st4sd_async.local.http.app import Application
        from st4sd_async.local.http.listener import Connections, Listener
        from st4sd_async.local.http.messages import Router
        from st4sd_async.local.http.plain import RedirectToHttps
        from st4sd_async.local.runtime.service import RuntimeService

        connections = Connections()
        fetched = (self._state_folder or folder) / "fetched"
        self._runtime = RuntimeService(engine, fetched, state, restored)
        runtime = Router(self._runtime.routes())
        datastore = Router([*Datastore(engine, state).routes(), *Gateway(engine).routes()])
        redirecting = RedirectToHttps()
        plain = self._start(Listener(redirecting, Connections(), None), stack) if self._tls else None
        application = Application(
            self._credentials,
            self.faults,
            runtime,
            datastore,
            threads,
            connections,
            self._log,
            plain_port=plain.port if plain else None,
        )
        certificate = folder / "server.pem" if self._tls else None
        served = state.table("server")
        try:
            listener = Listener(application, connections, certificate, self._port or served.get("port", 0))
        except OSError:  # another program may have the earlier port
            if self._port:
                raise
            listener = Listener(application, connections, certificate)
        served["port"] = listener.port
        redirecting.port = listener.port
        return self._start(listener, stack).port

    @staticmethod
    def _start(listener: Listener, stack: ExitStack) -> Listener:
        """Start a listener that stops when the stack unwinds."""
        stack.callback(listener.stop)
        listener.start()
        return listener

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
    """An awaitable that is already done."""

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
    """Create a CA and a certificate, and return the file of the CA."""
    import trustme

    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1", "localhost")
    certificate.private_key_and_cert_chain_pem.write_to_path(folder / "server.pem")
    ca_file = folder / "ca.pem"
    authority.cert_pem.write_to_path(ca_file)
    return ca_file
