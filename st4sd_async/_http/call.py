"""
A request as data, and the meaning of its response: a value or an error. Nothing here does I/O.

`Call` describes the request. `parse_response` returns its result, or raises the error that `error_from_response` finds:
first by a key of the JSON body, then by the call's own class for an ambiguous 404 or 400, then by HTTP status.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from math import isnan
from typing import Any, Generic, TypeVar
from urllib.parse import quote

import pydantic
import pydantic_core

from .._errors import (
    AlreadyExists,
    APIError,
    BadRequest,
    CannotUntagLatest,
    Conflict,
    DecodeError,
    Disabled,
    ExtraInputs,
    GraphExists,
    InaccessibleRegistries,
    InputConflict,
    InvalidDefinition,
    InvalidFlowIR,
    InvalidName,
    InvalidPackage,
    InvalidPayload,
    LocalDeployment,
    MissingInputs,
    NoProperties,
    NotAFolder,
    NotFound,
    NotReady,
    OutcomeUnknown,
    OutsideOfFolder,
    PayloadTooLarge,
    Problem,
    RateLimited,
    ServerError,
    Unauthorized,
    UnknownExperiment,
    UnknownGraph,
    UnknownOutput,
    UnknownRelationship,
    UnknownRun,
    UnknownRuntimePolicy,
    join_problems,
    parse_problems,
    parse_refused_entries,
)
from .._util.did_you_mean import DID_YOU_MEAN, did_you_mean
from .._util.printable import MAX_MESSAGE_LENGTH, shorten
from .._util.redact import Redactor, raise_unchained, redact
from .json_list import MAX_JSON_DEPTH, ItemReader, ListBody, read_list
from .retry import Replay

T = TypeVar("T")
M = TypeVar("M", bound=pydantic.BaseModel)

MAX_REQUEST_BYTES = 1 << 20
"""The longest request body that the proxy in front of the service accepts."""

MAX_UNCUT_BYTES = 1 << 16
"""Longest error response whose texts are kept in full; in a longer one they are cut after redaction."""

MAX_REDACTED_BYTES = 1 << 18
"""How much of a body is searched for secrets, at about 1 MB per second. What is longer is left out."""

LENIENT_JSON_ERRORS = ("number out of range", "hex escape")
"""Messages of the fast JSON parser about valid JSON that it does not support."""

MAX_INT_DIGITS = 4300
"""Longest integer that Python parses."""

FILE_TYPES = frozenset({"application/octet-stream", "application/zip", "application/.zip"})
"""
Content types of files and archives. The page of a proxy or the JSON of an error has another.

Source: the runtime service sends files, folders and zip files with these; the gateway sends ``application/zip``.
"""

UNREAD_BODY_HEADER = "x-unread-body"
"""Header in which the engine explains why it did not read the body of an error response."""

CHECK_URL = "no ST4SD service knows this address, check the url of the client"
"""Explains a 404 that is not in the format of the services."""

HTML_REASONS = {
    405: "this address does not accept the method",
    408: "the proxy waited too long for the request",
    409: "a conflict with another request or object",
    429: "too many requests, try again later",
    500: "the service, or the proxy in front of it, had an internal error",
}
"""HTTP status of a web page -> what it means. With another status, the URL is probably wrong."""

MISLEADING_PREFIXES = ("The browser (or proxy)", "Invalid internal experiment payload")
"""Begin messages of the services that blame the request when an object does not exist."""


@dataclass(frozen=True)
class Response:
    """A response with its whole body."""

    status: int
    """HTTP status."""
    headers: Mapping[str, str]
    """Headers; look-up ignores case."""
    body: bytes = field(repr=False)
    """The body."""
    list_body: ListBody[Any] | None = field(default=None, repr=False)
    """The body, if it was read as a list while it arrived; then ``body`` is only its beginning."""
    sent_at: float = 0.0
    """When the request was about to be written to its connection."""
    arrived_at: float = 0.0
    """When the body had arrived; that of a list: when its first piece had."""

    @property
    def is_html(self) -> bool:
        """Whether it is a web page: the proxy's, the sign-in page, or a documentation page."""
        return self.headers.get("content-type", "").lower().startswith("text/html")

    def excerpt(self, secrets: tuple[str, ...]) -> str:
        """Return the beginning of the body as text for a message, with secrets redacted."""
        text = redact(self.body[:MAX_REDACTED_BYTES].decode("utf-8", "replace"), secrets)
        if len(self.body) > MAX_REDACTED_BYTES:
            text = text[:-MAX_MESSAGE_LENGTH]  # the cut may have left an unrecognisable half of a secret at the end
        return text[:MAX_MESSAGE_LENGTH]

    def json(self) -> Any:
        """Return the body as JSON; see `parse_json`."""
        return parse_json(self.body)


