"""Import the names of a package on first use (PEP 562), so that importing the package is fast."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def later(package: str, homes: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """
    Return the ``__getattr__`` and ``__dir__`` of a package.

        if TYPE_CHECKING:
            from ._batch import Batch
        else:
            __getattr__, __dir__ = later(__name__, {"._batch": "Batch"})

    Type checkers must not see a ``__getattr__``: they would accept every misspelt name.

    Args:
        package: Name of the package.
        homes: Module, relative to the package -> its names, separated by blanks.
    """
    held = vars(sys.modules[package])
    home_of = {name: home for home, names in homes.items() for name in names.split()}

    def get(name: str) -> Any:
        if name not in home_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}", name=name, obj=sys.modules[package])
        held[name] = value = getattr(import_module(home_of[name], package), name)
        return value

    def names() -> list[str]:
        return sorted({*held, *home_of})

    return get, names
