"""Both engines write the same documents."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.local.incumbent.finished import Finished

# The first test of this folder waits until all real runs are over, see the fixture `finished`.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300), pytest.mark.filterwarnings("ignore")]
COMPONENTS = {"demo": 2, "fail": 2}
"""How many components the experiments have."""


def query(finished: Finished, **condition: Any) -> list[dict[str, Any]]:
    """Return the documents that match a query."""
    found: list[dict[str, Any]] = finished.api.cdb_get_document(query=condition, _api_verbose=False)
    return found


def documents(finished: Finished, experiment: str) -> list[dict[str, Any]]:
    """Return the documents of a run; those of the components of a failed run come last."""
    instance = finished.instances[experiment]
    while len(query(finished, instance=instance, type="component")) < COMPONENTS[experiment]:
        time.sleep(0.05)
    return query(finished, instance=instance)


def shape(document: dict[str, Any]) -> Any:
    """Return what does not depend on the engine: some values, and all keys."""
    keys = ("type", "name", "stage", "component-state", "interface")
    values = {key: document.get(key) for key in keys}
    return values, bool(document.get("memoization-hash")), sorted(document)


@pytest.mark.parametrize("experiment", COMPONENTS)
def test_simulated_documents_have_the_shape_of_real_ones(
    simulated: Finished, executed: Finished, experiment: str
) -> None:
    """This includes components that failed and that were never executed."""
    first, second = ([shape(one) for one in documents(run, experiment)] for run in (simulated, executed))

    assert first == second
    assert len(first) == 2 + COMPONENTS[experiment]
