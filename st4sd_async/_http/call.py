"""A request as data, and what a reply to it means: nothing here does I/O."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar
from urllib.parse import quote

import pydantic
import pydantic_core

from .._errors import APIError, BadRequest, DecodeError, NotFound, OutcomeUnknown
from .._util.printable import is_writable
from .._util.redact import masked
from .responses import Response, refusal
from .retry import Replay

T = TypeVar("T")
M = TypeVar("M", bound=pydantic.BaseModel)

DEFAULT_SILENCE = 20.0
"""Seconds of silence that a request bears, unless the user sets another time."""

LARGEST_BODY = 1 << 20
"""Bytes of a request that the proxy in front of the service lets through."""

LONG_SILENCE = 60.0
"""The same for requests that take long: a push clones a repository, an output is packed before it is sent."""


@dataclass(frozen=True)
class Call(Generic[T]):
    """One request and how to understand its reply."""

    method: str
    """HTTP method."""
    path: str
    """Path below the service, quoted, with the slash it needs: redirects are never followed."""
    decode: Callable[[Response], T]
    """Makes the result of a good reply; raises ValueError if it is not what was promised."""
    replay: Replay = Replay.READ
    """What repeating it would do."""
    params: Mapping[str, str] | None = None
    """Query parameters."""
    content: bytes | None = field(default=None, repr=False)
    """JSON body."""
    due: str = "JSON"
    """What a good reply is, for the message about one that is something else."""
    is_long: bool = False
    """Whether the service takes its time for this."""
    missing: type[NotFound] = NotFound
    """What a 404 without a telling key means here."""
    missing_on: tuple[int, ...] = (404,)
    """HTTP statuses that mean so."""
    wrong: type[BadRequest] = BadRequest
    """What a 400 without a telling key means here."""
    telling: Callable[[str], type[APIError] | None] | None = None
    """What the words of a refusal without a telling key mean here; None: nothing."""
    rescue: Callable[[APIError], T | None] | None = None
    """Turns a refusal that means something good into a result; None leaves it a refusal."""
    secrets: tuple[str, ...] = field(default=(), repr=False)
    """Texts of the body that must not come back in messages."""
    what: str = "it was done"
    """What it does, in the past, for the message when its outcome is unknown."""
    doubt: type[OutcomeUnknown] = OutcomeUnknown
    """The error when its outcome is unknown."""
    base: str | None = None
    """Root of another service than the runtime service."""
    is_paced: bool = False
    """Whether whoever sends it bounds how many are in flight, in place of the session."""


class Unexpected(ValueError):
    """A reply is not what was promised; its text holds nothing of the reply."""


def segment(text: str, what: str) -> str:
    """One path segment, quoted; ``what`` names it in the error for a text that cannot be one."""
    if not isinstance(text, str) or not text.strip() or text in (".", "..") or "/" in text:
        raise ValueError(f"{what} must be a text without slashes, not {text!r}")
    return _quoted(text, what, ":@")


def subpath(text: str) -> str:
    """A path of several segments below something, quoted."""
    if not isinstance(text, str):
        raise ValueError(f"the path must be a text, not {text!r}")
    parts = text.split("/")
    if any(part in ("", ".", "..") for part in parts):
        raise ValueError(f"the path must be relative, without '.', '..' or empty parts, not {text!r}")
    return _quoted(text, "the path", "/")


def _quoted(text: str, what: str, safe: str) -> str:
    if not is_writable(text):
        raise ValueError(f"{what} must be a text that UTF-8 can write, not {text!r}")
    return quote(text, safe=safe)


def json_body(value: Any) -> bytes:
    """A JSON body; raises ValueError for what JSON cannot say."""
    try:
        return pydantic_core.to_json(value)
    except ValueError:
        pass
    # Raised out here, because the error caught above quotes what it met.
    raise ValueError("it holds something that JSON cannot say: no plain value, or text that UTF-8 cannot write")


def model(cls: type[M], key: str | None = None) -> Callable[[Response], M]:
    """A decoder that makes a model of the JSON body, or of what stands in it under ``key``."""

    def decode(response: Response) -> M:
        value = response.json()
        return cls.model_validate(value[key] if key else value)

    return decode


def nothing(response: Response) -> None:
    """A decoder for replies whose body says nothing; a page of a proxy is none of them."""
    if response.is_html:
        raise ValueError("a page for people")


def decipher(call: Call[T], url: str, response: Response, secrets: tuple[str, ...] = ()) -> T:
    """
    The result of a call, from the reply to it.

    Args:
        call: The call.
        url: Where it was sent, for messages.
        response: What came back.
        secrets: Credentials in use, kept out of messages together with the call's own secrets.

    Raises:
        APIError: The reply is not a good one, redirects included.
        DecodeError: It is, but not what was promised.
    """
    hidden = call.secrets + secrets
    if not 200 <= response.status < 300:
        error = refusal(
            response,
            call.method,
            url,
            secrets=hidden,
            missing=call.missing,
            missing_on=call.missing_on,
            wrong=call.wrong,
            telling=call.telling,
        )
        rescued = call.rescue(error) if call.rescue else None
        if rescued is None:
            raise error
        return rescued
    problem, path = f"something that is not the {call.due.split()[-1]} it should be (is this ST4SD?)", ""
    try:
        return call.decode(response)
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        problem, path = first["msg"], ".".join(str(part) for part in first["loc"])
    except Unexpected as error:
        problem = str(error)
    except (ValueError, TypeError, KeyError, AttributeError):
        if response.is_html:
            problem = (
                f"a web page where {call.due} is due (is the url that of an ST4SD deployment, and the login good?)"
            )
    # Raised here and not above, because the errors caught there hold what was read.
    # The keys of an object are the server's words too, and what a model says of a value may quote it.
    problem, path = masked(problem, hidden), masked(path, hidden)
    raise DecodeError(call.method, url, problem, path=path, body=response.excerpt(hidden))
