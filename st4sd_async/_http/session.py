"""The only place that talks to the network: connections, credentials, the bound on what is in flight."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar, cast
from urllib.parse import urlencode, urlsplit

import anyio
import anyio.to_thread

from .._config import Config, build_home, build_tls, split_address
from .._errors import (
    APIError,
    ConfigError,
    CredentialUnavailable,
    DecodeError,
    NotFound,
    St4sdError,
    TransportError,
    Unauthorized,
)
from .._version import VERSION
from .call import DEFAULT_SILENCE, LONG_SILENCE, Call, decipher
from .cancellation import in_flight, reported
from .credentials import Credentials, Secret, may_carry_credentials
from .loop_binding import LoopBinding
from .outage import Outage
from .responses import Response, is_refused_by_proxy
from .retry import RETRIED_STATUSES, Replay, RetryPolicy, may_have_arrived, repeated

if TYPE_CHECKING:
    import ssl
    from urllib.parse import SplitResult

    import httpx

T = TypeVar("T")
Take = Callable[[Mapping[str, str], AsyncIterator[bytes]], Awaitable[T]]
"""
What becomes of a body: takes the headers of a good reply and the pieces as they arrive.

Called again, with another body from its beginning, when a transfer breaks off.
"""

log = logging.getLogger("st4sd_async")

RUNTIME = "rs/"
"""Prefix of the runtime service below the root of a deployment."""

HEADERS = (
    (b"User-Agent", f"st4sd_async/{VERSION}".encode()),
    (b"Accept", b"*/*"),
    # Bodies come as they are: what the servers send is small JSON or zipped already.
    (b"Accept-Encoding", b"identity"),
)
"""Sent with every request."""

JSON_TYPE = (b"Content-Type", b"application/json")
"""Sent with a body."""

NO_RETRY = RetryPolicy(attempts=1)
"""For requests whose caller repeats them itself, as a poller does."""

NOT_OPEN = "this client is not open: use it inside 'async with Client(...) as client:', or call 'await client.open()'"


class Session:
    """
    The connections to one deployment, shared by a client and those made from it.

    Safe to use from many tasks of one event loop. It may be opened again after it was closed, in
    another event loop too.
    """

    def __init__(self, url: str, api_key: Secret | None, auth_token: Secret | None, config: Config) -> None:
        self.credentials = Credentials(api_key, auth_token)
        self.home = build_home(url, self.credentials)
        self._runtime = f"{self.home.geturl()}{RUNTIME}"
        self._trusted: dict[str, bool] = {}
        self._outages: dict[str, Outage] = {}
        self.token_page = f"{self.home.geturl()}authorisation/token"
        self._config = config
        self._limit(config)
        self._http: httpx.AsyncClient | None = None
        self._binding: LoopBinding | None = None
        self._services: dict[str, str] | None = None
        self.gateways: dict[str, tuple[str, float]] = {}
        """id of a gateway -> its root, and when the registry told it."""
        self._stack = AsyncExitStack()

    def _limit(self, config: Config) -> None:
        self._requests = anyio.Semaphore(config.concurrency, fast_acquire=True)
        self._streams = anyio.Semaphore(config.downloads, fast_acquire=True)

    @property
    def is_open(self) -> bool:
        """Whether requests can be sent."""
        return self._http is not None

    async def open(self) -> None:
        """Make ready to send; no request is sent. Raises `St4sdError` if it is open, or this is no asyncio."""
        if self.is_open:
            self.check()
            raise St4sdError("this client is open already")
        binding = LoopBinding("client")
        tls = await anyio.to_thread.run_sync(build_tls, self._config.verify)
        make_client = await anyio.to_thread.run_sync(_engine)
        self._limit(self._config)
        self._services = None
        self._http = await self._stack.enter_async_context(make_client(tls, self.home))
        self._binding = binding

    async def close(self) -> None:
        """
        Close all connections; what is in flight ends with an error.

        In a forked process they are left alone: the first one still uses them.

        Raises:
            St4sdError: It was opened in another event loop, which goes on.
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
        Where the services are: name -> root with a slash at its end; {} without a cluster.

        Asked once; the answer proves the login.
        """
        if self._services is None:
            found = await self.send(_URL_MAP, config)
            self._services = {name: self.root(url) for name, url in found.items()}
        return self._services

    def root(self, url: str) -> str:
        """The root of a service; one behind the deployment's own door is reached the way that the deployment is."""
        root = urlsplit(url)
        if root.hostname == self.home.hostname and root.port in (None, self.home.port):
            root = root._replace(scheme=self.home.scheme, netloc=self.home.netloc)
        return f"{root.geturl().rstrip('/')}/"

    async def send(self, call: Call[T], config: Config) -> T:
        """
        Send a call, again where that is safe, and return what its reply means.

        Raises:
            TransportError: No usable reply came, and sending it again by hand is safe.
            APIError: The service refused.
            DecodeError: The reply is not what was promised.
            OutcomeUnknown: The call may have been carried out, and must not be repeated.
            CancelledError: It was cancelled; if it may have been carried out, and must not be repeated, after up to a
                second, with a note that says so.
        """
        self.check()
        work = self._carried_out(call, config, None)
        # A batch writes down what becomes of its starts, and lets nobody cancel them.
        if call.replay is not Replay.ONCE or call.is_paced:
            return await work
        return await reported(work, call, self._url(call), config.clock)

    async def stream(self, call: Call[T], take: Take[T], config: Config) -> T:
        """
        Send a call and return what ``take`` makes of the body, of which little is in memory at a time.

        Repeated as `send` does, and also when the body breaks off. A body that is no file by its type is understood
        as `send` understands it. Bodies have a bound of their own (``Config.downloads``), so that
        nothing else waits for them.
        """
        self.check()
        return await self._carried_out(call, config, take)

    async def _carried_out(self, call: Call[T], config: Config, take: Take[T] | None) -> T:
        base = call.base or self._runtime
        url, outage, in_doubt = self._url(call), self._outages.get(base) or self._outage(base), False

        async def attempt(number: int) -> T:
            nonlocal in_doubt
            try:
                return await self._authorised(call, url, config, take)
            except (TransportError, APIError) as error:
                if call.replay is Replay.DELETE and in_doubt and isinstance(error, NotFound):
                    return call.decode(_DONE)
                in_doubt = in_doubt or may_have_arrived(error)
                raise

        what = f"{call.method} {url}"
        try:
            return await repeated(
                attempt,
                policy=config.retry,
                replay=call.replay,
                clock=config.clock,
                what=what,
                outage=outage,
                progress=config.progress,
            )
        except (TransportError, APIError, DecodeError) as error:
            failure = error
        log.debug("%s failed", what, exc_info=failure)
        # Those who read it in a notebook would have to find the message below a hundred lines of engines' insides.
        failure = failure.with_traceback(None)
        if call.replay is Replay.ONCE and may_have_arrived(failure):
            raise call.doubt(call.what, str(failure)) from failure
        raise failure

    def _url(self, call: Call[Any]) -> str:
        return (call.base or self._runtime) + call.path

    async def _authorised(self, call: Call[T], url: str, config: Config, take: Take[T] | None) -> T:
        """One attempt, and another with a new credential if the sign-in proxy refused the first."""
        secret = None
        if self._is_trusted(call.base or self._runtime):
            secret = await self._credential(self.credentials.value(), call, url)
        try:
            return await self._once(call, url, secret, config, take)
        except Unauthorized as error:
            refusal = error
        if secret is not None and is_refused_by_proxy(refusal):
            renewed = await self._credential(self.credentials.renewed(secret), call, url)
            if renewed is not None:
                log.info("%s %s was refused: trying once more with a new credential", call.method, url)
                return await self._once(call, url, renewed, config, take)
        raise refusal

    async def _credential(self, source: Awaitable[str | None], call: Call[T], url: str) -> str | None:
        """The credential for a call; if there is none to be had, that is an error of this call, which was not sent."""
        try:
            return await source
        except ConfigError as error:
            # What never gave one is more likely wrong than away for a moment.
            is_wrong = not self.credentials.is_proven
            failure, cause = CredentialUnavailable(call.method, url, str(error), permanent=is_wrong), error.__cause__
        raise failure from cause

    def _outage(self, base: str) -> Outage:
        """What is known of the service with this root."""
        return self._outages.setdefault(base, Outage(base))

    def _is_trusted(self, base: str) -> bool:
        """Whether credentials may go to the service with this root."""
        if base not in self._trusted:
            self._trusted[base] = may_carry_credentials(urlsplit(base), self.home, self._config.trusted_hosts)
        return self._trusted[base]

    async def _once(self, call: Call[T], url: str, secret: str | None, config: Config, take: Take[T] | None) -> T:
        headers = [*HEADERS, *self.credentials.headers(secret)]
        if call.content is not None:
            headers.append(JSON_TYPE)
        silence = LONG_SILENCE if call.is_long and config.timeout == DEFAULT_SILENCE else config.timeout
        async with self._turn(call, take):
            if self._http is None:
                raise St4sdError(NOT_OPEN)
            import httpx  # not with the package, but there once a client is open

            from .engine import parsed

            began = time.perf_counter()
            target = parsed(f"{url}?{urlencode(call.params)}" if call.params else url)
            # The answer to an earlier request must never be taken for that to a start, so that has its own connection.
            manner = {
                "timeout": {"read": silence},
                "fresh": call.replay is Replay.ONCE,
                "streamed": take is not None,
                "largest": config.max_body_bytes,
            }
            request = httpx.Request(call.method, target, headers=headers, content=call.content, extensions=manner)
            with in_flight():
                reply = await self._http.send(request, stream=take is not None)
            outage = self._outages[call.base or self._runtime]
            outage.replied(is_away=reply.status_code in RETRIED_STATUSES)
            log.debug("%s %s: %d in %.0f ms", call.method, url, reply.status_code, 1000 * (time.perf_counter() - began))
            if take is not None:
                body = cast("AsyncGenerator[bytes]", reply.aiter_bytes())
                async with aclosing(reply), aclosing(body) as pieces:
                    if "streamed" in reply.extensions:
                        return await take(reply.headers, pieces)
                    await reply.aread()
        return self._understood(call, url, Response(reply.status_code, reply.headers, reply.content))

    def _turn(self, call: Call[T], take: Take[T] | None) -> AbstractAsyncContextManager[Any]:
        """What bounds how many calls of its kind are in flight."""
        if call.is_paced:
            return nullcontext()
        return self._requests if take is None else self._streams

    def _understood(self, call: Call[T], url: str, response: Response) -> T:
        try:
            return decipher(call, url, response, self.credentials.secrets())
        except Unauthorized as error:
            error.token_page, error.advice = self.token_page, f"get a new token at {self.token_page}"
            raise


