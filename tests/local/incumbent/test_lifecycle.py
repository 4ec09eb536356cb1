"""The client of st4sd-runtime-core works with the simulator as with a cluster."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from st4sd_async.local import LocalServer
from tests.local.helpers import MOLECULES

pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # of the incumbent and its dependencies
    pytest.mark.timeout(60),  # the import takes seconds, more on a busy machine
    pytest.mark.slow,
]


@pytest.fixture
def incumbent() -> Any:
    """Return a function that connects the incumbent with few and quick retries."""
    from experiment.service.db import ExperimentRestAPI

    def connect(url: str, **credentials: str) -> Any:
        return ExperimentRestAPI(f"{url}/rs", max_retries=2, secs_between_retries=0.01, **credentials)

    return connect


@pytest.fixture
def fast() -> Iterator[LocalServer]:
    """Return a server on which a run takes a fraction of a second."""
    with LocalServer(speed=20) as running:
        yield running


def test_key_and_token_connect(incumbent: Any, server: LocalServer) -> None:
    """Both kinds of credentials are accepted when connecting."""
    with_key = incumbent(server.url, cc_bearer_key=server.api_key)
    with_token = incumbent(server.url, cc_auth_token=server.auth_token)

    assert with_key.api_experiment_list() == with_token.api_experiment_list() == {}
    assert ("GET", "/ds-mongodb-proxy/hello/") in server.requests


@pytest.mark.parametrize("credentials", [{"cc_bearer_key": "wrong"}, {"cc_auth_token": "wrong"}])
def test_invalid_credentials_are_rejected(incumbent: Any, server: LocalServer, credentials: dict[str, str]) -> None:
    """A wrong key and a wrong token are rejected when connecting."""
    from experiment.service.errors import UnauthorisedRequest

    with pytest.raises(UnauthorisedRequest):
        incumbent(server.url, **credentials)


def test_redirects_lose_the_key_and_the_method(incumbent: Any) -> None:
    """With TLS, a wrong slash costs a key its effect, and turns a POST with a token into a list."""
    from experiment.service.errors import UnauthorisedRequest

    with LocalServer(tls=True, speed=0) as server:
        with_key = incumbent(server.url, cc_bearer_key=server.api_key)
        with_token = incumbent(server.url, cc_auth_token=server.auth_token)

        with pytest.raises(UnauthorisedRequest):
            with_key.api_request_get("experiments")
        with pytest.raises(UnauthorisedRequest):
            with_key.cdb_query_component_files_exist("file://example-cluster/x", 0, "Compute")
        assert with_token.api_request_post("experiments", server.example("demo")) == {"entries": [], "problems": []}
        assert not with_token.cdb_query_component_files_exist("file://example-cluster/x", 0, "Compute")


def test_an_experiment_lives_from_push_to_delete(incumbent: Any, fast: LocalServer) -> None:
    """Push, list, get, skeleton, start, poll, outputs and both deletions work in this order."""
    api = incumbent(fast.url, cc_bearer_key=fast.api_key)

    pushed = api.api_experiment_push(fast.example("demo"))
    assert pushed["metadata"]["registry"]["tags"] == ["latest"]
    assert list(api.api_experiment_list().values())
    assert api.api_experiment_get("demo")["metadata"]["package"]["name"] == "demo"
    skeleton = api.api_experiment_get_start_skeleton("demo")
    assert skeleton["payload"]["inputs"][0]["content"] in skeleton["magicValues"]

    rest_uid = api.api_experiment_start("demo", {"inputs": [MOLECULES], "variables": {"scale": 3}})
    status = poll(api, rest_uid)
    assert (status["experiment-state"], status["exit-status"]) == ("finished", "Success")
    name, content = api.api_rest_uid_output(rest_uid, "Energies")
    assert name == "energies.csv"
    assert b"CCO,CCO,-13.5," in content
    name, content = api.api_rest_uid_output(rest_uid, "Folder")
    assert (name, content[:2]) == ("results.zip", b"PK")
    table = api.api_rest_uid_status(rest_uid, include_properties=["*"], stringify_nan=True)["experiment"]
    assert "energy" in table["metadata"]["registry"]["interface"]["propertyTable"]

    api.api_rest_uid_delete(rest_uid)
    api.api_experiment_delete("demo")
    assert api.api_experiment_list() == {}


def test_documents_are_found_by_the_id_of_a_run(incumbent: Any, server: LocalServer) -> None:
    """The incumbent finds both documents of a run, even after its deletion."""
    from experiment.service.errors import NoMatchingDocumentError

    api = incumbent(server.url, cc_bearer_key=server.api_key)
    api.api_experiment_push(server.example("demo"))
    rest_uid = api.api_experiment_start("demo", {"inputs": [MOLECULES], "metadata": {"campaign": "x"}})
    with pytest.raises(NoMatchingDocumentError):
        api.cdb_get_document_experiment_for_rest_uid(rest_uid)
    server.advance(4)
    api.api_rest_uid_delete(rest_uid)
    server.advance(100)

    experiment = api.cdb_get_document_experiment_for_rest_uid(rest_uid)
    metadata = api.cdb_get_document_user_metadata_for_rest_uid(rest_uid)

    assert (experiment["status"]["experiment-state"], experiment["status"]["exit-status"]) == ("finished", "Stopped")
    assert (metadata["campaign"], metadata["instance"]) == ("x", experiment["instance"])


def poll(api: Any, rest_uid: str) -> Any:
    """Return the first status with two final states."""
    while True:
        status = api.api_rest_uid_status(rest_uid, print_too=False)["status"]
        if status.get("experiment-state") == "finished" and status["exit-status"] == "Success":
            return status
