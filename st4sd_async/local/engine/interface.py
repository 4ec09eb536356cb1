"""
What an engine does for the embedded ST4SD: read a package, run instances of it, and tell how they are.

The routes know experiments, tags and payloads; an engine knows executions. Everything that an
instance leaves behind is a directory on disk, so that both engines are served by the same code.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

if TYPE_CHECKING:
    from st4sd_async.local.runtime.storage import OutputStore, RemoteFile

Content: TypeAlias = "str | Path | RemoteFile"
"""A file of a start: its text, where it is, or where it has to be fetched before an engine sees it."""


class PackageProblem(Exception):
    """A package that cannot be used; its text goes into the 400 ``problem`` reply to a push."""


@dataclass(frozen=True)
class PackageFacts:
    """What a push learns from the package itself, for ``metadata.registry`` of the stored definition."""

    version: str
    """The git commit id."""
    inputs: tuple[str, ...] = ()
    """Names of the input files that every start must bring."""
    data: tuple[str, ...] = ()
    """Names of the data files in the package, which a start may override where allowed."""
    outputs: tuple[str, ...] = ()
    """Names of the key-outputs."""
    platforms: tuple[str, ...] = ("default",)
    """Names of the platforms the package defines."""
    variables: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """platform -> variable -> default value."""
    interface: Mapping[str, Any] = field(default_factory=dict)
    """The virtual experiment interface as the package has it, {} if it has none."""


@dataclass(frozen=True)
class AcceptedStart:
    """One accepted start: all an engine needs to execute it."""

    rest_uid: str
    """The id of the instance: name, six digits of the digest, eight random characters."""
    identifier: str
    """``name@digest`` of the experiment."""
    package: Mapping[str, Any]
    """The stored definition of the experiment."""
    platform: str | None
    """The platform asked for or preset; None: the package's default."""
    inputs: Mapping[str, Content]
    """filename -> what is in it."""
    data: Mapping[str, Content]
    """filename -> what is in it, of the data files to override."""
    variables: Mapping[str, str]
    """Variables asked for and preset, as strings."""
    metadata: Mapping[str, str]
    """The user's metadata, as strings."""
    environment: Mapping[str, str]
    """Environment variables of the orchestrator."""
    options: tuple[str, ...]
    """Additional command line options of the orchestrator, presets first."""
    flowir: Mapping[str, Any] | None = None
    """The definition of an experiment that is in no registry, and so has no package; None: the package has it."""
    scripts: Mapping[str, str] = field(default_factory=dict)
    """filename -> text of the programs that come with such a definition."""
    store: OutputStore | None = None
    """Where key-outputs are uploaded to; None: nowhere."""
    problem: str | None = None
    """Why the run cannot begin: its files could not be fetched; None: it can."""

    @property
    def labels(self) -> dict[str, str]:
        """The labels of the instance in the cluster."""
        (name, _, digest), uid = self.identifier.partition("@"), self.rest_uid
        if self.flowir is not None:
            return {"workflow": uid, "package-name": uid, "rest-uid": uid}
        return {"rest-uid": uid, "workflow": uid, "st4sd-package-name": name, "st4sd-package-digest": digest}

    @property
    def stem(self) -> str:
        """How the name of the instance directory begins: that of the experiment and six digits of its digest."""
        return self.rest_uid if self.flowir is not None else self.rest_uid.rpartition("-")[0]

    @property
    def all_metadata(self) -> dict[str, str]:
        """The user's metadata, its names cut at a colon as the orchestrator does it, and what the service adds."""
        users = dict(f"{name}:{value}".split(":", 1) for name, value in self.metadata.items())
        uid = self.rest_uid
        if self.flowir is not None:
            return {**users, **self.labels}
        return {**users, "rest-uid": uid, "workflow": uid, "experiment-id": self.identifier, **self.labels}

    @property
    def all_variables(self) -> dict[str, str]:
        """The variables of the package on the platform of the instance, and those asked for."""
        values: dict[str, str] = {}
        for variable in self.package["metadata"]["registry"]["executionOptionsDefaults"]["variables"]:
            by_platform = {entry.get("platform"): entry["value"] for entry in variable["valueFrom"]}
            for platform in ("default", self.platform):
                if platform in by_platform:
                    values[variable["name"]] = by_platform[platform]
        return {**values, **self.variables}


def put(content: Content, target: Path) -> None:
    """Write a file of a start that is here; it may be large. Its folder is made."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, Path):
        shutil.copyfile(content, target)
    else:
        target.write_text(str(content), encoding="utf-8")


class Engine(Protocol):
    """
    Executes instances. Methods are called from any thread; all but ``inspect`` return quickly.

    Statuses and key-outputs are dictionaries in the words and types of the wire
    (``experiment-state``, ``exit-status``...). Nobody changes one afterwards: an engine that gives the same
    object again says that nothing has changed, which makes long lists cheap.
    """

    def inspect(self, package: Mapping[str, Any]) -> PackageFacts:
        """Read (clone) the package of a definition that was just pushed; raises `PackageProblem`."""

    def start(self, launch: AcceptedStart) -> None:
        """Accept an instance; it runs, or waits for its turn."""

    def status(self, rest_uid: str) -> dict[str, Any] | None:
        """The status as a detail request shows it; None: it "does not have a status yet"."""

    def listed_status(self, rest_uid: str) -> dict[str, Any] | None:
        """The status as the list of instances shows it, which never looks at what the cluster knows."""

    def outputs(self, rest_uid: str) -> dict[str, dict[str, str]]:
        """The key-outputs that exist by now."""

    def directory(self, rest_uid: str) -> Path | None:
        """The instance directory (``stages/``, ``output/``...), also after `delete`; None before there is one."""

    def locations(self) -> Mapping[str, str]:
        """Paths of the instance directories, be they there or not, of all that was ever started -> rest-uid."""

    def documents(self, rest_uid: str, types: Collection[str]) -> list[dict[str, Any]]:
        """What the datastore knows about an instance, also after `delete`, in documents of some types; it may lag."""

    def delete(self, rest_uid: str) -> None:
        """Stop the instance; its directory stays. Returns before it is dead."""

    def close(self) -> None:
        """Stop everything and wait until nothing is left running."""
