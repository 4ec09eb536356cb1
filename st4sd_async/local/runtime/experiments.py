"""
The runtime service: what it is put together from, and its routes that concern experiments.
"""

from __future__ import annotations

import copy
import json
import pprint
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from st4sd_async.local.engine.interface import AcceptedStart, Engine, PackageProblem
from st4sd_async.local.http.messages import Abort, Answer, Request, Route, Slash, reply
from st4sd_async.local.runtime.addresses import ADDRESSES
from st4sd_async.local.runtime.checks import launch, new_rest_uid
from st4sd_async.local.runtime.cluster import Cluster
from st4sd_async.local.runtime.definitions import DEFINITION
from st4sd_async.local.runtime.dsl import Dsl
from st4sd_async.local.runtime.dsl_views import dsl_view
from st4sd_async.local.runtime.instances import Instances
from st4sd_async.local.runtime.lambdas import Lambdas
from st4sd_async.local.runtime.library import Library
from st4sd_async.local.runtime.pages import Pages
from st4sd_async.local.runtime.places import Places
from st4sd_async.local.runtime.queries import Find, matching
from st4sd_async.local.runtime.relationships import Relationships
from st4sd_async.local.runtime.schema import Invalid, read, summary
from st4sd_async.local.runtime.skeleton import skeleton
from st4sd_async.local.runtime.store import LatestNeeded, Store, UnknownDefinition, register
from st4sd_async.local.runtime.synthesis import inheritance
from st4sd_async.local.runtime.utilities import Utilities

_BETA_OF_BASE = ("connections", "includePaths", "output", "interface")


class Experiments:
    """The handlers of ``/experiments/``."""

    def __init__(
        self,
        store: Store,
        engine: Engine,
        accept: Callable[[AcceptedStart], None],
        find: Find,
        written: Mapping[str, Dsl],
    ) -> None:
        self._store = store
        self._engine = engine
        self._accept = accept
        self._find_relationship = find
        self._written = written

    def routes(self) -> list[Route]:
        """The routes, the more special ones first."""
        return [
            Route("/experiments", Slash.NEEDED, GET=self.index, POST=self.push),
            Route("/experiments/{}/start/payload", Slash.NEEDED, GET=self.skeleton),
            Route("/experiments/{}/start", Slash.NEVER, POST=self.start),
            Route("/experiments/{}/tag", Slash.NEVER, PUT=self.tag),
            Route("/experiments/{}/history", Slash.EITHER, GET=self.history),
            Route("/experiments/{}/dsl", Slash.EITHER, GET=self.dsl),
            Route("/experiments/{}/package-inheritance", Slash.EITHER, GET=self.inheritance),
            Route("/query/experiments", Slash.EITHER, POST=self.query),
            Route("/experiments/{}", Slash.EITHER, GET=self.get, DELETE=self.delete),
        ]

    def index(self, request: Request) -> Answer:
        """All definitions."""
        return reply({"entries": [_shown(entry, request) for entry in self._store.all()], "problems": []})

    def query(self, request: Request) -> Answer:
        """The definitions that are made of a base package."""
        found = matching(self._store.all(), request.json(), self._find_relationship)
        return reply({"entries": [_shown(entry, request) for entry in found], "problems": []})

    def push(self, request: Request) -> Answer:
        """Check a definition, read its package, keep it."""
        value = request.json()
        try:
            definition = read(DEFINITION, value)
            _need_a_package(value)
        except Invalid as error:
            keys = {"invalidVirtualExperimentDefinition": str(error)}
            raise Abort(400, "Invalid parameterised package", **keys) from error
        try:
            self._inspect(definition)
        except PackageProblem as error:
            raise Abort(400, f"Invalid payload, reason: {error}", problem=str(error)) from error
        self._store.push(definition)
        return reply({"result": definition})

    def _inspect(self, definition: dict[str, Any]) -> None:
        if not definition["metadata"]["package"].get("name"):
            raise PackageProblem("The virtual experiment does not have a name")
        packages = definition["base"]["packages"]
        if len(packages) != 1:
            raise PackageProblem(f"Virtual experiment does not contain exactly 1 base package but {len(packages)}")
        facts = self._engine.inspect(copy.deepcopy(definition))
        for index, option in enumerate(definition["parameterisation"]["executionOptions"]["data"]):
            if option.get("name") not in facts.data:
                raise PackageProblem(
                    "Invalid parameterised package due to The data file parameterisation.executionOptions."
                    f"data[{index}].name={option.get('name')} is not part of metadata.registry.data"
                )
        register(definition, facts)

    def get(self, request: Request, identifier: str) -> Answer:
        """One definition."""
        full = _full(identifier, f"Run into internal error while querying for {identifier}")
        entry = self._store.get(full)
        if entry is None:
            message = f'Cannot find Parameterised Virtual Experiment Package "{full}"'
            raise Abort(404, message, packageNotFound=identifier)
        return reply({"entry": _shown(entry, request), "problems": []})

    def delete(self, _request: Request, identifier: str) -> Answer:
        """Delete one definition; others of the same name stay."""
        deleted = self._store.delete(_full(identifier, "Could not delete experiment due to internal error"))
        if not deleted:
            raise Abort(404, f"Experiment {identifier} is unknown", unknownExperiment=identifier)
        return reply({"deleted": deleted})

    def tag(self, request: Request, identifier: str) -> Answer:
        """Replace the tags of a definition."""
        tags = request.query.get("newTags")
        if tags is None:
            raise Abort(400, "Invalid tags")
        full = _full(identifier, "Internal error while updating database - please inform your ST4SD admins")
        try:
            self._store.retag(full, tags.split(","))
        except LatestNeeded as error:
            message = f"Cannot untag the latest tag from {identifier}"
            raise Abort(400, message, cannotUntagLatestFrom=identifier) from error
        except UnknownDefinition as error:
            message = f"Unknown parameterised package {identifier}"
            raise Abort(404, message, unknownExperiment=identifier) from error
        return reply("OK")

    def history(self, _request: Request, name: str) -> Answer:
        """The tags and untagged digests of a name, none for an unknown one."""
        return reply(self._store.history(name))

    def dsl(self, request: Request, identifier: str) -> Answer:
        """The definition of an experiment in DSL 2.0, or the same as text in a form of YAML that is JSON too."""
        definition = self._registered(identifier)
        known = self._written.get(definition["metadata"]["registry"]["digest"])
        dsl = dsl_view(definition) if known is None else known
        is_text = request.query.get("outputFormat") == "yaml"
        return reply({"dsl": json.dumps(dsl, indent=2) if is_text else dsl, "problems": []})

    def inheritance(self, _request: Request, identifier: str) -> Answer:
        """Where the variables of an experiment with several base packages have their values from."""
        definition = self._registered(identifier)
        if len(definition["base"]["packages"]) == 1:
            raise Abort(400, "Experiment has a single base package, there is no inheritance to explain")
        return reply({"result": inheritance(definition, self._store)})

    def _registered(self, identifier: str) -> dict[str, Any]:
        full = _full(identifier, f"Run into internal error while querying for {identifier}")
        definition = self._store.get(full)
        if definition is None:
            raise Abort(404, f"There is no entry in the experiment registry that matches {full}")
        return definition

    def skeleton(self, _request: Request, identifier: str) -> Answer:
        """What to fill in to start this experiment."""
        return reply(skeleton(self._known(identifier)))

    def start(self, request: Request, identifier: str) -> Answer:
        """Start an instance; the reply is its id."""
        definition = self._known(identifier)
        accepted = launch(definition, request.json())
        metadata = definition["metadata"]
        self._accept(accepted)
        self._store.count_execution(metadata["package"]["name"], metadata["registry"]["digest"])
        return reply(accepted.rest_uid)

    def _known(self, identifier: str) -> dict[str, Any]:
        full = _full(identifier, f"Exception when creating instance {identifier}")
        definition = self._store.get(full)
        if definition is None:
            raise Abort(404, f"No parameterised package {full}", unknownExperiment=full)
        return definition


