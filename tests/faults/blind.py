"""A disk that is blind to case and Unicode form, as those of Windows and macOS are."""

from __future__ import annotations

import os
from typing import Any
from unicodedata import normalize

import pytest


def fold(name: str) -> str:
    """The name that such a disk looks for."""
    return normalize("NFD", name).casefold()


@pytest.fixture
def blind(monkeypatch: pytest.MonkeyPatch) -> None:
    """All that is done from an open folder is done on such a disk; only the system's functions are replaced."""

    def on_disk(verb: str) -> None:
        real = getattr(os, verb)

        def act(*arguments: Any, **more: Any) -> Any:
            if any(more.get(one) is not None for one in ("dir_fd", "src_dir_fd")):
                arguments = tuple(fold(one) if isinstance(one, str) else one for one in arguments)
            return real(*arguments, **more)

        monkeypatch.setattr(os, verb, act)

    for verb in ("open", "lstat", "mkdir", "replace", "unlink"):
        on_disk(verb)
