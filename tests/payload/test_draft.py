"""A draft knows what the experiment allows, and accepts nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from st4sd_async import S3, Draft, Experiment, ExtraInputs, FileContent, InvalidPayload, MissingInputs, Staged
from st4sd_async._payload.draft import Option, default_of
from tests.payload.experiments import experiment


def test_a_draft_shows_what_can_be_filled_in() -> None:
    """Names, allowed values, defaults and platforms."""
    draft = Draft(experiment())

    assert draft.identifier == "demo@sha256xabc"
    assert (draft.inputs.allowed, draft.data.allowed) == (("in.csv",), ("extra.txt",))
    assert draft.variables.allowed == ("free", "usual", "chosen")
    assert [(one.choices, one.default) for one in draft.options.values()] == [
        (None, None),
        (None, "3"),
        (("1", "2"), "1"),
    ]
    assert draft.platforms == ("gpu", "cpu")
    assert draft.missing == ("in.csv",)
    assert "needs ['in.csv']" in repr(draft)


def test_a_filled_draft_is_a_payload() -> None:
    """With what was filled in and the other fields, and nothing else."""
    draft = Draft(experiment())
    draft.inputs["in.csv"] = "x\n"
    draft.data["extra.txt"] = FileContent(sourceFilename="a/b.txt", targetFilename="extra.txt")
    draft.variables.update({"chosen": 2, "free": "anything", "usual": 1.5})
    del draft.variables["usual"]
    draft.platform = "cpu"
    assert draft.platform == "cpu"

    payload = draft.filled({"metadata": {"campaign": "first"}, "s3": {"dataset": "results"}})

    assert payload.inputs == [FileContent(filename="in.csv", content="x\n")]
    assert payload.data == [draft.data["extra.txt"]]
    assert payload.variables == {"chosen": 2, "free": "anything"}
    assert (payload.platform, payload.metadata) == ("cpu", {"campaign": "first"})
    assert payload.model_fields_set == {"inputs", "data", "variables", "platform", "metadata", "s3"}
    assert (len(draft.variables), draft.missing) == (2, ())
    assert repr(draft.variables) == "<variables: ['chosen', 'free'] of ['chosen', 'free', 'usual']>"


def test_staged_files_become_inputs_and_data() -> None:
    """Each where the experiment has its name, with the bucket. Files of another bucket are refused."""
    draft = Draft(experiment())
    staged = Staged(S3(bucket="mine"), {name: FileContent(targetFilename=name) for name in ("in.csv", "extra.txt")})

    draft.use(staged)
    payload = draft.filled({"metadata": {"a": "b"}})

    assert payload.inputs == staged.as_inputs()["inputs"][:1]
    assert payload.data == staged.as_data()["data"][1:]
    assert payload.s3 is staged.s3
    with pytest.raises(ValueError, match="from one bucket"):
        draft.use(Staged(S3(bucket="other"), {}))
    with pytest.raises(ValueError, match=r"\['s3'\] are set on the draft itself"):
        draft.filled({"s3": {"dataset": "d"}})


def test_a_staged_file_that_the_experiment_does_not_accept_is_refused() -> None:
    """The error names those it accepts, and nothing is filled in."""
    draft = Draft(experiment())
    staged = Staged(S3(bucket="mine"), {name: FileContent(targetFilename=name) for name in ("in.csv", "im.csv")})

    with pytest.raises(ExtraInputs, match=r"inputs.im.csv: .* only \['in.csv'\]"):
        draft.use(staged)

    assert len(draft.inputs) == 0
    assert draft.missing == ("in.csv",)


def test_fields_that_are_not_filled_in_are_not_sent() -> None:
    """The draft adds nothing."""
    draft = Draft(experiment())
    draft.inputs["in.csv"] = "x\n"
    draft.platform = "cpu"
    draft.platform = None

    assert draft.filled().model_fields_set == {"inputs"}


@pytest.mark.parametrize(
    ("part", "name", "value", "error", "words"),
    [
        ("inputs", "im.csv", "x", ExtraInputs, r"inputs.im.csv: .* only \['in.csv'\]: did you mean 'in.csv'"),
        ("data", "other", "x", InvalidPayload, r"data.other: .* only \['extra.txt'\]"),
        ("variables", "chose", 1, InvalidPayload, r"variables.chose: .* did you mean 'chosen'"),
        ("variables", "chosen", 3, InvalidPayload, r"does not accept the value 3, only \['1', '2'\]"),
        ("inputs", "in.csv", None, InvalidPayload, "a file needs contents"),
        ("inputs", "in.csv", FileContent(filename="a.csv", content="x"), InvalidPayload, "targetFilename='in.csv'"),
    ],
    ids=str,
)
def test_an_entry_that_is_not_allowed_is_refused_at_once(
    part: str, name: str, value: Any, error: Any, words: str
) -> None:
    """The error names what is allowed, and the draft does not change."""
    draft = Draft(experiment())

    with pytest.raises(error, match=words) as caught:
        getattr(draft, part)[name] = value

    assert type(caught.value) is error
    assert caught.value.names == (name,)
    assert caught.value.problems[0].where == f"{part}.{name}"
    assert len(getattr(draft, part)) == 0


@pytest.mark.parametrize(
    ("parts", "platforms"),
    [
        ({}, ("gpu", "cpu")),
        ({"presets": {"platform": "gpu"}}, ("gpu",)),
        ({"options": {"platform": []}}, ("default", "cpu", "gpu")),
    ],
    ids=["a choice", "fixed", "any"],
)
def test_a_platform_must_be_allowed(parts: Any, platforms: tuple[str, ...]) -> None:
    """The preset one, one of the choices, or any that the package has."""
    draft = Draft(experiment(**parts))

    assert draft.platforms == platforms
    with pytest.raises(InvalidPayload, match=r"does not run on 'tpu', only on \['"):
        draft.platform = "tpu"


def test_an_incomplete_or_contradictory_draft_is_no_payload() -> None:
    """Inputs are missing, a field is given twice, or it does not exist."""
    draft = Draft(experiment())

    with pytest.raises(MissingInputs, match=r"add the file 'in.csv'") as caught:
        draft.filled()
    draft.inputs["in.csv"] = "x\n"
    with pytest.raises(ValueError, match=r"\['variables'\] are set on the draft itself"):
        draft.filled({"variables": {"free": 1}})
    with pytest.raises(InvalidPayload, match="metdata"):
        draft.filled({"metdata": {}})

    assert caught.value.names == ("in.csv",)


def test_a_draft_shows_the_defaults_of_a_variable() -> None:
    """On each platform, as the registry found them in the package."""
    defaults = [
        {"name": "free", "valueFrom": [{"value": "5", "platform": "cpu"}, {"value": 7, "platform": "gpu"}]},
        {"name": "fixed", "valueFrom": [{"value": "1", "platform": "cpu"}]},
        {"name": "usual"},
    ]
    known = experiment().raw
    known["metadata"]["registry"]["executionOptionsDefaults"] = {"variables": defaults}

    draft = Draft(Experiment.model_validate(known))

    assert draft.options["free"].defaults == {"cpu": "5", "gpu": "7"}
    assert draft.options["usual"].defaults == {}
    assert set(draft.options) == {"free", "usual", "chosen"}


def test_the_card_of_a_draft_shows_the_defaults_that_the_registry_found() -> None:
    """With platforms if they differ; a default of the definition comes first."""
    defaults = [
        {"name": "free", "valueFrom": [{"value": "5", "platform": "cpu"}, {"value": 7, "platform": "gpu"}]},
        {"name": "usual", "valueFrom": [{"value": "9", "platform": "cpu"}]},
    ]
    known = experiment().raw
    known["metadata"]["registry"]["executionOptionsDefaults"] = {"variables": defaults}

    table = Draft(Experiment.model_validate(known))._card().table

    assert table is not None
    shown = {row[1]: row[3] for row in table.rows if row[0] == "variables"}
    assert shown == {"free": "5 (cpu), 7 (gpu)", "usual": "3", "chosen": "1"}


@pytest.mark.parametrize(
    ("option", "text"),
    [
        (Option("scale", None, "5", {"default": "1"}), "5"),
        (Option("scale", None, None, {"default": "1", "big": "1"}), "1"),
        (Option("scale", None, None, {"default": "1", "big": "9"}), "1 (default), 9 (big)"),
        (Option("scale"), ""),
    ],
)
def test_a_default_is_shown_with_its_platforms_if_they_differ(option: Option, text: str) -> None:
    """The default of the definition comes before those that the registry found in the package."""
    assert default_of(option) == text
