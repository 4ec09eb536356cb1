"""
The table of the incumbent's public methods.

`TABLE` has one row a method. Each entry of a row is a call, what it gave or raised when the real services were
recorded, and what is different with one engine. Shapes are those of ``shapes.py``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path
from typing import Any

from tests.client.definitions import LAMBDA, related, relationship
from tests.local.helpers import MOLECULES, definition
from tests.local.incumbent.finished import Finished, attempt
from tests.local.incumbent.shapes import Either, Raises

TEXT = re.compile(r".+", re.DOTALL)
NUMBER = re.compile(r"[0-9.]+")
DIGEST = re.compile(r"sha256x[0-9a-f]{56}")
INSTANCE = re.compile(r"file://example-cluster/\S+\.instance")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}(\+0000)?")
COMPACT_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d{6}\.\d{6}")

SOURCE = {"git": {"location": {"url": TEXT, "tag": "1.0.0"}, "version": re.compile("[0-9a-f]{40}")}}
STORED_PACKAGE = {"name": TEXT, "source": SOURCE, "dependencies": {"imageRegistries": []}, "config": {}}
PACKAGE = {**STORED_PACKAGE, "graphs": []}
METHOD = {"csvDataFrame": {"source": {"keyOutput": TEXT}}}
INTERFACE: dict[str, Any] = {
    "description": TEXT,
    "inputSpec": {"namingScheme": TEXT, "inputExtractionMethod": {"*": dict}, "hasAdditionalData": False},
    "propertiesSpec": [{"name": TEXT, "description": TEXT, "propertyExtractionMethod": METHOD}],
    "additionalInputData": None,
    "inputs": None,
    "outputFiles": [],
}
REGISTRY = {
    "createdOn": TIME,
    "digest": DIGEST,
    "tags": [TEXT],
    "timesExecuted": int,
    "interface": INTERFACE,
    "inputs": [{"name": "molecules.csv"}],
    "data": [{"name": TEXT}],
    "containerImages": [],
    "executionOptionsDefaults": {
        "variables": [{"name": TEXT, "valueFrom": [{"value": TEXT, "platform": "default"}]}],
    },
    "platforms": ["default"],
    "output": [{"name": TEXT}],
    "applicationDependencies": {"default": []},
}
METADATA = {
    "package": {"name": TEXT, "tags": [TEXT], "keywords": [TEXT], "maintainer": TEXT, "description": TEXT},
    "registry": REGISTRY,
}
PARAMETERISATION = {
    "presets": {
        "variables": [],
        "runtime": {"resources": {}, "args": list},
        "data": [],
        "environmentVariables": [],
    },
    "executionOptions": {
        "variables": [{"name": TEXT}],
        "data": [{"name": TEXT}],
        "runtime": {"resources": {}, "args": []},
        "platform": [],
    },
}
ENTRY = {"base": {"packages": [STORED_PACKAGE]}, "metadata": METADATA, "parameterisation": PARAMETERISATION}
"""An experiment as in lists, without empty parts of its base."""
EXPERIMENT = {**ENTRY, "base": {"packages": [PACKAGE], "connections": [], "includePaths": [], "output": []}}

NAMES = {"experiment-id": TEXT, "rest-uid": TEXT, "st4sd-package-digest": DIGEST, "st4sd-package-name": "demo"}
USER_METADATA = {**NAMES, "campaign": "x", "workflow": TEXT}
META = {
    "arguments": re.compile(r"\S*elaunch\.py -i .*/input/molecules\.csv .*-mcampaign:x .*"),
    "data": [re.compile(".*/data/weights.csv")],
    "hybridPlatform": None,
    "inputs": [re.compile(".*/input/molecules.csv")],
    "instanceName": re.compile(r"demo-\S+\.instance"),
    "pid": int,
    "platform": "default",
    "userMetadata": USER_METADATA,
    "userVariables": {"global": {"scale": "1"}},
    "variables": {"global": {"scale": "1"}, "stage": {"0": {"scale": "1"}, "1": {"scale": "1"}}},
    "version": TEXT,
}
STATUS = {
    "experiment-state": "finished",
    "stage-state": "finished",
    "stages": ["stage0", "stage1"],
    "current-stage": "stage1",
    "exit-status": "Success",
    "meta": META,
    "total-progress": 1.0,
    "stage-progress": 1.0,
    "error-description": "",
}
EMPTY_STATUS: dict[str, Any] = {
    **dict.fromkeys(["experiment-state", "stage-state", "current-stage", "exit-status", "meta"]),
    "error-description": "",
    "stages": [],
    "total-progress": 0.0,
    "stage-progress": 0.0,
}
"""A status after 0.3 s."""
KEY_OUTPUT = {
    "creationtime": NUMBER,
    "description": "",
    "filename": TEXT,
    "filepath": TEXT,
    "final": "yes",
    "production": "yes",
    "type": "",
    "version": "1",
}
LABELS = {"rest-uid": TEXT, "workflow": TEXT, "st4sd-package-name": "demo", "st4sd-package-digest": DIGEST}
DETAILS = {"id": TEXT, "name": TEXT, "status": STATUS, "outputs": {"*": KEY_OUTPUT}, "k8s-labels": LABELS}
DOCUMENT: dict[str, Any] = {
    "instance": INSTANCE,
    "uid": re.compile(r"file:///\S+\.instance"),
    "name": "demo",
    "type": "experiment",
    "metadata": META,
    "status": {
        "stages": "['stage0', 'stage1']",
        "current-stage": "stage1",
        "stage-progress": "1.0",
        "total-progress": "1.0",
        "experiment-state": "finished",
        "stage-state": "finished",
        "updated": COMPACT_TIME,
        "exit-status": "Success",
        "cost": "0",
        "created-on": TIME,
        "updated-on": TIME,
        "completed-on": TIME,
    },
    "output": {"*": {**KEY_OUTPUT, "creationtime": COMPACT_TIME, "version": 1}},
    "interface": {
        **INTERFACE,
        "additionalInputData": {},
        "outputFiles": ["output/input-ids.json", "output/properties.csv"],
        "inputs": ["CCO", "NAN", "CCCC"],
    },
}
TABLE_OF_PROPERTIES = {"input-id": ["CCCC", "CCO", "NAN"], "smiles": [str], "energy": [float], "weight": [float]}
METADATA_DOCUMENT = {
    **USER_METADATA,
    "instance": INSTANCE,
    "type": "user-metadata",
    "uid": re.compile(r"file://example-cluster/\S+\.instance&user-metadata"),
}
FLOWIR = {
    "stage": 0,
    "name": "Compute",
    "command": {
        "executable": str,
        "arguments": str,
        "resolvePath": bool,
        "expandArguments": "double-quote",
        "interpreter": None,
    },
    "executors": {"pre": [], "main": [], "post": []},
    "resourceRequest": dict,
    "resourceManager": {"docker": dict, "kubernetes": dict, "lsf": dict, "config": dict},
    "workflowAttributes": dict,
    "variables": {"*": str},
    "references": [str],
}
COMPONENT = {
    "name": "Compute",
    "stage": 0,
    "location": re.compile(r"/\S+\.instance/stages/stage0/Compute"),
    "type": "component",
    "memoization-hash": re.compile("[0-9a-f]{32}"),
    "component-identifier": "stage0.Compute",
    "producers": {},
    "memoization-hash-fuzzy": re.compile("[0-9a-f]{32}"),
    "component-state": "finished",
    "instance": INSTANCE,
    "uid": re.compile(r"file://example-cluster/\S+\.instance&stage0\.Compute"),
    "flowir": FLOWIR,
    "files": [re.compile(r"/\S+\.instance/stages/stage0/Compute/[\w.]+")],
}
GRAPH = {"package": PACKAGE, "identifier": TEXT, "components": [TEXT]}
RELATIONSHIP = {
    "identifier": TEXT,
    "description": "x",
    "transform": {
        "inputGraph": {"package": PACKAGE, "identifier": "surrogate:latest", "components": list},
        "outputGraph": GRAPH,
        "relationship": dict,
    },
}
SYNTHESIZED = {
    "base": {
        "packages": [
            {
                **STORED_PACKAGE,
                "graphs": [
                    {"name": TEXT, "bindings": {"input": [dict], "output": list}, "nodes": [{"reference": TEXT}]},
                ],
            }
        ],
        "connections": [
            {"graph": {"name": TEXT, "bindings": {"input": [], "output": []}, "nodes": []}, "bindings": list},
        ],
        "includePaths": [{"source": {"packageName": TEXT, "path": TEXT}, "dest": {"path": ".git"}}],
        "output": [
            {"name": TEXT, "valueFrom": {"graph": {"name": TEXT, "binding": {"reference": TEXT, "type": "output"}}}},
        ],
    },
    "metadata": {
        "package": {"name": "both", "tags": [], "keywords": ["auto-generated", "from:relationship-transform"]},
        "registry": {
            **REGISTRY,
            "interface": {},
            "inputs": [{"name": TEXT}],
            "data": [],
            "executionOptionsDefaults": {"variables": list},
        },
    },
    "parameterisation": {
        **PARAMETERISATION,
        "executionOptions": {
            "variables": list,
            "data": [],
            "runtime": {"resources": {}, "args": []},
            "platform": ["default"],
        },
    },
}
PAYLOAD = {
    "inputs": [{"filename": "molecules.csv", "content": "{{RequiredInputs_molecules.csv}}"}],
    "data": [{"filename": "weights.csv", "content": "{{OptionalData_weights.csv}}"}],
    "s3": dict.fromkeys(["accessKeyID", "secretAccessKey", "bucket", "endpoint", "region"], "{{OptionalS3ForDownload}}")
    | {"dataset": "{{OptionalDatasetForDownload}}"},
    "variables": {"scale": "{{OptionalVariable_scale}}"},
}
MAGIC = {
    "{{RequiredInputs_molecules.csv}}": {"message": TEXT},
    "{{OptionalData_weights.csv}}": {"message": TEXT},
    "{{OptionalS3ForDownload}}": {"message": TEXT},
    "{{OptionalDatasetForDownload}}": {"message": TEXT},
    "{{OptionalS3OrDatasetDownload}}": {"message": TEXT},
    "{{OptionalVariable_scale}}": {"message": TEXT, "choices": None, "defaultFromPlatform": {"default": "1"}},
}
REJECTED = "InvalidHTTPRequest"
SIGN_IN = Raises("UnauthorisedRequest", 403, "Unauthorised get request to ")
BUCKET = ("https://s3.example", "bucket", "id", "secret")
PULL: dict[str, Any] = {"registry": "quay.example", "username": "somebody", "password": "a-password"}


Call = Callable[[Finished, str], Any]
"""A call of the method with a name."""


@dataclass(frozen=True)
class Case:
    """One call of a method, and what it gave."""

    label: str
    """What is special about the call."""
    call: Call
    gave: Any
    """What it gave with the real services."""
    recorded: str
    """The number of the recorded call that says so; "own" for what the incumbent does by itself."""
    differs: Mapping[str, tuple[Any, str]] = field(default_factory=dict)
    """engine -> what the call gives instead, and why."""


RUN, HERE = "<rest-uid>", "<instance>"
DOCUMENT_HERE, INTERFACE_HERE, METADATA_HERE = "<document>", "<interface>", "<user metadata>"
"""Arguments that stand for those of the finished run of the example."""
STORE = "<datastore>"
"""An argument that stands for the address of the datastore."""


def ask(
    *arguments: Any,
    first: Callable[[Finished], Any] | None = None,
    give: Callable[[Any], Any] = lambda value: value,
    **options: Any,
) -> Call:
    """Return a call with these arguments, after another one, that gives a part of what it returns."""

    def call(run: Finished, method: str) -> Any:
        texts = {RUN: run.runs["demo"], HERE: run.instances["demo"], STORE: str(run.api.cdb_rest_url)}

        def filled(value: Any) -> Any:
            if isinstance(value, dict):
                return {name: filled(inner) for name, inner in value.items()}
            if value in (DOCUMENT_HERE, INTERFACE_HERE):
                document = run.api.cdb_get_document_experiment_for_rest_uid(run.runs["demo"])
                return document if value == DOCUMENT_HERE else document["interface"]
            if value == METADATA_HERE:
                return [run.api.cdb_get_document_user_metadata_for_rest_uid(run.runs["demo"])]
            return (
                reduce(lambda text, name: text.replace(name, texts[name]), texts, value)
                if isinstance(value, str)
                else value
            )

        if first is not None:
            attempt(lambda: first(run))
        return give(getattr(run.api, method)(*map(filled, arguments), **filled(options)))

    return call


def began(name: str) -> Call:
    """Return a call that the fixture made when the runs began."""
    return lambda run, _: run.began[name]


def of(experiment: str, **options: Any) -> Call:
    """Return a call for the run of another experiment."""
    return lambda run, method: getattr(run.api, method)(run.runs[experiment], **options)


def use(*credentials: str) -> Call:
    """Return a call that lists experiments with one credential after the other, "right" or not."""

    def call(run: Finished, method: str) -> Any:
        key = "bearer_key" in method
        right = run.server.api_key if key else run.server.auth_token
        try:
            run.api.update_consumable_computing_bearer_key(None)
            for credential in credentials:
                getattr(run.api, method)(right if credential == "right" else credential)
                found = attempt(run.api.api_experiment_list)
            return found
        finally:
            run.api.update_consumable_computing_auth_token(None)
            run.api.update_consumable_computing_bearer_key(run.server.api_key)

    return call


def start(**payload: Any) -> Call:
    """Return a call that starts the example with these parts of a payload."""
    return ask("demo", payload)


def push(name: str) -> Callable[[Finished], Any]:
    """Return a call that pushes the example under a name."""

    def call(run: Finished) -> Any:
        package = run.server.example("demo")
        package["metadata"]["package"]["name"] = name
        return run.api.api_experiment_push(package)

    return call


def push_related(run: Finished) -> None:
    """Push the experiments of the relationship."""
    for package in related():
        run.api.api_experiment_push(package)


def relate(identifier: str) -> Callable[[Finished], Any]:
    """Return a call that pushes a relationship and its experiments."""

    def call(run: Finished) -> Any:
        push_related(run)
        return run.api.api_relationship_push(relationship(identifier, description="x"))

    return call


def unclonable() -> dict[str, Any]:
    """Return a definition whose package does not exist."""
    package = definition("unclonable")
    package["base"]["packages"][0]["source"]["git"]["location"]["url"] = "file:///ghost"
    return package


def only(found: Any) -> Any:
    """Return the only value of a dictionary."""
    (value,) = found.values()
    return value


def files(documents: Any) -> list[str]:
    """Return the names of the files of the only document."""
    (described,) = documents
    return sorted(Path(path).name for path in described["files"])


def interface(details: Any) -> Any:
    """Return the interface of the experiment of a run."""
    return details["experiment"]["metadata"]["registry"]["interface"]


def columns(found: Any) -> tuple[Any, Any]:
    """Return the only document and the columns of the only table."""
    (described,), (frame,) = found
    return described, frame.to_dict("list")


def headers(found: Any) -> tuple[Any, Any]:
    """Return the only document and the column names of the only matrix."""
    (described,), (table,) = found
    return described, table.columnHeaders()


TABLE: dict[str, tuple[Case, ...]] = {
    # Credentials
    "update_consumable_computing_bearer_key": (
        Case("right", use("right"), {"*": dict}, "01.6"),
        Case("wrong", use("wrong"), SIGN_IN, "01.0"),
    ),
    "update_consumable_computing_auth_token": (
        Case("right", use("right"), {"*": dict}, "01.3"),
        Case("wrong", use("wrong"), SIGN_IN, "01.1"),
        Case("right after a wrong one", use("wrong", "right"), {"*": dict}, "01.3"),
    ),
    # Any request
    "api_path_to_url": (Case("", ask("/a/b"), re.compile(r"http://127.0.0.1:\d+/rs/a/b"), "own"),),
    "api_request_get": (
        Case(
            "collection",
            ask("experiments/"),
            {"entries": [dict], "problems": []},
            "01.18",
        ),
        Case(
            "root",
            ask("", decode_json=False),
            re.compile(r"<!DOCTYPE html>\n<html>\n<head>\n    <title>Runtime Service of the Simulation.*", re.DOTALL),
            "01.6",
        ),
        Case(
            "root as JSON",
            ask(""),
            Raises("JSONDecodeError", None, "Expecting value: line 1 column 1"),
            "01.6",
        ),
        Case(
            "unknown path",
            ask("nope"),
            Raises(REJECTED, 404, r"\(HTTP status code 404\) get Request arguments"),
            "02.44",
        ),
        Case(
            "properties",
            ask(f"instances/{RUN}/properties"),
            TABLE_OF_PROPERTIES,
            "02.85",
        ),
        Case(
            "unknown property",
            ask(f"instances/{RUN}/properties?includeProperties=zzz"),
            {"input-id": ["CCCC", "CCO", "NAN"]},
            "02.88",
        ),
    ),
    "api_request_post": (
        Case(
            "query of the datastore",
            ask("documents/api/v1.0/query", {"type": "ghost"}, endpoint=STORE),
            {"document-descriptors": []},
            "02.140",
        ),
        Case(
            "wrong method",
            ask("url-map/"),
            Raises(REJECTED, 405, "The method is not allowed for the requested URL"),
            "02.69",
        ),
    ),
    "api_request_put": (
        Case(
            "tags",
            ask("experiments/tagged/tag", params={"newTags": "latest,v2"}, first=push("tagged")),
            "OK",
            "02.58",
        ),
        Case(
            "without latest",
            ask("experiments/tagged/tag", params={"newTags": "v2"}, first=push("tagged")),
            Raises(REJECTED, 400, "latest"),
            "02.59",
        ),
        Case(
            "unknown experiment",
            ask("experiments/ghost/tag", params={"newTags": "v2"}),
            Raises(REJECTED, 404, "ghost"),
            "02.60",
        ),
    ),
    "api_request_delete": (
        Case("experiment", ask("experiments/brief", first=push("brief")), {"deleted": 1}, "01.89"),
        Case(
            "unknown run",
            ask("instances/ghost-000/"),
            Raises(REJECTED, 400, "sent a request that this server could not understand"),
            "02.109",
        ),
    ),
    # Experiments
    "api_experiment_list": (Case("", ask(), {"*": dict}, "01.18"),),
    "api_experiment_get": (
        Case("", ask("demo"), ENTRY, "01.19"),
        Case(
            "unknown experiment",
            ask("ghost"),
            Raises(REJECTED, 404, 'Cannot find Parameterised Virtual Experiment Package "ghost:latest"'),
            "01.20",
        ),
        Case(
            "unknown digest",
            ask("demo@sha256xnope"),
            Raises(REJECTED, 404, "demo@sha256xnope"),
            "02.55",
        ),
    ),
    "api_experiment_push": (
        Case("", began("push"), EXPERIMENT, "01.10"),
        Case(
            "unknown key",
            ask({"metadata": {"package": {"name": "bad"}}, "nope": 1}),
            Raises(
                "HTTPInvalidVirtualExperimentDefinitionError",
                400,
                r"\(HTTP status code 400\)Invalid parameterised package\. 1 validation error for "
                r"ParameterisedPackage\nnope\n  Extra inputs are not permitted",
            ),
            "01.15",
        ),
        Case(
            "repository that does not exist",
            ask(unclonable()),
            Raises(
                REJECTED,
                400,
                r"Invalid payload, reason: Cannot git-clone with location \{'url': '.*', 'tag': '1.0.0'\}",
            ),
            "01.16",
        ),
    ),
    "api_experiment_upsert": (Case("", began("upsert"), dict, "01.12"),),
    "api_experiment_get_start_skeleton": (
        Case(
            "",
            ask("demo"),
            {"payload": PAYLOAD, "magicValues": MAGIC, "problems": [], "message": TEXT},
            "01.21",
        ),
        Case(
            "unknown experiment",
            ask("ghost"),
            Raises(REJECTED, 404, "No parameterised package ghost:latest"),
            "01.22",
        ),
    ),
    "api_experiment_delete": (
        Case(
            "",
            ask("temporary", first=push("temporary")),
            re.compile(r'\{"deleted": 1\}\n'),
            "01.89",
        ),
        Case(
            "unknown experiment",
            ask("ghost"),
            Raises(REJECTED, 404, r"Experiment \w+ is unknown"),
            "01.90",
        ),
    ),
    # Runs
    "api_experiment_start": (
        Case("", began("start"), re.compile("demo-[0-9a-f]{6}-[0-9a-z]{8}"), "01.30"),
        Case(
            "unknown experiment",
            ask("ghost", {}),
            Raises("HTTPUnknownExperimentId", 404, 'Unknown experiment "ghost"'),
            "01.29",
        ),
        Case(
            "missing input",
            start(),
            Raises(REJECTED, 400, r"Invalid experiment start payload\. Missing inputs: \['molecules\.csv'\]"),
            "01.23",
        ),
        Case(
            "inputs that are no list",
            start(inputs="nope"),
            Raises(
                "HTTPInvalidExperimentStartPayload",
                400,
                r"Invalid start payload\. 1 validation error for DeprecatedExperimentStartPayload\ninputs\n  Input "
                "should be a valid list",
            ),
            "01.24",
        ),
        Case(
            "unknown key",
            start(inputs=[MOLECULES], bogus=1),
            Raises("HTTPInvalidExperimentStartPayload", 400, r"bogus\n  Extra inputs are not permitted"),
            "01.25",
        ),
        Case(
            "one file twice",
            start(inputs=[MOLECULES], data=[{"filename": "molecules.csv", "content": "x"}]),
            Raises(
                REJECTED,
                400,
                r"Input and Data files with conflicting names: \['molecules\.csv'\] - experiment start payload is",
            ),
            "01.26",
        ),
        Case(
            "variable that must not be set",
            start(inputs=[MOLECULES], variables={"nope": 1}),
            Raises(
                REJECTED,
                400,
                r"Payload sets variable nope = 1 for which parameterisation\.executionOptions\.variables has no rule",
            ),
            "01.27",
        ),
        Case(
            "empty file",
            start(inputs=[MOLECULES, {"filename": "x.csv", "content": ""}]),
            Raises(REJECTED, 400, "is invalid because there is no S3/Dataset security configuration"),
            "01.28",
        ),
    ),
    "api_experiment_start_lambda": (
        Case("", began("start a lambda"), re.compile("lambda-[0-9a-z]{6}"), "01.77"),
        Case(
            "invalid FlowIR",
            ask({"lambdaFlowIR": {"components": [{"name": "hi"}]}}, validate=False),
            Raises(REJECTED, 400, "Invalid lambda FlowIR"),
            "01.78",
        ),
        Case(
            "invalid FlowIR that is checked",
            ask({"lambdaFlowIR": {"components": [{"name": "hi"}]}}),
            Raises("FlowIRInconsistency", None, r"Found 1 errors:\nInvalid value stage0\.hi\.command\.executable=None"),
            "own",
        ),
        Case(
            "unknown key",
            ask({**LAMBDA, "bogus": 1}),
            Raises(REJECTED, 500, r"LambdaExperimentFactory\.__init__\(\) got an unexpected keyword argument 'bogus'"),
            "01.79",
        ),
    ),
    "api_rest_uid_status": (
        Case(
            "at once",
            began("status at once"),
            {
                **DETAILS,
                "status": Either(
                    {"warning": re.compile("Workflow has no status and there is no Pod for it, .*")}, EMPTY_STATUS
                ),
                "outputs": {},
                "experiment": EXPERIMENT,
            },
            "01.31",
        ),
        Case(
            "finished",
            ask(RUN),
            {**DETAILS, "experiment": EXPERIMENT},
            "01.38",
        ),
        Case(
            "with properties",
            ask(RUN, include_properties=["*"], stringify_nan=True, give=interface),
            {
                **INTERFACE,
                "additionalInputData": {},
                "inputs": ["CCO", "NAN", "CCCC"],
                "outputFiles": ["output/input-ids.json"],
                "propertyTable": {**TABLE_OF_PROPERTIES, "energy": [-6.0, -4.5, "NaN"], "weight": list},
            },
            "01.39",
        ),
        Case(
            "with properties of a run without them",
            of("fail", include_properties=["*"]),
            Raises(REJECTED, 404, "has no properties"),
            "02.90",
        ),
        Case(
            "lambda",
            of("lambda"),
            {
                **DETAILS,
                "status": {**STATUS, "stages": ["stage0"], "current-stage": "stage0", "meta": dict},
                "outputs": {"Hi": {**KEY_OUTPUT, "filename": "out.stdout", "filepath": "stages/stage0/hi/out.stdout"}},
                "k8s-labels": {"workflow": TEXT, "package-name": TEXT, "rest-uid": TEXT},
                "experiment": {},
            },
            "01.87",
        ),
        Case(
            "unknown run",
            ask("ghost"),
            Raises(REJECTED, 404, r"Instance \S+ is not found"),
            "01.84",
        ),
        Case(
            "deleted run",
            began("status after deletion"),
            Raises(REJECTED, 404, "Instance demo-.* is not found"),
            "01.84",
        ),
    ),
    "api_rest_uid_delete": (
        Case("", began("delete"), re.compile(r'"OK"\n'), "01.83"),
        Case(
            "again",
            began("delete again"),
            Raises(REJECTED, 400, "sent a request that this server could not understand"),
            "02.103",
        ),
        Case(
            "unknown run",
            ask("ghost-123456"),
            Raises(REJECTED, 400, "sent a request that this server could not understand"),
            "01.85",
        ),
    ),
    # Results
    "api_rest_uid_output_list": (
        Case(
            "as documented",
            ask(RUN),
            Raises("TypeError", None, "missing 1 required positional argument: 'output_name'"),
            "own",
        ),
        Case(
            "with an empty name",
            ask(RUN, "", give=bytes.decode),
            re.compile(
                r'\{"Energies": \{"creationtime": "[0-9.]+", "description": "", "filename": "energies.csv", .*\n'
            ),
            "01.41",
        ),
    ),
    "api_rest_uid_output_get": (
        Case(
            "file",
            ask(RUN, "Energies"),
            (
                "energies.csv",
                b"input-id,smiles,energy,weight\nCCO,CCO,-4.5,46.069\nNAN,NAN,nan,nan\nCCCC,CCCC,-6.0,58.124\n",
            ),
            "01.42",
        ),
        Case(
            "folder",
            ask(RUN, "Folder"),
            ("results.zip", bytes),
            "01.44",
        ),
        Case(
            "folder in a folder",
            ask(RUN, "Folder/sub"),
            ("sub.zip", bytes),
            "01.47",
        ),
        Case(
            "file in a folder",
            ask(RUN, "Folder/sub/b.bin"),
            ("b.bin", bytes(range(256))),
            "01.46",
        ),
        Case(
            "not ready",
            began("output at once"),
            Raises(REJECTED, 404, "Workflow instance demo-.* has not produced key-output \\w+ yet"),
            "02.98",
        ),
        Case(
            "unknown key-output",
            ask(RUN, "Nope"),
            Raises(REJECTED, 404, "Workflow instance demo-.* has not produced key-output Nope yet"),
            "01.48",
        ),
        Case(
            "unknown file in a folder",
            ask(RUN, "Folder/none.txt"),
            Raises(
                REJECTED, 404, "Output Folder of workflow instance demo-.* references non-existing file /.*/none.txt"
            ),
            "01.49",
        ),
        Case(
            "file in a file",
            ask(RUN, "Energies/x"),
            Raises(REJECTED, 400, "is not a folder and cannot be used to retrieve child path x"),
            "01.50",
        ),
        Case(
            "unknown run",
            ask("ghost-123", "x"),
            Raises(REJECTED, 404, "unknown workflow instance ghost-123"),
            "01.51",
        ),
    ),
    "api_rest_uid_output": (
        Case(
            "",
            ask(RUN, "Energies"),
            ("energies.csv", bytes),
            "01.42",
        ),
    ),
    "cdb_get_properties": (
        Case(
            "",
            ask(instance=HERE, give=columns),
            (DOCUMENT, {"input-id": ["CCCC", "CCO", "NAN"], "smiles": [str], "energy": list, "weight": list}),
            "01.74",
        ),
        Case(
            "unknown property",
            ask(properties=["zzz"], instance=HERE),
            Raises("NoPropertyError", None, r"zzz\. Known properties are \['input-id', 'smiles', 'energy', 'weight'\]"),
            "01.74",
        ),
        Case(
            "of key-outputs",
            ask(outputs=["Energies"], instance=HERE),
            Raises("KeyError", None, "source"),
            "01.74",
        ),
        Case(
            "unknown run",
            ask(instance="file://ghost"),
            Raises("NoInstanceError", None, "No instance for query"),
            "02.140",
        ),
        Case(
            "run without properties",
            ask(instance="/fail-"),
            Raises("NoPropertyError", None, r"has not computed property \*"),
            "own",
        ),
    ),
    "cdb_get_property_names": (
        Case("", ask(DOCUMENT_HERE), ["energy", "weight"], "01.53"),
        Case(
            "not of an experiment",
            ask({}),
            Raises("BadCallError", None, "Document is not an experiment"),
            "own",
        ),
    ),
    "cdb_get_key_output_names": (
        Case(
            "",
            ask(DOCUMENT_HERE, give=sorted),
            ["Energies", "Folder"],
            "01.53",
        ),
        Case(
            "run without outputs",
            ask({"type": "experiment", "instance": "file://x/y"}),
            Raises("NoOutputError", None, r"has not computed output \*"),
            "own",
        ),
    ),
    "cdb_map_outputs_to_properties": (
        Case(
            "",
            ask(INTERFACE_HERE),
            Raises("KeyError", None, "source"),
            "01.53",
        ),
    ),
    # Files
    "cdb_get_data": (
        Case(
            "",
            ask(component="Compute", filename="energies.csv", instance=HERE, give=headers),
            (COMPONENT, ("input-id", "smiles", "energy", "weight")),
            "01.60",
        ),
        Case("no file", ask(filename="none.csv", instance=HERE), ([], []), "02.140"),
        Case(
            "no file, quietly",
            ask(filename="none.csv", _api_verbose=False, instance=HERE),
            Raises("ValueError", None, "not enough values to unpack"),
            "02.140",
        ),
        Case(
            "stage and reference",
            ask(stage=0, component="stage0.Compute", instance=HERE),
            Raises("MongoQueryContainsComponentReferenceAndExtraStage", None, "component reference .* and a stage"),
            "own",
        ),
    ),
    "cdb_get_components_raw_files": (
        Case(
            "",
            ask(component="stage0.Compute", filename="out.stdout", instance=HERE, give=only),
            (COMPONENT, bytes),
            "01.62",
        ),
        Case("without a file name", ask(component="Compute", instance=HERE), {}, "01.62"),
    ),
    "cdb_get_components_last_stdout": (
        Case(
            "",
            ask(component="stage0.Compute", instance=HERE, give=only),
            (COMPONENT, bytes),
            "01.64",
        ),
        Case(
            "without a component",
            ask(instance=HERE),
            Raises("TypeError", None, "expected str instance, NoneType found"),
            "own",
        ),
    ),
    "cdb_get_file_from_instance_uri": (
        Case(
            "",
            ask(HERE, "/input/molecules.csv"),
            MOLECULES["content"].encode(),
            "01.56",
        ),
        Case(
            "unknown file",
            ask(HERE, "output/none"),
            Raises("ValueError", None, "File /.*/output/none does not exist on gateway"),
            "01.58",
        ),
        Case(
            "unknown gateway",
            ask("file://ghost/x", "y"),
            Raises("UnknownGateway", None, "ghost"),
            "01.59",
        ),
        Case(
            "path",
            ask("/x", "y"),
            Raises("ValueError", None, "is not a valid file://"),
            "own",
        ),
    ),
    "cdb_download_component_files": (
        Case(
            "",
            ask(HERE, None, "stage1.Report", None),
            re.compile(r"/tmp/flow-component-\w+\.zip"),
            "01.72",
        ),
        Case(
            "unknown component",
            ask(HERE, 1, "Ghost", "/nonexistent"),
            Raises("BadZipFile", None, "File is not a zip file"),
            "01.73",
        ),
    ),
    "cdb_query_component_files_exist": (
        Case(
            "with a key",
            ask(HERE, 0, "Compute"),
            Raises("UnauthorisedRequest", 403, "Unauthorised get request to .*/ds-gateway/experiment"),
            "01.68",
            dict.fromkeys(["simulator", "elaunch"], (False, "redirects lose a key only if there is TLS")),
        ),
        Case(
            "after its redirect",
            ask(HERE, 0, "Compute"),
            False,
            "02.153",
        ),
    ),
    "cdb_get_detailed_status_report": (
        Case(
            "",
            ask(HERE),
            re.compile(r"\n=+ STAGE 0 =+\n\nComponents using engine-type: engine\nreference, state, .*", re.DOTALL),
            "01.76",
        ),
        Case(
            "unknown run",
            ask("file://example-cluster/x"),
            Raises("ValueError", None, "Unable to retrieve output/status_details.json file"),
            "01.58",
        ),
    ),
    "resolve_gateway": (
        Case(
            "",
            ask("example-cluster"),
            re.compile(r"http://127.0.0.1:\d+/ds-gateway"),
            "01.56",
        ),
        Case(
            "unknown gateway",
            ask("ghost"),
            Raises("UnknownGateway", None, "ghost"),
            "01.59",
        ),
    ),
    # Documents
    "cdb_get_document": (
        Case(
            "",
            ask({"type": "user-metadata", "rest-uid": RUN}),
            [METADATA_DOCUMENT],
            "01.52",
        ),
        Case("nothing", ask({"type": "ghost"}), [], "02.140"),
    ),
    "cdb_get_document_experiment": (
        Case("", ask(instance=HERE), [DOCUMENT], "01.74"),
        Case("everything", ask(query={}), [dict], "02.137"),
    ),
    "cdb_get_document_component": (
        Case(
            "by reference",
            ask(component="stage0.Compute", instance=HERE),
            [COMPONENT],
            "01.55",
        ),
        Case(
            "files",
            ask(component="Compute", instance=HERE, give=files),
            ["component_performance.csv", "energies.csv", "molecules.csv", "out.stderr", "out.stdout"],
            "01.54",
            {
                "simulator": (
                    ["energies.csv", "molecules.csv", "out.stderr", "out.stdout"],
                    "the simulator measures no performance",
                )
            },
        ),
    ),
    "cdb_get_document_user_metadata": (Case("", ask(instance=HERE), [METADATA_DOCUMENT], "02.139"),),
    "cdb_get_document_experiment_for_rest_uid": (
        Case(
            "with properties",
            ask(RUN, include_properties=["*"]),
            {**DOCUMENT, "interface": {**DOCUMENT["interface"], "propertyTable": TABLE_OF_PROPERTIES}},
            "01.53",
        ),
        Case(
            "unknown run",
            ask("ghost"),
            Raises("NoMatchingDocumentError", None, "No matching document for query .*ghost"),
            "02.140",
        ),
    ),
    "cdb_get_document_user_metadata_for_rest_uid": (
        Case(
            "",
            ask(RUN),
            METADATA_DOCUMENT,
            "01.52",
        ),
        Case(
            "unknown run",
            ask("ghost"),
            Raises("NoMatchingDocumentError", None, "No matching document for query .*ghost"),
            "02.140",
        ),
    ),
    "cdb_get_user_metadata_document_for_rest_uid": (
        Case(
            "",
            ask(RUN),
            METADATA_DOCUMENT,
            "01.52",
        ),
    ),
    "cdb_upsert_user_metadata": (
        Case(
            "",
            ask(METADATA_HERE, {"quality": "good"}),
            Raises("AttributeError", None, "module 'copy' has no attribute 'deep_copy'"),
            "own",
        ),
    ),
    # Relationships
    "api_relationship_push": (
        Case("", ask(relationship("pushed", description="x"), first=push_related), RELATIONSHIP, "06.34"),
    ),
    "api_relationship_list": (
        Case(
            "",
            ask(first=relate("listed"), give=lambda found: found["listed"]),
            RELATIONSHIP,
            "06.35",
        ),
    ),
    "api_relationship_get": (
        Case(
            "",
            ask("got", first=relate("got")),
            RELATIONSHIP,
            "06.36",
        ),
        Case(
            "unknown relationship",
            ask("none"),
            Raises(REJECTED, 404, "Unknown relationship"),
            "06.37",
        ),
    ),
    "api_relationship_synthesize": (
        Case(
            "",
            ask("synthesized", {}, "both", first=relate("synthesized")),
            SYNTHESIZED,
            "06.41",
        ),
        Case(
            "unknown relationship",
            ask("none", {}, "both"),
            Raises(REJECTED, 400, r"\(HTTP status code 400\)none\. post Request"),
            "06.42",
        ),
    ),
    "api_relationship_delete": (
        Case(
            "",
            ask("deleted", first=relate("deleted")),
            re.compile(r'\{"deleted": 1\}\n'),
            "06.48",
        ),
        Case(
            "unknown relationship",
            ask("none"),
            Raises(REJECTED, 404, "Unknown relationship"),
            "06.49",
        ),
    ),
    # Cluster
    "api_datasets_list": (
        Case(
            "",
            ask(first=lambda run: run.api.api_datasets_create("listed", *BUCKET)),
            [str],
            "01.91",
        ),
    ),
    "api_datasets_create": (
        Case("", ask("new", *BUCKET), None, "06.63"),
        Case(
            "again",
            ask("twice", *BUCKET, first=lambda run: run.api.api_datasets_create("twice", *BUCKET)),
            Raises("ValueError", None, "Dataset twice already exists on http"),
            "01.92",
        ),
    ),
    "api_image_pull_secrets_list": (
        Case(
            "",
            ask(first=lambda run: run.api.api_image_pull_secrets_create("listed", **PULL)),
            {"*": [str]},
            "01.93",
        ),
    ),
    "api_image_pull_secrets_create": (
        Case("", ask("new", **PULL), None, "06.57"),
        Case(
            "again",
            ask("twice", **PULL, first=lambda run: run.api.api_image_pull_secrets_create("twice", **PULL)),
            Raises(REJECTED, 409, r"imagePullSecret already exists but .* available yet\. ImagePullSecret already"),
            "01.94",
        ),
    ),
    "api_image_pull_secrets_upsert": (
        Case(
            "",
            ask("again", **PULL, first=lambda run: run.api.api_image_pull_secrets_create("again", **PULL)),
            None,
            "01.95",
        ),
    ),
}
"""method -> calls of it."""
CASES = [(method, case) for method, cases in TABLE.items() for case in cases]
