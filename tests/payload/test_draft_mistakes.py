"""Mistakes with drafts: each is an error at once, which says what is allowed and contains no secrets."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from st4sd_async import (
    Draft,
    Experiment,
    ExtraInputs,
    FileContent,
    InvalidPackage,
    InvalidPayload,
    St4sdError,
    StartPayload,
)
from tests.payload.experiments import experiment

SECRET = "a-very-secret-key"


def filled(**parts: Any) -> Draft:
    """Return a draft with all inputs."""
    draft = Draft(experiment(**parts))
    draft.inputs["in.csv"] = "x\n"
    return draft


@pytest.mark.parametrize(
    "value", [{"sourceFilename": "a/b"}, [1], 5, object()], ids=["mapping", "list", "int", "object"]
)
@pytest.mark.parametrize("part", ["inputs", "data"])
def test_a_file_has_contents_or_says_where_they_are(part: str, value: Any) -> None:
    """A mapping as in a payload is not accepted; a `FileContent` says the same."""
    files = getattr(Draft(experiment()), part)
    (name,) = files.allowed

    with pytest.raises(
        InvalidPayload,
        match=rf"{part}.{name}: .* or a FileContent that says where they are, not {type(value).__name__}",
    ):
        files[name] = value

    assert not files


class Table:
    """A class with the method of a DataFrame that is used."""

    def to_csv(self, *, index: bool) -> str:
        """Return the table as text."""
        return f"a\n{index}\n"


@pytest.mark.parametrize(
    "value", ["x", b"x", bytearray(b"x"), Path("x"), Table()], ids=["str", "bytes", "bytearray", "path", "table"]
)
def test_contents_may_have_any_form_that_a_start_accepts(value: Any) -> None:
    """Text, bytes, a path, or an object with ``to_csv``."""
    draft = Draft(experiment())

    draft.inputs["in.csv"] = value

    assert draft.filled().inputs == [FileContent(filename="in.csv", content=value)]


@pytest.mark.parametrize("value", [None, [1], {"a": 1}], ids=["None", "list", "mapping"])
def test_a_variable_must_be_a_scalar(value: Any) -> None:
    """The error comes when it is set, not at the start."""
    draft = Draft(experiment())

    with pytest.raises(InvalidPayload, match=r"variables.free: must be a string, a number or a boolean"):
        draft.variables["free"] = value

    assert not draft.variables


def test_a_choice_may_be_a_number() -> None:
    """The service converts it to text before it compares."""
    draft = Draft(experiment())

    draft.variables["chosen"] = 2
    with pytest.raises(InvalidPayload, match=r"does not accept the value 2.0, only \['1', '2'\]"):
        draft.variables["chosen"] = 2.0

    assert dict(draft.variables) == {"chosen": 2}


def test_a_name_must_be_text() -> None:
    """A name in another case is suggested."""
    draft = Draft(experiment())

    with pytest.raises(ExtraInputs, match=re.escape(f"names must be strings, not {Path('in.csv')!r}")):
        draft.inputs[Path("in.csv")] = "x"  # type: ignore[index] # on purpose
    with pytest.raises(ExtraInputs, match=r"did you mean 'in.csv'\?"):
        draft.inputs["IN.CSV"] = "x"


def test_a_part_may_be_assigned() -> None:
    """Under the same checks, all of it or nothing."""
    draft = Draft(experiment())
    draft.variables["free"] = "before"

    draft.inputs = {"in.csv": "x\n"}
    with pytest.raises(InvalidPayload, match=r"variables.nope: .* only \['chosen', 'free', 'usual'\]"):
        draft.variables = {"usual": 1, "nope": 2}

    with pytest.raises(TypeError, match="data must be a mapping, name -> value, not NoneType"):
        draft.data = None  # type: ignore[assignment] # on purpose

    assert dict(draft.inputs) == {"in.csv": "x\n"}
    assert dict(draft.variables) == {"free": "before"}
    draft.variables = {"usual": 1}
    assert draft.filled().variables == {"usual": 1}


def test_a_misspelt_part_is_an_error() -> None:
    """It would be ignored otherwise."""
    draft = Draft(experiment())

    with pytest.raises(AttributeError, match="platfrom"):
        draft.platfrom = "gpu"  # type: ignore[attr-defined] # on purpose


MORE: dict[str, tuple[Any, str]] = {
    "a misspelt key": (
        {"s3": {"accessKeyID": "an-id", "secretAccesKey": SECRET}},
        "s3.secretAccesKey: unknown field: did you mean 'secretAccessKey'",
    ),
    "a misspelt field": ({"metdata": {}}, "metdata: unknown field: did you mean 'metadata'"),
    "environment": ({"environmentVariables": {"A": {"B": SECRET}}}, "environmentVariables.A: must be a string"),
}


@pytest.mark.parametrize("what", MORE)
def test_other_fields_are_validated(what: str) -> None:
    """With the error that a start raises, which contains none of the values."""
    more, words = MORE[what]

    with pytest.raises(InvalidPayload, match=re.escape(words)) as caught:
        filled().filled(more)

    error = caught.value
    assert error.__context__ is None
    assert SECRET not in f"{error}{error!r}{vars(error)}"
    assert isinstance(error, St4sdError)
    assert error.problems[0].where == words.partition(":")[0]


def test_other_fields_must_be_a_mapping() -> None:
    """Not a payload, which has the parts that the draft fills in."""
    draft = filled()

    for more in ("text", StartPayload(metadata={"a": 1})):
        with pytest.raises(TypeError, match=f"fields of a payload must be a mapping, not {type(more).__name__}"):
            draft.filled(more)  # type: ignore[arg-type] # on purpose


@pytest.mark.parametrize(
    "hidden",
    [lambda one: one["metadata"].pop("registry"), lambda one: one["metadata"]["registry"].pop("digest")],
    ids=["no registry", "no digest"],
)
def test_a_draft_needs_the_facts_of_the_registry(hidden: Callable[[dict[str, Any]], object]) -> None:
    """Without them, no input would be allowed."""
    known: dict[str, Any] = {"metadata": {"package": {"name": "demo"}, "registry": {"digest": "sha256xabc"}}}
    hidden(known)

    with pytest.raises(
        InvalidPackage, match=r"'demo' was fetched without its registry metadata, .*: get it with with_registry"
    ):
        Draft(Experiment.model_validate(known))


def test_the_parts_of_a_draft_are_attributes_of_its_class() -> None:
    """Where `help` looks for them."""
    assert {name for name in vars(Draft) if getattr(Draft, name) is vars(Draft)[name]} >= {
        "inputs",
        "data",
        "variables",
    }
