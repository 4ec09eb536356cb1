"""Check a package in a folder before it is pushed."""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from .._errors import ConfigError, InvalidPackage
from .._payload.lambdas import parse_yaml, run_libraries
from .._util.did_you_mean import did_you_mean
from .._util.field_docs import document_fields
from .._util.printable import shorten
from .._util.threads import in_thread
from .definition import (
    DSL_FILE,
    FLOWIR_FILE,
    TOO_MANY_ALIASES,
    components_kind,
    find_definition,
    is_huge,
    read_mapping,
)
from .shape import shape_problems

_TOKEN = re.compile(r"\[(\d+)\]|([^.\[\]]+)")
"""A part of the path of an entry: a number in brackets, or a name."""
_COMPONENT = re.compile(r"stage(\d+)\.([^.\[\]]+)")
"""Prefix of the path of an entry in a component."""
_MARK = re.compile(r'(?P<what>.*?)(?:\n| )+in "(?P<file>[^"]+)", line (?P<line>\d+), column \d+', re.DOTALL)
"""A part of a message about a syntax error in a YAML file, and its location: the context, then the problem."""
_SYNTAX_ADVICE = {
    "expected <block end>": "indent the line like the lines above",
    "mapping values are not allowed here": "quote a text that contains ': '",
    "found character '\\t'": "indent with spaces",
}
"""Begin of a message about a syntax error -> what to do."""
_QUOTED = re.compile(r"the reference '([^']+)' has no method")
"""Message about a value whose entry is unknown."""


@document_fields
class PackageProblem(NamedTuple):
    """A problem of a package; ``str()`` shows it on one line, as compilers do."""

    file: str
    """The file, relative to the folder that was checked."""
    line: int | None
    """The line of the entry in the file, from 1. None means that the problem has no line."""
    where: str
    """The entry, such as ``stage1.Report.references[0]``; "" if the problem concerns the whole file."""
    what: str
    """The problem, and how to fix it."""

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        return ": ".join(filter(None, (place, self.where, self.what)))


async def check(path: str | os.PathLike[str]) -> list[PackageProblem]:
    """
    Return the problems of a package in a folder, before it is pushed.

    The libraries of the orchestrator load the package and check each platform. More checks find key-outputs of unknown
    components, missing files, programs that are not executable, references that the arguments do not use, hooks without
    the functions that the interface needs, and fields and options of the definition (``definition.yaml``) that the
    service refuses or the package does not declare. The hooks are imported, in a process of their own. A check takes
    two seconds and sends no request.

    Args:
        path: A folder with a package or with a definition, a definition, or a file with components in FlowIR or DSL
            2.0. The files to which components refer are checked only for a package.

    Returns:
        The problems in the order of files and lines; [] if none was found. A check does not execute programs, so only
        a run shows whether they work.

    Raises:
        ConfigError: The libraries are not installed (extra ``engine``), or failed.
        InvalidPackage: There is no package at the path, or the definition cannot be read.
    """
    folder, package, manifest, file = await in_thread(_find, Path(path))
    definition = {} if file is None else await in_thread(read_mapping, file)
    if huge := await in_thread(_alias_problem, package, folder):
        return [huge]
    arguments = ["-m", f"{__package__}.inspection", str(package), *([] if manifest is None else [str(manifest)])]
    found = await run_libraries(arguments, environment=await in_thread(_environment))
    if "missing" in found:
        advice = 'pip install "st4sd_async[engine]"'
        reason = shorten(found["missing"])
        ended = f"{reason}: is a file huge? if not, the libraries are broken"
        raise ConfigError(f"{path} was not checked: {ended if reason else 'it needs the extra engine'}: {advice}")
    return await in_thread(_locate, found, folder, package, file, definition)


def _find(path: Path) -> tuple[Path, Path, Path | None, Path | None]:
    """Return the folder at a path, the package, its manifest and its definition; None for a missing one."""
    if not path.exists():
        raise InvalidPackage(f"there is no file or folder {str(path)!r}")
    folder = path if path.is_dir() else path.parent
    if path.is_file() and f"{folder.resolve().name}/{path.name}" in (FLOWIR_FILE, DSL_FILE):
        return _find(folder.resolve().parent)
    file = find_definition(path)
    definition = {} if file is None else read_mapping(file)
    if components_kind(definition):
        return _find(folder.parent) if folder.name == "conf" else (folder, path, None, None)
    wrong = [f": {where}: {what}" for where, what in shape_problems(definition) if where.startswith("base")]
    config = {} if wrong else _config(definition)
    manifest = config.get("manifestPath")
    package = folder / str(config.get("path") or "").lstrip("/")
    if package.is_dir() and not manifest and _components_file(package) is None:
        missing = f"{package} is not a package: it has no {FLOWIR_FILE} and no {DSL_FILE}{''.join(wrong)}"
        raise InvalidPackage(f"{str(path)!r} has no components, and {missing}" if path.is_file() else missing)
    return folder, package, folder / str(manifest).lstrip("/") if manifest else None, file


