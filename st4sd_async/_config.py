"""Settings of a client, and how they are read."""

from __future__ import annotations

import ipaddress
import logging
import os
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from ._errors import ConfigError
from ._http.call import DEFAULT_SILENCE
from ._http.credentials import Credentials, is_loopback
from ._http.retry import RetryPolicy, check_seconds
from ._util.clock import Clock, SystemClock
from ._util.field_docs import document_fields
from ._util.progress import Progress

log = logging.getLogger("st4sd_async")

CONCURRENCY = 8
"""Requests in flight: the service answers about 100 a second whatever their number."""
DOWNLOADS = 4
"""Bodies under way: each keeps a thread of the service busy until it is made."""
MAX_BODY_BYTES = 256 << 20
"""Longest body of a reply that is read into memory, in bytes: a list of 50,000 runs fits."""
GRACE = 60.0
"""Seconds that a half-final pair of experiment-state and exit-status must stand still to count as the end."""
SETTLE = 180.0
"""Seconds after which a start that left no trace counts as never made; longer than any proxy waits."""

LONGEST_HOST = 253
"""Characters of the longest name that DNS has."""
_LABEL = re.compile(r"[A-Za-z0-9_-]{1,63}")
_IPV4 = re.compile(r"[0-9.]+")

URL, API_KEY, AUTH_TOKEN, CA_FILE = "ST4SD_URL", "ST4SD_API_KEY", "ST4SD_AUTH_TOKEN", "ST4SD_CA_FILE"
"""Environment variables that `Client.from_env` reads."""
KEY_LOG = "SSLKEYLOGFILE"
"""Environment variable that names where `ssl` writes the keys of connections."""


@document_fields
@dataclass(frozen=True, kw_only=True)
class Config:
    """
    Settings of a client; all have defaults that suit a deployment.

    Config(verify="ca.pem")               trust this certificate authority
    Config(timeout=5)                     give up on a request after 5 s of silence
    Config(concurrency=2, poll_interval=30)   go easy on a busy service
    """

    concurrency: int = CONCURRENCY
    """Requests in flight at once, at least 1. The starts of a batch begin with so many, and find their own pace."""
    downloads: int = DOWNLOADS
    """Files and archives on their way at once, beside the requests, at least 1."""
    timeout: float = DEFAULT_SILENCE
    """Longest silence of one request in seconds, not its whole time, which may be ten times as long; a file that is
    downloaded may take any time. While it is the default, pushes and downloads are given 60 s."""
    max_body_bytes: int = MAX_BODY_BYTES
    """Longest body of a reply that is read into memory, in bytes, at least 1: JSON, error messages, and what
    `Client.output` returns. A longer one is a `DecodeError`. Downloads to files have no such bound."""
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    """For how long a request is repeated where that is safe; by default it outlasts a service that restarts."""
    poll_interval: float | None = None
    """Seconds between two looks at a watched run; None: quick after a start or a change, 30 s when nothing moves."""
    grace: float = GRACE
    """Seconds that one final field of two must stand unchanged to count as the end of a run."""
    settle: float = SETTLE
    """Seconds for which a start must leave no trace to count as never made: see `Batch`. Twice that where the
    deployment has no datastore. Longer than any proxy waits, since a request that was queued may still be handled."""
    verify: bool | str | Path | ssl.SSLContext = True
    """Which certificates to trust: True, the usual ones, or those of ``SSL_CERT_FILE`` or ``SSL_CERT_DIR``; a file, the
    authority in it; an `ssl.SSLContext`, what that says; False, any, which lets others read your credentials."""
    trusted_hosts: tuple[str, ...] = ()
    """Hosts beside the deployment's own that may be sent the credentials: ``name``, ``name:port``, ``[::1]:port``."""
    validate: bool = True
    """Whether entering the client proves the login with one request."""
    progress: Progress | None = field(default=None, compare=False)
    """What is told how far downloads, waits and batches are, and for how long a service that is away has been waited
    for, as a `ProgressBars`; None: nothing."""
    clock: Clock = field(default_factory=SystemClock, repr=False, compare=False)
    """Where time comes from; tests bring their own."""

    def __post_init__(self) -> None:
        for name in ("concurrency", "downloads", "max_body_bytes"):
            number = getattr(self, name)
            if not isinstance(number, int) or number < 1:
                raise ConfigError(f"{name} must be a whole number of at least 1, not {number!r}")
        check_seconds("timeout", self.timeout, above=True)
        if self.poll_interval is not None:
            check_seconds("poll_interval", self.poll_interval, above=True)
        for name in ("grace", "settle"):
            check_seconds(name, getattr(self, name))
        if isinstance(self.trusted_hosts, str):
            raise ConfigError(f"trusted_hosts must be a sequence of hosts, not the text {self.trusted_hosts!r}")
        object.__setattr__(self, "trusted_hosts", tuple(self.trusted_hosts))


