"""
Starts of experiments that are in no registry: ``/experiments/lambda/start``.

Source:
    st4sd-runtime-service, ``LambdaExperimentFactory``. Of FlowIR only its outermost fields are checked, and what
    every component needs; a test compares that with the orchestrator's own libraries.
"""

from __future__ import annotations

import difflib
import secrets
import string
from collections.abc import Callable, Mapping
from typing import Any

from st4sd_async.local.engine.interface import AcceptedStart, Content
from st4sd_async.local.http.messages import Abort, Answer, Request, Route, Slash, reply
from st4sd_async.local.runtime.buckets import bucket
from st4sd_async.local.runtime.places import DATASET, Elsewhere, Named, Store, dataset_store, split_path

FIELDS = (
    *("lambdaFlowIR", "validate_flowir", "data", "scripts", "additionalOptions", "orchestrator_resources"),
    *("metadata", "variables", "s3", "s3Store", "datasetStoreURI", "volumes", "environmentVariables"),
)
"""What the body of such a start may have."""
FLOWIR_FIELDS = (
    *("application-dependencies", "blueprint", "components", "environments", "interface", "output", "platforms"),
    *("status-report", "variables", "version", "virtual-environments"),
)
"""What a definition in FlowIR may have; one in DSL has others."""
_ALPHABET = string.digits + string.ascii_lowercase
_SUFFIX = 6


class Lambdas:
    """The handler of these starts."""

    def __init__(self, accept: Callable[[AcceptedStart], None]) -> None:
        self._accept = accept

    def routes(self) -> list[Route]:
        """The route, which has to come before that of other starts."""
        return [Route("/experiments/lambda/start", Slash.NEVER, POST=self.start)]

    def start(self, request: Request) -> Answer:
        """Start an instance; the reply is its id."""
        accepted = lambda_launch(request.json())
        self._accept(accepted)
        return reply(accepted.rest_uid)


def lambda_launch(value: Any) -> AcceptedStart:
    """What to execute for a body; raises `Abort` if it is refused."""
    if not isinstance(value, dict):
        raise _broken("argument after ** must be a mapping")
    unknown = next((name for name in value if name not in FIELDS), None)
    if unknown is not None:
        raise _broken(f"LambdaExperimentFactory.__init__() got an unexpected keyword argument '{unknown}'")
    if "lambdaFlowIR" not in value:
        told = "missing 1 required positional argument: 'lambdaFlowIR'"
        raise _broken(f"LambdaExperimentFactory.__init__() {told}")
    flowir = value["lambdaFlowIR"]
    problems = flowir_problems(flowir) if value.get("validate_flowir", True) else []
    if problems:
        told = "\n".join([f"Inconsistent FlowIR: Found {len(problems)} errors:", *problems])
        raise Abort(400, "Invalid lambda FlowIR", flowirErrors=told)
    store = _store(value)
    uid = f"lambda-{''.join(secrets.choice(_ALPHABET) for _ in range(_SUFFIX))}"
    return AcceptedStart(
        rest_uid=uid,
        identifier=uid,
        package=_package(uid),
        platform=None,
        inputs={},
        data=_data(value),
        variables=_strings(value.get("variables")),
        metadata=_strings(value.get("metadata")),
        environment=_strings(value.get("environmentVariables")),
        options=(*(value.get("additionalOptions") or ()), *(store.options if store else ())),
        flowir=flowir,
        scripts=_contents(value.get("scripts")),
        store=store,
    )


def _data(value: Mapping[str, Any]) -> dict[str, Content]:
    """name -> what is in it; with a bucket all files come from there."""
    s3 = value.get("s3")
    try:
        if not s3:
            return {**_contents(value.get("data"))}
        place = Named(DATASET, s3["dataset"]) if s3.get("dataset") else bucket(s3)
        files = [split_path(file["filename"]) for file in value.get("data") or ()]
    except (KeyError, TypeError) as error:
        raise _broken(str(error)) from error
    return {name or source.rpartition("/")[2]: Elsewhere(place, source) for source, name in files}


def _store(value: Mapping[str, Any]) -> Store | None:
    """Where key-outputs go."""
    store, uri = value.get("s3Store"), value.get("datasetStoreURI")
    try:
        if store and uri:
            raise ValueError("datasetStoreURI and s3Store are mutually exclusive")
        if store:
            return Store(bucket(store["credentials"]), store["bucketPath"].removeprefix("/"))
        return dataset_store(uri) if uri else None
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise _broken(str(error)) from error


def flowir_problems(flowir: Any) -> list[str]:
    """What is wrong with a definition, in the orchestrator's words; [] if nothing is."""
    if not isinstance(flowir, dict) or not isinstance(flowir.get("components", []), list):
        return [f"Expected FlowIR to be a dictionary with a list of components, not {type(flowir).__name__}"]
    components = flowir.get("components", [])
    names = [(one.get("stage", 0), one.get("name")) for one in components if isinstance(one, dict)]
    for stage, name in names:
        if name is None:
            told = "is invalid. Missing fields: {'name': 'str'}. Extra fields: {}. Invalid fields: {}."
            return [f"stage{stage}.None {told}Component does not have a valid ID"]
        if names.count((stage, name)) > 1:
            return [f"Inconsistent FlowIR: Component stage{stage}.{name} exists multiple times in FlowIR description"]
    unknown = [_unknown_field(name) for name in flowir if name not in FLOWIR_FIELDS]
    return [*unknown, *filter(None, map(_unrunnable, components))]


def _unknown_field(name: str) -> str:
    close = difflib.get_close_matches(name, FLOWIR_FIELDS)
    hint = f", did you mean {close[0]}?" if close else ""
    return f"Invalid key FlowIR.{name}{hint} - valid choices are {list(FLOWIR_FIELDS)}"


def _unrunnable(component: Any) -> str:
    known = component if isinstance(component, dict) else {}
    command = known.get("command")
    executable = command.get("executable") if isinstance(command, dict) else None
    if isinstance(executable, str):
        return ""
    where = f"stage{known.get('stage', 0)}.{known.get('name')}.command.executable"
    return f"Invalid value {where}={executable!r} - valid choices are [\"<class 'str'>\"]"


def _broken(why: str) -> Abort:
    return Abort(500, f"Exception when creating lambda instance - {why}")


def _contents(files: Any) -> dict[str, str]:
    """name -> text; of files of the same name the last one wins."""
    try:
        return {file["filename"]: str(file["content"]) for file in files or ()}
    except (KeyError, TypeError) as error:
        raise _broken(str(error)) from error


def _strings(values: Mapping[str, Any] | None) -> dict[str, str]:
    return {str(key): str(value) for key, value in (values or {}).items()}


def _package(name: str) -> dict[str, Any]:
    """What stands for a definition in the registry, which there is none of."""
    return {
        "base": {"packages": [{"source": {}}]},
        "metadata": {
            "package": {"name": name},
            "registry": {"interface": {}, "executionOptionsDefaults": {"variables": []}},
        },
        "parameterisation": {},
    }
