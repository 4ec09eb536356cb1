"""Whether two statuses say the same, and that the large field is compared last."""

from __future__ import annotations

from typing import Any

import pytest

from st4sd_async import Status
from st4sd_async.models.runs import is_same_item

RUNNING = {"experiment-state": "running", "exit-status": "N/A", "error-description": "", "total-progress": 0.5}


class Untouched(dict[str, Any]):
    """A large field that must not be compared."""

    def __eq__(self, other: object) -> bool:
        raise AssertionError("it was compared")

    __hash__ = None


def untouched(progress: float) -> dict[str, Any]:
    """Return a status with its large field first, as the service sends it."""
    return {"experiment-state": "running", "exit-status": "N/A", "meta": Untouched(), "total-progress": progress}


def test_a_change_is_found_without_comparing_meta() -> None:
    """Both among the items of a list, and among statuses; a list has thousands of these."""
    one, other = untouched(0.5), untouched(0.6)

    assert not is_same_item(one, other)
    assert not Status.model_validate(one).says_like(Status.model_validate(other))


@pytest.mark.parametrize(
    ("change", "is_like"),
    [
        ({}, True),
        ({"error-description": None}, True),
        ({"stages": []}, True),
        ({"stages": None, "stage-state": ""}, True),
        ({"warning": "no status", "message": "later"}, True),
        ({"meta": {}}, True),
        ({"total-progress": 0.6}, False),
        ({"total-progress": 0}, False),
        ({"total-progress": None}, False),
        ({"stage-progress": 0}, False),
        ({"error-description": "it failed"}, False),
        ({"exit-status": ""}, False),
        ({"meta": {"pid": 1}}, False),
        ({"new": {"field": 1}}, False),
    ],
    ids=str,
)
def test_null_empty_and_missing_are_the_same(change: dict[str, Any], is_like: bool) -> None:
    """But zero is a value, and a field that this client does not know counts."""
    one, other = Status.model_validate(RUNNING), Status.model_validate(RUNNING | change)

    assert one.says_like(other) is is_like
    assert other.says_like(one) is is_like


@pytest.mark.parametrize(
    "other", [None, {}, {"meta": {"pid": 1}}, {"meta": {"pid": 2}, "total-progress": None}], ids=str
)
def test_items_are_the_same_only_if_they_are_equal(other: dict[str, Any] | None) -> None:
    """Null and missing differ here, since the item of a list is kept as it is."""
    item = {"meta": {"pid": 2}}

    assert is_same_item(item, {"meta": {"pid": 2}})
    assert is_same_item(None, None)
    assert not is_same_item(item, other)
    assert not is_same_item(other, item)
