"""
Properties and key-outputs of runs as Dask DataFrames. Needs the extra ``dask``.

    from st4sd_async.integrations.dask import outputs, properties

    energies = properties(runs, ["energy"])
    print(energies["energy"].mean().compute())

Each partition has some runs, which a worker reads itself. A worker gets the url of the deployment and the source of the
credentials: a file that it has too, its own environment, or a login of ``stp``. No credential is in a graph. All tasks
of a worker process share one client.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

try:
    import dask.dataframe
except ImportError:
    raise ImportError(f'{__name__} needs dask: pip install "st4sd_async[dask]"') from None

import pandas
from pandas.api.types import (
    infer_dtype,
    is_bool_dtype,
    is_integer_dtype,
    is_numeric_dtype,
    is_object_dtype,
    is_string_dtype,
)

from .._client import Client
from .._errors import NoProperties, SchemaMismatch
from .._run import Run
from ..models.properties import INPUT_ID, RUN
from ..sync import Client as BlockingClient
from .chunks import Parse, chunks, parsed_outputs, read_properties, shared_client

__all__ = ["outputs", "properties"]

SAMPLE_RUNS = 20
"""Maximum number of runs in which columns and dtypes of properties are looked up."""
NUMBERS, TRUTH, TEXT = "float64", "boolean", "string[pyarrow]"
"""The dtypes of columns that are looked up."""
NUMBER_KINDS = frozenset({"floating", "integer", "mixed-integer-float"})
"""Kinds of values, as pandas names them, that become numbers without a change."""
ADVICE = "declare the columns with meta"
"""Advice for a value that does not fit."""


def properties(
    runs: Iterable[Run | str],
    names: Iterable[str] | None = None,
    *,
    partition: int = 500,
    meta: Mapping[str, Any] | None = None,
    client: Client | BlockingClient | None = None,
) -> Any:
    """
    Return the measured properties of runs as a Dask DataFrame, with the columns ``rest-uid`` and ``input-id`` first.

    Columns that are not used are not requested, if Dask can tell. Runs without properties are left out, and a warning
    in the worker's log counts them. A run that did not measure one of the columns has a missing value in it.

    Unless ``meta`` declares them, columns and dtypes are looked up now, in up to 20 of the runs. Numbers are float64,
    also whole ones; truth values are boolean; all else, and what is mixed, is string. A run with one more column, or
    with a value that does not have the dtype of its column, is a `SchemaMismatch` when it is computed.

    Args:
        runs: Any number of runs. Duplicates are ignored.
        names: Columns, in any case. None means all.
        partition: Runs of each partition.
        meta: Property -> dtype, in place of ``names``. It may also have ``rest-uid`` and ``input-id``.
        client: A client of the deployment, which need not be open. Its credential must be a file, a login of ``stp`` or
            from the environment. None means ``Client.from_env()``, here and in the workers.

    Returns:
        A `dask.dataframe.DataFrame`.

    Raises:
        NoProperties: The runs that were looked up have no properties.
        UnknownProperty: All runs that were looked up lack the same name.
        TypeError: The credential of the client is a string or a function.
        ConfigError: The environment names no deployment.
        ValueError: There are no runs, ``names`` and ``meta`` are combined, or an argument is invalid.
    """
    parts = _parts(runs, partition)
    known = BlockingClient.from_env() if client is None else client
    shared = shared_client(known)
    if meta is not None and names is not None:
        raise ValueError("names and meta cannot be combined: meta has the names")
    if meta is None:
        requested = None if names is None else [names] if isinstance(names, str) else list(names)
        empty = _found_properties([run for part in parts for run in part], requested, shared)
    else:
        empty = _declared({column.lower(): dtype for column, dtype in meta.items()}, (RUN, INPUT_ID))
    options = {"client": known, "meta": empty, "is_whole": meta is None and names is None}
    return dask.dataframe.from_map(partial(_properties, **options), parts, meta=empty, label="st4sd-properties")


def outputs(
    runs: Iterable[Run | str],
    name: str,
    parse: Parse = pandas.read_csv,
    *,
    partition: int = 200,
    meta: Mapping[str, Any] | None = None,
    client: Client | BlockingClient | None = None,
) -> Any:
    """
    Return a key-output of runs as a Dask DataFrame, with the column ``rest-uid`` first.

    All runs must have the key-output: leave out those that did not succeed. A run that lacks a column has missing
    values in it.

    Unless ``meta`` declares them, columns and dtypes are looked up now, in the first run, with the dtypes of
    `properties`; those of times and categories are kept. A run with one more column, or with a value that does not have
    the dtype of its column, is a `SchemaMismatch` when it is computed.

    Args:
        runs: Any number of runs.
        name: The key-output.
        parse: Returns the table in a file that is open for reading bytes. It must be picklable: a function of a module
            that the workers have, or a `functools.partial` of one.
        partition: Runs of each partition. All their files are in the memory of a worker at once.
        meta: Column -> dtype, of the columns to take. It may also have ``rest-uid``. None means all columns.
        client: As in `properties`.

    Returns:
        A `dask.dataframe.DataFrame`.

    Raises:
        UnknownOutput: The first run does not have the key-output. Raised for others when they are computed, like any
            error of `Client.output`.
        TypeError: The credential of the client is a string or a function.
        ConfigError: The environment names no deployment.
        ValueError: There are no runs, or an argument is invalid.
    """
    parts = _parts(runs, partition)
    known = BlockingClient.from_env() if client is None else client
    shared = shared_client(known)
    if meta is None:
        (table,) = parsed_outputs(parts[0][:1], name, parse, shared)
        empty = _looked_up(table)
    else:
        empty = _declared(meta, (RUN,))
    options = {"name": name, "parse": parse, "client": known, "meta": empty, "is_whole": meta is None}
    return dask.dataframe.from_map(partial(_outputs, **options), parts, meta=empty, label="st4sd-outputs")


def _parts(runs: Iterable[Run | str], partition: int) -> list[list[str]]:
    if parts := chunks(runs, partition):
        return parts
    raise ValueError("there are no runs, and a Dask DataFrame needs some to have columns")


def _properties(
    rest_uids: list[str],
    columns: list[str] | None = None,
    *,
    client: Client | BlockingClient,
    meta: pandas.DataFrame,
    is_whole: bool,
) -> pandas.DataFrame:
    """
    Return a partition; called in a worker.

    Args:
        rest_uids: The runs.
        columns: The columns that are used, as Dask found. None means all.
        client: A client of the deployment.
        meta: The columns with their dtypes.
        is_whole: Whether runs are requested with all columns, so that one more is noticed.
    """
    taken = list(meta.columns) if columns is None else columns
    names = None if is_whole and columns is None else [name for name in taken if name not in (RUN, INPUT_ID)]
    table = read_properties(rest_uids, names, client=client)
    return _fitted(table, meta, taken, is_whole=names is None)


def _outputs(
    rest_uids: list[str],
    columns: list[str] | None = None,
    *,
    name: str,
    parse: Parse,
    client: Client | BlockingClient,
    meta: pandas.DataFrame,
    is_whole: bool,
) -> pandas.DataFrame:
    """Return a partition; called in a worker. Arguments as in `_properties`."""
    taken = list(meta.columns) if columns is None else columns
    tables = parsed_outputs(rest_uids, name, parse, shared_client(client))
    return pandas.concat((_fitted(table, meta, taken, is_whole=is_whole) for table in tables), ignore_index=True)


def _found_properties(rest_uids: list[str], names: list[str] | None, client: BlockingClient) -> pandas.DataFrame:
    """Return the columns that some runs have, with their dtypes, as an empty DataFrame."""
    sample = rest_uids[:: max(1, len(rest_uids) // SAMPLE_RUNS)][:SAMPLE_RUNS]
    found = client.properties(sample, names)  # an error for a misspelt name
    if len(found.problems) == len(set(sample)):
        why = next(iter(found.problems.values()))
        raise NoProperties(f"no run has properties to find the columns in; {ADVICE}: {why}")
    return _looked_up(read_properties(sample, names, client=client))


def _looked_up(table: pandas.DataFrame) -> pandas.DataFrame:
    """Return the columns of a table with the dtypes that all runs get, as an empty DataFrame."""
    dtypes = {name: _dtype(table[name]) for name in table.columns}
    ids = {name: TEXT for name in (RUN, INPUT_ID) if name in dtypes}
    return table.head(0).astype({**dtypes, **ids})


def _dtype(column: pandas.Series) -> Any:
    if is_bool_dtype(column):
        return TRUTH
    if is_numeric_dtype(column):
        return NUMBERS
    if is_object_dtype(column) or is_string_dtype(column):
        kind = infer_dtype(column, skipna=True)
        return {"boolean": TRUTH, "empty": NUMBERS}.get(kind, TEXT)
    return column.dtype


def _declared(dtypes: Mapping[str, Any], first: tuple[str, ...]) -> pandas.DataFrame:
    """Return declared columns with their dtypes, after those that every table has, as an empty DataFrame."""
    columns = {**dict.fromkeys(first, TEXT), **dtypes}
    return pandas.DataFrame({name: pandas.Series([], dtype=dtype) for name, dtype in columns.items()})


def _fitted(table: pandas.DataFrame, meta: pandas.DataFrame, taken: list[str], *, is_whole: bool) -> pandas.DataFrame:
    """
    Return some columns of a table with the dtypes of ``meta``. Missing columns have missing values.

    Args:
        table: The table.
        meta: All columns.
        taken: The columns to return.
        is_whole: Whether one more column than in ``meta`` is an error.
    """
    for name in table.columns if is_whole else ():
        if name not in meta.columns:
            run = next(iter(table[RUN][table[name].notna()]), None)
            raise SchemaMismatch(name, "is not among the fixed columns", rest_uid=run, advice=ADVICE)
    columns = table.reindex(columns=taken)
    return pandas.DataFrame({name: _converted(columns[name], meta[name].dtype, table[RUN]) for name in taken})


def _converted(column: pandas.Series, dtype: Any, runs: pandas.Series) -> pandas.Series:
    """Return a column with a dtype. No value may change, unless it becomes a text."""
    converted = _as(column, dtype)
    if converted is not None:
        return converted
    for run, value in zip(runs, column, strict=True):
        if _as(pandas.Series([value]), dtype) is None:
            problem = f"has the fixed dtype {dtype}, but is {value!r}"
            raise SchemaMismatch(str(column.name), problem, rest_uid=run, advice=ADVICE)
    raise SchemaMismatch(str(column.name), f"has the fixed dtype {dtype}, which cannot hold its values", advice=ADVICE)


def _as(column: pandas.Series, dtype: Any) -> pandas.Series | None:
    """Return a column with a dtype; None if a value would change, as 2.5 that becomes an integer."""
    if column.dtype == dtype:
        return column
    kind = infer_dtype(column, skipna=True)
    is_empty = bool(column.isna().all())
    if is_bool_dtype(dtype) and kind != "boolean" and not is_empty:
        return None
    if is_numeric_dtype(dtype) and not is_bool_dtype(dtype) and kind not in NUMBER_KINDS and not is_empty:
        return None
    try:
        converted = column.astype(dtype)
    except (TypeError, ValueError):
        return None
    is_changed = is_integer_dtype(dtype) and not (column.isna() | (column == converted)).all()
    return None if is_changed else converted
