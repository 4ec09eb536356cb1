"""The embedded server answers the recorded calls as the real servers did, but for the exceptions."""

from __future__ import annotations

import importlib.util
from collections import Counter

import pytest

from tests.local.recorded import exceptions
from tests.local.recorded.replay import SESSIONS, SLOTS, Engine, load, replay
from tests.tries import IS_FULL, tries

pytestmark = pytest.mark.slow

is_installed = importlib.util.find_spec("experiment") is not None
needs_orchestrator = pytest.mark.skipif(not is_installed, reason="st4sd-runtime-core is not installed")

EXECUTED = SESSIONS if IS_FULL else (SESSIONS[0][:1],), tries(SLOTS, 5)
"""
What is replayed with the orchestrator, whose runs take long: a sample is the recording of whole lives of runs.

That one does not depend on the number of slots, so that its runs need not wait for each other.
"""


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "engine", ["simulator", pytest.param("elaunch", marks=[pytest.mark.slow(seconds=22), needs_orchestrator])]
)
def test_calls_are_answered_as_recorded(engine: Engine) -> None:
    """Only excepted fields differ, and each of them does."""
    sessions, slots = EXECUTED if engine == "elaunch" else (SESSIONS, SLOTS)

    found = replay(engine, sessions, slots)

    assert found.keys() == {call["call"] for names in sessions for name in names for call in load(name)["calls"]}
    differing = {(call, difference.field) for call in found for difference in found[call]}
    excepted = {(call, field) for call, field in exceptions.excepted_fields(engine) if call in found}
    unexpected = [str(row) for rows in found.values() for row in rows if (row.call, row.field) not in excepted]
    assert not unexpected, "\n".join(["not as recorded:", *unexpected])
    assert not excepted - differing, f"no longer differ: {sorted(excepted - differing)}"


def test_exceptions_are_few_and_each_has_a_reason() -> None:
    """Each names one field of one call, once. The bound is that of the promise."""
    rows = exceptions.load()

    assert len(rows) < 15
    assert max(Counter((row.call, row.field) for row in rows).values(), default=1) == 1
    assert {row.call for row in rows} <= {
        call["call"] for names in SESSIONS for name in names for call in load(name)["calls"]
    }
    assert {row.engine for row in rows} <= {"simulator", "elaunch", exceptions.BOTH}
    assert all(row.reason not in ("", exceptions.TO_BE_MENDED) for row in rows)
