"""Settings of a client, and reading them from the environment."""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ._errors import ConfigError
from ._util.clock import Clock, SystemClock
from ._util.field_docs import document_fields
from ._util.progress import Progress
from ._util.redact import REDACTED
from ._util.request_events import RequestEvent, ResponseEvent, RetryEvent

if TYPE_CHECKING:
    import ssl

CONCURRENCY = 8
"""Requests in flight: the service completes about 100 a second, however many there are."""
DOWNLOADS = 4
"""Downloads at once: each keeps a thread of the service busy until its body is ready."""
TIMEOUT_SECONDS = 20.0
"""Read timeout."""
MAX_BODY_BYTES = 256 << 20
"""Longest response body that is read into memory: a list of 50,000 runs fits."""
GRACE_SECONDS = 60.0
"""How long experiment-state and exit-status must stay unchanged to be final if only one of them says so."""
SETTLE_SECONDS = 180.0
"""How long a start must leave no trace to count as never sent; longer than any proxy waits."""

URL_VARIABLE, API_KEY_VARIABLE, AUTH_TOKEN_VARIABLE = "ST4SD_URL", "ST4SD_API_KEY", "ST4SD_AUTH_TOKEN"
CA_FILE_VARIABLE = "ST4SD_CA_FILE"
"""Environment variables that `Client.from_env` reads."""

OWN_HEADERS = {
    **dict.fromkeys(("authorization", "cookie"), "give api_key or auth_token instead"),
    **dict.fromkeys(("accept", "accept-encoding", "content-type", "user-agent"), "the client sets it"),
    **dict.fromkeys(("connection", "content-length", "host", "te", "transfer-encoding"), "the client sets it"),
}
"""Names that ``Config.headers`` must not contain, in lower case, and why."""
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")


class Transport(Protocol):
    """Sends the requests of a client: any `httpx.AsyncBaseTransport`."""

    async def handle_async_request(self, request: Any, /) -> Any:
        """Send an `httpx.Request` and return the `httpx.Response`."""

    async def aclose(self) -> None:
        """Close all connections."""


class Headers(Mapping[str, str]):
    """
    Additional headers of requests. Their values may be secret, so they are in no repr and no pickle.

    Args:
        headers: Values by name. Two names must not differ in case only.

    Raises:
        ConfigError: A header is invalid, or one that the client sets. The message has no value.
    """

    def __init__(self, headers: Mapping[str, str]) -> None:
        if not isinstance(headers, Mapping):
            raise ConfigError(f"headers must be a mapping of names to values, not {type(headers).__name__}")
        self._values = dict(headers)
        for name, value in self._values.items():
            if not isinstance(name, str) or not _HEADER_NAME.fullmatch(name):
                raise ConfigError(f"headers must have valid names, not {name!r}")
            if reason := OWN_HEADERS.get(name.lower()):
                raise ConfigError(f"headers must not contain {name!r}: {reason}")
            if not isinstance(value, str) or not value.isascii() or not value.isprintable() or value != value.strip():
                raise ConfigError(f"the value of the header {name!r} must be a string of printable ASCII characters")
        if len({name.lower() for name in self._values}) < len(self._values):
            raise ConfigError(f"headers must have different names, not {sorted(self._values)}")

    def __getitem__(self, name: str) -> str:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return repr(dict.fromkeys(self._values, REDACTED))

    def __copy__(self) -> Headers:
        return self

    def __deepcopy__(self, _: object) -> Headers:
        return self

    def __reduce__(self) -> tuple[type[Headers], tuple[dict[str, str]]]:
        if not self._values:
            return Headers, ({},)
        raise TypeError(
            "Config.headers may contain secrets, so they cannot be pickled: create the client in the other process"
        )


