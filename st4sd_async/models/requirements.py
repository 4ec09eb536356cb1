"""
Experiments of other registries and their requirements. Pure rules on definitions, no I/O.

A definition names datasets, secrets and image registries that it does not contain; `requirements_of` finds them, and
`checked` decides whether a deployment has them.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any, Literal
from urllib.parse import unquote

from .._util.field_docs import document_fields
from .packages import Experiment

RequirementKind = Literal["credential", "dataset", "image pull secret", "image registry", "secret"]
"""What an experiment may rely on."""

DOCKER_HUB = "docker.io"
"""Registry of images whose name has no host."""

_DOCKER_HUB_ALIASES = ("index.docker.io", "registry-1.docker.io")
"""Other names of Docker Hub."""

_LOGIN = re.compile(r"\w+://(?P<user>[^/:@]*)(?::(?P<password>[^/@]*))?@")
"""Credentials before the host in a URL."""

_REFERENCES: Mapping[str, tuple[RequirementKind, str]] = {
    "dataset": ("dataset", ""),
    "datasetRef": ("dataset", "name"),
    "secretKeyRef": ("secret", "name"),
    "s3SecretKeyRef": ("secret", "objectName"),
    "secretName": ("secret", ""),
}
"""
Keys that refer to something by name -> what it is, and the field with the name; "" means that the value is the name.

