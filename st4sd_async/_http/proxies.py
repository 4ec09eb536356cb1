"""The proxies that the environment names, checked before anything is sent through them."""

from __future__ import annotations

import functools
import os
import urllib.request
from typing import Any
from urllib.parse import unquote, urlsplit

from .._config import is_host
from .._errors import ConfigError
from .credentials import is_loopback


class Proxies:
    """Which proxy a request goes through, as the environment says at the time of making."""

    def __init__(self) -> None:
        self._found: dict[str, str] = urllib.request.getproxies()

    def find(self, scheme: str, host: str) -> str | None:
        """
        Return the proxy for a host, None if there is none; requests to this machine itself never go through one.

        Raises:
            ConfigError: The environment names a proxy that cannot be used.
        """
        if not self._found or is_loopback(host) or urllib.request.proxy_bypass(host):
            return None
        kind = scheme if self._found.get(scheme) else "all"
        return _checked(kind, self._found[kind]) if self._found.get(kind) else None


@functools.cache
def _checked(kind: str, address: str) -> str:
    """Return the URL of a proxy; no message quotes it, because it may hold a password."""
    url = address if "://" in address else f"http://{address}"
    if problem := _problem(url):
        name = next((name for name in os.environ if name.lower() == f"{kind}_proxy"), f"{kind}_proxy")
        raise ConfigError(f"the proxy in the environment variable {name} cannot be used: {problem}")
    return url


def _problem(url: str) -> str:
    """Return what is wrong with the URL of a proxy, "" if it can be used."""
    try:
        parts: Any = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        return "it is no url; special characters in a password are written as %xx"
    if parts.scheme not in ("http", "https"):
        return f"{parts.scheme}:// is not supported, only http:// and https:// are"
    if not is_host(host):
        return "it names no possible host"
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    try:
        f"{user}{password}".encode("latin-1")  # as HTTP sends them
    except UnicodeEncodeError:
        return "its user and password may only hold characters of Latin-1"
    return "its user may hold no colon" if ":" in user else ""
