"""The JSON of a status, as an application sends it on, and the run that a status belongs to."""

from __future__ import annotations

import copy
import json
import pickle
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, TypeAdapter

from st4sd_async import ExitStatus, ExperimentDocument, ExperimentState, Instance, Status
from st4sd_async.models.datastore import DocumentStatus
from tests.tries import tries

RUNNING = {"experiment-state": "running", "exit-status": "N/A", "total-progress": 0.5, "cost": {"cpu": 3}}
FAILED = {
    "experiment-state": "finished",
    "exit-status": "Failed",
    "stage-state": "failed",
    "stages": ["stage0"],
    "current-stage": "stage0",
    "error-description": r"Stage 0 failed.\n1 jobs failed unexpectedly.",
    "meta": {"inputs": ["/tmp/a.csv"], "platform": "default", "userVariables": {"global": {"scale": "2"}}, "new": 1},
}
UNKNOWN = {"experiment-state": "thawing", "exit-status": "Melted", "stage-state": "", "current-stage": "None"}
KILLED = {"experiment-state": "failed", "exit-status": "", "error-description": "elaunch-primary OOMKilled"}
PENDING = {"message": "the instance does not have a status yet: there is no Pod for it", "detail": [1]}

STATUSES = {
    "running": Status.model_validate(RUNNING),
    "failed": Status.model_validate(FAILED),
    "unknown words": Status.model_validate(UNKNOWN),
    "concluded by time": Status.model_validate(KILLED).concluded(),
    "concluded": Status.model_validate(FAILED).concluded(),
    "deleted": Status.model_validate(RUNNING).concluded(deleted=True),
    "pending": Status.pending(PENDING),
    "pending, nothing sent": Status.pending(),
    "made by hand": Status(rest_uid="demo-1", experiment_state=ExperimentState.FINISHED, exit_status=ExitStatus.FAILED),
    "in a list": Instance.model_validate({"id": "demo-1", "status": FAILED}).status,
    "in a document": DocumentStatus.model_validate(
        {**FAILED, "created-on": "2026-11-22 10:05:07", "updated-on": "2026-11-22T10:05:23", "updated": "1122T1005"}
    ),
}


@pytest.mark.parametrize("by_alias", [False, True], ids=["by name", "by alias"])
@pytest.mark.parametrize("unset", [False, True], ids=["all fields", "fields that are set"])
@pytest.mark.parametrize("status", STATUSES.values(), ids=STATUSES)
def test_a_status_survives_json(status: Status, by_alias: bool, unset: bool) -> None:
    """An equal status, with the same verdict, hint, run and text, comes out of its JSON; so does its Python form."""
    arrived = type(status).model_validate_json(status.model_dump_json(by_alias=by_alias, exclude_unset=unset))

    assert arrived == status
    assert type(status).model_validate(status.model_dump(by_alias=by_alias, exclude_unset=unset)) == status
    for name in ("state", "is_final", "is_success", "is_deleted", "is_pending", "hint", "rest_uid", "meta"):
        assert getattr(arrived, name) == getattr(status, name), name
    assert (str(arrived), repr(arrived)) == (str(status), repr(status))
    assert not {"state", "is_final", "hint", "rest_uid"} & {*arrived.raw, *(arrived.model_extra or {})}


WORDS = st.none() | st.sampled_from(["", "running", "finished", "failed", "Success", "Failed", "N/A"]) | st.text()


@settings(max_examples=tries(100, 10))
@given(
    st.fixed_dictionaries({"experiment-state": WORDS, "exit-status": WORDS}, optional={"stage-state": WORDS}),
    st.booleans(),
)
def test_any_words_survive_json(raw: dict[str, Any], is_deleted: bool) -> None:
    """Unknown ones too, whether the run is deleted or not."""
    status = Status.model_validate({name: _writable(value) for name, value in raw.items()})
    status = status.concluded(deleted=True) if is_deleted else status

    arrived = Status.model_validate_json(status.model_dump_json())

    assert arrived == status
    assert arrived.experiment_state == status.experiment_state
    assert (arrived.is_final, arrived.hint) == (status.is_final, status.hint)


def _writable(value: str | None) -> str | None:
    return value and value.encode(errors="replace").decode()


