"""The credentials of a user: where they come from, where they may go, and how they stay out of sight."""

from __future__ import annotations

import inspect
import ipaddress
import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit
from weakref import WeakSet

import anyio

from .._errors import ConfigError
from .._util.printable import LOGGER, shorten
from .._util.redact import MASK, is_quoted, masked, unseen

Secret = str | Path | Callable[[], str] | Callable[[], Awaitable[str]]
"""A credential, a file that holds it, or something that provides it."""

COOKIE = "oauth-proxy"
"""Name of the cookie that carries an auth-token."""

SOURCE_TIMEOUT = 120.0
"""Seconds for a file or provider to give a credential; a keyring may ask the user to unlock it."""

LONGEST_REASON = 250
"""Characters of what a provider raises that a message quotes."""


class Credential:
    """
    One credential and how to get it: a value, a file (read at each use), or a provider.

    A provider is asked once, and again only after the service has refused what it gave.
    """

    def __init__(self, name: str, source: Secret, timeout: float = SOURCE_TIMEOUT) -> None:
        self.name = name
        self._source = source
        self._timeout = timeout
        self._value: str | None = None
        self.known: list[str] = []
        """All values given out so far, for masking."""
        self._lock = anyio.Lock()
        _in_use.add(self)
        if not (isinstance(source, str | Path) or callable(source)):
            raise ConfigError(f"{name} must be a string, a pathlib.Path or a callable, not {type(source).__name__}")
        self._fixed = self._checked(source) if isinstance(source, str) else None

    async def value(self) -> str:
        """
        The credential.

        Raises:
            ConfigError: Its file or provider gives none. The cause is what the provider raised, unless that quotes
                a credential.
        """
        if self._fixed is not None:
            return self._fixed
        with anyio.move_on_after(self._timeout):
            if isinstance(self._source, Path):
                return self._checked(await unseen(partial(self._read, self._source), abandon=True))
            async with self._lock:
                if self._value is None:
                    self._value = self._checked(await self._ask())
                return self._value
        raise ConfigError(f"{self._origin} gave no credential within {self._timeout:g} s")

    async def renewed(self, refused: str) -> str | None:
        """A credential other than the refused one; None if there is none to be had."""
        async with self._lock:
            if self._value == refused:
                self._value = None
        fresh = await self.value()
        return fresh if fresh != refused else None

    def _read(self, path: Path) -> str:
        try:
            return path.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "not a text file"
        raise ConfigError(f"{self._origin} cannot be read: {reason}")

    async def _ask(self) -> Any:
        provider: Any = self._source
        try:
            # A plain function may block (a keyring, a vault), so it is called off the event loop.
            if inspect.iscoroutinefunction(provider):
                return await provider()
            answer = await unseen(provider, abandon=True)
            return await answer if inspect.isawaitable(answer) else answer
        except Exception as error:  # a provider may raise anything
            failure = error
        told = shorten(masked(f"{type(failure).__name__}: {failure}", self.known), LONGEST_REASON)
        cause = None if any(is_quoted(text, self.known) for text in _texts(failure)) else failure
        raise ConfigError(f"{self._origin} failed with {told}") from cause

    @property
    def _origin(self) -> str:
        """What gives the credential, for messages."""
        if isinstance(self._source, Path):
            return f"the {self.name} file {str(self._source)!r}"
        return f"the provider of {self.name}"

    def _checked(self, value: Any) -> str:
        # Tokens are pasted from a page that shows them in quotes.
        text = value.strip().strip("\"'") if isinstance(value, str) else ""
        if not text or not text.isascii() or not text.isprintable() or ";" in text or " " in text:
            source = self._origin if isinstance(self._source, Path) else self.name
            raise ConfigError(f"{source} is empty or holds characters that no credential has")
        if text not in self.known:
            self.known.append(text)
        return text

    def __repr__(self) -> str:
        return f"Credential({self.name!r}, {MASK})"


_in_use: WeakSet[Credential] = WeakSet()
"""All credentials of this process."""


