"""What runs leave behind: downloads, archives, tables, properties and buckets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._util.lazy import lazy_attributes

_MODULES = ("downloads", "failure", "outputs", "parts", "properties", "staging", "tables")

if TYPE_CHECKING:
    from . import downloads, failure, outputs, parts, properties, staging, tables  # noqa: F401 -- attributes of this package
else:
    __getattr__, __dir__ = lazy_attributes(__name__, {}, _MODULES)


def load() -> None:
    """
    Import what this package offers as attributes; it reads files, so call it in a worker thread.

    It takes a fifth of the time to import `st4sd_async.Client`, and only an open client needs it.
    """
    from importlib import import_module

    for name in _MODULES:
        import_module(f"{__name__}.{name}")
