"""Explain entry by entry why a start was refused, by the definition of its experiment."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress

from .._errors import InvalidPayload, Problem, join_problems, parse_refused_entries
from .._util.printable import shorten
from .._util.redact import redact
from ..models import Experiment, StartPayload
from .check import refused_entries
from .draft import Draft
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
        payload = StartPayload.model_validate(json.loads(prepared.content))
        found = _redacted(refused_entries(Draft(experiment), payload), prepared.secrets)
        if found:
            error.problems, error.advice = tuple(found), shorten(join_problems(found), MAX_ADVICE_LENGTH)


def _redacted(problems: Iterable[Problem], secrets: tuple[str, ...]) -> list[Problem]:
    return [Problem(*(redact(text, secrets) for text in problem)) for problem in problems]
