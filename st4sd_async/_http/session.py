"""
Send calls: the session of a client holds its connections, credentials and limits, in one event loop.

    send -> _send_with_retry       until it succeeds, or must not be repeated (retry.py)
         -> _send_authenticated    with the credential, and again with a new one if it is refused (credentials.py)
         -> _send_once             one request, within the limit of requests in flight (engine.py)
         -> parse_response         a value or an error (call.py)
"""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing, contextmanager, nullcontext
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
from .._util.redact import raise_unchained
from .._util.threads import in_thread
from .._version import VERSION
from .call import Call, Response, is_refused_by_proxy, parse_response
from .credentials import Credentials, Secret, may_carry_credentials, parse_deployment_url, parse_http_url
from .retry import Outage, Replay, may_have_arrived, with_retries

if TYPE_CHECKING:
    import asyncio
    import ssl
    from pathlib import Path
    from urllib.parse import SplitResult

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

    def __init__(self, call: Call[T], url: str, config: Config, body_handler: BodyHandler[T] | None = None) -> None:
        self.call, self.url, self.config, self.body_handler = call, url, config, body_handler
        self.may_have_arrived = False
        """Whether an earlier attempt may have been carried out."""
        self.is_in_flight = False
        """Whether an attempt that must not be repeated was written and not answered."""
        self.is_cancelled = False
        self._sent_at: float | None = None
        """Wall time of the last attempt that must not be repeated; None if none was sent."""

    def __str__(self) -> str:
        return f"{self.call.method} {self.url}"

    def mark_sent(self) -> None:
        """Note that the request is about to be written."""
        self.is_in_flight, self._sent_at = True, self.config.clock.wall()

    @contextmanager
    def one_attempt(self) -> Iterator[None]:
        """
        Note when an attempt is answered or has failed.

        Raises:
            CancelledError: The call was cancelled while it waited for the response to an earlier attempt.
        """
        import asyncio

        if self.is_cancelled:
            raise asyncio.CancelledError
        try:
            yield
        except asyncio.CancelledError:
            raise
        except BaseException:
            self.is_in_flight = False
            raise
        self.is_in_flight = False

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
                error.add_note(report)
            raise

    def _report(self, task: asyncio.Task[T], sent_at: float) -> str:
        """Return what is known of a cancelled call that was sent and has ended; "" if it had no effect."""
        call = self.call
        moment = f"{datetime.fromtimestamp(sent_at, UTC):%Y-%m-%d %H:%M:%S} UTC"
        cancelled = f"it was cancelled after it was sent at {moment}"
        if task.cancelled():
            reason = f"{cancelled}, and no answer came within {CANCEL_GRACE_SECONDS:g} s"
            return str(call.outcome_unknown_error(call.effect, reason))
        failure = task.exception()
        if isinstance(failure, OutcomeUnknown):
            return str(call.outcome_unknown_error(call.effect, f"{cancelled}: {failure.reason}"))
        if failure is not None:
            return ""
        is_start = call.outcome_unknown_error is StartOutcomeUnknown
        result = f": {task.result()!r}, which continues" if is_start else ""
        return f"{call.effect}{result} ({self}: {cancelled}, and answered then)"


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
        self.credentials = Credentials(api_key, auth_token)
        self.home = parse_deployment_url(url, self.credentials)
        """Root of the deployment."""
        self.token_page = f"{self.home.geturl()}authorisation/token"
        """URL of the page that issues auth-tokens."""
        self.gateways: dict[str, tuple[str, float]] = {}
        """id of a gateway -> its root, and when the registry reported it."""
        self._runtime_url = f"{self.home.geturl()}{RUNTIME_PATH}"
        self._config = config
        self._is_trusted: dict[str, bool] = {}
        self._outages: dict[str, Outage] = {}
        self._services: dict[str, str] | None = None
        self._http: HttpClient | None = None
        self._binding: LoopBinding | None = None
        self._stack = AsyncExitStack()
        self._make_limiters()

    def _make_limiters(self) -> None:
        self._requests = anyio.Semaphore(self._config.concurrency, fast_acquire=True)
        self._downloads = anyio.Semaphore(self._config.downloads, fast_acquire=True)

    @property
    def is_open(self) -> bool:
        """Whether requests can be sent."""
        return self._http is not None

    async def open(self) -> None:
        """
        Open the connection pool; no request is sent.

        Raises:
            St4sdError: It is open already, or no asyncio event loop is running.
        """
        if self.is_open:
            self.check()
            raise St4sdError("this client is open already")
        binding = LoopBinding("client")
        make_client, tls = await in_thread(_load_engine, self._config.verify)
        self._make_limiters()
        self._services = None
        self._http = await self._stack.enter_async_context(make_client(tls, self.home))
        self._binding = binding

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

        Requested once. A reply proves that the login is valid.
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
        self.check()
        request = _Request(call, self._url(call), config)
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
        self.check()
        return await self._send_with_retry(_Request(call, self._url(call), config, body_handler))

    def _url(self, call: Call[Any]) -> str:
        return (call.base_url or self._runtime_url) + call.path

    async def _send_with_retry(self, request: _Request[T]) -> T:
        call, config = request.call, request.config

        async def attempt() -> T:
            try:
                return await self._send_authenticated(request)
            except (TransportError, APIError) as error:
                if call.replay is Replay.DELETE and request.may_have_arrived and isinstance(error, NotFound):
                    return call.decode(_EMPTY_RESPONSE)  # the earlier attempt deleted it
                request.may_have_arrived = request.may_have_arrived or may_have_arrived(error)
                raise

        try:
            return await with_retries(
                attempt,
                policy=config.retry,
                replay=call.replay,
                clock=config.clock,
                request=str(request),
                outage=self._outage(call),
                progress=config.progress,
            )
        except (TransportError, APIError, DecodeError) as error:
            log.debug("%s failed", request, exc_info=error)
            # Without the engine's frames, which would hide the message in a notebook.
            failure = error.with_traceback(None)
            if call.replay is Replay.ONCE and may_have_arrived(failure):
                raise_unchained(call.outcome_unknown_error(call.effect, str(failure)), failure)
            raise_unchained(failure, failure.__cause__)

    def _outage(self, call: Call[Any]) -> Outage:
        url = call.base_url or self._runtime_url
        return self._outages.get(url) or self._outages.setdefault(url, Outage(url))

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
        call, config, handler = request.call, request.config, request.body_handler
        headers = [*HEADERS]
        if credential is not None:
            name, prefix = self.credentials.header
            headers.append((name, f"{prefix}{credential}".encode()))
        if call.content is not None:
            headers.append(JSON_CONTENT_TYPE)
        is_slow = call.is_slow and config.timeout == TIMEOUT_SECONDS
        async with self._limiter(request):
            if self._http is None:
                raise St4sdError(NOT_OPEN)
            began = time.perf_counter()
            with request.one_attempt():
                reply = await self._http.exchange(
                    call.method,
                    f"{request.url}?{urlencode(call.params)}" if call.params else request.url,
                    headers,
                    call.content,
                    read_timeout=SLOW_TIMEOUT_SECONDS if is_slow else config.timeout,
                    max_body_bytes=config.max_body_bytes,
                    stream=handler is not None,
                    # A request that must not be repeated gets a connection of its own, so that the response to an
                    # earlier request is never taken for that to a start.
                    on_connected=request.mark_sent if call.replay is Replay.ONCE else None,
                )
            self._outage(call).record_response(reply.status_code)
            log.debug("%s: %d in %.0f ms", request, reply.status_code, 1000 * (time.perf_counter() - began))
            if handler is not None:
                body = cast("AsyncGenerator[bytes]", reply.aiter_bytes())
                async with aclosing(reply), aclosing(body) as pieces:
                    if "stream" in reply.extensions:
                        return await handler(reply.headers, pieces)
                    await reply.aread()
        try:
            response = Response(reply.status_code, reply.headers, reply.content)
            return parse_response(call, request.url, response, tuple(self.credentials.known))
        except Unauthorized as error:
            error.token_page, error.advice = self.token_page, f"get a new token at {self.token_page}"
            raise

    def _limiter(self, request: _Request[Any]) -> AbstractAsyncContextManager[Any]:
        if request.call.bypasses_limiter:
            return nullcontext()
        return self._requests if request.body_handler is None else self._downloads


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

    def secrets(self) -> tuple[str, ...]:
        """Return the credentials in use, which must not appear in messages."""
        return tuple(self.shared.credentials.known)


_abandoned: list[AsyncExitStack] = []
"""Connections of the process from which this one was forked; collecting them would close them there too."""

_EMPTY_RESPONSE = Response(200, {}, b"")


def _load_engine(
    verify: bool | str | Path | ssl.SSLContext,
) -> tuple[Callable[[ssl.SSLContext, SplitResult], HttpClient], ssl.SSLContext]:
    """Import what only an open client needs, which takes longer than the rest, and read the certificates."""
    import tenacity  # noqa: F401 -- for `with_retries`, which runs in the event loop

    from .engine import HttpClient, build_tls_context

    return HttpClient, build_tls_context(verify)


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
