"""The launches of a sweep."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from st4sd_async import Client, Launch, StartPayload
from st4sd_async._batch.sweep import MAX_POINTS, grid
from tests.tries import tries

from .batches import run_all

FILES = {"inputs": [{"filename": "molecules.csv", "content": "smiles\nCO\n"}]}

RANGES = [
    ("1:3", ["1", "2", "3"]),
    ("1:2:0.25", ["1", "1.25", "1.5", "1.75", "2"]),
    ("0:1:0.4", ["0", "0.4", "0.8"]),
    ("3:1:-1", ["3", "2", "1"]),
    ("-0.1:0.1:0.1", ["-0.1", "0", "0.1"]),
    ("1e-3:3e-3:1e-3", ["0.001", "0.002", "0.003"]),
    ("90:110:10", ["90", "100", "110"]),
    ("5:5", ["5"]),
    ("0, 1:2:0.5", ["0", "1", "1.5", "2"]),
    ("a, b", ["a", "b"]),
    ("file:///x", ["file:///x"]),
    ("1.10", ["1.10"]),
    ([1.5, True, "a,b:c"], [1.5, True, "a,b:c"]),
]


@pytest.mark.parametrize(("given", "values"), RANGES, ids=[str(given) for given, _ in RANGES])
def test_values_of_a_variable(given: Any, values: list[Any]) -> None:
    """A string has ranges and texts; a list has the values themselves."""
    assert [point["x"] for point in grid({"x": given})] == values


def test_ranges_are_exact() -> None:
    """No value has digits that come from binary fractions."""
    found = [point["alpha"] for point in grid({"alpha": "1:3:0.1"})]

    assert found == ["1", *(f"1.{n}" for n in range(1, 10)), "2", *(f"2.{n}" for n in range(1, 10)), "3"]
    count = tries(100_000, 10_000)
    assert [Decimal(point["x"]) for point in grid({"x": f"0:{(count - 1) / 1000}:0.001"})] == [
        Decimal(n) / 1000 for n in range(count)
    ]


MISTAKES: list[tuple[Any, str]] = [
    ({}, "at least one variable"),
    ({"": "1"}, "name of a variable"),
    ({"x": ""}, "'x' has an empty value"),
    ({"x": "1,,2"}, "'x' has an empty value"),
    ({"x": []}, "'x' has no values"),
    ({"x": 3}, "or a list: [3]"),
    ({"x": "1:3:x"}, "'1:3:x' is not a range of 'x': write START:STOP or START:STOP:STEP, all numbers"),
    ({"x": "10:30:00:1"}, "is not a range"),
    ({"x": "1:nan"}, "is not a range"),
    ({"x": "1:3:0"}, "has the step 0"),
    ({"x": "1:3:-1"}, "has the step -1, which leads away from 3"),
    ({"x": "1,2,1"}, "has the value '1' twice"),
    ({"x": "1:1e9"}, f"has 1000000000 values, and at most {MAX_POINTS}"),
    ({"x": "1:1e900"}, "too many digits"),
    ({"x": "1:1000", "y": "1:1000"}, f"has 1000000 combinations, and at most {MAX_POINTS}"),
]


@pytest.mark.parametrize(("variables", "message"), MISTAKES, ids=[message[:30] for _, message in MISTAKES])
def test_mistakes_are_refused(variables: Any, message: str) -> None:
    """The message has the variable and what is wrong with its values."""
    with pytest.raises(ValueError, match=r".") as caught:
        Launch.sweep("demo", variables)

    assert message in str(caught.value)


@pytest.mark.slow
def test_the_launches_of_a_grid_have_keys_that_are_folder_names() -> None:
    """The last variable changes fastest, and the rest of the payload is the same."""
    common = StartPayload.model_validate({**FILES, "variables": {"other": 1}, "platform": "fast"})
    found = Launch.sweep("demo", {"alpha": "1:1.1:0.1", "method": ["a", "b"]}, common)

    assert [launch.key for launch in found] == [
        "alpha_1-method_a",
        "alpha_1-method_b",
        "alpha_1.1-method_a",
        "alpha_1.1-method_b",
    ]
    payload = found[2].payload
    assert isinstance(payload, StartPayload)
    assert payload.variables == {"other": 1, "alpha": "1.1", "method": "a"}
    assert payload.platform == "fast"
    assert common.variables == {"other": 1}


def test_a_variable_cannot_be_set_twice() -> None:
    """Neither value would be expected to win."""
    with pytest.raises(ValueError, match="the payload and the sweep both set the variable 'alpha'"):
        Launch.sweep("demo", {"alpha": "1,2"}, {"variables": {"alpha": 1}})


def test_combinations_with_the_same_key_are_refused() -> None:
    """A key identifies a launch."""
    with pytest.raises(ValueError, match="two combinations of the sweep have the key 'x_1-y_2-y_3'"):
        Launch.sweep("demo", {"x": ["1-y_2", "1"], "y": ["3", "2-y_3"]})


@pytest.mark.slow
@pytest.mark.anyio
async def test_a_sweep_is_run_and_becomes_a_table(client: Client) -> None:
    """The table has the values of the variables beside the properties."""
    draft = await client.draft("demo")
    draft.inputs["molecules.csv"] = "smiles\nCO\n"
    async with client.batch() as batch:
        assert await batch.add(Launch.sweep(draft, {"scale": "1:2:0.5"})) == 3
        await run_all(batch)
        found = await batch.table(["energy"])

        assert await batch.add(Launch.sweep(draft, {"scale": ["1", "1.5", "2"]})) == 0

    assert {row["variable:scale"]: row["energy"] for row in found} == {"1": -3.0, "1.5": -4.5, "2": -6.0}