@document_fields
@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """
    How long and how often a request is retried; both limits apply.

        RetryPolicy()               for up to 120 s, any number of attempts: outlasts a service that restarts for 60 s
        RetryPolicy(total=10)       for up to 10 s
        RetryPolicy(attempts=1)     never retry
        RetryPolicy(first_wait=1)   the first pause is at most 1 s, each next one at most twice as long

    A host whose name does not resolve, or that never responded and is silent, is retried for 10 s only. A response that
    is cut short is requested up to 5 times. What calls wait for is in `Client.outage`, in the log and in
    ``Config.progress``.
    """

    attempts: int | None = None
    """Attempts in all, at least 1; None means as many as begin within ``total``."""
    total: float = 120.0
    """Seconds from the first attempt after which no other begins; may be infinite."""
    first_wait: float = 0.2
    """Longest first pause in seconds; the next ones double. Each is drawn at random between 0 and its maximum."""
    longest_wait: float = 10.0
    """Longest pause in seconds."""
    longest_retry_after: float = 60.0
    """Longest pause in seconds that the service may request with ``Retry-After``; may be infinite."""

    def __post_init__(self) -> None:
        prefix = "invalid retry policy: "
        if self.attempts is not None and not (isinstance(self.attempts, int) and self.attempts >= 1):
            problem = f"attempts must be a whole number of at least 1 or None, not {self.attempts!r}"
            raise ConfigError(prefix + problem)
        for name in ("total", "longest_retry_after"):
            _check_seconds(prefix + name, getattr(self, name), allow_infinite=True)
        for name in ("first_wait", "longest_wait"):
            _check_seconds(prefix + name, getattr(self, name))


@document_fields
@dataclass(frozen=True, kw_only=True)
class Config:
    """
    Settings of a client; all have defaults that suit most deployments.

        Config(verify="ca.pem")                     trust this certificate authority
        Config(timeout=5)                           abandon a request after 5 s of silence
        Config(concurrency=2, poll_interval=30)     reduce the load on a busy service
    """

    concurrency: int = CONCURRENCY
    """Requests in flight at once, at least 1. A batch begins with as many starts and adapts from there."""
    downloads: int = DOWNLOADS
    """Downloads of files and archives at once, in addition to other requests, at least 1."""
    timeout: float = TIMEOUT_SECONDS
    """Read timeout in seconds: the longest silence during one request. A whole request may take ten times as long, and
    the download of a file any time. If this is the default, pushes and downloads get 60 s."""
    max_body_bytes: int = MAX_BODY_BYTES
    """Longest response body in bytes that is read into memory, at least 1: JSON, error messages, and what
    `Client.output` returns. A longer one is a `DecodeError`. Downloads to files are not limited, and watches and
    batches read a list of instances up to 1 GiB, of which they keep only what they need."""
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    """How long requests are retried, if that is safe. The default outlasts a service that restarts."""
    poll_interval: float | None = None
    """Seconds between two polls of a watched run. None means adaptive: short after a start or a change, 30 s if nothing
    changes."""
    grace: float = GRACE_SECONDS
    """Seconds that a run must stay unchanged to count as over if only one of experiment-state and exit-status is
    final."""
    settle: float = SETTLE_SECONDS
    """Seconds that a start must leave no trace to count as never sent (see `Batch`), twice that without a datastore.
    Keep it longer than any proxy waits, since a queued request may still be handled."""
    verify: bool | str | Path | ssl.SSLContext = True
    """Which certificates to trust. True means the default authorities, or those of ``SSL_CERT_FILE`` or
    ``SSL_CERT_DIR``; a path means the authority in that file; an `ssl.SSLContext` is used as it is; False means any,
    which lets others read your credentials."""
    trusted_hosts: tuple[str, ...] = ()
    """Other hosts that may receive the credentials: ``name``, ``name:port`` or ``[::1]:port``."""
    headers: Mapping[str, str] = field(default_factory=dict, hash=False)
    """Additional headers of requests, by name. They are sent only where credentials are sent, and no log, message, repr
    or pickle contains their values."""
    transport: Callable[[], Transport] | None = None
    """Returns the `httpx.AsyncBaseTransport` that sends the requests. It is called in the event loop when the client is
    opened. None means our own transport. With another one, proxies and ``verify`` are settings of that transport. Files
    in buckets are not transferred through it."""
    on_request: Callable[[RequestEvent], object] | None = None
    """Called before each request with a `RequestEvent`. The three hooks are plain functions, called in the event loop,
    where they must not block. If one raises, the error is logged, and the request continues. None means no hook."""
    on_response: Callable[[ResponseEvent], object] | None = None
    """Called after each request with a `ResponseEvent`, even if there was no response."""
    on_retry: Callable[[RetryEvent], object] | None = None
    """Called with a `RetryEvent` before a call pauses and sends its request again. A watch that polls again after a
    failure is not a retry."""
    validate: bool = True
    """Whether entering the client checks the login with one request."""
    progress: Progress | None = field(default=None, compare=False)
    """Called with the progress of downloads, waits and batches, and every second while a service does not respond. Pass
    a `ProgressBars`, for example. None means no reports."""
    clock: Clock = field(default_factory=SystemClock, repr=False, compare=False)
    """Source of time; tests replace it."""

    def __post_init__(self) -> None:
        for name in ("concurrency", "downloads", "max_body_bytes"):
            number = getattr(self, name)
            if not isinstance(number, int) or number < 1:
                raise ConfigError(f"{name} must be a whole number of at least 1, not {number!r}")
        _check_seconds("timeout", self.timeout, allow_zero=False)
        if self.poll_interval is not None:
            _check_seconds("poll_interval", self.poll_interval, allow_zero=False)
        for name in ("grace", "settle"):
            _check_seconds(name, getattr(self, name))
        if isinstance(self.trusted_hosts, str):
            raise ConfigError(f"trusted_hosts must be a sequence of hosts, not the text {self.trusted_hosts!r}")
        object.__setattr__(self, "trusted_hosts", tuple(self.trusted_hosts))
        object.__setattr__(self, "headers", Headers(self.headers))
        for name in ("transport", "on_request", "on_response", "on_retry"):
            _check_function(name, getattr(self, name))


