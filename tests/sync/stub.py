"""
Writes ``st4sd_async/sync.pyi``, which tells type checkers and editors what `st4sd_async.sync` makes at run time.

Type checkers run nothing, so they would see no method of a class that is made by introspection. Run
``python -m tests.sync.stub`` when a signature or a docstring has changed; a test compares.
"""

from __future__ import annotations

import ast
import builtins
import dataclasses
import importlib
import inspect
import subprocess
import sys
import textwrap
import typing
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import st4sd_async
from st4sd_async import _client, sync
from st4sd_async._batch import item as _item
from st4sd_async._sync import facade as _blocking
from st4sd_async._sync.facade import Handle, blocking_type

STUB = Path(st4sd_async.__file__).with_name("sync.pyi")
HEAD = '''\
"""
The client for code without ``async``: see ``sync.py``.

Written by ``python -m tests.sync.stub``: change nothing here.
"""
'''
OWN = {"Batch", "Client", "Item", "Run"}
"""Names that mean the blocking class here."""
RENAMED = {"RunLike": "_RunLike"}
"""Names that have another meaning here than where they come from."""
DEFAULTS = (bool, int, float, str, type(None))
"""Types of defaults that are shown."""


class Stub:
    """What is written, and what it needs to be imported."""

    def __init__(self) -> None:
        self.imports = {"from collections.abc import Generator", "from types import TracebackType"}
        client = _blocking.Client("http://127.0.0.1:1")
        self.groups = {name: value for name, value in vars(client).items() if isinstance(value, Handle)}

    def text(self) -> str:
        """All of it."""
        classes = [
            *(self.of_class(f"_{type(group).__name__}", type(group)) for group in self.groups.values()),
            self.of_item(),
            self.of_class("Run", _blocking.Run),
            "_RunLike = Run | str\n",
            self.of_class("Batch", _blocking.Batch),
            self.of_class("Client", _blocking.Client, self.of_groups()),
        ]
        names = f"__all__ = {sorted(OWN)!r}"
        return "\n".join([HEAD, "import builtins", *sorted(self.imports), names, *classes])

    def of_class(self, name: str, cls: type[Handle], first: str = "") -> str:
        """The stub of a counterpart."""
        parts = [documented(f"class {name}:", cls.__doc__), textwrap.indent(first, "    ")]
        entering = ["__init__"] if cls is _blocking.Client else []
        entering += ["__enter__", "__exit__"] if hasattr(cls, "__enter__") else []
        names = [*entering, *(one for one in dir(cls) if not one.startswith("_") or one.startswith("_repr_"))]
        parts.extend(textwrap.indent(self.of_member(cls, one), "    ") for one in names)
        return "\n".join(parts)

    def of_member(self, cls: type[Handle], name: str) -> str:
        """The stub of a method or property."""
        member = inspect.getattr_static(cls, name)
        origin = inspect.getattr_static(cls._of, name, member)
        if isinstance(member, property):
            getter = (origin if isinstance(origin, property) else member).fget
            assert getter
            gives = self.typed(inspect.signature(getter).return_annotation, getter)
            return documented(f"@property\ndef {name}(self) -> {gives}:", member.__doc__)
        if isinstance(member, classmethod):
            function, source = member.__func__, origin.__func__
            return "@classmethod\n" + self.of_function(function, source, inspect.signature(source))
        overloads = typing.get_overloads(origin) if inspect.isfunction(origin) else []
        if not overloads:
            return self.of_function(member, origin if name in vars(cls) else member, inspect.signature(member))
        ignored = "  # type: ignore[overload-overlap]"
        parts = []
        for number, one in enumerate(overloads):
            text = self.of_function(member, one, inspect.signature(one))
            parts.append("@overload\n" + (text.replace("(", f"({ignored}\n", 1) if number == 0 else text))
        self.imports.add("from typing import overload")
        return "\n".join(parts)

    def of_function(self, member: Callable[..., Any], source: Callable[..., Any], told: inspect.Signature) -> str:
        """The stub of a function, with names as in the module of its source."""
        parts: list[str] = []
        kinds = [parameter.kind for parameter in told.parameters.values()]
        for number, one in enumerate(told.parameters.values()):
            if one.kind is one.KEYWORD_ONLY and one.KEYWORD_ONLY not in kinds[:number]:
                parts.append("*")
            text = one.name
            if one.annotation is not one.empty:
                text += f": {self.typed(one.annotation, source)}"
            if one.default is not one.empty:
                text += f" = {one.default!r}" if type(one.default) in DEFAULTS else " = ..."
            parts.append(text)
        gives = self.typed(blocking_type(told.return_annotation), source)
        return documented(f"def {member.__name__}({', '.join(parts)}) -> {gives}:", member.__doc__)

    def of_groups(self) -> str:
        """The groups of the client."""
        told = attributes(_client)
        return "\n".join(f"{name}: _{type(one).__name__}\n{quoted(told[name])}" for name, one in self.groups.items())

    def of_item(self) -> str:
        """The stub of an item."""
        told = attributes(_item)
        fields = [
            f"{field.name}: {self.typed(field.type, _item.item_of)}\n{quoted(told[field.name])}"
            for field in dataclasses.fields(sync.Item)
        ]
        self.imports.add("from dataclasses import dataclass")
        head = documented("@dataclass(frozen=True)\nclass Item:", str(vars(sync.Item)["__doc__"]))
        return head + textwrap.indent("\n".join(fields), "    ")

    def typed(self, annotation: Any, source: Callable[..., Any]) -> str:
        """An annotation, whose names are imported from where its module has them."""
        known = origins(source.__module__ if source.__module__ != sync.__name__ else "st4sd_async._sync.facade")
        tree = ast.parse(str(annotation), mode="eval")
        for node in ast.walk(tree):
            if isinstance(node, ast.Name) and node.id in RENAMED:
                node.id = RENAMED[node.id]
            elif isinstance(node, ast.Name) and node.id not in OWN and not hasattr(builtins, node.id):
                self.imports.add(known[node.id])
        return ast.unparse(tree)


