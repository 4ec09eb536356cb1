"""A reply as it came, and the error that a bad one means."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from math import isnan
from typing import Any

import pydantic_core

from .._errors import APIError, BadRequest, InvalidPayload, NotFound, Unauthorized, UnknownOutput, join_problems
from .._util.did_you_mean import DID_YOU_MEAN
from .._util.printable import MAX_MESSAGE_LENGTH, shorten
from .._util.redact import Masking, masked
from .error_mapping import error_account, error_class, error_names, error_problems, general_class

KEPT_WHOLE = 1 << 16
"""Bytes of a refusal whose texts are kept whole; those of a longer one are cut once they are masked."""

SEARCHED = 1 << 18
"""Bytes of a body in which secrets are looked for, which takes a second for about 1 MB. What is longer is left out."""

ODD = ("number out of range", "hex escape")
"""What the quick reader of JSON says of valid JSON that it does not read."""

MOST_DIGITS = 4300
"""Digits of a whole number that Python reads."""

DEEPEST = 200
"""Levels of a JSON value, as many as the quick reader allows."""

WRONG_ADDRESS = "no ST4SD service knows this address, check the url of the client"
"""What a 404 means that is not in the words of the services."""

FILES = frozenset({"application/octet-stream", "application/zip", "application/.zip"})
"""
Types under which the services send files and archives. A proxy's page, or the JSON of a refusal, has another.

Source: the runtime service sends a file, a folder and a zip file so; the gateway sends archives as ``application/zip``.
"""

MISLEADING = ("The browser (or proxy)", "Invalid internal experiment payload")
"""How messages begin with which the services say of something that is not there that the request was wrong."""

REDIRECT = "x-refused-location"
"""Header under which the transport hands on where a redirect leads, which is told and never followed."""

UNREAD = "x-unread-body"
"""Header under which the transport tells why it did not read the body of a refusal."""


@dataclass(frozen=True)
class Response:
    """A reply as it came, with its body whole."""

    status: int
    """HTTP status."""
    headers: Mapping[str, str]
    """Headers; look-up without regard to case."""
    body: bytes = field(repr=False)
    """The body."""

    @property
    def is_html(self) -> bool:
        """Whether it is a page for people: the proxy's, the sign-in page, or a documentation page."""
        return self.headers.get("content-type", "").lower().startswith("text/html")

    def excerpt(self, secrets: tuple[str, ...]) -> str:
        """The beginning of the body as text for a message, its secrets masked."""
        words = masked(self.body[:SEARCHED].decode("utf-8", "replace"), secrets)
        if len(self.body) > SEARCHED:
            # A secret may have been cut in two there, and its first half not be known for one.
            words = words[:-MAX_MESSAGE_LENGTH]
        return words[:MAX_MESSAGE_LENGTH]

    def json(self) -> Any:
        """
        Return the body as JSON, the bare word NaN included.

        Half a surrogate pair is kept as it is, and a whole number of thousands of digits is infinite: neither hides
        the rest.

        Raises:
            ValueError: It is not JSON, or nested too deeply.
        """
        try:
            return pydantic_core.from_json(self.body)
        except ValueError as error:
            if not any(odd in str(error) for odd in ODD):
                raise
        try:
            found = json.loads(self.body.decode(), parse_int=_whole)
        except RecursionError:
            raise ValueError("nested too deeply") from None
        _check_depth(found)
        return found


def is_file(headers: Mapping[str, str]) -> bool:
    """Whether a body is a file or an archive, by its type."""
    return headers.get("content-type", "").partition(";")[0].strip().lower() in FILES


def _whole(digits: str) -> int | float:
    return int(digits) if len(digits) <= MOST_DIGITS else float(digits)


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(DEEPEST):
        level = [item for one in level for item in _inside(one)]
        if not level:
            return
    raise ValueError("nested too deeply")


