"""The statuses of watched instances, from ``GET instances/`` of the runtime service, parsed fast enough for polling."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from typing import Any, NamedTuple

from pydantic_core import SchemaValidator, core_schema

from .._http.call import Call, list_call
from .._http.json_list import MAX_LIST_BYTES
from ..models.runs import is_rest_uid


def item_schema(*fields: str) -> core_schema.CoreSchema:
    """Return the schema of an item of which some fields are kept, unchanged; None for one that is not an object."""
    kept = {name: core_schema.typed_dict_field(core_schema.any_schema(), required=False) for name in fields}
    return core_schema.with_default_schema(core_schema.typed_dict_schema(kept), default=None, on_error="default")


_read_item = SchemaValidator(item_schema("id", "status")).validate_json


class ListedStatuses(NamedTuple):
    """What a list shows."""

    statuses: dict[str, Any]
    """The raw statuses of the wanted instances, by rest-uid; None for an instance without a status."""
    total: int
    """Number of all instances."""


class StatusList:
    """
    Parser of the list that keeps the statuses of wanted instances, and skips items that have not changed.

    Most of thousands of runs do not change between two lists. Parsing a list of 10,000 would take a second each time.
    Of an instance that is not wanted it keeps two numbers.
    """

    def __init__(self) -> None:
        self._wanted: dict[int, dict[str, Any]] = {}
        """Hash of an item's text -> the parsed item."""
        self._others: dict[int, int] = {}
        """Hash of the text of an item that was not wanted -> hash of its rest-uid."""

    def call(self, wanted: Collection[str]) -> Call[ListedStatuses]:
        """
        Return the request for the list.

        Items without a valid rest-uid are left out. If no item is an object, decoding fails.

        Args:
            wanted: The rest-uids of the instances whose statuses are kept.
        """
        reader = partial(_StatusReader, self, frozenset(wanted))
        return list_call("instances/", reader, max_list_bytes=MAX_LIST_BYTES, is_slow=True)

    def clear(self) -> None:
        """Forget the last list."""
        self._wanted, self._others = {}, {}


class _StatusReader:
    """Takes the items of one list, and compares them with those of the last one."""

    def __init__(self, known: StatusList, wanted: frozenset[str]) -> None:
        self._known = known
        self._names, self._hashes = wanted, {hash(rest_uid) for rest_uid in wanted}
        self._wanted: dict[int, dict[str, Any]] = {}
        self._others: dict[int, int] = {}
        self._statuses: dict[str, Any] = {}
        self._nameless = self._foreign = 0
        """Number of items without a rest-uid, and of those that are not objects."""

    def add(self, text: bytes, /) -> None:
        """Take the next item."""
        fingerprint = hash(text)
        item = self._known._wanted.get(fingerprint)
        if item is None:
            other = self._known._others.get(fingerprint)
            if other is not None and other not in self._hashes:
                self._others[fingerprint] = other
                return
            item = _read_item(text)
            if item is None:
                self._foreign += 1
                return
            if not is_rest_uid(item.get("id")):
                self._nameless += 1
                return
        rest_uid: str = item["id"]
        if rest_uid in self._names:
            self._wanted[fingerprint] = item
            self._statuses[rest_uid] = item.get("status")
        else:
            self._others[fingerprint] = hash(rest_uid)

    def end(self) -> ListedStatuses:
        """Return what the list shows."""
        total = len(self._wanted) + len(self._others)
        if self._foreign and not total and not self._nameless:
            raise ValueError("not a list of instances")
        self._known._wanted, self._known._others = self._wanted, self._others
        return ListedStatuses(self._statuses, total)
