"""What a reply means, with literals only."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import httpx
import pytest

from st4sd_async import (
    AlreadyExists,
    APIError,
    BadRequest,
    CannotUntagLatest,
    Conflict,
    DecodeError,
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
    Status,
    Unauthorized,
    UnknownExperiment,
    UnknownGraph,
    UnknownOutput,
    UnknownRelationship,
    UnknownRun,
    UnknownRuntimePolicy,
)
from st4sd_async._call import decipher, segment, subpath
from st4sd_async._problems import problems_in
from st4sd_async._replies import REDIRECT, Response, is_refused_by_proxy, parse_retry_after, refusal
from st4sd_async._resources import experiments, instances, registry

URL = "https://st4sd.example/rs/somewhere"


def reply(status: int, body: Any = None, *, html: bool = False, **headers: str) -> Response:
    content = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    kind = "text/html" if html else "application/json"
    return Response(status, httpx.Headers({"content-type": kind, **headers}), content)


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
def test_a_refusal_is_told_by_the_key_in_its_body(status: int, body: dict[str, Any], cls: type[APIError]) -> None:
    """One table goes from HTTP status and body key to the class of the error."""
    error = refusal(reply(status, body), "GET", URL, missing=UnknownRun)

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
        (reply(404, b"<html>Not Found</html>", html=True), "no ST4SD service knows this address"),
        (reply(404, b"404 page not found"), "'404 page not found': no ST4SD service knows this address, check the url"),
        (reply(404, {"detail": "Not Found"}), "no ST4SD service knows this address, check the url of the client"),
        (reply(404, b""), "no message"),
        (reply(404, {}), "was refused with 404: {}"),
        (reply(413, b"<html>", html=True), "1 MiB"),
        (reply(502, b"<html>", html=True), "no answer from the service"),
        (reply(308, b"<html>", html=True, **{REDIRECT: "http://elsewhere/"}), "http://elsewhere/', which is never"),
        (reply(302, b"", html=True, **{REDIRECT: "https://login/"}), "check the url of the client and the credentials"),
        (reply(500, b"boom"), "boom"),
        (reply(500, b""), "no message"),
        (reply(500, ["boom"]), "boom"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_refusal_without_a_message_gets_one(response: Response, words: str) -> None:
    """A page for people, a proxy's answer and nothing at all are told in words that help."""
    assert words in str(refusal(response, "GET", URL))


def test_a_huge_refusal_is_told_by_its_beginning() -> None:
    """A service that sends everything back is not kept whole, and its key is still looked at."""
    echo = {"invalidStartPayload": "x" * 100_000, "all": ["y" * 1000, {"n": 1}], "message": "m"}

    error = refusal(reply(400, echo), "POST", URL)

    assert isinstance(error, InvalidPayload)
    assert error.detail == {"invalidStartPayload": "x" * 500, "all": ["y" * 500, {"n": 1}], "message": "m"}


def test_a_package_that_no_proxy_lets_through_is_not_sent() -> None:
    """The proxy's limit holds for pushes too."""
    with pytest.raises(InvalidPackage, match="bytes are more than the 1048576 allowed"):
        experiments.push_call({"metadata": {"package": {"description": "x" * (1 << 20)}}})


def test_names_and_outputs_are_attributes() -> None:
    """Nobody should have to parse a message."""
    missing = refusal(reply(400, {"missingInputs": ["a.csv", "b.csv"], "message": "m"}), "POST", URL)
    unknown = refusal(reply(404, {"unknownOutput": "Nope", "message": "m"}), "GET", URL)

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
def test_what_a_body_says_is_an_attribute(status: int, body: dict[str, Any], name: str, value: Any) -> None:
    """The facts beside the words of a refusal are there under names of their own."""
    error = refusal(reply(status, {**body, "message": "m"}), "POST", URL)

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
def test_problems_are_read_in_every_shape_in_which_they_come(told: Any, problems: Any) -> None:
    """Each route words problems in its own manner."""
    assert problems_in(told) == problems


