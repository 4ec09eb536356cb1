"""Replies as the services send them."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import PrivateAttr

from st4sd_async import (
    S3,
    ExitStatus,
    Experiment,
    ExperimentState,
    FileContent,
    Instance,
    KeyOutput,
    Output,
    StartPayload,
    Status,
)
from st4sd_async._util.file_names import safe_name

FINISHED = {
    "experiment-state": "finished",
    "stage-state": "finished",
    "stages": ["stage0", "stage1"],
    "current-stage": "stage1",
    "exit-status": "Success",
    "meta": {
        "arguments": "elaunch.py -i molecules.csv demo.git",
        "data": ["/tmp/inputs/data/extra.txt"],
        "hybridPlatform": None,
        "inputs": ["/tmp/inputs/input/molecules.csv"],
        "instanceName": "demo-c52cd4-2026-11-22T100507.603242.instance",
        "pid": 16671,
        "platform": "default",
        "userMetadata": {"campaign": "demo"},
        "userVariables": {"global": {"delay": "3"}},
        "variables": {"global": {"delay": "3"}, "stage": {"0": {"delay": "3"}}},
        "version": "2.7.0",
    },
    "total-progress": 1.0,
    "stage-progress": 1.0,
    "error-description": "",
}


def test_a_finished_status_has_every_documented_field() -> None:
    """Each field of the service has an attribute, and `raw` has the original."""
    status = Status.model_validate(FINISHED)

    assert status.experiment_state is ExperimentState.FINISHED
    assert status.exit_status is ExitStatus.SUCCESS
    assert (status.stage_state, status.current_stage, status.stages) == ("finished", "stage1", ["stage0", "stage1"])
    assert (status.total_progress, status.stage_progress, status.error_description) == (1.0, 1.0, None)
    assert status.meta is not None
    assert status.meta.input == ["/tmp/inputs/input/molecules.csv"]
    assert (status.meta.pid, status.meta.platform, status.meta.version) == (16671, "default", "2.7.0")
    assert status.meta.user_variables == {"global": {"delay": "3"}}
    assert status.meta.user_metadata == {"campaign": "demo"}
    assert status.meta.instance_name == "demo-c52cd4-2026-11-22T100507.603242.instance"
    assert status.raw == FINISHED
    assert status.meta.raw == FINISHED["meta"]
    assert (status.is_final, status.is_success, status.is_pending, status.is_deleted) == (True, True, False, False)


@pytest.mark.parametrize("raw", [{}, {"warning": "Workflow has no status"}, {"experiment-state": None, "stages": []}])
def test_no_status_yet_is_pending(raw: dict[str, object]) -> None:
    """An empty object, a warning and nulls all mean that the service has no status."""
    status = Status.model_validate(raw)

    assert status.is_pending
    assert not status.is_final
    assert status.raw == raw
    assert str(status) == "no status yet"


def test_an_error_has_real_line_breaks() -> None:
    """The final status has two characters instead of each."""
    told = "Stage 0 failed.\\nJob: A.\\n"

    status = Status.model_validate({"experiment-state": "finished", "error-description": told})

    assert status.error_description == "Stage 0 failed.\nJob: A."
    assert status.raw["error-description"] == told


def test_the_text_none_means_no_stage() -> None:
    """The orchestrator writes "None" if no stage has started."""
    status = Status.model_validate({"experiment-state": "Initialising", "current-stage": "None", "meta": None})

    assert status.current_stage is None
    assert status.experiment_state == "initialising"


def test_an_unknown_word_is_kept_and_never_an_error() -> None:
    """A newer service may use words that this client does not know."""
    status = Status.model_validate({"experiment-state": "Thawing", "exit-status": "Melted", "new-field": 1})

    assert status.experiment_state == "thawing"
    assert status.experiment_state is not None
    assert str(status.experiment_state) == "Thawing"
    assert not status.experiment_state.is_known
    assert status.experiment_state.name == "UNKNOWN"
    assert not status.is_final
    assert status.raw["new-field"] == 1


def test_words_are_compared_without_regard_to_case() -> None:
    """`Failed` and `failed` are equal, in sets too."""
    assert ExperimentState("Failed") is ExperimentState.FAILED
    assert ExperimentState.FAILED == "FAILED"
    assert ExperimentState.FAILED != "finished"
    assert ExperimentState("ODD") == ExperimentState("odd")
    assert len({ExperimentState("ODD"), ExperimentState("odd")}) == 1
    assert ExperimentState.FAILED != 1


def test_a_concluded_status_is_final_whatever_its_words() -> None:
    """A status may be final although its words alone do not say so."""
    status = Status.model_validate({"experiment-state": "Failed", "exit-status": ""})

    over = status.concluded()
    gone = status.concluded(deleted=True)

    assert not status.is_final
    assert over.is_final
    assert not over.is_success
    assert gone.is_deleted
    assert "deleted" in str(gone)
    assert over.raw == status.raw


def test_a_list_item_with_nulls_is_an_instance() -> None:
    """Lists have null for missing values."""
    raw = {"id": "a-1", "status": None, "outputs": None, "k8s-labels": None, "experiment": {"metadata": None}}

    instance = Instance.model_validate(raw)
    orphan = Instance.model_validate({"id": "a-2", "experiment": {}})

    assert instance.status.is_pending
    assert (instance.outputs, instance.labels) == ({}, {})
    assert instance.experiment is not None
    assert instance.experiment.tags == []
    assert instance.raw["id"] == "a-1"
    assert orphan.experiment is None


def test_key_outputs_of_both_services_are_read() -> None:
    """The runtime service has texts and seconds, the datastore numbers and dates."""
    moment = datetime(2026, 11, 22, 10, 5, 22, 972908, tzinfo=UTC)

    wire = KeyOutput.model_validate({"creationtime": str(moment.timestamp()), "version": "3", "final": "yes"})
    stored = KeyOutput.model_validate({"creationtime": "2026-11-22T100522.972908", "version": 3, "final": "no"})
    odd = KeyOutput.model_validate({"creationtime": "lately", "version": "", "final": None})

    assert wire.created is not None
    assert abs((wire.created - moment).total_seconds()) < 1e-3
    assert (wire.version, wire.final) == (3, True)
    assert (stored.created, stored.version, stored.final) == (moment, 3, False)
    assert (odd.created, odd.version, odd.final) == (None, None, None)


def test_an_experiment_has_name_digest_tags_and_identifier() -> None:
    """They are also attributes of the experiment itself."""
    experiment = Experiment.model_validate(
        {
            "metadata": {
                "package": {"name": "demo"},
                "registry": {"digest": "sha256xabc", "tags": ["latest"], "inputs": None},
            }
        }
    )

    assert (experiment.name, experiment.digest, experiment.tags) == ("demo", "sha256xabc", ["latest"])
    assert experiment.identifier == "demo@sha256xabc"
    assert Experiment().identifier == "None"


def test_replies_are_one_line_in_a_list() -> None:
    """Short and printable; `model_dump` has everything."""
    digest = f"sha256x{'0' * 56}"
    definition = {"metadata": {"package": {"name": "demo"}, "registry": {"digest": digest, "tags": ["latest"]}}}
    experiment = Experiment.model_validate(definition)
    status = Status.model_validate({"experiment-state": "finished", "exit-status": "Success", "meta": {"pid": 2}})
    failed = Status.model_validate(
        {"experiment-state": "failed", "exit-status": "Failed", "error-description": "no\nroom \x1b[31m" * 99}
    )
    instance = Instance.model_validate({"id": "demo-1", "status": status, "experiment": experiment})

    assert repr([status]) == "[Status('succeeded')]"
    assert repr(experiment) == f"Experiment('demo@{digest}', tags=['latest'])"
    assert str(experiment) == f"demo@{digest}"
    assert repr(instance) == "Instance('demo-1', Status('succeeded'))"
    assert repr(Status.pending()) == "Status('no status yet')"
    assert repr(failed).startswith("Status('failed: ")
    assert len(repr(failed)) <= 130
    assert repr(failed).isprintable()
    assert status.model_dump()["meta"]["pid"] == 2
    assert experiment.model_dump()["metadata"]["package"]["name"] == "demo"


def test_the_repr_of_a_payload_has_no_secrets() -> None:
    """No keys, no environment and no file contents."""
    payload = StartPayload(
        inputs=[FileContent(filename="a", content="private-content")],
        s3=S3(secretAccessKey="private-key"),
        environmentVariables={"TOKEN": "private-env"},
    )

    assert "private" not in repr(payload)


def test_without_pandas_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """It says what to install."""
    monkeypatch.setitem(sys.modules, "pandas", None)

    with pytest.raises(ImportError, match=r"pip install .st4sd_async\[pandas\]"):
        Output("E", "e.csv", b"a\n1\n").dataframe()


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("energies.csv", "energies.csv"),
        ("../../etc/passwd", "passwd"),
        ("C:\\temp\\x.txt", "x.txt"),
        ('café "x".txt', "café _x_.txt"),
        ("a\x00b\n.csv", "a_b_.csv"),
        ("..", "Energies"),
        ("", "Energies"),
        ("dir/", "Energies"),
        (" . ", "Energies"),
    ],
)
def test_a_file_name_of_a_server_is_never_a_path(name: str, safe: str) -> None:
    """It cannot lead out of the directory."""
    assert safe_name(name, otherwise="Energies") == safe


def test_an_unsafe_name_without_an_alternative_becomes_output() -> None:
    """If the name of the key-output is unsafe too."""
    assert safe_name("..", otherwise="../..") == "output"


def test_saving_writes_under_a_safe_name_and_replaces(tmp_path: Path) -> None:
    """The file is written completely or not at all, and no other file is left."""
    folder = tmp_path / "new" / "folder"

    first = Output("Energies", "../energies.csv", b"a").save(folder)
    second = Output("Energies", "../energies.csv", b"bb").save(str(folder))

    assert first == second == folder / "energies.csv"
    assert second.read_bytes() == b"bb"
    assert [path.name for path in folder.iterdir()] == ["energies.csv"]


def test_a_table_becomes_a_dataframe_and_a_folder_does_not() -> None:
    """CSV and tab-separated files are tables, zip archives are not."""
    frame = Output("E", "e.csv", b"a, b\n1, 2\n").dataframe()
    tabbed = Output("E", "e.TSV", b"a\tb\n1\t2\n").dataframe()

    assert frame.to_dict("list") == tabbed.to_dict("list") == {"a": [1], "b": [2]}
    folder = Output("F", "f.zip", b"PK", media_type="application/zip")
    for read in (folder.dataframe, folder.text):
        with pytest.raises(ValueError, match="is a folder: request a file inside it"):
            read()


def test_a_subclass_of_a_user_has_its_own_private_attributes() -> None:
    """Copied for each model, beside those of the library, and its own `model_post_init` is called."""

    class Noted(Status):
        _notes: list[str] = PrivateAttr(default=[])
        _more: list[str] = PrivateAttr(default_factory=list)
        _words: str = PrivateAttr(default="")

        def model_post_init(self, context: Any, /) -> None:
            super().model_post_init(context)
            self._words = f"{self.experiment_state} {self.is_final}"

    class Plain(Noted):
        pass

    for cls in (Noted, Plain):
        one, other = (cls.model_validate({"experiment-state": "running"}) for _ in range(2))
        one._notes.append("mine")
        one._more.append("mine")

        assert (other._notes, other._more, other._words) == ([], [], "running False")
        assert one.raw == {"experiment-state": "running"}
        assert one.concluded().is_final
