"""What a definition relies on, and whether a deployment has it."""

from __future__ import annotations

from typing import Any

import pytest

from st4sd_async import Experiment, ImportedExperiment, Requirement
from st4sd_async.models.packages import ExperimentList
from st4sd_async.models.requirements import checked, credentials_in, requirements_of


def named(definition: dict[str, Any], *images: str) -> list[tuple[str, str]]:
    """Kind and name of each requirement."""
    return [(one.kind, one.name) for one in requirements_of(definition, images)]


def packages(*sources: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A definition with a base package from each source."""
    return {"base": {"packages": [{"name": str(at), "source": one, **more} for at, one in enumerate(sources)]}}


SECRET = {"valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}


@pytest.mark.parametrize(
    ("definition", "found"),
    [
        (packages({"git": {"location": {"url": "https://git.example/a"}}}), []),
        (packages({"git": {"security": {"oauth": SECRET}}}), [("secret", "s")]),
        (packages({"git": {"security": {"oauth": {"value": "in-clear"}}}}),
         [("credential", "base.packages.0.source.git.security.oauth.value")]),
        (packages({"dataset": {"location": {"dataset": "d"}, "security": {"dataset": "e"}}}),
         [("dataset", "d"), ("dataset", "e")]),
        (packages({"s3": {"security": {"credentials": {"valueFrom": {"secretName": "s"}}}}}), [("secret", "s")]),
        (packages({}, dependencies={"imageRegistries": [{"serverUrl": "a", "security": SECRET}]}),
         [("image pull secret", "s")]),
        (packages({}, dependencies={"imageRegistries": [{"serverUrl": "a"}]}), []),
        ({"parameterisation": {"presets": {"data": [{"valueFrom": {"datasetRef": {"name": "d"}}}]}}},
         [("dataset", "d")]),
        ({"parameterisation": {"presets": {"variables": [{"valueFrom": {"s3SecretKeyRef": {"objectName": "s"}}}]}}},
         [("secret", "s")]),
        ({"parameterisation": {"executionOptions": {"data": [{"valueFrom": [{"datasetRef": {"name": "d"}}]}]}}}, []),
    ],
    ids=["public", "git", "in clear", "dataset", "S3", "pull secret", "no secret", "preset", "S3 preset", "choice"],
)  # fmt: skip
def test_packages_and_presets_refer_to_requirements(definition: dict[str, Any], found: list[tuple[str, str]]) -> None:
    """What a start may choose is not required."""
    assert named(definition) == found


def test_a_requirement_of_two_packages_is_found_once() -> None:
    """With both places."""
    source = {"dataset": {"location": {"dataset": "d"}}}

    (found,) = requirements_of(packages(source, source), [])

    places = tuple(f"base.packages.{index}.source.dataset.location" for index in (0, 1))
    assert found == Requirement("dataset", "d", places)


@pytest.mark.parametrize(
    "odd",
    [{}, {"base": None}, {"base": {"packages": {}}}, {"base": {"packages": [None, 5]}}, packages({"dataset": 5}),
     packages({"git": {"security": {"oauth": {"valueFrom": {"secretKeyRef": "s"}}}}}), {"parameterisation": []},
     packages({}, dependencies={"imageRegistries": [None]}), packages({"dataset": ""})],
)  # fmt: skip
def test_an_invalid_definition_has_no_requirements(odd: dict[str, Any]) -> None:
    """The service reports what is wrong with it."""
    assert requirements_of(odd, []) == []


@pytest.mark.parametrize(
    ("image", "host"),
    [
        ("quay.example/group/image:1.0", "quay.example"),
        ("QUAY.example/image", "quay.example"),
        ("host:5000/image@sha256:00", "host:5000"),
        ("localhost/image", "localhost"),
        ("python:3.11", "docker.io"),
        ("python", "docker.io"),
        ("group/image:1.0", "docker.io"),
        ("docker.io/group/image", "docker.io"),
        ("index.docker.io/group/image", "docker.io"),
    ],
)
def test_an_image_comes_from_a_registry(image: str, host: str) -> None:
    """That of its first part if this is a host, otherwise Docker Hub."""
    assert named({}, image, "") == [("image registry", host)]


@pytest.mark.parametrize(
    ("image", "server", "is_open"),
    [
        ("quay.example/group/image:1", "quay.example", True),
        ("quay.example/group/image:1", "https://quay.example/", True),
        ("quay.example/group/image:1", "QUAY.example/v2/", True),
        ("quay.example/group/image:1", "quay.example/group", True),
        ("quay.example/group/image:1", "quay.example/group/image", True),
        ("quay.example/group/image:1", "quay.example/gro", False),
        ("quay.example/group/image:1", "quay.example/other", False),
        ("quay.example/group/image:1", "*.example", True),
        ("quay.example/group/image:1", "quay.example:5000", False),
        ("quay.example:5000/image", "quay.example:5000", True),
        ("quay.example/image", "example", False),
        ("python:3.11", "https://index.docker.io/v1/", True),
        ("group/image", "docker.io/group", True),
        ("python", "quay.example", False),
    ],
)
def test_a_pull_secret_matches_registries_as_in_kubernetes(image: str, server: str, is_open: bool) -> None:
    """Hosts may have wildcards, paths are prefixes; an image that no secret matches may be public."""
    (one,) = requirements_of({}, [image])

    assert checked(one, {"mine": ["elsewhere.example", server]}, []).is_met is (True if is_open else None)


def test_all_images_of_a_registry_must_be_accessible() -> None:
    """Without a matching secret, an image may be public."""
    (one,) = requirements_of({}, ["quay.example/a/x", "quay.example/b/y"])

    assert checked(one, {"mine": ["quay.example/a"]}, []).is_met is None
    assert checked(one, {"mine": ["quay.example/a", "quay.example/b"]}, []).is_met is True


@pytest.mark.parametrize(
    ("one", "is_met"),
    [
        (Requirement("dataset", "d"), True),
        (Requirement("dataset", "other"), False),
        (Requirement("image pull secret", "quay"), True),
        (Requirement("image pull secret", "other"), False),
        (Requirement("image pull secret", "other", server="other.example"), False),
        (Requirement("image pull secret", "other", server="quay.example/group/sub"), True),
        (Requirement("secret", "d"), None),
        (Requirement("credential", "d"), None),
    ],
    ids=str,
)
def test_a_named_requirement_is_met_or_not(one: Requirement, is_met: bool | None) -> None:
    """A pull secret with another name for the same registry is enough; Secrets cannot be listed."""
    assert checked(one, {"quay": ["quay.example/group"]}, ["d"]).is_met is is_met


@pytest.mark.parametrize(
    ("one", "advice"),
    [
        (Requirement("secret", "s"), "ask the administrator of the cluster for the Secret 's'"),
        (Requirement("image pull secret", "s"), "client.image_pull_secrets.create('s', server='...', ...)"),
        (Requirement("image registry", "r"),
         "client.image_pull_secrets.create('a-name', server='r', ...), unless they are public"),
        (Requirement("credential", "base.packages.0.source.git.security.oauth.value"),
         "in .definition, replace it by one for this deployment or remove it, and push that"),
    ],
    ids=str,
)  # fmt: skip
def test_each_requirement_says_how_to_meet_it(one: Requirement, advice: str) -> None:
    """As a line of code or a sentence."""
    assert one.advice == advice


TOKEN = "an-oauth-token"
HOLDING: dict[str, Any] = packages(
    {"git": {"location": {"url": "https://git.example/a"}, "security": {"oauth": {"value": TOKEN}}}},
    {"git": {"location": {"url": f"https://git:{TOKEN}@git.example/a"}}},
    {"git": {"location": {"url": f"https://{TOKEN}@git.example/a"}}},
    {"git": {"location": {"url": "ssh://git@git.example/a"}}},
    {"s3": {"security": {"credentials": {"value": {"accessKeyID": TOKEN, "secretAccessKey": TOKEN}}}}},
    {"dataset": {"location": {"dataset": "d"}, "security": {"dataset": "d"}}},
    dependencies={"imageRegistries": [{"serverUrl": "quay.example", "security": {"value": TOKEN}}]},
)
PLACES = [
    "base.packages.0.source.git.security.oauth.value",
    "base.packages.0.dependencies.imageRegistries.0.security.value",
    "base.packages.1.source.git.location.url",
    "base.packages.1.dependencies.imageRegistries.0.security.value",
    "base.packages.2.source.git.location.url",
    "base.packages.2.dependencies.imageRegistries.0.security.value",
    "base.packages.3.dependencies.imageRegistries.0.security.value",
    "base.packages.4.source.s3.security.credentials.value.accessKeyID",
    "base.packages.4.source.s3.security.credentials.value.secretAccessKey",
    "base.packages.4.dependencies.imageRegistries.0.security.value",
    "base.packages.5.dependencies.imageRegistries.0.security.value",
]
"""Places of the credentials."""


def test_credentials_in_a_definition_are_found_and_reported_without_their_values() -> None:
    """Names of datasets are not credentials."""
    found = [one for one in requirements_of(HOLDING, []) if one.kind == "credential"]

    assert list(credentials_in(HOLDING)) == [(place, TOKEN) for place in PLACES]
    assert [one.name for one in found] == PLACES
    assert TOKEN not in f"{found} {[one.advice for one in found]}"


def test_no_repr_shows_credentials_in_a_definition() -> None:
    """`raw`, which is pushed, and an updated copy keep them; the same holds for a fixed environment."""
    environment = [{"name": "A_TOKEN", "value": TOKEN}]
    definition = {**HOLDING, "parameterisation": {"presets": {"environmentVariables": environment}}}
    one = Experiment.model_validate(definition)
    imported = ImportedExperiment("https://other.example", one, definition, tuple(requirements_of(definition, [])))
    copy = one.model_copy(update={"metadata": one.metadata})

    for shown in (one, [one], ExperimentList([one], [], definition), imported, copy, one.base, one.parameterisation):
        assert TOKEN not in f"{shown} {shown!r}"
    assert one.raw == definition
    assert copy.raw["base"] == definition["base"]
    assert copy.raw["parameterisation"] == definition["parameterisation"]
