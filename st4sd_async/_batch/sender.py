"""Send the launches of a batch. Each is recorded before and after, and never sent twice without a proof."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from functools import partial
from math import inf
from typing import TYPE_CHECKING

import anyio

from .._api.experiments import add_suggestion, get_call, list_call, start_call
from .._errors import (
    APIError,
    ConfigError,
    ConnectFailed,
    CredentialUnavailable,
    InvalidPayload,
    JournalCorrupt,
    MissingCredentials,
    RateLimited,
    RequestTimeout,
    ServerError,
    St4sdError,
    StartOutcomeUnknown,
    Unauthorized,
    UnknownExperiment,
)
from .._http.retry import may_have_arrived
from .._payload.explain import explain_invalid_payload
from .._payload.prepare import Prepared, serialise
from .._util.printable import shorten
from ..models.runs import is_rest_uid
from .launch import lacks_credentials, payload_to_send
from .state import LaunchRecord, Proof, campaign_metadata

if TYPE_CHECKING:
    from .._http.session import ClientSession
    from ..models import Experiment
    from .journal import Journal

SHUTDOWN_GRACE = 5.0
"""Seconds for which starts in flight may still get a response when the batch is left early."""
OVERLOAD_STATUSES = frozenset({429, 502, 503, 504})
"""HTTP statuses of a service that is overloaded or unavailable."""
LEFT_EARLY = "the batch was left before the response came"

MAX_IN_FLIGHT = 64
"""Upper bound for the starts in flight."""
STEADY_FACTOR = 2.0
"""The service keeps up if a response takes at most this many times as long as the quickest one."""
LATENCY_DECAY = 1.0005
"""The quickest latency grows by this factor with each response, because a service may become slower for good."""
MIN_OVERLOAD_PAUSE, MAX_OVERLOAD_PAUSE = 0.2, 30.0
"""Seconds without a start after an overload. The pause doubles while the overload goes on."""
MAX_RETRY_AFTER = 300.0
"""Maximum number of seconds that ``Retry-After`` is followed."""


class AdaptiveLimiter:
    """
    How many starts may be in flight: additive increase, multiplicative decrease. Pure.

    The limit grows by one per round of quick responses and is halved on overload. All times are seconds of one clock.
    """

    def __init__(self, initial: int, maximum: int = MAX_IN_FLIGHT) -> None:
        self.limit = float(initial)
        """Number of starts that may be in flight, rounded down."""
        self.resume_at = -inf
        """When the next start may begin."""
        self._maximum = max(initial, maximum)
        self._quickest = inf
        self._halved_at = -inf
        self._overloads = 0

    def available(self, in_flight: int, now: float) -> int:
        """Return how many starts may begin now."""
        return 0 if now < self.resume_at else max(0, int(self.limit) - in_flight)

    def on_response(self, latency: float) -> None:
        """Adjust the limit to a response that took ``latency`` seconds."""
        self._overloads = 0
        self._quickest = min(latency, self._quickest * LATENCY_DECAY)
        if latency <= STEADY_FACTOR * self._quickest:
            self.limit = min(self._maximum, self.limit + 1 / self.limit)

    def on_overload(self, sent_at: float, now: float, retry_after: float | None = None) -> None:
        """
        Adjust the limit to a 429, a 503, a time-out or a failed connection.

        Starts that were in flight together count once.

        Args:
            sent_at: When the start was sent.
            now: The time.
            retry_after: Seconds in the response's ``Retry-After``. None means that it had none.
        """
        if sent_at >= self._halved_at:
            self.limit, self._halved_at = max(1.0, self.limit / 2), now
            pause = min(MAX_OVERLOAD_PAUSE, MIN_OVERLOAD_PAUSE * 2.0 ** min(self._overloads, 30))
            self._overloads += 1
            self.resume_at = max(self.resume_at, now + pause)
        if retry_after is not None:
            self.resume_at = max(self.resume_at, now + min(retry_after, MAX_RETRY_AFTER))


def after_error(record: LaunchRecord, error: Exception, now: float) -> LaunchRecord:
    """Return a launch after its start failed. It is in doubt unless the error proves the outcome."""
    if isinstance(error, StartOutcomeUnknown):
        return record.to_unknown(error.reason, now)
    if isinstance(error, ConnectFailed | RateLimited | Unauthorized | ConfigError):
        return record.to_planned(Proof.NOT_SENT, now)
    if isinstance(error, APIError) and not may_have_arrived(error):
        return record.to_refused(type(error).__name__, str(error), now)
    return record.to_unknown(f"{type(error).__name__}: {error}", now)


def is_overload(error: BaseException | None) -> bool:
    """Return whether an error means that the service is overloaded or cannot be reached, so that less must be sent."""
    if isinstance(error, StartOutcomeUnknown):
        return is_overload(error.__cause__)
    if isinstance(error, RateLimited | ServerError):
        return error.status in OVERLOAD_STATUSES
    return isinstance(error, ConnectFailed | CredentialUnavailable | RequestTimeout)


def is_fatal(error: Exception) -> bool:
    """Return whether an error concerns all launches and is permanent."""
    if isinstance(error, ConnectFailed | CredentialUnavailable):
        return error.permanent
    return isinstance(error, Unauthorized | ConfigError) or not isinstance(error, St4sdError)


class Sender:
    """Sends single launches. A launch in flight is shielded against cancellation until its outcome is recorded."""

    def __init__(self, journal: Journal, session: ClientSession, limiter: AdaptiveLimiter) -> None:
        self._journal, self._session = journal, session
        self.limiter = limiter
        self._experiments: dict[str, Experiment | None] = {}
        """Identifier -> the experiment, if one of its launches was refused. None means that it cannot be read."""
        self._all_experiments: list[Experiment] | None = None
        """The registry, if a launch was refused because its experiment is unknown."""
        self._experiments_lock = anyio.Lock()
        self._in_flight: set[anyio.CancelScope] = set()
        self._deadline = inf

    @property
    def is_shutting_down(self) -> bool:
        """Whether the batch is being left, so that nothing more is sent."""
        return self._deadline < inf

    def begin_shutdown(self) -> None:
        """Give starts in flight `SHUTDOWN_GRACE` seconds. Those without a response by then are in doubt."""
        self._deadline = anyio.current_time() + SHUTDOWN_GRACE
        for scope in self._in_flight:
            scope.deadline = self._deadline

    async def send(self, key: str) -> Exception | None:
        """
        Send one planned launch and record the outcome.

        Returns:
            The error of the start. None means that it was started, or not sent.

        Raises:
            MissingCredentials: It was not sent.
            JournalError: The outcome cannot be written. The launch stays ``sending``.
        """
        record = self._journal.records[key]
        try:
            prepared = await self._prepare(record)
        except (InvalidPayload, JournalCorrupt) as error:
            refused = record.to_refused(type(error).__name__, str(error), self._journal.clock.wall())
            await self._journal.update(key, lambda current: refused if current is record else None)
            return error
        outcome: list[Exception | None] = []
        with anyio.CancelScope(shield=True):
            outcome.append(await self._send_once(record, prepared))
        return outcome[0]

    async def _prepare(self, record: LaunchRecord) -> Prepared:
        """
        Return the payload of a launch ready to be sent.

        Raises:
            InvalidPayload: The journal has something else than a payload, or it is too large.
            JournalCorrupt: The payload is missing or damaged.
            MissingCredentials: The launch must be added again.
        """
        payload = await self._journal.payload(record.payload)
        credentials = self._journal.credentials.get(record.key, {})
        try:
            if not credentials and lacks_credentials(payload):
                raise MissingCredentials(record.key)
            campaign = campaign_metadata(self._journal.campaign, record)
            # Credentials are of a launch, not of its payload; they are checked with it.
            is_valid = not credentials and record.payload in self._journal.valid_payloads
            body = payload_to_send(payload, credentials, self._journal.token_of(record), campaign, is_valid=is_valid)
        except InvalidPayload as error:
            problem = f"the payload of {record.key!r} in {self._journal.name} is invalid"
            raise type(error).before_sending(error.problems, error.names, problem) from None
        except RecursionError:
            problem = f"{self._journal.name} is damaged: the payload of {record.key!r} is nested too deeply"
            raise JournalCorrupt(problem) from None
        return serialise(body)

    async def _send_once(self, record: LaunchRecord, prepared: Prepared) -> Exception | None:
        journal, clock = self._journal, self._journal.clock
        if journal.is_stale(record):
            return None  # another task corrected it, or is about to
        sending = record.to_sending(journal.opening, clock.wall())
        await journal.replace(record, sending)
        if self.is_shutting_down:
            # The batch is being left, and this launch was not sent yet.
            await journal.replace(sending, sending.to_planned(Proof.NOT_SENT, clock.wall()))
            return None
        sent_at, rest_uid, failure = clock.now(), None, None
        with anyio.CancelScope() as scope:
            self._in_flight.add(scope)
            try:
                rest_uid = await self._start(sending.experiment, prepared)
            except Exception as error:  # recorded below, and returned
                failure = error
            finally:
                self._in_flight.discard(scope)
        self._adjust_limit(sent_at, failure)
        if isinstance(failure, InvalidPayload) and not self.is_shutting_down:
            with anyio.move_on_after(SHUTDOWN_GRACE):
                await explain_invalid_payload(failure, prepared, partial(self._experiment, sending.experiment))
        if isinstance(failure, UnknownExperiment) and not self.is_shutting_down:
            with anyio.move_on_after(SHUTDOWN_GRACE), suppress(St4sdError):  # the suggestion is optional
                add_suggestion(failure, sending.experiment, await self._list_experiments())
        if failure is not None:
            await journal.replace(sending, after_error(sending, failure, clock.wall()))
        else:
            await journal.replace(sending, self._after_response(sending, rest_uid))
        return failure

    async def _start(self, identifier: str, prepared: Prepared) -> str:
        call = start_call(identifier, prepared.content, prepared.secrets)
        return await self._session.send_once(replace(call, bypasses_limiter=True))

    def _after_response(self, record: LaunchRecord, rest_uid: str | None) -> LaunchRecord:
        """Return a launch after the response to its start. None as the id means that none came in time."""
        now = self._journal.clock.wall()
        if rest_uid is None:
            return record.to_unknown(LEFT_EARLY, now)
        if not is_rest_uid(rest_uid):
            return record.to_unknown(f"the response is not a rest-uid: {shorten(ascii(rest_uid), 80)}", now)
        owner = self._journal.owner_of(rest_uid)
        if owner is not None:
            return record.to_unknown(f"the response is the run {rest_uid!r}, which belongs to {owner!r}", now)
        if self._journal.seen.get(rest_uid, inf) <= record.opening:
            return record.to_unknown(f"the response is the run {rest_uid!r}, which existed before it was sent", now)
        return record.to_started(rest_uid, now)

    async def _experiment(self, identifier: str) -> Experiment | None:
        """Return the experiment of a refused launch. It is requested once for all refused launches."""
        async with self._experiments_lock:
            if identifier not in self._experiments:
                self._experiments[identifier] = None
                experiment = await self._session.send_once(get_call(identifier))
                self._experiments[identifier] = experiment
        return self._experiments[identifier]

    async def _list_experiments(self) -> list[Experiment]:
        """Return all experiments. They are requested once for all refused launches."""
        async with self._experiments_lock:
            if self._all_experiments is None:
                self._all_experiments = []
                self._all_experiments = await self._session.send_once(list_call())
        return self._all_experiments

    def _adjust_limit(self, sent_at: float, failure: Exception | None) -> None:
        now = self._journal.clock.now()
        if is_overload(failure):
            cause = failure.__cause__ if isinstance(failure, StartOutcomeUnknown) else failure
            self.limiter.on_overload(sent_at, now, getattr(cause, "retry_after", None))
        elif failure is None:
            self.limiter.on_response(now - sent_at)
