"""The errors that responses mean."""

from __future__ import annotations

from typing import Any

import pytest

from st4sd_async import (
    AlreadyExists,
    APIError,
    BadRequest,
    CannotUntagLatest,
    Conflict,
    Disabled,
    ExtraInputs,
    GraphExists,
    InaccessibleRegistries,
    InputConflict,
    InvalidDefinition,
    InvalidFlowIR,
    InvalidName,
    InvalidPackage,
    InvalidPayload,
    InvalidRelationship,
    LocalDeployment,
    MissingInputs,
    NoProperties,
    NotAFolder,
    NotFound,
    NotReady,
    OutsideOfFolder,
    PayloadTooLarge,
    RateLimited,
    ServerError,
    Unauthorized,
    UnknownExperiment,
    UnknownGraph,
    UnknownOutput,
    UnknownRelationship,
    UnknownRun,
    UnknownRuntimePolicy,
)
from st4sd_async._api import experiments, instances
from st4sd_async._errors import parse_problems
from st4sd_async._http.call import (
    Call,
    Response,
    error_from_response,
    is_refused_by_proxy,
    nothing,
    parse_response,
)

from .made_responses import URL, reply


def error_of(response: Response, method: str, **options: Any) -> APIError:
    """Return the error that a response means for a call with these options."""
    return error_from_response(Call(method, "x", nothing, **options), URL, response)


REFUSALS: list[tuple[int, dict[str, Any], type[APIError]]] = [
    (404, {"packageNotFound": "ghost", "message": "m"}, UnknownExperiment),
    (404, {"unknownExperiment": "ghost", "message": "m"}, UnknownExperiment),
    (404, {"unknownRestUID": "x", "message": "m"}, UnknownRun),
    (404, {"unknownInstanceId": "x", "message": "m"}, UnknownRun),
    (404, {"unknownOutput": "Nope", "message": "m"}, UnknownOutput),
    (404, {"missingPath": "/x", "message": "m"}, UnknownOutput),
    (404, {"unknownProperties": ["*"], "message": "m"}, NoProperties),
    (404, {"parameterisedPackageNotFound": "ghost:latest", "message": "m"}, UnknownExperiment),
    (404, {"unknownRuntimePolicyName": "p", "message": "m"}, UnknownRuntimePolicy),
    (404, {"unknownRelationship": "r", "message": "m"}, UnknownRelationship),
    (404, {"relationshipNotFound": "r", "message": "m"}, UnknownRelationship),
    (404, {"graphName": "g", "message": "m"}, UnknownGraph),
    (404, {"outputsReady": False, "message": "m"}, NotReady),
    (404, {"message": "m"}, UnknownRun),
    (400, {"propertiesNotAvailableYet": True, "message": "m"}, NotReady),
    (400, {"message": "Instance x has an incomplete status.meta field, try again later"}, NotReady),
    (400, {"missingInputs": ["a.csv"], "message": "m"}, MissingInputs),
    (400, {"extraInputs": ["a.csv"], "message": "m"}, ExtraInputs),
    (400, {"dataInputConflicts": ["a.csv"], "message": "m"}, InputConflict),
    (400, {"reason": "Input and Data files with conflicting names: ['a']", "message": "m"}, InputConflict),
    (400, {"invalidStartPayload": "text", "message": "m"}, InvalidPayload),
    (400, {"invalidVirtualExperimentDefinition": "text", "message": "m"}, InvalidPackage),
    (400, {"problem": "text", "message": "m"}, InvalidPackage),
    (400, {"problems": [{"message": "p"}], "message": "m"}, InvalidDefinition),
    (500, {"problem": "text", "message": "m"}, ServerError),
    (400, {"experimentNamingRule": "rule", "invalidExperimentID": "A b", "message": "m"}, InvalidName),
    (400, {"invalidExperimentID": "A b", "message": "m"}, InvalidName),
    (400, {"inaccessibleContainerRegistries": ["quay.example"], "message": "m"}, InaccessibleRegistries),
    (400, {"flowirErrors": "Found 1 errors", "message": "m"}, InvalidFlowIR),
    (400, {"cannotUntagLatestFrom": "demo:latest", "message": "m"}, CannotUntagLatest),
    (400, {"localDeployment": True, "message": "m"}, LocalDeployment),
    (400, {"message": "Graph Library is disabled - contact the administrator of this ST4SD deployment"}, Disabled),
    (400, {"isFolder": False, "message": "m"}, NotAFolder),
    (400, {"fileInFolder": False, "message": "m"}, OutsideOfFolder),
    (422, {"message": "m"}, BadRequest),
    (409, {"graphName": "g", "message": "m"}, GraphExists),
    (400, {"message": "m"}, BadRequest),
    (405, {"message": "m"}, BadRequest),
    (409, {"experimentIDAlreadyExists": "x", "message": "m"}, AlreadyExists),
    (409, {"message": "m"}, Conflict),
    (413, {}, PayloadTooLarge),
    (429, {"message": "m"}, RateLimited),
    (401, {"message": "m"}, Unauthorized),
    (403, {}, Unauthorized),
    (500, {"message": "m"}, ServerError),
    (503, {}, ServerError),
    (302, {}, APIError),
]


