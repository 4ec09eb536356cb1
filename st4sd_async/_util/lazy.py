"""Import the names of a package on first use (PEP 562), so that importing the package is fast."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any


def lazy_attributes(
    package: str, modules: Mapping[str, str], submodules: Sequence[str] = ()
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """
    Return the ``__getattr__`` and the ``__dir__`` of a package.

        if TYPE_CHECKING:
            from ._batch import Batch
        else:
            __getattr__, __dir__ = lazy_attributes(__name__, {"._batch": "Batch"})

    Type checkers must not see a ``__getattr__``: they would accept every misspelt name.

    Args:
        package: Name of the package.
        modules: Module relative to the package -> names that it has, separated by blanks.
        submodules: Modules of the package that are imported when they are first used as attributes.
    """
    namespace = vars(sys.modules[package])
    module_of = {name: module for module, names in modules.items() for name in names.split()}

    def get(name: str) -> Any:
        if name in submodules:
            return import_module(f".{name}", package)
        if name not in module_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}", name=name, obj=sys.modules[package])
        namespace[name] = value = getattr(import_module(module_of[name], package), name)
        return value

    def names() -> list[str]:
        return sorted({*namespace, *module_of, *submodules})

    return get, names