Source: st4sd-runtime-service, ``apis/models/virtual_experiment.py`` and ``common.py``.
"""


@document_fields
@dataclass(frozen=True)
class Requirement:
    """Something that an experiment relies on, but that its definition does not or should not contain."""

    kind: RequirementKind
    """``dataset``: a bucket that the deployment knows by name. ``image pull secret``: one that the definition names.
    ``image registry``: a source of container images. ``secret``: a Secret of the cluster, with credentials for git or
    S3. ``credential``: a credential in the definition itself, which would be pushed with it."""
    name: str
    """Name; of an image registry the host, of a credential its place in the definition."""
    where: tuple[str, ...] = ()
    """What relies on it: places in the definition, such as ``base.packages.0.source.dataset``, or images."""
    server: str = ""
    """Registry of an image pull secret; "" for all other kinds, and if the definition does not name it."""
    is_met: bool | None = None
    """
    Whether the deployment has it; None means that this cannot be determined.

    None for a ``secret``; for a ``credential``, because it may be valid only for the other deployment; and for an
    ``image registry`` without an image pull secret, because its images may be public.
    """

    @property
    def advice(self) -> str:
        """How to meet the requirement."""
        if self.kind == "dataset":
            return f"client.datasets.create({self.name!r}, S3(...))"
        if self.kind == "secret":
            return f"ask the administrator of the cluster for the Secret {self.name!r}"
        if self.kind == "credential":
            return "in .definition, replace it by one for this deployment or remove it, and push that"
        if self.kind == "image registry":
            return f"client.image_pull_secrets.create('a-name', server={self.name!r}, ...), unless they are public"
        return f"client.image_pull_secrets.create({self.name!r}, server={self.server or '...'!r}, ...)"

    def __str__(self) -> str:
        return f"{self.kind} {self.name!r}"


@document_fields
@dataclass(frozen=True)
class ImportedExperiment:
    """
    An experiment of another registry, and its requirements here. It is in this registry only after a push.

        found.missing                              # what this deployment does not have
        found.definition["metadata"]["package"]["name"] = "mine"
        await client.push(found.definition)        # with or without a change
    """

    source: str
    """URL of the registry or deployment that it comes from."""
    experiment: Experiment = field(repr=False)
    """Experiment in that registry, with its digest, tags, inputs and container images there."""
    definition: dict[str, Any] = field(repr=False)
    """Definition to push: a copy of ``base``, ``metadata`` and ``parameterisation``, including the tags that it was
    pushed with there. A branch or tag in it may have other content by now."""
    requirements: tuple[Requirement, ...]
    """What it relies on; () if nothing."""
    asked: str = field(default="", compare=False)
    """Requested identifier: ``name``, ``name:tag`` or ``name@digest``."""

    @property
    def identifier(self) -> str:
        """``name@digest`` in the other registry."""
        return self.experiment.identifier

    @property
    def missing(self) -> tuple[Requirement, ...]:
        """Requirements that this deployment does not meet."""
        return tuple(requirement for requirement in self.requirements if requirement.is_met is False)

    @property
    def uncertain(self) -> tuple[Requirement, ...]:
        """Requirements that may be met or not, because this cannot be determined."""
        return tuple(requirement for requirement in self.requirements if requirement.is_met is None)


def requirements_of(definition: Mapping[str, Any], images: Iterable[str]) -> list[Requirement]:
    """
    Return what an experiment relies on, each requirement once and not checked yet.

    Args:
        definition: Definition that would be pushed; options of a start are not included.
        images: Container images of its components.
    """
    found: dict[tuple[str, str], Requirement] = {}
    for new in (*_references_in(definition), *_registries(images)):
        known = found.get((new.kind, new.name))
        found[new.kind, new.name] = new if known is None else replace(known, where=known.where + new.where)
    return list(found.values())


def credentials_in(definition: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """
    Yield the place and the text of each credential in a definition.

    Source: ``ve-base-package-source-git-security-oauth`` of the service, which has ``value`` beside ``valueFrom``.
    """
    for where, package in _packages(definition):
        source = _part(package, "source")
        for kind in source if isinstance(source, Mapping) else ():
            yield from _values(_part(source, kind, "security"), f"{where}.source.{kind}.security")
            yield from _in_url(_part(source, kind, "location", "url"), f"{where}.source.{kind}.location.url")
        yield from _values(_part(package, "dependencies"), f"{where}.dependencies")


def checked(
    requirement: Requirement, pull_secrets: Mapping[str, Iterable[str]], datasets: Collection[str]
) -> Requirement:
    """
    Return a requirement with `Requirement.is_met` set.

    Args:
        requirement: The requirement.
        pull_secrets: Image pull secrets of the deployment: name -> registries that the secret gives access to.
        datasets: Datasets of the deployment.
    """
    if requirement.kind in ("secret", "credential"):
        return requirement
    if requirement.kind == "dataset":
        return replace(requirement, is_met=requirement.name in datasets)
    servers = [server for servers in pull_secrets.values() for server in servers]
    if requirement.kind == "image pull secret":
        has_another = bool(requirement.server) and _is_accessible(*_split(requirement.server), servers)
        return replace(requirement, is_met=requirement.name in pull_secrets or has_another)
    are_accessible = all(_is_accessible(*_origin(image), servers) for image in requirement.where)
    return replace(requirement, is_met=are_accessible or None)


def _references_in(definition: Mapping[str, Any]) -> Iterator[Requirement]:
    """Yield what the packages and presets refer to by name, and the credentials."""
    for where, _ in credentials_in(definition):
        yield Requirement("credential", where, (where,))
    for where, package in _packages(definition):
        yield from _references(_part(package, "source"), f"{where}.source")
        registries = _part(package, "dependencies", "imageRegistries")
        yield from _pull_secrets(registries, f"{where}.dependencies.imageRegistries")
    yield from _references(_part(definition, "parameterisation", "presets"), "parameterisation.presets")


def _packages(definition: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    packages = _part(definition, "base", "packages")
    for index, package in enumerate(packages if isinstance(packages, list) else ()):
        yield f"base.packages.{index}", package


def _values(value: Any, where: str, *, is_inside: bool = False) -> Iterator[tuple[str, str]]:
    """Yield the texts under a key ``value``, however deep, with their places."""
    if isinstance(value, list):
        value = dict(enumerate(value))
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _values(inner, f"{where}.{key}", is_inside=is_inside or key == "value")
    elif is_inside and isinstance(value, str) and value:
        yield where, value


def _in_url(url: Any, where: str) -> Iterator[tuple[str, str]]:
    """Yield the password in a URL, or a token without a user."""
    found = _LOGIN.match(url) if isinstance(url, str) else None
    if found and (secret := found["password"] or found["user"]) != "git":
        yield where, unquote(secret)


def _pull_secrets(registries: Any, where: str) -> Iterator[Requirement]:
    for index, registry in enumerate(registries if isinstance(registries, list) else ()):
        server = str(_part(registry, "serverUrl") or "")
        name = _part(registry, "security", "valueFrom", "secretKeyRef", "name")
        if name:
            yield Requirement("image pull secret", str(name), (f"{where}.{index}",), server)


def _references(value: Any, where: str) -> Iterator[Requirement]:
    if isinstance(value, list):
        value = dict(enumerate(value))
    if not isinstance(value, Mapping):
        return
    for key, inner in value.items():
        kind, field = _REFERENCES.get(key, (None, ""))
        name = _part(inner, field) if field else inner
        if kind is not None and isinstance(name, str) and name:
            yield Requirement(kind, name, (where,))
        else:
            yield from _references(inner, f"{where}.{key}")


def _registries(images: Iterable[str]) -> Iterator[Requirement]:
    for image in sorted(filter(None, images)):
        yield Requirement("image registry", _origin(image)[0], (image,))


def _part(value: Any, *keys: str) -> Any:
    """Return the part of a JSON value under these keys, None if missing."""
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _split(url: str) -> tuple[str, str]:
    """Return host and path of a registry, or of an image whose name has a host."""
    host, _, path = url.partition("://")[2 if "://" in url else 0].partition("/")
    return DOCKER_HUB if host in _DOCKER_HUB_ALIASES else host.lower(), path.strip("/")


def _origin(image: str) -> tuple[str, str]:
    """Return host and path of an image, without tag and digest; without a host it is on Docker Hub."""
    first, slash, _ = image.partition("/")
    has_host = bool(slash) and ("." in first or ":" in first or first == "localhost")
    host, path = _split(image) if has_host else (DOCKER_HUB, image)
    return host, re.split("[:@]", path)[0]


def _is_accessible(host: str, path: str, servers: Iterable[str]) -> bool:
    """
    Return whether one of the servers of pull secrets matches an image or registry.

    Source: Kubernetes, "Images": hosts of a pull secret may have wildcards, paths are prefixes.
    """
    for pattern, prefix in map(_split, servers):
        prefix = "" if prefix in ("v1", "v2") else prefix
        if fnmatchcase(host, pattern) and f"{path}/".startswith(f"{prefix}/" if prefix else ""):
            return True
    return False