def build_home(url: str, credentials: Credentials) -> SplitResult:
    """
    The root of a deployment, without ``/rs`` and what follows it, and with a slash at its end.

    Raises:
        ConfigError: It is no http(s) address, holds credentials, or would send credentials in clear text.
    """
    home = split_address(str(url))
    if home is None:
        told = _without_user(url)
        meant = f": did you mean 'https://{told}'?" if isinstance(url, str) and told and "://" not in told else ""
        raise ConfigError(f"the url (or {URL}) must look like https://st4sd.example, not {told!r}{meant}")
    if "@" in home.netloc:
        raise ConfigError("the url must not hold a user or password: give api_key or auth_token instead")
    if home.scheme == "http" and credentials and not is_loopback(home.hostname or ""):
        raise ConfigError(f"the url {home.geturl()!r} would send your credentials in clear text: use https://")
    # Whoever copies an address from a browser has what follows the root too, as in /rs/experiments/.
    path, _, _ = f"{home.path.rstrip('/')}/".partition("/rs/")
    return home._replace(path=f"{path.rstrip('/')}/", query="", fragment="")


def split_address(url: str) -> SplitResult | None:
    """The parts of an http(s) address, None if it is none; it may hold a user and a password."""
    try:
        parts = urlsplit(url.strip())
        is_address = parts.scheme in ("http", "https") and parts.port != 0 and is_host(parts.hostname or "")
    except ValueError:
        return None
    return parts if is_address else None


def is_host(name: str) -> bool:
    """Whether a host can have this name: an IP address, or labels that DNS allows, in any script."""
    if not name.isascii() or name.lower().startswith("xn--"):
        import httpx  # which translates such names, in both directions

        try:
            url = httpx.URL(scheme="https", host=name)
            name, _ = url.raw_host.decode(), url.host
        except (httpx.InvalidURL, UnicodeError):
            return False
    try:
        if ":" in name or _IPV4.fullmatch(name):
            return bool(ipaddress.ip_address(name))
    except ValueError:
        return False
    labels = name.removesuffix(".").split(".")
    return len(name) <= LONGEST_HOST and all(_LABEL.fullmatch(label) for label in labels)


def _without_user(url: str) -> str:
    return str(url).rsplit("@", 1)[-1]


def build_tls(verify: bool | str | Path | ssl.SSLContext) -> ssl.SSLContext:
    """
    The TLS context for ``Config.verify``; reads files, so call it in a worker thread.

    Raises:
        ConfigError: The file is missing or holds no certificate; the message names the setting.
    """
    if isinstance(verify, ssl.SSLContext):
        return verify
    if verify is False:
        log.warning("TLS is not verified (Config.verify is False): anybody on the way can read your credentials")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return context
    named = f"the CA file {str(verify)!r} (Config.verify or {CA_FILE})"
    setting = _usual_authorities() if verify is True else named
    try:
        if verify is not True:
            return ssl.create_default_context(cafile=str(verify))
        import httpx

        return httpx.create_ssl_context()
    except (OSError, ValueError) as error:
        reason = str(error)
        if getattr(error, "filename", None) == os.environ.get(KEY_LOG, ""):
            setting = f"the file of the environment variable {KEY_LOG}"
    raise ConfigError(f"{setting} cannot be used: {reason}")


def _usual_authorities() -> str:
    """
    What names the authorities that are trusted by default.

    Raises:
        ConfigError: It names no folder, which OpenSSL would pass over in silence.
    """
    if file := os.environ.get("SSL_CERT_FILE"):
        return f"the CA file {file!r} (environment variable SSL_CERT_FILE)"
    folders = os.environ.get("SSL_CERT_DIR", "")
    if folders and not any(Path(folder).is_dir() for folder in folders.split(os.pathsep)):
        raise ConfigError(f"there is no folder {folders!r} (environment variable SSL_CERT_DIR)")
    return f"the CA folder {folders!r} (environment variable SSL_CERT_DIR)" if folders else "the CA file of certifi"


def from_environment(
    config: Config | None, environ: Mapping[str, str] | None = None
) -> tuple[str, str | None, str | None, Config]:
    """
    Address, API key, auth-token and settings from the environment.

    Raises:
        ConfigError: `ST4SD_URL` is not set.
    """
    env = os.environ if environ is None else environ
    url = env.get(URL)
    if not url:
        raise ConfigError(f"the environment variable {URL} is not set: it holds the address of the deployment")
    return url, env.get(API_KEY) or None, env.get(AUTH_TOKEN) or None, with_ca_file(config or Config(), env)


def with_ca_file(config: Config, env: Mapping[str, str]) -> Config:
    """The settings with the authority that the environment names, unless they have one of their own."""
    return replace(config, verify=env[CA_FILE]) if config.verify is True and env.get(CA_FILE) else config
