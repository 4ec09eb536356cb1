"""Read the properties that runs measured, or find out why there are none."""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import anyio

from .._api.datastore import EXPERIMENT, REST_UID_FIELDS
from .._api.group import properties_params
from .._errors import (
    APIError,
    DecodeError,
    NoProperties,
    NotFound,
    NotReady,
    RunFailed,
    ServerError,
    St4sdError,
    TransportError,
    Unauthorized,
    UnknownProperty,
    UnknownRun,
)
from .._util.did_you_mean import did_you_mean
from ..models import Properties
from ..models.properties import INPUT_ID, is_table
from .downloads import for_each

if TYPE_CHECKING:
    from .._api.datastore import Datastore
    from .._api.instances import Instances
    from ..models import ExperimentDocument, Instance, Status

log = logging.getLogger("st4sd_async")

MAX_RUNS_PER_QUERY = 500
"""Runs in one query: the datastore opens a file of each, and the proxy gives up after 60 s."""
TABLE_FILE = "properties.csv"
"""Name of the file to which the orchestrator writes the table."""

MAX_EXPLAINED = 5
"""Maximum number of runs of one call whose log is searched for the reason that they have no properties."""
LOG_TIMEOUT = 5.0
"""Maximum time in seconds to read these logs."""
LEFT_OUT = "%d of %d runs have no properties and were left out; the first: %s"
SEE_LOG = "see its output/experiment.log"
_INPUTS = "interpret inputSpec"
_INTERFACE_FAILURE = re.compile(rf"Interface could not (extract properties|{_INPUTS}) due to (.*)")
_PROPERTY_FAILURE = re.compile(r".*?propertiesSpec\[(.*?)\] error: (.*)")
_NO_INPUT_IDS = "error: missing inputIds"
"""Part of the message about properties if the input ids could not be read, which has a message of its own."""
_DIFFERENT_TYPES = re.compile(r"You are trying to merge on (\w+) and (\w+) columns for key 'input-id'.*")
"""Message of pandas if the ids of the inputs and those of a property have different types."""
_INSTANCE = re.compile(r"/\S*?\.instance/")
"""Path of the folder of an instance."""
WITHOUT_PROPERTIES = (NoProperties, NotReady, UnknownProperty, UnknownRun)
"""Errors that mean that a run has no properties, or not yet. Any other means that they could not be read."""
_IGNORED = " - will ignore error, virtual experiment properties may be corrupted or incomplete."

Columns = tuple[str, ...] | None
"""Requested columns; None means all."""


def requested_columns(names: Iterable[str] | None) -> Columns:
    """Return the columns to request; raise ValueError or TypeError if a name is invalid."""
    names = ["*"] if names is None else [names] if isinstance(names, str) else list(names)
    properties_params(names, stringify_nan=True)
    return None if "*" in names else tuple(dict.fromkeys([INPUT_ID, *(name.lower() for name in names)]))


