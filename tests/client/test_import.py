"""Experiments of one embedded server come to another."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest

from st4sd_async import (
    S3,
    APIError,
    Client,
    Config,
    DecodeError,
    DigestMismatch,
    InvalidDSL,
    InvalidPackage,
    MissingRequirements,
    Requirement,
    RetryPolicy,
    ServerError,
    St4sdError,
    Unauthorized,
    UnknownExperiment,
)
from st4sd_async.local import Html, LocalServer, Reply
from tests.client.definitions import DSL

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

BUCKET = S3.model_validate({"accessKeyID": "i", "secretAccessKey": "k", "bucket": "b", "endpoint": "e"})
JSON = {"Content-Type": "application/json"}


@pytest.fixture
async def other_server() -> AsyncIterator[LocalServer]:
    """Another server, into whose registry anybody may look, as into the global one."""
    async with LocalServer(open_registry=True) as running:
        yield running


@pytest.fixture
async def other_client(other_server: LocalServer) -> AsyncIterator[Client]:
    """A client of the other server."""
    async with Client(other_server.url, api_key=other_server.api_key) as opened:
        yield opened


def definition(server: LocalServer, *tags: str) -> dict[str, Any]:
    """The example `demo`, but of a commit elsewhere, so that it is the same wherever it is pushed."""
    made = server.example("demo")
    location = {"url": "https://git.example/demo.git", "commit": "0123456789abcdef0123456789abcdef01234567"}
    made["base"]["packages"][0]["source"]["git"]["location"] = location
    made["metadata"]["package"]["tags"] = list(tags)
    return made


def needy(server: LocalServer) -> dict[str, Any]:
    """The example `demo`, with a dataset, an image pull secret and a Secret that it relies on."""
    made = definition(server)
    package = made["base"]["packages"][0]
    secret = {"secretKeyRef": {"name": "git-oauth", "key": "oauth-token"}}
    package["source"]["git"]["security"] = {"oauth": {"valueFrom": secret}}
    registry = {"serverUrl": "quay.example/group", "security": {"valueFrom": {"secretKeyRef": {"name": "quay"}}}}
    package["dependencies"] = {"imageRegistries": [registry]}
    weights = {"name": "weights.csv", "valueFrom": {"datasetRef": {"name": "weights"}}}
    made["parameterisation"] = {"presets": {"data": [weights]}}
    return made


def shown(body: Any, status: int = 200) -> Reply:
    """What the registry's backend answers."""
    return Reply(status, JSON, json.dumps(body).encode())


@pytest.mark.parametrize("whole", [False, True], ids=["as the examples are", "with fields still being worked on"])
async def test_an_experiment_of_a_registry_is_imported_unchanged(
    whole: bool, other_server: LocalServer, other_client: Client, client: Client
) -> None:
    """With its tags, and under the same digest."""
    pushed = definition(other_server, "1.0", "stable")
    if whole:
        pushed["base"]["packages"][0]["graphs"] = [{"name": "inner"}]
        pushed["base"]["interface"] = {"description": "measures"}
    original = await other_client.push(pushed)

    imported = await client.import_experiment(other_server.url, "demo")

    assert (imported.name, imported.digest) == ("demo", original.digest)
    assert (await client.experiments.get("demo:1.0")).tags == ["1.0", "stable", "latest"]
    assert (await client.experiments.get("demo:stable", with_beta=True)).raw["base"] == (
        await other_client.experiments.get("demo", with_beta=True)
    ).raw["base"]


async def test_an_import_may_be_repeated(other_server: LocalServer, other_client: Client, client: Client) -> None:
    """The registry has one entry."""
    await other_client.push(definition(other_server))

    first = await client.import_experiment(other_server.url, "demo")
    second = await client.import_experiment(other_server.url, "demo")

    assert first.digest == second.digest
    assert len(await client.experiments.list()) == 1


