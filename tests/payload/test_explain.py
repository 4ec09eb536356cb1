"""A refused start is explained by what the experiment allows."""

from __future__ import annotations

import pytest

from st4sd_async import Experiment, InvalidPayload
from st4sd_async._payload.explain import explain_invalid_payload
from st4sd_async._payload.prepare import prepare

pytestmark = pytest.mark.anyio

REFUSED = "Payload sets variable scael = 2 for which parameterisation.executionOptions.variables has no rule."


async def test_a_failing_explanation_does_not_hide_the_refusal() -> None:
    """Providers of credentials are code of users and may raise anything."""

    async def broken() -> Experiment:
        raise RuntimeError("the vault is closed")

    async def missing() -> None:
        return None

    prepared = await prepare({"variables": {"scael": 2}})
    for ask in (broken, missing):
        refusal = InvalidPayload(REFUSED)
        advice = refusal.advice

        await explain_invalid_payload(refusal, prepared, ask)

        assert (refusal.advice, refusal.problems) == (advice, ())
