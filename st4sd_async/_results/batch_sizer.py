"""Which files to ask a gateway for together, when nobody knows how large they are."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Hashable, Iterable
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)

FEW = 32
"""Things that may be large and are shared out; a request costs about as much as so many small files."""
ENOUGH = 200
"""Things of many that make a request worth while."""


class Pile(Generic[T]):
    """
    Things to be fetched by several workers, each some at a time.

    A gateway answers with as many as fit into an answer, in silence about the rest [34]. Few things, which
    may be large, are shared out among the workers from the first; of many, hundreds go into each answer.
    Whenever some are left out, as many as came is taken for what fits, and they are asked for again; when
    none comes, not even one of them fits by itself, or they are not there.
    """

    def __init__(self, things: Iterable[T], *, workers: int, most: int) -> None:
        self._left = deque(things)
        self._most = most
        self._asked = 0
        share = -(-len(self._left) // workers)
        self._room = max(1, min(most, share if len(self._left) <= FEW else max(share, ENOUGH)))
        self.hopeless: list[T] = []
        """What does not come this way."""

    @property
    def is_over(self) -> bool:
        """Whether nothing is left, and nobody waits for an answer that may leave something out."""
        return not self._left and not self._asked

    def take(self) -> list[T]:
        """What to ask for next; [] if nothing is left now."""
        taken = [self._left.popleft() for _ in range(min(self._room, len(self._left)))]
        self._asked += bool(taken)
        return taken

    def settle(self, asked: Collection[T], came: Collection[T]) -> None:
        """Take note of what became of things that were taken together; what failed for good has come, in a way."""
        self._asked -= 1
        omitted = [one for one in asked if one not in came]
        if not omitted:
            self._room = min(self._most, max(self._room, 2 * len(asked)))
        elif len(omitted) == len(asked):
            self.hopeless += omitted
        else:
            self._room = len(asked) - len(omitted)
            self._left.extendleft(reversed(omitted))

    def give_up(self) -> list[T]:
        """What nobody asked for yet, which is not asked for any more."""
        left = list(self._left)
        self._left.clear()
        return left
