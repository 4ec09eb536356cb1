"""
One does the work for all who wait for it, without a background task.

The first of those who wait leads: he does the work, the others sleep until there is something for
them. A leader who is done, gives up or is cancelled hands over to another. While nobody waits,
nothing is done.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from math import inf
from typing import TYPE_CHECKING

import anyio

if TYPE_CHECKING:
    from .subscription import Follower


class Turns:
    """Who leads, and who sleeps; for the tasks of one event loop."""

    def __init__(self) -> None:
        self._leader: Follower | None = None
        self._heir: Follower | None = None
        """Who was roused to lead and has not begun yet."""
        self._asleep: dict[Follower, None] = {}

    async def wait(self, follower: Follower, work: Callable[[], Awaitable[None]]) -> None:
        """
        Do the work once, or sleep while another does it; return when something may have changed.

        An error of the work is given to all who wait, not raised.
        """
        with anyio.move_on_after(follower.deadline.left):
            await (self._sleep(follower) if self._leader else self._lead(follower, work))

    async def _sleep(self, follower: Follower) -> None:
        follower.wake = anyio.Event()
        self._asleep[follower] = None
        try:
            await follower.wake.wait()
        finally:
            self._asleep.pop(follower, None)
            if self._heir is follower:
                self._heir = None

    async def _lead(self, follower: Follower, work: Callable[[], Awaitable[None]]) -> None:
        self._leader = follower
        try:
            await work()
        except Exception as error:  # each of those who wait raises it
            for one in (follower, *self._asleep):
                one.end(error)
                self.rouse(one)
        finally:
            self._leader = None
            for late in [one for one in self._asleep if one.deadline.left == 0]:
                self.rouse(late)
            self.hand_over()

    def rouse(self, follower: Follower) -> None:
        """Wake one who sleeps."""
        if follower in self._asleep:
            del self._asleep[follower]
            follower.wake.set()

    def hand_over(self) -> None:
        """
        See to it that somebody leads if somebody sleeps: the one with the most time.

        To be called by whoever stops waiting, for whatever reason.
        """
        if self._leader is None and self._heir is None and self._asleep:
            heir = max(self._asleep, key=lambda follower: follower.deadline.left)
            self.rouse(heir)
            self._heir = heir

    def time_left(self) -> float:
        """Seconds until the time of one who waits is over; infinite if none has an end."""
        waiting = [*self._asleep, self._leader] if self._leader else [*self._asleep]
        return min((follower.deadline.left for follower in waiting), default=inf)