class ClientSession:
    """
    The session as one client uses it: shared connections, and the settings of this client.

    The endpoints and everything above them send their requests through this.
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

    async def stream(self, call: Call[T], take: Take[T], *, once: bool = False) -> T:
        """Send a call and return what ``take`` makes of the body; ``once`` means without retries."""
        return await self.shared.stream(call, take, self._config_once if once else self.config)

    async def services(self) -> dict[str, str]:
        """Return the root of each service, by name; see `Session.services`."""
        return await self.shared.services(self.config)

    def secrets(self) -> tuple[str, ...]:
        """Return the credentials in use, which must not appear in messages."""
        return self.shared.credentials.secrets()


_abandoned: list[AsyncExitStack] = []
"""Connections of the process from which this one was forked: to destroy them here would take them away there."""

_DONE = Response(200, {}, b"")
"""What a repeated delete that finds nothing is taken for: the earlier one did it."""


def _urls(response: Response) -> dict[str, str]:
    found = response.json()
    if not isinstance(found, dict):
        raise ValueError("not a map of services")
    urls = {str(name): url for name, url in found.items() if isinstance(url, str) and split_address(url)}
    return {name: url for name, url in urls.items() if not holds_user(name, url)}


def holds_user(name: str, url: str) -> bool:
    """Return whether the address of a service holds a user or a password; then log it without the address."""
    if "@" not in re.split(r"[/?#]", url.partition("://")[2], maxsplit=1)[0]:
        return False
    log.warning("left out the service %r: its address in url-map/ holds a user or password; tell who runs it", name)
    return True


def _local(error: APIError) -> dict[str, str] | None:
    """A service that runs without a cluster has no map of services, but has accepted the login."""
    return {} if "localDeployment" in error.detail else None


_URL_MAP = Call("GET", "url-map/", _urls, rescue=_local)
"""The cheapest request that answers JSON. Source: ``GET url-map/`` of the runtime service."""


def _engine() -> Callable[[ssl.SSLContext, SplitResult], httpx.AsyncClient]:
    """What makes the HTTP client; imported with the first one, because it takes longer than all the rest."""
    import tenacity  # noqa: F401 -- for `_retry`, which has no thread for that

    from .engine import make_client

    return make_client