@dataclass(frozen=True)
class PropertiesReader:
    """
    Reads the properties that runs measured.

    The runtime service has them first. The datastore has them 10 to 20 s later, but returns those of many runs in one
    request, and keeps those of deleted runs. Both are asked to write NaN as a string, to get valid JSON.
    """

    instances: Instances
    """The runtime service."""
    datastore: Datastore
    """The datastore."""
    columns: Columns
    """The requested columns of each run."""
    read_log: Callable[[str], Awaitable[str]]
    """Returns the log of the orchestrator of a run."""
    is_lenient: bool = False
    """Whether a run may lack requested columns. Its table then has the others."""

    async def of_run(self, rest_uid: str) -> Properties:
        """Return the properties of one run; raise the reason if there are none."""
        try:
            return await self._request(rest_uid)
        except NoProperties as error:
            await self._explain(rest_uid, error)
            raise
        except UnknownRun:  # deleted, but the datastore may have them
            found = await self.of_runs([rest_uid])
        except UnknownProperty as error:
            with suppress(APIError, TransportError, DecodeError):
                _set_known(error, await self.instances.properties(rest_uid, stringify_nan=True))
            raise
        if rest_uid in found.problems:
            raise found.problems[rest_uid]
        return Properties(found.columns[1:], tuple(row[1:] for row in found.rows))

    async def of_runs(self, rest_uids: Sequence[str], *, strict: bool = False) -> Properties:
        """Return the properties of several runs in one table; raise the first error if ``strict``."""
        found = await self.read(rest_uids)
        if len(found.problems) == len(rest_uids):
            _raise_common_problem(found.problems)
        if strict and found.problems:
            raise next(iter(found.problems.values()))
        return found

    async def read(self, rest_uids: Sequence[str], explained: int = MAX_EXPLAINED) -> Properties:
        """
        Return the properties of several runs in one table, with all errors of single runs in ``problems``.

        Args:
            rest_uids: The runs.
            explained: Maximum number of runs whose log is searched for the reason that they have no properties.
        """
        documents = await self._documents(rest_uids, self.columns)
        tables: dict[str, Properties] = {}
        problems: dict[str, St4sdError] = {}

        async def read(rest_uid: str) -> None:
            try:
                tables[rest_uid] = await self._read(rest_uid, documents.get(rest_uid))
            except St4sdError as error:
                problems[rest_uid] = error
                if isinstance(error, Unauthorized):
                    group.cancel_scope.cancel()

        async with anyio.create_task_group() as group:
            for one in rest_uids:
                group.start_soon(read, one)
        for error in problems.values():
            if isinstance(error, Unauthorized):
                raise error
        await self._add_known_columns(problems)
        empty = [one for one in rest_uids if isinstance(problems.get(one), NoProperties)]
        await for_each(empty[:explained], lambda one: self._explain(one, problems[one]), MAX_EXPLAINED)
        found = {one: tables[one] for one in rest_uids if one in tables}
        missing = {one: problems[one] for one in rest_uids if one in problems}
        return Properties.of_runs(found, missing, self.columns or ())

    async def _read(self, rest_uid: str, document: ExperimentDocument | None) -> Properties:
        """Return the properties of a run: from its document if the document is final, otherwise from the service."""
        table = document.property_table if document else None
        if document and document.status.is_final:
            if is_table(table):
                return self._select(rest_uid, table)
            if not any(path.endswith(TABLE_FILE) for path in document.interface.output_files):
                raise no_properties(rest_uid, document.status, document.interface.measures)
        try:
            return await self._request(rest_uid)
        except UnknownRun as error:
            if is_table(table):
                return self._select(rest_uid, table)
            error.advice = _deleted_advice(document, error)
            raise

    async def _request(self, rest_uid: str) -> Properties:
        """Request the properties of a run from the runtime service."""
        try:
            columns = self.columns or ["*"]
            table = await self.instances.properties(rest_uid, include_properties=columns, stringify_nan=True)
        except (NotReady, NotFound, ServerError) as error:
            if not _is_ambiguous(error):
                raise
            refusal: APIError = error
        else:
            return self._select(rest_uid, table)
        with suppress(APIError, TransportError, DecodeError):
            refusal = explain_refusal(refusal, await self.instances.get(rest_uid))
        raise refusal

    def _select(self, rest_uid: str, table: Mapping[str, list[Any]]) -> Properties:
        """Return the requested columns of a table. The services leave out unknown columns without an error."""
        missing = [name for name in self.columns or () if name not in table]
        if not missing or self.is_lenient:
            return Properties.of_run(table, [name for name in self.columns or table if name in table])
        error = UnknownProperty(f"run {rest_uid!r} did not measure {missing}")
        error.names = tuple(missing)
        raise error

    async def _explain(self, rest_uid: str, error: St4sdError) -> None:
        """Add the reason in the log of the orchestrator to the error of a run that succeeded, if it can be read."""
        if not isinstance(error, NoProperties) or error.advice != SEE_LOG:
            return
        with anyio.move_on_after(LOG_TIMEOUT), suppress(St4sdError):
            error.advice = interface_failure(await self.read_log(rest_uid)) or SEE_LOG

    async def _add_known_columns(self, problems: Mapping[str, St4sdError]) -> None:
        """Add the existing columns to the errors about unknown ones, if the datastore has them."""
        errors = {one: error for one, error in problems.items() if isinstance(error, UnknownProperty)}
        with suppress(APIError, TransportError, DecodeError):
            for one, document in (await self._documents(list(errors), None)).items():
                _set_known(errors[one], document.property_table or {})

    async def _documents(self, rest_uids: Sequence[str], columns: Columns) -> dict[str, ExperimentDocument]:
        """Return rest-uid -> document with its table; if a run has several documents, the last one."""
        found: list[ExperimentDocument] = []
        include = columns or ["*"]
        for first in range(0, len(rest_uids), MAX_RUNS_PER_QUERY):
            some = {REST_UID_FIELDS[EXPERIMENT]: {"$in": list(rest_uids[first : first + MAX_RUNS_PER_QUERY])}}
            with suppress(NotFound):  # a deployment without a datastore
                found += await self.datastore.experiments(query=some, include_properties=include, stringify_nan=True)
        return {document.rest_uid: document for document in found if document.rest_uid}


