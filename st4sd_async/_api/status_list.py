"""The statuses of all instances, from ``GET instances/`` of the runtime service, parsed fast enough for polling."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic_core import SchemaValidator, core_schema

from .._http.call import Call, Response
from ..models.runs import is_rest_uid

_FIELD = core_schema.typed_dict_field(core_schema.any_schema(), required=False)
_ITEM = core_schema.typed_dict_schema({"id": _FIELD, "status": _FIELD})
_read_item = SchemaValidator(_ITEM).validate_json
_read_items = SchemaValidator(
    core_schema.list_schema(core_schema.with_default_schema(_ITEM, default=None, on_error="default"))
).validate_json
"""Keep only the id and the status of each item, unchanged, and None for an item that is not an object."""

_HEAD, _SEPARATOR, _TAIL = b'[{"id": ', b'}, {"id": ', b"}]"
"""How the service begins, separates and ends items. In a JSON text the quotes of a separator would be escaped."""


def objects(items: list[dict[str, Any] | None]) -> list[dict[str, Any]]:
    """Return the items that are objects; raise ValueError if there are items, but no objects."""
    found = [item for item in items if item is not None]
    if items and not found:
        raise ValueError("not a list of instances")
    return found


class StatusList:
    """
    Parser of the list that skips items whose bytes have not changed since the last list.

    Most of thousands of runs do not change between two lists. Parsing a list of 10,000 would block the event loop for
    a second each time.
    """

    def __init__(self) -> None:
        self._known: dict[int, dict[str, Any]] = {}
        """Hash of an item's bytes -> the parsed item."""

    def call(self) -> Call[dict[str, Any]]:
        """
        Return the request for the raw statuses by rest-uid; None for an instance without a status.

        Items without a valid rest-uid are left out. If no item is an object, decoding fails.
        """
        return Call("GET", "instances/", self._parse, is_slow=True)

    def _parse(self, response: Response) -> dict[str, Any]:
        items = self._split(response.body.strip())
        if items is None:
            items = _read_items(response.body)
        return {item["id"]: item.get("status") for item in objects(items) if is_rest_uid(item.get("id"))}

    def _split(self, body: bytes) -> list[dict[str, Any] | None] | None:
        """Return the items, parsed one by one; None if the body is formatted differently."""
        if not (body.startswith(_HEAD) and body.endswith(_TAIL)):
            return None
        known: dict[int, dict[str, Any]] = {}
        items: list[dict[str, Any] | None] = []
        for piece in _pieces(body):
            fingerprint = hash(piece)
            item = self._known.get(fingerprint)
            if item is None:
                try:
                    item = _read_item(b'{"id": ' + piece + b"}")
                except ValueError:
                    return None
            known[fingerprint] = item
            items.append(item)
        self._known = known
        return items


def _pieces(body: bytes) -> Iterator[bytes]:
    """Yield the bytes between the separators one at a time: a copy of a list of 10,000 would take 50 MB."""
    start, last = len(_HEAD), len(body) - len(_TAIL)
    while (end := body.find(_SEPARATOR, start, last)) >= 0:
        yield body[start:end]
        start = end + len(_SEPARATOR)
    yield body[start:last]
