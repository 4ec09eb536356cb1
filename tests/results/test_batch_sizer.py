"""Dividing files among workers, with a gateway that leaves some out without saying so."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from st4sd_async._results.downloads import BatchSizer

ROOM, MOST = 32, 10
"""What one answer of the simulated gateway holds: a size, and a number of files."""


@dataclass
class Gateway:
    """Answers with as many files as fit, in order, and leaves out those that do not or that it does not have."""

    sizes: list[int | None]
    """The size of each file; None: it is not there."""
    requests: list[int] = field(default_factory=list)
    """How many files each request asked for."""

    def ask(self, wanted: list[int]) -> list[int]:
        """The files that come."""
        assert 0 < len(wanted) <= MOST
        self.requests.append(len(wanted))
        came, left = [], ROOM
        for number in wanted:
            size = self.sizes[number]
            if size is not None and size <= left:
                came.append(number)
                left -= size
        return came


def fetch(gateway: Gateway, workers: int, order: list[int]) -> tuple[Counter[int], list[int]]:
    """What came how often, and what was given up, when workers take turns; their answers come back in any order."""
    sizer = BatchSizer(range(len(gateway.sizes)), workers=workers, max_batch=MOST)
    came: Counter[int] = Counter()
    under_way: deque[list[int]] = deque()
    turns = deque(order)
    while True:
        while len(under_way) < workers and (batch := sizer.next_batch()):
            under_way.append(batch)
        assert sizer.is_done == (not under_way)
        if not under_way:
            return came, sizer.unavailable
        under_way.rotate(turns.popleft() if turns else 0)
        asked = under_way.popleft()
        answer = gateway.ask(asked)
        came.update(answer)
        sizer.record(asked, answer)


@given(
    st.lists(st.one_of(st.none(), st.integers(0, ROOM + 8)), max_size=80),
    st.integers(1, 8),
    st.lists(st.integers(0, 7), max_size=60),
)
def test_each_file_that_fits_alone_comes_once(sizes: list[int | None], workers: int, order: list[int]) -> None:
    """Nothing is lost or comes twice, the rest is known, and each request brings or settles something."""
    gateway = Gateway(sizes)
    fitting = {number for number, size in enumerate(sizes) if size is not None and size <= ROOM}

    came, hopeless = fetch(gateway, workers, order)

    assert came == Counter(fitting)
    assert sorted(hopeless) == sorted(set(range(len(sizes))) - fitting)
    assert len(gateway.requests) <= len(sizes)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=400), st.integers(1, 8))
def test_small_files_come_in_few_requests(sizes: list[int], workers: int) -> None:
    """A request brings all that it asked for, or all but the last of what fits."""
    gateway = Gateway(list(sizes))

    fetch(gateway, workers, [])

    by_number = -(-len(sizes) // MOST)
    by_size = sum(sizes) // (ROOM - 3)  # where something was left out, at least that much came
    assert len(gateway.requests) <= 2 * (by_number + by_size + workers) + 1


@pytest.mark.parametrize(
    ("count", "workers", "most", "shares"),
    [
        (0, 4, 10, []),
        (1, 4, 10, [1]),
        (3, 4, 10, [1, 1, 1]),
        (8, 4, 10, [2, 2, 2, 2]),
        (9, 4, 10, [3, 3, 3]),
        (32, 4, 1000, [8, 8, 8, 8]),
        (33, 4, 1000, [33]),
        (200, 4, 1000, [200]),
        (401, 4, 1000, [200, 200, 1]),
        (1200, 4, 1000, [300, 300, 300, 300]),
        (2500, 2, 1000, [1000, 1000, 500]),
        (7, 1, 1000, [7]),
    ],
)
def test_the_first_shares(count: int, workers: int, most: int, shares: list[int]) -> None:
    """Of few files all workers have some; many come in requests that are worth while, and none asks for too many."""
    sizer = BatchSizer(range(count), workers=workers, max_batch=most)

    taken = list(iter(sizer.next_batch, []))

    assert [len(batch) for batch in taken] == shares
    assert [one for batch in taken for one in batch] == list(range(count))


def test_what_is_left_out_is_asked_for_next() -> None:
    """It is in front, in its order, and as many are asked for as came before."""
    sizer = BatchSizer("abcdefgh", workers=2, max_batch=10)

    sizer.record(sizer.next_batch(), ["b", "d"])

    assert [sizer.next_batch(), sizer.next_batch(), sizer.next_batch(), sizer.next_batch()] == [
        ["a", "c"],
        ["e", "f"],
        ["g", "h"],
        [],
    ]
    assert sizer.unavailable == []


def test_shares_grow_again_up_to_the_most() -> None:
    """After an answer without gaps twice as many are asked for."""
    sizer = BatchSizer(range(100), workers=1, max_batch=12)
    sizer.record(sizer.next_batch(), [0, 1, 2])

    sizes = []
    for _ in range(4):
        batch = sizer.next_batch()
        sizer.record(batch, batch)
        sizes.append(len(batch))

    assert sizes == [3, 6, 12, 12]


def test_what_does_not_come_at_all_is_hopeless() -> None:
    """Not even one of them fits into a response, or they do not exist; the others are still requested."""
    sizer = BatchSizer("abcd", workers=2, max_batch=10)

    sizer.record(sizer.next_batch(), [])

    assert sizer.unavailable == ["a", "b"]
    assert sizer.next_batch() == ["c", "d"]
    assert sizer.next_batch() == []


def test_waiting_items_can_be_cancelled() -> None:
    """Nothing is left then; what comes back later is."""
    sizer = BatchSizer("abcdef", workers=3, max_batch=10)
    batch = sizer.next_batch()

    assert sizer.cancel_waiting() == ["c", "d", "e", "f"]
    assert sizer.cancel_waiting() == sizer.next_batch() == []
    sizer.record(batch, ["a"])
    assert sizer.next_batch() == ["b"]
