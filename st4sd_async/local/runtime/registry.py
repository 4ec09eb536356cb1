"""
The registry of experiments: definitions by digest, their tags, and the facts that a push records.
"""

from __future__ import annotations

import copy
import hashlib
import json
import threading
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from st4sd_async.local.engine.interface import PackageContent, PackageFacts
from st4sd_async.local.state import State

DIGEST_LENGTH = 63
"""Maximum length of a digest, the one of a Kubernetes label."""
TIME_FORMAT = "%Y-%m-%dT%H:%M:%S.%f%z"
Definition = dict[str, Any]


class UnknownDefinition(Exception):
    """No experiment has this identifier."""


class LatestTagRequired(Exception):
    """The tag ``latest`` cannot be removed."""


class Registry:
    """
    The definitions of one server, in the order of their first push. Safe to use from any thread.

    Definitions are copied on the way in and out. An identifier is ``name``, ``name:tag`` or ``name@digest``.
    """

    def __init__(self, read: Callable[[Mapping[str, Any]], PackageContent | None], state: State) -> None:
        """
        Args:
            read: Returns the content of the package of a definition; None if the content is unknown.
            state: The state of the server.
        """
        self._read = read
        self._state = state
        self._lock = threading.Lock()
        self._entries: MutableMapping[tuple[str, str], Definition] = state.table("experiments")
        self._contents: MutableMapping[str, dict[str, Any]] = state.table("contents")
        """digest -> the fields of the content of a package that is in no repository."""
        self._unknown: MutableMapping[str, bool] = state.table("unknown packages")
        """The digests of the packages with unknown content."""

    def push(self, definition: Definition, content: PackageContent | None = None, *, is_known: bool = True) -> None:
        """
        Store a complete definition and move its tags and ``latest`` to it.

        Args:
            definition: The definition.
            content: The content of its package, if it is in no repository.
            is_known: Whether the engine knows the content of its package.

        Source: as in the service (``push_new_entry``), a definition that loses a tag moves to the end.
        """
        name, registry = definition["metadata"]["package"]["name"], definition["metadata"]["registry"]
        tags = list(definition["metadata"]["package"]["tags"])
        registry["tags"] = tags if "latest" in tags else [*tags, "latest"]
        with self._lock, self._state.transaction():
            for tag in registry["tags"]:
                if key := self._find(f"{name}:{tag}"):
                    self._entries[key] = self._entries.pop(key)
                self._untag(name, [tag])
                self._entries[name, registry["digest"]] = copy.deepcopy(definition)
            self._unknown.pop(registry["digest"], None)
            if not is_known:
                self._unknown[registry["digest"]] = True
            if content is not None:
                self._contents[registry["digest"]] = asdict(content)

    def get(self, identifier: str) -> Definition | None:
        """Return the definition with an identifier; None if it is unknown."""
        with self._lock:
            key = self._find(identifier)
            return copy.deepcopy(self._entries[key]) if key else None

    def is_known(self, definition: Definition) -> bool:
        """Return whether the engine knew the content of the package of a definition when it was pushed."""
        with self._lock:
            return definition["metadata"]["registry"]["digest"] not in self._unknown

    def content(self, definition: Definition) -> PackageContent | None:
        """
        Return the content of the package of a stored definition, which must not be modified; None if it is unknown.

        Raises:
            PackageProblem: The package is unusable, or can no longer be cloned.
        """
        with self._lock:
            made = self._contents.get(definition["metadata"]["registry"]["digest"])
        if made is not None:
            return PackageContent(**{**made, "folders": tuple(made["folders"])})
        return self._read(definition) if len(definition["base"]["packages"]) == 1 else None

    def all(self) -> list[Definition]:
        """Return all definitions, including those without a tag."""
        with self._lock:
            return copy.deepcopy(list(self._entries.values()))

    def delete(self, identifier: str) -> int:
        """Delete a definition and return the number of deleted definitions: 0 or 1."""
        with self._lock:
            key = self._find(identifier)
            if key is None:
                return 0
            del self._entries[key]
            return 1

    def retag(self, identifier: str, tags: list[str]) -> None:
        """
        Replace the tags of a definition and remove them from other definitions.

        Raises:
            UnknownDefinition: The definition is unknown.
            LatestTagRequired: The definition has the tag ``latest`` and the new tags lack it.
        """
        with self._lock, self._state.transaction():
            key = self._find(identifier)
            if key is None:
                raise UnknownDefinition(identifier)
            entry = self._entries[key]
            metadata = entry["metadata"]
            if "latest" in metadata["registry"]["tags"] and "latest" not in tags:
                raise LatestTagRequired(identifier)
            self._untag(key[0], tags)
            metadata["registry"]["tags"] = list(tags)
            metadata["package"]["tags"] = list(tags)
            self._entries[key] = entry

    def count_execution(self, name: str, digest: str) -> None:
        """Increase the number of instances of a definition."""
        with self._lock:
            entry = self._entries.get((name, digest))
            if entry is not None:
                entry["metadata"]["registry"]["timesExecuted"] += 1
                self._entries[name, digest] = entry

    def history(self, name: str) -> dict[str, Any]:
        """Return the tags of a name, and its untagged digests, each once per tag with which it was pushed."""
        tags: list[dict[str, Any]] = []
        untagged: list[dict[str, Any]] = []
        for definition in self.all():
            if definition["metadata"]["package"]["name"] == name:
                _add_history(definition["metadata"], tags, untagged)
        return {"tags": tags, "untagged": untagged}

    def _find(self, identifier: str) -> tuple[str, str] | None:
        name, at, digest = identifier.partition("@")
        if at:
            return (name, digest) if (name, digest) in self._entries else None
        name, _, tag = identifier.partition(":")
        for key, entry in self._entries.items():
            if key[0] == name and (tag or "latest") in entry["metadata"]["registry"]["tags"]:
                return key
        return None

    def _untag(self, name: str, tags: list[str]) -> None:
        for key, entry in self._entries.items():
            registry = entry["metadata"]["registry"]
            if key[0] == name and not set(tags).isdisjoint(registry["tags"]):
                registry["tags"] = [tag for tag in registry["tags"] if tag not in tags]
                self._entries[key] = entry


