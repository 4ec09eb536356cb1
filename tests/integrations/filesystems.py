"""Filesystems of fsspec in tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import fsspec

from st4sd_async.integrations import fsspec as integration


@contextmanager
def filesystems() -> Iterator[None]:
    """Make `st4sd://` known, as the entry point of an installed package does, and close all filesystems at the end."""
    fsspec.register_implementation("st4sd", integration.St4sdFileSystem, clobber=True)
    yield
    integration.St4sdFileSystem.clear_instance_cache()
    for connection in list(integration._connections.values()):
        connection.portal.close()