def _inside(value: Any) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def refusal(
    response: Response,
    method: str,
    url: str,
    *,
    secrets: tuple[str, ...] = (),
    missing: type[NotFound] = NotFound,
    missing_on: tuple[int, ...] = (404,),
    wrong: type[BadRequest] = BadRequest,
    telling: Callable[[str], type[APIError] | None] | None = None,
) -> APIError:
    """
    The error for a reply that is not a good one, its words masked.

    Args:
        response: What came back.
        method: HTTP method of the request.
        url: Where it was sent.
        secrets: Texts that must not come back in messages.
        missing: What it means that something is not there and no key of the body says what.
        missing_on: HTTP statuses that mean so.
        wrong: What a 400 means without such a key.
        telling: What the service's words mean, without such a key; None: nothing.
    """
    detail = _detail(response, secrets)
    cls = error_class(response.status, detail)
    if cls is None and telling is not None:
        words = (str(detail.get(key) or "") for key in ("message", "problem"))
        cls = next(filter(None, map(telling, words)), None)
    if cls is None and detail and response.status in missing_on:
        cls = missing
    if cls is None:
        is_told = response.status == 400 and wrong is not BadRequest
        cls = wrong if is_told else general_class(response.status, detail)
    message = str(detail.get("message") or detail.get("reason") or "") or _in_place_of_words(response, secrets)
    if cls is missing and message.startswith(MISLEADING):
        message = missing.default_message
    error = cls(
        ": ".join(filter(None, (message, join_problems(error_account(detail))))),
        status=response.status,
        method=method,
        url=url,
        detail=detail,
        retry_after=parse_retry_after(response.headers.get("retry-after")),
    )
    if isinstance(error, InvalidPayload):
        error.names, error.problems = error_names(detail), error_problems(detail)
        error.advice = shorten(join_problems(one for one in error.problems if DID_YOU_MEAN in one.what)) or error.advice
    if isinstance(error, UnknownOutput):
        error.name = str(detail.get("unknownOutput") or "")
    return error


def _detail(response: Response, secrets: tuple[str, ...]) -> dict[str, Any]:
    """The JSON object in a reply, its texts masked; {} if there is none."""
    try:
        body = response.json()
    except ValueError:
        return {}
    if not isinstance(body, dict):
        return {}
    body = _searchable(body, [SEARCHED])
    masking = Masking(json.dumps(body, ensure_ascii=False), secrets)
    found: dict[str, Any] = masking.deep(body)
    return _clipped(found) if len(response.body) > KEPT_WHOLE else found


def _searchable(value: Any, room: list[int]) -> Any:
    """
    A JSON value without the texts that are too long to look for secrets in them.

    They are left out as a whole: a cut could leave half of a secret, which nothing tells from other words.
    """
    if isinstance(value, str) and len(value) > room[0]:
        value = f"[{len(value)} characters, too many to be shown]"
    if isinstance(value, dict):
        return {_searchable(key, room): _searchable(item, room) for key, item in value.items() if room[0] > 0}
    if isinstance(value, list):
        return [_searchable(item, room) for item in value if room[0] > 0]
    room[0] -= len(value) if isinstance(value, str) else 1
    return value


def _clipped(value: Any) -> Any:
    """A masked JSON value whose long texts are cut, for a body that is too large to be kept."""
    if isinstance(value, str):
        return value[:MAX_MESSAGE_LENGTH]
    if isinstance(value, list):
        return [_clipped(item) for item in value]
    return {key: _clipped(item) for key, item in value.items()} if isinstance(value, dict) else value


def _in_place_of_words(response: Response, secrets: tuple[str, ...]) -> str:
    """What to tell of a reply that has no message of its own."""
    if 300 <= response.status < 400:
        where = masked(response.headers.get(REDIRECT, ""), secrets)
        return f"a redirect to {where!r}, which is never followed: check the url of the client and the credentials"
    if response.status in (401, 403):
        return "the sign-in page: the credentials are missing, wrong or expired"
    if response.status == 413:
        return "the request is larger than the 1 MiB that the proxy lets through"
    if response.status in (502, 503, 504):
        return "the proxy has no answer from the service, which is down, takes too long or is not at this address"
    if UNREAD in response.headers:
        return response.headers[UNREAD]
    if response.is_html:
        return f"a web page in place of a JSON message: {WRONG_ADDRESS}"
    words = shorten(response.excerpt(secrets))
    # Source: all that the services say in JSON has a message [29], but for the registry's "{}".
    is_foreign = response.status == 404 and words.strip("{}")
    return f"{words!r}: {WRONG_ADDRESS}" if is_foreign else words or "no message"


def is_refused_by_proxy(error: APIError) -> bool:
    """Whether the sign-in proxy refused, so that the service never saw the request."""
    return isinstance(error, Unauthorized) and not error.detail


def parse_retry_after(value: str | None) -> float | None:
    """Seconds that a ``Retry-After`` header asks for, given as seconds or as a date; None if it says nothing."""
    if not value:
        return None
    try:
        seconds = float(value)
        return None if isnan(seconds) else max(0.0, seconds)
    except ValueError:
        pass
    try:
        moment = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    return max(0.0, (moment.replace(tzinfo=moment.tzinfo or UTC) - datetime.now(UTC)).total_seconds())
