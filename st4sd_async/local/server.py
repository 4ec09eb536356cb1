"""
`LocalServer`: an ST4SD on a loopback port of this machine, for tests, demos and users without a cluster.
"""

from __future__ import annotations

import contextlib
import importlib.util
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from st4sd_async.local.engine.interface import Engine
from st4sd_async.local.examples.examples import Examples
from st4sd_async.local.http.access import Access
from st4sd_async.local.http.faults import Faults
from st4sd_async.local.http.traffic import Log, Traffic
from st4sd_async.local.simulator.clock import VirtualClock
from st4sd_async.local.simulator.descriptions import Results
from st4sd_async.local.simulator.simulator import Simulator
from st4sd_async.local.simulator.steering import Steering

THREADS = 16
"""Requests that are handled at the same time."""
SIMULATED_SLOTS, REAL_SLOTS = 100, 2
"""Instances that run at the same time, unless told otherwise: a simulated one costs nothing."""
_MISSING = 'the embedded server needs {module}, which is not installed: pip install "st4sd_async[{extra}]"'


class LocalServer(Steering):
    """
    An ST4SD of one's own: a context manager, plain or asynchronous, that serves while it is entered.

    Examples::

        with LocalServer() as server:                      # runs are played on a virtual clock
            print(server.url, server.api_key)

        async with LocalServer(speed=0) as server:         # time stands still...
            await server.advance(5)                        # ...until it is moved

        with LocalServer(engine="elaunch") as server:      # runs are real, executed on this machine
            definition = server.example("demo")

    All methods may be called from any thread.
    """

    url: str
    """``http://127.0.0.1:PORT`` (https with TLS) without a slash or path at its end."""
    ca_file: Path | None
    """With TLS the file of the authority to trust, else None; gone when the server is left."""
    faults: Faults
    """What is to go wrong; see `Faults`."""

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
        Prepare a server; it listens when it is entered.

        Args:
            engine: How instances run: "simulator" plays them, "elaunch" executes them; or an engine of
                one's own.
            tls: Serve https, with a certificate of a throw-away authority for 127.0.0.1 and localhost.
            port: Where to listen on 127.0.0.1; 0: on any free port.
            speed: Virtual seconds of the simulator in a real second; 0: only `advance` moves the time.
            slots: How many instances run at once, at least 1, while the others are unscheduled; None: 2, or
                100 simulated ones.
            keep: Where instance directories go and stay; it is made readable for its owner only (mode 0700). Only
                files stay: a server that is started again has no runs. None: they are removed with the server.
            token_lifetime: Seconds until `auth_token` is refused, virtual ones with the simulator;
                None: never. API keys do not expire.
            open_registry: Whether anybody may look into the registry (``/registry-ui/``), as into the global one,
                so that experiments can be imported from there without credentials.

        Raises:
            ImportError: A package is missing; the text says which extra brings it.
            ValueError: Unknown engine, speed below 0 or less than one slot.
        """
        if slots is None:
            slots = REAL_SLOTS if engine == "elaunch" else SIMULATED_SLOTS
        if slots < 1:
            raise ValueError(f"slots must be at least 1, not {slots!r}")
        if isinstance(engine, str) and engine not in ("simulator", "elaunch"):
            raise ValueError(f"engine must be 'simulator', 'elaunch' or an engine, not {engine!r}")
        _need("local", "mongomock", "starlette", "uvicorn", *(["trustme"] if tls else []))
        self._engine_kind = engine
        self._tls = tls
        self._slots = slots
        self._port = port
        self._keep = None if keep is None else keep.absolute()
        self._clock = VirtualClock(speed)
        now = self._clock.now if engine == "simulator" else time.monotonic
        self._access = Access(now, token_lifetime, is_registry_open=open_registry)
        self._resources = ExitStack()
        self._log = Log()
        self._examples: Examples | None = None
        self.faults = Faults()

    @property
    def api_key(self) -> str:
        """The key to send as a bearer token."""
        return self._access.api_key

    @property
    def auth_token(self) -> str:
        """The token to send in the cookie ``oauth-proxy``."""
        return self._access.auth_token

    @property
    def requests(self) -> list[tuple[str, str]]:
        """Method and path of the requests that arrived, the last 10,000 of them, refused ones included."""
        return self._log.requests()

    @property
    def traffic(self) -> Traffic:
        """How many requests there were so far and what they cost, in total and by kind; a snapshot."""
        return self._log.traffic()

    def renew(self) -> None:
        """Make a new `api_key` and `auth_token`; the old ones are refused from now on."""
        self._access.renew()

    def example(self, name: str) -> dict[str, Any]:
        """
        The definition of an example experiment, ready to be pushed: "demo" succeeds, "fail" fails.

        Raises:
            RuntimeError: The server was not entered.
        """
        if self._examples is None:
            raise RuntimeError("enter the server first: its examples are made when it starts")
        return self._examples.definition(name)

    def directory(self, rest_uid: str) -> Path | None:
        """
        The instance directory of a run, deleted or not; None before there is one.

        The simulator makes its files when somebody asks first, which takes a moment. What is written below
        ``stages/stageN/COMPONENT`` of a run that is over is listed and served like what the run left there.
        """
        if self._engine is None:
            raise RuntimeError("directory needs a server that was entered")
        return self._engine.directory(rest_uid)

    def __enter__(self) -> Self:
        """
        Serve.

        Raises:
            OSError: It cannot listen on ``port``, which may be in use.
        """
        with ExitStack() as stack:
            scratch = tempfile.TemporaryDirectory(prefix="st4sd-", ignore_cleanup_errors=True)
            folder = Path(stack.enter_context(scratch))
            self._examples = Examples(folder / "examples")
            self._engine = self._make_engine(folder, self._examples)
            stack.callback(self._engine.close)
            threads = ThreadPoolExecutor(THREADS, "st4sd-local-handler")
            stack.callback(threads.shutdown, wait=False, cancel_futures=True)
            self.ca_file = _certify(folder) if self._tls else None
            port = self._listen(self._engine, threads, folder, stack)
            self.url = f"{'https' if self._tls else 'http'}://127.0.0.1:{port}"
            self._resources = stack.pop_all()
        return self

    def _make_engine(self, folder: Path, examples: Examples) -> Engine:
        if self._keep is not None:
            self._keep.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._keep.chmod(0o700)  # it may have been there, and the umask may have taken more away
        if self._engine_kind == "simulator":
            instances = self._keep or folder / "instances"
            results = Results(examples, folder / "results")
            return Simulator(instances, results, self._clock, slots=self._slots)
        if self._engine_kind == "elaunch":
            from st4sd_async.local.engine.elaunch import ElaunchEngine

            return ElaunchEngine(folder, slots=self._slots, keep=self._keep, scratch=folder)
        return self._engine_kind

    def _listen(self, engine: Engine, threads: ThreadPoolExecutor, folder: Path, stack: ExitStack) -> int:
        """Serve on a port until the stack unwinds; the result is the port."""
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
        application = Application(self._access, self.faults, runtime, datastore, threads, connections, self._log)
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
        """Stop serving: connections break, runs end, files are removed."""
        self._resources.close()

    async def __aenter__(self) -> Self:
        """
        Serve.

        Raises:
            OSError: It cannot listen on ``port``, which may be in use.
        """
        from starlette.concurrency import run_in_threadpool

        return await run_in_threadpool(self.__enter__)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop serving."""
        from starlette.concurrency import run_in_threadpool

        await run_in_threadpool(self.__exit__, kind, error, traceback)


def _need(extra: str, *modules: str) -> None:
    # Looked for and not imported: not everybody needs all of them.
    for module in modules:
        with contextlib.suppress(ModuleNotFoundError):
            if importlib.util.find_spec(module) is not None:
                continue
        raise ImportError(_MISSING.format(module=module, extra=extra))


def _certify(folder: Path) -> Path:
    """Make an authority and a certificate of it; the file of the authority is the result."""
    import trustme

    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1", "localhost")
    certificate.private_key_and_cert_chain_pem.write_to_path(folder / "server.pem")
    ca_file = folder / "ca.pem"
    authority.cert_pem.write_to_path(ca_file)
    return ca_file
