"""What runs leave behind: the verbs of a client that look at results and fetch them."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from ._errors import APIError, TransportError, UnknownOutput
from ._run import RunLike, rest_uid_of

if TYPE_CHECKING:
    from ._resources.datastore import Datastore
    from ._resources.instances import Instances
    from .models import KeyOutput, Output


class Results:
    """The part of a client that has to do with results; see `Client` for what all its methods raise."""

    instances: Instances
    """Instances by rest-uid."""
    datastore: Datastore
    """Documents about runs, which outlive them."""

    async def outputs(self, run: RunLike) -> dict[str, KeyOutput]:
        """
        The key-outputs of a run that exist by now, by name; {} before there are any.

        Raises:
            UnknownRun: It is not there.

        Source: ``GET instances/{id}/outputs`` of the runtime service.
        """
        return await self.instances.outputs(rest_uid_of(run))

    async def output(self, run: RunLike, name: str, path: str | None = None) -> Output:
        """
        The contents of a key-output: a file as it is, a folder as its zip archive.

        Args:
            run: The run.
            name: The key-output.
            path: A file or folder inside a folder key-output, as ``"sub/b.bin"``; None: all of it.

        Raises:
            UnknownRun: The run is not there.
            UnknownOutput: It has no such key-output, not yet, or no such file in it; ``known`` names those it has.

        Source: ``GET instances/{id}/outputs/{name}`` of the runtime service, which reads it whole into its
        memory: an output of gigabytes is likely to end in a time-out.
        """
        try:
            return await self.instances.output(rest_uid_of(run), name, path)
        except UnknownOutput as error:
            missing = error
        missing.name = name
        # What there is, and whether more may come, is only a help; the run may be gone by now.
        with suppress(APIError, TransportError):
            missing.known = tuple(await self.outputs(run))
            is_over = (await self.instances.status(rest_uid_of(run))).is_final
            missing.advice = _where_to_look(name, path, missing.known, is_over=is_over)
        raise missing


def _where_to_look(name: str, path: str | None, known: tuple[str, ...], *, is_over: bool) -> str:
    """What to do when a key-output is not there."""
    if path is not None and name in known:
        return f"the key-output is there, but has no {path!r} in it: output(run, {name!r}) gives all of it"
    more = "the run is over, so there will be no others" if is_over else "others may come until the run is over"
    return f"the run has {sorted(known)}, and {more}"
