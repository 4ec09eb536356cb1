"""Documents as they really come, and the queries that find them."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from st4sd_async import ComponentDocument, DecodeError, ExitStatus, ExperimentDocument, NotFound, Status, UserMetadata
from st4sd_async._api import datastore
from st4sd_async._api.datastore import build_query
from st4sd_async._api.group import properties_params
from st4sd_async._http.call import Call, Response, parse_response
from st4sd_async.models import ComponentState

INSTANCE = "file://example-cluster/tmp/workdir/demo-c52cd4-2026-11-22T100507.603242.instance"
BASE = "https://st4sd.example/ds-mongodb-proxy/"

EXPERIMENT: dict[str, Any] = {
    "instance": INSTANCE,
    "uid": "file:///tmp/workdir/demo-c52cd4-2026-11-22T100507.603242.instance",
    "name": "demo",
    "type": "experiment",
    "metadata": {
        "hybridPlatform": None,
        "instanceName": "demo-c52cd4-2026-11-22T100507.603242.instance",
        "pid": 16671,
        "platform": "default",
        "version": "2.7.0",
        "userVariables": {"global": {"delay": "3"}},
        "userMetadata": {"campaign": "demo", "rest-uid": "demo-c52cd4-76k4hf87"},
        "inputs": ["/tmp/inputs/input/molecules.csv"],
        "data": ["/tmp/inputs/data/extra.txt"],
    },
    "status": {
        "stages": "['stage0', 'stage1']",
        "current-stage": "stage1",
        "stage-progress": "1.0",
        "total-progress": "1.0",
        "experiment-state": "finished",
        "stage-state": "finished",
        "updated": "2026-11-22T100523.059164",
        "exit-status": "Success",
        "cost": "0",
        "created-on": "2026-11-22T10:05:07.603242",
        "updated-on": "2026-11-22T10:05:23.059164",
        "completed-on": "2026-11-22T10:05:23.039773",
    },
    "output": {
        "Greeting": {
            "creationtime": "2026-11-22T100522.972908",
            "description": "",
            "filename": "out.stdout",
            "filepath": "stages/stage1/Cat/out.stdout",
            "final": "yes",
            "production": "yes",
            "type": "",
            "version": 1,
        }
    },
    "interface": {"propertiesSpec": [{"name": "energy"}], "propertyTable": {"input-id": ["CO"], "energy": [-4.5]}},
}
COMPONENT: dict[str, Any] = {
    "name": "Compute",
    "stage": 0,
    "location": "/tmp/workdir/demo.instance/stages/stage0/Compute",
    "type": "component",
    "memoization-hash": "f229b13e62525a0edb3cd8a5295a5637",
    "component-identifier": "stage0.Compute",
    "producers": {f"{INSTANCE}&stage0.Make": ["a.csv"]},
    "memoization-hash-fuzzy": "e1",
    "component-state": "finished",
    "instance": INSTANCE,
    "uid": f"{INSTANCE}&stage0.Compute",
    "flowir": {"stage": 0, "name": "Compute"},
    "files": ["/tmp/workdir/demo.instance/stages/stage0/Compute/energies.csv"],
}
METADATA: dict[str, Any] = {
    "campaign": "demo",
    "experiment-id": "demo@sha256xc52cd4",
    "rest-uid": "demo-c52cd4-76k4hf87",
    "st4sd-package-digest": "sha256xc52cd4",
    "st4sd-package-name": "demo",
    "workflow": "demo-c52cd4-76k4hf87",
    "instance": INSTANCE,
    "type": "user-metadata",
    "uid": f"{INSTANCE}&user-metadata",
}


def body(call: Call[Any]) -> Any:
    """What a call sends."""
    return json.loads(call.content or b"")


def test_an_experiment_document_has_the_types_of_a_status() -> None:
    """Texts become numbers, times and lists; nothing of the original is lost."""
    document = ExperimentDocument.model_validate(EXPERIMENT)

    assert (document.instance, document.name, document.type) == (INSTANCE, "demo", "experiment")
    assert document.rest_uid == "demo-c52cd4-76k4hf87"
    assert document.metadata.user_metadata["campaign"] == "demo"
    assert (document.metadata.pid, document.metadata.input) == (16671, ["/tmp/inputs/input/molecules.csv"])
    assert (document.status.is_final, document.status.exit_status) == (True, ExitStatus.SUCCESS)
    assert (document.status.stages, document.status.total_progress) == (["stage0", "stage1"], 1.0)
    assert document.status.created == datetime(2026, 11, 22, 10, 5, 7, 603242, UTC)
    assert document.status.updated == datetime(2026, 11, 22, 10, 5, 23, 59164, UTC)
    assert document.status.completed == datetime(2026, 11, 22, 10, 5, 23, 39773, UTC)
    assert (document.outputs["Greeting"].version, document.outputs["Greeting"].final) == (1, True)
    assert document.property_table == {"input-id": ["CO"], "energy": [-4.5]}
    assert document.raw == EXPERIMENT
    assert document.status.raw["cost"] == "0"


def test_a_run_that_goes_on_was_not_completed() -> None:
    """ "N/A" is no time, and no error."""
    document = ExperimentDocument.model_validate({"status": {"completed-on": "N/A", "created-on": "2026-11-22"}})

    assert (document.status.completed, document.status.is_pending, document.rest_uid) == (None, True, None)
    assert document.status.created == datetime(2026, 11, 22, tzinfo=UTC)
    assert document.property_table is None


def test_a_component_document_says_where_it_ran() -> None:
    """Each key has a name in Python spelling."""
    document = ComponentDocument.model_validate(COMPONENT)

    assert (document.reference, document.name, document.stage) == ("stage0.Compute", "Compute", 0)
    assert document.state is ComponentState.FINISHED
    assert document.files == [f"{document.location}/energies.csv"]
    assert document.producers == {f"{INSTANCE}&stage0.Make": ["a.csv"]}
    assert (document.memoization_hash, document.memoization_hash_fuzzy) == ("f229b13e62525a0edb3cd8a5295a5637", "e1")
    assert document.flowir["name"] == "Compute"


def test_user_metadata_keep_the_users_own_keys_apart() -> None:
    """A key that is spelt like one of our fields is still the user's."""
    document = UserMetadata.model_validate({**METADATA, "rest_uid": "mine", "package_name": 7})

    assert (document.rest_uid, document.package_name) == ("demo-c52cd4-76k4hf87", "demo")
    assert document.experiment_id == f"demo@{document.package_digest}"
    assert document.metadata["rest_uid"] == "mine"
    assert set(METADATA) - set(document.metadata) == {"instance", "type", "uid"}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just("1e300"),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)
