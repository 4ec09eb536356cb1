"""Everything that is wrong with a start is found at once, before it is sent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from st4sd_async import Experiment, StartPayload
from st4sd_async._http.call import MAX_REQUEST_BYTES
from st4sd_async._payload.check import find_start_problems, type_problem

from .experiments import experiment

pytestmark = pytest.mark.anyio

INPUT = {"filename": "in.csv", "content": "x\n"}
SECRET = "a-very-secret-key"


async def problems_of(payload: Any, entry: Experiment | None = None, **metadata: str) -> dict[str, str]:
    """Return where -> what, and check that no entry occurs twice."""
    found = await find_start_problems(entry or experiment(), payload, metadata)
    assert len(dict(found)) == len(found)
    return dict(found)


async def test_a_good_start_has_no_problems() -> None:
    """As a mapping or as a payload, on any of its platforms."""
    good = {"inputs": [INPUT], "variables": {"usual": "2.5", "chosen": 1, "free": "text"}, "platform": "cpu"}

    assert await problems_of(good) == {}
    assert await problems_of(StartPayload.model_validate(good)) == {}


async def test_all_problems_are_found_at_once(tmp_path: Path) -> None:
    """Unknown fields, files, variables and the platform, each with what was probably meant."""
    payload = {
        "inputs": [{"filename": "in.csv", "content": tmp_path / "none.csv"}, {"filename": "inn.csv", "content": ""}],
        "variables": {"chosen": "3", "usal": 1, "usual": "2,5", "extra.txt": "x"},
        "platform": "gpus",
        "metdata": {"a": 1},
        "environmentVariables": {"a": [1]},
    }

    found = await problems_of(payload)

    assert found == {
        "metdata": "unknown field: did you mean 'metadata'?",
        "environmentVariables.a": "must be a string, a number or a boolean, not list",
        "inputs[0].content": f"for 'in.csv', the file '{tmp_path}/none.csv' cannot be read: No such file or directory",
        "inputs[1].content": "the service refuses an empty file ('inn.csv'): give it a line break, or provide the file "
        "through s3, a dataset or a volume",
        "inputs.inn.csv": "the experiment does not accept it, only ['in.csv']: did you mean 'in.csv'?",
        "variables.chosen": "the experiment does not accept the value '3', only ['1', '2']",
        "variables.usal": "the experiment does not accept it, only ['chosen', 'free', 'usual']: did you mean 'usual'?",
        "variables.extra.txt": "the experiment does not accept it, only ['chosen', 'free', 'usual']: "
        "did you mean 'extra.txt' in data?",
        "platform": "the experiment does not run on 'gpus', only on ['gpu', 'cpu']: did you mean 'gpu'?",
        "variables.usual": "'2,5' is not a number, and its default '3' is one: did you mean '2.5'?",
    }


@pytest.mark.parametrize(
    ("payload", "found"),
    [
        ({}, {"inputs.in.csv": "is missing, and the experiment needs it"}),
        (
            {"variables": {"in.csv": "mine.csv"}},
            {
                "variables.in.csv": "the experiment does not accept it, only ['chosen', 'free', 'usual']: "
                "did you mean 'in.csv' in inputs?"
            },
        ),
        ({"inputs": {"in.csv": "x"}}, {"inputs": "must be a list of files, such as ["}),
        (
            {"inputs": [INPUT], "data": [INPUT]},
            {
                "data": "files ['in.csv'] occur twice: give each file once",
                "data.in.csv": "the experiment does not accept it, only [",
            },
        ),
    ],
    ids=["missing", "given as a variable", "of the wrong type", "given twice"],
)
async def test_a_mistake_with_a_file_is_reported_once(payload: Any, found: dict[str, str]) -> None:
    """A file that was given in the wrong place, or in the wrong form, is not reported as missing too."""
    problems = await problems_of(payload)

    assert list(problems) == list(found)
    assert all(problems[where].startswith(what) for where, what in found.items())


async def test_the_size_counts_everything_that_is_sent() -> None:
    """To the byte, with the metadata that are added before it is sent."""
    empty = '{"inputs":[{"filename":"in.csv","content":"x"}],"metadata":{"key":"0123"}}'
    text = "x" * (MAX_REQUEST_BYTES - len(empty) + 1)

    fits = await problems_of({"inputs": [{"filename": "in.csv", "content": text}]}, key="0123")
    exceeds = await problems_of({"inputs": [{"filename": "in.csv", "content": text}]}, key="01234")

    assert fits == {}
    assert exceeds == {"inputs[0].content": "the payload is over the 1048576 bytes that the proxy accepts"}


@pytest.mark.parametrize("start", ["", "x"])
async def test_a_large_file_of_other_letters_is_too_large(tmp_path: Path, start: str) -> None:
    """It is text in UTF-8, wherever the limit falls."""
    file = tmp_path / "in.csv"
    file.write_text(start + "\N{GREEK SMALL LETTER ALPHA}" * MAX_REQUEST_BYTES, "utf-8")

    found = await problems_of({"inputs": [{"filename": "in.csv", "content": file}]})

    assert found == {"inputs[0].content": "the payload is over the 1048576 bytes that the proxy accepts"}


async def test_an_allowed_value_in_another_notation_is_suggested() -> None:
    """As a decimal comma."""
    entry = experiment(options={"variables": [{"name": "chosen", "valueFrom": [{"value": "1.5"}, {"value": "2.5"}]}]})

    found = await problems_of({"inputs": [INPUT], "variables": {"chosen": "2,5"}}, entry)

    assert found["variables.chosen"].endswith("only ['1.5', '2.5']: did you mean '2.5'?")


async def test_the_default_of_the_platform_counts() -> None:
    """A variable may be a number on one platform and a text on another."""
    options = [{"value": "1", "platform": "gpu"}, {"value": "auto", "platform": "cpu"}]
    raw = experiment().model_dump(by_alias=True)
    raw["metadata"]["registry"]["executionOptionsDefaults"] = {"variables": [{"name": "free", "valueFrom": options}]}
    entry = Experiment.model_validate(raw)
    payload = {"inputs": [INPUT], "variables": {"free": "all"}}

    assert list(await problems_of(payload, entry)) == ["variables.free"]
    assert await problems_of({**payload, "platform": "cpu"}, entry) == {}


async def test_problems_show_no_credentials() -> None:
    """Not even if another field contains one."""
    payload = {"inputs": [INPUT], "variables": {"usual": SECRET}, "environmentVariables": {"KEY": SECRET}}

    assert await problems_of(payload) == {"variables.usual": "'[secret]' is not a number, and its default '3' is one"}


@pytest.mark.parametrize(
    ("value", "defaults", "problem"),
    [
        ("2,5", ["1"], ": did you mean '2.5'?"),
        ("2,500", ["1.0"], ": did you mean '2.500' or '2500'?"),
        ("1,000,000", ["1"], ": did you mean '1000000'?"),
        ("\N{MINUS SIGN}4", ["1"], ": did you mean '-4'?"),
        ("1 000", ["1"], ": did you mean '1000'?"),
        ("two", ["1", "2"], "'two' is not a number, and its default '1' is one"),
        ("ture", ["true"], "'ture' is neither true nor false, and its default is 'true'"),
        ("1e-3", ["1"], None),
        ("-.5", ["1"], None),
        ("%(other)s", ["1"], None),
        ("two", ["1", "auto"], None),
        ("two", ["text"], None),
        ("two", [], None),
        ("1", ["false"], None),
        ("NO", ["True"], None),
    ],
)
def test_a_value_has_the_type_of_its_defaults(value: str, defaults: list[str], problem: str | None) -> None:
    """Numbers and booleans are checked, if all defaults agree."""
    found = type_problem(value, defaults)

    assert found is None if problem is None else found is not None and found.endswith(problem)
