"""
What is to be started in a batch, and how it goes into the journal: everything but its credentials.

Credentials are not written down. A script that goes on with a batch adds its launches again, and
brings them so; that they were renewed meanwhile is no change of the launch.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from .._api.registry import identifier_path
from .._errors import InvalidPayload, Problem
from .._payload.draft import Draft
from .._payload.prepare import prepare, resolve_drafts
from .._payload.validation import payload_type_error
from .._util.field_docs import document_fields
from .._util.printable import shorten
from ..models import Experiment, StartPayload
from .records import digest
from .state import METADATA_KEY, Row, State

WITHHELD = "[not kept]"
"""What stands in the journal where a credential stood."""
CREDENTIALS = (("s3", "accessKeyID"), ("s3", "secretAccessKey"), ("s3Store", "credentials"), ("environmentVariables",))
"""Where in a payload there are credentials; what is below counts too."""
PUBLIC = frozenset({"bucket", "endpoint", "region", "dataset"})
"""Fields of a bucket that are none."""
MOST_DIFFERENCES = 5
"""How many differences of two payloads are told."""

Secrets = Mapping[tuple[str, ...], Any]
"""Where in a payload -> the credential."""


@document_fields
@dataclass(frozen=True)
class Launch:
    """
    One thing to start in a batch.

    Launch("mol-1", "demo:latest", {"variables": {"scale": 2}})
    Launch(key="CCO / water", experiment=await client.push(package))
    Launch("mol-2", draft)  # as it is filled in now

    Raises:
        ValueError, TypeError: A field will not do; the payload is checked when the launch is added.
        MissingInputs: A draft lacks input files.
    """

    key: str
    """Your name for it, any text; within a journal it is started once, however often it is added."""
    experiment: str | Experiment | Draft
    """``name`` (which means ``name:latest``), ``name:tag``, ``name@digest``, or an `Experiment`. A `Draft` becomes the
    identifier and the payload that it is now."""
    payload: Mapping[str, Any] | StartPayload | Draft | None = field(default=None, repr=False)
    """As `Client.start` takes it; a `Draft` becomes the payload that it is now. Credentials in it (keys of ``s3`` and
    ``s3Store``, all ``environmentVariables``) are not written to the journal."""

    def __post_init__(self) -> None:
        """Check what can be checked at once."""
        if not isinstance(self.key, str):
            raise TypeError(f"key must be a text, not {self.key!r}")
        if not self.key or "\0" in self.key:
            raise ValueError(f"key must be a text that is not empty and holds no NUL, not {self.key!r}")
        if isinstance(self.experiment, Draft) or isinstance(self.payload, Draft):
            self._settle()
        if not isinstance(self.experiment, str | Experiment):
            raise TypeError(f"experiment must be an identifier or an Experiment, not {type(self.experiment).__name__}")
        try:
            self.key.encode()
        except UnicodeEncodeError:
            raise ValueError(f"key must be a text that UTF-8 can write, not {self.key!r}") from None
        if not isinstance(self.payload, Mapping | StartPayload | None):
            raise payload_type_error("payload must be a mapping, a StartPayload or None", self.payload)
        identifier_path(self.identifier)

    def _settle(self) -> None:
        """Take what drafts say now: they may be filled in anew for the next launch."""
        identifier, payload = resolve_drafts(self.experiment, self.payload)
        object.__setattr__(self, "experiment", identifier)
        object.__setattr__(self, "payload", payload)

    @property
    def identifier(self) -> str:
        """The identifier of the experiment."""
        return self.experiment if isinstance(self.experiment, str) else self.experiment.identifier


@dataclass(frozen=True)
class Entry:
    """A launch, ready for the journal."""

    row: Row
    content: str
    """The payload as JSON, without credentials."""
    secrets: Secrets
    """What was left out."""

    def is_as(self, row: Row) -> bool:
        """Whether it is the launch of this row."""
        return (row.experiment, row.payload) == (self.row.experiment, self.row.payload)


def each(launches: Iterable[Launch]) -> Iterator[Launch]:
    """The launches of a call; raises TypeError for what are none."""
    if isinstance(launches, Launch):
        raise TypeError(f"launches are an iterable of Launch: give [{launches!r}]")
    for launch in launches:
        if not isinstance(launch, Launch):
            raise TypeError(f"launches are an iterable of Launch, not of {type(launch).__name__}")
        yield launch


async def entry(launch: Launch, now: float) -> Entry:
    """
    What the journal keeps of a launch.

    Raises:
        InvalidPayload: As `Client.start`; or the payload uses the name under which our key travels.
    """
    try:
        prepared = await prepare(resolve_drafts(launch.experiment, launch.payload)[1])
        body = json.loads(prepared.content)
        if METADATA_KEY in (body.get("metadata") or {}):
            where = f"metadata.{METADATA_KEY}"
            raise InvalidPayload.before_sending([Problem(where, "a batch knows its runs by this name: use another")])
    except InvalidPayload as error:
        told = f"the launch {launch.key!r} was not added"
        raise type(error).before_sending(error.problems, error.names, told) from None
    secrets = {path: value for path, value in _leaves(body) if _is_secret(path)}
    content = json.dumps(_with(body, dict.fromkeys(secrets, WITHHELD)), sort_keys=True, ensure_ascii=False)
    return Entry(Row(launch.key, launch.identifier, digest(content), State.PLANNED, since=now), content, secrets)


def needs(content: str) -> bool:
    """Whether a payload of the journal lacks credentials."""
    return WITHHELD in content and any(_is_secret(path) for path, _ in _leaves(json.loads(content)))


def body(content: str, secrets: Secrets, token: str) -> dict[str, Any]:
    """The payload to send: with its credentials, and with our key."""
    whole = _with(json.loads(content), secrets)
    return {**whole, "metadata": {**(whole.get("metadata") or {}), METADATA_KEY: token}}


def differences(before: Row, was: str, after: Row, is_now: str) -> str:
    """What tells two launches with the same key apart; file contents are not quoted."""
    old, new = dict(_leaves(json.loads(was))), dict(_leaves(json.loads(is_now)))
    told = []
    if before.experiment != after.experiment:
        told.append(f"experiment was {before.experiment!r} and is {after.experiment!r}")
    changed = [path for path in {**old, **new} if old.get(path, _NOTHING) != new.get(path, _NOTHING)]
    told += [f"{'.'.join(path)} was {_shown(path, old)} and is {_shown(path, new)}" for path in changed]
    more = [f"and {len(told) - MOST_DIFFERENCES} more"] if len(told) > MOST_DIFFERENCES else []
    return "; ".join([*told[:MOST_DIFFERENCES], *more])


_NOTHING = object()


def _shown(path: tuple[str, ...], values: Mapping[tuple[str, ...], Any]) -> str:
    if path not in values:
        return "absent"
    value = values[path]
    return f"a text of {len(value)} characters" if path[-1] == "content" else shorten(repr(value), 60)


def _leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """All values in a JSON value that hold no others, with the way to them."""
    if isinstance(value, dict | list) and value:
        parts = value.items() if isinstance(value, dict) else enumerate(value)
        for name, inner in parts:
            yield from _leaves(inner, (*path, str(name)))
    elif path:
        yield path, value


def _is_secret(path: tuple[str, ...]) -> bool:
    return any(path[: len(where)] == where for where in CREDENTIALS) and (
        path[0] == "environmentVariables" or path[-1] not in PUBLIC
    )


def _with(value: Any, changes: Mapping[tuple[str, ...], Any]) -> Any:
    """A JSON object with other values at some places."""
    if not changes:
        return value
    copy = json.loads(json.dumps(value))
    for path, new in changes.items():
        here = copy
        for name in path[:-1]:
            here = here[name]
        here[path[-1]] = new
    return copy
