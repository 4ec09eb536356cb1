"""Credentials: their sources, the URLs that may receive them, and their redaction in logs."""

from __future__ import annotations

import inspect
import ipaddress
import logging
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit
from weakref import WeakSet

import anyio

from .._config import URL_VARIABLE
from .._errors import ConfigError
from .._util.printable import LOGGER, shorten
from .._util.redact import REDACTED, quotes_secret, raise_unchained, redact
from .._util.threads import in_thread

Secret = str | Path | Callable[[], str] | Callable[[], Awaitable[str]]
"""A credential, a file that contains it, or a provider: a function that returns it."""

COOKIE = "oauth-proxy"
"""Name of the cookie that carries an auth-token."""

SOURCE_TIMEOUT_SECONDS = 120.0
"""How long a file or provider may take; a keyring may ask the user to unlock it."""

MAX_PROVIDER_ERROR_LENGTH = 250
"""Characters of a provider's exception that a message quotes."""

MAX_HOST_LENGTH = 253
"""The longest DNS name."""
_LABEL = re.compile(r"[A-Za-z0-9_-]{1,63}")
_IPV4 = re.compile(r"[0-9.]+")


class Credential:
    """
    One credential and its source: a value, a file (read for each request), or a provider.

    A provider is called once, and again only after the service refused the credential that it returned.
    """

    def __init__(
        self, name: str, source: Secret, timeout: float = SOURCE_TIMEOUT_SECONDS, known: list[str] | None = None
    ) -> None:
        self.name = name
        self._source = source
        self._timeout = timeout
        self._value: str | None = None
        self.known: list[str] = [] if known is None else known
        """All values so far, for redaction; shared with the other credential of a client."""
        self.has_worked = False
        """Whether the source ever returned a credential."""
        self._lock = anyio.Lock()
        _in_use.add(self)
        if not (isinstance(source, str | Path) or callable(source)):
            raise ConfigError(f"{name} must be a string, a pathlib.Path or a callable, not {type(source).__name__}")
        self.literal = self._validate(source) if isinstance(source, str) else None
        """The credential if it was given as a string, which never changes; None for another source."""

    async def value(self) -> str:
        """
        Return the credential.

        Raises:
            ConfigError: Its file or provider failed. The cause is the provider's exception, unless that quotes a
                credential.
        """
        if self.literal is not None:
            return self.literal
        with anyio.move_on_after(self._timeout):
            if isinstance(self._source, Path):
                return self._validate(await in_thread(self._read, self._source, abandon=True))
            async with self._lock:
                if self._value is None:
                    self._value = self._validate(await self._call_provider())
                return self._value
        raise ConfigError(f"{self._origin} gave no credential within {self._timeout:g} s")

    async def renew(self, refused: str) -> str | None:
        """Return a credential other than the refused one; None if the source has no other."""
        async with self._lock:
            if self._value == refused:
                self._value = None
        fresh = await self.value()
        return fresh if fresh != refused else None

    def portable_source(self) -> Secret:
        """
        Return the source, for another process.

        Raises:
            TypeError: It is, or may contain, the credential itself.
        """
        from .contexts import Login

        if isinstance(self._source, Path):
            return self._source.absolute()
        if isinstance(self._source, Login):
            return self._source
        kind = "string" if self.literal else "function"
        raise TypeError(
            f"a client whose {self.name} is a {kind} cannot be pickled, because credentials stay in their process: "
            f"give {self.name} as a pathlib.Path, or use Client.from_env() or Client.from_context()"
        )

    def _read(self, path: Path) -> str:
        try:
            return path.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:  # the latter holds the content
            reason = getattr(error, "strerror", None) or "not a text file"
            raise_unchained(ConfigError(f"{self._origin} cannot be read: {reason}"))

    async def _call_provider(self) -> Any:
        provider: Any = self._source
        try:
            # A plain function may block (a keyring, a vault), so it is called in a thread.
            if inspect.iscoroutinefunction(provider):
                return await provider()
            credential = await in_thread(provider, abandon=True)
            return await credential if inspect.isawaitable(credential) else credential
        except Exception as error:  # a provider may raise anything
            reason = shorten(redact(f"{type(error).__name__}: {error}", self.known), MAX_PROVIDER_ERROR_LENGTH)
            cause = None if quotes_secret(error, self.known) else error
            raise_unchained(ConfigError(f"{self._origin} failed with {reason}"), cause)

    @property
    def _origin(self) -> str:
        """The source of the credential, for messages."""
        if isinstance(self._source, Path):
            return f"the {self.name} file {str(self._source)!r}"
        return f"the provider of {self.name}"

    def _validate(self, value: Any) -> str:
        # Tokens are copied from a page that shows them in quotes.
        text = value.strip().strip("\"'") if isinstance(value, str) else ""
        if not text or not text.isascii() or not text.isprintable() or ";" in text or " " in text:
            source = self._origin if isinstance(self._source, Path) else self.name
            raise ConfigError(f"{source} is empty or contains invalid characters")
        if text not in self.known:
            self.known.append(text)
        self.has_worked = True
        return text

    def __repr__(self) -> str:
        return f"Credential({self.name!r}, {REDACTED})"


