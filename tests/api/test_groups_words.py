"""What the real services said, word for word: each refusal its own error, with the facts as attributes."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from st4sd_async import (
    APIError,
    Client,
    DecodeError,
    InputConflict,
    InvalidDSL,
    InvalidPackage,
    InvalidPayload,
    InvalidQuery,
    MissingInputs,
    OutcomeUnknown,
    Problem,
)
from st4sd_async.local import Html, LocalServer, Reply
from tests.client.definitions import DSL

pytestmark = pytest.mark.anyio

JSON = {"Content-Type": "application/json"}
CHECKED = "1 validation error for DeprecatedExperimentStartPayload\n"
MANUAL = "    For further information visit https://errors.pydantic.dev/2.14/v/"
BUCKET = {"accessKeyID": "an-id", "secretAccessKey": "a-secret", "bucket": "b", "endpoint": "https://s3.example"}
PULL = {"server": "quay.example", "username": "somebody", "password": "a-password"}
Act = Callable[[Client], Awaitable[Any]]


def said(body: Any, status: int = 400) -> Reply:
    """A reply of the service."""
    return Reply(status, JSON, json.dumps(body).encode())


async def refused(client: Client, server: LocalServer, act: Act, body: Any, status: int = 400) -> APIError:
    """The error that a method makes of a refusal."""
    server.faults.add("* /*", said(body, status))
    with pytest.raises(APIError) as caught:
        await act(client)
    return caught.value


async def start(client: Client) -> Any:
    """A start whose answer is planted."""
    return await client.start("demo", {})


async def push(client: Client) -> Any:
    """A push whose answer is planted."""
    return await client.experiments.push({"metadata": {"package": {"name": "x"}}})


async def test_a_definition_that_does_not_fit_says_where(server: LocalServer, client: Client) -> None:
    """The service puts the problems into a text beside an empty message."""
    text = (
        "2 validation errors for ParameterisedPackage\nnope\n  Extra inputs are not permitted [type=extra_forbidden, "
        f"input_value=1, input_type=int]\n{MANUAL}extra_forbidden\nmetadata.package.name\n  Field required "
        f"[type=missing, input_value={{}}, input_type=dict]\n{MANUAL}missing"
    )
    body = {"invalidVirtualExperimentDefinition": text, "message": "Invalid parameterised package"}

    error = await refused(client, server, push, body)

    assert isinstance(error, InvalidPackage)
    assert error.problems == (
        Problem("nope", "Extra inputs are not permitted"),
        Problem("metadata.package.name", "Field required"),
    )
    assert error.reason.startswith("2 validation errors for ParameterisedPackage\nnope\n")
    assert str(error).startswith(
        "Invalid parameterised package: nope: Extra inputs are not permitted; metadata.package.name: Field required ("
    )


async def test_the_words_of_git_come_first(server: LocalServer, client: Client) -> None:
    """The service puts them behind 200 characters of its own; the advice for any repository follows them."""
    words = "fatal: '/srv/x' does not appear to be a git repository\nfatal: Could not read from remote repository."
    problem = (
        "Cannot git-clone with location {'url': 'https://example.com/x.git', 'tag': '1'} without using any oauth "
        "credentials. Underlying error: Unable to clone - git-stderr: Cloning into '/tmp/x'...\n"
        f"{words}\n\ngit-stdout:  "
    )

    error = await refused(client, server, push, {"problem": problem, "message": f"Invalid payload, reason: {problem}"})

    assert isinstance(error, InvalidPackage)
    assert str(error).startswith(f"{' '.join(words.split())}: Invalid payload")
    assert error.reason == problem


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            f"{CHECKED}inputs\n  Input should be a valid list [type=list_type, input_value='nope']\n{MANUAL}list_type",
            Problem("inputs", "Input should be a valid list"),
        ),
        (
            f"{CHECKED}  Input should be a valid dictionary [type=model_type, input_value=None]\n{MANUAL}model_type",
            Problem("", "Input should be a valid dictionary"),
        ),
        ("something else, in words of its own", Problem("", "something else, in words of its own")),
    ],
    ids=["a field", "all of it", "other words"],
)
async def test_a_payload_that_does_not_fit_says_where(
    text: str, problem: Problem, server: LocalServer, client: Client
) -> None:
    """The problem is in the message too, before the advice."""
    body = {"invalidStartPayload": text, "message": "Invalid start payload"}

    error = await refused(client, server, start, body)

    assert type(error) is InvalidPayload
    assert error.problems == (problem,)
    assert f"Invalid start payload: {': '.join(filter(None, problem))}; client.draft" in str(error)


async def test_a_conflict_names_its_files(server: LocalServer, client: Client) -> None:
    """A start names them in its message only, a lambda start in a list."""
    words = "Input and Data files with conflicting names: ['molecules.csv', \"it's.csv\"]"
    in_words = {"reason": words, "message": f"{words} - experiment start payload is invalid"}

    error = await refused(client, server, start, in_words)
    listed = await refused(client, server, start, {"dataInputConflicts": ["a"], "message": "conflicts"})
    vague = await refused(client, server, start, {"reason": words[:44], "message": words[:44]})

    assert [type(one) for one in (error, listed, vague)] == [InputConflict] * 3
    assert [one.names for one in (error, listed, vague)] == [  # type: ignore[attr-defined] # just asserted
        ("molecules.csv", "it's.csv"),
        ("a",),
        (),
    ]


async def test_missing_and_extra_files_are_reported_together(server: LocalServer, client: Client) -> None:
    """The service reports both at once."""
    words = "Invalid experiment start payload. Missing inputs: ['a.csv']. Extra inputs: ['b.csv']"
    body = {"missingInputs": ["a.csv"], "extraInputs": ["b.csv"], "message": words}

    error = await refused(client, server, start, body)

    assert isinstance(error, MissingInputs)
    assert error.names == ("a.csv",)
    assert error.problems == (
        Problem("inputs", "add the file 'a.csv', which the experiment needs"),
        Problem("inputs", "leave out the file 'b.csv', which the experiment does not accept: did you mean 'a.csv'?"),
    )
    assert "which the experiment does not accept: did you mean 'a.csv'? (POST " in str(error)


async def test_an_invalid_query_says_where(server: LocalServer, client: Client) -> None:
    """The service puts its problems into the message, as JSON; so does the embedded server."""
    problem = {
        "type": "model_type",
        "loc": ["package", "definition"],
        "msg": "Input should be a valid dictionary or instance of BasePackage",
        "input": "git",
        "ctx": {"class_name": "BasePackage"},
        "url": "https://errors.pydantic.dev/2.14/v/model_type",
    }
    message = f"Invalid request, problems: {json.dumps([problem], indent=2)}"

    async def query(client: Client) -> Any:
        return await client.experiments.query(package={"sources": {}})

    recorded = await refused(client, server, query, {"message": message})
    with pytest.raises(InvalidQuery) as embedded:
        await query(client)
    vague = await refused(client, server, query, {"message": f"Invalid request, problems: {'[' * 5000}"})

    assert isinstance(recorded, InvalidQuery)
    assert recorded.problems == (Problem("package.definition", str(problem["msg"])),)
    assert embedded.value.problems == (Problem("package.definition.sources", "Extra inputs are not permitted"),)
    assert isinstance(vague, InvalidQuery)
    assert vague.problems == ()


DONE: dict[str, Act] = {
    "DELETE /experiments/x": lambda client: client.experiments.delete("x"),
    "PUT /experiments/x/tag": lambda client: client.experiments.tag("x", ["latest"]),
    "DELETE /instances/x": lambda client: client.instances.delete("x"),
    "DELETE /relationships/x/": lambda client: client.relationships.delete("x"),
    "DELETE /library/x/": lambda client: client.library.delete("x"),
    "POST /utilities/dsl/": lambda client: client.utilities.validate_dsl(DSL),
    "PUT /image-pull-secrets/x": lambda client: client.image_pull_secrets.update("x", **PULL),
    "POST /image-pull-secrets/x": lambda client: client.image_pull_secrets.create("x", **PULL),
    "POST /datasets/s3/x": lambda client: client.datasets.create("x", BUCKET),
}
"""Operations whose good replies say no more than that it was done."""


@pytest.mark.parametrize("operation", DONE)
async def test_a_web_page_does_not_mean_that_it_was_done(operation: str, server: LocalServer, client: Client) -> None:
    """A proxy's page with a 200 is not a reply of the service; the outcome of a creation is unknown then."""
    server.faults.add(operation, Html(200))

    with pytest.raises((DecodeError, OutcomeUnknown), match="HTML instead of JSON") as caught:
        await DONE[operation](client)

    assert isinstance(caught.value, OutcomeUnknown) is operation.startswith(("POST /image", "POST /data"))