def _add_history(metadata: Mapping[str, Any], tags: list[dict[str, Any]], untagged: list[dict[str, Any]]) -> None:
    registry = metadata["registry"]
    executed = {"timesExecuted": registry["timesExecuted"], "createdOn": registry["createdOn"]}
    tags.extend({"tag": tag, "head": registry["digest"], **executed} for tag in registry["tags"])
    if not registry["tags"]:
        pushed = metadata["package"]["tags"]
        pushed = pushed if "latest" in pushed else [*pushed, "latest"]
        untagged.extend({"digest": registry["digest"], **executed, "originalTag": tag} for tag in pushed)


def register(definition: Definition, facts: PackageFacts) -> None:
    """Record the facts of a push in its definition: version, digest, defaults, names of files."""
    for kind in ("git", "dataset"):
        source = definition["base"]["packages"][0]["source"].get(kind)
        if source is not None and facts.version:
            source["version"] = facts.version
    platforms = allowed_platforms(definition["parameterisation"]) or facts.platforms
    definition["metadata"]["registry"] = {
        "createdOn": datetime.now(UTC).strftime(TIME_FORMAT),
        "digest": digest(definition),
        "tags": [],
        "timesExecuted": 0,
        # The service loses the interface when it merges platforms, although runs have one.
        "interface": copy.deepcopy(dict(facts.interface)) if len(platforms) < 2 else {},
        "inputs": [{"name": name} for name in facts.inputs],
        "data": [{"name": name} for name in facts.data],
        "containerImages": [{"name": image} for image in facts.images],
        "executionOptionsDefaults": {"variables": _defaults(definition["parameterisation"], facts)},
        "platforms": list(facts.platforms),
        "output": [{"name": name} for name in sorted(facts.outputs)],
        "applicationDependencies": {
            platform: [{"name": name} for name in facts.dependencies.get(platform, ())] for platform in facts.platforms
        },
    }


def digest(definition: Mapping[str, Any]) -> str:
    """Return the digest of a definition, which does not depend on name, tags, description and maintainer."""
    content = {"base": definition["base"], "parameterisation": definition["parameterisation"]}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return f"sha256x{hashlib.sha256(text.encode()).hexdigest()}"[:DIGEST_LENGTH]


def _defaults(parameterisation: Mapping[str, Any], facts: PackageFacts) -> list[dict[str, Any]]:
    """Return the default of each variable on each platform; the definition overrides the package."""
    options, presets = parameterisation["executionOptions"], parameterisation["presets"]
    platforms = allowed_platforms(parameterisation)
    common = facts.variables.get("default", {})
    defaults: dict[str, dict[str, str]] = {}
    for option in options["variables"]:
        name = option["name"]
        by_platform = {platform: facts.variables.get(platform, {}) for platform in platforms or facts.platforms}
        values = {platform: {**common, **own}.get(name) for platform, own in by_platform.items()}
        defaults[name] = {platform: str(value) for platform, value in values.items() if value is not None}
    for option in [*options["variables"], *presets["variables"]]:
        value = preset_value(option)
        if value:
            defaults[option["name"]] = dict.fromkeys(platforms or ["default"], value)
    for platform in dict.fromkeys([*(platforms or facts.platforms), "default"]):
        for name, value in facts.variables.get(platform, {}).items():
            defaults.setdefault(name, {}).setdefault(platform, str(value))
    return [
        {
            "name": name,
            "valueFrom": [{"value": value, "platform": platform} for platform, value in values.items()],
        }
        for name, values in defaults.items()
    ]


def allowed_platforms(parameterisation: Mapping[str, Any]) -> list[str]:
    """Return the platforms that a definition allows; [] if it allows all."""
    preset = parameterisation["presets"].get("platform")
    return [preset] if preset else list(parameterisation["executionOptions"]["platform"])


def preset_value(option: Mapping[str, Any]) -> str | None:
    """Return the default value of an option: its value, else its first choice, else None."""
    if option.get("value") is not None:
        return str(option["value"])
    choices = option.get("valueFrom")
    first = choices[0].get("value") if isinstance(choices, list) and choices else None
    return None if first is None else str(first)


def default_variables(definition: Mapping[str, Any]) -> dict[str, str]:
    """Return the variables of a stored experiment with their defaults on the first platform that has a default."""
    variables = definition["metadata"]["registry"]["executionOptionsDefaults"]["variables"]
    return {variable["name"]: variable["valueFrom"][0]["value"] for variable in variables if variable["valueFrom"]}


def full_identifier(identifier: str) -> str:
    """Return an identifier with its tag or digest; the tag ``latest`` if it has neither."""
    return identifier if ":" in identifier or "@" in identifier else f"{identifier}:latest"
