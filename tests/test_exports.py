"""Public names, and their documentation."""

from __future__ import annotations

import dataclasses
import inspect
import pydoc
import re
from collections.abc import Iterable, Iterator
from enum import Enum
from typing import Any

import pydantic
import pytest

import st4sd_async
import st4sd_async.sync
from st4sd_async import Config, ExitStatus, Instance, Problem, Run, St4sdError, StartPayload, _errors, models
from tests.tries import IS_FULL

WHOLE: tuple[type, ...] = (Instance, StartPayload, ExitStatus, Config, Problem, St4sdError, Run, st4sd_async.sync.Run)
"""Classes whose whole help is looked at, which takes long."""

# fmt: off
NAMES = [
    "APIError", "AlreadyExists", "BadRequest", "Batch", "BucketMemory",
    "CannotUntagLatest", "Client",
    "ComponentDocument", "ComponentFailure", "ComponentReport", "Config", "ConfigError", "Conflict", "ConnectFailed",
    "ConnectionLost", "CredentialUnavailable", "DecodeError", "DigestMismatch", "Disabled", "Download", "DownloadError",
    "DownloadFailed", "Draft", "ExitStatus", "Experiment", "ExperimentDocument", "ExperimentState",
    "ExtraInputs", "Failure", "FileContent", "FolderMemory",
    "GLOBAL_REGISTRY", "GraphExists", "Hint", "ImportedExperiment",
    "InaccessibleRegistries", "InputConflict", "Instance", "Interface", "InvalidDSL",
    "InvalidDefinition", "InvalidFlowIR", "InvalidGraph", "InvalidName", "InvalidPackage",
    "InvalidPayload", "InvalidQuery", "InvalidRelationship", "Item", "JournalCorrupt", "JournalError",
    "JournalLocked", "KeyOutput", "LambdaPayload", "Launch", "LaunchConflict", "LaunchProblem", "LocalDeployment",
    "Memory",
    "MissingInputs", "MissingRequirements", "NameTaken", "MissingCredentials", "NoProperties", "NoToken",
    "NotAFolder", "NotFound", "NotReady", "Outage", "OutcomeUnknown", "Output", "OutsideOfFolder", "PackageProblem",
    "PayloadTooLarge", "Problem", "Progress", "ProgressBars", "ProgressUpdate", "Properties", "RateLimited", "Reason",
    "Relationship", "RelationshipPayload", "RequestEvent", "Requirement", "ResponseEvent", "RetryEvent", "RetryPolicy",
    "Run", "RunDeleted",
    "RunFailed", "S3", "S3Error", "S3Store", "SchemaMismatch", "ServerError", "St4sdError", "StageState", "Staged",
    "StartOutcomeUnknown", "StartPayload", "Status", "StatusReport", "Table", "RequestTimeout",
    "Transport", "TransportError", "Unauthorized", "UnknownExperiment", "UnknownGraph", "UnknownOutput",
    "UnknownProperty", "UnknownPullSecret", "UnknownRelationship", "UnknownRun", "UnknownRuntimePolicy",
    "UnknownService", "UnsafeArchive", "UserMetadata", "Volume", "WaitTimeout", "check",
]
# fmt: on


def test_the_facade_exports_exactly_these_names() -> None:
    """A change of the public names must change this list too."""
    differing = set(st4sd_async.__all__) ^ set(NAMES)
    assert sorted(st4sd_async.__all__) == sorted(NAMES), f"if this is meant, change NAMES too: {sorted(differing)}"
    missing = [name for name in NAMES if not hasattr(st4sd_async, name)]
    assert missing == [], "add to the table of lazy_attributes in st4sd_async/__init__.py"


def test_every_error_can_be_imported_from_the_package() -> None:
    """Users need no private module to catch an error."""
    errors = {
        name
        for name, cls in vars(_errors).items()
        if inspect.isclass(cls) and issubclass(cls, Exception) and cls.__module__ == _errors.__name__
    }

    missing = errors - set(st4sd_async.__all__)
    assert missing == set(), "add to the three lists in st4sd_async/__init__.py"


