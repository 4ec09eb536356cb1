"""What runs measured, from the service that knows it best; or why there is nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import anyio

from .._api.documents import EXPERIMENT, REST_UID, properties_params
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
from ..models import Properties
from ..models.properties import INPUT_ID, is_table

if TYPE_CHECKING:
    from .._api.datastore import Datastore
    from .._api.instances import Instances
    from ..models import ExperimentDocument, Instance, Status

RUNS_AT_ONCE = 500
"""Runs whose documents are read together: the datastore opens a file of each, and the proxy gives up after 60 s."""
TABLE = "properties.csv"
"""Name of the file in which the orchestrator leaves the table."""

Columns = tuple[str, ...] | None
"""Columns that are wanted; None: all."""


def wanted(names: Iterable[str] | None) -> Columns:
    """The columns that names stand for; raises ValueError or TypeError for what cannot be a name."""
    given = ["*"] if names is None else [names] if isinstance(names, str) else list(names)
    properties_params(given, stringify_nan=True)
    return None if "*" in given else tuple(dict.fromkeys([INPUT_ID, *(name.lower() for name in given)]))


@dataclass(frozen=True)
class Search:
    """
    Looks for what runs measured.

    The runtime service knows it first. The datastore knows it 10 to 20 s later, but of all runs at once
    and when they are deleted. Both are asked to write missing numbers as texts, which is valid JSON.
    """

    instances: Instances
    """The runtime service."""
    datastore: Datastore
    """The datastore."""
    columns: Columns
    """What is wanted of each run."""

    async def of_run(self, rest_uid: str) -> Properties:
        """What one run measured; raises why there is nothing."""
        try:
            return await self._asked(rest_uid)
        except UnknownRun:  # deleted, which is for the datastore to tell
            found = await self.of_runs([rest_uid])
        except UnknownProperty as error:
            with suppress(APIError, TransportError, DecodeError):
                _tell(error, await self.instances.properties(rest_uid, stringify_nan=True))
            raise
        if rest_uid in found.problems:
            raise found.problems[rest_uid]
        return Properties(found.columns[1:], tuple(row[1:] for row in found.rows))

    async def of_runs(self, rest_uids: Sequence[str], *, strict: bool = False) -> Properties:
        """What several runs measured, in one table with the reasons why some have nothing; ``strict`` raises one."""
        documents = await self._documents(rest_uids, self.columns)
        tables: dict[str, Properties] = {}
        problems: dict[str, St4sdError] = {}

        async def look(rest_uid: str) -> None:
            try:
                tables[rest_uid] = await self._known(rest_uid, documents.get(rest_uid))
            except St4sdError as error:
                problems[rest_uid] = error
                if isinstance(error, Unauthorized):
                    group.cancel_scope.cancel()

        async with anyio.create_task_group() as group:
            for one in rest_uids:
                group.start_soon(look, one)
        for error in problems.values():
            if isinstance(error, Unauthorized):
                raise error
        await self._tell_columns(problems)
        if not tables:
            _check_names(problems)
        found = {one: tables[one] for one in rest_uids if one in tables}
        missing = {one: problems[one] for one in rest_uids if one in problems}
        if strict and missing:
            raise next(iter(missing.values()))
        return Properties.of_runs(found, missing, self.columns or ())

    async def _known(self, rest_uid: str, document: ExperimentDocument | None) -> Properties:
        """What a run measured, from its document if that is the last word, or else from the service."""
        table = document.property_table if document else None
        if document and document.status.is_final:
            if is_table(table):
                return self._checked(rest_uid, table)
            if not any(path.endswith(TABLE) for path in document.interface.output_files):
                raise nothing(rest_uid, document.status, document.interface.measures)
        try:
            return await self._asked(rest_uid)
        except UnknownRun as error:
            if is_table(table):
                return self._checked(rest_uid, table)
            error.advice = _last_heard(document, error)
            raise

    async def _asked(self, rest_uid: str) -> Properties:
        """What the runtime service says that a run measured."""
        try:
            columns = self.columns or ["*"]
            table = await self.instances.properties(rest_uid, include_properties=columns, stringify_nan=True)
        except (NotReady, NotFound, ServerError) as error:
            if not _is_vague(error):
                raise
            refusal: APIError = error
        else:
            return self._checked(rest_uid, table)
        with suppress(APIError, TransportError, DecodeError):
            refusal = verdict(refusal, await self.instances.get(rest_uid))
        raise refusal

    def _checked(self, rest_uid: str, table: Mapping[str, list[Any]]) -> Properties:
        """A table, if it has all that is wanted: the services leave out what they do not know without a word."""
        missing = [name for name in self.columns or () if name not in table]
        if not missing:
            return Properties.of_run(table, self.columns)
        error = UnknownProperty(f"run {rest_uid!r} did not measure {missing}")
        error.names = tuple(missing)
        raise error

    async def _tell_columns(self, problems: Mapping[str, St4sdError]) -> None:
        """Tell those who asked for unknown columns of runs which ones there are, as far as the datastore knows."""
        errors = {one: error for one, error in problems.items() if isinstance(error, UnknownProperty)}
        with suppress(APIError, TransportError, DecodeError):
            for one, document in (await self._documents(list(errors), None)).items():
                _tell(errors[one], document.property_table or {})

    async def _documents(self, rest_uids: Sequence[str], columns: Columns) -> dict[str, ExperimentDocument]:
        """The documents of runs with their tables; of several of a run the one that was written last."""
        found: list[ExperimentDocument] = []
        include = columns or ["*"]
        for first in range(0, len(rest_uids), RUNS_AT_ONCE):
            some = {REST_UID[EXPERIMENT]: {"$in": list(rest_uids[first : first + RUNS_AT_ONCE])}}
            with suppress(NotFound):  # a deployment without a datastore
                found += await self.datastore.experiments(query=some, include_properties=include, stringify_nan=True)
        return {document.rest_uid: document for document in found if document.rest_uid}


def _is_vague(refusal: APIError) -> bool:
    """Whether a refusal leaves open if it is for ever."""
    is_clear = isinstance(refusal, UnknownRun) or "propertiesNotAvailableYet" in refusal.detail
    return not is_clear and refusal.status in (400, 404, 500)


def verdict(refusal: APIError, run: Instance) -> APIError:
    """What it means that the service refused to give the properties of a run: not yet, never, or what it said."""
    status = run.status
    facts: dict[str, Any] = {name: getattr(refusal, name) for name in ("status", "method", "url", "detail")}
    if not status.is_final:
        return NotReady(f"run {run.id!r} has no properties yet: {status}", **facts)
    if isinstance(refusal, NotFound) or not status.is_success:
        registry = run.experiment.metadata.registry if run.experiment else None
        return nothing(run.id, status, registry.measures if registry else None, **facts)
    return refusal


def nothing(rest_uid: str, status: Status, measures: bool | None, /, **facts: Any) -> NoProperties:
    """
    Why a run that is over measured nothing, caused by its failure.

    Args:
        rest_uid: The run.
        status: Its final status.
        measures: Whether its experiment measures properties; None if that is unknown.
        facts: About the refusal, if there was one.
    """
    if not status.is_success:
        why = f"it did not succeed: {status}"
    elif measures is False:
        why = "its experiment measures none"
    else:
        may = "" if measures else "its experiment may measure none, or "
        why = f"it succeeded, but {may}the orchestrator could not measure any, as its output/experiment.log tells"
    error = NoProperties(f"run {rest_uid!r} has no properties: {why}", **facts)
    error.__cause__ = None if status.is_success else RunFailed({rest_uid: status})
    return error


def _check_names(problems: Mapping[str, St4sdError]) -> None:
    """Raise an error if all runs that have properties lack the same ones, because then a name is misspelt."""
    errors = [error for error in problems.values() if isinstance(error, UnknownProperty)]
    names = [name for name in (errors[0].names if errors else ()) if all(name in one.names for one in errors)]
    if len(errors) == 1 and names:
        raise errors[0]
    if not names:
        return
    error = UnknownProperty(f"none of the {len(errors)} runs that have properties measured {names}")
    error.names = tuple(names)
    _tell(error, dict.fromkeys(name for one in errors for name in one.known))
    raise error


def _tell(error: UnknownProperty, known: Iterable[str]) -> None:
    error.known = tuple(known)
    error.advice = f"it measured {sorted(error.known)}" if error.known else ""


def _last_heard(document: ExperimentDocument | None, error: UnknownRun) -> str:
    """What to know about a run of which only a document is left, if that."""
    if document is None:
        return f"no datastore has a document of it either; {error.advice}"
    return f"it was deleted without properties that are known; the datastore heard of it last: {document.status}"
