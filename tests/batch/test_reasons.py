"""Reasons of failures as the journal keeps them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from st4sd_async import ComponentFailure, Failure, Status
from st4sd_async._batch.reasons import from_json, to_json

LONG = ComponentFailure("stage0.Boom", "KnownIssue", 1, "first\n" + "x" * 300, "out")


@pytest.mark.parametrize(
    ("components", "restored"),
    [
        ((LONG,), (replace(LONG, stderr="x" * 300, stdout=""),)),
        ((replace(LONG, stderr=""),), (replace(LONG, stderr=""),)),
        ((replace(LONG, stderr="", stdout="", return_code=None),) * 3, None),
        ((LONG,) * 1000, (replace(LONG, stderr="x" * 300, stdout=""),) * 100),
    ],
    ids=["last line", "standard output", "no output", "many"],
)
def test_a_reason_in_the_journal_is_short(
    components: tuple[ComponentFailure, ...], restored: tuple[ComponentFailure, ...] | None
) -> None:
    """Each failed component with the last line of what it wrote."""
    failure = Failure("fail-1", Status.pending(), components, log="a long log")

    found = from_json("fail-1", Status.pending(), to_json(failure))

    assert found is not None
    assert found.components == (components if restored is None else restored)
    assert found.log == ""


@pytest.mark.parametrize(
    "content",
    ["", "null", "{}", '{"a": 1}', "[1]", '[{"reference": "x"}]', "[" * 100_000, '[{"reference": "stage0.A"}]'],
)
def test_an_invalid_reason_is_left_out(content: str) -> None:
    """Another program may have written it."""
    found = from_json("fail-1", Status.pending(), content)

    assert found is None or found.components == ()
