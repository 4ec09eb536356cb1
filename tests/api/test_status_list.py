"""Reading the statuses of watched runs out of the list of instances."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from st4sd_async import DecodeError
from st4sd_async._api.status_list import ListedStatuses, StatusList
from st4sd_async._http.call import Response, parse_response

SEAM = '}, {"id": '
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.sampled_from([SEAM, '\\"', "}]", "é\n"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["id", "status", "a"]), inner, max_size=3)
    ),
    max_leaves=8,
)
items = st.lists(
    st.fixed_dictionaries({"id": st.sampled_from("abcdef")}, optional={"status": values, "outputs": values})
)


def read(listing: StatusList, body: bytes, wanted: Collection[str] = "abcdef") -> ListedStatuses:
    """What a list with this body shows of these instances."""
    return parse_response(listing.call(wanted), "url", Response(200, {"content-type": "application/json"}, body))


def expected(body: bytes, wanted: Collection[str] = "abcdef") -> dict[str, Any]:
    """The statuses, read in the plainest way."""
    return {
        item["id"]: item.get("status")
        for item in json.loads(body)
        if isinstance(item.get("id"), str) and item["id"] in wanted
    }


@pytest.mark.slow
@pytest.mark.timeout(60)
@given(
    st.lists(
        st.tuples(
            items,
            st.sets(st.sampled_from("abcdef")),
            st.sampled_from([None, (",", ":")]),
            st.sampled_from([None, 1]),
        ),
        max_size=4,
    )
)
def test_the_list_is_parsed_like_json(lists: list[tuple[list[Any], set[str], Any, int | None]]) -> None:
    """In any format, with any content, whatever is wanted, and after any earlier list."""
    listing = StatusList()
    for one, wanted, separators, indent in lists:
        body = json.dumps(one, separators=separators, indent=indent).encode() + b"\n"

        assert read(listing, body, wanted).statuses == expected(body, wanted)


def test_an_unchanged_item_is_not_parsed_again() -> None:
    """The same object is returned, so that nothing has to be compared."""
    listing = StatusList()
    first = read(listing, b'[{"id": "a", "status": {"x": 1}}, {"id": "b", "status": {"x": 1}}, {"id": "c"}]').statuses

    second = read(listing, b'[{"id": "b", "status": {"x": 2}}, {"id": "a", "status": {"x": 1}}]\n').statuses

    assert second == {"a": {"x": 1}, "b": {"x": 2}}
    assert second["a"] is first["a"]
    assert first["c"] is None


def test_only_wanted_statuses_are_kept() -> None:
    """An unchanged item is parsed once it is wanted, and no longer kept when it is not; all are counted."""
    listing = StatusList()
    body = b'[{"id": "a", "status": {"x": 1}}, {"id": "b", "status": {"x": 2}}, {"id": 1}, {}]'

    for wanted in ("a", "b", "", "ab", "c"):
        listed = read(listing, body, wanted)

        assert listed.statuses == expected(body, wanted)
        assert listed.total == 2
        assert [item["id"] for item in listing._wanted.values()] == [name for name in "ab" if name in wanted]


def test_nothing_is_kept_once_it_is_cleared() -> None:
    """Nor is anything missing from the next list."""
    listing = StatusList()
    body = b'[{"id": "a", "status": {"x": 1}}, {"id": "b"}]'
    read(listing, body, "a")

    listing.clear()

    assert (listing._wanted, listing._others) == ({}, {})
    assert read(listing, body, "a").statuses == {"a": {"x": 1}}


@pytest.mark.parametrize(
    "body",
    [b'[{"id": "a", "status": {"x": [{"y": 1}, {"id": 5}]}}, {"id": "b", "status": null}]', b"[]", b"[{}]",
     b'[{"id": null}, {"id": 5, "status": {}}]', b'[{"id": "a", "status": {"x": NaN}}]',
     b'[{"id": "a"}, {"status": 1, "id": "b"}]', b'[{"id": "a", "status": 1, "id": "b", "status": 2}]'],
    ids=["an item inside an item", "empty", "nothing in it", "no rest-uid", "not a number", "another order",
         "the same key again"],
)  # fmt: skip
def test_lists_in_another_format_are_parsed_too(body: bytes) -> None:
    """The service may change how it formats its JSON."""
    assert repr(read(StatusList(), body).statuses) == repr(expected(body))


@pytest.mark.parametrize("body", [b'[1, {"id": "a"}]', b'[{"id": "a"}, null, "x"]', b"[[], {}]"])
def test_items_that_are_not_objects_are_left_out(body: bytes) -> None:
    """Unless no item is an object."""
    assert set(read(StatusList(), body).statuses) <= {"a"}


@pytest.mark.parametrize(
    "body",
    [b"", b"{}", b"[1]", b'[{"id": "a"}, {"id": "b"', b"<html>", b'[{"id": "a"}x]', b'[{"id": "z"}, {"id": x}]'],
    ids=str,
)
def test_a_body_that_is_not_a_list_is_an_error(body: bytes) -> None:
    """Half a body, a page, another shape, wanted or not; earlier items are still valid for the next list."""
    listing = StatusList()
    read(listing, b'[{"id": "a", "status": {"x": 1}}]')

    with pytest.raises(DecodeError):
        read(listing, body)

    assert read(listing, b'[{"id": "a", "status": {"x": 1}}]').statuses == {"a": {"x": 1}}
