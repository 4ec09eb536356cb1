"""
Read a response that is a JSON list item by item, while it arrives.

The list of all instances may have hundreds of megabytes, of which a few items are wanted. So neither its text nor its
items are kept: an `ItemReader` takes the text of one item at a time, and keeps what it wants. `ListScanner` finds where
items begin and end. `ListBody` is the body of a response; most of a long one is scanned in a worker thread, so that it
does not block the event loop.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from enum import Enum, auto
from typing import Generic, Protocol, TypeVar

import anyio.lowlevel

from .._util.threads import in_thread

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

LOOP_BLOCK_BYTES = 1 << 18
"""How much of a list is scanned at once in the event loop: 60 items, which may take 0.5 ms each."""

MAX_LOOP_BYTES = 8 << 20
"""How much of a list is scanned in the event loop. What follows is scanned in a worker thread."""

BLOCK_BYTES = 1 << 20
"""How much of a list is scanned at once in a worker thread, at least."""

MAX_LIST_BYTES = 1 << 30
"""Longest list of which only wanted items are kept: that of 250,000 runs."""

MAX_ITEM_BYTES = 16 << 20
"""Longest item of such a list. Source: Kubernetes stores no object above 1.5 MB."""

MAX_HEAD_BYTES = (1 << 18) + 1
"""How much of the beginning of a list is kept for error messages: one byte more than they search for secrets."""

COUNTED_BYTES = 1 << 16
"""An item of this length without a separator after it is split off by its brackets before the next block arrives."""

MAX_JSON_DEPTH = 200
"""Nesting limit of the fast JSON parser."""

_SPACE = re.compile(rb"[ \t\n\r]*+")
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)
_UP_TO_BRACKET = re.compile(rb'(?:[^"\[\]{}]++|"(?:[^"\\]++|\\.)*+")*+([\[\]{}]?)', re.DOTALL)
"""What is between two brackets, strings included, and the bracket."""
_SEPARATOR = re.compile(rb'\}[ \t\n\r]*+,[ \t\n\r]*+(\{)[ \t\n\r]*+"[^"\\]{,100}+"[ \t\n\r]*+:')
"""The end of an object and the beginning of the next one, up to its first value."""
_WORD = re.compile(rb"[^ \t\n\r,\]]++")
"""A number, true, false, null or NaN."""


class ItemReader(Protocol[T_co]):
    """Takes the items of a list, one after the other, and returns what it made of them."""

    def add(self, text: bytes, /) -> None:
        """
        Take the next item.

        Raises:
            ValueError: The text is not valid JSON. Then the item was not taken, and another text may be tried.
        """

    def end(self) -> T_co:
        """
        Return the result, after the last item.

        Raises:
            ValueError: It is not a list of the expected items.
        """


def read_list(reader: ItemReader[T], body: bytes) -> T:
    """Return what a reader makes of a list; raise ValueError if it is not a JSON list."""
    scanner = ListScanner(reader)
    scanner.feed(body)
    scanner.end()
    return reader.end()


class _Next(Enum):
    """What comes next in the text of a list."""

    LIST = auto()
    FIRST_ITEM_OR_END = auto()
    ITEM = auto()
    COMMA_OR_END = auto()
    NOTHING = auto()


_TRANSITIONS = {
    (_Next.LIST, b"["): _Next.FIRST_ITEM_OR_END,
    (_Next.FIRST_ITEM_OR_END, b"]"): _Next.NOTHING,
    (_Next.COMMA_OR_END, b","): _Next.ITEM,
    (_Next.COMMA_OR_END, b"]"): _Next.NOTHING,
}


class ListScanner:
    """
    Splits the text of a JSON list, which comes in blocks, into its items. It keeps only the item that is incomplete.

    An item ends at the next separator, ``}, {"id": `` in the format of the service, unless the text up to there is not
    valid JSON. A separator cannot be part of a string, whose quotes are escaped. In a list in another format, the first
    item is split off by its brackets, which is slow, and what follows it is the separator.
    """

    def __init__(self, reader: ItemReader[object]) -> None:
        self._add = reader.add
        self._next = _Next.LIST
        self._incomplete = b""
        self._separator = b'}, {"id": '
        """What separates two items; at first that of the service."""
        self._separator_end = 3
        """Where the next item begins in the separator."""
        self._is_learned = False

    @property
    def incomplete_bytes(self) -> int:
        """Length of the incomplete item."""
        return len(self._incomplete)

    def feed(self, block: bytes, *, is_last: bool = False) -> None:
        """Take the next block; raise ValueError if this is not a JSON list."""
        text = self._incomplete + block if self._incomplete else block
        at, separator_from = 0, 0
        while (at := _skip_space(text, at)) < len(text):
            following = _TRANSITIONS.get((self._next, text[at : at + 1]))
            if following is not None:
                self._next, at = following, at + 1
                continue
            if self._next not in (_Next.FIRST_ITEM_OR_END, _Next.ITEM):
                raise ValueError("not a JSON list")
            if at >= separator_from:
                at, separator_from = self._take_separated(text, at)
                is_separated = separator_from < len(text)
                if not is_separated and is_last and self._take_last(text, at):
                    return
                if not is_separated and not is_last and len(text) - at <= COUNTED_BYTES:
                    break  # the separator is probably in the next block
            end = _end_of_value(text, at)
            if end is None:
                break
            try:
                self._add(text[at:end])
            except ValueError:
                raise ValueError("an item is not JSON") from None
            self._next, at = _Next.COMMA_OR_END, end
            if found := _SEPARATOR.match(text, end - 1):
                separator_from = separator_from if self._is_learned else 0
                self._separator, self._separator_end = found[0], found.start(1) - found.start()
                self._is_learned = True
        self._incomplete = text[at:]

    def end(self) -> None:
        """Raise ValueError unless the list is complete."""
        self.feed(b"", is_last=True)
        if self._next is not _Next.NOTHING:
            raise ValueError("the list is incomplete")

    def _take_separated(self, text: bytes, at: int) -> tuple[int, int]:
        """
        Take the items that end at a separator.

        Returns:
            Where the first other item begins, and from where on to look for a separator again.
        """
        while (end := text.find(self._separator, at)) >= 0:
            try:
                self._add(text[at : end + 1])
            except ValueError:  # the separator is inside of the item, or the item is invalid
                return at, end + 1
            self._next, at = _Next.ITEM, end + self._separator_end
        return at, len(text)

    def _take_last(self, text: bytes, at: int) -> bool:
        """Take what remains, if that is one item and the end of the list; return whether it is."""
        remaining = text[at:].rstrip(b" \t\n\r")
        if not remaining.endswith(b"]"):
            return False
        try:
            self._add(remaining[:-1])
        except ValueError:
            return False
        self._next, self._incomplete = _Next.NOTHING, b""
        return True


def _skip_space(text: bytes, at: int) -> int:
    found = _SPACE.match(text, at)
    assert found is not None
    return found.end()


def _end_of_value(text: bytes, at: int) -> int | None:
    """
    Return where a JSON value ends that begins here; None if it is incomplete.

    Raises:
        ValueError: There is no value, or it is nested too deeply.
    """
    first = text[at : at + 1]
    if first in (b"{", b"["):
        return _end_of_brackets(text, at)
    if first == b'"':
        found = _STRING.match(text, at)
        return found.end() if found else None
    found = _WORD.match(text, at)
    if found is None:
        raise ValueError("an item is missing")
    return found.end() if found.end() < len(text) else None


def _end_of_brackets(text: bytes, at: int) -> int | None:
    """Return where the bracket is closed that is opened here; None if it is not."""
    depth = 0
    while depth <= MAX_JSON_DEPTH:
        found = _UP_TO_BRACKET.match(text, at)
        assert found is not None
        if not found[1]:
            return None
        depth += 1 if found[1] in (b"{", b"[") else -1
        at = found.end()
        if depth == 0:
            return at
    raise ValueError("nested too deeply")


class ListBody(Generic[T]):
    """
    The body of one response that is read as a list.

    Args:
        reader: Takes the items. It is called in a worker thread too, but never in two threads at once.
        max_body_bytes: Longest body that is read into memory. A body that is not a list is read up to there.
        max_list_bytes: Longest list of which only wanted items are kept. None means that the list is a body that is
            read into memory.
        now: Returns the time, for `arrived_at`.
    """

    def __init__(
        self,
        reader: ItemReader[T],
        max_body_bytes: int,
        max_list_bytes: int | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._reader, self._scanner = reader, ListScanner(reader)
        self.max_bytes = max_list_bytes or max_body_bytes
        """Longest list."""
        self.too_long = f"more than {self.max_bytes} bytes"
        """The problem of a body that is too long."""
        self.is_too_long = False
        """Whether it is."""
        self._max_body_bytes = max_body_bytes
        self._max_item_bytes = max_body_bytes
        if max_list_bytes is not None:
            self._max_item_bytes = max(COUNTED_BYTES, min(max_body_bytes, MAX_ITEM_BYTES))
        self._pending: list[bytes] = []
        self._pending_bytes = self._size = 0
        self._head = bytearray()
        self._failure: Exception | None = None
        self._now = now
        self.arrived_at: float | None = None
        """When the first piece arrived; None before that."""

    @property
    def has_begun(self) -> bool:
        """Whether there is a first piece."""
        return self._size > 0

    @property
    def head(self) -> bytes:
        """The beginning of the body, for error messages."""
        return bytes(self._head)

    async def add(self, piece: bytes) -> bool:
        """Take the next piece of the body; return whether more is wanted."""
        if self.arrived_at is None:
            self.arrived_at = self._now()
        self._size += len(piece)
        self._head += piece[: MAX_HEAD_BYTES - len(self._head)]
        if self._size > self.max_bytes:
            self.is_too_long = True
        elif self._failure is None:
            await self._take(piece)
        # What is not a list is read on like any other body, so that a cut one is noticed.
        return not self.is_too_long and (self._failure is None or self._size <= self._max_body_bytes)

    async def _take(self, piece: bytes) -> None:
        self._pending.append(piece)
        self._pending_bytes += len(piece)
        total = self._pending_bytes + self._scanner.incomplete_bytes
        if self._pending_bytes >= self._block_bytes or total > self._max_item_bytes:
            await self.scan()
            if self._scanner.incomplete_bytes > self._max_item_bytes:
                self.is_too_long = True
                self.too_long = f"an item of more than {self._max_item_bytes} bytes"

    @property
    def _is_short(self) -> bool:
        return self._size <= MAX_LOOP_BYTES

    @property
    def _block_bytes(self) -> int:
        # An incomplete item is scanned again only when it has become twice as long.
        return max(LOOP_BLOCK_BYTES if self._is_short else BLOCK_BYTES, self._scanner.incomplete_bytes)

    async def scan(self) -> None:
        """Scan the pieces that were not scanned yet. Call it after the last one, too."""
        text = b"".join(self._pending)
        self._pending, self._pending_bytes = [], 0
        if not self._is_short:
            await in_thread(self._scan_block, text)
            return
        begin = 0
        while begin < len(text):
            end = begin + self._block_bytes
            self._scan_block(text[begin:end])
            begin = end
            await anyio.lowlevel.checkpoint()

    def _scan_block(self, block: bytes) -> None:
        try:
            if self._failure is None:
                self._scanner.feed(block)
        except Exception as error:  # raised by `result`
            self._failure = error.with_traceback(None)

    def result(self) -> T:
        """Return what the reader made of the list; raise ValueError if it is not a JSON list."""
        if self._failure is not None:
            raise self._failure
        self._scanner.end()
        return self._reader.end()