PLACES = [
    *((ExperimentDocument, EXPERIMENT, (key,)) for key in EXPERIMENT),
    *((ExperimentDocument, EXPERIMENT, ("status", key)) for key in EXPERIMENT["status"]),
    *((ExperimentDocument, EXPERIMENT, ("metadata", key)) for key in EXPERIMENT["metadata"]),
    *((ExperimentDocument, EXPERIMENT, ("output", "Greeting", key)) for key in EXPERIMENT["output"]["Greeting"]),
    *((ComponentDocument, COMPONENT, (key,)) for key in COMPONENT),
    *((UserMetadata, METADATA, (key,)) for key in METADATA),
]


@given(st.sampled_from(PLACES), json_values)
def test_an_odd_field_never_makes_a_document_unreadable(place: Any, value: Any) -> None:
    """Whatever stands in its place, the others are as before."""
    model, original, path = place
    odd = json.loads(json.dumps(original))
    holder = odd
    for key in path[:-1]:
        holder = holder[key]
    holder[path[-1]] = value

    document = model.model_validate(odd)

    usual = model.model_validate(original)
    assert document.raw == odd
    assert document.uid == (usual.uid if path != ("uid",) else value if isinstance(value, str) else "")
    if isinstance(document, ExperimentDocument) and path[0] != "status":
        assert document.status == usual.status.model_copy(update={"rest_uid": document.rest_uid})
    if path[0] == "status" and path[-1] not in ("status", "exit-status"):
        assert document.status.exit_status == ExitStatus.SUCCESS


