"""The strings below fields are part of the docstrings of their classes."""

from __future__ import annotations

import pydoc
import subprocess
import sys
from dataclasses import dataclass
from enum import Enum

import pydantic
import pytest

from st4sd_async._util.field_docs import document_fields


@document_fields
@dataclass
class Point:
    """
    A point.

    Source: imagination.
    """

    x: float
    """Distance from the left, in metres."""
    y: float = 0
    """
    Distance from the top.

    In metres too.
    """
    _name: str = ""
    """Private."""
    z: float = 0


@document_fields
class Named(Point):
    """A point with a name."""

    def __init__(self, name: str) -> None:
        super().__init__(1)
        self.name, self.length = name, len(name)
        """The name and its length."""


@document_fields
class Colour(Enum):
    """A colour."""

    RED = 1
    """The colour of blood."""


@document_fields
class Model(pydantic.BaseModel):
    """A model."""

    size: int = 1
    """Size in bytes."""


@document_fields
class Bare:
    """A class without fields."""


POINT = """\
A point.

Source: imagination.

Attributes:
    x: Distance from the left, in metres.
    y: Distance from the top.

        In metres too."""
NAMED = """\
A point with a name.

Attributes:
    x: Distance from the left, in metres.
    y: Distance from the top.

        In metres too.
    name: The name and its length.
    length: The name and its length."""


@pytest.mark.parametrize(
    ("cls", "docstring"),
    [
        (Point, POINT),
        (Named, NAMED),
        (Colour, "A colour.\n\nAttributes:\n    RED: The colour of blood."),
        (Model, "A model.\n\nAttributes:\n    size: Size in bytes."),
        (Bare, "A class without fields."),
    ],
)
def test_public_fields_are_part_of_the_docstring(cls: type, docstring: str) -> None:
    """Those of base classes come first; private and undocumented fields are left out."""
    shown = pydoc.plain(pydoc.render_doc(cls))

    assert cls.__doc__ == docstring
    assert "\n".join(f" |  {line}".rstrip() for line in docstring.splitlines()) in "\n".join(
        line.rstrip() for line in shown.splitlines()
    )


def test_a_class_without_source_keeps_its_docstring() -> None:
    """A class may be typed at a prompt, where there is no file to read."""
    code = (
        "from st4sd_async._util.field_docs import document_fields\n"
        "@document_fields\n"
        "class Size:\n"
        "    'A size.'\n"
        "    width: int = 1\n"
        "    'In metres.'\n"
        "print(Size.__doc__)"
    )

    assert (
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "A size.\n"
    )
