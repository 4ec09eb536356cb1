"""Find everything that is wrong with a start before it is sent: files, size, names, and values."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from .._errors import InvalidPayload, Problem
from .._util.did_you_mean import DID_YOU_MEAN
from .._util.redact import redact
from ..models import Experiment, StartPayload
from .draft import Draft, Option, Part, similar_name
from .prepare import clash_problem, credentials_of, dump, find_clashes, read_files, serialise, validate_payload

BOOLEANS = frozenset({"true", "false", "yes", "no", "on", "off", "0", "1"})
"""Texts that a variable may have if its default is one of the first four of them."""
FLOWIR_REFERENCE = "%("
"""Begins a reference to another variable, whose type is unknown."""

_THOUSANDS = re.compile(r"[+-]?\d{1,3}(,\d{3})+")
"""A number with commas that may separate thousands."""


async def find_start_problems(
    experiment: Experiment | None, payload: Mapping[str, Any] | StartPayload | None, more_metadata: Mapping[str, str]
) -> list[Problem]:
    """
    Return all problems of a start. Reads its files and sends nothing.

    Args:
        experiment: The experiment, with its registry metadata. None means unknown: the payload is checked only in
            itself.
        payload: The payload, as in `Client.start`.
        more_metadata: Metadata that will be added before it is sent, which count towards its size.

    Raises:
        InvalidPackage: The experiment was fetched without its registry metadata.
    """
    start, problems = _valid_fields({} if payload is None else payload)
    invalid = {re.split(r"[.\[]", where)[0] for where, _ in problems}
    contents, found = await read_files(start)
    problems += found
    if clashes := find_clashes(start):
        problems.append(clash_problem(clashes))
    if experiment is not None:
        draft = Draft(experiment)
        problems += refused_entries(draft, start)
        if "inputs" not in invalid:
            problems += missing_files(draft, start)
        problems += doubtful_values(draft, start)
    body = dump(start, contents)
    try:
        serialise({**body, "metadata": {**(body.get("metadata") or {}), **more_metadata}})
    except InvalidPayload as error:
        problems += error.problems
    credentials = tuple(credentials_of(body))
    return [Problem(*(redact(text, credentials) for text in problem)) for problem in problems]


def _valid_fields(payload: Mapping[str, Any] | StartPayload) -> tuple[StartPayload, list[Problem]]:
    """Return the fields of a payload that have the right types, and the problems of the others."""
    try:
        return validate_payload(payload, StartPayload), []
    except InvalidPayload as error:
        invalid = {re.split(r"[.\[]", where)[0] for where, _ in error.problems}
        rest = {name: value for name, value in dict(payload).items() if name not in invalid}
        return validate_payload(rest, StartPayload), list(error.problems)


def refused_entries(draft: Draft, start: StartPayload) -> Iterator[Problem]:
    """Yield the entries of a payload that the experiment does not accept. Fills in the draft with the others."""
    entries: list[tuple[Part, str, Any]] = [
        (draft.variables, name, value) for name, value in (start.variables or {}).items()
    ]
    entries += [(draft.inputs, file.name or "", file) for file in start.inputs or ()]
    entries += [(draft.data, file.name or "", file) for file in start.data or ()]
    for part, name, value in entries:
        try:
            part[name] = value
        except InvalidPayload as error:
            yield from error.problems
    try:
        draft.platform = start.platform
    except InvalidPayload as error:
        yield from error.problems


def missing_files(draft: Draft, start: StartPayload) -> Iterator[Problem]:
    """Yield the input files that a draft lacks, without those that were given under a similar name."""
    allowed = {"inputs": draft.inputs.allowed, "data": draft.data.allowed, "variables": draft.variables.allowed}
    given = {
        "inputs": [file.name or "" for file in start.inputs or ()],
        "data": [file.name or "" for file in start.data or ()],
        "variables": list(start.variables or ()),
    }
    meant = {
        similar_name(name, field, allowed)
        for field, names in given.items()
        for name in names
        if name not in allowed[field]
    }
    for name in draft.missing:
        if ("inputs", name) not in meant:
            yield Problem(f"inputs.{name}", "is missing, and the experiment needs it")


def doubtful_values(draft: Draft, start: StartPayload) -> Iterator[Problem]:
    """Yield the variables whose values have another type than their defaults. The service accepts them."""
    platform = start.platform or next(iter(draft.platforms), "")
    for name, value in (start.variables or {}).items():
        option = draft.options.get(name)
        if option is not None and option.choices is None:
            problem = type_problem(str(value), _defaults(option, platform))
            if problem:
                yield Problem(f"variables.{name}", problem)


def _defaults(option: Option, platform: str) -> Collection[str]:
    """Return the default of a variable on a platform; if unknown, those of all platforms."""
    if option.default is not None:
        return (option.default,)
    return (option.defaults[platform],) if platform in option.defaults else tuple(option.defaults.values())


def type_problem(value: str, defaults: Collection[str]) -> str | None:
    """Return the problem of a value if all defaults are numbers or booleans and it is not; None if there is none."""
    if not defaults or FLOWIR_REFERENCE in value:
        return None
    default = next(iter(defaults))
    if all(map(_is_number, defaults)) and not _is_number(value):
        suggestions = " or ".join(map(repr, _numbers_meant(value)))
        question = f": {DID_YOU_MEAN} {suggestions}?" if suggestions else ""
        return f"{value!r} is not a number, and its default {default!r} is one{question}"
    if {one.casefold() for one in defaults} <= BOOLEANS - {"0", "1"} and value.casefold() not in BOOLEANS:
        return f"{value!r} is neither true nor false, and its default is {default!r}"
    return None


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _numbers_meant(text: str) -> list[str]:
    """Return the numbers that a text in the notation of another language or of a spreadsheet may mean."""
    plain = text.replace("\N{MINUS SIGN}", "-").replace(" ", "").replace("\N{NO-BREAK SPACE}", "")
    candidates = [plain.replace(",", ".")]
    if _THOUSANDS.fullmatch(plain):
        candidates.append(plain.replace(",", ""))
    return [candidate for candidate in dict.fromkeys(candidates) if _is_number(candidate)]
