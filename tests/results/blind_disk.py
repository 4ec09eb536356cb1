"""A disk that is blind to case and Unicode form, as those of Windows and macOS are."""

from __future__ import annotations

import os
from typing import Any
from unicodedata import normalize


class BlindDisk:
    """The module `os` on such a disk, as far as work from an open folder goes."""

    def __getattr__(self, verb: str) -> Any:
        real = getattr(os, verb)
        if verb not in ("open", "lstat", "mkdir", "replace", "unlink"):
            return real

        def act(*arguments: Any, **more: Any) -> Any:
            if more.get("dir_fd", more.get("src_dir_fd")) is not None:
                arguments = tuple(fold(one) if isinstance(one, str) else one for one in arguments)
            return real(*arguments, **more)

        return act


def fold(name: str) -> str:
    """The name that such a disk looks for."""
    return normalize("NFD", name).casefold()