def _config(definition: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return where the first base package of a valid definition says that its files are; {} if it does not."""
    packages = (definition.get("base") or {}).get("packages") or [{}]
    return packages[0].get("config") or {}


def _components_file(package: Path) -> Path | None:
    """Return the file with the components of a package; None if no known file exists."""
    if package.is_file():
        return package
    known = [package / FLOWIR_FILE, package / DSL_FILE, *sorted(package.glob("conf/*.conf"))]
    return next((file for file in known if file.is_file()), None)


def _alias_problem(package: Path, folder: Path) -> PackageProblem | None:
    """Return a problem if the libraries would need hours to read the components, because of aliases; else None."""
    file = _components_file(package)
    if file is None or file.suffix == ".conf":
        return None
    content, _ = parse_yaml(file)
    return PackageProblem(_relative(file, folder), None, "", TOO_MANY_ALIASES) if is_huge(content) else None


def _environment() -> dict[str, str]:
    """Return the environment of a process that imports ``st4sd_async`` from its current location."""
    root = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    # The hooks of the package are imported. Compiled files beside them would be changes that are not committed.
    return {**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}


def _locate(
    found: Mapping[str, Any], folder: Path, package: Path, file: Path | None, definition: Mapping[str, Any]
) -> list[PackageProblem]:
    components = _components_file(package) or package
    problems = [*_package_problems(found["problems"], folder, components)]
    if file is not None:
        lines = _Lines(file)
        for where, what in [*shape_problems(definition)] or _option_problems(definition, found):
            problems.append(PackageProblem(_relative(file, folder), lines.of(where), where, what))
    return sorted(dict.fromkeys(problems), key=lambda problem: (problem.file, problem.line or 0))


def _package_problems(problems: Iterable[tuple[str, str]], folder: Path, components: Path) -> Iterator[PackageProblem]:
    lines = _Lines(components)
    for where, what in problems:
        marks = [*_MARK.finditer(what)]
        if marks:
            yield _syntax_problem(marks, folder, where)
        else:
            value = _QUOTED.match(what)
            line = lines.of_value(value[1]) if value and not where else lines.of(where)
            yield PackageProblem(_relative(components, folder), line, where, _one_line(what))


def _syntax_problem(marks: list[re.Match[str]], folder: Path, where: str) -> PackageProblem:
    """Return the problem of a file that is not valid YAML, at the line of the mistake."""
    *contexts, mark = marks
    what = _one_line(mark["what"])
    what += "".join(f": {advice}" for begin, advice in _SYNTAX_ADVICE.items() if begin in what)
    if contexts:
        begin = contexts[0]
        what += f" ({_one_line(begin['what'])}, from line {begin['line']})"
        if "end of stream" in what:  # such as a quote that is never closed
            mark = begin
    return PackageProblem(_relative(Path(mark["file"]), folder), int(mark["line"]), where, what)


def _one_line(text: str) -> str:
    return shorten(" ".join(text.split()))


def _relative(file: Path, folder: Path) -> str:
    try:
        return file.resolve().relative_to(folder.resolve()).as_posix()
    except ValueError:
        return str(file)


def _option_problems(definition: Mapping[str, Any], declared: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield a problem for each preset or option of a definition that the package does not declare."""
    if "variables" not in declared:  # the package cannot be loaded
        return
    kinds = (("variables", "variable"), ("data", "file in data/"))
    for part, options in (definition.get("parameterisation") or {}).items():
        for field, noun in kinds:
            for number, option in enumerate(options.get(field) or []):
                name = str(option.get("name"))
                if name not in declared[field]:
                    what = f"the package has no {noun} {name!r}{did_you_mean(name, declared[field])}"
                    yield f"parameterisation.{part}.{field}[{number}].name", what
        platforms = options.get("platform") or []
        for name in [platforms] if isinstance(platforms, str) else platforms:
            if name not in declared["platforms"]:
                what = f"the package has no platform {name!r}{did_you_mean(str(name), declared['platforms'])}"
                yield f"parameterisation.{part}.platform", what


class _Lines:
    """The lines of the entries of a YAML file."""

    def __init__(self, file: Path) -> None:
        self._root: Any = None
        try:
            yaml = importlib.import_module("yaml")
            self._root = yaml.compose(file.read_text("utf-8"), Loader=yaml.SafeLoader)
        except Exception:  # the file is not valid YAML, so entries have no lines
            return

    def of(self, entry: str) -> int | None:
        """Return the line of the innermost existing part of an entry; None if no part exists."""
        node, line = self._root, None
        component = _COMPONENT.match(entry)
        if component:
            node, line = self._component(int(component[1]), component[2])
            entry = entry[component.end() :]
        for number, name in _TOKEN.findall(entry):
            found = _item(node, int(number)) if number else _value(node, name)
            if found is None:
                break
            node, line = found
        return line

    def of_value(self, text: str) -> int | None:
        """Return the line of the first scalar with a text; None if there is none."""
        nodes: list[Any] = [self._root]
        while nodes:
            node = nodes.pop()
            kind, value = getattr(node, "id", ""), getattr(node, "value", ())
            if kind == "scalar" and value == text:
                return int(node.start_mark.line) + 1
            if kind == "mapping":
                nodes += [part for pair in reversed(value) for part in reversed(pair)]
            elif kind == "sequence":
                nodes += reversed(value)
        return None

    def _component(self, stage: int, name: str) -> tuple[Any, int | None]:
        components = _value(self._root, "components")
        for item in getattr(components[0] if components else None, "value", ()):
            values = {key: _value(item, key) for key in ("stage", "name")}
            found = [None if value is None else value[0].value for value in values.values()]
            if (found[0] or "0", found[1]) == (str(stage), name):
                return item, item.start_mark.line + 1
        return None, None


def _value(node: Any, name: str) -> tuple[Any, int] | None:
    """Return the value of a key of a mapping, and the key's line; None if the key is missing."""
    pairs = node.value if getattr(node, "id", "") == "mapping" else ()
    return next(((value, key.start_mark.line + 1) for key, value in pairs if key.value == name), None)


def _item(node: Any, number: int) -> tuple[Any, int] | None:
    """Return an item of a sequence, and its line; None if the item is missing."""
    items = node.value if getattr(node, "id", "") == "sequence" else ()
    return (items[number], items[number].start_mark.line + 1) if number < len(items) else None