class PartsReader:
    """
    Reads the properties of many runs, some at a time.

    Args:
        reader: Reads the properties of some.
    """

    def __init__(self, reader: PropertiesReader) -> None:
        self._reader = reader
        self._has_found = False
        self._unknown: Mapping[str, St4sdError] = {}
        self._explained = 0
        self.left_out = 0
        """Number of runs without properties so far."""
        self.first_problem: St4sdError | None = None
        """Why the first of them has none."""

    async def read(self, rest_uids: Sequence[str]) -> Properties:
        """
        Return the properties of some runs, with the errors of those that have none in ``problems``.

        Raises:
            St4sdError: The properties of a run could not be read. Unlike a run without properties, such a run must not
                be left out.
        """
        found = await self._reader.read(rest_uids, MAX_EXPLAINED - self._explained)
        for error in found.problems.values():
            if not isinstance(error, WITHOUT_PROPERTIES):
                raise error
        empty = sum(isinstance(error, NoProperties) for error in found.problems.values())
        self._explained = min(MAX_EXPLAINED, self._explained + empty)
        self._has_found = self._has_found or len(found.problems) < len(rest_uids)
        unknown = {run: error for run, error in found.problems.items() if isinstance(error, UnknownProperty)}
        self._unknown = self._unknown or unknown
        self.left_out += len(found.problems)
        self.first_problem = self.first_problem or next(iter(found.problems.values()), None)
        return found

    async def tables(self, rest_uids: Sequence[str]) -> AsyncGenerator[Properties]:
        """
        Yield the properties of runs, of some at a time. Log a warning at the end if runs were left out.

        Raises:
            UnknownProperty: All runs that have properties lack the same name.
            St4sdError: As from `read`.
        """
        for first in range(0, len(rest_uids), MAX_RUNS_PER_QUERY):
            yield await self.read(rest_uids[first : first + MAX_RUNS_PER_QUERY])
        self.check_names()
        if self.left_out:
            log.warning(LEFT_OUT, self.left_out, len(rest_uids), self.first_problem)

    def check_names(self) -> None:
        """Raise `UnknownProperty` if no run had properties, because the requested names are unknown."""
        if not self._has_found:
            _raise_common_problem(self._unknown)


def _is_ambiguous(refusal: APIError) -> bool:
    """Return whether an error leaves open if there will be properties later."""
    is_clear = isinstance(refusal, UnknownRun) or "propertiesNotAvailableYet" in refusal.detail
    return not is_clear and refusal.status in (400, 404, 500)


def explain_refusal(refusal: APIError, run: Instance) -> APIError:
    """Return the meaning of a refused request for properties: not yet, never, or the refusal itself."""
    status = run.status
    facts: dict[str, Any] = {name: getattr(refusal, name) for name in ("status", "method", "url", "detail")}
    if not status.is_final:
        return NotReady(f"run {run.id!r} has no properties yet: {status}", **facts)
    if isinstance(refusal, NotFound) or not status.is_success:
        registry = run.experiment.metadata.registry if run.experiment else None
        return no_properties(run.id, status, registry.measures if registry else None, **facts)
    return refusal


def no_properties(rest_uid: str, status: Status, measures: bool | None, /, **facts: Any) -> NoProperties:
    """
    Return the error for a run that is over and has no properties; its cause is the failure of the run.

    Args:
        rest_uid: The run.
        status: Its final status.
        measures: Whether its experiment measures properties; None means unknown.
        facts: The attributes of the refusal, if there was one.
    """
    if not status.is_success:
        why = f"it did not succeed: {status}"
    elif measures is False:
        why = "its experiment measures none"
    else:
        may = "" if measures else "its experiment may measure none, or "
        why = f"it succeeded, but {may}the orchestrator could not measure any"
    error = NoProperties(f"run {rest_uid!r} has no properties: {why}", **facts)
    if status.is_success and measures is not False:
        error.advice = SEE_LOG
    error.__cause__ = None if status.is_success else RunFailed({rest_uid: status})
    return error


def interface_failure(log: str) -> str:
    """
    Return why the interface of a run failed, from the log of its orchestrator; "" if the log has no reason.

    Source: ``elaunch.py`` of st4sd-runtime-core, which ignores such failures, so that the run succeeds.
    """
    reasons: list[str] = []
    for part, problem in _INTERFACE_FAILURE.findall(log):
        if reasons and _NO_INPUT_IDS in problem:
            continue
        spec = _PROPERTY_FAILURE.match(problem)
        text = problem if spec is None else f"the property {spec[1]!r} could not be extracted: {spec[2]}"
        reasons.append(f"its input ids could not be read: {text}" if part == _INPUTS else text)
    return "; ".join(dict.fromkeys(_in_plain_words(reason.removesuffix(_IGNORED)) for reason in reasons))


def _in_plain_words(reason: str) -> str:
    return _DIFFERENT_TYPES.sub(
        r"the input ids are \1, but the column input-id is \2: if one has numbers, so must the other",
        _INSTANCE.sub("", reason),
    )


def _raise_common_problem(problems: Mapping[str, St4sdError]) -> None:
    """Raise an error if all runs that have properties lack the same names: these are probably misspelt."""
    errors = [error for error in problems.values() if isinstance(error, UnknownProperty)]
    names = [name for name in (errors[0].names if errors else ()) if all(name in one.names for one in errors)]
    if len(errors) == 1 and names:
        raise errors[0]
    if not names:
        return
    error = UnknownProperty(f"none of the {len(errors)} runs that have properties measured {names}")
    error.names = tuple(names)
    _set_known(error, dict.fromkeys(name for one in errors for name in one.known))
    raise error


def _set_known(error: UnknownProperty, known: Iterable[str]) -> None:
    error.known = tuple(known)
    suggestions = "".join(did_you_mean(name, error.known) for name in error.names)
    error.advice = f"it measured {sorted(error.known)}{suggestions}" if error.known else ""


def _deleted_advice(document: ExperimentDocument | None, error: UnknownRun) -> str:
    """Return the advice for a run that was deleted, or never existed."""
    if document is None:
        return f"no datastore has a document of it either; {error.advice}"
    return f"it was deleted, and the datastore has no properties of it; its last known status: {document.status}"
