"""
The routes for experiments that are written as DSL 2.0: ``/utilities/`` and ``/internal-experiments/``.

Source:
    st4sd-runtime-service, ``apis/utilities.py`` and ``apis/internal_experiments.py``. Where the service would put the
    definition into a bucket, it is kept in memory here; only the simulator can run such an experiment.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from st4sd_async.local.http.messages import Abort, Answer, Request, Route, Slash, reply
from st4sd_async.local.runtime.cluster import OTHER_SECRET
from st4sd_async.local.runtime.definitions import DEFINITION
from st4sd_async.local.runtime.dsl import Dsl, InvalidDsl, validated
from st4sd_async.local.runtime.dsl_packages import dsl_facts, generated
from st4sd_async.local.runtime.schema import Invalid, read
from st4sd_async.local.runtime.store import Store, register

BUCKET = {"bucket": "st4sd-internal-experiments", "endpoint": "https://s3.example"}
"""Where the definitions pretend to be."""
_CREDENTIALS = {
    "valueFrom": {
        "secretName": OTHER_SECRET,
        "keyAccessKeyID": "S3_ACCESS_KEY_ID",
        "keySecretAccessKey": "S3_SECRET_ACCESS_KEY",
    }
}
_ADMINISTRATOR = "contact the administrator of this ST4SD deployment"
_NO_DSL = 'Expected a dictionary with key "dsl" that contains the DSL 2.0 definition of a workflow'
_NO_NAME = 'Missing "pvep.metadata.package.name"'


class Utilities:
    """The handlers; definitions that are stored go into a dictionary: digest -> definition."""

    def __init__(self, store: Store, definitions: dict[str, Dsl]) -> None:
        self._store = store
        self._definitions = definitions

    def routes(self) -> list[Route]:
        """The routes."""
        return [
            Route("/utilities/dsl", Slash.NEEDED, POST=self.validate),
            Route("/utilities/pvep", Slash.NEEDED, POST=self.generate),
            Route("/internal-experiments", Slash.NEEDED, POST=self.push),
        ]

    def validate(self, request: Request) -> Answer:
        """Check a definition."""
        value = request.json()
        if not isinstance(value, dict):
            raise _failed("validating DSL", "the definition must be a mapping")
        _valid(value)
        return reply({"problems": []})

    def generate(self, request: Request) -> Answer:
        """Make the package for a definition."""
        value = request.json()
        if not isinstance(value, dict) or "dsl" not in value:
            raise Abort(400, "Invalid payload", problems=[{"problem": _NO_DSL}])
        template = _package(value["pvep"], "Invalid payload field pvep") if "pvep" in value else None
        package, changes = generated(_valid(value["dsl"]), template)
        return reply({"pvep": package, "changes": changes, "problems": []})

    def push(self, request: Request) -> Answer:
        """Check and keep a definition, and the package around it."""
        value = request.json()
        dsl = _need(value, lambda body: body["workflow"]["dsl"])
        package = _package(_need(value, lambda body: body["pvep"]), "Invalid Parameterised Virtual Experiment Package")
        name = package["metadata"]["package"].get("name")
        if not name:
            raise Abort(400, _NO_NAME, problems=[{"message": _NO_NAME}])
        complete = _valid(dsl)
        source = {"s3": {"security": {"credentials": _CREDENTIALS}, "location": BUCKET}}
        base = {"packages": [{"source": source, "config": {"path": f"experiments/{name}"}}]}
        definition = read(DEFINITION, {**package, "base": base})
        register(definition, dsl_facts(complete))
        self._store.push(definition)
        self._definitions[definition["metadata"]["registry"]["digest"]] = complete
        return reply({"result": read(DEFINITION, definition, nulls=True), "problems": []})


def _valid(value: Any) -> Dsl:
    try:
        return validated(value)
    except InvalidDsl as error:
        raise Abort(400, "Invalid DSL definition", problems=error.problems) from error


def _package(value: Any, message: str) -> dict[str, Any]:
    try:
        return read(DEFINITION, value)
    except Invalid as error:
        raise Abort(400, message, problems=error.entries) from error


def _need(value: Any, get: Callable[[Any], Any]) -> Any:
    try:
        return get(value)
    except KeyError as error:
        problems = [{"message": f"Missing field {error}"}]
        raise Abort(400, "Invalid payload to endpoint", problems=problems) from error
    except TypeError as error:
        raise _failed("registering internal-experiment", str(error)) from error


def _failed(doing: str, why: str) -> Abort:
    message = f"Internal error while {doing} - {_ADMINISTRATOR}"
    return Abort(500, message, problems=[{"problem": why, "message": message}])
