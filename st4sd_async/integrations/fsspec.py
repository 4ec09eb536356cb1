"""
Results of runs as files of fsspec, with urls that begin with ``st4sd://``. Needs the extra ``fsspec``.

    pandas.read_csv("st4sd://demo-ab12cd-x7f3k2q9/Energies")
    pandas.read_csv("st4sd://demo-ab12cd-x7f3k2q9/components/0/Compute/energies.csv")

pandas, Polars, Dask, DuckDB and other libraries that use fsspec find the filesystem by the entry point
``fsspec.specs``.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import secrets
from collections.abc import Callable, Coroutine, Hashable, Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn, TypeVar
from weakref import WeakValueDictionary

from fsspec.spec import AbstractFileSystem

from .._client import Client, result_tree_of
from .._config import API_KEY_VARIABLE, AUTH_TOKEN_VARIABLE, CA_FILE_VARIABLE, URL_VARIABLE, Config, with_ca_file
from .._errors import ConfigError
from .._results.result_tree import NOT_A_PATH, Entry, ResultTree
from .._sync.portal import Portal

__all__ = ["ResultFile", "St4sdFileSystem"]

T = TypeVar("T")
FilePath = str | os.PathLike[str]

READ_ONLY = "the results of runs are read-only"
ENVIRONMENT = (URL_VARIABLE, API_KEY_VARIABLE, AUTH_TOKEN_VARIABLE, CA_FILE_VARIABLE)
"""Variables that a connection may depend on."""

_SALT = secrets.token_bytes(16)
"""Makes a token that depends on a literal credential useless in other processes."""


class Connection:
    """A client in an event loop of its own, for any number of threads. It opens with the first call."""

    def __init__(self, client: Client) -> None:
        self.url = client.url
        """Address of the deployment."""
        self.tree = result_tree_of(client)
        """The files."""
        self.portal = Portal(client)
        """Runs calls in the event loop of the client."""


_connections: WeakValueDictionary[Hashable, Connection] = WeakValueDictionary()
"""Process, login and environment -> connection, because fsspec creates a filesystem for each thread."""


@dataclass(frozen=True, kw_only=True, repr=False)
class LoginOptions:
    """A deployment, and the source of the credentials for it."""

    url: str | None
    """Address. None means that of the environment or of the context."""
    api_key: str | Path | None
    """API key, or its file."""
    auth_token: str | Path | None
    """Auth-token, or its file."""
    context: str | None
    """Name of a login of the command ``stp``."""
    ca_file: Path | None
    """Certificate of a private authority."""
    trusted_hosts: tuple[str, ...]
    """Other hosts that may receive the credentials."""

    @property
    def literals(self) -> list[str]:
        """The names of the credentials that are given as texts."""
        return [name for name in ("api_key", "auth_token") if isinstance(getattr(self, name), str)]

    def client(self) -> Client:
        """
        Return a client that is not open yet.

        Raises:
            ConfigError: A setting is invalid, or options contradict each other.
        """
        verify = True if self.ca_file is None else self.ca_file
        config = with_ca_file(Config(verify=verify, trusted_hosts=self.trusted_hosts), os.environ)
        has_credential = self.api_key is not None or self.auth_token is not None
        if self.context is not None:
            if has_credential or self.url is not None:
                raise ConfigError("a context has an address and a credential: pass no others with it")
            return Client.from_context(self.context, config=config)
        if self.url is None:
            if has_credential:
                raise ConfigError("deployment is missing: pass its address together with its credential")
            return Client.from_env(config=config)
        client = Client(self.url, api_key=self.api_key, auth_token=self.auth_token, config=config)
        if not has_credential and os.environ.get(URL_VARIABLE):
            environments = Client.from_env(config=config)
            # Credentials of another deployment are not sent to this one.
            return environments if environments.url == client.url else client
        return client

    def options(self, url: str) -> dict[str, Any]:
        """
        Return the options of an equal filesystem in another process. They are JSON.

        Args:
            url: Address of the deployment.

        Raises:
            TypeError: A credential is given as a text.
        """
        if self.literals:
            raise TypeError(
                f"a filesystem whose {self.literals[0]} is a string cannot be pickled or written as JSON, because "
                f"credentials stay in their process: pass {self.literals[0]}_file or context instead, or set "
                "ST4SD_URL and ST4SD_API_KEY in the environment of each process"
            )
        found = {
            "deployment": url if self.context is None else None,
            "api_key_file": self.api_key,
            "auth_token_file": self.auth_token,
            "context": self.context,
            "ca_file": self.ca_file,
            "trusted_hosts": list(self.trusted_hosts) or None,
        }
        paths = {name: str(value.absolute()) for name, value in found.items() if isinstance(value, Path)}
        return {name: value for name, value in (found | paths).items() if value is not None}


class ResultFile(io.BufferedReader):
    """
    A file of a run, open for reading.

    It is complete, in a temporary file without a name. So it can be sought, and does not change if the service has a
    later version.
    """

    def __init__(self, file: io.FileIO, path: str) -> None:
        super().__init__(file)
        self.path = path
        """Path in the filesystem."""
        self.size = file.seek(0, os.SEEK_END)
        """Size in bytes."""
        self.seek(0)

    def read_range(self, start: int | None, end: int | None) -> bytes:
        """Return the bytes between two offsets, as a slice does: None means the end, negative counts from the end."""
        first, last, _ = slice(start, end).indices(self.size)
        self.seek(first)
        return self.read(max(0, last - first))


class St4sdFileSystem(AbstractFileSystem):  # type: ignore[misc] # fsspec has no types
    """
    Results of the runs of one deployment, as files that can be read.

        fs = fsspec.filesystem("st4sd", deployment="https://st4sd.example", api_key_file="st4sd.key")
        fs.ls("demo-ab12cd-x7f3k2q9")
        fs.cat("demo-ab12cd-x7f3k2q9/Energies")

    The root has the runs. A run has its key-outputs, and the folder ``components`` with the files of the components
    that are over, by stage and name. A key-output that is called ``components`` has no path. Names are written as they
    are: nothing is decoded, and ``.`` and ``..`` are not resolved.

    The services serve no parts of files. So a file is fetched in whole when it is opened, into ``TMPDIR``. It takes
    little memory however large it is, and can be sought. To know the type and the size of a key-output, `ls` and
    `info` request it, and do not receive it. A folder is listed from its archive. The size of a component's file is
    None in them, and `size` fetches the file.

    Threads may share a filesystem. After a fork, or unpickled in another process, it connects again. A credential that
    is given as a text is in no pickle, JSON, repr or token: the filesystem can then be neither pickled nor written as
    JSON. Pass no such credential in a chained url, such as ``filecache::st4sd://``: the outer filesystem keeps it.

    Args:
        deployment: Address of the deployment. None means ``ST4SD_URL``. It is not called ``url``, because functions of
            fsspec have a parameter of that name.
        api_key: API key: a text, or a `pathlib.Path` of its file.
        auth_token: Token from ``<url>/authorisation/token``, in the same forms.
        api_key_file: Path of a file with the API key, as text.
        auth_token_file: Path of a file with the token, as text.
        context: Name of a login of the command ``stp``, instead of ``deployment`` and a credential.
        ca_file: Path of the certificate of a private authority. None means ``ST4SD_CA_FILE``.
        trusted_hosts: Other hosts that may receive the credentials, as in `Config`.

    Without a credential, that of the environment is used if ``ST4SD_URL`` is the address of the deployment.

    A path that does not exist is a `FileNotFoundError`, whose cause is the error of this library. A write is an
    `OSError`. Other errors are `St4sdError`: for example `Unauthorized`, or `NotReady` if the datastore does not know
    the components of a run yet.

    Raises:
        ConfigError: A setting is invalid, or options contradict each other.
    """

    protocol = "st4sd"

    def __init__(
        self,
        *,
        deployment: str | None = None,
        api_key: str | Path | None = None,
        auth_token: str | Path | None = None,
        api_key_file: FilePath | None = None,
        auth_token_file: FilePath | None = None,
        context: str | None = None,
        ca_file: FilePath | None = None,
        trusted_hosts: Iterable[str] = (),
    ) -> None:
        super().__init__()
        self._login = LoginOptions(
            url=deployment,
            api_key=_one_of("api_key", api_key, api_key_file),
            auth_token=_one_of("auth_token", auth_token, auth_token_file),
            context=context,
            ca_file=None if ca_file is None else Path(ca_file),
            trusted_hosts=tuple(trusted_hosts),
        )
        self._connect()

    def _connect(self) -> None:
        self._process = os.getpid()
        key = self._process, self._login, *map(os.environ.get, ENVIRONMENT)
        known = _connections.get(key)
        self._connection = known or _connections.setdefault(key, Connection(self._login.client()))

    def _call(self, path: str, method: Callable[[ResultTree], Coroutine[Any, Any, T]]) -> T:
        """Call a method of the tree, and return its result; translate the error for a path that does not exist."""
        if self._process != os.getpid():
            self._connect()
        try:
            return self._connection.portal.call(method(self._connection.tree))
        except NOT_A_PATH as error:
            raise FileNotFoundError(errno.ENOENT, str(error), path) from error

    # Identity

    @property
    def storage_options(self) -> dict[str, Any]:
        """The options of an equal filesystem in another process; TypeError if they contain a credential."""
        return self._login.options(self._connection.url)

    @storage_options.setter
    def storage_options(self, options: dict[str, Any]) -> None:
        """Ignore the options that fsspec sets: they may contain a credential."""

    @property
    def _fs_token(self) -> str:
        """Identify the deployment and the login, in names of caches and in graphs."""
        if self._login.literals:
            login = self._connection.url, self._login.api_key, self._login.auth_token
            return hashlib.sha256(_SALT + repr(login).encode()).hexdigest()
        return hashlib.sha256(json.dumps(self.storage_options, sort_keys=True).encode()).hexdigest()

    # Reading

    def ls(self, path: str, detail: bool = True, **kwargs: Any) -> list[Any]:
        """Return the entries of a folder: dictionaries as `info` does, or their paths."""
        path = self._strip_protocol(path)
        entries = self._call(path, lambda tree: tree.entries(path))
        return [_info(entry) if detail else entry.path for entry in entries]

    def info(self, path: str, **kwargs: Any) -> dict[str, Any]:
        """
        Return the name, the type and the size of an entry.

        A key-output, and what is in it, also has ``version``, ``created`` and ``final``, as in `KeyOutput`.
        """
        path = self._strip_protocol(path)
        return _info(self._call(path, lambda tree: tree.find(path)))

    def size(self, path: str) -> int | None:
        """Return the size of a file in bytes, for which a component's file is fetched. That of a folder is 0."""
        size: int | None = self.info(path)["size"]
        if size is not None:
            return size
        with self._open(self._strip_protocol(path)) as file:
            return file.size

    def modified(self, path: str) -> datetime:
        """Return when this version of a key-output was produced, for a path in it too; not known of other paths."""
        moment: datetime | None = self.info(path).get("created")
        if moment is None:
            raise NotImplementedError(f"the service does not say when {path!r} was modified")
        return moment

    created = modified

    def exists(self, path: str, **kwargs: Any) -> bool:
        """Return whether a path exists. Errors, such as a refused login, are raised."""
        try:
            self.info(path)
        except FileNotFoundError:
            return False
        return True

    def isfile(self, path: str) -> bool:
        """Return whether a path is a file; raise as `exists`."""
        return self.exists(path) and not self.isdir(path)

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **kwargs: Any) -> bytes:
        """Return the content of a file, or a part of it, for which all of it is fetched."""
        with self._open(self._strip_protocol(path)) as file:
            return file.read_range(start, end)

    def cat_ranges(
        self, paths: list[str], starts: Any, ends: Any, max_gap: int | None = None, on_error: str = "return", **_: Any
    ) -> list[Any]:
        """Return parts of files. Each file is fetched once, however many parts are read."""
        starts = starts if isinstance(starts, list) else [starts] * len(paths)
        ends = ends if isinstance(ends, list) else [ends] * len(paths)
        found: dict[int, bytes | Exception] = {}
        indices: dict[str, list[int]] = {}
        for index, (path, _start, _end) in enumerate(zip(paths, starts, ends, strict=True)):
            indices.setdefault(self._strip_protocol(path), []).append(index)
        for path, of_path in indices.items():
            try:
                with self._open(path) as file:
                    found |= {index: file.read_range(starts[index], ends[index]) for index in of_path}
            except Exception as error:  # fsspec returns all that a file may raise
                if on_error != "return":
                    raise
                found |= dict.fromkeys(of_path, error)
        return [found[index] for index in range(len(paths))]

    def _open(self, path: str, mode: str = "rb", *_: Any, **__: Any) -> ResultFile:
        if mode != "rb":
            raise OSError(errno.EROFS, READ_ONLY, path)
        return ResultFile(self._call(path, lambda tree: tree.fetch(path)), path)

    # Writing

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise OSError(errno.EROFS, READ_ONLY)

    mkdir = makedirs = rmdir = rm = rm_file = _rm = cp_file = mv = touch = pipe_file = put_file = _refuse


def _one_of(name: str, given: str | Path | None, file: FilePath | None) -> str | Path | None:
    if given is not None and file is not None:
        raise ConfigError(f"pass {name} or {name}_file, not both")
    if not isinstance(given, str | Path | None):
        raise ConfigError(f"{name} must be a string or a pathlib.Path, not {type(given).__name__}")
    return given if file is None else Path(file)


def _info(entry: Entry) -> dict[str, Any]:
    """Return an entry as fsspec describes it."""
    info: dict[str, Any] = {"name": entry.path, "size": 0 if entry.is_folder else entry.size}
    info["type"] = "directory" if entry.is_folder else "file"
    if (output := entry.output) is not None:
        info |= {"version": output.version, "created": output.created, "final": output.final}
    return info
