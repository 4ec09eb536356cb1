"""
Settings of the documentation site.

Build it with ``sphinx-build -W st4sd_async/docs SITE``, with the extra ``docs``. Pages are Markdown, so that they can
also be read as files. Only the pages in ``reference`` take their text from docstrings.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from itertools import chain, groupby
from textwrap import dedent
from typing import TYPE_CHECKING, Any, ClassVar

from docutils import nodes
from pydantic import BaseModel
from sphinx import addnodes
from sphinx.util import inspect
from sphinx.util.docutils import SphinxDirective
from typer.testing import CliRunner

from st4sd_async import models
from st4sd_async._version import VERSION
from st4sd_async.cli.app import LAZY, app
from st4sd_async.sync import Client

if TYPE_CHECKING:
    from sphinx.application import Sphinx

project = "st4sd_async"
author = "the st4sd_async developers"
copyright = author
version = release = VERSION

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"
pygments_dark_style = "github-dark"
html_title = f"st4sd_async {VERSION}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_copyright = False

myst_heading_anchors = 3
python_use_unqualified_type_names = True
maximum_signature_line_length = 88
add_module_names = False
toc_object_entries_show_parents = "hide"

default_role = "py:obj"
autodoc_default_options = {
    "members": True,
    "member-order": "bysource",
    "exclude-members": "model_config, model_post_init",
}
autodoc_typehints_format = "short"
autoclass_content = "both"
autodoc_preserve_defaults = True
autodoc_mock_imports = ["airflow", "dask", "fsspec", "pandas"]  # integrations are documented where these are missing
napoleon_numpy_docstring = False

COLUMNS = 80
"""Width of the helps of the command."""
GENERATED = re.compile(r"(?:\A|\n+)Create (?:new instance of|a new model by parsing) .*\Z", re.DOTALL)
"""The docstring of the constructor of a named tuple or a model."""
FIELDS = re.compile(r"\n+Attributes:\n(?:    .*(?:\n|\Z)|\n)*\Z")
"""The section that `document_fields` adds to a docstring. The same fields are documented as attributes."""


def blocks_of(lines: list[str]) -> Iterator[tuple[bool, list[str]]]:
    """
    Yield the parts of a docstring, and whether each is an example: an indented block after a blank line.

    Indented lines directly below a line, as in a section ``Args:``, belong to that line.
    """
    block: list[str] = []
    is_example = is_section = False
    for number, line in enumerate(lines):
        is_indented = line.startswith("    ") or not line.strip()
        after_blank = number > 0 and not lines[number - 1].strip()
        starts_example = not is_example and not is_section and after_blank and line.startswith("    ")
        if starts_example or (is_example and not is_indented):
            yield is_example, block
            block, is_example = [], starts_example
        if line.strip() and not line.startswith(" "):
            following = lines[number + 1] if number + 1 < len(lines) else ""
            is_section = following.startswith(" ") or line.endswith("::")
        block.append(line)
    yield is_example, block


def language_of(code: str) -> str:
    """Return the language of an example. A tree or a table is plain text."""
    try:
        compile(dedent(code), "", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    except SyntaxError:
        return "text"
    return "python"


def table_of(lines: list[str]) -> list[str]:
    """Return a Markdown table as a table of reStructuredText."""
    rows = [line.strip("| ").split(" | ") for line in lines if "---" not in line]
    cells = [f"   {'  -' if column else '* -'} {cell}" for row in rows for column, cell in enumerate(row)]
    return ["", ".. list-table::", "   :header-rows: 1", "", *cells, ""]


def as_restructured_text(_: Sphinx, what: str, name: str, thing: object, options: Any, lines: list[str]) -> None:
    """Mark the examples of a docstring, and add the advice of an error."""
    text = "\n".join(lines)
    if what in ("class", "exception"):
        text = FIELDS.sub("", GENERATED.sub("", text))
    marked: list[str] = []
    for is_example, block in blocks_of(text.split("\n")):
        if is_example:
            marked += [f".. code-block:: {language_of(chr(10).join(block))}", "", *block]
        else:
            marked += block
    if advice := vars(thing).get("advice") if isinstance(thing, type) else None:
        marked += ["", f"What to do: {advice}."]
    parts = groupby(marked, lambda line: line.startswith("|"))
    lines[:] = chain.from_iterable(table_of([*part]) if is_table else part for is_table, part in parts)
    lines.append("")
    if what in ("attribute", "data", "property"):
        lines[:0] = ["..", ""]  # otherwise napoleon takes the words before a colon in the first line for a type


def build_models() -> None:
    """Build the models now. It is deferred otherwise, and fails once autodoc has changed annotations of pydantic."""
    for model in (getattr(models, name) for name in models.__all__):
        if issubclass(model, BaseModel):
            model.model_rebuild()


def only_documented(
    _: Sphinx, what: str, name: str, thing: object, options: Any, signature: str | None, returned: str | None
) -> tuple[str, None] | None:
    """
    Leave out the signature of a class whose arguments are not documented: the library creates its objects.

    If autodoc replaced the base of a class, it shows the arguments of the replacement. They become those of the class.
    """
    if not isinstance(thing, type) or signature is None:
        return None
    init = vars(thing).get("__init__")
    if "Args:" not in f"{thing.__doc__} {init.__doc__}":
        return "", None
    if init is None or not getattr(thing, "__sphinx_mock__", False):
        return None
    own = inspect.signature(init, bound_method=True)
    return inspect.stringify_signature(own, show_return_annotation=False, unqualified_typehints=True), None


def with_two_clients(
    _: Sphinx, what: str, name: str, thing: object, options: Any, signature: str | None, returned: str | None
) -> tuple[str | None, str | None] | None:
    """Name the blocking client by its module. Otherwise both clients are shown as ``Client``."""
    if what != "function":
        return None
    signature, returned = (text and text.replace(f"~{Client.__module__}.", "sync.") for text in (signature, returned))
    return signature, returned


def text_of(part: nodes.Node) -> str:
    """Return the text of a part of a type, without the module of a name."""
    return str(part["reftarget"]).rpartition(".")[2] if isinstance(part, addnodes.pending_xref) else part.astext()


def without_validators(_: Sphinx, domain: str, kind: str, content: addnodes.desc_content) -> None:
    """Show the type ``Annotated[T, VALIDATOR]`` of a field as ``T``."""
    for annotation in content.parent.findall(addnodes.desc_annotation):
        while "Annotated" in (texts := [text_of(part) for part in annotation.children]):
            begin, depth, comma = texts.index("Annotated"), 0, 0
            for place in range(begin + 1, len(texts)):
                depth += (texts[place] == "[") - (texts[place] == "]")
                if texts[place] == "," and depth == 1:
                    comma = comma or place
                if not depth:
                    break
            parts = annotation.children
            annotation.children = [*parts[:begin], *parts[begin + 2 : comma], *parts[place + 1 :]]


class CommandHelp(SphinxDirective):
    """The help of the command and of its subcommands, each in a section."""

    has_content: ClassVar[bool] = False

    def run(self) -> list[nodes.Node]:
        return [self._section(arguments) for arguments in ((), *self._subcommands(), *self._batch_commands())]

    def _subcommands(self) -> Iterator[tuple[str, ...]]:
        yield from ((name,) for name in LAZY["st4sd-async"])

    def _batch_commands(self) -> Iterator[tuple[str, ...]]:
        yield from (("batch", *names) for names in ((), *((name,) for name in LAZY["batch"])))

    def _section(self, arguments: tuple[str, ...]) -> nodes.section:
        title = " ".join(("st4sd-async", *arguments))
        shown = CliRunner().invoke(app, [*arguments, "--help"], prog_name="st4sd-async", terminal_width=COLUMNS)
        section = nodes.section(ids=[nodes.make_id(title)], names=[title])
        section += nodes.title("", title)
        section += nodes.literal_block(shown.output, shown.output.strip(), language="text")
        return section


def setup(sphinx: Sphinx) -> None:
    """Register what this file adds to Sphinx."""
    build_models()
    sphinx.connect("autodoc-process-docstring", as_restructured_text, priority=100)  # before napoleon
    sphinx.connect("autodoc-process-signature", only_documented)
    sphinx.connect("autodoc-process-signature", with_two_clients)
    sphinx.connect("object-description-transform", without_validators)
    sphinx.add_directive("command-help", CommandHelp)
