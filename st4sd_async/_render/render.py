"""
Cards as HTML for notebooks and as text for terminals; nothing else in this package knows HTML.

Every text is escaped where it is written, and nothing but these few styles goes unescaped. Colours are such that white
is readable on them and they are readable on white and on black; all other text has the colour of its surroundings,
so that light and dark themes both work. There are no scripts, no classes, nothing from elsewhere.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from html import escape
from itertools import count

from .._util.printable import printable
from .cards import COLOURS, Badge, Bar, Card, Cell, Table
from .portraits import card

LONGEST_TITLE, LONGEST_TEXT = 200, 600
"""Characters of a title, and of any other text but the service's own words."""
BLOCKS = 20
"""Characters of a bar in a text."""

_MUTED = "opacity:.7"
_WRAP = "overflow-wrap:break-word;white-space:normal"


def html(thing: object) -> str:
    """A thing as HTML."""
    return html_of(card(thing))


def text(thing: object, *, is_short: bool = False) -> str:
    """A thing as text; ``is_short``: on one line, as inside a list."""
    return text_of(card(thing), is_short=is_short)


def plain(words: str, longest: int = LONGEST_TEXT) -> str:
    """Return words on one line, without what terminals and browsers take for commands."""
    line = printable(" ".join(words.split()))
    return line if len(line) <= longest else f"{line[: longest - 1]}\u2026"


def html_of(told: Card) -> str:
    """A card as HTML."""
    pieces = [_headline(told), _alert(told), _parts(told), _facts(told.facts)]
    if told.table is not None:
        pieces.append(_table(told.table))
    pieces += [_tag("div", f"{_MUTED};margin-top:4px", _safe(note)) for note in told.notes]
    return _tag("div", "font-size:13px;line-height:1.5;text-align:left", "".join(pieces))


def _tag(name: str, style: str, inner: str) -> str:
    """An element; what is inside is HTML already."""
    return f'<{name} style="{style}">{inner}</{name}>'


def _safe(words: str, longest: int = LONGEST_TEXT) -> str:
    return escape(plain(words, longest))


def _headline(told: Card) -> str:
    pieces = [_tag("b", _WRAP, _safe(told.title, LONGEST_TITLE))] if told.title else []
    pieces += [_tag("span", _MUTED, _safe(told.kind, LONGEST_TITLE))] if told.title and told.kind else []
    pieces += [_badge(told.badge)] if told.badge else []
    pieces += [_bar(told.bar)] if told.bar else []
    return f"<div>{'&ensp;'.join(pieces)}</div>"


def _badge(badge: Badge) -> str:
    style = f"background:{COLOURS[badge.tone]};color:#fff;border-radius:3px;padding:0 7px;white-space:nowrap"
    return _tag("span", style, _safe(badge.word, LONGEST_TITLE))


def _bar(bar: Bar) -> str:
    shape = "height:8px;border-radius:4px"
    fill = _tag("span", f"display:block;width:{bar.share:.1%};{shape};background:{COLOURS[bar.tone]}", "")
    frame = _tag("span", f"display:inline-block;width:100px;{shape};background:rgba(128,128,128,.35)", fill)
    return _tag("span", "white-space:nowrap", f"{frame}&ensp;{bar.share:.0%}")


def _alert(told: Card) -> str:
    if not told.alert:
        return ""
    lines = [f"<b>{_safe(told.alert)}</b>", *([_safe(told.advice)] if told.advice else [])]
    whole = _tag("div", _WRAP, "<br>".join(lines))
    if told.words:
        words = "\n".join(plain(line) for line in told.words.splitlines())
        summary = _tag("summary", f"{_MUTED};cursor:pointer", "what the service said")
        style = "white-space:pre-wrap;overflow-wrap:anywhere;margin:2px 0;padding:0;background:none;font-size:12px"
        whole += f"<details>{summary}{_tag('pre', style, escape(words))}</details>"
    colour = COLOURS[told.tone]
    return _tag("div", f"border-left:4px solid {colour};background:{colour}1f;padding:3px 10px;margin:4px 0", whole)