@pytest.mark.parametrize(("status", "body", "cls"), REFUSALS, ids=lambda value: str(value)[:40])
def test_a_key_of_the_body_identifies_the_error(status: int, body: dict[str, Any], cls: type[APIError]) -> None:
    """One table maps HTTP status and body to the class of the error."""
    error = error_of(reply(status, body), "GET", not_found_error=UnknownRun)

    assert type(error) is cls
    assert (error.status, error.method, error.url, error.detail) == (status, "GET", URL, body)
    # The account of a check tells what the message beside it does not.
    assert error.message in (body.get("message", error.message), "m: text")
    assert str(status) in str(error)
    assert URL in str(error)


@pytest.mark.parametrize(
    ("response", "words"),
    [
        (reply(403, b"<html>Log In</html>", html=True), "the sign-in page"),
        (reply(405, b"<html>405</html>", html=True), "HTML instead of JSON: this address does not accept the method"),
        (reply(409, b"<html>409</html>", html=True), "HTML instead of JSON: a conflict with another request or object"),
        (reply(429, b"<html>429</html>", html=True), "HTML instead of JSON: too many requests, try again later"),
        (reply(500, b"<html>500</html>", html=True), "HTML instead of JSON: the service, or the proxy in front of it"),
        (reply(404, b"<html>Not Found</html>", html=True), "no ST4SD service knows this address"),
        (reply(404, b"404 page not found"), "'404 page not found': no ST4SD service knows this address, check the url"),
        (reply(404, {"detail": "Not Found"}), "no ST4SD service knows this address, check the url of the client"),
        (reply(404, b""), "no message"),
        (reply(404, {}), "{} (GET "),
        (reply(413, b"<html>", html=True), "1 MiB"),
        (reply(502, b"<html>", html=True), "no response from the service"),
        (
            reply(308, b"<html>", html=True, location="http://elsewhere/"),
            "http://elsewhere/', which is never",
        ),
        (
            reply(302, b"", html=True, location="https://login/"),
            "check the url of the client and the credentials",
        ),
        (reply(500, b"boom"), "boom"),
        (reply(500, b""), "no message"),
        (reply(500, ["boom"]), "boom"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_an_error_response_without_a_message_gets_one(response: Response, words: str) -> None:
    """For a web page, the response of a proxy and an empty body."""
    assert words in str(error_of(response, "GET"))


def test_a_huge_error_response_is_cut() -> None:
    """Its texts are shortened, and its keys still identify the error."""
    echo = {"invalidStartPayload": "x" * 100_000, "all": ["y" * 1000, {"n": 1}], "message": "m"}

    error = error_of(reply(400, echo), "POST")

    assert isinstance(error, InvalidPayload)
    assert error.detail == {"invalidStartPayload": "x" * 500, "all": ["y" * 500, {"n": 1}], "message": "m"}


def test_a_package_that_is_too_large_for_the_proxy_is_not_sent() -> None:
    """The limit of the proxy applies to pushes too."""
    with pytest.raises(InvalidPackage, match="bytes are more than the 1048576 allowed"):
        experiments.push_call({"metadata": {"package": {"description": "x" * (1 << 20)}}})


def test_names_and_outputs_are_attributes() -> None:
    """Users need not parse the message."""
    missing = error_of(reply(400, {"missingInputs": ["a.csv", "b.csv"], "message": "m"}), "POST")
    unknown = error_of(reply(404, {"unknownOutput": "Nope", "message": "m"}), "GET")

    assert isinstance(missing, MissingInputs)
    assert missing.names == ("a.csv", "b.csv")
    assert missing.problems[0] == ("inputs", "add the file 'a.csv', which the experiment needs")
    assert isinstance(unknown, UnknownOutput)
    assert unknown.name == "Nope"


FACTS: list[tuple[int, dict[str, Any], str, Any]] = [
    (404, {"packageNotFound": "ghost"}, "identifier", "ghost"),
    (404, {"parameterisedPackageNotFound": "ghost:latest"}, "identifier", "ghost:latest"),
    (404, {"unknownRestUID": "a-1"}, "rest_uid", "a-1"),
    (404, {"unknownInstanceId": "a-1"}, "rest_uid", "a-1"),
    (404, {"unknownProperties": ["energy"]}, "columns", ("energy",)),
    (404, {"unknownRuntimePolicyName": "p"}, "name", "p"),
    (404, {"unknownRelationship": "r"}, "identifier", "r"),
    (404, {"relationshipNotFound": "r"}, "identifier", "r"),
    (404, {"graphName": "g"}, "name", "g"),
    (409, {"graphName": "g"}, "name", "g"),
    (400, {"extraInputs": ["a"]}, "names", ("a",)),
    (400, {"dataInputConflicts": ["a"]}, "names", ("a",)),
    (400, {"inaccessibleContainerRegistries": ["quay.example"]}, "registries", ("quay.example",)),
    (400, {"flowirErrors": "Found 1 errors"}, "errors", "Found 1 errors"),
    (400, {"experimentNamingRule": "[a-z]+", "invalidExperimentID": "A b"}, "rule", "[a-z]+"),
    (400, {"experimentNamingRule": "[a-z]+", "invalidExperimentID": "A b"}, "name", "A b"),
    (400, {"cannotUntagLatestFrom": "demo:latest"}, "identifier", "demo:latest"),
    (400, {"invalidVirtualExperimentDefinition": "1 validation error"}, "reason", "1 validation error"),
    (400, {"problem": "cannot clone"}, "reason", "cannot clone"),
    (400, {"problems": [{"location": ["a", 0], "message": "m"}]}, "problems", (("a.0", "m"),)),
]


@pytest.mark.parametrize(("status", "body", "name", "value"), FACTS, ids=lambda value: str(value)[:40])
def test_facts_of_the_body_are_attributes(status: int, body: dict[str, Any], name: str, value: Any) -> None:
    """Each fact in the body has an attribute of its own."""
    error = error_of(reply(status, {**body, "message": "m"}), "POST")

    assert getattr(error, name) == value


@pytest.mark.parametrize(
    ("told", "problems"),
    [
        ([{"message": "m", "location": ["workflows", 0, "execute"]}], (("workflows.0.execute", "m"),)),
        ([{"problem": "p"}], (("", "p"),)),
        (["words"], (("", "words"),)),
        ([{"identifier": "r", "problem": "p"}], (("r", "p"),)),
        ([{"identifier": "r", "problems": [{"message": "m", "location": ["x"]}]}], (("r: x", "m"),)),
        ([{"identifier": "r", "problems": ["words"]}], (("r", "words"),)),
        ("no list", (("", "no list"),)),
        (None, ()),
    ],
    ids=str,
)
def test_problems_are_parsed_in_every_shape(told: Any, problems: Any) -> None:
    """Each route has its own format."""
    assert parse_problems(told) == problems


def test_the_call_decides_what_an_ambiguous_key_means() -> None:
    """The key ``problem`` is used for packages and relationships, and only a 400 blames the request."""
    pushed = error_of(reply(400, {"problem": "p", "message": "m"}), "POST", bad_request_error=InvalidRelationship)
    failed = error_of(reply(500, {"problem": "p", "message": "m"}), "POST", bad_request_error=InvalidRelationship)

    assert type(pushed) is InvalidRelationship
    assert pushed.problems == (("", "p"),)
    assert type(failed) is ServerError


def test_the_call_decides_what_a_400_without_a_key_means() -> None:
    """A start has an invalid payload, a push an invalid package."""
    body = {"message": "Invalid request. Payload sets variable nope = 1 for which there is no rule."}

    with pytest.raises(InvalidPayload, match=r"client\.draft\(experiment\)"):
        parse_response(experiments.start_call("demo", b"{}", ()), URL, reply(400, body))
    with pytest.raises(InvalidPackage):
        parse_response(experiments.push_call({}), URL, reply(400, body))


FORBIDDEN = "for which parameterisation.executionOptions.variables has no rule."
NOT_ITS_DATA = "Payload overrides data files which are not specified in parameterisation.executionOptions.data."
OVER_PRESETS = "Payload overrides workflow variables of parameterisation.presets"
WORDS = [
    (f"Invalid request. Payload sets variable a.b = x = 1 {FORBIDDEN}", ["variables.a.b"]),
    (
        "Invalid request. Payload variable n = 5 does not have an allowed value. Valid choices are [{'value': '1'}]",
        ["variables.n"],
    ),
    (f"{OVER_PRESETS}: n, m - experiment start payload is invalid", ["variables.n", "variables.m"]),
    (f"Invalid request. {NOT_ITS_DATA} Filenames are ['a b.csv', 'c']", ["data.a b.csv", "data.c"]),
    (
        "Invalid request. Payload overrides data files specified in parameterisation.presets.data. Filenames are ['d']",
        ["data.d"],
    ),
    ("Invalid request. Payload overrides parameterisation.executionOptions.platform=['gpu', 'cpu']", ["platform"]),
    ("Invalid request. Payload overrides parameterisation.presets.platform=gpu", ["platform"]),
    ("Invalid request. Whatever else there is to say", []),
]


@pytest.mark.parametrize(("message", "entries"), WORDS, ids=lambda value: str(value)[17:50])
def test_entries_are_parsed_from_the_message(message: str, entries: list[str]) -> None:
    """If the service names the entry in its message only."""
    with pytest.raises(InvalidPayload) as caught:
        parse_response(experiments.start_call("demo", b"{}", ()), URL, reply(400, {"message": message}))

    assert [problem.where for problem in caught.value.problems] == entries
    assert all(problem.what for problem in caught.value.problems)


def test_an_extra_input_may_be_a_misspelt_missing_one() -> None:
    """Both are in the same response, so a misspelt name is found without another request."""
    body = {"missingInputs": ["molecules.csv", "b.txt"], "extraInputs": ["Molecule.csv", "zzz"], "message": "m"}
    call = experiments.start_call("demo", b"{}", ())

    with pytest.raises(MissingInputs) as caught:
        parse_response(call, URL, reply(400, body))

    told = [problem.what for problem in caught.value.problems]
    assert told[2].endswith("'Molecule.csv', which the experiment does not accept: did you mean 'molecules.csv'?")
    assert told[3] == "leave out the file 'zzz', which the experiment does not accept"
    assert "did you mean 'molecules.csv'?" in str(caught.value)


def test_a_misleading_message_is_replaced() -> None:
    """The service responds with the 400 of its web framework if there is nothing to delete."""
    body = {"message": "The browser (or proxy) sent a request that this server could not understand."}

    with pytest.raises(UnknownRun, match=r"^there is no such run: it was deleted, or never existed; list the.*400\)$"):
        parse_response(instances.delete_call("a-1"), URL, reply(400, body))


def test_a_404_page_is_not_an_unknown_run() -> None:
    """A wrong address says nothing about a run."""
    error = error_of(reply(404, b"<html>", html=True), "GET", not_found_error=UnknownRun)

    assert type(error) is NotFound


def test_only_the_sign_in_page_proves_that_the_service_saw_nothing() -> None:
    """A JSON 403 comes from the service itself."""
    page = error_of(reply(403, b"<html>Log In</html>", html=True), "GET")
    own = error_of(reply(403, {"message": "forbidden"}), "GET")

    assert is_refused_by_proxy(page)
    assert not is_refused_by_proxy(own)