def test_what_many_routes_say_means_what_the_call_says() -> None:
    """The key ``problem`` alone does not tell a package from a relationship; only a 400 is about what was sent."""
    pushed = refusal(reply(400, {"problem": "p", "message": "m"}), "POST", URL, wrong=InvalidRelationship)
    failed = refusal(reply(500, {"problem": "p", "message": "m"}), "POST", URL, wrong=InvalidRelationship)

    assert type(pushed) is InvalidRelationship
    assert pushed.problems == (("", "p"),)
    assert type(failed) is ServerError


def test_a_400_without_a_key_means_what_the_call_says() -> None:
    """A start that is refused in words alone has a bad payload, a push a bad package."""
    body = {"message": "Invalid request. Payload sets variable nope = 1 for which there is no rule."}

    with pytest.raises(InvalidPayload, match=r"client\.payload\(experiment\)"):
        decipher(experiments.start_call("demo", b"{}", ()), URL, reply(400, body))
    with pytest.raises(InvalidPackage):
        decipher(experiments.push_call({}), URL, reply(400, body))


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
def test_a_payload_that_is_refused_in_words_has_its_entries(message: str, entries: list[str]) -> None:
    """Where the service names the entry in a sentence and nowhere else."""
    with pytest.raises(InvalidPayload) as caught:
        decipher(experiments.start_call("demo", b"{}", ()), URL, reply(400, {"message": message}))

    assert [problem.where for problem in caught.value.problems] == entries
    assert all(problem.what for problem in caught.value.problems)


def test_an_input_too_many_may_be_the_one_that_is_missing() -> None:
    """Both are in the same refusal, so a misspelt name is found without asking again."""
    body = {"missingInputs": ["molecules.csv", "b.txt"], "extraInputs": ["Molecule.csv", "zzz"], "message": "m"}
    call = experiments.start_call("demo", b"{}", ())

    with pytest.raises(MissingInputs) as caught:
        decipher(call, URL, reply(400, body))

    told = [problem.what for problem in caught.value.problems]
    assert told[2].endswith("'Molecule.csv', which the experiment does not take: did you mean 'molecules.csv'?")
    assert told[3] == "leave out the file 'zzz', which the experiment does not take"
    assert "did you mean 'molecules.csv'?" in str(caught.value)


def test_a_generic_refusal_is_told_in_words_that_fit() -> None:
    """The service answers 400 in a web framework's words when there is nothing to delete."""
    body = {"message": "The browser (or proxy) sent a request that this server could not understand."}

    with pytest.raises(UnknownRun, match=r"found no such run \(400\): it was deleted already, or never was; list what"):
        decipher(instances.delete_call("a-1"), URL, reply(400, body))


def test_a_page_that_is_not_found_is_no_unknown_run() -> None:
    """A wrong address says nothing about a run."""
    error = refusal(reply(404, b"<html>", html=True), "GET", URL, missing=UnknownRun)

    assert type(error) is NotFound


def test_only_the_sign_in_page_proves_that_the_service_saw_nothing() -> None:
    """A JSON 403 comes from the service itself."""
    page = refusal(reply(403, b"<html>Log In</html>", html=True), "GET", URL)
    own = refusal(reply(403, {"message": "forbidden"}), "GET", URL)

    assert is_refused_by_proxy(page)
    assert not is_refused_by_proxy(own)


@pytest.mark.parametrize("body", [b"", b"{", b"null", b"[]", b'{"experiment-state": 5}', b'"text"'])
def test_a_reply_that_is_not_what_was_promised_is_a_decode_error(body: bytes) -> None:
    """No error of the JSON or model library comes out, and no chain to one."""
    with pytest.raises(DecodeError) as caught:
        decipher(instances.status_call("a-1"), URL, reply(200, body))

    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    assert len(str(caught.value)) < 600


def test_a_web_page_in_place_of_json_asks_about_the_url() -> None:
    """The likeliest mistake is the address."""
    with pytest.raises(DecodeError, match="is the url that of an ST4SD deployment"):
        decipher(instances.status_call("a-1"), URL, reply(200, b"<html>Swagger</html>", html=True))


def test_a_decode_error_names_the_field() -> None:
    """The first wrong field is told by its path."""
    with pytest.raises(DecodeError) as caught:
        decipher(instances.get_call("a-1"), URL, reply(200, {"id": "a-1", "status": {"total-progress": "much"}}))

    assert caught.value.path.startswith("status.")


