"""How things show themselves in notebooks; what they say and how it looks is for `_cards` and `_repr`."""

from __future__ import annotations

from typing import Any

LONGEST_REPR = 120
"""Characters of a thing inside a list or a tuple; `model_dump` of a model has all of it."""


class Shown:
    """Something that notebooks show as HTML, and IPython in a terminal as text; its `repr` is one line."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        # IPython prefers the __repr__ of a class, which dataclasses make, to what the class inherits.
        cls._repr_pretty_ = Shown._repr_pretty_  # type: ignore[method-assign]  # to itself

    def _repr_html_(self) -> str:
        from .render import html  # not with the package: most programs show nothing

        return html(self)

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        from .render import text

        printer.text(text(self, is_short=len(printer.stack) > 1))
