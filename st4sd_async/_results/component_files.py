"""
Files that components left behind, fetched from their gateway many at a time.

A gateway puts up to 32 MiB and 1,000 files into an answer and leaves out the rest in silence [34]. What it left out is
asked for again; what does not come even then is looked for in the archive of the whole component.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import anyio

from .._api.gateways import MOST_FILES, SCHEME, Location, component_call, files_call
from .._errors import ConnectionLost, DownloadError, NotFound, PayloadTooLarge, RequestTimeout, ServerError, St4sdError
from ..models import Download, DownloadFailed
from .batch_sizer import Pile
from .manifest import Origin
from .target import Target
from .unsafe_zip import Hostile, checked
from .workspace import Place, Writer, free

if TYPE_CHECKING:
    from ..models import ComponentDocument

T = TypeVar("T")
Outcome = Download | DownloadFailed

OF_ITS_FILES = (ConnectionLost, RequestTimeout, DownloadError, PayloadTooLarge, ServerError)
"""What may be wrong with an answer because of a file in it: a gateway that cannot read one breaks off."""
MOST_FAILED = 20
"""Answers in a row that may be of no use before it is clear that no file is to blame, and others are not asked for."""
SILENCE_WEIGHS = 5
"""Answers that one weighs that does not come, because that takes a minute."""


class Wanted(NamedTuple):
    """A file that a component left behind."""

    path: str
    """Absolute, at the gateway."""
    place: Place
    """Where it belongs: below the target as in the directory of the instance."""


def chosen(
    instance: Location, documents: Iterable[ComponentDocument], fits: Callable[[str], object]
) -> Iterator[tuple[str, Wanted | DownloadError]]:
    """
    The files of components whose paths fit, by their sources, or why one cannot be stored.

    A path fits as a whole or from the directory of the component on. Of two that lead to one place the second is none.
    """
    owners: dict[str, str] = {}
    for document in documents:
        for path in document.files:
            if fits(path) or fits(path.removeprefix(f"{document.location}/")):
                source = f"{SCHEME}{instance.gateway}{path}"
                found = _wanted(instance, path, source)
                if isinstance(found, Wanted) and owners.setdefault(found.place.path, path) != path:
                    found = DownloadError(path, f"would be in the same place as {owners[found.place.path]!r}")
                yield source, found


def _wanted(instance: Location, path: str, source: str) -> Wanted | DownloadError:
    inside = path.removeprefix(f"{instance.path}/")
    if inside == path:
        return DownloadError(path, f"is not in the directory of its run, {instance}")
    try:
        return Wanted(path, free(checked(inside), source))
    except Hostile as problem:
        return DownloadError(path, f"cannot have that name here: {problem}")


class Fetching:
    """Files of one run on their way."""

    def __init__(self, target: Target, instance: Location, gateway: str, outcomes: dict[str, Outcome]) -> None:
        self._target = target
        self._instance = instance
        self._gateway = gateway
        self._outcomes = outcomes
        self._answered = anyio.Event()
        self._failed = 0
        """Answers in a row that were of no use."""

    async def fetch(self, wanted: Sequence[Wanted], documents: Iterable[ComponentDocument], workers: int) -> None:
        """Fetch files of these components; each gets its outcome."""
        pile = Pile(wanted, workers=workers, most=MOST_FILES)

        async def work(_: int) -> None:
            while not pile.is_over:
                batch = pile.take()
                if not batch:  # but an answer may leave something out that another asks for
                    await self._answered.wait()
                    continue
                await self._ask(pile, batch)
                pile.settle(batch, [one for one in batch if one.place.source in self._outcomes])
                self._answered.set()
                self._answered = anyio.Event()

        await each(work, range(min(workers, len(wanted))), workers)
        hopeless = {one.path: one for one in pile.hopeless}
        left = ((one, [hopeless[path] for path in one.files if path in hopeless]) for one in documents if hopeless)
        await each(self._unpack, (item for item in left if item[1]), workers)

    async def _ask(self, pile: Pile[Wanted], batch: Sequence[Wanted]) -> None:
        """Ask for files; if there is no whole answer, for either half of them, until it shows which one is to blame."""
        name = batch[0].path if len(batch) == 1 else f"{len(batch)} files of {self._instance}"
        call = files_call(self._gateway, self._instance, [one.path for one in batch])
        places = {one.path.removeprefix("/"): one.place for one in batch}

        def place(path: str) -> Place:
            if path not in places:
                raise Hostile(f"its member {path!r} was not asked for")
            return places[path]

        try:
            stored = await self._target.fetch(
                call, name, lambda writer, _: self._store(writer, name, place), once=self._failed > 0
            )
        except St4sdError as error:
            self._failed += SILENCE_WEIGHS if isinstance(error, RequestTimeout) else 1
            if self._failed > MOST_FAILED or not isinstance(error, OF_ITS_FILES):
                self._fail([*batch, *pile.give_up()], error)
            elif len(batch) == 1:
                self._fail(batch, error)
            else:
                await self._ask(pile, batch[: len(batch) // 2])
                await self._ask(pile, batch[len(batch) // 2 :])
        else:
            self._failed = 0
            self._came(stored)

    async def _unpack(self, of_component: tuple[ComponentDocument, Sequence[Wanted]]) -> None:
        """Take files out of the archive of their component's whole directory."""
        document, wanted = of_component
        places = {one.path.removeprefix(f"{document.location}/"): one.place for one in wanted}
        call = component_call(self._gateway, self._instance, document.stage or 0, document.name)
        reason: St4sdError = NotFound(f"{document.reference} lists it, but the gateway does not have it (any more)")
        try:
            name = f"{document.reference} of {self._instance}"
            self._came(await self._target.fetch(call, name, lambda writer, _: self._store(writer, name, places.get)))
        except St4sdError as error:
            reason = error
        self._fail([one for one in wanted if one.place.source not in self._outcomes], reason)

    def _store(self, writer: Writer, name: str, place: Callable[[str], Place | None]) -> list[Download]:
        """Give the files of an archive their names. Blocks."""
        parts, _ = self._target.unpack(writer, name, place)
        return self._target.store([(Origin(part.place.source), [part]) for part in parts])

    def _fail(self, wanted: Iterable[Wanted], error: St4sdError) -> None:
        folder = self._target.folder
        self._came(DownloadFailed(folder / one.place.path, one.place.source, error) for one in wanted)

    def _came(self, outcomes: Iterable[Outcome]) -> None:
        come = {outcome.source: outcome for outcome in outcomes}
        self._outcomes.update(come)
        self._target.work.finish(len(come))


async def each(do: Callable[[T], Awaitable[None]], things: Iterable[T], workers: int) -> None:
    """Do something with each of some things, with as many at once as there are workers."""
    left = iter(things)

    async def work() -> None:
        for thing in left:
            await do(thing)

    async with anyio.create_task_group() as group:
        for _ in range(workers):
            group.start_soon(work)