def test_the_json_says_what_the_client_knows() -> None:
    """The fields of the service by their names, and beside them what the client decides."""
    written = json.loads(STATUSES["in a list"].model_dump_json())

    assert (written["experiment_state"], written["exit_status"]) == ("finished", "Failed")
    assert (written["rest_uid"], written["is_final"], written["is_success"]) == ("demo-1", True, False)
    assert (written["state"], written["is_deleted"]) == ("failed", False)
    assert written["hint"]["reason"] == "component_failed"
    assert "run.failure()" in written["hint"]["advice"]
    assert written["hint"]["text"].startswith("Stage 0 failed.\n")
    assert json.loads(Status.model_validate(RUNNING).model_dump_json())["hint"] is None


def test_a_web_framework_can_use_a_status_as_its_response() -> None:
    """As `response_model=Status` does: a schema of the response, and JSON of a value, alone or in another model."""

    class Answer(BaseModel):
        statuses: list[Status]

    schema = TypeAdapter(Status).json_schema(mode="serialization")
    assert {"rest_uid", "state", "is_final", "is_success", "is_deleted", "hint", "experiment-state"} <= {
        *schema["properties"]
    }
    answer = Answer(statuses=list(filter(_is_plain, STATUSES.values())))
    assert Answer.model_validate_json(answer.model_dump_json(by_alias=True)) == answer


def _is_plain(status: Status) -> bool:
    return type(status) is Status


def test_values_of_the_service_decide_and_claims_do_not() -> None:
    """A status is over if it says so or its words are final; nothing makes it unfinished or successful against them."""
    over = Status.model_validate({**FAILED, "is_final": False, "is_success": True, "hint": None})

    assert (over.is_final, over.is_success) == (True, False)
    assert over.hint is not None


def test_statuses_are_equal_if_they_say_the_same() -> None:
    """Whatever they were read from; of another run, or of a run that is over, they are different."""
    running = Status.model_validate(RUNNING)

    by_hand = {"experiment_state": ExperimentState.RUNNING, "exit_status": "n/a", "total_progress": 0.5}
    assert running == Status(**by_hand, cost={"cpu": 3})
    assert running != running.concluded()
    assert running != Status.model_validate({**RUNNING, "rest_uid": "demo-1"})
    assert running != Status.model_validate({**RUNNING, "total-progress": 0.6})
    assert running != "running"


@pytest.mark.parametrize("carry", [copy.copy, copy.deepcopy, lambda status: pickle.loads(pickle.dumps(status))])
def test_a_copy_is_the_same_status(carry: Any) -> None:
    """With its run and its verdict."""
    status = STATUSES["in a list"].concluded(deleted=True)

    assert carry(status) == status
    assert (carry(status).rest_uid, carry(status).raw) == (status.rest_uid, status.raw)


def test_a_status_of_a_list_or_document_knows_its_run() -> None:
    """Without a field more in what the service sent; only a status that is made without a run has none."""
    instance = Instance.model_validate({"id": "demo-1", "status": RUNNING})
    document = ExperimentDocument.model_validate(
        {"metadata": {"userMetadata": {"rest-uid": "demo-1"}}, "status": FAILED}
    )

    assert (instance.status.rest_uid, document.status.rest_uid) == ("demo-1", "demo-1")
    assert (instance.status.raw, document.status.raw) == (RUNNING, FAILED)
    assert Instance.model_validate({"id": "demo-1", "status": None}).status.rest_uid == "demo-1"
    assert Status.model_validate(RUNNING).rest_uid is None
    assert repr(instance.status) == "Status('running', rest_uid='demo-1')"


KEY_OUTPUT = {"filename": "energies.csv", "creationtime": "2026-11-22T100522.972908", "final": "yes", "version": "2"}


@pytest.mark.parametrize("by_alias", [False, True], ids=["by name", "by alias"])
@pytest.mark.parametrize(
    "reply",
    [
        Instance.model_validate({"id": "demo-1", "status": FAILED, "outputs": {"Energies": KEY_OUTPUT}}),
        ExperimentDocument.model_validate({"uid": "a", "status": FAILED, "output": {"Energies": KEY_OUTPUT}}),
    ],
    ids=["instance", "document"],
)
def test_what_has_a_status_survives_json(reply: Instance | ExperimentDocument, by_alias: bool) -> None:
    """With the times of its key-outputs; so does its Python form."""
    assert reply.outputs["Energies"].created is not None
    assert type(reply).model_validate_json(reply.model_dump_json(by_alias=by_alias)) == reply
    assert type(reply).model_validate(reply.model_dump(by_alias=by_alias)) == reply
