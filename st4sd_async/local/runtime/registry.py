"""
The registry of experiments: definitions by digest, the tags that point to them, and what a push records.
"""

from __future__ import annotations

import copy
import hashlib
import json
import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from st4sd_async.local.engine.interface import PackageFacts

DIGEST_LENGTH = 63
"""Characters of a digest: as many as fit into a Kubernetes label."""
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

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: dict[tuple[str, str], Definition] = {}

    def push(self, definition: Definition) -> None:
        """Store a complete definition and move its tags and ``latest`` to it."""
        name, registry = definition["metadata"]["package"]["name"], definition["metadata"]["registry"]
        tags = list(definition["metadata"]["package"]["tags"])
        registry["tags"] = tags if "latest" in tags else [*tags, "latest"]
        with self._lock:
            self._untag(name, registry["tags"])
            self._entries[name, registry["digest"]] = copy.deepcopy(definition)

    def get(self, identifier: str) -> Definition | None:
        """Return the definition with an identifier; None if there is no such definition."""
        with self._lock:
            key = self._find(identifier)
            return copy.deepcopy(self._entries[key]) if key else None

    def all(self) -> list[Definition]:
        """Return all definitions, including those without a tag."""
        with self._lock:
            return copy.deepcopy(list(self._entries.values()))

    def delete(self, identifier: str) -> int:
        """Delete a definition and return how many were deleted: 0 or 1."""
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
            UnknownDefinition: There is no such definition.
            LatestTagRequired: The definition has the tag ``latest`` and the new tags lack it.
        """
        with self._lock:
            key = self._find(identifier)
            if key is None:
                raise UnknownDefinition(identifier)
            metadata = self._entries[key]["metadata"]
            if "latest" in metadata["registry"]["tags"] and "latest" not in tags:
                raise LatestTagRequired(identifier)
            self._untag(key[0], tags)
            metadata["registry"]["tags"] = list(tags)
            metadata["package"]["tags"] = list(tags)

    def count_execution(self, name: str, digest: str) -> None:
        """Count one more instance of a definition."""
        with self._lock:
            entry = self._entries.get((name, digest))
            if entry is not None:
                entry["metadata"]["registry"]["timesExecuted"] += 1

    def history(self, name: str) -> dict[str, Any]:
        """Return the tags of a name, and its untagged digests once for each tag that they were pushed with."""
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
            if key[0] == name:
                registry = entry["metadata"]["registry"]
                registry["tags"] = [tag for tag in registry["tags"] if tag not in tags]


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
        if source is not None:
            source["version"] = facts.version
    definition["metadata"]["registry"] = {
        "createdOn": datetime.now(UTC).strftime(TIME_FORMAT),
        "digest": digest(definition),
        "tags": [],
        "timesExecuted": 0,
        # The service loses the interface when it merges platforms, although runs have it.
        "interface": copy.deepcopy(dict(facts.interface)) if len(facts.platforms) < 2 else {},
        "inputs": [{"name": name} for name in facts.inputs],
        "data": [{"name": name} for name in facts.data],
        "containerImages": [],
        "executionOptionsDefaults": {"variables": _defaults(definition["parameterisation"], facts)},
        "platforms": list(facts.platforms),
        "output": [{"name": name} for name in sorted(facts.outputs)],
        "applicationDependencies": {platform: [] for platform in facts.platforms},
    }


def digest(definition: Mapping[str, Any]) -> str:
    """Return the digest of what a definition executes; name, tags, description and maintainer do not count."""
    content = {"base": definition["base"], "parameterisation": definition["parameterisation"]}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return f"sha256x{hashlib.sha256(text.encode()).hexdigest()}"[:DIGEST_LENGTH]


def _defaults(parameterisation: Mapping[str, Any], facts: PackageFacts) -> list[dict[str, Any]]:
    """Return the default of each variable on each platform; those of the definition win over the package's."""
    options, presets = parameterisation["executionOptions"], parameterisation["presets"]
    platforms = [presets["platform"]] if presets.get("platform") else options["platform"]
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


def preset_value(option: Mapping[str, Any]) -> str | None:
    """Return the default value of an option: its own, else the first of its choices, else None."""
    if option.get("value") is not None:
        return str(option["value"])
    choices = option.get("valueFrom")
    first = choices[0].get("value") if isinstance(choices, list) and choices else None
    return None if first is None else str(first)


def default_variables(definition: Mapping[str, Any]) -> dict[str, str]:
    """Return the variables of a stored experiment with their defaults, on the first platform that has one."""
    variables = definition["metadata"]["registry"]["executionOptionsDefaults"]["variables"]
    return {variable["name"]: variable["valueFrom"][0]["value"] for variable in variables if variable["valueFrom"]}


def full_identifier(identifier: str) -> str:
    """Return an identifier with its tag or digest; the default is the tag ``latest``."""
    return identifier if ":" in identifier or "@" in identifier else f"{identifier}:latest"
