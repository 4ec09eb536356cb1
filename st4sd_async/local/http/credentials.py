"""
The credentials of the embedded ST4SD: an API key and a token, which can be renewed.
"""

from __future__ import annotations

import hmac
import secrets
import threading
from collections.abc import Callable, MutableMapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from st4sd_async.local.http.messages import Request

COOKIE = "oauth-proxy"
REGISTRY_PREFIX = "/registry-ui/"
"""Prefix of the paths that an open registry serves without credentials."""


class Credentials:
    """The credentials of one server. Safe to use from any thread."""

    def __init__(
        self,
        now: Callable[[], float],
        token_lifetime: float | None,
        *,
        is_registry_open: bool,
        api_key: str | None = None,
    ) -> None:
        self._now = now
        self._lifetime = token_lifetime
        self._is_registry_open = is_registry_open
        self._lock = threading.Lock()
        self._chosen_key = api_key
        self._saved: MutableMapping[str, str] = {}
        self.api_key: str
        self.auth_token: str
        self.renew()
        if api_key is not None:
            self.api_key = api_key

    def restore(self, saved: MutableMapping[str, str]) -> None:
        """Use the saved credentials of an earlier server, but a chosen API key; save all changes from now on."""
        with self._lock:
            self.api_key = self._chosen_key or saved.get("api_key", self.api_key)
            self.auth_token = saved.get("auth_token", self.auth_token)
            self._created = self._now()
            self._saved = saved
            self._save()

    def renew(self) -> None:
        """Create new credentials; the old ones are rejected from now on."""
        with self._lock:
            self.api_key = f"key-{secrets.token_urlsafe(24)}"
            self.auth_token = f"token-{secrets.token_urlsafe(24)}"
            self._created = self._now()
            self._save()

    def _save(self) -> None:
        self._saved.update(api_key=self.api_key, auth_token=self.auth_token)

    def permit(self, request: Request) -> bool:
        """
        Return whether a request is authenticated.

        A cookie is ignored if there is a bearer key, even if the key is wrong and the cookie is valid.
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
