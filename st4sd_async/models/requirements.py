"""What the definition of an experiment relies on, and whether a deployment has it: nothing here does I/O."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any
from urllib.parse import unquote

from .imports import Requirement, RequirementKind

DOCKER_HUB = "docker.io"
"""Where images come from whose name begins with no host."""

_HUB_HOSTS = ("index.docker.io", "registry-1.docker.io")
"""Other names of it."""

_LOGIN = re.compile(r"\w+://(?P<user>[^/:@]*)(?::(?P<password>[^/@]*))?@")
"""What stands before the host of an address."""

_REFERENCES: Mapping[str, tuple[RequirementKind, str]] = {
    "dataset": ("dataset", ""),
    "datasetRef": ("dataset", "name"),
    "secretKeyRef": ("secret", "name"),
    "s3SecretKeyRef": ("secret", "objectName"),
    "secretName": ("secret", ""),
}
"""
Keys that refer to something by name: what it is, and the field that has the name, "" if it is the value itself.

Source: st4sd-runtime-service, ``apis/models/virtual_experiment.py`` and ``common.py``.
"""


def requirements_of(definition: Mapping[str, Any], images: Iterable[str]) -> list[Requirement]:
    """
    What an experiment relies on, each thing once, not looked for yet.

    Args:
        definition: As it would be pushed. The choices that it leaves to a start do not count.
        images: Container images that its components run in.
    """
    found: dict[tuple[str, str], Requirement] = {}
    for one in (*_named(definition), *_registries(images)):
        known = found.get((one.kind, one.name))
        found[one.kind, one.name] = one if known is None else replace(known, where=known.where + one.where)
    return list(found.values())


def credentials_in(definition: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """
    The credentials that a definition holds itself: the place and the text of each.

    Source: the service's ``ve-base-package-source-git-security-oauth``, whose ``value`` stands beside ``valueFrom``.
    """
    for where, package in _packages(definition):
        source = _part(package, "source")
        for kind in source if isinstance(source, Mapping) else ():
            yield from _values(_part(source, kind, "security"), f"{where}.source.{kind}.security")
            yield from _in_address(_part(source, kind, "location", "url"), f"{where}.source.{kind}.location.url")
        yield from _values(_part(package, "dependencies"), f"{where}.dependencies")


def judged(one: Requirement, pull_secrets: Mapping[str, Iterable[str]], datasets: Collection[str]) -> Requirement:
    """
    A requirement with the verdict whether it is met.

    Args:
        one: The requirement.
        pull_secrets: The deployment's image pull secrets, name -> the registries that it opens.
        datasets: The deployment's datasets.
    """
    if one.kind in ("secret", "credential"):
        return one
    if one.kind == "dataset":
        return replace(one, is_met=one.name in datasets)
    opened = [server for servers in pull_secrets.values() for server in servers]
    if one.kind == "image pull secret":
        has_another = bool(one.server) and _is_open(*_split(one.server), opened)
        return replace(one, is_met=one.name in pull_secrets or has_another)
    return replace(one, is_met=all(_is_open(*_origin(image), opened) for image in one.where) or None)


def _named(definition: Mapping[str, Any]) -> Iterator[Requirement]:
    """What the packages and the presets refer to by name."""
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
    """The texts that stand under a ``value``, however deep, with their places."""
    if isinstance(value, list):
        value = dict(enumerate(value))
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _values(inner, f"{where}.{key}", is_inside=is_inside or key == "value")
    elif is_inside and isinstance(value, str) and value:
        yield where, value


def _in_address(url: Any, where: str) -> Iterator[tuple[str, str]]:
    """The password of an address, or the token that stands alone in its place."""
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
    """What stands in a JSON value under these keys, None if there is nothing."""
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _split(address: str) -> tuple[str, str]:
    """Host and path of a registry or an image that is named with its host."""
    host, _, path = address.partition("://")[2 if "://" in address else 0].partition("/")
    return DOCKER_HUB if host in _HUB_HOSTS else host.lower(), path.strip("/")


def _origin(image: str) -> tuple[str, str]:
    """Host and path of an image, without its tag or digest; one that names no host comes from Docker Hub."""
    first, slash, _ = image.partition("/")
    has_host = bool(slash) and ("." in first or ":" in first or first == "localhost")
    host, path = _split(image) if has_host else (DOCKER_HUB, image)
    return host, re.split("[:@]", path)[0]


def _is_open(host: str, path: str, servers: Iterable[str]) -> bool:
    """
    Whether one of the servers that pull secrets name is the one of an image or registry.

    Source: Kubernetes, "Images", on how the registries of a pull secret are understood: hosts may have wildcards,
    paths are prefixes.
    """
    for pattern, prefix in map(_split, servers):
        prefix = "" if prefix in ("v1", "v2") else prefix
        if fnmatchcase(host, pattern) and f"{path}/".startswith(f"{prefix}/" if prefix else ""):
            return True
    return False