_in_use: WeakSet[Credential | Credentials] = WeakSet()
"""All credentials of this process."""


class SecretsFilter(logging.Filter):
    """Redact credentials from the arguments of a log record: a service may quote what it was sent in any text."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Return True: every record is logged."""
        secrets = {value for credential in list(_in_use) for value in credential.known}
        if secrets and isinstance(record.args, tuple):
            record.args = tuple(redact(one, secrets) if isinstance(one, str) else one for one in record.args)
        return True


# Added after the filter that makes all arguments but numbers printable texts.
logging.getLogger(LOGGER).addFilter(SecretsFilter())


class Credentials:
    """
    What only the deployment and trusted hosts receive: a credential and the headers of ``Config.headers``.

    The credential is the API key if given, else the auth-token, else none.
    """

    def __init__(
        self, api_key: Secret | None, auth_token: Secret | None, headers: Mapping[str, str] | None = None
    ) -> None:
        self.headers = [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
        """The headers."""
        self.known: list[str] = [value for value in (headers or {}).values() if value]
        """All values so far of both credentials and of the headers, for redaction."""
        _in_use.add(self)
        self._key = Credential("api_key", api_key, known=self.known) if api_key is not None else None
        self._token = Credential("auth_token", auth_token, known=self.known) if auth_token is not None else None
        self._chosen = self._key or self._token
        self.literal: str | None = None if self._chosen is None else self._chosen.literal
        """The credential if it was given as a string, which never changes; otherwise `value` returns it."""
        self.header: tuple[bytes, str] = (
            (b"Cookie", f"{COOKIE}=") if self._key is None else (b"Authorization", "Bearer ")
        )
        """Name of the header that carries the credential, and what is before the credential in it."""

    def __bool__(self) -> bool:
        return bool(self._chosen or self.headers)

    async def value(self) -> str | None:
        """Return the credential, None if there is none."""
        return await self._chosen.value() if self._chosen else None

    async def renew(self, refused: str) -> str | None:
        """Return a credential other than the refused one; None if the source has no other."""
        return await self._chosen.renew(refused) if self._chosen else None

    def portable_sources(self) -> tuple[Secret | None, Secret | None]:
        """
        Return the sources of the API key and the auth-token, for another process.

        Raises:
            TypeError: One of them is, or may contain, the credential itself.
        """
        key, token = (None if one is None else one.portable_source() for one in (self._key, self._token))
        return key, token

    @property
    def has_worked(self) -> bool:
        """Whether the source ever returned a credential."""
        return bool(self._chosen and self._chosen.has_worked)

    def __repr__(self) -> str:
        return f"Credentials({self._chosen!r})"


def parse_deployment_url(url: str, credentials: Credentials) -> SplitResult:
    """
    Return the root of a deployment, with a slash at its end; ``/rs`` and what follows it is removed.

    Raises:
        ConfigError: It is not an http(s) URL, contains credentials, or would send credentials unencrypted.
    """
    root = parse_http_url(str(url))
    if root is None:
        shown = str(url).rsplit("@", 1)[-1]
        is_bare_host = isinstance(url, str) and shown and "://" not in shown
        scheme = "http" if is_bare_host and is_loopback(_host_of(shown)) else "https"
        suggestion = f": did you mean '{scheme}://{shown}'?" if is_bare_host else ""
        raise ConfigError(
            f"the url (or {URL_VARIABLE}) must look like https://st4sd.example, not {shown!r}{suggestion}"
        )
    if "@" in root.netloc:
        raise ConfigError("the url must not contain a user or password: give api_key or auth_token instead")
    if root.scheme == "http" and credentials and not is_loopback(root.hostname or ""):
        raise ConfigError(f"the url {root.geturl()!r} would send your credentials in clear text: use https://")
    # A URL that is copied from a browser has more behind the root, as in /rs/experiments/.
    path, _, _ = f"{root.path.rstrip('/')}/".partition("/rs/")
    return root._replace(netloc=_netloc(root), path=f"{path.rstrip('/')}/", query="", fragment="")


def _netloc(url: SplitResult) -> str:
    """Return host and port in one form, because shared clients and starts with a key compare deployments."""
    scheme, host, port = origin(url)
    host = f"[{host}]" if ":" in host else host
    return host if port == (443 if scheme == "https" else 80) else f"{host}:{port}"


def _host_of(address: str) -> str:
    """Return the host in an address without a scheme; "" if it is not valid."""
    try:
        return urlsplit(f"//{address}").hostname or ""
    except ValueError:
        return ""


def parse_http_url(url: str) -> SplitResult | None:
    """Return the parts of an http(s) URL, None if it is not valid; it may contain a user and a password."""
    try:
        parts = urlsplit(url.strip())
        is_valid = parts.scheme in ("http", "https") and parts.port != 0 and is_host(parts.hostname or "")
    except ValueError:
        return None
    return parts if is_valid else None


def is_host(name: str) -> bool:
    """Return whether a text is a possible host: an IP address, or a DNS name, international ones included."""
    if not name.isascii() or name.lower().startswith("xn--"):
        import idna

        try:
            name = idna.encode(name.lower()).decode() if not name.isascii() else (idna.decode(name), name)[1]
        except UnicodeError:
            return False
    try:
        if ":" in name or _IPV4.fullmatch(name):
            return bool(ipaddress.ip_address(name))
    except ValueError:
        return False
    labels = name.removesuffix(".").split(".")
    return len(name) <= MAX_HOST_LENGTH and all(_LABEL.fullmatch(label) for label in labels)


def is_loopback(host: str) -> bool:
    """Return whether a host is this machine, so that unencrypted data does not leave it."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def may_carry_credentials(url: SplitResult, home: SplitResult, trusted_hosts: Iterable[str]) -> bool:
    """
    Return whether a URL may receive credentials: if it is the deployment's own or trusted, and encrypted.

    Args:
        url: The URL of a request.
        home: The root of the deployment.
        trusted_hosts: Other trusted hosts: ``name``, ``name:port``, ``[::1]`` or ``[::1]:port``.
    """
    if url.scheme != "https" and not is_loopback(url.hostname or ""):
        return False
    if origin(url) == origin(home):
        return True
    return any(_is_trusted(trusted, url) for trusted in trusted_hosts)


def _is_trusted(trusted: str, url: SplitResult) -> bool:
    """Return whether a trusted host is that of a URL; without a port it covers any port."""
    text = trusted if trusted.startswith("[") or trusted.count(":") < 2 else f"[{trusted}]"
    try:
        parsed = urlsplit(f"//{text}")
        port = parsed.port
    except ValueError:
        return False
    is_same_host = parsed.netloc == text and _same_host(parsed.hostname or "", url.hostname or "")
    return is_same_host and port in (None, origin(url)[2])


def _same_host(one: str, other: str) -> bool:
    try:
        return ipaddress.ip_address(one) == ipaddress.ip_address(other)
    except ValueError:
        return one == other != ""


def origin(url: SplitResult) -> tuple[str, str, int]:
    """Return the origin of a URL: scheme, host and port."""
    return url.scheme, url.hostname or "", url.port or (443 if url.scheme == "https" else 80)
