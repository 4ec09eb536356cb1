"""Which error a refusal means: one table over the keys of its body and one over HTTP statuses."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from .._errors import (
    AlreadyExists,
    APIError,
    BadRequest,
    CannotUntagLatest,
    Conflict,
    Disabled,
    ExtraInputs,
    GraphExists,
    InaccessibleRegistries,
    InputConflict,
    InvalidDefinition,
    InvalidFlowIR,
    InvalidName,
    InvalidPackage,
    InvalidPayload,
    LocalDeployment,
    MissingInputs,
    NoProperties,
    NotAFolder,
    NotFound,
    NotReady,
    OutsideOfFolder,
    PayloadTooLarge,
    Problem,
    RateLimited,
    ServerError,
    Unauthorized,
    UnknownExperiment,
    UnknownGraph,
    UnknownOutput,
    UnknownRelationship,
    UnknownRun,
    UnknownRuntimePolicy,
    parse_problems,
    parse_refused_entries,
)
from .._util.did_you_mean import did_you_mean

# Which body key means what, in the order they are looked for. Source: error replies of the runtime
# service, which tell situations apart by a key of the JSON body and not by the HTTP status.
_BY_KEY: tuple[tuple[str, type[APIError]], ...] = (
    ("unknownExperiment", UnknownExperiment),
    ("packageNotFound", UnknownExperiment),
    ("parameterisedPackageNotFound", UnknownExperiment),
    ("unknownRestUID", UnknownRun),
    ("unknownInstanceId", UnknownRun),
    ("unknownOutput", UnknownOutput),
    ("missingPath", UnknownOutput),
    ("outputsReady", NotReady),
    ("isFolder", NotAFolder),
    ("fileInFolder", OutsideOfFolder),
    ("propertiesNotAvailableYet", NotReady),
    ("unknownProperties", NoProperties),
    ("unknownRuntimePolicyName", UnknownRuntimePolicy),
    ("unknownRelationship", UnknownRelationship),
    ("relationshipNotFound", UnknownRelationship),
    ("missingInputs", MissingInputs),
    ("extraInputs", ExtraInputs),
    ("dataInputConflicts", InputConflict),
    ("inaccessibleContainerRegistries", InaccessibleRegistries),
    ("flowirErrors", InvalidFlowIR),
    ("invalidStartPayload", InvalidPayload),
    ("invalidVirtualExperimentDefinition", InvalidPackage),
    ("experimentNamingRule", InvalidName),
    ("invalidExperimentID", InvalidName),
    ("experimentIDAlreadyExists", AlreadyExists),
    ("cannotUntagLatestFrom", CannotUntagLatest),
    ("localDeployment", LocalDeployment),
)

_VAGUE: tuple[tuple[str, type[APIError]], ...] = (("problem", InvalidPackage), ("problems", InvalidDefinition))
"""Keys that many routes use, so that what the call says of a 400 goes before them."""

_FILES: tuple[tuple[str, type[InvalidPayload]], ...] = (
    ("missingInputs", MissingInputs),
    ("extraInputs", ExtraInputs),
    ("dataInputConflicts", InputConflict),
)
"""Keys under which files are named."""
_CONFLICT = "Input and Data files with conflicting names: "
"""What a start says in place of ``dataInputConflicts``, with the list of names as Python writes it."""
_QUOTED = re.compile(r"""'([^'\\]*)'|"([^"\\]*)\"""")
"""A text in a list as Python writes it."""
_ACCOUNTS = ("invalidStartPayload", "invalidVirtualExperimentDefinition")
"""Keys of the account of a check, of which the message beside it tells nothing."""

_BY_STATUS: Mapping[int, type[APIError]] = {
    400: BadRequest,
    401: Unauthorized,
    403: Unauthorized,
    404: NotFound,
    409: Conflict,
    413: PayloadTooLarge,
    429: RateLimited,
}


def error_class(status: int, detail: Mapping[str, Any]) -> type[APIError] | None:
    """The class for a refusal with this HTTP status and this JSON body ({} if it had none); None: nothing tells."""
    if status in (401, 403):
        return Unauthorized
    for key, cls in _BY_KEY:
        if key in detail:
            return cls
    if "graphName" in detail:
        return GraphExists if status == 409 else UnknownGraph
    if str(detail.get("reason", "")).startswith(_CONFLICT.rstrip(": ")):
        return InputConflict
    message = str(detail.get("message", ""))
    if status == 400 and message.endswith("try again later"):
        return NotReady
    if status == 400 and "is disabled - contact the administrator" in message:
        return Disabled
    return None


def general_class(status: int, detail: Mapping[str, Any]) -> type[APIError]:
    """The class for a refusal of which neither a key of its own nor the call tells anything."""
    if status == 400:
        return next((cls for key, cls in _VAGUE if key in detail), BadRequest)
    return _BY_STATUS.get(status, ServerError if status >= 500 else BadRequest if status >= 400 else APIError)


def error_names(detail: Mapping[str, Any]) -> tuple[str, ...]:
    """The file names that a refusal is about, () if it does not say."""
    return next((names for key, _ in _FILES if (names := _files(detail, key))), ())


def error_problems(detail: Mapping[str, Any]) -> tuple[Problem, ...]:
    """What is wrong with a start payload, entry by entry, () if the refusal does not say."""
    needed = _files(detail, "missingInputs")
    files = [
        Problem("inputs", cls.remedy.format(name) + (did_you_mean(name, needed) if cls is ExtraInputs else ""))
        for key, cls in _FILES
        for name in _files(detail, key)
    ]
    return tuple(files) or error_account(detail) or parse_refused_entries(str(detail.get("message", "")))


def error_account(detail: Mapping[str, Any]) -> tuple[Problem, ...]:
    """What a check found, of which the message beside it tells nothing."""
    return parse_problems(next((str(detail[key]) for key in _ACCOUNTS if detail.get(key)), ""))


def _files(detail: Mapping[str, Any], key: str) -> tuple[str, ...]:
    names = detail.get(key)
    if names is None and key == "dataInputConflicts":
        _, _, words = str(detail.get("reason", "")).partition(_CONFLICT)
        names = [single or double for single, double in _QUOTED.findall(words)]
    return tuple(str(name) for name in names) if isinstance(names, list) else ()