async def test_a_version_may_be_requested(other_server: LocalServer, other_client: Client, client: Client) -> None:
    """By its tag or digest."""
    old = await other_client.push(definition(other_server, "1.0"))
    await other_client.push({**definition(other_server, "2.0"), "parameterisation": {}})

    by_tag = await client.fetch_experiment(other_server.url, "demo:1.0")
    by_digest = await client.fetch_experiment(other_server.url, old.identifier)
    latest = await client.fetch_experiment(other_server.url, "demo")

    assert by_tag.identifier == by_digest.identifier == old.identifier
    assert latest.identifier != old.identifier


async def test_an_import_may_come_from_a_private_deployment(
    server: LocalServer, client: Client, other_server: LocalServer, other_client: Client
) -> None:
    """Through a client of it; each server sees its own credentials and nothing else."""
    original = await client.push(definition(server, "1.0"))

    imported = await other_client.import_experiment(client, "demo:1.0")

    assert imported.digest == original.digest
    assert await other_client.fetch_experiment(client, "demo") == await other_client.fetch_experiment(
        client, "demo:1.0"
    )
    assert (await other_client.fetch_experiment(client, "demo")).source == f"{server.url}/"


@pytest.mark.parametrize(
    "page", ["/experiment/demo", "/registry-ui/experiment/demo#history", "/registry-ui/experiment/demo%3Alatest/x?y"]
)
async def test_the_page_of_an_experiment_is_a_source(
    page: str, other_server: LocalServer, other_client: Client, client: Client
) -> None:
    """As copied from a browser."""
    await other_client.push(definition(other_server))

    found = await client.fetch_experiment(other_server.url + page)

    assert (found.experiment.name, found.source) == ("demo", f"{other_server.url}/")


async def test_a_fetched_definition_may_be_changed_before_it_is_pushed(
    other_server: LocalServer, other_client: Client, client: Client
) -> None:
    """The definition is a copy, without what the other registry added."""
    await other_client.push(definition(other_server))
    found = await client.fetch_experiment(other_server.url, "demo")

    found.definition["metadata"]["package"]["name"] = "mine"
    pushed = await client.push(found.definition)

    assert (pushed.name, found.experiment.name) == ("mine", "demo")
    assert "registry" not in found.definition["metadata"]
    assert found.experiment.raw["metadata"]["registry"]["digest"] == found.experiment.digest
    assert (await client.experiments.list())[0].name == "mine"


async def test_missing_requirements_are_reported_before_anything_is_pushed(
    other_server: LocalServer, other_client: Client, client: Client
) -> None:
    """Each with its kind, its name, what requires it, and advice."""
    await other_client.push(needy(other_server))

    found = await client.fetch_experiment(other_server.url, "demo")
    with pytest.raises(MissingRequirements) as caught:
        await client.import_experiment(other_server.url, "demo")

    where = "base.packages.0"
    assert set(found.requirements) == {
        Requirement("secret", "git-oauth", (f"{where}.source.git.security.oauth.valueFrom",)),
        Requirement(
            "image pull secret", "quay", (f"{where}.dependencies.imageRegistries.0",), "quay.example/group", False
        ),
        Requirement("dataset", "weights", ("parameterisation.presets.data.0.valueFrom",), is_met=False),
    }
    assert caught.value.requirements == found.missing
    told = f"{found.identifier} was not pushed: this deployment lacks the image pull secret 'quay', dataset 'weights'"
    assert str(caught.value).startswith(f"{told}; meet its .requirements")
    assert [one.advice for one in found.missing] == [
        "client.image_pull_secrets.create('quay', server='quay.example/group', ...)",
        "client.datasets.create('weights', S3(...))",
    ]
    assert [one.name for one in found.uncertain] == ["git-oauth"]
    assert await client.experiments.list() == []


async def test_missing_requirements_can_be_supplied(
    other_server: LocalServer, other_client: Client, client: Client
) -> None:
    """Or pushed without."""
    await other_client.push(needy(other_server))

    pushed = await client.import_experiment(other_server.url, "demo", allow_missing=True)
    await client.datasets.create("weights", BUCKET)
    await client.image_pull_secrets.create("quay", server="quay.example/group", username="u", password="pass-word")
    again = await client.import_experiment(other_server.url, "demo")

    assert pushed.digest == again.digest


