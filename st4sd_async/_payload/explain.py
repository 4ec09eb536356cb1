"""Explain entry by entry why a start was refused, by the definition of its experiment."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any

from .._errors import InvalidPayload, Problem, join_problems, parse_refused_entries
from .._util.printable import shorten
from .._util.redact import redact
from ..models import Experiment, FileContent
from .draft import Draft, Part
from .prepare import Prepared

MAX_ADVICE_LENGTH = 300
"""Characters of the explanation in a message. `InvalidPayload.problems` has all of it."""


async def explain_invalid_payload(
    error: InvalidPayload, prepared: Prepared, get_experiment: Callable[[], Awaitable[Experiment | None]]
) -> None:
    """
    Add to a refusal the entries of the payload that the experiment does not accept, with suggestions.

    The refusal is left as it is if its message names no entry, or if the experiment cannot be fetched.

    Args:
        error: The refusal.
        prepared: The payload that was refused.
        get_experiment: Fetches the definition of the experiment. None means that it is not available.
    """
    if not parse_refused_entries(error.message):
        return
    with suppress(Exception):  # an error here must not hide the refusal
        experiment = await get_experiment()
        if experiment is None:
            return
        found = _redacted(_unacceptable(Draft(experiment), json.loads(prepared.content)), prepared.secrets)
        if found:
            error.problems, error.advice = tuple(found), shorten(join_problems(found), MAX_ADVICE_LENGTH)


def _redacted(problems: Iterable[Problem], secrets: tuple[str, ...]) -> list[Problem]:
    return [Problem(*(redact(text, secrets) for text in problem)) for problem in problems]


def _unacceptable(draft: Draft, body: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield the problems found by filling in a draft with a payload."""
    entries: list[tuple[Part, str, Any]] = [
        (draft.variables, name, value) for name, value in (body.get("variables") or {}).items()
    ]
    for part, files in ((draft.inputs, body.get("inputs")), (draft.data, body.get("data"))):
        entries += [(part, file.name or "", file) for file in map(FileContent.model_validate, files or ())]
    for part, name, value in entries:
        try:
            part[name] = value
        except InvalidPayload as error:
            yield from error.problems
    try:
        draft.platform = body.get("platform")
    except InvalidPayload as error:
        yield from error.problems
