"""The public names are what they are on purpose."""

from __future__ import annotations

import inspect

import st4sd_async
from st4sd_async import _errors, models

# fmt: off
NAMES = [
    "APIError", "AlreadyExists", "BadRequest", "Batch", "CannotUntagLatest", "Client",
    "ComponentDocument", "ComponentReport", "Config", "ConfigError", "Conflict", "ConnectFailed",
    "ConnectionLost", "CredentialUnavailable", "DecodeError", "DigestMismatch", "Disabled", "Download", "DownloadError",
    "DownloadFailed", "Draft", "ExitStatus", "Experiment", "ExperimentDocument", "ExperimentState",
    "ExtraInputs", "FileContent", "GLOBAL_REGISTRY", "GraphExists", "Hint", "ImportedExperiment",
    "InaccessibleRegistries", "InputConflict", "Instance", "Interface", "InvalidDSL",
    "InvalidDefinition", "InvalidFlowIR", "InvalidGraph", "InvalidName", "InvalidPackage",
    "InvalidPayload", "InvalidQuery", "InvalidRelationship", "Item", "JournalCorrupt", "JournalError",
    "JournalLocked", "KeyOutput", "LambdaPayload", "Launch", "LaunchConflict", "LocalDeployment",
    "MissingInputs", "MissingRequirements", "NameTaken", "MissingCredentials", "NoProperties", "NoToken",
    "NotAFolder", "NotFound", "NotReady", "OutcomeUnknown", "Output", "OutsideOfFolder",
    "PayloadTooLarge", "Problem", "Progress", "ProgressBars", "ProgressUpdate", "Properties", "RateLimited", "Reason",
    "Relationship", "RelationshipPayload", "Requirement", "RetryPolicy", "Run", "RunDeleted",
    "RunFailed", "S3", "S3Error", "S3Store", "ServerError", "St4sdError", "StageState", "Staged",
    "StartOutcomeUnknown", "StartPayload", "Status", "StatusReport", "Table", "RequestTimeout",
    "TransportError", "Unauthorized", "UnknownExperiment", "UnknownGraph", "UnknownOutput",
    "UnknownProperty", "UnknownPullSecret", "UnknownRelationship", "UnknownRun", "UnknownRuntimePolicy",
    "UnknownService", "UnsafeArchive", "UserMetadata", "Volume", "WaitTimeout",
]
# fmt: on


def test_the_facade_exports_exactly_these_names() -> None:
    """Whoever changes what users can import changes this list too."""
    assert sorted(st4sd_async.__all__) == sorted(NAMES)
    assert all(hasattr(st4sd_async, name) for name in NAMES)


def test_every_error_can_be_imported_from_the_package() -> None:
    """Users catch errors by names of the package, never of a private module."""
    errors = {
        name
        for name, cls in vars(_errors).items()
        if inspect.isclass(cls) and issubclass(cls, Exception) and cls.__module__ == _errors.__name__
    }

    assert errors <= set(st4sd_async.__all__)


def test_every_error_stands_in_the_tree_of_the_docstring() -> None:
    """The tree at the top of the module is the whole tree."""
    tree = _errors.__doc__ or ""

    for name, cls in vars(_errors).items():
        if inspect.isclass(cls) and issubclass(cls, _errors.St4sdError):
            assert name in tree


def test_models_export_what_they_list() -> None:
    """`st4sd_async.models` has every name of its list."""
    assert all(hasattr(models, name) for name in models.__all__)


def test_every_public_thing_says_what_it_is() -> None:
    """No public class, method or function is without a docstring."""
    bare = []
    for name in NAMES:
        thing = getattr(st4sd_async, name)
        if not inspect.getdoc(thing):
            bare.append(name)
        for attribute, member in vars(thing).items() if inspect.isclass(thing) else ():
            if inspect.isfunction(member) and not attribute.startswith("_") and not member.__doc__:
                bare.append(f"{name}.{attribute}")

    assert bare == []
