"""How many things at once are doing, on standard error: counts and the most telling rows, or a line for each change."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from .._render.cards import counted
from .._util.printable import one_line
from ._exits import say
from ._print import GAP, taken

REFRESHES = 4
"""How often a second the board is drawn."""
FEWEST_ROWS = 3
"""Rows that are shown however low the terminal is."""
NARROW = 72
"""Columns of a terminal below which the details give way to the reasons."""
SHORTEST_WHY = 16
"""Columns that a reason needs at least to be of use."""


class Rank(IntEnum):
    """What a row is about; the most telling first."""

    BAD = 0
    STUCK = 1
    GOES_ON = 2
    WAITS = 3
    GOOD = 4


STYLES = {Rank.BAD: "red", Rank.STUCK: "yellow", Rank.GOES_ON: "cyan", Rank.WAITS: "dim", Rank.GOOD: "green"}
SIGNS = {Rank.GOOD: "\N{FULL BLOCK}", Rank.BAD: "x", Rank.STUCK: "!", Rank.GOES_ON: "\N{MEDIUM SHADE}", Rank.WAITS: "."}
"""What the bar is made of, which must read without colours; in this order."""
PLAIN = {**SIGNS, Rank.GOOD: "#", Rank.GOES_ON: "-"}
"""The same where standard error has an encoding that may lack those."""


@dataclass(frozen=True)
class Row:
    """How one thing is doing."""

    name: str
    state: str
    """The words it is counted by."""
    rank: Rank
    details: tuple[str, ...] = ()
    """What else there is to say, in the order of the board's columns."""
    why: str = ""
    """What is wrong with it, or keeps it."""


Tally = Mapping[tuple[str, Rank], int]
"""State and rank -> how many."""


class Board:
    """
    Rows by name.

    Args:
        noun: What each is, as ``run``.
        name: Header of their names.
        columns: Headers of the details.
        tally: Counts all there are, where there are more than rows.
        passing: Rows that are there as long as this gives them; the others stay.
    """

    def __init__(
        self,
        noun: str,
        name: str,
        columns: Sequence[str],
        tally: Callable[[], Tally] | None = None,
        passing: Callable[[], Iterable[Row]] = tuple,
    ) -> None:
        self._noun, self._name, self._columns = noun, name, columns
        self._rows: dict[str, Row] = {}
        self._changes: dict[str, int] = {}
        self._change = 0
        self._tally, self._passing = tally or self._counted, passing
        self._signs = SIGNS if sys.stderr.encoding.lower().startswith("utf") else PLAIN
        self._began = time.monotonic()

    @property
    def elapsed(self) -> str:
        """How long it has been there, as ``1:02:03``."""
        seconds = int(time.monotonic() - self._began)
        return f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"

    def put(self, row: Row) -> bool:
        """Take a row, in place of an older one; gives whether it says anything new."""
        if self._rows.get(row.name) == row:
            return False
        # In this order, because it is drawn in a thread.
        self._changes[row.name] = self._change = self._change + 1
        self._rows[row.name] = row
        return True

    def _counted(self) -> Tally:
        return Counter((row.state, row.rank) for row in list(self._rows.values()))

    def drawn(self, width: int, height: int) -> Group:
        """The board, made to fit."""
        tally = {what: count for what, count in self._tally().items() if count}
        head = Text(f"{counted(sum(tally.values()), self._noun)}, {self.elapsed}: ")
        order = sorted(tally, key=lambda what: (what[1] is not Rank.GOOD, what[1], what[0]))
        parts = [Text(f"{tally[state, rank]} {one_line(state)}", STYLES[rank]) for state, rank in order]
        head.append_text(Text(", ").join(parts))
        room = max(FEWEST_ROWS, height - 4 - len(head.wrap(Console(width=width), width)))
        rows = list({**self._rows, **{row.name: row for row in self._passing()}}.values())
        if len(rows) <= room:
            return Group(head, _bar(tally, width, self._signs), self._table(rows, width))
        telling = self._telling(rows, room)
        more = Text(_rest(telling[room - 1 :]), "dim", no_wrap=True, overflow="ellipsis")
        return Group(head, _bar(tally, width, self._signs), self._table(telling[: room - 1], width), more)

    def _telling(self, rows: Sequence[Row], room: int) -> list[Row]:
        """The most telling rows first, the newest of those that are alike; what is bad leaves half of the room."""
        newest = sorted(rows, key=lambda row: (row.rank, -self._changes.get(row.name, 0)))
        bad = [row for row in newest if row.rank is Rank.BAD]
        others, rest = newest[len(bad) :], bad[max(1, room // 2) :]
        alive = [row for row in others if row.rank is not Rank.GOOD]
        return [*bad[: len(bad) - len(rest)], *alive, *rest, *others[len(alive) :]]

    def _table(self, rows: Sequence[Row], width: int) -> Table:
        columns = [self._name, "state", *(self._columns if width >= NARROW else ())]
        lines = [[*map(one_line, (row.name, row.state, *row.details))][: len(columns)] for row in rows]
        room = width - taken(columns, lines)
        table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="bold")
        for column in columns:
            table.add_column(column, overflow="fold")
        has_why = room >= SHORTEST_WHY and any(row.why for row in rows)
        if has_why:
            table.add_column("why", no_wrap=True)
        for row, cells in zip(rows, lines, strict=True):
            why = Text(one_line(row.why))
            why.truncate(max(0, room), overflow="ellipsis" if self._signs is SIGNS else "crop")
            table.add_row(*map(Text, cells), *([why] if has_why else []), style=STYLES[row.rank])
        return table


def _rest(rows: Sequence[Row]) -> str:
    counts = Counter(row.state for row in rows)
    return f"... and {len(rows)} more: " + ", ".join(f"{count} {one_line(state)}" for state, count in counts.items())


def _bar(tally: Tally, width: int, signs: Mapping[Rank, str]) -> Text:
    """A line with a part for each rank; what there is at all is seen."""
    counts = Counter[Rank]()
    for (_, rank), count in tally.items():
        counts[rank] += count
    total, bar = sum(counts.values()), Text(no_wrap=True, overflow="crop")
    for rank, sign in signs.items():
        bar.append(sign * (max(1, width * counts[rank] // total) if counts[rank] else 0), STYLES[rank])
    return bar


@contextmanager
def shown(board: Board, *, is_data_here: bool = False) -> Generator[Callable[[Row], object]]:
    """
    Show a board while the block goes on; gives what takes the rows.

    Args:
        board: What to show.
        is_data_here: Whether data go to standard output meanwhile; in the same terminal they say it all.
    """
    if is_data_here and sys.stdout.isatty():
        yield board.put
        return
    if not is_live():
        yield lambda row: say(line(board, row)) if board.put(row) else None
        return
    console = Console(stderr=True, highlight=False)
    with Live(
        console=console,
        get_renderable=lambda: board.drawn(console.width, console.height),
        refresh_per_second=REFRESHES,
        redirect_stdout=False,
    ):
        yield board.put


def is_live() -> bool:
    """Whether standard error is a terminal that can be drawn in."""
    return sys.stderr.isatty() and not Console(stderr=True).is_dumb_terminal


def line(board: Board, row: Row) -> str:
    """What to say of a row without a terminal."""
    return one_line("  ".join(filter(None, (board.elapsed, row.name, row.state, *row.details, row.why))))
