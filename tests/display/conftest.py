"""Fixtures of displays."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from IPython.core.interactiveshell import InteractiveShell


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, Any]]]:
    """IPython as in a kernel; returns the messages it sends to its front end."""
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    sent: list[dict[str, Any]] = []
    running = InteractiveShell.instance()
    monkeypatch.setattr(running, "kernel", object(), raising=False)
    monkeypatch.setattr(running.display_pub, "publish", lambda **message: sent.append(message))
    yield sent
    InteractiveShell.clear_instance()