@pytest.mark.parametrize("body", [b"", b"null", b'"OK"', b'"Success"', b'{"deleted": 1}'], ids=str)
async def test_the_body_of_a_successful_change_is_ignored(body: bytes, server: LocalServer, client: Client) -> None:
    """Only the HTTP status counts there."""
    server.faults.add("DELETE /experiments/x", Reply(200, JSON, body))

    await client.experiments.delete("x")


async def test_a_null_dsl_is_an_error_with_its_problems(server: LocalServer, client: Client) -> None:
    """A successful reply may have no DSL, but the reasons."""
    body = {"dsl": None, "problems": [{"message": "broken", "location": ["workflows", 0]}]}

    for read in (client.experiments.dsl, client.experiments.dsl_text):
        server.faults.add("GET /experiments/*", said(body, 200))
        with pytest.raises(InvalidDSL, match=r"workflows\.0: broken") as caught:
            await read("x")
        assert caught.value.problems == (Problem("workflows.0", "broken"),)


async def test_an_invalid_graph_does_not_hide_the_others(server: LocalServer, client: Client) -> None:
    """It is among the problems."""
    body = {"entries": [{"graph": None}, {"graph": {"workflows": []}}, "x"], "problems": [{"message": "one is bad"}]}
    server.faults.add("GET /library/", said(body, 200))

    graphs = await client.library.list()

    assert graphs == [{"workflows": []}]
    assert graphs.problems == (
        Problem("", "one is bad"),
        Problem("entries.0", "cannot be parsed: it has no graph"),
        Problem("entries.2", "cannot be parsed: it has no graph"),
    )
    assert graphs.raw == body


@pytest.mark.parametrize("group", ["experiments", "relationships"])
async def test_an_entry_has_its_problems(group: str, server: LocalServer, client: Client) -> None:
    """A successful reply may have problems beside the entry."""
    entry = {"identifier": "x", "metadata": {"package": {"name": "x"}}}
    problem = {"message": "its package is gone", "location": ["base", "packages", 0]}
    server.faults.add(f"GET /{group}/x", said({"entry": entry, "problems": [problem, "and more"]}, 200))
    server.faults.add(f"GET /{group}/x", said({"entry": entry}, 200))

    bad, good = [await getattr(client, group).get("x") for _ in range(2)]

    assert bad.problems == (Problem("base.packages.0", "its package is gone"), Problem("", "and more"))
    assert bad.raw == good.raw == entry
    assert good.problems == ()