def parse_json(text: bytes) -> Any:
    """
    Return the value of a JSON text; ``NaN`` is accepted.

    Half of a surrogate pair is kept, and an integer of thousands of digits becomes infinite, so that neither makes the
    rest unreadable.

    Raises:
        ValueError: The text is not JSON, or nested too deeply.
    """
    try:
        return pydantic_core.from_json(text)
    except ValueError as error:
        if not any(message in str(error) for message in LENIENT_JSON_ERRORS):
            raise
    try:
        value = json.loads(text.decode(), parse_int=_parse_int)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    _check_depth(value)
    return value


def is_file(headers: Mapping[str, str]) -> bool:
    """Return whether a body is a file or an archive, judging by its content type."""
    return headers.get("content-type", "").partition(";")[0].strip().lower() in FILE_TYPES


def _parse_int(digits: str) -> int | float:
    return int(digits) if len(digits) <= MAX_INT_DIGITS else float(digits)


def _check_depth(value: Any) -> None:
    """Raise ValueError if a JSON value is nested deeper than the fast parser allows."""
    level = [value]
    for _ in range(MAX_JSON_DEPTH):
        level = [child for parent in level for child in _children(parent)]
        if not level:
            return
    raise ValueError("nested too deeply")


def _children(value: Any) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


@dataclass(frozen=True)
class Call(Generic[T]):
    """One request, and how to interpret its response."""

    method: str
    """HTTP method."""
    path: str
    """Path below the base URL, quoted, with the trailing slash it needs: redirects are never followed."""
    decode: Callable[[Response], T]
    """Returns the result of a successful response; raises ValueError if the content is unexpected."""
    replay: Replay = Replay.READ
    """Whether the request may be repeated."""
    params: Mapping[str, str] | None = None
    """Query parameters."""
    content: bytes | None = field(default=None, repr=False)
    """JSON body."""
    item_reader: Callable[[], ItemReader[T]] | None = None
    """Returns what takes the items of a response that is a list, one by one as they arrive. None means that the body is
    read as a whole."""
    max_list_bytes: int | None = None
    """Longest such list. None means ``Config.max_body_bytes``."""
    expected: str = "JSON"
    """What a successful response contains, for error messages."""
    is_slow: bool = False
    """Whether the service takes long for this request, so that the default timeout is longer."""
    not_found_error: type[NotFound] = NotFound
    """The error for a 404 whose body has no known key."""
    not_found_statuses: tuple[int, ...] = (404,)
    """HTTP statuses that mean the same as such a 404."""
    bad_request_error: type[BadRequest] = BadRequest
    """The error for a 400 whose body has no known key."""
    error_from_message: Callable[[str], type[APIError] | None] | None = None
    """Returns the error for a message if the body has no known key; None if it does not know the message."""
    recover: Callable[[APIError], T | None] | None = None
    """Turns an error response that means success into the result; None if it does not."""
    secrets: tuple[str, ...] = field(default=(), repr=False)
    """Texts of the body to redact from messages."""
    effect: str = "it was done"
    """What a successful request did, for the message if the outcome is unknown."""
    outcome_unknown_error: type[OutcomeUnknown] = OutcomeUnknown
    """The error if the outcome is unknown."""
    base_url: str | None = None
    """Root of the service; None means the runtime service."""
    bypasses_limiter: bool = False
    """Whether the caller limits the requests in flight, in place of the session."""
    not_after: float | None = None
    """Time of the clock after which no attempt may begin: it raises `SendPermitExpired`. None means no limit."""


def list_call(path: str, item_reader: Callable[[], ItemReader[T]], **options: Any) -> Call[T]:
    """
    Return a request for a list that is read item by item.

    Args:
        path: As in `Call`.
        item_reader: Returns what takes the items of a response.
        options: Other fields of the `Call`.
    """

    def decode(response: Response) -> T:
        found = response.list_body
        return read_list(item_reader(), response.body) if found is None else found.result()

    return Call("GET", path, decode, item_reader=item_reader, **options)


class SendPermitExpired(Exception):
    """An attempt would have begun after `Call.not_after`; nothing was sent. The caller that set it catches this."""


class UnexpectedContent(ValueError):
    """A response has unexpected content; the message does not quote it."""


