"""
The interface of engines: `Engine`, the starts that it executes, and the facts that it reads from packages.

Routes handle experiments, tags and payloads; an engine handles runs. Each run has a directory on disk, so that the
same code serves the files of all engines.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Protocol, TypeAlias

from st4sd_async.local.engine.buckets import OutputStore, RemoteFile

Content: TypeAlias = "str | Path | RemoteFile"
"""A file of a start: its text, its path, or a remote file, which is fetched before an engine gets the start."""


class PackageProblem(Exception):
    """A package is unusable; the message becomes ``problem`` in the response 400 to a push."""


@dataclass(frozen=True)
class PackageFacts:
    """
    The facts that a push reads from the package itself, for ``metadata.registry`` of the stored definition.

    Attributes:
        version: The git commit id.
        inputs: Names of the input files that every start must provide.
        data: Names of the data files in the package, which a start may override if the definition allows it.
        outputs: Names of the key-outputs.
        platforms: Names of the platforms that the package defines.
        variables: platform -> variable -> default value.
        interface: The virtual experiment interface of the package; {} if missing.
        images: The container images of its components.
        dependencies: platform -> application dependencies.
        is_known: Whether the engine knows the content of the package. If not, a start may have any inputs.
    """

    version: str
    inputs: tuple[str, ...] = ()
    data: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    platforms: tuple[str, ...] = ("default",)
    variables: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    interface: Mapping[str, Any] = field(default_factory=dict)
    images: tuple[str, ...] = ()
    dependencies: Mapping[str, Sequence[str]] = field(default_factory=dict)
    is_known: bool = True


@dataclass(frozen=True)
class PackageContent:
    """
    The definition in a package, with its components.

    Attributes:
        flowir: The definition in FlowIR, converted from `dsl` if the package is in DSL 2.0. It has all sections and
            platforms: ``components``, ``variables``, ``platforms``, ``blueprint``, ``output``, ``interface``... All
            keys are strings, and references contain the stage. `flowir.inherited` returns a component with all fields.
        dsl: The definition in DSL 2.0, as in the file. None means that the package is written in FlowIR.
        folders: Names of the folders of the package, its manifest and its application dependencies. A reference to
            such a folder is a file.
    """

    flowir: Mapping[str, Any]
    dsl: Mapping[str, Any] | None = None
    folders: tuple[str, ...] = ()


@dataclass(frozen=True)
class AcceptedStart:
    """
    An accepted start, with everything that an engine needs to execute it.

    Attributes:
        rest_uid: The rest-uid of the instance: name, six digits of the digest, eight random characters.
        identifier: ``name@digest`` of the experiment.
        package: The stored definition of the experiment.
        platform: The requested or preset platform. None means the default platform of the package.
        inputs: filename -> content.
        data: filename -> content, of the data files to override.
        variables: Requested and preset variables, as strings.
        metadata: The user's metadata, as strings.
        environment: Environment variables of the orchestrator.
        options: Additional command line options of the orchestrator, presets first.
        flowir: The definition of an unregistered experiment. None means that the package contains the definition.
        scripts: filename -> text of the programs of an unregistered experiment.
        store: Where key-outputs are uploaded. None means that they are not uploaded.
        problem: Why fetching the files failed, so that the run cannot begin. None means that it can.
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
    def package_path(self) -> str:
        """
        The path of the package in the pod of the orchestrator. The last part of the path is the experiment's name.

        Source:
            st4sd-runtime-k8s, ``controllers/workflow_controller.go``.
        """
        if self.flowir is not None:
            return "/tmp/pod/package/lambda.package"
        first, *others = self.package["base"]["packages"]
        url = first["source"].get("git", {}).get("location", {}).get("url")
        if others or not url:
            return f"/tmp/pod/package/{self.package['metadata']['package']['name']}"
        name = PurePosixPath(url).name
        return str(PurePosixPath("/tmp/pod/package", name, (first.get("config") or {}).get("path") or ""))

    @property
    def labels(self) -> dict[str, str]:
        """The labels of the instance in the cluster."""
        (name, _, digest), uid = self.identifier.partition("@"), self.rest_uid
        if self.flowir is not None:
            return {"workflow": uid, "package-name": uid, "rest-uid": uid}
        return {"rest-uid": uid, "workflow": uid, "st4sd-package-name": name, "st4sd-package-digest": digest}

    @property
    def stem(self) -> str:
        """The prefix of the instance directory's name: the experiment's name and six digits of its digest."""
        return self.rest_uid if self.flowir is not None else self.rest_uid.rpartition("-")[0]

    @property
    def all_metadata(self) -> dict[str, str]:
        """The user's metadata, with names cut at a colon as by the orchestrator, and the service's metadata."""
        users = dict(f"{name}:{value}".split(":", 1) for name, value in self.metadata.items())
        uid = self.rest_uid
        if self.flowir is not None:
            return {**users, **self.labels}
        return {**users, "rest-uid": uid, "workflow": uid, "experiment-id": self.identifier, **self.labels}

    @property
    def all_variables(self) -> dict[str, str]:
        """The variables of the package on the platform of the instance, overridden by those of the start."""
        values: dict[str, str] = {}
        for variable in self.package["metadata"]["registry"]["executionOptionsDefaults"]["variables"]:
            by_platform = {entry.get("platform"): entry["value"] for entry in variable["valueFrom"]}
            for platform in ("default", self.platform):
                if platform in by_platform:
                    values[variable["name"]] = by_platform[platform]
        return {**values, **self.variables}


