"""
A launch as a user passes it to a batch, and as the journal stores it: without credentials.

Credentials are never written. A script that resumes a batch adds its launches again, with their credentials. A launch
with renewed credentials is still the same launch.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Self, overload

from .._api.experiments import identifier_path
from .._errors import InvalidPayload, Problem
from .._payload.draft import Draft
from .._payload.options import FileInput, payload_of
from .._payload.prepare import check_body, payload_type_error, prepare, resolve_drafts, validate_payload
from .._util.field_docs import document_fields
from .._util.printable import shorten
from ..models import Experiment, StartPayload
from .schema import digest
from .state import METADATA_KEY, RESERVED_METADATA, LaunchRecord, State
from .sweep import grid, point_key

CREDENTIAL_PLACEHOLDER = "[not kept]"
"""Stored in the journal in place of a credential."""
CREDENTIAL_PATHS = (
    ("s3", "accessKeyID"),
    ("s3", "secretAccessKey"),
    ("s3Store", "credentials"),
    ("environmentVariables",),
)
"""Paths of credentials in a payload, everything below included."""
PUBLIC_FIELDS = frozenset({"bucket", "endpoint", "region", "dataset"})
"""Fields of a bucket that are not credentials."""
MAX_DIFFERENCES = 5
"""Maximum number of differences between two payloads in a message."""

PayloadCredentials = Mapping[tuple[str, ...], Any]
"""Path in a payload -> the credential."""


@document_fields
@dataclass(frozen=True, init=False)
class Launch:
    """
    One experiment to start in a batch, identified by a key.

        Launch("mol-1", "demo", inputs={"molecules.csv": Path("molecules.csv")}, variables={"scale": 2})
        Launch("mol-1", "demo:latest", {"variables": {"scale": 2}})  # a whole payload
        Launch(key="CCO / water", experiment=await client.push(package))
        Launch("mol-2", draft)  # with the values that it has now

    Raises:
        ValueError, TypeError: A field is invalid. The payload is checked when the launch is added.
        MissingInputs: A draft lacks input files.
    """

    key: str
    """Any text that identifies the launch. A journal starts each key once, however often it is added."""
    experiment: str | Experiment | Draft
    """
    ``name`` (which means ``name:latest``), ``name:tag``, ``name@digest``, or an `Experiment`.

    A `Draft` is converted to its identifier and payload at once.
    """
    payload: Mapping[str, Any] | StartPayload | Draft | None = field(default=None, repr=False)
    """
    The payload, as in `Client.start`. A `Draft` is converted to its payload at once.

    Instead of a payload, the keyword arguments of `Client.start` can be given (``inputs``, ``data``, ``variables``,
    ``platform``, ``metadata``). They become the payload.

    Credentials in it (keys of ``s3`` and ``s3Store``, all ``environmentVariables``) are not written to the journal.
    """

    @overload
    def __init__(
        self,
        key: str,
        experiment: str | Experiment | Draft,
        payload: Mapping[str, Any] | StartPayload | Draft | None = None,
    ) -> None: ...
    @overload
    def __init__(
        self,
        key: str,
        experiment: str | Experiment | Draft,
        *,
        inputs: Mapping[str, FileInput] | None = None,
        data: Mapping[str, FileInput] | None = None,
        variables: Mapping[str, Any] | None = None,
        platform: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> None: ...
    def __init__(
        self,
        key: str,
        experiment: str | Experiment | Draft,
        payload: Mapping[str, Any] | StartPayload | Draft | None = None,
        *,
        inputs: Mapping[str, FileInput] | None = None,
        data: Mapping[str, FileInput] | None = None,
        variables: Mapping[str, Any] | None = None,
        platform: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        whole = payload_of(payload, inputs=inputs, data=data, variables=variables, platform=platform, metadata=metadata)
        self.__dict__.update(key=key, experiment=experiment, payload=whole)
        self._check()

    def _check(self) -> None:
        """Check the fields, and convert drafts, because the caller may reuse a draft for the next launch."""
        if not isinstance(self.key, str):
            raise TypeError(f"key must be a string, not {self.key!r}")
        if not self.key or "\0" in self.key:
            raise ValueError(f"key must be a string that is not empty and has no NUL, not {self.key!r}")
        if isinstance(self.experiment, Draft) or isinstance(self.payload, Draft):
            identifier, payload = resolve_drafts(self.experiment, self.payload)
            object.__setattr__(self, "experiment", identifier)
            object.__setattr__(self, "payload", payload)
        if not isinstance(self.experiment, str | Experiment):
            raise TypeError(f"experiment must be an identifier or an Experiment, not {type(self.experiment).__name__}")
        try:
            self.key.encode()
        except UnicodeEncodeError:
            raise ValueError(f"key must be a string that can be encoded as UTF-8, not {self.key!r}") from None
        if not isinstance(self.payload, Mapping | StartPayload | None):
            raise payload_type_error("payload must be a mapping, a StartPayload or None", self.payload)
        identifier_path(self.identifier)

    @classmethod
    def sweep(
        cls,
        experiment: str | Experiment | Draft,
        variables: Mapping[str, str | Iterable[Any]],
        payload: Mapping[str, Any] | StartPayload | Draft | None = None,
        *,
        inputs: Mapping[str, FileInput] | None = None,
        data: Mapping[str, FileInput] | None = None,
        platform: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> list[Self]:
        """
        Return a launch for each combination of values of some variables.

            files = {"molecules.csv": Path("molecules.csv")}
            launches = Launch.sweep("demo", {"alpha": "1:3:0.1", "method": ["a", "b"]}, inputs=files)
            launches[0].key   # "alpha_1-method_a", the first of 42

        Args:
            experiment: The experiment, as in `Launch`.
            variables: Name -> values. A list has the values themselves. A string has them separated by commas; a part
                ``START:STOP:STEP`` is a range, from START to STOP, which is included if a step meets it. ``START:STOP``
                has the step 1. Ranges are decimal and exact: ``1:3:0.1`` is 1, 1.1, 1.2, and so on to 3.
            payload: What all launches have in common, as in `Launch`.
            inputs, data, platform, metadata: Instead of a payload, its fields, as in `Client.start`.

        Returns:
            The launches, in the order of nested loops: the last variable changes fastest. Their keys are made of the
            names and values of the variables, so that the same sweep has the same keys.

        Raises:
            ValueError: Values are invalid, missing or repeated, there are more than 100,000 combinations, or the
                payload sets one of the variables.
            InvalidPayload: The payload is not a payload. `MissingInputs`: a draft lacks input files.
        """
        whole = payload_of(payload, inputs=inputs, data=data, platform=platform, metadata=metadata)
        identifier, common = resolve_drafts(experiment, whole)
        start = validate_payload({} if common is None else common, StartPayload)
        set_twice = [name for name in variables if name in (start.variables or {})]
        if set_twice:
            raise ValueError(f"the payload and the sweep both set the variable {set_twice[0]!r}")
        launches: dict[str, Self] = {}
        for values in grid(variables):
            key = point_key(values)
            if key in launches:
                raise ValueError(f"two combinations of the sweep have the key {key!r}: use other texts as values")
            every = {**(start.variables or {}), **values}
            launches[key] = cls(key, identifier, start.model_copy(update={"variables": every}))
        return list(launches.values())

    @property
    def identifier(self) -> str:
        """The identifier of the experiment."""
        return self.experiment if isinstance(self.experiment, str) else self.experiment.identifier


@dataclass(frozen=True)
class PreparedLaunch:
    """A launch, ready for the journal."""

    record: LaunchRecord
    content: str
    """The payload as JSON, without credentials."""
    credentials: PayloadCredentials
    """The credentials that ``content`` lacks."""

    def is_same_as(self, record: LaunchRecord) -> bool:
        """Return whether a record has the same experiment and payload."""
        return (record.experiment, record.payload) == (self.record.experiment, self.record.payload)


def check_launches(launches: Iterable[Launch]) -> Iterator[Launch]:
    """Yield launches. Raises TypeError for anything else."""
    if isinstance(launches, Launch):
        raise TypeError(f"expected an iterable of Launch: use [{launches!r}]")
    for launch in launches:
        if not isinstance(launch, Launch):
            raise TypeError(f"expected an iterable of Launch, not of {type(launch).__name__}")
        yield launch


async def prepare_launch(launch: Launch, now: float) -> PreparedLaunch:
    """
    Read the files of a launch, check its payload, and separate its credentials.

    Raises:
        InvalidPayload: As from `Client.start`, or the payload's metadata uses the name of the batch's token.
    """
    try:
        return await read_launch(launch, now)
    except InvalidPayload as error:
        problem = f"the launch {launch.key!r} was not added"
        raise type(error).before_sending(error.problems, error.names, problem) from None


async def read_launch(launch: Launch, now: float) -> PreparedLaunch:
    """Prepare a launch as `prepare_launch` does, with errors that do not name it."""
    prepared = await prepare(resolve_drafts(launch.experiment, launch.payload)[1])
    payload = json.loads(prepared.content)
    if reserved := reserved_names(payload):
        raise InvalidPayload.before_sending(reserved)
    credentials = dict(_credential_leaves(payload))
    stored = _replace(payload, dict.fromkeys(credentials, CREDENTIAL_PLACEHOLDER))
    content = json.dumps(stored, sort_keys=True, ensure_ascii=False)
    record = LaunchRecord(launch.key, launch.identifier, digest(content), State.PLANNED, since=now)
    return PreparedLaunch(record, content, credentials)


def reserved_names(payload: Mapping[str, Any] | StartPayload | None) -> list[Problem]:
    """Return the problems of a payload whose metadata use names that the batch adds itself; [] if there are none."""
    metadata = payload.get("metadata") if isinstance(payload, Mapping) else getattr(payload, "metadata", None)
    used = [name for name in RESERVED_METADATA if name in metadata] if isinstance(metadata, Mapping) else []
    return [Problem(f"metadata.{name}", "this name is reserved for batches: use another one") for name in used]


def lacks_credentials(payload: Mapping[str, Any]) -> bool:
    """Return whether credentials were left out of a payload in the journal."""
    return any(value == CREDENTIAL_PLACEHOLDER for _, value in _credential_leaves(payload))


def payload_to_send(
    payload: Mapping[str, Any],
    credentials: PayloadCredentials,
    token: str,
    campaign: Mapping[str, str] | None = None,
    *,
    is_valid: bool = False,
) -> dict[str, Any]:
    """
    Return a payload from the journal with its credentials, and with our token in its metadata.

    Args:
        payload: The payload.
        credentials: The credentials that it lacks.
        token: The token of the attempt.
        campaign: Metadata by which the run is found without the journal. None means none.
        is_valid: Whether it is known to be a payload, so that it is not checked.

    Raises:
        InvalidPayload: It is not a payload, as if another program has changed the journal.
    """
    complete = _replace(payload, credentials)
    if not is_valid:
        check_body(complete)
    return {**complete, "metadata": {**(complete.get("metadata") or {}), **(campaign or {}), METADATA_KEY: token}}


def describe_differences(
    old: LaunchRecord, old_payload: Mapping[str, Any], new: LaunchRecord, new_payload: Mapping[str, Any]
) -> str:
    """Return the differences between two launches with the same key. File contents are not quoted."""
    before, after = dict(_leaves(old_payload)), dict(_leaves(new_payload))
    differences = []
    if old.experiment != new.experiment:
        differences.append(f"experiment was {old.experiment!r} and is {new.experiment!r}")
    changed = [path for path in {**before, **after} if before.get(path, _MISSING) != after.get(path, _MISSING)]
    differences += [
        f"{'.'.join(path)} was {_describe(path, before)} and is {_describe(path, after)}" for path in changed
    ]
    more = [f"and {len(differences) - MAX_DIFFERENCES} more"] if len(differences) > MAX_DIFFERENCES else []
    return "; ".join([*differences[:MAX_DIFFERENCES], *more])


_MISSING = object()


def _describe(path: tuple[str, ...], values: Mapping[tuple[str, ...], Any]) -> str:
    if path not in values:
        return "absent"
    value = values[path]
    return f"a text of {len(value)} characters" if path[-1] == "content" else shorten(repr(value), 60)


def _leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield the path and value of each leaf of a JSON value."""
    if isinstance(value, dict | list) and value:
        children = value.items() if isinstance(value, dict) else enumerate(value)
        for name, child in children:
            yield from _leaves(child, (*path, str(name)))
    elif path:
        yield path, value


def _credential_leaves(payload: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Return the path and value of each credential. Only the fields that may have some are searched."""
    fields = {name: payload[name] for name, *_ in CREDENTIAL_PATHS if name in payload}
    return ((path, value) for path, value in _leaves(fields) if _is_credential(path))


def _is_credential(path: tuple[str, ...]) -> bool:
    return any(path[: len(parent)] == parent for parent in CREDENTIAL_PATHS) and (
        path[0] == "environmentVariables" or path[-1] not in PUBLIC_FIELDS
    )


def _replace(value: Any, changes: Mapping[tuple[str, ...], Any]) -> Any:
    """Return a copy of a JSON object with other values at some paths."""
    if not changes:
        return value
    copy = json.loads(json.dumps(value))
    for path, new in changes.items():
        parent = copy
        for name in path[:-1]:
            parent = parent[name]
        parent[path[-1]] = new
    return copy