def segment(text: str, what: str) -> str:
    """Return a quoted path segment; ``what`` names it in the ValueError if the text cannot be one."""
    if not isinstance(text, str) or not text.strip() or text in (".", "..") or "/" in text:
        raise ValueError(f"{what} must be a string without slashes, not {text!r}")
    return _quoted(text, what, ":@")


def subpath(text: str) -> str:
    """Return a quoted relative path of one or more segments; raise ValueError if it is not one."""
    if not isinstance(text, str):
        raise ValueError(f"the path must be a string, not {text!r}")
    parts = text.split("/")
    if any(part in ("", ".", "..") for part in parts):
        raise ValueError(f"the path must be relative, without '.', '..' or empty parts, not {text!r}")
    return _quoted(text, "the path", "/")


def _quoted(text: str, what: str, safe: str) -> str:
    try:
        return quote(text, safe=safe)
    except UnicodeEncodeError:  # half of a surrogate pair
        raise ValueError(f"{what} must be a string that can be encoded as UTF-8, not {text!r}") from None


def json_body(value: Any) -> bytes:
    """Return a JSON body; raise ValueError for a value that JSON cannot represent."""
    try:
        return pydantic_core.to_json(value)
    except ValueError:  # it quotes the value
        raise_unchained(
            ValueError("it contains a value that JSON cannot represent, or text that cannot be encoded as UTF-8")
        )


def model(cls: type[M], key: str | None = None) -> Callable[[Response], M]:
    """Return a decoder that validates the JSON body, or its value under ``key``, as a model."""

    def decode(response: Response) -> M:
        value = response.json()
        return cls.model_validate(value[key] if key else value)

    return decode


def nothing(response: Response) -> None:
    """Decode a response whose body does not matter; raise ValueError if it is a web page of a proxy."""
    if response.is_html:
        raise ValueError("a web page")


def parse_response(call: Call[T], url: str, response: Response, secrets: tuple[str, ...] = ()) -> T:
    """
    Return the result of a call.

    Args:
        call: The call.
        url: The URL of the request, for messages.
        response: The response.
        secrets: Credentials in use; they are redacted from messages, with the call's own secrets.

    Raises:
        APIError: The status is not 2xx; redirects included.
        DecodeError: The status is 2xx and the content is unexpected.
    """
    hidden = call.secrets + secrets
    if not 200 <= response.status < 300:
        error = error_from_response(call, url, response, hidden)
        recovered = call.recover(error) if call.recover else None
        if recovered is None:
            raise error
        return recovered
    problem, path = f"something other than the expected {call.expected.split()[-1]} (is this ST4SD?)", ""
    try:
        return call.decode(response)
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        problem, path = first["msg"], ".".join(str(part) for part in first["loc"])
    except UnexpectedContent as error:
        problem = str(error)
    except (ValueError, TypeError, KeyError, AttributeError):
        if response.is_html:
            advice = "is this the url of an ST4SD deployment, and is the login valid?"
            problem = f"HTML instead of {call.expected} ({advice})"
    # The errors caught above quote the body, so this one is not chained to them. Keys of objects and values that a
    # model quotes are the server's words too.
    problem, path = redact(problem, hidden), redact(path, hidden)
    raise DecodeError(call.method, url, problem, path=path, body=response.excerpt(hidden))


# Which key of a JSON body means which error, in order of precedence. Source: error responses of the runtime service,
# which distinguish situations by a key of the body and not by the HTTP status.
_ERROR_BY_KEY: tuple[tuple[str, type[APIError]], ...] = (
    ("unknownExperiment", UnknownExperiment),
    ("packageNotFound", UnknownExperiment),
    ("parameterisedPackageNotFound", UnknownExperiment),
    ("unknownRestUID", UnknownRun),
    ("unknownInstanceId", UnknownRun),
    ("unknownOutput", UnknownOutput),
    ("missingPath", UnknownOutput),
    ("outputsReady", NotReady),
    ("isFolder", NotAFolder),
    ("fileInFolder", OutsideOfFolder),
    ("propertiesNotAvailableYet", NotReady),
    ("unknownProperties", NoProperties),
    ("unknownRuntimePolicyName", UnknownRuntimePolicy),
    ("unknownRelationship", UnknownRelationship),
    ("relationshipNotFound", UnknownRelationship),
    ("missingInputs", MissingInputs),
    ("extraInputs", ExtraInputs),
    ("dataInputConflicts", InputConflict),
    ("inaccessibleContainerRegistries", InaccessibleRegistries),
    ("flowirErrors", InvalidFlowIR),
    ("invalidStartPayload", InvalidPayload),
    ("invalidVirtualExperimentDefinition", InvalidPackage),
    ("experimentNamingRule", InvalidName),
    ("invalidExperimentID", InvalidName),
    ("experimentIDAlreadyExists", AlreadyExists),
    ("cannotUntagLatestFrom", CannotUntagLatest),
    ("localDeployment", LocalDeployment),
)