class SecretsFilter(logging.Filter):
    """Mask credentials in the arguments of a log record: a service may quote what it was sent in any text."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Return True: every record is logged."""
        secrets = [value for one in list(_in_use) for value in one.known]
        if secrets and isinstance(record.args, tuple):
            record.args = tuple(masked(one, secrets) if isinstance(one, str) else one for one in record.args)
        return True


# After the filter that makes the arguments printable, and texts of all that are no numbers.
logging.getLogger(LOGGER).addFilter(SecretsFilter())


def _texts(error: BaseException | None) -> Iterator[str]:
    """What an exception and those that led to it say."""
    while error is not None:
        yield f"{error!r} {error} {getattr(error, '__notes__', '')}"
        error = error.__cause__ or error.__context__


class Credentials:
    """What a client proves itself with: the API key if there is one, else the auth-token, else nothing."""

    def __init__(self, api_key: Secret | None, auth_token: Secret | None) -> None:
        self._key = Credential("api_key", api_key) if api_key is not None else None
        self._token = Credential("auth_token", auth_token) if auth_token is not None else None

    @property
    def _chosen(self) -> Credential | None:
        return self._key or self._token

    def __bool__(self) -> bool:
        return self._chosen is not None

    async def value(self) -> str | None:
        """The credential in use, None if there is none."""
        return await self._chosen.value() if self._chosen else None

    async def renewed(self, refused: str) -> str | None:
        """A credential other than the refused one; None if there is none to be had."""
        return await self._chosen.renewed(refused) if self._chosen else None

    @property
    def is_proven(self) -> bool:
        """Whether the one in use was ever given."""
        return bool(self._chosen and self._chosen.known)

    def headers(self, value: str | None) -> list[tuple[bytes, bytes]]:
        """The header that carries a credential: a bearer for a key, a cookie for a token."""
        if value is None:
            return []
        header = (b"Authorization", f"Bearer {value}") if self._key else (b"Cookie", f"{COOKIE}={value}")
        return [(header[0], header[1].encode())]

    def secrets(self) -> tuple[str, ...]:
        """The values given out so far, for masking."""
        return tuple(value for one in (self._key, self._token) if one for value in one.known)

    def __repr__(self) -> str:
        return f"Credentials({self._chosen!r})"


def is_loopback(host: str) -> bool:
    """Whether a host is this machine, so that what is sent there in clear text stays here."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def may_carry_credentials(url: SplitResult, home: SplitResult, trusted_hosts: Iterable[str]) -> bool:
    """
    Whether credentials may be sent to ``url``: only to the deployment itself, and never in clear text.

    Args:
        url: Where a request goes.
        home: The address the user gave for the deployment.
        trusted_hosts: Hosts that the user vouches for: ``name``, ``name:port``, ``[::1]`` or ``[::1]:port``.
    """
    host = url.hostname or ""
    if url.scheme != "https" and not is_loopback(host):
        return False
    if origin(url) == origin(home):
        return True
    return any(_is_meant(trusted, url) for trusted in trusted_hosts)


def _is_meant(trusted: str, url: SplitResult) -> bool:
    """Return whether a host that the user vouches for is that of an address; without a port, any port is meant."""
    text = trusted if trusted.startswith("[") or trusted.count(":") < 2 else f"[{trusted}]"
    try:
        meant = urlsplit(f"//{text}")
        port = meant.port
    except ValueError:
        return False
    is_host = meant.netloc == text and _same_host(meant.hostname or "", url.hostname or "")
    return is_host and port in (None, origin(url)[2])


def _same_host(one: str, other: str) -> bool:
    try:
        return ipaddress.ip_address(one) == ipaddress.ip_address(other)
    except ValueError:
        return one == other != ""


def origin(url: SplitResult) -> tuple[str, str, int]:
    """Scheme, host and port: what tells one server from another."""
    return url.scheme, url.hostname or "", url.port or (443 if url.scheme == "https" else 80)
