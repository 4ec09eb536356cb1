"""What is to be seen of instances by whoever looks for his own: in the list, alone, and in the datastore."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from pydantic_core import SchemaValidator, core_schema

from .._api.status_list import objects
from .._http.call import Call
from .._http.responses import Response
from ..models.finality import is_final
from ..models.hints import Reason
from ..models.rest_uid import is_rest_uid
from .reconcile_rules import Listed, Sighting
from .state import METADATA_KEY

if TYPE_CHECKING:
    from .._api.documents import Query
    from ..models import Instance, Status, UserMetadata

_FIELD = core_schema.typed_dict_field(core_schema.any_schema(), required=False)
_ITEM = core_schema.typed_dict_schema({"id": _FIELD, "status": _FIELD, "k8s-labels": _FIELD})
_read = SchemaValidator(
    core_schema.list_schema(core_schema.with_default_schema(_ITEM, default=None, on_error="default"))
).validate_json
"""Of each item what tells whose it is; the definition of its experiment, which is most of it, is skipped."""

_BEFORE_COMPONENTS = frozenset(
    {
        Reason.PENDING,
        Reason.INITIALISING,
        Reason.UNSCHEDULED,
        Reason.UNSCHEDULABLE,
        Reason.SETUP_FAILED,
        Reason.PACKAGE_NOT_FETCHED,
        Reason.INPUTS_NOT_FETCHED,
        Reason.NO_EXIT_STATUS,
    }
)
"""Reasons that leave open whether a component was executed; all others imply that the orchestrator ran."""

_PACKAGE = "st4sd-package-name"
"""Where labels and metadata have the name of the package."""


def sightings_call() -> Call[Listed]:
    """Return what the list of instances shows of each, as far as it tells whose they are."""
    return Call("GET", "instances/", _listed, is_long=True)


def _listed(response: Response) -> Listed:
    items = _read(response.body)
    readable = [item for item in objects(items) if is_rest_uid(item.get("id"))]
    return Listed({item["id"]: _item(item) for item in readable}, is_readable=len(readable) == len(items))


def _item(item: Mapping[str, Any]) -> Sighting:
    status = _mapping(item.get("status"))
    package = _text(_mapping(item.get("k8s-labels")).get(_PACKAGE))
    metadata = _mapping(_mapping(status.get("meta")).get("userMetadata"))
    return Sighting(item["id"], package, _text(metadata.get(METADATA_KEY)), bool(metadata))


def of_status(rest_uid: str, package: str | None, status: Status) -> Sighting:
    """
    What an instance shows when it is asked for by itself.

    Only the datastore can say that it has not executed anything, and only time that one is over which has one final
    field of two. A status that the service makes up for a run whose own status it cannot read never has stages, so
    the other words count too.
    """
    metadata = status.meta.user_metadata if status.meta else {}
    return Sighting(
        rest_uid,
        package,
        token=_text(metadata.get(METADATA_KEY)),
        has_metadata=bool(metadata),
        is_over=is_final(status.pair),
        has_executed=True if _shows_execution(status) else None,
    )


def _shows_execution(status: Status) -> bool:
    """Return whether a status says that a component was executed, or may have been."""
    if status.stages or status.total_progress or status.experiment_state == "finished":
        return True
    return status.hint is None or status.hint.reason not in _BEFORE_COMPONENTS


def of_instance(instance: Instance) -> Sighting:
    """The same, with the name of its package."""
    return of_status(instance.id, instance.labels.get(_PACKAGE), instance.status)


def documents_of(tokens: Iterable[str], rest_uids: Iterable[str]) -> Query:
    """The query for the user metadata of runs that carry one of these tokens, or are one of these."""
    ours, theirs = {METADATA_KEY: {"$in": sorted(tokens)}}, {"rest-uid": {"$in": sorted(rest_uids)}}
    return {"$or": [ours, theirs]}


def of_documents(found: Iterable[UserMetadata]) -> dict[str, Sighting]:
    """What the datastore tells of instances, be they deleted or not."""
    return {
        one.rest_uid: Sighting(one.rest_uid, one.package_name, _text(one.raw.get(METADATA_KEY)), has_metadata=True)
        for one in found
        if one.rest_uid
    }


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None
