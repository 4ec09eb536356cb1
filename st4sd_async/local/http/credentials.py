"""
The credentials of the embedded ST4SD: one API key and one token, both renewable.
"""

from __future__ import annotations

import hmac
import secrets
import threading
from collections.abc import Callable

from st4sd_async.local.http.messages import Request

COOKIE = "oauth-proxy"
REGISTRY_PREFIX = "/registry-ui/"
"""Start of the paths that an open registry serves without credentials."""


class Credentials:
    """The credentials of one server. Safe to use from any thread."""

    def __init__(self, now: Callable[[], float], token_lifetime: float | None, *, is_registry_open: bool) -> None:
        self._now = now
        self._lifetime = token_lifetime
        self._is_registry_open = is_registry_open
        self._lock = threading.Lock()
        self.renew()

    def renew(self) -> None:
        """Create new credentials; the old ones are rejected from now on."""
        with self._lock:
            self.api_key = f"key-{secrets.token_urlsafe(24)}"
            self.auth_token = f"token-{secrets.token_urlsafe(24)}"
            self._created = self._now()

    def permit(self, request: Request) -> bool:
        """
        Return whether a request is authenticated.

        If there is a bearer key, a cookie is ignored, even if the key is wrong and the cookie right.
        """
        if self._is_registry_open and request.path.startswith(REGISTRY_PREFIX):
            return True
        scheme, _, bearer = request.headers.get("authorization", "").partition(" ")
        cookie = request.cookies.get(COOKIE, "")
        with self._lock:
            if scheme.lower() == "bearer":
                return _same(bearer.strip(), self.api_key)
            expired = self._lifetime is not None and self._now() - self._created >= self._lifetime
            return not expired and _same(cookie, self.auth_token)


def _same(value: str, expected: str) -> bool:
    return hmac.compare_digest(value.encode(), expected.encode())
