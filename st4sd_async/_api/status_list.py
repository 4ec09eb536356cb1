"""The statuses of all instances, read again and again from ``GET instances/`` of the runtime service."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic_core import SchemaValidator, core_schema

from .._http.call import Call, Response
from ..models.rest_uid import is_rest_uid

_FIELD = core_schema.typed_dict_field(core_schema.any_schema(), required=False)
_ITEM = core_schema.typed_dict_schema({"id": _FIELD, "status": _FIELD})
_read_item = SchemaValidator(_ITEM).validate_json
_read_items = SchemaValidator(
    core_schema.list_schema(core_schema.with_default_schema(_ITEM, default=None, on_error="default"))
).validate_json
"""Of each item the id and the status, as they are, None for what is no object; the rest, most of it, is skipped."""

_HEAD, _SEAM, _TAIL = b'[{"id": ', b'}, {"id": ', b"}]"
"""How the service begins, joins and ends its items. The quotes in a seam cannot stand inside a JSON text."""


def objects(items: list[dict[str, Any] | None]) -> list[dict[str, Any]]:
    """Return the items that are objects, None standing for another; raise ValueError if there are only others."""
    found = [item for item in items if item is not None]
    if items and not found:
        raise ValueError("no list of instances")
    return found


class StatusList:
    """
    Reads the list. An item that is, byte for byte, as it was the last time is not decoded again.

    Most of thousands of runs do not change between two looks, and decoding a list of 10,000 would
    keep everything else in the event loop waiting for a second, each time.
    """

    def __init__(self) -> None:
        self._known: dict[int, dict[str, Any]] = {}
        """Hash of an item's bytes -> what was read from it."""

    def call(self) -> Call[dict[str, Any]]:
        """
        Return the statuses as the list has them: rest-uid -> the raw status, None if there is none.

        An item without a rest-uid, or that is not an object, is left out: no run can be asked for by it. If none is
        an object, it is not the list.
        """
        return Call("GET", "instances/", self._read, is_slow=True)

    def _read(self, response: Response) -> dict[str, Any]:
        items = self._pieced(response.body.strip())
        if items is None:
            items = _read_items(response.body)
        return {item["id"]: item.get("status") for item in objects(items) if is_rest_uid(item.get("id"))}

    def _pieced(self, body: bytes) -> list[dict[str, Any] | None] | None:
        """The items, read one by one; None if the body is written in another way."""
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
    """What stands between head, seams and tail, one at a time: of a list of 10,000 a copy would be 50 MB."""
    start, last = len(_HEAD), len(body) - len(_TAIL)
    while (seam := body.find(_SEAM, start, last)) >= 0:
        yield body[start:seam]
        start = seam + len(_SEAM)
    yield body[start:last]
