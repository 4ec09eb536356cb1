"""
The TLS context for ``Config.verify``: which certificates to trust.

The default authorities take about 20 ms to load, so contexts of the same certificates are shared by all clients of this
process. What a file holds identifies them: its times and size may be the same after it was replaced.
"""

from __future__ import annotations

import hashlib
import logging
import os
import ssl
from pathlib import Path

import certifi

from .._config import CA_FILE_VARIABLE
from .._errors import ConfigError
from .._util.redact import raise_unchained
from .._util.threads import in_thread

log = logging.getLogger("st4sd_async")

FILE_VARIABLE, FOLDER_VARIABLE = "SSL_CERT_FILE", "SSL_CERT_DIR"
"""Environment variables that name the default authorities in place of those of certifi, the first taking precedence."""

KEY_LOG_VARIABLE = "SSLKEYLOGFILE"
"""Environment variable that names the file in which `ssl` logs the keys of connections."""

MAX_CONTEXTS = 4
"""How many contexts are kept for other clients: those used last. The default authorities take about 1 MB."""

_contexts: dict[bytes, ssl.SSLContext] = {}
"""Digest of a CA file -> its context, which no one changes; the one used last comes last."""


class TlsContext:
    """
    The TLS context of one client, built when it is first needed.

    Args:
        verify: The setting ``Config.verify``.
    """

    def __init__(self, verify: bool | str | Path | ssl.SSLContext) -> None:
        self._verify = verify
        self._context: ssl.SSLContext | None = None

    def load(self) -> None:
        """
        Build it now, in a worker thread.

        Raises:
            ConfigError: See `build_tls_context`.
        """
        self._context = build_tls_context(self._verify)

    async def get(self) -> ssl.SSLContext:
        """
        Return the context.

        Raises:
            ConfigError: See `build_tls_context`.
        """
        if self._context is None:
            context = await in_thread(build_tls_context, self._verify)
            self._context = self._context or context  # one for all connections, so that they are reused
        return self._context


def build_tls_context(verify: bool | str | Path | ssl.SSLContext) -> ssl.SSLContext:
    """
    Return the TLS context for ``Config.verify``; reads files, so call it in a worker thread.

    Do not change it: other clients may use it.

    Raises:
        ConfigError: The file is missing or contains no certificate; the message names the setting.
    """
    if isinstance(verify, ssl.SSLContext):
        return verify
    if verify is False:
        log.warning("TLS is not verified (Config.verify is False): others can read your credentials")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return context
    file = os.environ.get(FILE_VARIABLE) if verify is True else str(verify)
    folders = os.environ.get(FOLDER_VARIABLE)
    if verify is not True:
        setting = f"the CA file {file!r} (Config.verify or {CA_FILE_VARIABLE})"
    elif file:
        setting = f"the CA file {file!r} (environment variable {FILE_VARIABLE})"
    elif folders:
        setting = f"the CA folder {folders!r} (environment variable {FOLDER_VARIABLE})"
        _check_folders(folders)
    else:
        file, setting = certifi.where(), "the CA file of certifi"
    try:
        # A folder is read when a server is verified. What was read is kept in the context, so that is not shared.
        return _load_file(file) if file else ssl.create_default_context(capath=folders)
    except (OSError, ValueError) as error:
        if getattr(error, "filename", None) == os.environ.get(KEY_LOG_VARIABLE, ""):
            setting = f"the file of the environment variable {KEY_LOG_VARIABLE}"
        raise_unchained(ConfigError(f"{setting} cannot be used: {error}"))


def _check_folders(folders: str) -> None:
    """Raise `ConfigError` if none of the folders exists, which OpenSSL would silently ignore."""
    if not any(Path(folder).is_dir() for folder in folders.split(os.pathsep)):
        raise ConfigError(f"there is no folder {folders!r} (environment variable {FOLDER_VARIABLE})")


def _load_file(file: str) -> ssl.SSLContext:
    """Return a context that trusts the authorities in a file, if possible one that other clients use."""
    digest = None if os.environ.get(KEY_LOG_VARIABLE) else _digest(file)
    if digest is None:
        return ssl.create_default_context(cafile=file)
    context = _contexts.pop(digest, None)
    if context is None:
        context = ssl.create_default_context(cafile=file)
        if digest != _digest(file):  # it was replaced meanwhile
            return context
    _contexts[digest] = context
    for oldest in list(_contexts)[:-MAX_CONTEXTS]:
        _contexts.pop(oldest, None)  # another thread may have done so
    return context


def _digest(file: str) -> bytes | None:
    """Return a digest of what a file holds; None if it is no regular file, and can perhaps be read only once."""
    path = Path(file)
    return hashlib.sha256(path.read_bytes()).digest() if path.is_file() else None
