"""A runtime service of the tests' own, in a time of the tests' own: what it answers is scripted run by run."""

from __future__ import annotations

import asyncio
import json
import selectors
from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any, NamedTuple, TypeVar, cast

import anyio
import anyio.lowlevel

from st4sd_async import Config, RequestTimeout, Status
from st4sd_async._config import TIMEOUT_SECONDS
from st4sd_async._http.call import Call, Response, parse_response
from st4sd_async._http.session import ClientSession
from st4sd_async._util.clock import Clock
from st4sd_async._watch.poller import Poller

T = TypeVar("T")

GONE = "gone"
"""In a script: from here on the run is not there."""
SILENCE = "silence"
"""In a script: a request is never answered."""
RUNNING, SUCCESS, FAILED = ("running", "N/A"), ("finished", "Success"), ("finished", "Failed")
KILLED = ("Failed", "")
NULLS = (None, None)

LIST = "instances/"


TICK = 1e-9
"""Seconds that pass whenever the event loop looks for something to do."""


class _Hasty(selectors.DefaultSelector):
    """Does not wait, but counts the seconds that it should have waited."""

    waited = 1000.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready and timeout is None:
            raise RuntimeError("every task waits for another")
        self.waited += max(0.0 if ready else timeout or 0.0, TICK)
        return ready


class HastyLoop(asyncio.SelectorEventLoop):
    """An event loop in which time passes at once whenever all tasks wait for it, and only then."""

    def __init__(self) -> None:
        self._hasty = _Hasty()
        super().__init__(self._hasty)

    def time(self) -> float:
        return self._hasty.waited

    def jump(self, seconds: float) -> None:
        """Have the machine sleep."""
        self._hasty.waited += seconds


HASTY = ("asyncio", {"loop_factory": HastyLoop})
"""The backend for tests in that loop."""


class LoopClock:
    """The clock of the event loop."""

    def now(self) -> float:
        return asyncio.get_running_loop().time()

    def wall(self) -> float:
        return asyncio.get_running_loop().time()

    async def sleep(self, seconds: float) -> None:
        await anyio.sleep(seconds)


