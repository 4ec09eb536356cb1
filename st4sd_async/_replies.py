"""A reply as it came, and the error that a bad one means."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import pydantic_core

from ._errors import (
    LONGEST_MESSAGE,
    AlreadyExists,
    APIError,
    BadRequest,
    Conflict,
    ExtraInputs,
    InputConflict,
    InvalidPackage,
    InvalidPayload,
    MissingInputs,
    NotFound,
    NotReady,
    PayloadTooLarge,
    RateLimited,
    ServerError,
    Unauthorized,
    UnknownExperiment,
    UnknownOutput,
    UnknownRun,
    shorten,
)
from ._masking import Masking, masked

EXCERPT = 1 << 16
"""Bytes of a body that are looked at for a message; secrets are masked in them before any cut."""

REDIRECT = "x-refused-location"
"""Header under which the transport hands on where a redirect leads, which is told and never followed."""


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
        return self.headers.get("content-type", "").startswith("text/html")

    def excerpt(self, secrets: tuple[str, ...]) -> str:
        """The beginning of the body as text for a message, its secrets masked."""
        return masked(self.body[:EXCERPT].decode("utf-8", "replace"), secrets)[:LONGEST_MESSAGE]

    def json(self) -> Any:
        """The body as JSON, the bare word NaN included; raises ValueError if it is not."""
        return pydantic_core.from_json(self.body)


# Which body key means what, in the order they are looked for. Source: error replies of the runtime
# service, which tell situations apart by a key of the JSON body and not by the HTTP status.
_BY_KEY: tuple[tuple[str, type[APIError]], ...] = (
    ("unknownExperiment", UnknownExperiment),
    ("packageNotFound", UnknownExperiment),
    ("unknownRestUID", UnknownRun),
    ("unknownInstanceId", UnknownRun),
    ("unknownOutput", UnknownOutput),
    ("missingPath", UnknownOutput),
    ("outputsReady", NotReady),
    ("propertiesNotAvailableYet", NotReady),
    ("unknownProperties", NotFound),
    ("missingInputs", MissingInputs),
    ("extraInputs", ExtraInputs),
    ("dataInputConflicts", InputConflict),
    ("invalidStartPayload", InvalidPayload),
    ("invalidVirtualExperimentDefinition", InvalidPackage),
    ("problem", InvalidPackage),
    ("experimentIDAlreadyExists", AlreadyExists),
)

_BY_STATUS: Mapping[int, type[APIError]] = {
    400: BadRequest,
    401: Unauthorized,
    403: Unauthorized,
    404: NotFound,
    409: Conflict,
    413: PayloadTooLarge,
    429: RateLimited,
}


def error_class(status: int, detail: Mapping[str, Any]) -> type[APIError] | None:
    """The class for a refusal with this HTTP status and this JSON body ({} if it had none); None: nothing tells."""
    if status in (401, 403):
        return Unauthorized
    for key, cls in _BY_KEY:
        if key in detail:
            return cls
    if str(detail.get("reason", "")).startswith("Input and Data files with conflicting names"):
        return InputConflict
    if status == 400 and str(detail.get("message", "")).endswith("try again later"):
        return NotReady
    return None


def _general_class(status: int) -> type[APIError]:
    """The class for a refusal of which only the HTTP status tells anything."""
    return _BY_STATUS.get(status, ServerError if status >= 500 else BadRequest if status >= 400 else APIError)


def error_names(detail: Mapping[str, Any]) -> tuple[str, ...]:
    """The file names that a refusal is about, () if it does not say."""
    for key in ("missingInputs", "extraInputs", "dataInputConflicts"):
        if isinstance(detail.get(key), list):
            return tuple(str(name) for name in detail[key])
    return ()


def refusal(
    response: Response,
    method: str,
    url: str,
    *,
    secrets: tuple[str, ...] = (),
    missing: type[NotFound] = NotFound,
    missing_on: tuple[int, ...] = (404,),
    wrong: type[BadRequest] = BadRequest,
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
    """
    detail = _detail(response, secrets)
    cls = error_class(response.status, detail)
    if cls is None:
        is_missing = detail and response.status in missing_on
        cls = missing if is_missing else wrong if response.status == 400 else _general_class(response.status)
    message = str(detail.get("message") or detail.get("reason") or "") or _in_place_of_words(response, secrets)
    if cls is missing and message.startswith("The browser (or proxy)"):
        message = "the service does not know it"
    error = cls(
        message,
        status=response.status,
        method=method,
        url=url,
        detail=detail,
        retry_after=parse_retry_after(response.headers.get("retry-after")),
    )
    if isinstance(error, InvalidPayload):
        error.concern(error_names(detail))
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
    if len(response.body) > EXCERPT:
        body = _clipped(body)
    masking = Masking(pydantic_core.to_json(body).decode("utf-8", "replace"), secrets)
    found: dict[str, Any] = masking.deep(body)
    return found


def _clipped(value: Any) -> Any:
    """A JSON value whose long texts are cut, for a body that is too large to be kept."""
    if isinstance(value, str):
        return value[:LONGEST_MESSAGE]
    if isinstance(value, list):
        return [_clipped(item) for item in value]
    return {key: _clipped(item) for key, item in value.items()} if isinstance(value, dict) else value


def _in_place_of_words(response: Response, secrets: tuple[str, ...]) -> str:
    """What to tell of a reply that has no message of its own."""
    if 300 <= response.status < 400:
        where = masked(response.headers.get(REDIRECT, ""), secrets)
        return f"a redirect to {where!r}, which is never followed: check the url of the deployment"
    if response.status in (401, 403):
        return "the sign-in page: the credentials are missing, wrong or expired"
    if response.status == 413:
        return "the request is larger than the 1 MiB that the proxy lets through"
    if response.status in (502, 503, 504):
        return "the proxy has no answer from the service, which is down or takes too long"
    if response.is_html:
        return "a web page in place of a JSON message: no ST4SD service knows this address, check the url of the client"
    return shorten(response.excerpt(secrets)) or "no message"


def is_refused_by_proxy(error: APIError) -> bool:
    """Whether the sign-in proxy refused, so that the service never saw the request."""
    return isinstance(error, Unauthorized) and not error.detail


def parse_retry_after(value: str | None) -> float | None:
    """Seconds that a ``Retry-After`` header asks for, given as seconds or as a date; None if it says nothing."""
    if not value:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        moment = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    return max(0.0, (moment.replace(tzinfo=moment.tzinfo or UTC) - datetime.now(UTC)).total_seconds())
