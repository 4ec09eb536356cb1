"""A component that failed is explained by the orchestrator's own files."""

from __future__ import annotations

import pytest

from st4sd_async import Client, RunFailed
from st4sd_async.models import ComponentFailure
from tests.local.incumbent.finished import INCUMBENT, Finished

BOOM = "boom: this component always fails"
pytestmark = [pytest.mark.anyio, *INCUMBENT, pytest.mark.slow]


async def test_the_failure_of_a_component_is_explained(finished: Finished, client: Client) -> None:
    """The simulator says the same."""
    run = client.run(finished.runs["fail"])

    with pytest.raises(RunFailed) as caught:
        await run.wait(timeout=100, check=True)

    assert caught.value.reasons[run.id].components == (
        ComponentFailure("stage0.Boom", "KnownIssue", 3, BOOM, "about to fail"),
    )
    assert await run.stderr() == {"stage0.Boom": f"{BOOM}\n"}
