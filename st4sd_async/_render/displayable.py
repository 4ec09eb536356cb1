"""The display of objects in notebooks and in IPython."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .cards import Card


class Displayable:
    """Base class of objects with a card, which notebooks show as HTML, and IPython in a terminal as text."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        # IPython prefers a `__repr__` of the class itself, such as that of a dataclass, to an inherited method.
        cls._repr_pretty_ = Displayable._repr_pretty_  # type: ignore[method-assign]  # to itself

    def _card(self) -> Card:
        """Return the card of this object."""
        raise NotImplementedError

    def _repr_html_(self) -> str:
        from .html import to_html  # not imported with the package: most programs show nothing

        return to_html(self._card())

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        from .text import to_text

        printer.text(to_text(self._card(), is_short=len(printer.stack) > 1))
