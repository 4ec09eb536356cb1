"""The display of objects in notebooks and in IPython."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .cards import Card


def current_cell() -> int | None:
    """Return the number of the notebook cell that is being executed; None outside of IPython."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    number: int | None = getattr(shell, "execution_count", None)
    return number


_shown: dict[int, int] = {}
"""`id` of a value -> the cell whose output shows it already."""


def mark_shown(*values: object) -> None:
    """Record that a live display has shown values, so that they are not shown again as the result of the cell."""
    cell = current_cell()
    _shown.clear()
    if cell is not None:
        _shown.update((id(value), cell) for value in values)


def is_shown(value: object) -> bool:
    """Return whether a live display in the cell that is being executed has shown a value."""
    return id(value) in _shown and _shown[id(value)] == current_cell()


class Displayable:
    """Base class of objects with a card, which notebooks show as HTML, and IPython in a terminal as text."""

    __slots__ = ()

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        # IPython prefers a `__repr__` of the class itself, such as that of a dataclass, to an inherited method.
        cls._repr_pretty_ = Displayable._repr_pretty_  # type: ignore[method-assign]  # to itself

    def _card(self) -> Card:
        """Return the card of this object."""
        raise NotImplementedError

    def _ipython_display_(self) -> None:
        if not is_shown(self):
            raise NotImplementedError  # IPython then uses the methods below

    def _repr_html_(self) -> str:
        from .html import to_html  # not imported with the package: most programs show nothing

        return to_html(self._card())

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        from .text import to_text

        printer.text(to_text(self._card(), is_short=len(printer.stack) > 1))
