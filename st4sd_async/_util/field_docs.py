"""Show the strings below the fields of a class in ``help()`` too, where Python leaves them out."""

from __future__ import annotations

import ast
import inspect
import sys
import textwrap
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import pairwise
from typing import SupportsIndex, TypeGuard, TypeVar

C = TypeVar("C", bound=type)


def document_fields(cls: C) -> C:
    """
    Add an ``Attributes:`` section to the docstring of a class, made of the strings below its public attributes.

    Editors show these strings beside each field; this shows the same text in ``help()``. It covers the attributes in
    the class body and those set on ``self`` in ``__init__``, and begins with those of documented base classes. The
    source is read when the docstring is, so that importing the class costs nothing; without source, there is no
    section.

        @document_fields
        @dataclass(frozen=True)
        class Pause:
            "How long to wait."

            seconds: float
            "0 or more."
    """
    cls.__doc__ = _Docstring(cls)
    return cls


class _Docstring(str):
    """The docstring of a class; the section is added when it is read."""

    _cls: type

    def __new__(cls, documented: type) -> _Docstring:
        docstring = super().__new__(cls, vars(documented).get("__doc__") or "")
        docstring._cls = documented
        return docstring

    def __get__(self, instance: object, owner: type | None = None) -> str:
        fields: dict[str, str] = {}
        for base in reversed(self._cls.__mro__):
            if isinstance(vars(base).get("__doc__"), _Docstring):
                fields.update(_fields_of(base))
        entries = "\n".join(f"{name}: {textwrap.indent(text, '    ').lstrip()}" for name, text in fields.items())
        section = f"\n\nAttributes:\n{textwrap.indent(entries, '    ')}" if entries else ""
        return inspect.cleandoc(str(self)) + section

    def expandtabs(self, tabsize: SupportsIndex = 8) -> str:
        # `pydoc` calls this first. If a class has a metaclass, as enums and models have, it takes the docstring from
        # the namespace of the class, so that `__get__` is not called.
        return self.__get__(None).expandtabs(tabsize)


def _fields_of(cls: type) -> dict[str, str]:
    """Return the texts below the public attributes of a class by name."""
    node = _classes_in(cls.__module__).get(cls.__qualname__)
    body = node.body if node else []
    bodies = [body, *(part.body for part in body if _is_init(part))]
    return {name: text for body in bodies for name, text in _documented(body) if not name.startswith("_")}


@cache
def _classes_in(module: str) -> dict[str, ast.ClassDef]:
    """Return the classes of a module by name, {} if it has no source."""
    try:
        tree = ast.parse(inspect.getsource(sys.modules[module]))
    except (KeyError, OSError, TypeError):
        return {}
    return {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}


def _is_init(node: ast.stmt) -> TypeGuard[ast.FunctionDef]:
    return isinstance(node, ast.FunctionDef) and node.name == "__init__"


def _documented(body: Sequence[ast.stmt]) -> Iterator[tuple[str, str]]:
    """Yield the names of attributes that have a string below them, and the strings."""
    for statement, below in pairwise(body):
        match below:
            case ast.Expr(ast.Constant(str(text))):
                yield from ((name, inspect.cleandoc(text)) for name in _assigned(statement))


def _assigned(statement: ast.stmt) -> Iterator[str]:
    """Yield the names that a statement assigns to, without ``self``."""
    match statement:
        case ast.AnnAssign(target=target) | ast.Assign(targets=[target]):
            for part in target.elts if isinstance(target, ast.Tuple) else [target]:
                match part:
                    case ast.Name(name) | ast.Attribute(ast.Name("self"), name):
                        yield name
