"""
Requests, answers and routes of the embedded ST4SD, as plain values.

Handlers are ordinary functions from `Request` to `Answer`; the server runs them in worker threads.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

Handler = Callable[..., "Answer"]

UNREADABLE = "The browser (or proxy) sent a request that this server could not understand."
NOT_JSON = "Did not attempt to load JSON data because the request Content-Type was not 'application/json'."
WRONG_METHOD = "The method is not allowed for the requested URL."
HTML = "text/html; charset=utf-8"
_NOT_FOUND = (
    "<!doctype html>\n<html lang=en>\n<title>404 Not Found</title>\n<h1>Not Found</h1>\n"
    "<p>The requested URL was not found on the server. If you entered the URL manually "
    "please check your spelling and try again.</p>\n"
)
_SIGN_IN = (
    '<!DOCTYPE html>\n<html lang="en" charset="utf-8">\n<head><title>Log In</title></head>\n<body>'
    '<form method="GET" action="/oauth/start"><input type="hidden" name="rd" value="/">'
    '<button type="submit">Log in with OpenShift</button></form></body>\n</html>\n'
)
_FORGET_COOKIE = "oauth-proxy=; Path=/; Expires=Thu, 01 Jan 1970 00:00:00 GMT; HttpOnly; Secure"


@dataclass(frozen=True)
class Request:
    """One request as handlers see it."""

    method: str
    """The method as sent, HEAD included."""
    path: str
    """The decoded path, without the ``/rs`` that one of the two routes to the service carries."""
    prefix: str = ""
    """``/rs``, or nothing."""
    origin: str = "http://127.0.0.1"
    """Scheme, host and port under which the client sees this server."""
    query: Mapping[str, str] = field(default_factory=dict)
    """The query parameters, the first value of each."""
    raw_query: str = ""
    """The query string as it came."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """The headers, their names in lower case."""
    cookies: Mapping[str, str] = field(default_factory=dict)
    """The cookies."""
    body: bytes = b""
    """The whole body."""

    def json(self) -> Any:
        """
        The decoded body.

        Raises:
            Abort: 415 if the body is not declared as JSON, 400 if it is not.
        """
        kind = self.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
            raise Abort(415, NOT_JSON)
        return self.any_json()

    def any_json(self) -> Any:
        """The decoded body, whatever it is declared as; raises `Abort` 400 if it is not JSON."""
        try:
            return json.loads(self.body)
        except ValueError as error:
            raise Abort(400, UNREADABLE) from error

    def flag(self, name: str) -> bool:
        """A query parameter that is true or false, which is the default; raises `Abort` 400 if it is neither."""
        text = self.query.get(name, "false").lower()
        if text not in ("true", "1", "on", "false", "0", ""):
            errors = {name: f"Invalid literal for boolean(): {text}"}
            raise Abort(400, "Input payload validation failed", errors=errors)
        return text in ("true", "1", "on")


@dataclass(frozen=True)
class Answer:
    """One whole answer: status, body, type and further headers."""

    status: int
    body: bytes = b""
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()
    stream: Iterator[bytes] | None = None
    """What comes instead of a body, made piece by piece in a worker thread while it is sent."""
    length: int | None = None
    """Bytes of the stream; None: it is sent in chunks and nobody knows."""


class Abort(Exception):
    """Ends the handling with an error in the service's shape: some keys and, last, a ``message``."""

    def __init__(self, status: int, message: str, **keys: Any) -> None:
        super().__init__(status, message)
        self.answer = reply({**keys, "message": message}, status)


class Broken(Abort):
    """The end of a handling that the service did not foresee."""

    def __init__(self) -> None:
        super().__init__(500, "Internal Server Error")


def reply(value: Any, status: int = 200) -> Answer:
    """A JSON answer as the service writes it: a line feed at the end, bare ``NaN`` where a value is one."""
    return Answer(status, (json.dumps(value) + "\n").encode())


def attachment(stream: Iterator[bytes], name: str, kind: str, length: int | None = None) -> Answer:
    """A file to download; quotes and other characters of its name stay as they are, like in the services."""
    disposition = re.sub(r"[\r\n]", "", f"attachment; filename={name}")  # which would break HTTP
    return Answer(200, b"", kind, (("content-disposition", disposition),), stream, length)


def page(status: int, text: str, content_type: str = HTML, *headers: tuple[str, str]) -> Answer:
    """An HTML answer."""
    return Answer(status, text.encode(), content_type, headers)