def _check_seconds(name: str, value: object, *, allow_zero: bool = True, allow_infinite: bool = False) -> None:
    """Raise `ConfigError` unless a setting is a number of seconds; ``name`` identifies it in the message."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if is_number and 0 <= value <= inf and (allow_zero or value != 0) and (allow_infinite or value != inf):  # type: ignore[operator]
        return
    raise ConfigError(f"{name} must be a number of seconds{'' if allow_zero else ' above 0'}, not {value!r}")


def portable(config: Config) -> Config:
    """
    Return the settings for another process: without the hooks and the display of progress, which stay in this one.

    Raises:
        TypeError: A setting cannot be pickled.
    """
    if not isinstance(config.verify, bool | str | Path):
        raise TypeError("a client with an ssl.SSLContext cannot be pickled: give the path of a CA file as verify")
    return replace(config, progress=None, on_request=None, on_response=None, on_retry=None)


def _check_function(name: str, value: object) -> None:
    """Raise `ConfigError` unless a setting is a plain function or None."""
    if value is not None and not callable(value):
        advice = ": pass a function that returns it, such as lambda: transport" if hasattr(value, "aclose") else ""
        raise ConfigError(f"{name} must be a function or None, not {value!r}{advice}")
    if inspect.iscoroutinefunction(value):
        raise ConfigError(f"{name} must be a plain function, not an async one: {value!r}")


def from_environment(
    config: Config | None, environ: Mapping[str, str] | None = None
) -> tuple[str, str | None, str | None, Config]:
    """
    Return URL, API key, auth-token and settings from the environment.

    Raises:
        ConfigError: `ST4SD_URL` is not set.
    """
    env = os.environ if environ is None else environ
    url = env.get(URL_VARIABLE)
    if not url:
        raise ConfigError(f"the environment variable {URL_VARIABLE} is not set: it holds the address of the deployment")
    api_key, auth_token = env.get(API_KEY_VARIABLE) or None, env.get(AUTH_TOKEN_VARIABLE) or None
    return url, api_key, auth_token, with_ca_file(config or Config(), env)


def with_ca_file(config: Config, env: Mapping[str, str]) -> Config:
    """Return the settings with the CA file of the environment, unless they name their own."""
    ca_file = env.get(CA_FILE_VARIABLE)
    return replace(config, verify=ca_file) if config.verify is True and ca_file else config