def test_what_is_readable_in_an_odd_list_is_kept() -> None:
    """One bad file or key-output does not hide the others."""
    experiment = ExperimentDocument.model_validate({"output": {"A": None, "B": {"filename": 7, "version": 2}}})
    component = ComponentDocument.model_validate({"files": ["/a", None], "component-state": "Thawing"})
    broken = ExperimentDocument.model_validate({"status": {"stages": "['stage0'"}, "output": {"A": {}}})

    assert (list(experiment.outputs), experiment.outputs["B"].version) == (["B"], 2)
    assert component.files == ["/a"]
    assert (component.state, component.state and component.state.is_known) == ("thawing", False)
    assert (broken.status.stages, list(broken.outputs)) == ([], ["A"])


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, {}),
        ({"instance": "demo.*"}, {"instance": {"$regex": "demo.*"}}),
        ({"stage": 0}, {"stage": 0}),
        ({"component": "Comp"}, {"name": {"$regex": "Comp"}}),
        ({"component": "stage12.Comp"}, {"name": {"$regex": "Comp"}, "stage": 12}),
        ({"component": "stages.Comp"}, {"name": {"$regex": "stages.Comp"}}),
        ({"component": "Comp", "stage": 1}, {"name": {"$regex": "Comp"}, "stage": 1}),
        ({"filename": r"\.csv$"}, {"files": {"$elemMatch": {"$regex": r"\.csv$"}}}),
        ({"query": {"name": "Compute", "files": {"$ne": []}}}, {"name": "Compute", "files": {"$ne": []}}),
        ({"stage": 1, "query": {"stage": 1, "type": "component"}}, {"stage": 1}),
    ],
)
def test_filters_become_a_query(given: dict[str, Any], expected: dict[str, Any]) -> None:
    """Texts of filters are expressions, those of a query match exactly."""
    assert build_query("component", given.pop("query", None), **given) == {"type": "component", **expected}


def test_an_id_is_looked_up_where_its_type_has_it() -> None:
    """It is no expression."""
    assert build_query("experiment", rest_uid="a.b") == {"type": "experiment", "metadata.userMetadata.rest-uid": "a.b"}
    assert build_query("user-metadata", rest_uid="a.b") == {"type": "user-metadata", "rest-uid": "a.b"}


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"component": "stage0.Comp", "stage": 0}, ValueError, "the reference 'stage0.Comp' names a stage"),
        ({"component": "Comp("}, ValueError, r"component is not a regular expression: 'Comp\(': missing \)"),
        ({"component": "stage0.*"}, ValueError, "component is not a regular expression: '\\*'"),
        ({"instance": "["}, ValueError, "instance is not a regular expression"),
        ({"filename": "+"}, ValueError, "filename is not a regular expression"),
        ({"component": 7}, TypeError, "component must be a string, not 7"),
        ({"stage": "0"}, ValueError, "stage must be a whole number from 0, not '0'"),
        ({"stage": -1}, ValueError, "not -1"),
        ({"query": {"type": "experiment"}}, ValueError, "the query has 'experiment' for 'type'"),
        ({"query": {"name": "A"}, "component": "A"}, ValueError, "the query has 'A' for 'name', but the other filters"),
        ({"query": "name"}, TypeError, "a query is a mapping, not 'name'"),
    ],
)
def test_invalid_filters_are_refused(given: dict[str, Any], error: type[Exception], words: str) -> None:
    """The message shows which one, and why."""
    with pytest.raises(error, match=words):
        build_query("component", given.pop("query", None), **given)


def test_properties_are_asked_for_by_name() -> None:
    """In lower case, as the datastore names them; a star is all of them."""
    asked = properties_params

    assert asked(None, stringify_nan=False) == asked([], stringify_nan=False) == {}
    assert asked(["Energy", "b"], stringify_nan=False) == {"includeProperties": "energy,b"}
    assert asked(["*", "b"], stringify_nan=True) == {"includeProperties": "*", "stringifyNaN": "true"}
    assert asked("Energy", stringify_nan=False) == {"includeProperties": "energy"}
    for bad in (["a,b"], [""]):
        with pytest.raises(ValueError, match="a string without commas"):
            asked(bad, stringify_nan=False)


