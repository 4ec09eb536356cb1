"""Keyrings made by the tests, in place of the machine's own, and the files of ``stp`` that go with them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import keyring.core
import pytest
from keyring.backend import KeyringBackend
from keyring.compat import properties

URL = "https://st4sd.example/"
ENTRIES: dict[str, Any] = {
    "st4sd": {"name": "st4sd", "url": URL},
    "other": {"name": "other", "url": "https://other.example/"},
}


class MemoryKeyring(KeyringBackend):
    """Passwords in a dictionary, or an error in their place."""

    @properties.classproperty
    def priority(self) -> float:
        """Never chosen unless it is put there."""
        raise RuntimeError("for tests only")

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # of the package keyring
        self.passwords: dict[tuple[str, str], str] = {}
        self.error: Exception | None = None
        self.asked: list[tuple[str, str]] = []

    def get_password(self, service: str, username: str) -> str | None:
        """The password, None if there is none."""
        self.asked.append((service, username))
        if self.error is not None:
            raise self.error
        return self.passwords.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        """Keep a password."""
        self.passwords[service, username] = password


def in_use(monkeypatch: pytest.MonkeyPatch) -> MemoryKeyring:
    """A keyring that the package `keyring` uses until the test is over."""
    made = MemoryKeyring()
    monkeypatch.setattr(keyring.core, "_keyring_backend", made)
    return made


def write(folder: Path, *, active: str | None = "st4sd", entries: dict[str, Any] | None = None) -> dict[str, str]:
    """The files that ``stp`` would write below a folder; the result is the environment that leads there."""
    home = folder / "stp"
    home.mkdir(exist_ok=True)
    (home / "stp_settings.json").write_text(json.dumps({"default_context": active, "verbose": False}))
    contexts = {"entries": ENTRIES if entries is None else entries}
    (home / "stp_contexts.json").write_text(json.dumps(contexts))
    names = ("XDG_CONFIG_HOME", "APPDATA")
    return dict.fromkeys(names, str(folder))