def test_every_error_is_in_the_tree_of_the_docstring() -> None:
    """The tree at the top of the module is complete."""
    errors = {name for name, cls in vars(_errors).items() if inspect.isclass(cls) and issubclass(cls, St4sdError)}

    missing = errors - set(re.findall(r"\w+", _errors.__doc__ or ""))
    assert missing == set(), "add to the tree at the top of _errors.py"


def test_models_have_every_name_of_their_list() -> None:
    """`st4sd_async.models.__all__` has no missing names."""
    missing = [name for name in models.__all__ if not hasattr(models, name)]
    assert missing == [], "add to the table of lazy_attributes in models/__init__.py"


@pytest.mark.slow
def test_everything_public_has_a_docstring() -> None:
    """Every public class, method and function."""
    undocumented = []
    for name in NAMES:
        thing = getattr(st4sd_async, name)
        if not inspect.getdoc(thing):
            undocumented.append(name)
        for attribute, member in vars(thing).items() if inspect.isclass(thing) else ():
            if inspect.isfunction(member) and not attribute.startswith("_") and not member.__doc__:
                undocumented.append(f"{name}.{attribute}")

    assert undocumented == []


def public_classes() -> list[type]:
    """Return the public classes, and all models, which are the fields of public ones."""
    facades = (st4sd_async, st4sd_async.sync, models)
    things = {getattr(facade, name, None) for facade in facades for name in facade.__all__}
    named = {thing for thing in things if inspect.isclass(thing)}
    found = named | {cls for base in (models.Reply, models.Payload, models.Word) for cls in subclasses(base)}
    return sorted(found, key=lambda cls: f"{cls.__module__}.{cls.__qualname__}")


def subclasses(cls: type[Any]) -> Iterator[type[Any]]:
    for below in cls.__subclasses__():
        yield below
        yield from subclasses(below)


def fields_of(cls: Any) -> Iterable[str]:
    """Return the public fields of a dataclass, a model, a named tuple or an enum."""
    if issubclass(cls, Enum):
        return list(cls.__members__)
    if issubclass(cls, pydantic.BaseModel):
        names: Iterable[str] = cls.model_fields
    elif dataclasses.is_dataclass(cls):
        names = [field.name for field in dataclasses.fields(cls)]
    else:
        names = getattr(cls, "_fields", ())
    return [name for name in names if not name.startswith("_")]


def test_the_methods_of_a_run_say_what_they_do() -> None:
    """Nobody needs to look up the method of the client to call one."""
    verbs = {name: inspect.getdoc(member) or "" for name, member in vars(Run).items() if inspect.isfunction(member)}
    meanings = {name: text for name, text in verbs.items() if not name.startswith("_")}

    assert len(meanings) > 15
    assert [name for name, text in meanings.items() if "\n" not in text or "see `" in text] == []


def without_meaning(cls: type, shown: str, margin: str) -> list[str]:
    """Return the public fields of a class whose text its help does not show in its only section of fields."""
    assert len(re.findall(rf"^{margin}Attributes:", shown, re.MULTILINE)) <= 1, cls
    return [name for name in fields_of(cls) if not re.search(rf"^{margin}    {name}: \S", shown, re.MULTILINE)]


@pytest.mark.parametrize("cls", public_classes() if IS_FULL else WHOLE, ids=lambda cls: cls.__qualname__)
def test_help_shows_the_meaning_of_every_field(cls: type) -> None:
    """`help()` shows the text of each public field, in one section."""
    assert without_meaning(cls, pydoc.plain(pydoc.render_doc(cls)), r" \|  ") == []


def test_the_docstring_has_the_meaning_of_every_field() -> None:
    """It is the part of the help that has the section, in each public class."""
    missing = {cls: without_meaning(cls, pydoc.getdoc(cls), "") for cls in public_classes()}

    assert {cls: names for cls, names in missing.items() if names} == {}


def test_one_class_of_each_kind_is_shown_as_a_whole() -> None:
    """A model, a payload, an enumeration, a dataclass, a named tuple, an error, and a class of each API."""
    assert set(WHOLE) <= set(public_classes())
    assert all(fields_of(cls) for cls in WHOLE[:5])
