"""
Functions from a chunk of runs to a pandas DataFrame, for engines that call a function for each chunk, in any process.

    from st4sd_async.integrations.chunks import chunks, read_properties

    read = partial(read_properties, names=["energy"], client=Client.from_env())
    with ProcessPoolExecutor() as pool:
        for part in pool.map(read, chunks(runs, 500)):
            print(part["energy"].mean())

They are what `st4sd_async.integrations.dask` calls, and suit ``map_batches`` of Ray Data. Needs the extra ``pandas``.

A client is sent to another process as its url, its settings and the source of its credentials: a file, the environment
or a login of ``stp``, never a credential. All calls in a process share one open client.
"""

from __future__ import annotations

import os
import pickle
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from io import BytesIO
from typing import IO

from .._client import Client
from .._results.properties import PartsReader, requested_columns
from .._run import Run
from .._sync.facade import blocking, run_in
from .._util.extras import import_pandas
from ..models import Properties
from ..models.properties import RUN
from ..models.runs import check_rest_uid
from ..sync import Client as BlockingClient

import_pandas(__name__)

import pandas  # noqa: E402 -- after the error that names the extra

__all__ = ["chunks", "read_outputs", "read_properties", "shared_client"]

CONCURRENT_OUTPUTS = 8
"""Key-outputs that a call of `read_outputs` requests at once."""

Parse = Callable[[IO[bytes]], pandas.DataFrame]
"""Returns the table in a file."""

_clients: dict[bytes, BlockingClient] = {}
"""Pickled client -> the open one that all calls in this process share."""
_lock = threading.Lock()


def chunks(runs: Iterable[Run | str], size: int) -> list[list[str]]:
    """
    Return the rest-uids of runs in chunks of a size; the last one may be smaller. Duplicates are ignored.

    Raises:
        ValueError: The size is below 1, or a text does not have the form of a rest-uid.
    """
    if size < 1:
        raise ValueError(f"the size of a chunk must be at least 1, not {size!r}")
    rest_uids = _rest_uids(runs)
    return [rest_uids[first : first + size] for first in range(0, len(rest_uids), size)]


def _rest_uids(runs: Iterable[Run | str]) -> list[str]:
    return list(dict.fromkeys(check_rest_uid(str(run)) for run in runs))


def shared_client(client: Client | BlockingClient | None = None) -> BlockingClient:
    """
    Return the blocking client of this process for a deployment. Do not close it: other calls share it.

    Args:
        client: A client of the deployment, which need not be open. None means ``Client.from_env()``.

    Raises:
        TypeError: Its credential is a string or a function, which stays in its process.
        ConfigError: The environment names no deployment, or another one than that of the client.
    """
    source = pickle.dumps(BlockingClient.from_env() if client is None else client)
    with _lock:
        if source not in _clients:
            _clients[source] = blocking(pickle.loads(source))
        return _clients[source]


def _forget_clients() -> None:
    """Forget the clients of the parent process, which cannot be used in a forked one."""
    global _lock
    _lock = threading.Lock()
    _clients.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_clients)


def read_properties(
    runs: Iterable[Run | str], names: Iterable[str] | None = None, *, client: Client | BlockingClient | None = None
) -> pandas.DataFrame:
    """
    Return the measured properties of some runs as one DataFrame, with the columns ``rest-uid`` and ``input-id`` first.

    Runs without properties are left out, and a warning in the log counts them. Unlike in `Client.properties`, a run
    that did not measure one of ``names`` has NaN in it.

    Args:
        runs: The runs, at most some thousands.
        names: Columns, in any case. None means all.
        client: As in `shared_client`.

    Raises:
        St4sdError: The properties of a run could not be read.
        TypeError, ConfigError: As in `shared_client`.
    """
    rest_uids, columns = _rest_uids(runs), requested_columns(names)

    async def read(client: Client) -> Properties:
        reader = PartsReader(replace(client._properties_reader(columns), is_lenient=True))
        tables = [table async for table in reader.tables(rest_uids)]
        return Properties.concatenated(tables or [Properties.of_runs({}, {}, columns or ())])

    return run_in(shared_client(client), read).dataframe()


def read_outputs(
    runs: Iterable[Run | str],
    name: str,
    parse: Parse = pandas.read_csv,
    *,
    client: Client | BlockingClient | None = None,
) -> pandas.DataFrame:
    """
    Return a key-output of some runs as one DataFrame, with the column ``rest-uid`` first.

    All runs must have the key-output: leave out those that did not succeed.

    Args:
        runs: The runs. All their files are in memory at once.
        name: The key-output.
        parse: Returns the table in a file that is open for reading bytes. It must be picklable to be sent to another
            process: a function of a module, or a `functools.partial` of one.
        client: As in `shared_client`.

    Raises:
        UnknownOutput: A run does not have the key-output, or not yet.
        UnknownRun: There is no such run, or it was deleted.
        St4sdError: A key-output could not be read.
        TypeError, ConfigError: As in `shared_client`.
        Exception: What ``parse`` raises, with a note that names the run.
    """
    tables = list(parsed_outputs(_rest_uids(runs), name, parse, shared_client(client)))
    return pandas.concat(tables, ignore_index=True) if tables else pandas.DataFrame({RUN: []})


def parsed_outputs(rest_uids: list[str], name: str, parse: Parse, client: BlockingClient) -> Iterator[pandas.DataFrame]:
    """Yield the table of each run, with the column ``rest-uid`` first. Files are fetched while others are parsed."""
    with ThreadPoolExecutor(CONCURRENT_OUTPUTS) as threads:
        outputs = threads.map(partial(client.output, name=name), rest_uids)
        for rest_uid, output in zip(rest_uids, outputs, strict=True):
            try:
                table = parse(BytesIO(output.content))
                table.insert(0, RUN, rest_uid)
            except Exception as error:
                error.add_note(f"raised for the key-output {name!r} of run {rest_uid!r}")
                raise
            yield table
