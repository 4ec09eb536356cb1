"""Why a start was refused, entry by entry, where the service says it in words alone: the experiment knows."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any

from .._errors import InvalidPayload, Problem, join_problems, parse_refused_entries
from .._util.printable import shorten
from .._util.redact import masked
from ..models import Experiment, FileContent
from .draft import Draft, Entries
from .prepare import Prepared

LONGEST_ADVICE = 300
"""Characters of what is told of the entries in a message; `InvalidPayload.problems` has all of it."""


async def explain(
    error: InvalidPayload, prepared: Prepared, experiment: Callable[[], Awaitable[Experiment | None]]
) -> None:
    """
    Tell in a refusal which entries of the payload the experiment does not take, and which may have been meant.

    Args:
        error: The refusal; left as it is unless it is in words that name an entry, and if nothing more can be told.
        prepared: The payload that was refused.
        experiment: Asks for the definition of the experiment; None: it is not to be had.
    """
    if not parse_refused_entries(error.message):
        return
    with suppress(Exception):  # whatever goes wrong with the hint, the refusal must be told
        known = await experiment()
        found = [] if known is None else _masked(_unfit(Draft(known), json.loads(prepared.content)), prepared.secrets)
        if found:
            error.problems, error.advice = tuple(found), shorten(join_problems(found), LONGEST_ADVICE)


def _masked(problems: Iterable[Problem], secrets: tuple[str, ...]) -> list[Problem]:
    return [Problem(*(masked(text, secrets) for text in one)) for one in problems]


def _unfit(draft: Draft, body: Mapping[str, Any]) -> Iterator[Problem]:
    """What of a payload does not go into the draft of one."""
    entries: list[tuple[Entries, str, Any]] = [
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
