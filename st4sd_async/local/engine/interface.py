"""
The interface of engines: `Engine`, the starts that it executes, and what it reads from packages.

The routes know experiments, tags and payloads; an engine knows runs. Each run leaves a directory on disk, so that the
same code serves the files of all engines.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from st4sd_async.local.engine.buckets import OutputStore, RemoteFile

Content: TypeAlias = "str | Path | RemoteFile"
"""A file of a start: its text, or its path, or the remote file that is fetched before an engine gets the start."""


class PackageProblem(Exception):
    """A package is unusable; the text becomes ``problem`` in the response 400 to a push."""


@dataclass(frozen=True)
class PackageFacts:
    """
    What a push reads from the package itself, for ``metadata.registry`` of the stored definition.

    Attributes:
        version: The git commit id.
        inputs: Names of the input files that every start must provide.
        data: Names of the data files in the package, which a start may override if the definition allows it.
        outputs: Names of the key-outputs.
        platforms: Names of the platforms that the package defines.
        variables: platform -> variable -> default value.
        interface: The virtual experiment interface of the package; {} if it has none.
    """

    version: str
    inputs: tuple[str, ...] = ()
    data: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    platforms: tuple[str, ...] = ("default",)
    variables: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    interface: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class AcceptedStart:
    """
    An accepted start: everything that an engine needs to execute it.

    Attributes:
        rest_uid: The id of the instance: name, six digits of the digest, eight random characters.
        identifier: ``name@digest`` of the experiment.
        package: The stored definition of the experiment.
        platform: The requested or preset platform. None means the package's default.
        inputs: filename -> content.
        data: filename -> content, of the data files to override.
        variables: Requested and preset variables, as strings.
        metadata: The user's metadata, as strings.
        environment: Environment variables of the orchestrator.
        options: Additional command line options of the orchestrator, presets first.
        flowir: The definition of an experiment that is in no registry. None means that the package contains it.
        scripts: filename -> text of the programs of such an experiment.
        store: Where key-outputs are uploaded to. None means that they are not.
        problem: Why the run cannot begin, because fetching its files failed. None means that it can.
    """

    rest_uid: str
    identifier: str
    package: Mapping[str, Any]
    platform: str | None
    inputs: Mapping[str, Content]
    data: Mapping[str, Content]
    variables: Mapping[str, str]
    metadata: Mapping[str, str]
    environment: Mapping[str, str]
    options: tuple[str, ...]
    flowir: Mapping[str, Any] | None = None
    scripts: Mapping[str, str] = field(default_factory=dict)
    store: OutputStore | None = None
    problem: str | None = None

    @property
    def labels(self) -> dict[str, str]:
        """The labels of the instance in the cluster."""
        (name, _, digest), uid = self.identifier.partition("@"), self.rest_uid
        if self.flowir is not None:
            return {"workflow": uid, "package-name": uid, "rest-uid": uid}
        return {"rest-uid": uid, "workflow": uid, "st4sd-package-name": name, "st4sd-package-digest": digest}

    @property
    def stem(self) -> str:
        """The prefix of the instance directory's name: name of the experiment and six digits of its digest."""
        return self.rest_uid if self.flowir is not None else self.rest_uid.rpartition("-")[0]

    @property
    def all_metadata(self) -> dict[str, str]:
        """The user's metadata, with names cut at a colon as the orchestrator does, and that of the service."""
        users = dict(f"{name}:{value}".split(":", 1) for name, value in self.metadata.items())
        uid = self.rest_uid
        if self.flowir is not None:
            return {**users, **self.labels}
        return {**users, "rest-uid": uid, "workflow": uid, "experiment-id": self.identifier, **self.labels}

    @property
    def all_variables(self) -> dict[str, str]:
        """The variables of the package on the platform of the instance, and those of the start."""
        values: dict[str, str] = {}
        for variable in self.package["metadata"]["registry"]["executionOptionsDefaults"]["variables"]:
            by_platform = {entry.get("platform"): entry["value"] for entry in variable["valueFrom"]}
            for platform in ("default", self.platform):
                if platform in by_platform:
                    values[variable["name"]] = by_platform[platform]
        return {**values, **self.variables}


def write_content(content: Content, target: Path) -> None:
    """Write a file of a start, which may be large; create its folder."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, Path):
        shutil.copyfile(content, target)
    else:
        target.write_text(str(content), encoding="utf-8")


class Engine(Protocol):
    """
    Executes instances. Methods may be called from any thread; all but ``inspect`` and ``close`` return quickly.

    Statuses and key-outputs are dictionaries with the keys and types of the service's replies (``experiment-state``,
    ``exit-status``...). They are not changed once returned: if an engine returns the same object again, the status is
    known to be unchanged, which makes long lists cheap.
    """

    def inspect(self, package: Mapping[str, Any]) -> PackageFacts:
        """Read the package of a definition that was just pushed; raise `PackageProblem` if it is unusable."""

    def start(self, start: AcceptedStart, /) -> None:
        """Accept an instance; run it now, or as soon as there is a slot."""

    def status(self, rest_uid: str) -> dict[str, Any] | None:
        """Return the status that a request for the instance shows; None if there is no status yet."""

    def listed_status(self, rest_uid: str) -> dict[str, Any] | None:
        """Return the status that the list of instances shows, which lacks what only the cluster knows."""

    def outputs(self, rest_uid: str) -> dict[str, dict[str, str]]:
        """Return the key-outputs that exist so far."""

    def directory(self, rest_uid: str) -> Path | None:
        """Return the instance directory (``stages/``, ``output/``...), also after `delete`; None if not created yet."""

    def locations(self) -> Mapping[str, str]:
        """Return the paths of all instance directories, even if they do not exist yet -> rest-uid."""

    def documents(self, rest_uid: str, types: Collection[str]) -> list[dict[str, Any]]:
        """Return the datastore's documents of some types about an instance, also after `delete`; they may lag."""

    def delete(self, rest_uid: str) -> None:
        """Stop the instance without waiting; keep its directory."""

    def close(self) -> None:
        """Stop everything and wait until nothing is running."""