@cache
def origins(module: str) -> dict[str, str]:
    """How to import each name that a module has, for types or in earnest."""
    found = importlib.import_module(module)
    package = module.split(".") if hasattr(found, "__path__") else module.split(".")[:-1]
    known = {"Self": "from typing import Self", "Generator": "from collections.abc import Generator"}
    for node in ast.walk(ast.parse(inspect.getsource(found))):
        if isinstance(node, ast.Import):
            known |= {one.name: f"import {one.name}" for one in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join([*package[: len(package) - node.level + 1], node.module or ""] if node.level else [])
            known |= {one.name: f"from {base or node.module} import {one.name}" for one in node.names}
        elif isinstance(node, ast.ClassDef):
            known[node.name] = f"from {module} import {node.name}"
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            known.setdefault(node.targets[0].id, f"from {module} import {node.targets[0].id}")
    return known


def attributes(module: Any) -> dict[str, str]:
    """The docstrings of attributes, by name: texts below assignments and annotations."""
    found: dict[str, str] = {}
    for node in ast.walk(ast.parse(inspect.getsource(module))):
        body = getattr(node, "body", None)
        for one, text in pairwise(body) if isinstance(body, list) else ():
            if not (isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant)):
                continue
            target = one.targets[0] if isinstance(one, ast.Assign) else getattr(one, "target", None)
            name = getattr(target, "attr", getattr(target, "id", None))
            if name and isinstance(text.value.value, str):
                found[name] = inspect.cleandoc(text.value.value)
    return found


def documented(head: str, text: str | None) -> str:
    """The head of a class or function, and what it says of itself."""
    body = quoted(inspect.cleandoc(text)) if text else "..."
    return f"{head}\n{textwrap.indent(body, '    ')}\n"


def quoted(text: str) -> str:
    """A docstring."""
    mark = 'r"""' if "\\" in text else '"""'
    return f'{mark}\n{text}\n"""' if "\n" in text else f'{mark}{text}"""'


def formatted(text: str) -> str:
    """Source in the format of the repository."""
    for arguments in (["check", "--quiet", "--fix", "--select", "F401,I"], ["format", "--quiet"]):
        command = [sys.executable, "-m", "ruff", *arguments, "--stdin-filename", str(STUB), "-"]
        text = subprocess.run(command, input=text, capture_output=True, text=True, check=True, cwd=STUB.parent).stdout
    return text


def stub() -> str:
    """What the stub should be."""
    return formatted(Stub().text())


if __name__ == "__main__":
    STUB.write_text(stub(), "utf-8")
