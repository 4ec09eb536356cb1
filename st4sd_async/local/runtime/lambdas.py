"""
Starts of unregistered experiments: ``/experiments/lambda/start``.

FlowIR is checked by st4sd-runtime-core. If it is not installed, only the top-level fields and the required fields of
components are checked. A test compares the problems.

Source:
    st4sd-runtime-service, ``LambdaExperimentFactory``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from st4sd_async.local.engine.buckets import DATASET, OutputStore, RemoteFile, Volume
from st4sd_async.local.engine.core_checks import find_flowir_problems
from st4sd_async.local.engine.flowir import find_problems
from st4sd_async.local.engine.interface import AcceptedStart, Content
from st4sd_async.local.http.messages import HTTPError, Request, Response, Route, TrailingSlash, json_response
from st4sd_async.local.runtime.starts import as_strings, random_suffix
from st4sd_async.local.runtime.storage import bucket_from, dataset_store, split_path

FIELDS = (
    *("lambdaFlowIR", "validate_flowir", "data", "scripts", "additionalOptions", "orchestrator_resources"),
    *("metadata", "variables", "s3", "s3Store", "datasetStoreURI", "volumes", "environmentVariables"),
)
"""Fields of the body."""
_SUFFIX_LENGTH = 6


class Lambdas:
    """The handler of these starts."""

    def __init__(self, accept: Callable[[AcceptedStart], None]) -> None:
        self._accept = accept

    def routes(self) -> list[Route]:
        """Return the route, which must come before the route of other starts."""
        return [Route("/experiments/lambda/start", TrailingSlash.FORBIDDEN, POST=self.start)]

    def start(self, request: Request) -> Response:
        """Start an instance and return its rest-uid."""
        start = accepted_lambda(request.json())
        self._accept(start)
        return json_response(start.rest_uid)


def accepted_lambda(value: Any) -> AcceptedStart:
    """Return the start for a request body; raise `HTTPError` if the body is rejected."""
    if not isinstance(value, dict):
        raise _server_error("argument after ** must be a mapping")
    unknown = next((name for name in value if name not in FIELDS), None)
    factory = "LambdaExperimentFactory.__init__()"
    if unknown is not None:
        raise _server_error(f"{factory} got an unexpected keyword argument '{unknown}'")
    if "lambdaFlowIR" not in value:
        raise _server_error(f"{factory} missing 1 required positional argument: 'lambdaFlowIR'")
    flowir = value["lambdaFlowIR"]
    if value.get("validate_flowir", True) and (problems := flowir_problems(flowir)):
        errors = "\n".join([f"Inconsistent FlowIR: Found {len(problems)} errors:", *problems])
        raise HTTPError(400, "Invalid lambda FlowIR", flowirErrors=errors)
    store = _output_store(value)
    uid = f"lambda-{random_suffix(_SUFFIX_LENGTH)}"
    return AcceptedStart(
        rest_uid=uid,
        identifier=uid,
        package=_package(uid),
        platform=None,
        inputs={},
        data=_data(value),
        variables=as_strings(value.get("variables") or {}),
        metadata=as_strings(value.get("metadata") or {}),
        environment=as_strings(value.get("environmentVariables") or {}),
        options=(*(value.get("additionalOptions") or ()), *(store.options if store else ())),
        flowir=flowir,
        scripts=_texts(value.get("scripts")),
        store=store,
    )


def _data(value: Mapping[str, Any]) -> dict[str, Content]:
    """Return the data files by name. If the body names a bucket or dataset, all files come from there."""
    s3 = value.get("s3")
    try:
        if not s3:
            return {**_texts(value.get("data"))}
        source = Volume(DATASET, s3["dataset"]) if s3.get("dataset") else bucket_from(s3)
        files = [split_path(file["filename"]) for file in value.get("data") or ()]
    except (KeyError, TypeError) as error:
        raise _server_error(str(error)) from error
    return {name or path.rpartition("/")[2]: RemoteFile(source, path) for path, name in files}


def _output_store(value: Mapping[str, Any]) -> OutputStore | None:
    """Return the store for key-outputs; None if they are not uploaded."""
    store, uri = value.get("s3Store"), value.get("datasetStoreURI")
    try:
        if store and uri:
            raise ValueError("datasetStoreURI and s3Store are mutually exclusive")
        if store:
            return OutputStore(bucket_from(store["credentials"]), store["bucketPath"].removeprefix("/"))
        return dataset_store(uri) if uri else None
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise _server_error(str(error)) from error


def flowir_problems(flowir: Any) -> list[str]:
    """Return the problems of a definition in FlowIR, worded as by the orchestrator."""
    if not isinstance(flowir, dict) or not isinstance(flowir.get("components", []), list):
        return [f"Expected FlowIR to be a dictionary with a list of components, not {type(flowir).__name__}"]
    problems = find_flowir_problems(flowir)
    return find_problems(flowir) if problems is None else problems


def _server_error(reason: str) -> HTTPError:
    return HTTPError(500, f"Exception when creating lambda instance - {reason}")


def _texts(files: Any) -> dict[str, str]:
    """Return the contents of files by name; the last of several files with the same name wins."""
    try:
        return {file["filename"]: str(file["content"]) for file in files or ()}
    except (KeyError, TypeError) as error:
        raise _server_error(str(error)) from error


def _package(name: str) -> dict[str, Any]:
    """Return a definition to show for an unregistered experiment."""
    return {
        "base": {"packages": [{"source": {}}]},
        "metadata": {
            "package": {"name": name},
            "registry": {"interface": {}, "executionOptionsDefaults": {"variables": []}},
        },
        "parameterisation": {},
    }
