"""What the service shows of instances: in the list, in a single request, and in the datastore. Pure parsing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic_core import SchemaValidator, core_schema

from .._http.call import Call, Response
from ..models.finality import is_final
from ..models.hints import Reason
from ..models.rest_uid import is_rest_uid
from .state import METADATA_KEY

if TYPE_CHECKING:
    from .._api.documents import Query
    from ..models import Instance, Status, UserMetadata

_FIELD = core_schema.typed_dict_field(core_schema.any_schema(), required=False)
_ITEM = core_schema.typed_dict_schema({"id": _FIELD, "status": _FIELD, "k8s-labels": _FIELD})
_read_list = SchemaValidator(
    core_schema.list_schema(core_schema.with_default_schema(_ITEM, default=None, on_error="default"))
).validate_json
"""Reads three fields of each item. The definition of the experiment, which is most of an item, is skipped."""

_MAY_PRECEDE_COMPONENTS = frozenset(
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
"""Reasons that leave open whether a component was executed. All others imply that the orchestrator ran."""

_PACKAGE_LABEL = "st4sd-package-name"


@dataclass(frozen=True, slots=True)
class ObservedInstance:
    """What was seen of one instance."""

    rest_uid: str
    package: str | None
    """Name of its package. None means unknown."""
    token: str | None = None
    """The token in its metadata. None means that it has none."""
    has_metadata: bool = False
    """Whether it has metadata. Without metadata it may be the run of any launch."""
    is_over: bool = False
    """Whether a request for it showed that it has ended, by the rules of finality."""
    has_executed: bool | None = None
    """
    Whether it has executed a component. None means unknown.

    False means that a request for it showed neither stages nor metadata, and that the datastore answered and has no
    document of it.
    """


@dataclass(frozen=True)
class InstanceList:
    """What the list of instances shows."""

    instances: Mapping[str, ObservedInstance]
    """By rest-uid."""
    is_readable: bool = True
    """Whether all items could be read. An item without a rest-uid may be any instance."""


def list_call() -> Call[InstanceList]:
    """
    Return the request for the list of instances.

    Source: ``GET instances/`` of the runtime service.
    """
    return Call("GET", "instances/", _parse_list, is_slow=True)


def _parse_list(response: Response) -> InstanceList:
    items = _read_list(response.body)
    readable = [item for item in items if item is not None and is_rest_uid(item.get("id"))]
    if items and all(item is None for item in items):
        raise ValueError("no list of instances")
    return InstanceList({item["id"]: _parse_item(item) for item in readable}, is_readable=len(readable) == len(items))


def _parse_item(item: Mapping[str, Any]) -> ObservedInstance:
    status = _mapping(item.get("status"))
    package = _text(_mapping(item.get("k8s-labels")).get(_PACKAGE_LABEL))
    metadata = _mapping(_mapping(status.get("meta")).get("userMetadata"))
    return ObservedInstance(item["id"], package, _text(metadata.get(METADATA_KEY)), bool(metadata))


def from_status(rest_uid: str, package: str | None, status: Status) -> ObservedInstance:
    """
    Return what the status of an instance shows.

    A status cannot show that the instance executed nothing; only the datastore can. Nor can one status show that it
    is over if only one of the two state fields is final; that takes time.
    """
    metadata = status.meta.user_metadata if status.meta else {}
    return ObservedInstance(
        rest_uid,
        package,
        token=_text(metadata.get(METADATA_KEY)),
        has_metadata=bool(metadata),
        is_over=is_final(status.pair),
        has_executed=True if _may_have_executed(status) else None,
    )


def _may_have_executed(status: Status) -> bool:
    # If the service cannot read the status of a run it makes one up, which never has stages. So stages alone do not do.
    if status.stages or status.total_progress or status.experiment_state == "finished":
        return True
    return status.hint is None or status.hint.reason not in _MAY_PRECEDE_COMPONENTS


def from_instance(instance: Instance) -> ObservedInstance:
    """Return what an instance shows, its package included."""
    return from_status(instance.id, instance.labels.get(_PACKAGE_LABEL), instance.status)


def documents_query(tokens: Iterable[str], rest_uids: Iterable[str]) -> Query:
    """Return the query for the user metadata of runs with one of these tokens or rest-uids."""
    with_token, with_id = {METADATA_KEY: {"$in": sorted(tokens)}}, {"rest-uid": {"$in": sorted(rest_uids)}}
    return {"$or": [with_token, with_id]}


def from_documents(documents: Iterable[UserMetadata]) -> dict[str, ObservedInstance]:
    """Return what the datastore shows of instances by rest-uid, deleted ones included."""
    return {
        document.rest_uid: ObservedInstance(
            document.rest_uid, document.package_name, _text(document.raw.get(METADATA_KEY)), has_metadata=True
        )
        for document in documents
        if document.rest_uid
    }


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None