async def test_a_cluster_without_datasets_lacks_them(
    server: LocalServer, other_server: LocalServer, other_client: Client, client: Client
) -> None:
    """The service answers with an error there."""
    await other_client.push(needy(other_server))
    server.faults.add("GET /datasets/", shown({"message": "Datashim is not installed"}, 400))

    found = await client.fetch_experiment(other_server.url, "demo")

    assert "weights" in [one.name for one in found.missing]


def warnings_of_clients(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the warnings of clients, without those of the embedded servers."""
    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    return [record.getMessage() for record in warnings if record.name == "st4sd_async"]


async def test_an_image_that_may_be_public_is_only_warned_about(
    other_server: LocalServer, other_client: Client, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    """And not even that if an image pull secret opens its registry."""
    await other_client.push(definition(other_server))
    entry = (await other_client.experiments.get("demo")).raw
    entry["metadata"]["registry"]["containerImages"] = [{"name": "quay.example/a/b:1"}, {"name": "quay.example/a/c"}]
    other_server.faults.add("GET /registry-ui/*", shown({"entry": entry, "problems": []}), times=2)

    await client.import_experiment(other_server.url, "demo")
    told = warnings_of_clients(caplog)
    await client.image_pull_secrets.create("pull", server="quay.example", username="u", password="pass-word")
    found = await client.fetch_experiment(other_server.url, "demo")

    assert len(told) == 1
    assert "relies on the image registry 'quay.example': if its images are not public, client.image_pull" in told[0]
    images = ("quay.example/a/b:1", "quay.example/a/c")
    assert found.requirements == (Requirement("image registry", "quay.example", images, is_met=True),)


async def test_a_token_that_comes_along_is_warned_about_and_not_shown(
    other_server: LocalServer, other_client: Client, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    """It is pushed, but in no message, even if a service that refuses the package quotes it."""
    caplog.set_level(logging.DEBUG)
    made = definition(other_server)
    made["base"]["packages"][0]["source"]["git"]["security"] = {"oauth": {"value": "tok-0123456789"}}
    other_server.faults.add("GET /experiments/*", shown({"entry": made, "problems": []}), times=2)
    place = "base.packages.0.source.git.security.oauth.value"

    found = await client.fetch_experiment(other_client, "demo")
    pushed = await client.import_experiment(other_client, "demo")
    for path in ("experiments", "internal-experiments", "utilities/pvep"):
        other_server.faults.add(f"POST /{path}/", shown({"message": "what of tok-0123456789?"}, 400))
    with pytest.raises(InvalidPackage) as refused:
        await other_client.push(found.definition)
    with pytest.raises(InvalidDSL) as internal:
        await other_client.internal_experiments.push(DSL, found.definition)
    with pytest.raises(InvalidDSL) as generated:
        await other_client.utilities.package_for_dsl(DSL, found.definition)

    assert found.uncertain == (Requirement("credential", place, (place,)),)
    assert found.definition["base"] == made["base"]
    told = warnings_of_clients(caplog)
    assert [f"contains the credential {place!r}, which is imported too" in one for one in told] == [True]
    assert "tok-0123456789" not in f"{found} {pushed} {caplog.text}"
    for error in (refused.value, internal.value, generated.value):
        assert "what of [secret]?" in str(error)
        assert "tok-0123456789" not in f"{error!r} {error.detail}"


async def test_only_lists_that_matter_are_requested(
    server: LocalServer, other_server: LocalServer, other_client: Client, client: Client
) -> None:
    """An experiment that relies on nothing costs one request."""
    await other_client.push(definition(other_server))
    before = len(server.requests)

    found = await client.fetch_experiment(other_server.url, "demo")

    assert (found.requirements, len(server.requests)) == ((), before)


async def test_an_unknown_experiment_of_a_registry_is_an_error(other_server: LocalServer, client: Client) -> None:
    """The registry gives no reason, and may repeat the reply from a cache."""
    with pytest.raises(UnknownExperiment, match="has no experiment 'ghost'; the global registry repeats") as caught:
        await client.fetch_experiment(other_server.url, "ghost")

    assert (caught.value.identifier, caught.value.status) == ("ghost", 404)


async def test_an_unknown_experiment_of_a_deployment_is_an_error(client: Client, other_client: Client) -> None:
    """With the message of the service."""
    with pytest.raises(UnknownExperiment, match="Cannot find") as caught:
        await client.import_experiment(other_client, "ghost")

    assert caught.value.identifier == "ghost"


async def test_a_private_registry_asks_for_a_client(server: LocalServer, other_client: Client) -> None:
    """A new token for this deployment would not help."""
    with pytest.raises(Unauthorized, match="this registry is private: open a Client of it") as caught:
        await other_client.fetch_experiment(server.url, "demo")

    assert caught.value.token_page == ""


async def test_the_own_registry_needs_no_client(server: LocalServer, client: Client) -> None:
    """It is behind the door that the client has the key for."""
    await client.push(definition(server))

    assert (await client.fetch_experiment(server.url, "demo")).experiment.name == "demo"


async def test_the_own_registry_asks_for_a_new_token_if_it_refuses(server: LocalServer, client: Client) -> None:
    """A new token helps there."""
    server.renew()

    with pytest.raises(Unauthorized, match="get a new token at") as caught:
        await client.fetch_experiment(server.url, "demo")

    assert caught.value.token_page == f"{server.url}/authorisation/token"


@pytest.mark.parametrize("status", [500, 418])
async def test_a_refusal_without_a_reason_says_so(status: int, other_server: LocalServer, server: LocalServer) -> None:
    """With a possible cause: a cache."""
    other_server.faults.add("GET /registry-ui/*", shown({}, status))
    config = Config(retry=RetryPolicy(attempts=1))

    async with Client(server.url, api_key=server.api_key, config=config) as client:
        with pytest.raises(APIError, match="the registry gives no reason; the global registry repeats a response"):
            await client.fetch_experiment(other_server.url, "demo")


async def test_a_registry_that_is_down_is_an_error(other_server: LocalServer, server: LocalServer) -> None:
    """By the proxy in front of it."""
    other_server.faults.add("GET /registry-ui/*", Html(502))
    config = Config(retry=RetryPolicy(attempts=1))

    async with Client(server.url, api_key=server.api_key, config=config) as client:
        with pytest.raises(ServerError, match="the proxy got no response from the service"):
            await client.fetch_experiment(other_server.url, "demo")


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (Html(200), "HTML instead of JSON"),
        (shown([]), "other than the expected JSON|JSON that is not a definition"),
        (shown({"entry": {}}), "other than the expected JSON|JSON that is not a definition"),
        (
            shown({"entry": {"base": {"packages": 5}, "metadata": {"package": {"name": "x"}}}}),
            "other than the expected JSON|JSON that is not a definition",
        ),
    ],
    ids=["page", "list", "blank", "other shape"],
)
async def test_a_reply_that_is_not_an_experiment_is_an_error(
    answer: Any, message: str, other_server: LocalServer, client: Client
) -> None:
    """An address that is not that of a registry is answered with a page and 200."""
    other_server.faults.add("GET /registry-ui/*", answer)

    with pytest.raises(DecodeError, match=message):
        await client.fetch_experiment(other_server.url, "demo")


async def test_a_redirect_is_not_followed(other_server: LocalServer, client: Client) -> None:
    """The error names the target."""
    other_server.faults.add("GET /registry-ui/*", Reply(302, {"Location": "https://elsewhere.example/"}, b""))

    with pytest.raises(APIError, match=r"a redirect to 'https://elsewhere\.example/', which is never followed"):
        await client.fetch_experiment(other_server.url, "demo")


async def test_a_package_that_the_service_cannot_fetch_is_an_error(
    server: LocalServer, other_server: LocalServer, other_client: Client, client: Client
) -> None:
    """As for any other push."""
    await other_client.push(definition(other_server))
    server.faults.add("POST /experiments/", shown({"message": "no", "problem": "Unable to clone"}, 400))

    with pytest.raises(InvalidPackage) as caught:
        await client.import_experiment(other_server.url, "demo")

    assert caught.value.reason == "Unable to clone"


@pytest.mark.parametrize(
    ("source", "identifier", "message"),
    [
        ("registry.example", "demo", "the address of a registry looks like https://registry"),
        ("ftp://registry.example", "demo", "not 'ftp://registry.example'"),
        ("https://user:pass-word@registry.example", "demo", "must not contain a user or password"),
        ("user:pass-word@registry.example", "demo", "not 'registry.example'"),
        ("https://registry.example/registry-ui/", None, "identifier is missing"),
        ("https://registry.example/experiment/", None, "identifier is missing"),
        ("https://registry.example", "", "identifier is missing"),
        ("https://registry.example", "a/b", "a string without slashes"),
    ],
)
async def test_an_invalid_source_is_refused(source: str, identifier: str | None, message: str, client: Client) -> None:
    """Before anything is sent, and without passwords in the message."""
    with pytest.raises(ValueError, match=message) as caught:
        await client.import_experiment(source, identifier)

    assert "pass-word" not in str(caught.value)


async def test_an_argument_that_is_not_a_source_is_refused(client: Client, other_client: Client) -> None:
    """A path is not a source, and a client needs an identifier."""
    with pytest.raises(TypeError, match="a registry or a Client, not int"):
        await client.fetch_experiment(5, "demo")  # type: ignore[arg-type] # on purpose
    with pytest.raises(ValueError, match="a client as the source does not"):
        await client.fetch_experiment(other_client)


async def test_a_source_that_is_not_open_is_an_error(client: Client, other_server: LocalServer) -> None:
    """As for any other use of such a client."""
    with pytest.raises(St4sdError, match="not open"):
        await client.fetch_experiment(Client(other_server.url, api_key=other_server.api_key), "demo")


async def lying(other_server: LocalServer, other_client: Client, told: str, **changes: Any) -> None:
    """Let the registry show `demo`, changed in its name or digest, whatever is asked for."""
    entry = (await other_client.experiments.get(told)).raw
    metadata = entry["metadata"]
    package = {**metadata["package"], **changes.get("package", {})}
    registry = {**metadata["registry"], **changes.get("registry", {})}
    entry = {**entry, "metadata": {**metadata, "package": package, "registry": registry}}
    other_server.faults.add("GET /registry-ui/*", shown({"entry": entry}), None)


async def tags(client: Client, name: str = "demo") -> dict[str, str]:
    """The tags of an experiment here, with the digests that they lead to."""
    return {one.tag: one.digest for one in (await client.experiments.history(name)).tags}


async def test_an_import_pushes_the_requested_experiment(
    other_server: LocalServer, other_client: Client, client: Client
) -> None:
    """A registry that returns another experiment cannot move its tags here."""
    mine = await client.push(definition(other_server, "1.0"))
    await other_client.push({**definition(other_server, "1.0", "2.0"), "parameterisation": {}})
    await lying(other_server, other_client, "demo")
    before = await tags(client)

    with pytest.raises(DecodeError, match="the experiment 'demo' instead of 'harmless'"):
        await client.import_experiment(other_server.url, "harmless")
    with pytest.raises(DecodeError, match="the experiment 'demo' instead of 'harmless'"):
        await client.fetch_experiment(other_server.url, "harmless")

    assert await tags(client) == before == {"1.0": mine.digest, "latest": mine.digest}


async def test_a_client_as_a_source_is_trusted_no_more(
    other_server: LocalServer, other_client: Client, client: Client
) -> None:
    """Its deployment may be broken or hostile too."""
    await other_client.push(definition(other_server))
    entry = (await other_client.experiments.get("demo")).raw
    other_server.faults.add("GET /rs/experiments/harmless", shown({"entry": entry}))

    with pytest.raises(DecodeError, match="the experiment 'demo' instead of 'harmless'"):
        await client.import_experiment(other_client, "harmless")

    assert await client.experiments.list() == []


async def test_a_digest_is_compared_before_anything_is_pushed(
    other_server: LocalServer, other_client: Client, client: Client
) -> None:
    """With the digest that the registry shows."""
    original = await other_client.push(definition(other_server))
    await lying(other_server, other_client, "demo")

    with pytest.raises(DecodeError, match="instead of 'sha256xother'"):
        await client.import_experiment(other_server.url, "demo@sha256xother")

    assert await client.experiments.list() == []
    assert (await client.import_experiment(other_server.url, original.identifier)).digest == original.digest


@pytest.mark.parametrize("known", ["nothing", "another version", "the content, tagged", "the content, untagged"])
async def test_content_with_another_digest_is_not_kept(
    known: str, other_server: LocalServer, other_client: Client, client: Client
) -> None:
    """A registry that shows the digest beside another content is found out, and all tags are as they were."""
    if known == "the content, tagged":
        await client.push(definition(other_server, "evil", "kept"))
    elif known == "the content, untagged":
        await client.push(definition(other_server))
    if known != "nothing":
        await client.push({**definition(other_server, "1.0", "stable"), "parameterisation": {}})
    await other_client.push(definition(other_server, "stable"))
    await lying(other_server, other_client, "demo", registry={"digest": "sha256xpinned"})
    before, count = await tags(client), len(await client.experiments.list())

    with pytest.raises(DigestMismatch) as caught:
        await client.import_experiment(other_server.url, "demo@sha256xpinned")

    assert (caught.value.expected, caught.value.found) == (
        "sha256xpinned",
        (await other_client.experiments.get("demo")).digest,
    )
    assert await tags(client) == before
    assert len(await client.experiments.list()) == count


async def test_only_tags_that_are_shown_or_requested_are_moved(
    other_server: LocalServer, other_client: Client, client: Client
) -> None:
    """A definition may name any tags; those that the registry does not show, and invalid ones, are left out."""
    mine = await client.push(definition(other_server, "stable", "prod"))
    await other_client.push({**definition(other_server, "1.0"), "parameterisation": {}})
    await lying(
        other_server, other_client, "demo", package={"tags": ["stable", "1.0", "a,b", "\ud800", 5, "", ["1.0"], {}]}
    )

    found = await client.import_experiment(other_server.url, "demo:2.0")

    moved = {"1.0": found.digest, "2.0": found.digest, "latest": found.digest}
    assert await tags(client) == {"stable": mine.digest, "prod": mine.digest, **moved}
    assert set(found.tags) == set(moved)


async def test_a_repeated_import_keeps_local_tags(
    other_server: LocalServer, other_client: Client, client: Client
) -> None:
    """Those that were given to the same content here."""
    await other_client.push(definition(other_server, "1.0"))
    first = await client.import_experiment(other_server.url, "demo")
    await client.experiments.tag(first.identifier, [*first.tags, "mine"])

    again = await client.import_experiment(other_server.url, "demo")

    assert again.digest == first.digest
    assert set(again.tags) == {"1.0", "latest", "mine"}


async def test_content_that_differs_without_a_pinned_digest_is_a_warning(
    other_server: LocalServer, other_client: Client, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    """As of a branch that moved: the other registry shows another digest than the one here finds."""
    await other_client.push(definition(other_server))
    await lying(other_server, other_client, "demo", registry={"digest": "sha256xelse"})

    with caplog.at_level(logging.WARNING, "st4sd_async"):
        found = await client.import_experiment(other_server.url, "demo")

    assert (
        f"{found.identifier} was imported from {other_server.url}/, which shows the digest sha256xelse" in caplog.text
    )


@pytest.mark.parametrize("source", ["http://registry.example", "http://10.0.0.7:8080/registry-ui/experiment/demo"])
async def test_a_registry_over_plain_http_on_another_machine_is_refused_unless_allowed(
    source: str, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything is sent; a registry on this machine needs no permission."""
    with pytest.raises(ValueError, match=r"plain http.*https://.*allow_http=True"):
        await client.import_experiment(source, "demo")
    with pytest.raises(ValueError, match="plain http"):
        await client.fetch_experiment(source, "demo")

    quick = client.with_options(timeout=0.2, retry=RetryPolicy(attempts=1))
    with pytest.raises(St4sdError):  # it was asked, and does not answer
        await quick.fetch_experiment("http://registry.invalid", "demo", allow_http=True)
