"""A runtime service whose answers are scripted run by run, in an event loop in which time passes at once."""

from __future__ import annotations

import asyncio
import json
import selectors
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cache
from itertools import pairwise
from typing import Any, NamedTuple, TypeVar, cast

import anyio
import anyio.lowlevel

from st4sd_async import Config, RequestTimeout, Status
from st4sd_async._http.availability import Availability, WaitingCall
from st4sd_async._http.call import Call, Response, parse_response
from st4sd_async._http.session import ClientSession
from st4sd_async._util.clock import Clock
from st4sd_async._watch.poller import Poller

T = TypeVar("T")

GONE = "gone"
"""In a script: the run does not exist from here on."""
SILENCE = "silence"
"""In a script: a request is never answered."""
RUNNING, SUCCESS, FAILED = ("running", "N/A"), ("finished", "Success"), ("finished", "Failed")
KILLED = ("Failed", "")
NULLS = (None, None)

LIST = "instances/"


TICK = 1e-9
"""Seconds that pass in each iteration of the event loop."""


class _InstantSelector(selectors.DefaultSelector):
    """A selector that adds up the seconds of its waits instead of waiting."""

    waited = 1000.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready and timeout is None:
            raise RuntimeError("every task waits for another")
        self.waited += max(0.0 if ready else timeout or 0.0, TICK)
        return ready


class InstantLoop(asyncio.SelectorEventLoop):
    """An event loop in which time passes only when all tasks wait for it, and then at once."""

    def __init__(self) -> None:
        self._instant = _InstantSelector()
        super().__init__(self._instant)

    def time(self) -> float:
        return self._instant.waited

    def jump(self, seconds: float) -> None:
        """Let time pass as if the machine were suspended."""
        self._instant.waited += seconds


INSTANT = ("asyncio", {"loop_factory": InstantLoop})
"""The backend that runs a test in an `InstantLoop`."""


class LoopClock:
    """The clock of the event loop."""

    def now(self) -> float:
        return asyncio.get_running_loop().time()

    def wall(self) -> float:
        return asyncio.get_running_loop().time()

    async def sleep(self, seconds: float) -> None:
        await anyio.sleep(seconds)


