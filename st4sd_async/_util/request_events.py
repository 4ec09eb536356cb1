"""Events of requests, which the hooks of a client receive."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from .field_docs import document_fields

E = TypeVar("E")

log = logging.getLogger("st4sd_async")


@document_fields
@dataclass(frozen=True, eq=False)
class RequestEvent:
    """
    A request is about to be sent. The event holds no credentials, headers, query or body.

    Each event equals only itself, so it can be a key of a dictionary: `ResponseEvent.request` is the same object.
    """

    method: str
    """HTTP method."""
    url: str
    """URL without the query."""
    attempt: int
    """1 for the first request of a call, 2 for its first repetition, and so on."""


@document_fields
@dataclass(frozen=True, eq=False)
class ResponseEvent:
    """
    A request has ended: with a response, without one, or because it was cancelled. Each `RequestEvent` has one.

    For a download, the event comes when the headers have arrived.
    """

    request: RequestEvent
    """The request."""
    status: int | None
    """HTTP status. None means that no usable response arrived."""
    seconds: float
    """Seconds since the `RequestEvent`."""
    error: Exception | None = None
    """Why no usable response arrived. None means that one did, or that the request was cancelled."""


@document_fields
@dataclass(frozen=True, eq=False)
class RetryEvent:
    """A call is about to pause, and to send its request again."""

    method: str
    """HTTP method."""
    url: str
    """URL without the query."""
    attempt: int
    """Number of the attempt that failed; 1 for the first."""
    pause: float
    """Seconds until the next attempt."""
    error: Exception
    """Why the attempt failed: a `TransportError` or an `APIError`."""


def call_hook(hook: Callable[[E], object] | None, event: E) -> None:
    """Call a hook if there is one. If it raises, log the error: it must not affect the request."""
    if hook is None:
        return
    try:
        hook(event)
    except Exception:  # a hook may raise anything
        log.warning("a hook of the client raised an error at %s", type(event).__name__, exc_info=True)