def _full(identifier: str, failure: str) -> str:
    """The identifier with the tag or digest that it implies; with both, the service breaks."""
    if ":" in identifier and "@" in identifier:
        raise Abort(500, failure)
    return identifier if ":" in identifier or "@" in identifier else f"{identifier}:latest"


def _need_a_package(value: Any) -> None:
    if value.get("base", {}).get("packages", True) == []:
        problem = (
            "base.packages\n  Value error, There must be at least 1 base package [type=value_error, "
            "input_value=[], input_type=list]\n    For further information visit https://errors.pydantic.dev/2.14/v/value_error"
        )
        raise Invalid(summary("ParameterisedPackage", [problem]))


def _shown(entry: dict[str, Any], request: Request) -> Any:
    """A definition as the parameters of a request want to see it."""
    if request.query.get("hideNone", "y") != "y":
        entry = read(DEFINITION, entry, nulls=True)
    if request.query.get("hideMetadataRegistry") == "y":
        del entry["metadata"]["registry"]
    if request.query.get("hideBeta", "y") == "y":
        for key in _BETA_OF_BASE:
            entry["base"].pop(key, None)
        for package in entry["base"]["packages"]:
            package.pop("graphs", None)
    form = request.query.get("outputFormat", "json")
    if form == "python":
        return str(entry)
    return pprint.pformat(entry, width=120) if form == "python-pretty" else entry


class Runtime:
    """The runtime service of one server; it knows no experiment at first."""

    def __init__(self, engine: Engine, folder: Path) -> None:
        """Keep what starts do not bring themselves in a folder."""
        self._store = Store()
        cluster = Cluster()
        self.places = Places(folder, cluster.dataset)
        self._instances = Instances(self._store, engine, self.places)
        relationships, written = Relationships(self._store), dict[str, Dsl]()
        experiments = Experiments(self._store, engine, self._instances.accept, relationships.find, written)
        self._groups = (
            Lambdas(self._instances.accept),
            experiments,
            self._instances,
            relationships,
            Library(),
            Utilities(self._store, written),
            cluster,
            Pages(experiments.get),
        )

    def routes(self) -> list[Route]:
        """All routes."""
        return [*ADDRESSES, *(route for group in self._groups for route in group.routes())]

    def launches(self, experiment: str, count: int, payload: Mapping[str, Any]) -> list[AcceptedStart]:
        """
        Starts of an experiment with the same payload, in which inputs that are not named are blank.

        Raises:
            ValueError: There is no such experiment, count is below 1, or the payload is refused.
        """
        if count < 1:
            raise ValueError(f"count must be at least 1, not {count!r}")
        definition = self._store.get(experiment)
        if definition is None:
            raise ValueError(f"no experiment {experiment!r} was pushed")
        registry = definition["metadata"]["registry"]
        blank = [{"filename": entry["name"], "content": "\n"} for entry in registry["inputs"]]
        try:
            first = launch(definition, {"inputs": blank, **payload})
        except Abort as error:
            raise ValueError(f"the payload is refused: {error}") from error
        name, digest = definition["metadata"]["package"]["name"], registry["digest"]
        return [replace(first, rest_uid=new_rest_uid(name, digest)) for _ in range(count)]

    def adopt(self, launches: Sequence[AcceptedStart]) -> None:
        """Show instances that the engine knows already."""
        self._instances.adopt(launches)
        for one in launches:
            self._store.count_execution(*one.identifier.split("@"))
