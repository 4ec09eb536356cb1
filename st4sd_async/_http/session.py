"""
Send calls: the session of a client holds its connections, credentials and limits, in one event loop.

    send -> _send_with_retry       until it succeeds, or must not be repeated (retry.py)
         -> _send_authenticated    with the credential, and again with a new one if it is refused (credentials.py)
         -> _send_once             one request, within the limit of requests in flight
         -> _exchange              between the hooks of the user (engine.py, injected.py)
         -> parse_response         a value or an error (call.py)
"""

from __future__ import annotations

import logging
import os
import re
import time
import warnings
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing, nullcontext, suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast
from urllib.parse import urlencode, urlsplit

import anyio

from .._config import TIMEOUT_SECONDS, Config, RetryPolicy
from .._errors import (
    APIError,
    ConfigError,
    CredentialUnavailable,
    DecodeError,
    NotFound,
    OutcomeUnknown,
    St4sdError,
    StartOutcomeUnknown,
    TransportError,
    Unauthorized,
)
from .._util.interrupts import explain_interrupt
from .._util.redact import raise_unchained
from .._util.request_events import RequestEvent, ResponseEvent, RetryEvent, call_hook
from .._util.threads import in_thread
from .._version import VERSION
from .availability import Availability, WaitingCall
from .call import Call, Response, SendPermitExpired, is_refused_by_proxy, parse_response
from .credentials import Credentials, Secret, may_carry_credentials, parse_deployment_url, parse_http_url
from .json_list import ListBody
from .retry import Replay, may_have_arrived, with_retries

if TYPE_CHECKING:
    import asyncio
    from types import TracebackType
    from urllib.parse import SplitResult

    import httpx

    from .._util.outage import Outage
    from .engine import HttpClient

T = TypeVar("T")

BodyHandler = Callable[[Mapping[str, str], AsyncIterator[bytes]], Awaitable[T]]
"""
Consumes a body: takes the headers of a successful response and the pieces of its body as they arrive.

Called again, with a new body from its beginning, if a transfer breaks off.
"""

log = logging.getLogger("st4sd_async")

RUNTIME_PATH = "rs/"
"""Path of the runtime service below the root of a deployment."""

SLOW_TIMEOUT_SECONDS = 60.0
"""Default read timeout of slow requests: a push clones a repository, an output is packed before it is sent."""

CANCEL_GRACE_SECONDS = 1.0
"""How long a cancelled call waits for the response if it must not be repeated."""

HEADERS = (
    (b"User-Agent", f"st4sd_async/{VERSION}".encode()),
    (b"Accept", b"*/*"),
    # Compression would not pay: bodies are small JSON or already zipped.
    (b"Accept-Encoding", b"identity"),
)
"""Headers of every request to the services and to other registries. Buckets are accessed through obstore instead."""

JSON_CONTENT_TYPE = (b"Content-Type", b"application/json")
"""Header of every request with a body."""

NO_RETRY = RetryPolicy(attempts=1)
"""For requests that the caller itself repeats, like a poller."""

NOT_OPEN = "this client is not open: use it inside 'async with Client(...) as client:', or call 'await client.open()'"
FORKED = "opened before this process was forked from another one, whose connections it must not use"