def _parts(told: Card) -> str:
    """A bar of all, and how many each part of it is."""
    if not told.parts:
        return ""
    total = sum(count for count, _ in told.parts)
    slice_style = "display:inline-block;height:10px;width:{:.2%};background:{}"
    slices = [_tag("span", slice_style.format(count / total, COLOURS[one.tone]), "") for count, one in told.parts]
    frame = "width:420px;max-width:100%;font-size:0;line-height:0;white-space:nowrap;border-radius:5px;overflow:hidden"
    counts = [_badge(Badge(f"{count:,} {one.word}", one.tone)) for count, one in told.parts]
    return _tag("div", f"{frame};margin:4px 0", "".join(slices)) + f"<div>{'&ensp;'.join(counts)}</div>"


def _facts(facts: Iterable[tuple[str, str]]) -> str:
    return _grid("", [_cells([_tag("span", _MUTED, _safe(name)), _safe(value)]) for name, value in facts])


def _table(table: Table) -> str:
    line = "border-bottom:1px solid rgba(128,128,128,.5)"
    head = _cells(map(_safe, table.columns), table.numbers, "th", line)
    body = [_cells(map(_cell, row), table.numbers) for row in table.rows]
    more = _tag("div", _MUTED, _safe(table.more)) if table.more else ""
    return _grid(f"<thead>{head}</thead>", body) + more


def _grid(head: str, rows: Sequence[str]) -> str:
    style = "border:none;border-collapse:collapse;margin:4px 0 0;font-size:inherit"
    return _tag("table", style, f"{head}<tbody>{''.join(rows)}</tbody>") if rows or head else ""


def _cells(cells: Iterable[str], numbers: Collection[int] = (), name: str = "td", line: str = "border:none") -> str:
    """A row of a table. What it sets is what the style sheets of notebooks set for tables."""
    style = f"padding:1px 14px 1px 0;vertical-align:top;max-width:44em;background:none;{_WRAP};{line}"
    sides = (f"text-align:{'right' if place in numbers else 'left'}" for place in count())
    row = (_tag(name, f"{side};{style}", cell) for cell, side in zip(cells, sides, strict=False))
    return _tag("tr", "background:none", "".join(row))


def _cell(cell: Cell) -> str:
    if isinstance(cell, Badge):
        return _badge(cell)
    return _bar(cell) if isinstance(cell, Bar) else _safe(cell)


def text_of(told: Card, *, is_short: bool = False) -> str:
    """A card as text."""
    counts = ", ".join(f"{count:,} {badge.word}" for count, badge in told.parts)
    headline = "  ".join(
        bit
        for bit in (
            plain(told.title, LONGEST_TITLE),
            told.badge and plain(told.badge.word, LONGEST_TITLE),
            told.bar and words_of(told.bar),
            counts,
        )
        if bit
    )
    if is_short:
        return f"<{plain(': '.join(bit for bit in (f'{told.kind} {headline}', told.alert) if bit), LONGEST_TITLE)}>"
    lines = [headline, plain(told.alert), plain(told.advice)]
    width = max((len(name) for name, _ in told.facts), default=0)
    lines += [f"  {plain(name):{width}}  {plain(value)}" for name, value in told.facts]
    lines += [] if told.table is None else _lines(told.table)
    return "\n".join(line for line in [*lines, *map(plain, told.notes)] if line)


def words_of(cell: Cell) -> str:
    """A cell of a table as text."""
    if isinstance(cell, Bar):
        return f"{'#' * round(cell.share * BLOCKS):.<{BLOCKS}} {cell.share:4.0%}"
    return plain(cell.word if isinstance(cell, Badge) else cell)


def _lines(table: Table) -> list[str]:
    rows = [[plain(name) for name in table.columns], *([words_of(cell) for cell in row] for row in table.rows)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    aligned = [
        "  ".join(
            cell.rjust(width) if place in table.numbers else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    return [line.rstrip() for line in [*aligned, *([table.more] if table.more else [])]]
