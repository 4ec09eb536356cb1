"""What all groups of endpoints are made of."""

from __future__ import annotations

from typing import Protocol, TypeVar

from .._call import Call

T = TypeVar("T")


class Sender(Protocol):
    """Sends a call and returns what its reply means."""

    async def __call__(self, call: Call[T], /) -> T: ...


class Group:
    """A group of endpoints: each method builds a call and sends it."""

    def __init__(self, send: Sender) -> None:
        self._send = send