def not_found() -> Answer:
    """What an unknown route gives: HTML, whatever was accepted."""
    return page(404, _NOT_FOUND)


def sign_in() -> Answer:
    """What anyone gets who is not signed in: a page, and the loss of the cookie."""
    return page(403, _SIGN_IN, "text/html", ("set-cookie", _FORGET_COOKIE))


def proxy_page(status: int, title: str, *headers: tuple[str, str]) -> Answer:
    """A page of the proxy in front of the services, such as ``413 Request Entity Too Large``."""
    heading = f"{status} {title}"
    text = (
        f"<html>\r\n<head><title>{heading}</title></head>\r\n<body>\r\n<center><h1>{heading}</h1></center>\r\n"
        "<hr><center>nginx/1.22.1</center>\r\n</body>\r\n</html>\r\n"
    )
    return page(status, text, "text/html", *headers)


def _moved(url: str) -> Answer:
    text = (
        "<!doctype html>\n<html lang=en>\n<title>Redirecting...</title>\n<h1>Redirecting...</h1>\n"
        f'<p>You should be redirected automatically to the target URL: <a href="{url}">{url}</a>. '
        "If not, click the link.\n"
    )
    return page(308, text, HTML, ("location", url))


class Slash(Enum):
    """What a route thinks of a slash at the end of the path."""

    NEEDED = "needed"
    """A collection: the path without it is redirected."""
    EITHER = "either"
    """An item: both forms are served."""
    NEVER = "never"
    """An action: the path with it does not exist."""


class Route:
    """A path pattern and its handlers by method; ``{}`` stands for one segment, ``{path}`` for the rest."""

    def __init__(self, pattern: str, slash: Slash, **handlers: Handler) -> None:
        self.slash = slash
        self.handlers = handlers
        self.kind = re.sub(r"\{\w*\}", "*", pattern) + ("/" if slash is Slash.NEEDED else "")
        segments = re.escape(pattern).replace(r"\{\}", "([^/]+)").replace(r"\{path\}", "(.+?)")
        self._regex = re.compile(segments + ("/?" if slash is Slash.EITHER else ""), re.DOTALL)

    def match(self, path: str) -> tuple[str, ...] | None:
        """The variable parts of a path that this route serves (or redirects), else None."""
        if self.slash is Slash.NEEDED:
            path = path.removesuffix("/")
        found = self._regex.fullmatch(path)
        return found.groups() if found else None

    def allowed(self) -> str:
        """The value of an ``Allow`` header."""
        extra = ["OPTIONS", *(["HEAD"] if "GET" in self.handlers else [])]
        return ", ".join([*self.handlers, *extra])


class Router:
    """Finds the route of a request and calls its handler."""

    def __init__(self, routes: Sequence[Route]) -> None:
        self._routes = routes

    def kind(self, path: str) -> str:
        """The pattern of the route of a path, with asterisks for ids; an asterisk for a path that leads nowhere."""
        found = self._find(path)
        return found[0].kind if found else "*"

    def handle(self, request: Request) -> Answer:
        """The answer to one request, errors included."""
        found = self._find(request.path)
        return self._serve(found[0], request, found[1]) if found else not_found()

    def _find(self, path: str) -> tuple[Route, tuple[str, ...]] | None:
        for route in self._routes:
            parts = route.match(path)
            if parts is not None:
                return route, parts
        return None

    def _serve(self, route: Route, request: Request, parts: tuple[str, ...]) -> Answer:
        if route.slash is Slash.NEEDED and not request.path.endswith("/"):
            return _moved(_with_slash(request))
        if request.method == "OPTIONS":
            return page(200, "", HTML, ("allow", route.allowed()))
        handler = route.handlers.get("GET" if request.method == "HEAD" else request.method)
        if handler is None:
            wrong = reply({"message": WRONG_METHOD}, 405)
            return Answer(405, wrong.body, headers=(("allow", route.allowed()),))
        try:
            return handler(request, *parts)
        except Abort as abort:
            return abort.answer


def _with_slash(request: Request) -> str:
    # The service stands behind a proxy that ends TLS, so that it always believes in plain http.
    host = request.origin.partition("://")[2]
    query = f"?{request.raw_query}" if request.raw_query else ""
    return f"http://{host}{request.prefix}{request.path}/{query}"
