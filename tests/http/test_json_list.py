"""Splitting a JSON list that arrives in pieces into its items."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import anyio
import pydantic_core
import pytest
from hypothesis import given
from hypothesis import strategies as st

from st4sd_async._http.call import parse_json
from st4sd_async._http.json_list import BLOCK_BYTES, LOOP_BLOCK_BYTES, MAX_LOOP_BYTES, ListBody, ListScanner, read_list
from tests.tries import tries

TEXTS = ['}, {"id": ', "},{", '\\"', "\\", "]", "[{", "é\n", "\ud800", "😀", ",", "}]"]
KEYS = st.sampled_from(["id", "status", "a", "", '"'])
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(TEXTS)
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3), max_leaves=8
)
ITEMS = st.lists(VALUES | st.dictionaries(KEYS, VALUES, max_size=3), max_size=8)
FORMATS = st.sampled_from(
    [
        {},
        {"separators": (",", ":")},
        {"indent": 1},
        {"indent": "\t\r"},
        {"separators": (" ,\n", " :"), "ensure_ascii": False},
    ]
)


class Collected:
    """Takes each item as a value."""

    def __init__(self) -> None:
        self.items: list[Any] = []

    def add(self, text: bytes, /) -> None:
        self.items.append(parse_json(text))

    def end(self) -> list[Any]:
        return self.items


def blocks(text: bytes, borders: list[int]) -> Iterator[bytes]:
    """A text, cut at these places."""
    places = sorted({0, len(text), *(border % (len(text) + 1) for border in borders)})
    return (text[begin:end] for begin, end in pairwise(places))


def scan(text: bytes, borders: list[int]) -> list[Any]:
    """The items of a list that is cut at these places."""
    collected = Collected()
    scanner = ListScanner(collected)
    for block in blocks(text, borders):
        scanner.feed(block)
    scanner.end()
    return collected.end()


@pytest.mark.slow
@pytest.mark.timeout(60)
@given(ITEMS, FORMATS, st.lists(st.integers(0, 1000), max_size=5))
def test_the_items_are_those_of_json(items: list[Any], form: dict[str, Any], borders: list[int]) -> None:
    """In any format, with any content, wherever it is cut."""
    text = json.dumps(items, **form).encode("utf-8", "surrogatepass")
    if not form.get("ensure_ascii", True):
        text = text.replace("\ud800".encode("utf-8", "surrogatepass"), b"\\ud800")

    assert repr(scan(b" \n" + text + b"\r\n\t ", borders)) == repr(json.loads(text))


@pytest.mark.slow
@pytest.mark.timeout(60)
@given(
    ITEMS,
    FORMATS,
    st.lists(st.integers(0, 1000), max_size=3),
    st.integers(0, 1000),
    st.integers(0, 2),
    st.sampled_from([b"", *(bytes([char]) for char in b'"\\{}[],: 1x\x00\xff')]),
)
def test_a_text_that_is_not_json_is_an_error(
    items: list[Any], form: dict[str, Any], borders: list[int], place: int, length: int, other: bytes
) -> None:
    """A few bytes replaced, left out or added: it is an error exactly if the whole text is one."""
    text = json.dumps(items, **{**form, "ensure_ascii": True}).encode()
    place %= len(text) + 1
    text = text[:place] + other + text[place + length :]
    try:
        expected = parse_json(text)
    except ValueError:
        expected = None

    if isinstance(expected, list):
        assert repr(scan(text, borders)) == repr(expected)
    else:
        with pytest.raises(ValueError):  # noqa: PT011 -- the session words the error
            scan(text, borders)


NO_LISTS = [b"", b" ", b"{}", b'{"message": "[1]"}', b"1", b'"["', b"<html>", b"[", b"[1", b"[1]]", b"[1,]", b"[,1]",
            b"[1 2]", b"[1]x", b"[}", b"[{]", b"[{}", b'["', b'["\\"]', b"\xef\xbb\xbf[]"]  # fmt: skip


@pytest.mark.parametrize("text", NO_LISTS, ids=repr)
def test_what_is_not_a_list_is_an_error(text: bytes) -> None:
    """Half a list, an object, a page, a byte order mark."""
    with pytest.raises(ValueError):  # noqa: PT011
        read_list(Collected(), text)
    with pytest.raises(ValueError):  # noqa: PT011
        scan(text, list(range(len(text))))


def test_brackets_are_counted_as_deep_as_json_may_be_nested() -> None:
    """Deeper ones end the scan, before a long text of brackets takes long."""
    depth = 190
    assert read_list(Collected(), b"[" * depth + b"]" * depth)
    with pytest.raises(ValueError, match="deep"):
        read_list(Collected(), b"[" * 1000)


@pytest.mark.slow
def test_a_long_item_is_not_scanned_again_for_each_piece() -> None:
    """The number of bytes scanned is proportional to the length, whatever the pieces."""
    scanned = 0

    class Counted(ListScanner):
        def feed(self, block: bytes, *, is_last: bool = False) -> None:
            nonlocal scanned
            scanned += self.incomplete_bytes + len(block)
            super().feed(block, is_last=is_last)

    text = b'["' + b"x" * (8 * BLOCK_BYTES) + b'"]'
    body = ListBody(Collected(), 1 << 30)
    body._scanner = Counted(body._reader)

    async def run() -> list[Any]:
        for begin in range(0, len(text), 10_000):
            assert await body.add(text[begin : begin + 10_000])
        await body.scan()
        return body.result()

    assert anyio.run(run) == [pydantic_core.from_json(text)[0]]
    assert scanned < 3 * len(text)


@pytest.mark.anyio
async def test_most_of_a_long_list_is_scanned_in_a_thread() -> None:
    """The event loop scans only its beginning, and that in blocks; a short list needs no thread."""
    item = b'{"id": "%s"}' % (b"x" * 10_000)
    work: list[tuple[bool, int]] = []

    class Measured(ListBody[list[Any]]):
        def _scan_block(self, block: bytes) -> None:
            work.append((threading.current_thread() is threading.main_thread(), len(block)))
            super()._scan_block(block)

    body = Measured(Collected(), 1 << 30)
    await body.add(b"[")
    for _ in range(4 * MAX_LOOP_BYTES // len(item)):
        await body.add(item + b",")
    await body.add(b"1]")
    await body.scan()

    assert len(body.result()) == 4 * MAX_LOOP_BYTES // len(item) + 1
    in_loop = [length for is_loop, length in work if is_loop]
    assert sum(in_loop) <= MAX_LOOP_BYTES
    assert max(in_loop) <= LOOP_BLOCK_BYTES
    assert len(work) < len(in_loop) + 4 * MAX_LOOP_BYTES // BLOCK_BYTES


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("text", "max_body_bytes", "max_list_bytes", "too_long"),
    [
        (b"[" + b" " * 300_000, 200_000, None, "more than 200000 bytes"),
        (b"[" + b"1," * 150_000, 1000_000, 200_000, "more than 200000 bytes"),
        (b"x" * 300_000, 1000_000, 200_000, "more than 200000 bytes"),
        (b'["' + b"x" * 300_000, 200_000, 1000_000, "an item of more than 200000 bytes"),
        (b"[" + b"x" * 300_000, 200_000, 1000_000, "an item of more than 200000 bytes"),
        (b"x" * 300_000, 200_000, 1000_000, None),
    ],
    ids=["a list that is kept", "items", "no list", "a string", "a word", "no list, which is read no further"],
)
async def test_reading_stops_at_a_limit(
    text: bytes, max_body_bytes: int, max_list_bytes: int | None, too_long: str | None
) -> None:
    """A list, an item, and a text that is not a list have one each."""
    body = ListBody(Collected(), max_body_bytes, max_list_bytes)

    wants_more = [await body.add(text[begin : begin + 50_000]) for begin in range(0, 250_000, 50_000)]

    assert wants_more == [True, True, True, True, False]
    assert (body.too_long if body.is_too_long else None) == too_long


@pytest.mark.slow
@pytest.mark.anyio
async def test_many_short_items_may_be_longer_than_one() -> None:
    """The limit of an item does not limit the list."""
    body, count = ListBody(Collected(), 20, 1_000_000), tries(200_000, 50_000)

    assert await body.add(b"[" + b"1," * count)
    assert await body.add(b"1]")
    await body.scan()

    assert len(body.result()) == count + 1
