"""
The schemas of a parameterised package and of the payload of a start.

Source:
    st4sd-runtime-service, ``apis/models/virtual_experiment.py`` and ``apis/models/common.py``. Fields that
    its replies hide by default (graphs, connections...) are taken as they come.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from st4sd_async.local.runtime.schema import (
    REQUIRED,
    TEXT,
    TEXT_OR_NUMBER,
    TEXTS,
    Anything,
    DictOf,
    ListOf,
    Model,
    Plain,
    Slot,
)

NAME_LENGTH = 57
"""Longest name of an experiment: a label of 64 characters less a suffix of seven."""
NAME_PATTERN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_ANY = Anything()


def _model(name: str, check: Any = None, /, **fields: Slot) -> Model:
    return Model(name, fields, check)


def _check_location(location: Mapping[str, Any]) -> str | None:
    if len([key for key in ("branch", "tag", "commit") if location.get(key) is not None]) > 1:
        return "location must not contain more than 1 of branch, tag, or commit"
    return None


def _check_option(option: Mapping[str, Any]) -> str | None:
    if option.get("value") and option.get("valueFrom"):
        return "Cannot provide both value and valueFrom"
    return None


def _check_name(package: Mapping[str, Any]) -> str | None:
    name = package.get("name")
    if name is None or (len(name) <= NAME_LENGTH and NAME_PATTERN.fullmatch(name)):
        return None
    return (
        f"Invalid metadata.package.name {name}. Names consist of lower-case letters, digits and dashes, "
        f"begin and end with a letter or digit, and have at most {NAME_LENGTH} characters"
    )


def _check_base(base: Mapping[str, Any]) -> str | None:
    names = [package["name"] for package in base["packages"]]
    double = next((name for name in names if names.count(name) > 1), None)
    return f"Multiple definitions of base package {double}" if double else None


_SECRET_REF = _model("OptionFromSecretKeyRef", key=Slot(TEXT), name=Slot(TEXT, REQUIRED))
_VALUE_FROM = _model(
    "OptionValueFrom",
    secretKeyRef=Slot(_SECRET_REF),
    datasetRef=Slot(_ANY),
    usernamePassword=Slot(_ANY),
    s3Ref=Slot(_ANY),
    s3SecretKeyRef=Slot(_ANY),
    volumeRef=Slot(_ANY),
)
_OPTION = _model("Option", name=Slot(TEXT), value=Slot(TEXT_OR_NUMBER), valueFrom=Slot(_VALUE_FROM))
_CHOICE = _model(
    "OptionValueFromMany",
    value=Slot(TEXT),
    secretKeyRef=Slot(_SECRET_REF),
    datasetRef=Slot(_ANY),
    usernamePassword=Slot(_ANY),
    s3Ref=Slot(_ANY),
    s3SecretKeyRef=Slot(_ANY),
)
_OPTION_MANY = _model("OptionMany", _check_option, name=Slot(TEXT), value=Slot(TEXT), valueFrom=Slot(ListOf(_CHOICE)))
_RESOURCES = _model("OrchestratorResources", cpu=Slot(TEXT), memory=Slot(TEXT))
_RUNTIME = _model("ParameterisationRuntime", resources=Slot(_RESOURCES, {}), args=Slot(TEXTS, []))

_LOCATION = _model(
    "SourceGitLocation",
    _check_location,
    url=Slot(TEXT, REQUIRED),
    branch=Slot(TEXT),
    tag=Slot(TEXT),
    commit=Slot(TEXT),
)
_GIT = _model(
    "BasePackageSourceGit",
    security=Slot(_model("BasePackageSourceGitSecurity", oauth=Slot(_OPTION))),
    location=Slot(_LOCATION, REQUIRED),
    version=Slot(TEXT),
)
_DATASET_INFO = _model("DatasetInfo", dataset=Slot(TEXT, REQUIRED))
_DATASET = _model(
    "BasePackageSourceDataset",
    location=Slot(_DATASET_INFO, REQUIRED),
    version=Slot(TEXT),
    security=Slot(_DATASET_INFO),
)
_REGISTRIES = ListOf(_model("DependencyImageRegistry", serverUrl=Slot(TEXT, REQUIRED), security=Slot(_OPTION)))
BASE_PACKAGE = _model(
    "BasePackage",
    name=Slot(TEXT, "main"),
    source=Slot(_model("BaseSource", git=Slot(_GIT), dataset=Slot(_DATASET), s3=Slot(_ANY)), {}),
    dependencies=Slot(_model("BasePackageDependencies", imageRegistries=Slot(_REGISTRIES, [])), {}),
    config=Slot(_model("BasePackageConfig", path=Slot(TEXT), manifestPath=Slot(TEXT)), {}),
    graphs=Slot(ListOf(_ANY), []),
)
_BASE = _model(
    "VirtualExperimentBase",
    _check_base,
    packages=Slot(ListOf(BASE_PACKAGE), []),
    connections=Slot(ListOf(_ANY), []),
    includePaths=Slot(ListOf(_ANY), []),
    output=Slot(ListOf(_ANY), []),
    interface=Slot(_ANY),
)

_NAMES = ListOf(_model("Option", name=Slot(TEXT)))
_DEFAULT = _model("ValueInPlatform", value=Slot(TEXT_OR_NUMBER, REQUIRED), platform=Slot(TEXT))
_VARIABLE = _model("VariableWithDefaultValues", name=Slot(TEXT, REQUIRED), valueFrom=Slot(ListOf(_DEFAULT), []))
_REGISTRY = _model(
    "MetadataRegistry",
    createdOn=Slot(TEXT),
    digest=Slot(TEXT),
    tags=Slot(TEXTS, []),
    timesExecuted=Slot(Plain(int), 0),
    interface=Slot(DictOf(_ANY), {}),
    inputs=Slot(_NAMES, []),
    data=Slot(_NAMES, []),
    containerImages=Slot(_NAMES, []),
    executionOptionsDefaults=Slot(_model("ExecutionOptionDefaults", variables=Slot(ListOf(_VARIABLE), [])), {}),
    platforms=Slot(TEXTS, []),
    output=Slot(_NAMES, []),
    applicationDependencies=Slot(DictOf(ListOf(_model("ApplicationDependency", name=Slot(TEXT, REQUIRED)))), {}),
)
_PACKAGE = _model(
    "MetadataPackage",
    _check_name,
    name=Slot(TEXT),
    tags=Slot(TEXTS, []),
    keywords=Slot(TEXTS, []),
    license=Slot(TEXT),
    maintainer=Slot(TEXT),
    description=Slot(TEXT),
)
_PRESETS = _model(
    "ParameterisationPresets",
    variables=Slot(ListOf(_OPTION), []),
    runtime=Slot(_RUNTIME, {}),
    data=Slot(ListOf(_OPTION), []),
    environmentVariables=Slot(ListOf(_OPTION), []),
    platform=Slot(TEXT),
)
_EXECUTION_OPTIONS = _model(
    "ParameterisationExecutionOptions",
    variables=Slot(ListOf(_OPTION_MANY), []),
    data=Slot(ListOf(_OPTION_MANY), []),
    runtime=Slot(_RUNTIME, {}),
    platform=Slot(TEXTS, []),
)
PARAMETERISATION = _model("Parameterisation", presets=Slot(_PRESETS, {}), executionOptions=Slot(_EXECUTION_OPTIONS, {}))

DEFINITION = _model(
    "ParameterisedPackage",
    base=Slot(_BASE, {}),
    metadata=Slot(_model("Metadata", package=Slot(_PACKAGE, {}), registry=Slot(_REGISTRY, {})), {}),
    parameterisation=Slot(PARAMETERISATION, {}),
)
"""What a push takes and what the store holds."""


def _check_file(file: Mapping[str, Any]) -> str | None:
    source, target = file.get("sourceFilename"), file.get("targetFilename")
    if file.get("filename") is not None and (source is not None or target is not None):
        return "filename is mutually exclusive with sourceFilename/targetFilename"
    if target is not None and "/" in target:
        return "Cannot contain / character"
    if file.get("volume") is not None and file.get("content") is not None:
        return "volume and content are mutually exclusive"
    if (source is None) != (target is None):
        return "If either targetFilename and sourceFilename is set, then both must be set"
    return None


_FILES = ListOf(
    _model(
        "OldFileContent",
        _check_file,
        filename=Slot(TEXT),
        content=Slot(TEXT),
        sourceFilename=Slot(TEXT),
        targetFilename=Slot(TEXT),
        volume=Slot(TEXT),
    )
)
_VOLUMES = ListOf(
    _model(
        "OldVolume",
        type=Slot(
            _model(
                "OldVolumeType",
                persistentVolumeClaim=Slot(TEXT),
                configMap=Slot(TEXT),
                dataset=Slot(TEXT),
                secret=Slot(TEXT),
            ),
            REQUIRED,
        ),
        applicationDependency=Slot(TEXT),
        subPath=Slot(TEXT),
        readOnly=Slot(Plain(bool), True),
        identifier=Slot(TEXT),
    )
)
_S3 = _model(
    "OldS3Credentials",
    dataset=Slot(TEXT),
    accessKeyID=Slot(TEXT),
    secretAccessKey=Slot(TEXT),
    bucket=Slot(TEXT),
    endpoint=Slot(TEXT),
    region=Slot(TEXT),
)

PAYLOAD = _model(
    "DeprecatedExperimentStartPayload",
    inputs=Slot(_FILES, []),
    data=Slot(_FILES, []),
    volumes=Slot(_VOLUMES, []),
    variables=Slot(DictOf(_ANY), {}),
    additionalOptions=Slot(TEXTS, []),
    environmentVariables=Slot(DictOf(_ANY), {}),
    orchestrator_resources=Slot(_RESOURCES, {"cpu": "1", "memory": "500Mi"}),
    metadata=Slot(DictOf(_ANY), {}),
    s3=Slot(_S3),
    s3Store=Slot(_model("OldS3Store", credentials=Slot(_S3), bucketPath=Slot(TEXT, "workflow_instances/"))),
    datasetStoreURI=Slot(TEXT),
    platform=Slot(TEXT),
    runtimePolicy=Slot(_model("PayloadExecutionRuntimePolicy", name=Slot(TEXT), config=Slot(DictOf(_ANY), {}))),
)
"""What a start takes."""
