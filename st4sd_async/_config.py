"""Settings of a client, and reading them from the environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING

from ._errors import ConfigError
from ._util.clock import Clock, SystemClock
from ._util.field_docs import document_fields
from ._util.progress import Progress

if TYPE_CHECKING:
    import ssl

CONCURRENCY = 8
"""Requests in flight: the service answers about 100 a second, however many there are."""
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


@document_fields
@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """
    How long and how often a request is retried; both limits apply.

    RetryPolicy()               for up to 120 s, any number of attempts: outlasts a service that restarts for 60 s
    RetryPolicy(total=10)       for up to 10 s
    RetryPolicy(attempts=1)     never retry
    RetryPolicy(first_wait=1)   the first pause is at most 1 s, each next one at most twice as long

    A host whose name does not resolve, or that never answered and is silent, is retried for 10 s only. A response that
    is cut short is requested up to 5 times. After 5 s of waiting there is one warning in the log for all waiting calls,
    and ``Config.progress`` is called.
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

    Config(verify="ca.pem")               trust this certificate authority
    Config(timeout=5)                     abandon a request after 5 s of silence Config(concurrency=2, poll_interval=30)
    reduce the load on a busy service
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
    `Client.output` returns. A longer one is a `DecodeError`. Downloads to files are not limited."""
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
    validate: bool = True
    """Whether entering the client checks the login with one request."""
    progress: Progress | None = field(default=None, compare=False)
    """Called with the progress of downloads, waits and batches, and of waiting for a service that is down. Pass a
    `ProgressBars`, for example. None means no reports."""
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


def _check_seconds(name: str, value: object, *, allow_zero: bool = True, allow_infinite: bool = False) -> None:
    """Raise `ConfigError` unless a setting is a number of seconds; ``name`` identifies it in the message."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if is_number and 0 <= value <= inf and (allow_zero or value != 0) and (allow_infinite or value != inf):  # type: ignore[operator]
        return
    raise ConfigError(f"{name} must be a number of seconds{'' if allow_zero else ' above 0'}, not {value!r}")


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