_ERROR_BY_AMBIGUOUS_KEY: tuple[tuple[str, type[APIError]], ...] = (
    ("problem", InvalidPackage),
    ("problems", InvalidDefinition),
)
"""Keys that many routes use, so that ``Call.bad_request_error`` takes precedence."""

_ERROR_BY_STATUS: Mapping[int, type[APIError]] = {
    400: BadRequest,
    401: Unauthorized,
    403: Unauthorized,
    404: NotFound,
    409: Conflict,
    413: PayloadTooLarge,
    429: RateLimited,
}

_FILE_KEYS: tuple[tuple[str, type[InvalidPayload]], ...] = (
    ("missingInputs", MissingInputs),
    ("extraInputs", ExtraInputs),
    ("dataInputConflicts", InputConflict),
)
"""Keys that hold a list of file names."""

_CHECK_REPORT_KEYS = ("invalidStartPayload", "invalidVirtualExperimentDefinition")
"""Keys that hold the output of a validation, which the message beside it does not repeat."""

_INPUT_CONFLICT = "Input and Data files with conflicting names: "
"""Begins the ``reason`` that a start has in place of ``dataInputConflicts``, followed by a Python list of names."""
_PYTHON_STRING = re.compile(r"""'([^'\\]*)'|"([^"\\]*)\"""")


def error_from_response(call: Call[Any], url: str, response: Response, secrets: tuple[str, ...] = ()) -> APIError:
    """Return the error for a response whose status is not 2xx, with secrets redacted."""
    detail = _json_object(response, secrets)
    cls = _class_from_detail(response.status, detail)
    if cls is None and call.error_from_message is not None:
        messages = (str(detail.get(key) or "") for key in ("message", "problem"))
        cls = next(filter(None, map(call.error_from_message, messages)), None)
    if cls is None and detail and response.status in call.not_found_statuses:
        cls = call.not_found_error
    if cls is None and response.status == 400 and call.bad_request_error is not BadRequest:
        cls = call.bad_request_error
    if cls is None:
        cls = _class_from_status(response.status, detail)
    message = str(detail.get("message") or detail.get("reason") or "") or _default_message(response, secrets)
    if cls is call.not_found_error and message.startswith(MISLEADING_PREFIXES):
        message = call.not_found_error.default_message
    error = cls(
        ": ".join(filter(None, (message, join_problems(_check_report(detail))))),
        status=response.status,
        method=call.method,
        url=url,
        detail=detail,
        retry_after=parse_retry_after(response.headers.get("retry-after")),
    )
    if isinstance(error, InvalidPayload):
        error.names, error.problems = _file_names(detail), payload_problems(detail)
        suggestions = (problem for problem in error.problems if DID_YOU_MEAN in problem.what)
        error.advice = shorten(join_problems(suggestions)) or error.advice
    if isinstance(error, UnknownOutput):
        error.name = str(detail.get("unknownOutput") or "")
    return error


def is_refused_by_proxy(error: APIError) -> bool:
    """Return whether the sign-in proxy refused the request, so that the service never saw it."""
    return isinstance(error, Unauthorized) and not error.detail


def _class_from_detail(status: int, detail: Mapping[str, Any]) -> type[APIError] | None:
    """Return the error class that the JSON body identifies ({} if there was none), else None."""
    if status in (401, 403):
        return Unauthorized
    for key, cls in _ERROR_BY_KEY:
        if key in detail:
            return cls
    if "graphName" in detail:
        return GraphExists if status == 409 else UnknownGraph
    if str(detail.get("reason", "")).startswith(_INPUT_CONFLICT.rstrip(": ")):
        return InputConflict
    message = str(detail.get("message", ""))
    if status == 400 and message.endswith("try again later"):
        return NotReady
    if status == 400 and "is disabled - contact the administrator" in message:
        return Disabled
    return None


def _class_from_status(status: int, detail: Mapping[str, Any]) -> type[APIError]:
    """Return the error class for a response that neither its body nor the call identifies."""
    if status == 400:
        return next((cls for key, cls in _ERROR_BY_AMBIGUOUS_KEY if key in detail), BadRequest)
    return _ERROR_BY_STATUS.get(status, ServerError if status >= 500 else BadRequest if status >= 400 else APIError)


