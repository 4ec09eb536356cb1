"""What the registry tells of experiments besides their definitions: versions, queries, DSL, inheritance."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal

import pydantic

from .. import models
from .._errors import InvalidDSL, InvalidQuery, NotFound, UnknownExperiment, UnknownRelationship
from .._http.call import Call, Response, model, nothing, segment
from .._http.retry import Replay
from .._util.printable import is_writable
from ..models import Experiment, ExperimentList
from ._base import complaints, definition_body, mapping

if TYPE_CHECKING:
    from ..models import History, Inheritance

Side = Literal["input", "output"]
"""The two graphs of a relationship."""


def identifier_path(identifier: str) -> str:
    """The path of one experiment: ``name``, ``name:tag`` or ``name@digest``."""
    path = f"experiments/{segment(identifier, 'the identifier of an experiment')}"
    # The service answers 500, also to a start, which would leave it open whether an instance was started.
    if ":" in identifier and "@" in identifier:
        raise ValueError(f"the identifier of an experiment has a tag or a digest, not both: {identifier!r}")
    return path


def display_params(*, registry: bool = True, nulls: bool = False, beta: bool = False) -> dict[str, str] | None:
    """The query parameters for how experiments are shown; None for the service's own manner."""
    params = {
        **({} if registry else {"hideMetadataRegistry": "y"}),
        **({"hideNone": "n"} if nulls else {}),
        **({"hideBeta": "n"} if beta else {}),
    }
    return params or None


def printed_call(identifier: str, *, pretty: bool) -> Call[str]:
    """One experiment as the text of a Python dictionary."""
    params = {"outputFormat": "python-pretty" if pretty else "python"}
    return Call("GET", identifier_path(identifier), _entry_text, params=params, not_found_error=UnknownExperiment)


def tag_call(identifier: str, tags: Iterable[str]) -> Call[None]:
    """Tags to give to an experiment in place of those it has."""
    if isinstance(tags, str) or not isinstance(tags, Iterable):
        raise TypeError(f"tags are a list of texts, not {'the text ' if isinstance(tags, str) else ''}{tags!r}")
    names = [_tag(tag) for tag in tags]
    if not names:
        raise ValueError("name at least one tag: the service cannot take all of them away")
    return Call(
        "PUT",
        f"{identifier_path(identifier)}/tag",
        nothing,
        replay=Replay.REPEAT,
        params={"newTags": ",".join(names)},
        not_found_error=UnknownExperiment,
    )


def _tag(tag: str) -> str:
    if not is_tag(tag):
        raise ValueError(f"a tag is a text without commas, not {tag!r}")
    return tag


def is_tag(value: Any) -> bool:
    """Return whether the service takes a value as a tag."""
    return isinstance(value, str) and bool(value.strip()) and "," not in value and is_writable(value)


def history_call(name: str) -> Call[History]:
    """The versions of an experiment; the service gives empty lists for a name it does not know."""
    if isinstance(name, str) and (":" in name or "@" in name):
        raise ValueError(f"the history is that of a name, without tag and digest, not of {name!r}")
    return Call("GET", f"{identifier_path(name)}/history", model(models.History), not_found_error=UnknownExperiment)


def dsl_call(identifier: str) -> Call[dict[str, Any]]:
    """The definition of an experiment in DSL 2.0."""
    path = f"{identifier_path(identifier)}/dsl"
    return Call("GET", path, _dsl, is_slow=True, not_found_error=UnknownExperiment, bad_request_error=InvalidDSL)


def dsl_text_call(identifier: str) -> Call[str]:
    """The same as YAML."""
    path = f"{identifier_path(identifier)}/dsl"
    params = {"outputFormat": "yaml"}
    return Call(
        "GET",
        path,
        _dsl_text,
        params=params,
        is_slow=True,
        not_found_error=UnknownExperiment,
        bad_request_error=InvalidDSL,
    )


def inheritance_call(identifier: str) -> Call[Inheritance]:
    """Where the variables of an experiment with several base packages have their values from."""
    path = f"{identifier_path(identifier)}/package-inheritance"
    return Call("GET", path, model(models.Inheritance, "result"), is_slow=True, not_found_error=UnknownExperiment)


def query_call(
    *,
    package: Mapping[str, Any] | None,
    relationship: str | None,
    side: Side,
    match_version: bool,
    alone: bool,
) -> Call[ExperimentList]:
    """The experiments that are made of a base package; all of them if none is named."""
    if package is not None and relationship is not None:
        raise ValueError("name the base package or the relationship that has it, not both")
    if side not in ("input", "output"):
        raise ValueError(f"side is 'input' or 'output', not {side!r}")
    query: dict[str, Any] = {}
    if package is not None:
        query["package"] = {"definition": mapping("base package", package)}
    if relationship is not None:
        if not isinstance(relationship, str) or not relationship:
            raise ValueError(f"relationship is the identifier of one, a text, not {relationship!r}")
        match = {"matchInputGraph": side == "input", "matchOutputGraph": side == "output"}
        query["relationship"] = {"identifier": relationship, "transform": match}
    if query:
        query["common"] = {"matchPackageVersion": match_version, "mustHaveOnePackage": alone}
    content = definition_body("query", query, InvalidQuery)
    return Call(
        "POST", "query/experiments/", listed, content=content, bad_request_error=InvalidQuery, error_from_message=_told
    )


def _told(message: str) -> type[NotFound] | None:
    return UnknownRelationship if message.startswith("Unknown relationship") else None


def listed(response: Response) -> ExperimentList:
    """The experiments in a reply that has ``entries`` and ``problems``."""
    body = response.json()
    entries, problems = [], complaints(body)
    for entry in body["entries"]:
        # The service returns invalid entries as they are; one of them must not hide the others.
        try:
            entries.append(Experiment.model_validate(entry))
        except pydantic.ValidationError as error:
            problems.append(
                {"entry": entry, "problem": f"cannot be read: {error.error_count()} fields are not as documented"}
            )
    return ExperimentList(entries, problems, body)


def _entry_text(response: Response) -> str:
    return _text(response.json()["entry"])


def _dsl_text(response: Response) -> str:
    return _text(_dsl_in(response))


def _dsl_in(response: Response) -> Any:
    """The DSL in a good reply, which a stored definition that will not do gets too."""
    body = response.json()
    if body.get("dsl") is None and body.get("problems"):
        raise InvalidDSL("the definition in the registry will not do", detail=body)
    return body["dsl"]


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("no text")
    return value


def _dsl(response: Response) -> dict[str, Any]:
    dsl = _dsl_in(response)
    if not isinstance(dsl, dict):
        raise ValueError("no DSL")
    return dsl
