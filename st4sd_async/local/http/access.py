"""
Who may talk to the embedded ST4SD: one API key and one token, both renewable.
"""

from __future__ import annotations

import hmac
import secrets
import threading
from collections.abc import Callable

from st4sd_async.local.http.messages import Request
from st4sd_async.local.runtime.pages import PREFIX

COOKIE = "oauth-proxy"


class Access:
    """The credentials of one server. Safe to use from any thread."""

    def __init__(self, now: Callable[[], float], token_lifetime: float | None, *, is_registry_open: bool) -> None:
        self._now = now
        self._lifetime = token_lifetime
        self._is_registry_open = is_registry_open
        self._lock = threading.Lock()
        self.renew()

    def renew(self) -> None:
        """Make new credentials; the old ones are refused from now on."""
        with self._lock:
            self.api_key = f"key-{secrets.token_urlsafe(24)}"
            self.auth_token = f"token-{secrets.token_urlsafe(24)}"
            self._made = self._now()

    def permits(self, request: Request) -> bool:
        """
        Whether a request is signed in.

        A bearer key decides alone, also when it is wrong and the cookie beside it is right.
        """
        if self._is_registry_open and request.path.startswith(PREFIX):
            return True
        scheme, _, bearer = request.headers.get("authorization", "").partition(" ")
        cookie = request.cookies.get(COOKIE, "")
        with self._lock:
            if scheme.lower() == "bearer":
                return _same(bearer.strip(), self.api_key)
            expired = self._lifetime is not None and self._now() - self._made >= self._lifetime
            return not expired and _same(cookie, self.auth_token)


def _same(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode(), expected.encode())
