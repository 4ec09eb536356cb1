"""Key-outputs in memory, and advice about those that do not exist."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING

from .._errors import APIError, TransportError, UnknownOutput
from .._util.did_you_mean import did_you_mean

if TYPE_CHECKING:
    from .._api.instances import Instances
    from ..models import Output


async def read_output(instances: Instances, rest_uid: str, name: str, path: str | None) -> Output:
    """Return the contents of a key-output, or of a file or folder in it; see `Client.output`."""
    try:
        return await instances.output(rest_uid, name, path)
    except UnknownOutput as error:
        missing = error
    await explain_missing_output(instances, rest_uid, name, path, missing)
    raise missing


async def explain_missing_output(
    instances: Instances, rest_uid: str, name: str, path: str | None, missing: UnknownOutput
) -> None:
    """Add to the error for a key-output, or a path in it, which exist and whether others may follow."""
    missing.name = name
    with suppress(APIError, TransportError):  # the advice is optional, and the run may be gone
        missing.known = tuple(await instances.outputs(rest_uid))
        missing.advice = await _advice(instances, rest_uid, name, path, missing.known)


async def missing_output(instances: Instances, rest_uid: str, name: str, known: Iterable[str]) -> UnknownOutput:
    """Return the error for a name that is not among the key-outputs of a run."""
    error = UnknownOutput(f"run {rest_uid!r} has no key-output {name!r}")
    error.name, error.known = name, tuple(known)
    with suppress(APIError, TransportError):
        error.advice = await _advice(instances, rest_uid, name, None, error.known)
    return error


async def _advice(instances: Instances, rest_uid: str, name: str, path: str | None, known: tuple[str, ...]) -> str:
    is_over = (await instances.status(rest_uid)).is_final
    if path is not None and name in known:
        return f"the key-output exists, but has no {path!r} in it: output(run, {name!r}) returns all of it"
    more = "the run is over, so there will be no others" if is_over else "others may appear until the run is over"
    return f"the run has {sorted(known)}, and {more}{did_you_mean(name, known)}"
