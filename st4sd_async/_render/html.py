"""
Cards as HTML for notebooks. Reports of batches are pages of their own: see `_batch/report_page.py`.

All text is escaped where it is written. White is readable on all colours, and the colours are readable on white and on
black; other text inherits its colour. So light and dark themes both work. There are no scripts, classes or external
resources.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from html import escape
from itertools import count

from .._util.printable import shorten
from .cards import COLOURS, Badge, Bar, Card, CardTable, Cell, Tone
from .text import MAX_TEXT_LENGTH, MAX_TITLE_LENGTH, line_of, log_lines

_MIN_WIDTHS = {"state": "8em", "stage": "5em", "progress": "150px", "elapsed": "5em", "done": "10em", "received": "5em"}
"""Column -> its minimum width, so that a live table keeps its width while its cells change."""
_UNBROKEN = 20
"""Maximum number of characters of a cell that is never broken, such as a key: a long reason would take its width."""
_MUTED = "opacity:.7"
_WRAP = "overflow-wrap:break-word;white-space:normal"


def to_html(card: Card) -> str:
    """Return a card as HTML."""
    pieces = [_headline(card), _notice(card.notice), _alert(card), _logs(card), _parts(card), _facts(card.facts)]
    if card.table is not None:
        pieces.append(_table(card.table))
    pieces += [_tag("div", f"{_MUTED};margin-top:4px", _safe(note)) for note in card.notes]
    return _tag("div", "font-size:13px;line-height:1.5;text-align:left", "".join(pieces))


def _tag(name: str, style: str, inner: str) -> str:
    """Return an element; ``inner`` is HTML already."""
    return f'<{name} style="{style}">{inner}</{name}>'


def _safe(text: str, limit: int = MAX_TEXT_LENGTH) -> str:
    return escape(shorten(text, limit))


def _headline(card: Card) -> str:
    pieces = [_tag("b", _WRAP, _safe(card.title, MAX_TITLE_LENGTH))] if card.title else []
    pieces += [_tag("span", _MUTED, _safe(card.kind, MAX_TITLE_LENGTH))] if card.title and card.kind else []
    pieces += [_badge(card.badge)] if card.badge else []
    pieces += [_bar(card.bar)] if card.bar else []
    return f"<div>{'&ensp;'.join(pieces)}</div>"


def _badge(badge: Badge) -> str:
    style = f"background:{COLOURS[badge.tone]};color:#fff;border-radius:3px;padding:0 7px;white-space:nowrap"
    return _tag("span", style, _safe(badge.word, MAX_TITLE_LENGTH))


def _bar(bar: Bar) -> str:
    shape = "height:8px;border-radius:4px"
    fill = _tag("span", f"display:block;width:{bar.share:.1%};{shape};background:{COLOURS[bar.tone]}", "")
    frame = _tag("span", f"display:inline-block;width:100px;{shape};background:rgba(128,128,128,.35)", fill)
    return _tag("span", "white-space:nowrap", f"{frame}&ensp;{bar.share:.0%}")


def _notice(notice: Badge | None) -> str:
    return _box(notice.tone, _safe(notice.word)) if notice else ""


def _alert(card: Card) -> str:
    if not card.alert:
        return ""
    lines = [f"<b>{_safe(card.alert)}</b>", *([_safe(card.advice)] if card.advice else [])]
    whole = _tag("div", _WRAP, "<br>".join(lines))
    if card.words:
        words = "\n".join(line_of(line) for line in card.words.splitlines())
        summary = _tag("summary", f"{_MUTED};cursor:pointer", "what the service said")
        style = "white-space:pre-wrap;overflow-wrap:anywhere;margin:2px 0;padding:0;background:none;font-size:12px"
        whole += f"<details>{summary}{_tag('pre', style, escape(words))}</details>"
    return _box(card.tone, whole)


def _box(tone: Tone, inner: str) -> str:
    colour = COLOURS[tone]
    return _tag("div", f"border-left:4px solid {colour};background:{colour}1f;padding:3px 10px;margin:4px 0", inner)


def _logs(card: Card) -> str:
    """Return each log in a box with a scroll bar if it is wide; the box is visible on white and on black."""
    style = (
        "white-space:pre;overflow-x:auto;margin:0 0 6px;padding:4px 10px;font-size:12px;color:inherit;"
        "background:rgba(128,128,128,.14);border-radius:3px"
    )
    return "".join(
        _tag("div", f"{_MUTED};margin-top:4px", _safe(name)) + _tag("pre", style, escape("\n".join(log_lines(text))))
        for name, text in card.logs
    )


def _parts(card: Card) -> str:
    """Return a bar with a slice for each state, if there may be one, and the counts."""
    if not card.parts:
        return ""
    total = sum(count for count, _ in card.parts)
    slice_style = "display:inline-block;height:10px;width:{:.2%};background:{}"
    slices = [_tag("span", slice_style.format(count / total, COLOURS[badge.tone]), "") for count, badge in card.parts]
    frame = "width:420px;max-width:100%;font-size:0;line-height:0;white-space:nowrap;border-radius:5px;overflow:hidden"
    counts = [_badge(Badge(f"{count:,} {badge.word}", badge.tone)) for count, badge in card.parts]
    bar = _tag("div", f"{frame};margin:4px 0", "".join(slices)) if card.has_bar else ""
    return f"{bar}<div>{'&ensp;'.join(counts)}</div>"


def _facts(facts: Iterable[tuple[str, str]]) -> str:
    return _grid("", [_cells([_tag("span", _MUTED, _safe(name)), _safe(value)]) for name, value in facts])


def _table(table: CardTable) -> str:
    line = "border-bottom:1px solid rgba(128,128,128,.5)"
    head = _cells(map(_header, table.columns), table.numbers, "th", line)
    body = [_cells(map(_cell, row), table.numbers) for row in table.rows]
    more = _tag("div", _MUTED, _safe(table.more)) if table.more else ""
    return _grid(f"<thead>{head}</thead>", body) + more


def _header(name: str) -> str:
    return _tag("div", f"min-width:{_MIN_WIDTHS[name]}", name) if name in _MIN_WIDTHS else _safe(name)


def _grid(head: str, rows: Sequence[str]) -> str:
    style = f"border:none;border-collapse:collapse;margin:4px 0 0;font-size:inherit;{_WRAP}"
    return _tag("table", style, f"{head}<tbody>{''.join(rows)}</tbody>") if rows or head else ""


def _cells(cells: Iterable[str], numbers: Collection[int] = (), name: str = "td", line: str = "border:none") -> str:
    """Return a row of a table. Its styles override those that notebooks set for tables."""
    style = f"padding:1px 14px 1px 0;vertical-align:top;max-width:44em;{line}"
    sides = (f"text-align:{'right' if column in numbers else 'left'}" for column in count())
    row = (_tag(name, f"{side};{style}", cell) for cell, side in zip(cells, sides, strict=False))
    return _tag("tr", "background:none", "".join(row))


def _cell(cell: Cell) -> str:
    if isinstance(cell, Badge):
        return _badge(cell)
    if isinstance(cell, Bar):
        return _bar(cell)
    may_break = len(cell) <= _UNBROKEN and (" " in cell or "-" in cell)
    return _tag("span", "white-space:nowrap", _safe(cell)) if may_break else _safe(cell)