def jump(seconds: float) -> None:
    """Let time pass in the current `InstantLoop` as if the machine were suspended."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, InstantLoop)
    loop.jump(seconds)


def status(words: Any) -> Any:
    """Return a status in its JSON form; a value that is not a tuple is returned unchanged."""
    if not isinstance(words, tuple):
        return words
    state, exit_status, *text = words
    return {"experiment-state": state, "exit-status": exit_status, "error-description": "".join(text), "meta": None}


class Script:
    """What a run shows from which second on, in replies to requests for it and in the list."""

    def __init__(self, *steps: tuple[Any, ...]) -> None:
        """
        Each step is (seconds, status), or (seconds, status, status in the list).

        A status is a tuple of experiment-state, exit-status and optionally error-description; None if there is no
        status yet; or GONE. For requests it may also be an error, SILENCE or a Response, and in the list any JSON.
        """
        self.steps = steps

    def at(self, seconds: float) -> tuple[Any, Any]:
        """Return the status in a reply and the one in the list."""
        for step in reversed(self.steps):
            if step[0] <= seconds:
                return step[1], step[-1]
        raise ValueError(seconds)


class Service:
    """
    Answers as the runtime service does, at once or after some seconds.

    It takes the place of the client's session. Replies are bytes, which are parsed as those from a socket are.
    """

    def __init__(self, scripts: Mapping[str, Script] | None = None) -> None:
        self.scripts = dict(scripts or {})
        self.clock: Clock = LoopClock()
        self.began = self.clock.now()
        self.requests: list[tuple[float, str]] = []
        """Time and path of each request."""
        self.faults: list[tuple[float, float, Any]] = []
        """Periods in which all requests fail: begin, end, and an error to raise, SILENCE, or a Response."""
        self.list_faults: list[tuple[float, float, Any]] = []
        """The same for requests for the list only."""
        self.old_items = 0
        """Instances in the list that are not watched."""
        self.hidden: set[str] = set()
        """Rest-uids that the list leaves out."""
        self.latency = (0.0, 0.0)
        """Seconds that a status request takes, and an item of the list."""
        self.decoding_seconds = 0.0
        """Seconds that the client takes to decode a list."""
        self.final_statuses: dict[str, Any] = {}
        """Final statuses in the datastore. SILENCE means that it does not answer for this run."""
        self.config = Config(clock=self.clock)
        self.availability = Availability("https://st4sd.example/rs/", self.clock)
        self._arrival = anyio.Event()
        self._listed: tuple[Any, Response] | None = None
        """What the newest list shows, and its reply, which is the same until that changes."""

    @property
    def seconds(self) -> float:
        """Seconds since it began, rounded to microseconds."""
        return round(self.clock.now() - self.began, 6)

    @property
    def request_times(self) -> list[float]:
        """The times of all requests."""
        return [moment for moment, _ in self.requests]

    def times_of(self, rest_uid: str | None = None) -> list[float]:
        """Return the times of requests for a run; None means for the list."""
        path = LIST if rest_uid is None else f"instances/{rest_uid}/status"
        return [moment for moment, one in self.requests if one == path]

    @property
    def list_count(self) -> int:
        """Number of requests for the list."""
        return len(self.times_of())

    @property
    def detail_count(self) -> int:
        """Number of requests for single runs."""
        return len(self.requests) - self.list_count

    def max_details(self) -> int:
        """Return the highest number of requests for single runs between two for the list."""
        places = [place for place, (_, path) in enumerate(self.requests) if path == LIST]
        return max((after - before - 1 for before, after in pairwise([*places, len(self.requests)])), default=0)

    async def next_request(self) -> None:
        """Return when the next request has arrived, before it is answered."""
        self._arrival = anyio.Event()
        await self._arrival.wait()

    def check(self) -> None:
        """It is always open."""

    def waiting(self) -> WaitingCall:
        """Return a context manager for a watch."""
        return self.availability.waiting(self.config.progress)

    async def services(self) -> dict[str, str]:
        """Where the services are."""
        return {"cdb-rest": "https://st4sd.example/ds-mongodb-proxy/"}

    async def send_once(self, call: Call[T], /) -> T:
        self.availability.request_sent()
        try:
            return await self._send(call)
        finally:
            self.availability.request_ended()

    async def _send(self, call: Call[T]) -> T:
        if call.method == "POST":
            return parse_response(call, call.path, await self._documents(json.loads(call.content or b"")))
        moment, is_list = self.seconds, call.path == LIST
        self.requests.append((moment, call.path))
        self._arrival.set()
        await anyio.lowlevel.checkpoint()
        sent_at = self.clock.now()
        cost = self.latency[1] * (len(self.scripts) + self.old_items) if is_list else self.latency[0]
        if cost:
            await anyio.sleep(cost)
        for begin, end, trouble in self.faults + self.list_faults * is_list:
            if begin <= moment < end:
                return parse_response(call, call.path, await _faulty_reply(trouble))
        found = self._list(moment) if is_list else await self._status(call.path.split("/")[1], moment)
        result = parse_response(call, call.path, replace(found, sent_at=sent_at, arrived_at=self.clock.now()))
        if is_list:
            jump(self.decoding_seconds)  # nothing else runs meanwhile
        return result

    async def _documents(self, query: Mapping[str, Any]) -> Response:
        """Answer a query for the final status of a run as the datastore does."""
        await anyio.lowlevel.checkpoint()
        words = self.final_statuses.get(query["metadata.userMetadata.rest-uid"])
        if words == SILENCE:
            await anyio.sleep_forever()
        found = [] if words is None else [{"type": "experiment", "status": status(words)}]
        return reply(200, {"document-descriptors": found})

    def _list(self, moment: float) -> Response:
        shown = [(rest_uid, script.at(moment)[1]) for rest_uid, script in self.scripts.items()]
        content = (shown, self.hidden.copy(), self.old_items)
        if self._listed is None or self._listed[0] != content:
            items: list[dict[str, Any]] = [
                {"id": rest_uid, "experiment": {"base": {}}, "status": status(listed), "outputs": {}}
                for rest_uid, listed in shown
                if rest_uid not in self.hidden and listed != GONE
            ]
            shown_items = json.dumps(items).encode()[1:-1]
            body = b", ".join(filter(None, (shown_items, _old_items(self.old_items))))
            self._listed = content, replace(reply(200, []), body=b"[%s]" % body)
        return self._listed[1]

    async def _status(self, rest_uid: str, moment: float) -> Response:
        script = self.scripts.get(rest_uid)
        words = GONE if script is None else script.at(moment)[0]
        if words == GONE:
            return reply(404, {"message": f"Workflow instance {rest_uid} not found"})
        if words is None:
            return reply(400, {"message": f"Workflow instance {rest_uid} does not have a status yet"})
        return reply(200, status(words)) if isinstance(words, tuple) else await _faulty_reply(words)


@cache
def _old_items(count: int) -> bytes:
    """Return the JSON of instances that are not watched, without brackets."""
    return json.dumps([{"id": f"old-{number}", "status": status(SUCCESS)} for number in range(count)]).encode()[1:-1]


async def _faulty_reply(trouble: Any) -> Response:
    if isinstance(trouble, RequestTimeout):
        await anyio.sleep(20)
    if isinstance(trouble, Exception):
        raise trouble
    if trouble == SILENCE:
        await anyio.sleep_forever()
    assert isinstance(trouble, Response)
    return trouble


def reply(code: int, value: Any, **headers: str) -> Response:
    """Return a reply in JSON."""
    given = {name.replace("_", "-"): text for name, text in headers.items()}
    return Response(code, {"content-type": "application/json", **given}, json.dumps(value).encode())


def page(code: int) -> Response:
    """Return an HTML page of the proxy."""
    return Response(code, {"content-type": "text/html"}, b"<html>this is the proxy</html>")


class Update(NamedTuple):
    """A status that a consumer received, and when."""

    moment: float
    rest_uid: str
    status: Status

    @property
    def words(self) -> tuple[str | None, str | None]:
        """Its experiment-state and its exit-status."""
        return self.status.pair


def poller(service: Service, grace: float = 60.0) -> Poller:
    """Return a poller that sends its requests to this service."""
    service.config = Config(clock=service.clock, grace=grace)
    return Poller(cast(ClientSession, service))


class Watcher:
    """A consumer that keeps the updates of some runs, and the error that ended them."""

    def __init__(
        self,
        service: Service,
        poll: Poller,
        rest_uids: Iterable[str],
        until: Iterable[str] = (),
        /,
        **options: float | None,
    ) -> None:
        """Watch some runs; with `until`, only as long as these have not all ended."""
        self.updates: list[Update] = []
        self.error: Exception | None = None
        self.has_ended = False
        self.rest_uids = list(rest_uids)
        self._service = service
        runs = {rest_uid: rest_uid for rest_uid in self.rest_uids}
        self.changes = poll.watch(runs, options.get("timeout"), options.get("interval"))
        self._slowness = options.get("slowness") or 0.0
        self._missing = set(until)

    async def __call__(self) -> None:
        """Watch to the end, with a pause after each update."""
        try:
            async for rest_uid, status in self.changes:
                self.updates.append(Update(self._service.seconds, rest_uid, status))
                if status.is_final and rest_uid in self._missing:
                    self._missing.remove(rest_uid)
                    if not self._missing:
                        break
                await anyio.sleep(self._slowness)
        except Exception as error:  # one_watcher_each for the test to look at
            self.error = error
        finally:
            await self.changes.aclose()
        self.has_ended = True

    def of(self, rest_uid: str) -> list[Update]:
        """Return the updates of one run."""
        return [one for one in self.updates if one.rest_uid == rest_uid]

    @property
    def ends(self) -> dict[str, float]:
        """When the final status of each run was received."""
        return {one.rest_uid: one.moment for one in self.updates if one.status.is_final}


async def follow(service: Service, *rest_uids: str, grace: float = 60.0, **options: float | None) -> list[Update]:
    """Watch runs to their ends; return all updates, or raise the error."""
    watcher = Watcher(service, poller(service, grace), rest_uids or service.scripts, **options)
    await watcher()
    if watcher.error is not None:
        raise watcher.error
    assert_valid_updates(watcher.updates)
    return watcher.updates


def assert_valid_updates(updates: Iterable[Update], *, is_over: bool = True) -> None:
    """Check that of each run only changes were received, and one final status at the end."""
    by_run: dict[str, list[Status]] = {}
    for one in updates:
        by_run.setdefault(one.rest_uid, []).append(one.status)
    for statuses in by_run.values():
        finals = [status.is_final for status in statuses]
        assert not any(finals[:-1])
        assert finals[-1] or not is_over
        for before, after in pairwise(statuses):
            assert after.is_final or (before.raw, before.pair) != (after.raw, after.pair)