def jump(seconds: float) -> None:
    """Have the clock of a `HastyLoop` jump."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, HastyLoop)
    loop.jump(seconds)


def status(words: Any) -> Any:
    """A status as the wire has it: of words and a text, or as it is given."""
    if not isinstance(words, tuple):
        return words
    state, exit_status, *text = words
    return {"experiment-state": state, "exit-status": exit_status, "error-description": "".join(text), "meta": None}


class Life:
    """What a run shows from which second on: to whom asks for it, and in the list."""

    def __init__(self, *steps: tuple[Any, ...]) -> None:
        """
        Each step is (seconds, words), or (seconds, words, words in the list).

        Words are an experiment-state, an exit-status and perhaps a text; None, while there is no status yet;
        GONE; for a request an error, SILENCE or a Response too, and in the list any JSON.
        """
        self.steps = steps

    def at(self, seconds: float) -> tuple[Any, Any]:
        """What a request shows, and what the list."""
        step = [step for step in self.steps if step[0] <= seconds][-1]
        return step[1], step[-1]


class Service:
    """
    Answers like the runtime service, at once or after some seconds.

    Requests arrive as calls and leave as bytes, which the client deciphers as it does with those of a socket.
    """

    def __init__(self, lives: Mapping[str, Life] | None = None) -> None:
        self.lives = dict(lives or {})
        self.clock: Clock = LoopClock()
        self.began = self.clock.now()
        self.asked: list[tuple[float, str]] = []
        """Moment and path of each request."""
        self.troubles: list[tuple[float, float, Any]] = []
        """From when to when all goes wrong, and how: an error to raise, SILENCE, or a Response."""
        self.list_troubles: list[tuple[float, float, Any]] = []
        """The same for the list alone."""
        self.old_items = 0
        """Instances in the list that nobody watches."""
        self.hidden: set[str] = set()
        """Rest-uids that the list leaves out."""
        self.cost = (0.0, 0.0)
        """Seconds that a status request takes, and an item of the list."""
        self.words: dict[str, Any] = {}
        """Final words in the datastore; SILENCE: it does not answer for this run."""
        self.config = Config(clock=self.clock)
        self._arrival = anyio.Event()

    @property
    def seconds(self) -> float:
        """Since it began, in whole microseconds."""
        return round(self.clock.now() - self.began, 6)

    @property
    def looks(self) -> list[float]:
        """The moments at which it was asked."""
        return [moment for moment, _ in self.asked]

    def moments(self, rest_uid: str | None = None) -> list[float]:
        """When the list was asked for, or a run."""
        path = LIST if rest_uid is None else f"instances/{rest_uid}/status"
        return [moment for moment, one in self.asked if one == path]

    @property
    def lists(self) -> int:
        """How often the list was asked for."""
        return len(self.moments())

    @property
    def details(self) -> int:
        """How often a single run was asked for."""
        return len(self.asked) - self.lists

    def most_details(self) -> int:
        """The most requests for single runs between two of the list."""
        places = [place for place, (_, path) in enumerate(self.asked) if path == LIST]
        return max((after - before - 1 for before, after in pairwise([*places, len(self.asked)])), default=0)

    async def next_request(self) -> None:
        """Return when the next request has arrived, before it is answered."""
        self._arrival = anyio.Event()
        await self._arrival.wait()

    def check(self) -> None:
        """It is always open."""

    async def services(self) -> dict[str, str]:
        """Where the services are."""
        return {"cdb-rest": "https://st4sd.example/ds-mongodb-proxy/"}

    async def send_once(self, call: Call[T], /) -> T:
        if call.method == "POST":
            return parse_response(call, call.path, await self._documents(json.loads(call.content or b"")))
        moment, is_list = self.seconds, call.path == LIST
        self.asked.append((moment, call.path))
        self._arrival.set()
        await anyio.lowlevel.checkpoint()
        cost = self.cost[1] * (len(self.lives) + self.old_items) if is_list else self.cost[0]
        if cost:
            await anyio.sleep(cost)
        for begin, end, trouble in self.troubles + self.list_troubles * is_list:
            if begin <= moment < end:
                return parse_response(call, call.path, await _troubled(trouble))
        reply = self._list(moment) if is_list else await self._status(call.path.split("/")[1], moment)
        return parse_response(call, call.path, reply)

    async def _documents(self, query: Mapping[str, Any]) -> Response:
        """What the datastore knows of the end of a run."""
        await anyio.lowlevel.checkpoint()
        words = self.words.get(query["metadata.userMetadata.rest-uid"])
        if words == SILENCE:
            await anyio.sleep_forever()
        found = [] if words is None else [{"type": "experiment", "status": status(words)}]
        return reply(200, {"document-descriptors": found})

    def _list(self, moment: float) -> Response:
        items: list[dict[str, Any]] = [
            {"id": rest_uid, "experiment": {"base": {}}, "status": status(listed), "outputs": {}}
            for rest_uid, life in self.lives.items()
            if rest_uid not in self.hidden and (listed := life.at(moment)[1]) != GONE
        ]
        items += [{"id": f"old-{number}", "status": status(SUCCESS)} for number in range(self.old_items)]
        return reply(200, items)

    async def _status(self, rest_uid: str, moment: float) -> Response:
        life = self.lives.get(rest_uid)
        words = GONE if life is None else life.at(moment)[0]
        if words == GONE:
            return reply(404, {"message": f"Workflow instance {rest_uid} not found"})
        if words is None:
            return reply(400, {"message": f"Workflow instance {rest_uid} does not have a status yet"})
        return reply(200, status(words)) if isinstance(words, tuple) else await _troubled(words)


async def _troubled(trouble: Any) -> Response:
    if isinstance(trouble, RequestTimeout):
        await anyio.sleep(TIMEOUT_SECONDS)
    if isinstance(trouble, Exception):
        raise trouble
    if trouble == SILENCE:
        await anyio.sleep_forever()
    assert isinstance(trouble, Response)
    return trouble


def reply(code: int, value: Any, **headers: str) -> Response:
    """A reply in JSON."""
    given = {name.replace("_", "-"): text for name, text in headers.items()}
    return Response(code, {"content-type": "application/json", **given}, json.dumps(value).encode())


def page(code: int) -> Response:
    """A page for people, as the proxy writes them."""
    return Response(code, {"content-type": "text/html"}, b"<html>this is the proxy</html>")


class Told(NamedTuple):
    """What a watcher was told, and when."""

    moment: float
    rest_uid: str
    status: Status

    @property
    def words(self) -> tuple[str | None, str | None]:
        """Its experiment-state and its exit-status."""
        return self.status.pair


def poller(service: Service, grace: float = 60.0) -> Poller:
    """A poller that asks this service."""
    service.config = Config(clock=service.clock, grace=grace)
    return Poller(cast(ClientSession, service))


class Watcher:
    """Watches runs, and keeps what it is told, also when it ends badly."""

    def __init__(self, service: Service, poll: Poller, rest_uids: Iterable[str], **options: float | None) -> None:
        self.told: list[Told] = []
        self.error: Exception | None = None
        self.has_ended = False
        self.rest_uids = list(rest_uids)
        self._service = service
        runs = {rest_uid: rest_uid for rest_uid in self.rest_uids}
        self.changes = poll.watch(runs, options.get("timeout"), options.get("interval"))
        self._slowness = options.get("slowness") or 0.0

    async def __call__(self) -> None:
        """Watch to the end, at leisure."""
        try:
            async for rest_uid, status in self.changes:
                self.told.append(Told(self._service.seconds, rest_uid, status))
                await anyio.sleep(self._slowness)
        except Exception as error:  # kept for the test to look at
            self.error = error
        finally:
            await self.changes.aclose()
        self.has_ended = True

    def of(self, rest_uid: str) -> list[Told]:
        """What was told of one run."""
        return [one for one in self.told if one.rest_uid == rest_uid]

    @property
    def ends(self) -> dict[str, float]:
        """When the end of which run was told."""
        return {one.rest_uid: one.moment for one in self.told if one.status.is_final}


async def follow(service: Service, *rest_uids: str, grace: float = 60.0, **options: float | None) -> list[Told]:
    """All that is told of runs; raises what ends it."""
    watcher = Watcher(service, poller(service, grace), rest_uids or service.lives, **options)
    await watcher()
    if watcher.error is not None:
        raise watcher.error
    assert_well_told(watcher.told)
    return watcher.told


def assert_well_told(told: Iterable[Told], *, is_over: bool = True) -> None:
    """Of each run changes only, and its end once and last."""
    by_run: dict[str, list[Status]] = {}
    for one in told:
        by_run.setdefault(one.rest_uid, []).append(one.status)
    for statuses in by_run.values():
        finals = [status.is_final for status in statuses]
        assert not any(finals[:-1])
        assert finals[-1] or not is_over
        for before, after in pairwise(statuses):
            assert after.is_final or (before.raw, before.pair) != (after.raw, after.pair)
