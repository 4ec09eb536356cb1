"""Reads a report with the HTML parser of the standard library."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

VOID = {"meta", "br", "input", "link", "img"}


@dataclass
class Element:
    """An element of a page."""

    name: str
    attributes: dict[str, str | None]
    children: list[Element | str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """All text in it, with single blanks."""
        return " ".join(" ".join(one if isinstance(one, str) else one.text for one in self.children).split())

    def all(self, name: str, **attributes: str) -> list[Element]:
        """Return the elements in it with this name and these attributes."""
        wanted = {attribute.rstrip("_"): value for attribute, value in attributes.items()}
        inner = [one for one in self.children if isinstance(one, Element)]
        found = [one for one in inner if one.name == name and wanted.items() <= one.attributes.items()]
        return found + [one for element in inner for one in element.all(name, **attributes)]

    def one(self, name: str, **attributes: str) -> Element:
        """Return the only such element."""
        (found,) = self.all(name, **attributes)
        return found


class _Parser(HTMLParser):
    """Builds the tree, and fails if a tag is not closed or opened."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.root = Element("", {})
        self.open = [self.root]

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        assert len(dict(attributes)) == len(attributes)
        element = Element(tag, dict(attributes))
        self.open[-1].children.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.open[-1].children.append(Element(tag, dict(attributes)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop().name == tag

    def handle_data(self, data: str) -> None:
        self.open[-1].children.append(data)


def parse(page: str) -> Element:
    """Return the root of a page, whose elements are all closed."""
    parser = _Parser()
    parser.feed(page)
    parser.close()
    assert parser.open == [parser.root]
    return parser.root


def read(path: Path) -> Element:
    """Return the root of a page in a file."""
    return parse(path.read_text("utf-8"))


def table_of(page: Element) -> list[dict[str, str]]:
    """Return the rows of the table of launches: the names of columns, and the texts of cells."""
    table = page.one("table", id="launches")
    names = [head.text for head in table.one("thead").all("th", scope="col")]
    rows = []
    for row in table.one("tbody").all("tr"):
        assert [one.attributes for one in row.all("th")] == [row.one("th", scope="row").attributes]
        cells = [one.text for one in row.children if isinstance(one, Element)]
        rows.append(dict(zip(names, cells, strict=True)))
    return rows


def facts_of(page: Element) -> dict[str, str]:
    """Return the facts about the batch, and those that all launches have in common."""
    names = [one.text for one in page.all("dt")]
    return dict(zip(names, (one.text for one in page.all("dd")), strict=True))
