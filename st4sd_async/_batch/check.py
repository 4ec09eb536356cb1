"""Check launches before any of them is sent."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from .._api.experiments import get_call, list_call, similar_identifier
from .._errors import APIError, DecodeError, InvalidPackage, Problem, TransportError, UnknownExperiment
from .._payload.check import find_start_problems
from .._payload.prepare import resolve_drafts
from .._util.did_you_mean import DID_YOU_MEAN, did_you_mean
from .._util.field_docs import document_fields
from .._util.printable import one_line
from ..models import Experiment, ExperimentList
from .launch import Launch, reserved_names
from .state import METADATA_KEY, token

if TYPE_CHECKING:
    from .._http.session import ClientSession


@document_fields
class LaunchProblem(NamedTuple):
    """One problem of a launch that was checked; ``str()`` shows it on one line."""

    position: int | None
    """Position of the launch among those checked, from 0. None means that the problem concerns several of them."""
    key: str
    """Key of the launch; "" if the problem concerns several."""
    where: str
    """The entry, such as ``variables.scale``, ``inputs[0].content``, ``experiment``, ``key`` or ``outputs``."""
    what: str
    """The problem, and how to fix it."""

    def __str__(self) -> str:
        return one_line(": ".join(filter(None, (repr(self.key) if self.key else "", self.where, self.what))))


Definitions = Mapping[str, Experiment | Problem]
"""Identifier -> the experiment, or why there is none."""


async def fetch_definitions(session: ClientSession, launches: Iterable[Launch]) -> Definitions:
    """
    Return the experiments of launches by identifier. Each is requested once, and the list once if one is unknown.

    An `Experiment` with its registry metadata is not requested.
    """
    found: dict[str, Experiment | Problem] = {}
    unknown: list[str] = []
    for identifier, given in {launch.identifier: launch.experiment for launch in launches}.items():
        try:
            if isinstance(given, Experiment) and given.digest:
                found[identifier] = given
            else:
                found[identifier] = await _fetch(session, identifier)
        except UnknownExperiment:
            unknown.append(identifier)
        except InvalidPackage as error:
            found[identifier] = Problem("experiment", str(error))
    known = ExperimentList([], [], {})
    if unknown:
        with suppress(APIError, TransportError, DecodeError):  # the suggestion is optional
            known = await session.send_once(list_call())
    for identifier in unknown:
        similar = similar_identifier(identifier, known)
        suggestion = "" if similar is None else f": {DID_YOU_MEAN} {similar!r}?"
        found[identifier] = Problem("experiment", f"the registry has no experiment {identifier!r}{suggestion}")
    return found


async def _fetch(session: ClientSession, identifier: str) -> Experiment:
    return await session.send(get_call(identifier))


async def find_launch_problems(launch: Launch, definition: Experiment | Problem) -> list[Problem]:
    """
    Return all problems of a launch. Reads its files and sends nothing.

    Args:
        launch: The launch.
        definition: Its experiment, or why there is none. Without it, the payload is checked only in itself.
    """
    experiment = None if isinstance(definition, Problem) else definition
    payload = resolve_drafts(launch.experiment, launch.payload)[1]
    # A token of any journal has the same length.
    found = await find_start_problems(experiment, payload, {METADATA_KEY: token("", launch.key, 1)})
    return [*([definition] if isinstance(definition, Problem) else []), *reserved_names(payload), *found]


def find_output_problems(names: Iterable[str], definitions: Definitions) -> list[Problem]:
    """Return the problems of key-outputs that are to be downloaded: one for each experiment that lacks one."""
    problems = []
    for identifier, experiment in definitions.items():
        if isinstance(experiment, Problem):
            continue
        known = [output.name for output in experiment.metadata.registry.output if output.name]
        problems += [
            Problem("outputs", f"{identifier} has no key-output {name!r}, only {known}{did_you_mean(name, known)}")
            for name in names
            if name not in known
        ]
    return problems