def test_replies_that_are_not_documents_are_errors() -> None:
    """A status of 200 is not enough: the documents must be there."""
    call = datastore.query_call(BASE, {"type": "experiment"})

    assert parse_response(call, BASE, Response(200, {}, b'{"document-descriptors": [{"a": NaN}]}'))[0]["a"] != 0
    for reply in (b"false", b"{}", b'{"document-descriptors": 1}', b'{"document-descriptors": [1]}', b"<html>"):
        with pytest.raises(DecodeError):
            parse_response(call, BASE, Response(200, {}, reply))
    (upsert,) = datastore.upsert_calls(BASE, [METADATA])
    with pytest.raises(DecodeError):
        parse_response(upsert, BASE, Response(200, {}, b"false"))


def test_the_end_of_a_run_is_a_final_status() -> None:
    """One that goes on is no last word."""
    running = {**EXPERIMENT, "status": {**EXPERIMENT["status"], "exit-status": "N/A", "experiment-state": "running"}}

    def end(*found: dict[str, Any]) -> Status | None:
        reply = json.dumps({"document-descriptors": found}).encode()
        return parse_response(datastore.final_status_call(BASE, "demo-1"), BASE, Response(200, {}, reply))

    last = end(running, EXPERIMENT)
    assert last is not None
    assert (last.is_success, last.total_progress) == (True, 1.0)
    assert end() is end(running) is None
    assert body(datastore.final_status_call(BASE, "a"))["metadata.userMetadata.rest-uid"] == "a"


def test_tags_stand_where_a_type_has_them() -> None:
    """Existing fields are kept, and the original is not changed."""
    before = json.dumps([EXPERIMENT, METADATA])
    tags = {"campaign": "new", "rating": 5}

    experiment = datastore.tagged(EXPERIMENT, tags)
    metadata = datastore.tagged(METADATA, tags)
    bare = datastore.tagged({"type": "experiment", "metadata": None}, tags)

    assert experiment["metadata"] == {
        **EXPERIMENT["metadata"],
        "userMetadata": {"rest-uid": "demo-c52cd4-76k4hf87", **tags},
    }
    assert metadata == {**METADATA, **tags}
    assert bare["metadata"] == {"userMetadata": tags}
    assert json.dumps([EXPERIMENT, METADATA]) == before


@pytest.mark.parametrize("name", ["instance", "type", "uid", "rest-uid", "_id", "", "a.b", "$set", 7])
def test_no_tag_may_hide_a_document(name: Any) -> None:
    """Neither by its identity nor by a name that the database takes for something else."""
    with pytest.raises(ValueError, match="tag"):
        datastore.check_tags({name: "x"})


def test_documents_name_their_runs() -> None:
    """Whatever their type, each run once."""
    several: list[datastore.About] = [UserMetadata.model_validate(METADATA), COMPONENT, {"instance": "file://other"}]

    assert datastore.instances_of(several) == [INSTANCE, "file://other"]
    with pytest.raises(ValueError, match="under 'instance', not None"):
        datastore.instances_of([{}])
    with pytest.raises(TypeError, match="documents must be a list, not UserMetadata"):
        datastore.instances_of(UserMetadata.model_validate(METADATA))  # type: ignore[arg-type] # on purpose


def test_no_request_is_larger_than_the_proxy_lets_pass() -> None:
    """Documents are written in as few requests as that takes, all of them once."""
    several = [{**METADATA, "uid": str(number), "text": "x" * 300_000} for number in range(7)]

    calls = list(datastore.upsert_calls(BASE, several))

    assert [len(body(call)["documents"]) for call in calls] == [3, 3, 1]
    assert all(len(call.content or b"") <= 1 << 20 for call in calls)
    assert [one for call in calls for one in body(call)["documents"]] == several
    assert list(datastore.upsert_calls(BASE, [])) == []


def test_a_deployment_without_a_datastore_is_an_error() -> None:
    """The error names the services that exist."""
    assert datastore.datastore_url({"cdb-rest": BASE}) == BASE
    with pytest.raises(NotFound, match=r"no datastore: its url-map/ has \['consumable-computing'\]"):
        datastore.datastore_url({"consumable-computing": BASE})