class LoopBinding:
    """
    The event loop and process in which a client or batch was opened. It can only be used there.

    Args:
        what: What was opened, for messages.

    Raises:
        St4sdError: No asyncio event loop is running, as under trio.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        loop = _running_loop()
        if loop is None:
            raise St4sdError(f"{what} needs a running asyncio event loop; trio is not supported")
        self._loop, self._process_id = loop, os.getpid()

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop."""
        return self._loop

    @property
    def is_here(self) -> bool:
        """Whether this is the event loop, in the process that opened it."""
        return _running_loop() is self._loop  # in a forked process asyncio reports no running loop

    @property
    def is_forked(self) -> bool:
        """Whether this process was forked from that of the event loop."""
        return os.getpid() != self._process_id

    @property
    def is_over(self) -> bool:
        """Whether the event loop is closed."""
        return self._loop.is_closed()

    def run_soon(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        """Run a coroutine in the event loop, from any thread; discard it if the loop is closed or was forked."""
        with suppress(RuntimeError):  # the loop is closed
            if not self.is_forked:
                self._loop.call_soon_threadsafe(self._start, coroutine)
                return
        coroutine.close()

    def _start(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        task = self._loop.create_task(coroutine)
        _closing.add(task)
        task.add_done_callback(_closing.discard)

    def check(self) -> None:
        """Raise `St4sdError` unless this is the event loop."""
        if self.is_here:
            return
        if self.is_forked:
            problem = f"was {FORKED}: create a new one in this process"
        elif self.is_over:
            problem = "was opened in an event loop that has ended: open and use it inside the same asyncio.run()"
        else:
            problem = "was opened in another event loop: create one in each loop, or use st4sd_async.sync from threads"
        raise St4sdError(f"this {self._what} {problem}")


def _running_loop() -> asyncio.AbstractEventLoop | None:
    import asyncio  # lazily, here and below: it takes a tenth of the time to import this package

    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


class _Request(Generic[T]):
    """A call being sent, with the state that its attempts share."""

    def __init__(
        self,
        call: Call[T],
        url: str,
        config: Config,
        availability: Availability,
        body_handler: BodyHandler[T] | None = None,
    ) -> None:
        self.call, self.url, self.config, self.body_handler = call, url, config, body_handler
        self.availability = availability
        self.may_have_arrived = False
        """Whether an earlier attempt may have been carried out."""
        self.count = 0
        """Number of requests sent so far."""
        self.is_in_flight = False
        """Whether an attempt that must not be repeated was written and got no response."""
        self.is_cancelled = False
        self.connected_at = 0.0
        """When the last attempt had a connection, by ``Config.clock``."""
        self._sent_at: float | None = None
        """Wall time of the last attempt that must not be repeated; None if none was sent."""

    def __str__(self) -> str:
        return f"{self.call.method} {self.url}"

    def list_body(self) -> ListBody[T] | None:
        """Return what reads the body of one response item by item; None if it is read as a whole."""
        call = self.call
        if call.item_reader is None:
            return None
        return ListBody(call.item_reader(), self.config.max_body_bytes, call.max_list_bytes, self.config.clock.now)

    def before_request(self) -> RequestEvent | None:
        """Count a request, and call the hook before it; return the event if the hook after it needs one."""
        self.count += 1
        if self.config.on_request is None and self.config.on_response is None:
            return None
        event = RequestEvent(self.call.method, self.url, self.count)
        call_hook(self.config.on_request, event)
        return event

    def after_request(
        self, event: RequestEvent, began: float, status: int | None, error: BaseException | None = None
    ) -> None:
        """Call the hook after a request, which began at that moment of the performance counter."""
        failure = error if isinstance(error, Exception) else None
        seconds = time.perf_counter() - began
        call_hook(self.config.on_response, ResponseEvent(event, status, seconds, failure))

    def before_pause(self, attempt: int, pause: float, error: Exception) -> None:
        """Call the hook before a retry."""
        call_hook(self.config.on_retry, RetryEvent(self.call.method, self.url, attempt, pause, error))

    def mark_connected(self) -> None:
        """Note that there is a connection, and the request is about to be written."""
        self.connected_at = self.config.clock.now()
        if self.call.replay is Replay.ONCE:
            self.is_in_flight, self._sent_at = True, self.config.clock.wall()

    async def report_cancellation(self, work: Coroutine[Any, Any, T]) -> T:
        """
        Await a call that must not be repeated. If it is cancelled, report what is known of its outcome.

        If nothing was sent, cancellation takes effect at once. Otherwise it waits up to `CANCEL_GRACE_SECONDS` for the
        response, even if it is cancelled again, and sends nothing more. The outcome is logged as a warning and added to
        the `asyncio.CancelledError` as a note. Calls that are cancelled together wait together.
        """
        import asyncio

        # A task of its own: cancellation reaches the innermost await of the cancelled task, in spite of any shield.
        task = asyncio.create_task(work)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError as error:
            self.is_cancelled = True
            if self.is_in_flight:
                await _wait_shielded(task, CANCEL_GRACE_SECONDS)
            task.cancel()
            await _wait_shielded(task)
            # If it was cancelled between two attempts, the response to the first says that nothing was done.
            is_outcome_open = self.is_in_flight or not task.cancelled()
            if is_outcome_open and self._sent_at is not None and (report := self._report(task, self._sent_at)):
                is_done = not task.cancelled() and task.exception() is None
                log.warning("%s", report, extra={"is_outcome_unknown": not is_done})
                explain_interrupt(error, report)
            raise

    def _report(self, task: asyncio.Task[T], sent_at: float) -> str:
        """Return what is known of a cancelled call that was sent and has ended; "" if it had no effect."""
        call = self.call
        moment = f"{datetime.fromtimestamp(sent_at, UTC):%Y-%m-%d %H:%M:%S} UTC"
        cancelled = f"it was cancelled after it was sent at {moment}"
        if task.cancelled():
            reason = f"{cancelled}, and no response came within {CANCEL_GRACE_SECONDS:g} s"
            return str(call.outcome_unknown_error(call.effect, reason))
        failure = task.exception()
        if isinstance(failure, OutcomeUnknown):
            return str(call.outcome_unknown_error(call.effect, f"{cancelled}: {failure.reason}"))
        if failure is not None:
            return ""
        is_start = call.outcome_unknown_error is StartOutcomeUnknown
        result = f": {task.result()!r}, which continues" if is_start else ""
        return f"{call.effect}{result} ({self}: {cancelled}, and the response came then)"


class _Attempt:
    """
    Notes when an attempt to send a request got a response or has failed. A context manager.

    Raises:
        CancelledError: The call was cancelled while it waited for the response to an earlier attempt.
    """

    __slots__ = ("_request",)

    def __init__(self, request: _Request[Any]) -> None:
        self._request = request

    def __enter__(self) -> None:
        if self._request.is_cancelled:
            import asyncio

            raise asyncio.CancelledError
        self._request.availability.request_sent()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        import asyncio

        self._request.availability.request_ended()
        if not isinstance(error, asyncio.CancelledError):
            self._request.is_in_flight = False


async def _wait_shielded(task: asyncio.Task[Any], seconds: float = float("inf")) -> None:
    """Wait until a task has ended or the timeout has passed, in spite of cancellation."""
    import asyncio

    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while not task.done() and (left := deadline - loop.time()) > 0:
        try:
            with anyio.CancelScope(shield=True):
                await asyncio.wait([task], timeout=None if left == float("inf") else left)
        except asyncio.CancelledError:  # from Task.cancel(), which no scope stops; the caller raises the first one
            pass


class Session:
    """
    The connections to one deployment, shared by a client and those made from it.

    Safe to use from many tasks of one event loop. It may be opened again after it was closed, in another event loop
    too.
    """

    def __init__(self, url: str, api_key: Secret | None, auth_token: Secret | None, config: Config) -> None:
        self.credentials: Credentials = Credentials(api_key, auth_token, config.headers)
        self.home: SplitResult = parse_deployment_url(url, self.credentials)
        """Root of the deployment."""
        self.token_page: str = f"{self.home.geturl()}authorisation/token"
        """URL of the page that issues auth-tokens."""
        self.is_from_environment: bool = False
        """Whether the URL and the credentials are those of the environment."""
        self.gateways: dict[str, tuple[str, float]] = {}
        """id of a gateway -> its root, and when the registry reported it."""
        self._runtime_url = f"{self.home.geturl()}{RUNTIME_PATH}"
        self._config = config
        self._is_trusted: dict[str, bool] = {}
        self._availabilities: dict[str, Availability] = {}
        """Root of a service -> whether it responds."""
        self._services: dict[str, str] | None = None
        self._http: HttpClient | None = None
        self._binding: LoopBinding | None = None
        self._stack = AsyncExitStack()
        self._finalizer: weakref.finalize[Any, Session] | None = None
        """Closes the connections if this session is dropped while it is open."""
        self._make_limiters()

    def _make_limiters(self) -> None:
        self._requests = anyio.Semaphore(self._config.concurrency, fast_acquire=True)
        self._downloads = anyio.Semaphore(self._config.downloads, fast_acquire=True)

    @property
    def is_open(self) -> bool:
        """Whether requests can be sent."""
        return self._http is not None

    async def open(self, load: Callable[[], None] = lambda: None) -> None:
        """
        Open the connection pool; no request is sent.

        Args:
            load: Imports what else an open client needs; called in a worker thread.

        Raises:
            St4sdError: It is open already, or no asyncio event loop is running.
        """
        if self.is_open:
            self.check()
            raise St4sdError("this client is open already")
        binding = LoopBinding("client")
        make_client = await in_thread(_load_engine, self._config, self.home, load)
        self._make_limiters()
        self._services = None
        self._http = await self._stack.enter_async_context(make_client(self.credentials.known))
        self._binding = binding
        self._finalizer = weakref.finalize(self, _close_dropped, self._stack, binding)
        self._finalizer.atexit = False

    async def close(self) -> None:
        """
        Close all connections; requests in flight end with an error.

        In a forked process they are not closed, because the parent process still uses them.

        Raises:
            St4sdError: It was opened in another event loop that is not closed.
        """
        binding = self._binding
        if binding is not None and binding.is_forked:
            _abandoned.append(self._stack.pop_all())
        elif binding is not None and not binding.is_over:
            binding.check()
        self._http = self._binding = None
        if self._finalizer is not None:
            self._finalizer.detach()
        for availability in self._availabilities.values():
            availability.close()
        self._availabilities.clear()
        with anyio.CancelScope(shield=True):
            await self._stack.aclose()

    def check(self) -> None:
        """Raise `St4sdError` unless this client is open in this event loop and process."""
        if self._http is None or self._binding is None:
            raise St4sdError(NOT_OPEN)
        self._binding.check()

    async def services(self, config: Config) -> dict[str, str]:
        """
        Return the root of each service by name, with a slash at its end; {} without a cluster.

        Requested once. A response proves that the login is valid.
        """
        if self._services is None:
            found = await self.send(_URL_MAP, config)
            self._services = {name: self.root(url) for name, url in found.items()}
        return self._services

    def root(self, url: str) -> str:
        """Return the root of a service; one on the deployment's host gets the scheme and port of the deployment."""
        root = urlsplit(url)
        if root.hostname == self.home.hostname and root.port in (None, self.home.port):
            root = root._replace(scheme=self.home.scheme, netloc=self.home.netloc)
        return f"{root.geturl().rstrip('/')}/"

    async def send(self, call: Call[T], config: Config) -> T:
        """
        Send a call, with retries if that is safe, and return its result.

        Raises:
            TransportError: No usable response arrived; you may send the call again.
            APIError: The service refused.
            DecodeError: The response has unexpected content.
            OutcomeUnknown: The call may have been carried out, and must not be repeated.
            CancelledError: It was cancelled. If the call may have been carried out and must not be repeated, this is
                raised up to a second later, with a note that says so.
        """
        request = self._request(call, config)
        work = self._send_with_retry(request)
        # A batch records the outcome of its starts, and does not let them be cancelled.
        if call.replay is not Replay.ONCE or call.bypasses_limiter:
            return await work
        return await request.report_cancellation(work)

    async def stream(self, call: Call[T], body_handler: BodyHandler[T], config: Config) -> T:
        """
        Send a call, stream the body to ``body_handler``, and return its result.

        Retried as in `send`, even if the body breaks off. If the body is not a file by its content type, it is parsed
        as in `send`. Streams have a limit of their own (``Config.downloads``), so that no other request waits for them.
        """
        return await self._send_with_retry(self._request(call, config, body_handler))

    def _request(self, call: Call[T], config: Config, body_handler: BodyHandler[T] | None = None) -> _Request[T]:
        self.check()
        base_url = call.base_url or self._runtime_url
        return _Request(call, base_url + call.path, config, self.availability(base_url), body_handler)

    def availability(self, base_url: str | None = None) -> Availability:
        """Return whether a service responds; None as its root means the runtime service."""
        url = base_url or self._runtime_url
        found = self._availabilities.get(url)
        if found is None:
            name = "" if url == self._runtime_url else url
            found = self._availabilities[url] = Availability(url, self._config.clock, name)
        return found

    @property
    def outage(self) -> Outage | None:
        """The outage that has lasted longest of those for whose end calls wait; None if there is none."""
        # A list at once: another thread may read it, that of a blocking client.
        found = [one.outage for one in list(self._availabilities.values())]
        return min((one for one in found if one is not None), key=lambda one: one.began_at, default=None)

    async def _send_with_retry(self, request: _Request[T]) -> T:
        call, config, availability = request.call, request.config, request.availability

        async def attempt() -> T:
            began_at = config.clock.now()
            try:
                result = await self._send_authenticated(request)
            except (TransportError, APIError, DecodeError) as error:
                availability.note_error(error, began_at)
                if call.replay is Replay.DELETE and request.may_have_arrived and isinstance(error, NotFound):
                    return call.decode(_EMPTY_RESPONSE)  # the earlier attempt deleted it
                request.may_have_arrived = request.may_have_arrived or may_have_arrived(error)
                raise
            availability.responded()
            return result

        is_repeatable = call.replay is not Replay.ONCE and config.retry.attempts != 1
        try:
            with availability.waiting(config.progress, is_repeatable=is_repeatable):
                return await with_retries(
                    attempt,
                    policy=config.retry,
                    replay=call.replay,
                    clock=config.clock,
                    request=request,
                    has_responded=lambda: availability.has_responded,
                    before_pause=request.before_pause if config.on_retry else None,
                )
        except (TransportError, APIError, DecodeError) as error:
            log.debug("%s failed", request, exc_info=error)
            # Without the engine's frames, which would hide the message in a notebook.
            failure = error.with_traceback(None)
            if call.replay is Replay.ONCE and may_have_arrived(failure):
                raise_unchained(call.outcome_unknown_error(call.effect, str(failure)), failure)
            raise_unchained(failure, failure.__cause__)

    async def _send_authenticated(self, request: _Request[T]) -> T:
        """Send one request, and another with a new credential if the sign-in proxy refuses the first."""
        credential = None
        if self._may_carry_credentials(request.call.base_url or self._runtime_url):
            credential = self.credentials.literal or await self._credential(self.credentials.value(), request)
        try:
            return await self._send_once(request, credential)
        except Unauthorized as error:
            refusal = error
        if credential is not None and is_refused_by_proxy(refusal):
            renewed = await self._credential(self.credentials.renew(credential), request)
            if renewed is not None:
                log.info("%s was refused: trying once more with a new credential", request)
                return await self._send_once(request, renewed)
        raise refusal

    async def _credential(self, source: Awaitable[str | None], request: _Request[Any]) -> str | None:
        try:
            return await source
        except ConfigError as error:
            # A source that never worked is more likely wrong than temporarily unavailable.
            is_wrong = not self.credentials.has_worked
            failure = CredentialUnavailable(request.call.method, request.url, str(error), permanent=is_wrong)
            raise_unchained(failure, error.__cause__)

    def _may_carry_credentials(self, base_url: str) -> bool:
        if base_url not in self._is_trusted:
            trusted_hosts = self._config.trusted_hosts
            self._is_trusted[base_url] = may_carry_credentials(urlsplit(base_url), self.home, trusted_hosts)
        return self._is_trusted[base_url]

    async def _send_once(self, request: _Request[T], credential: str | None) -> T:
        call, handler = request.call, request.body_handler
        list_body = request.list_body()
        headers = [*HEADERS]
        if credential is not None:
            name, prefix = self.credentials.header
            headers.append((name, f"{prefix}{credential}".encode()))
        if call.content is not None:
            headers.append(JSON_CONTENT_TYPE)
        if self.credentials.headers and self._may_carry_credentials(call.base_url or self._runtime_url):
            headers += self.credentials.headers
        async with self._limiter(request):
            http_response = await self._exchange(request, headers, list_body)
            body: bytes | None = http_response.extensions.get("body")
            if body is None:
                assert handler is not None
                arriving = cast("AsyncGenerator[bytes]", http_response.aiter_bytes())
                async with (
                    aclosing(http_response),
                    aclosing(arriving),
                    aclosing(request.availability.pieces(arriving)) as pieces,
                ):
                    return await handler(http_response.extensions["headers"], pieces)
        try:
            began_list = list_body if list_body is not None and list_body.has_begun else None
            arrived_at = began_list.arrived_at if began_list is not None else None
            if arrived_at is None:
                arrived_at = request.config.clock.now()
            status, headers = http_response.status_code, http_response.extensions["headers"]
            response = Response(status, headers, body, began_list, request.connected_at, arrived_at)
            return parse_response(call, request.url, response, tuple(self.credentials.known))
        except Unauthorized as error:
            error.token_page, error.advice = self.token_page, f"get a new token at {self.token_page}"
            raise

    async def _exchange(
        self, request: _Request[Any], headers: list[tuple[bytes, bytes]], list_body: ListBody[Any] | None
    ) -> httpx.Response:
        """Send one request and return its response, whatever its status."""
        if self._http is None:
            raise St4sdError(NOT_OPEN)
        call, config = request.call, request.config
        if call.not_after is not None and config.clock.now() > call.not_after:
            raise SendPermitExpired
        event, began = request.before_request(), time.perf_counter()
        try:
            with _Attempt(request):
                response = await self._http.exchange(
                    call.method,
                    f"{request.url}?{urlencode(call.params)}" if call.params else request.url,
                    headers,
                    call.content,
                    read_timeout=read_timeout(call, config),
                    max_body_bytes=config.max_body_bytes,
                    list_body=list_body,
                    stream=request.body_handler is not None,
                    # A request that must not be repeated gets a connection of its own, so that the response to an
                    # earlier request is never taken for that to a start.
                    own_connection=call.replay is Replay.ONCE,
                    on_connected=request.mark_connected,
                )
        except BaseException as error:
            if event is not None:
                request.after_request(event, began, None, error)
            raise
        if event is not None:
            request.after_request(event, began, response.status_code)
        log.debug("%s: %d in %.0f ms", request, response.status_code, 1000 * (time.perf_counter() - began))
        return response

    def _limiter(self, request: _Request[Any]) -> AbstractAsyncContextManager[Any]:
        if request.call.bypasses_limiter:
            return nullcontext()
        return self._requests if request.body_handler is None else self._downloads


def read_timeout(call: Call[Any], config: Config) -> float:
    """Return the longest silence in seconds during a request."""
    return SLOW_TIMEOUT_SECONDS if call.is_slow and config.timeout == TIMEOUT_SECONDS else config.timeout


class ClientSession:
    """
    The view of one client on a session: shared connections, and its own settings.

    All requests above this package go through this class.
    """

    def __init__(self, session: Session, config: Config) -> None:
        self.shared = session
        """The connections, shared with clients made by `Client.with_options`."""
        self.config = config
        """The settings of this client."""
        self._config_once = replace(config, retry=NO_RETRY)

    @property
    def url(self) -> str:
        """Address of the deployment, with a slash at its end."""
        return self.shared.home.geturl()

    def check(self) -> None:
        """Raise `St4sdError` unless requests can be sent from this event loop and process."""
        self.shared.check()

    async def send(self, call: Call[T]) -> T:
        """Send a call, with retries where they are safe, and return the result; see `Session.send`."""
        return await self.shared.send(call, self.config)

    async def send_once(self, call: Call[T]) -> T:
        """Send a call without retries and return the result."""
        return await self.shared.send(call, self._config_once)

    async def stream(self, call: Call[T], body_handler: BodyHandler[T], *, once: bool = False) -> T:
        """Send a call, stream the body to ``body_handler``, and return its result; ``once`` means without retries."""
        return await self.shared.stream(call, body_handler, self._config_once if once else self.config)

    async def services(self) -> dict[str, str]:
        """Return the root of each service, by name; see `Session.services`."""
        return await self.shared.services(self.config)

    @property
    def availability(self) -> Availability:
        """Whether the runtime service responds."""
        return self.shared.availability()

    def waiting(self) -> WaitingCall:
        """Return a context manager for work that sends requests to the runtime service until it responds."""
        return self.availability.waiting(self.config.progress)

    def secrets(self) -> tuple[str, ...]:
        """Return the credentials in use, which must not appear in messages."""
        return tuple(self.shared.credentials.known)


_abandoned: list[AsyncExitStack] = []
"""Connections of the process from which this one was forked; collecting them would close them there too."""

_closing: set[asyncio.Task[Any]] = set()
"""Tasks that close connections of dropped sessions; the event loop itself does not keep them alive."""


def _close_dropped(stack: AsyncExitStack, binding: LoopBinding) -> None:
    """
    Close the connections of a session that was dropped while open, such as by a second ``client = ...`` in a notebook.

    Otherwise aiohttp would log that a session is not closed, at some later time and in the output of any cell.
    """
    warnings.warn("a client was dropped while it was open: close() it, or use 'async with'", ResourceWarning, 1)
    if binding.is_forked:
        _abandoned.append(stack.pop_all())
    else:
        binding.run_soon(stack.aclose())


_EMPTY_RESPONSE = Response(200, {}, b"")


def _load_engine(config: Config, home: SplitResult, load: Callable[[], None]) -> Callable[[list[str]], HttpClient]:
    """Import and build what only an open client needs, which takes longer than the rest, and read the certificates."""
    import tenacity  # noqa: F401 -- for `with_retries`, which runs in the event loop

    from ..models import Status

    load()
    # pydantic reads the docstrings of its enums, which read their source. Before it builds the first model, it searches
    # the files of all installed packages for plugins.
    Status.model_rebuild()
    if config.transport is not None:
        from .injected import inject

        make_transport = config.transport
        return lambda known: inject(make_transport(), known)

    from .engine import make_client
    from .tls import TlsContext

    tls = TlsContext(config.verify)
    if home.scheme == "https" or config.verify is not True:  # an invalid setting is an error from the start
        tls.load()
    return lambda _: make_client(tls, home)


def has_user(name: str, url: str) -> bool:
    """Return whether the URL of a service contains a user or a password; if so, log a warning without the URL."""
    if "@" not in re.split(r"[/?#]", url.partition("://")[2], maxsplit=1)[0]:
        return False
    log.warning(
        "left out the service %r: its address in url-map/ contains a user or password; inform the administrator", name
    )
    return True


def _decode_url_map(response: Response) -> dict[str, str]:
    found = response.json()
    if not isinstance(found, dict):
        raise ValueError("not a map of services")
    urls = {str(name): url for name, url in found.items() if isinstance(url, str) and parse_http_url(url)}
    return {name: url for name, url in urls.items() if not has_user(name, url)}


def _no_cluster(error: APIError) -> dict[str, str] | None:
    """Return {} for a service without a cluster: it has no map of services, but has accepted the login."""
    return {} if "localDeployment" in error.detail else None


_URL_MAP = Call("GET", "url-map/", _decode_url_map, recover=_no_cluster)
"""The cheapest request that returns JSON. Source: ``GET url-map/`` of the runtime service."""