def _file_names(detail: Mapping[str, Any]) -> tuple[str, ...]:
    return next((names for key, _ in _FILE_KEYS if (names := _names(detail, key))), ())


def payload_problems(detail: Mapping[str, Any]) -> tuple[Problem, ...]:
    """Return the problems of a start payload from the body of a response; () if it does not list them."""
    needed = _names(detail, "missingInputs")
    files = [
        Problem("inputs", cls.remedy.format(name) + (did_you_mean(name, needed) if cls is ExtraInputs else ""))
        for key, cls in _FILE_KEYS
        for name in _names(detail, key)
    ]
    return tuple(files) or _check_report(detail) or parse_refused_entries(str(detail.get("message", "")))


def _check_report(detail: Mapping[str, Any]) -> tuple[Problem, ...]:
    return parse_problems(next((str(detail[key]) for key in _CHECK_REPORT_KEYS if detail.get(key)), ""))


def _names(detail: Mapping[str, Any], key: str) -> tuple[str, ...]:
    names = detail.get(key)
    if names is None and key == "dataInputConflicts":
        _, _, text = str(detail.get("reason", "")).partition(_INPUT_CONFLICT)
        names = [single or double for single, double in _PYTHON_STRING.findall(text)]
    return tuple(map(str, names)) if isinstance(names, list) else ()


def _json_object(response: Response, secrets: tuple[str, ...]) -> dict[str, Any]:
    """Return the JSON object in the body, with secrets redacted; {} if there is none."""
    try:
        body = response.json()
    except ValueError:
        return {}
    if not isinstance(body, dict):
        return {}
    body = _without_long_texts(body, [MAX_REDACTED_BYTES])
    redactor = Redactor(json.dumps(body, ensure_ascii=False), secrets)
    detail: dict[str, Any] = redactor.redact_json(body)
    return _cut(detail) if len(response.body) > MAX_UNCUT_BYTES else detail


def _without_long_texts(value: Any, room: list[int]) -> Any:
    """
    Return a JSON value without the texts that are too long to be searched for secrets.

    They are left out entirely, since a cut could leave an unrecognisable half of a secret.
    """
    if isinstance(value, str) and len(value) > room[0]:
        value = f"[{len(value)} characters, too many to be shown]"
    if isinstance(value, dict):
        return {
            _without_long_texts(key, room): _without_long_texts(item, room)
            for key, item in value.items()
            if room[0] > 0
        }
    if isinstance(value, list):
        return [_without_long_texts(item, room) for item in value if room[0] > 0]
    room[0] -= len(value) if isinstance(value, str) else 1
    return value


def _cut(value: Any) -> Any:
    """Return a JSON value with its long texts cut, for a body that is too large to be kept."""
    if isinstance(value, str):
        return value[:MAX_MESSAGE_LENGTH]
    if isinstance(value, list):
        return [_cut(item) for item in value]
    return {key: _cut(item) for key, item in value.items()} if isinstance(value, dict) else value


def _default_message(response: Response, secrets: tuple[str, ...]) -> str:
    """Return a message for an error response that has none."""
    if 300 <= response.status < 400:
        target = redact(response.headers.get("location", ""), secrets)
        return f"a redirect to {target!r}, which is never followed: check the url of the client and the credentials"
    if response.status in (401, 403):
        return "the sign-in page: the credentials are missing, wrong or expired"
    if response.status == 413:
        return "the request is larger than the 1 MiB that the proxy accepts"
    if response.status in (502, 503, 504):
        return "the proxy got no response from the service: it is down, slow or not at this address"
    if UNREAD_BODY_HEADER in response.headers:
        return response.headers[UNREAD_BODY_HEADER]
    if response.is_html:
        return f"HTML instead of JSON: {HTML_REASONS.get(response.status, CHECK_URL)}"
    text = shorten(response.excerpt(secrets))
    # Source: all JSON errors of the services have a message, except the registry's "{}".
    is_foreign = response.status == 404 and text.strip("{}")
    return f"{text!r}: {CHECK_URL}" if is_foreign else text or "no message"


def parse_retry_after(value: str | None) -> float | None:
    """Return the seconds of a ``Retry-After`` header, which holds seconds or a date; None if missing or invalid."""
    if not value:
        return None
    try:
        seconds = float(value)
        return None if isnan(seconds) else max(0.0, seconds)
    except ValueError:
        pass
    from email.utils import parsedate_to_datetime  # lazily: httpx needs it too, when a client opens

    try:
        moment = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    return max(0.0, (moment.replace(tzinfo=moment.tzinfo or UTC) - datetime.now(UTC)).total_seconds())