def test_no_status_yet_is_a_pending_status() -> None:
    """The service says 400 for a run that has just begun."""
    body = {"message": "Workflow instance a-1 does not have a status yet"}

    status = decipher(instances.status_call("a-1"), URL, reply(400, body))

    assert isinstance(status, Status)
    assert status.is_pending
    assert status.raw == body


def test_another_400_for_a_status_is_an_error() -> None:
    """Only that very message means pending."""
    with pytest.raises(BadRequest):
        decipher(instances.status_call("a-1"), URL, reply(400, {"message": "something else"}))


def test_properties_keep_nan() -> None:
    """The service writes the bare word NaN, which is not JSON."""
    columns = decipher(instances.properties_call("a-1"), URL, reply(200, b'{"energy": [-4.5, NaN]}'))

    assert columns["energy"][0] == -4.5
    assert columns["energy"][1] != columns["energy"][1]


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ('attachment; filename="energies.csv"', "energies.csv"),
        ('attachment; filename="café "x".txt"', 'café "x".txt'),
        ("attachment", "Energies"),
        ("", "Energies"),
    ],
)
def test_the_name_of_an_output_is_read_though_it_is_not_escaped(header: str, name: str) -> None:
    """The service escapes neither quotes nor UTF-8."""
    response = Response(200, httpx.Headers([(b"content-disposition", header.encode())]), b"x")

    assert decipher(instances.output_call("a-1", "Energies", None), URL, response).filename == name


def test_one_unreadable_experiment_does_not_hide_the_others() -> None:
    """The registry returns invalid entries as they are."""
    good = {"metadata": {"package": {"name": "demo"}, "registry": {}}}
    body = {"entries": [good, {"metadata": "broken"}], "problems": [{"identifier": "x"}]}

    found = decipher(experiments.list_call(), URL, reply(200, body))

    assert [one.name for one in found] == ["demo"]
    assert found.problems[0] == {"identifier": "x"}
    assert found.problems[1]["entry"] == {"metadata": "broken"}
    assert found.raw == body


@pytest.mark.parametrize("body", [5, "", None, {"id": "x"}])
def test_a_start_without_a_rest_uid_is_undecodable(body: Any) -> None:
    """Anything but a text is no rest-uid."""
    with pytest.raises(DecodeError):
        decipher(experiments.start_call("demo", b"{}", ()), URL, reply(200, body))


@pytest.mark.parametrize("text", ["", " ", ".", "..", "a/b", None, 5])
def test_a_path_segment_that_leads_elsewhere_is_refused(text: Any) -> None:
    """An empty id would turn a delete of one instance into a request to all."""
    with pytest.raises(ValueError, match="a rest-uid must be"):
        segment(text, "a rest-uid")


@pytest.mark.parametrize("text", ["", "/etc", "a//b", "../a", "a/./b", "a/"])
def test_a_subpath_that_leads_elsewhere_is_refused(text: str) -> None:
    """A file inside a folder key-output is named by a relative path."""
    with pytest.raises(ValueError, match="the path must be relative"):
        subpath(text)


def test_paths_are_quoted() -> None:
    """Identifiers keep their signs, everything else is escaped."""
    assert registry.identifier_path("demo:latest") == "experiments/demo:latest"
    assert registry.identifier_path("demo@sha256xab") == "experiments/demo@sha256xab"
    assert segment("a b?c#d", "x") == "a%20b%3Fc%23d"
    assert subpath("sub/b c.bin") == "sub/b%20c.bin"


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("", None),
        ("3", 3.0),
        ("0.5", 0.5),
        ("-1", 0.0),
        ("soon", None),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
        ("Fri, 31 Dec 1999 23:59:59 +99999999999999999999", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(value: str | None, seconds: float | None) -> None:
    """Both forms of the header are understood, nonsense is ignored."""
    assert parse_retry_after(value) == seconds


def test_retry_after_as_a_date_counts_from_now() -> None:
    """A date in the future is so many seconds away."""
    asked = parse_retry_after(format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True))

    assert asked is not None
    assert 55 < asked <= 60