def write_content(content: Content, target: Path) -> None:
    """Write a file of a start, which may be large, and create its folder."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, Path):
        shutil.copyfile(content, target)
    else:
        target.write_text(str(content), encoding="utf-8")


class Engine(Protocol):
    """
    Executes instances. Methods may be called from any thread. All but ``inspect``, ``content`` and ``close`` return
    quickly.

    Statuses and key-outputs are dictionaries with the keys and types of the service's responses
    (``experiment-state``, ``exit-status``...). They must not be changed once returned: if an engine returns the same
    object again, the status is unchanged, which makes long lists fast.
    """

    def inspect(self, package: Mapping[str, Any]) -> PackageFacts:
        """Read the package of a definition during a push; raise `PackageProblem` if the package is unusable."""

    def content(self, package: Mapping[str, Any]) -> PackageContent | None:
        """
        Return the content of the package of a stored definition; None if this engine does not read packages.

        A package is read once per commit. Raise `PackageProblem` if it is unusable or can no longer be cloned.
        """

    def start(self, start: AcceptedStart, /) -> None:
        """Accept an instance, and run it as soon as a slot is free."""

    def status(self, rest_uid: str) -> dict[str, Any] | None:
        """Return the status in a response about the instance; None if there is no status yet."""

    def listed_status(self, rest_uid: str) -> dict[str, Any] | None:
        """Return the status in the list of instances, which lacks the facts that come from the cluster."""

    def outputs(self, rest_uid: str) -> dict[str, dict[str, str]]:
        """Return the key-outputs that exist so far."""

    def directory(self, rest_uid: str) -> Path | None:
        """Return the instance directory (``stages/``, ``output/``...), even after `delete`; None if not created yet."""

    def interface(self, rest_uid: str) -> dict[str, Any] | None:
        """Return the interface in the instance directory, with the input ids; None if it cannot be read."""

    def locations(self) -> Mapping[str, str]:
        """Return path of the instance directory -> rest-uid, for all runs; the directory may not exist yet."""

    def documents(self, rest_uid: str, types: Collection[str]) -> list[dict[str, Any]]:
        """Return the datastore's documents of some types about an instance, even after `delete`; they may lag."""

    def delete(self, rest_uid: str) -> None:
        """Stop the instance without waiting for its end, and keep its directory."""

    def close(self) -> None:
        """Stop all instances and wait for their end."""
