"""
Requests, responses and routes of the embedded ST4SD, as plain values.

A handler is a function from `Request` to `Response`. The server calls it in a worker thread.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import cache
from html import escape
from typing import Any
from urllib.parse import quote

Handler = Callable[..., "Response"]

BAD_REQUEST = "The browser (or proxy) sent a request that this server could not understand."
STRINGIFY_NAN = "A boolean flag that allows converting NaN and infinite values to strings."
"""What the service says of the parameter ``stringifyNaN`` if its value is invalid."""
NOT_JSON = "Did not attempt to load JSON data because the request Content-Type was not 'application/json'."
METHOD_NOT_ALLOWED = "The method is not allowed for the requested URL."
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
_SLASHES = re.compile("/{2,}")
_SAFE_IN_PATH = "!$&'()*+,/:;=@"
_FORGET_COOKIE = "oauth-proxy=; Path=/; Expires=Thu, 01 Jan 1970 00:00:00 GMT; HttpOnly; Secure"


@dataclass(frozen=True)
class Request:
    """One HTTP request."""

    method: str
    """The method as sent, which may be HEAD."""
    path: str
    """The decoded path without the prefix."""
    prefix: str = ""
    """``/rs`` for the runtime service, even if the request omits it; "" for other services."""
    origin: str = "http://127.0.0.1"
    """Scheme, host and port of this server, as addressed by the client."""
    plain_port: int | None = None
    """The port without TLS; None if `origin` has no TLS."""
    query: Mapping[str, str] = field(default_factory=dict)
    """Query parameters, with the first value of each."""
    raw_query: str = ""
    """The undecoded query string."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Headers with lower-case names."""
    cookies: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    def json(self) -> Any:
        """
        Return the decoded body.

        Raises:
            HTTPError: 415 if the content type is not JSON, 400 if the body is not JSON.
        """
        kind = self.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
            raise HTTPError(415, NOT_JSON)
        return self.parse_json()

    def parse_json(self) -> Any:
        """Return the decoded body regardless of its content type; raise `HTTPError` 400 if it is not JSON."""
        try:
            return json.loads(self.body)
        except ValueError as error:
            raise HTTPError(400, BAD_REQUEST) from error

    def boolean(self, name: str, meaning: str) -> bool:
        """Return a boolean query parameter, False if missing; raise `HTTPError` 400 if it is not a boolean."""
        text = self.query.get(name, "false").lower()
        if text not in ("true", "1", "on", "false", "0", ""):
            raise _invalid_parameter(name, f"{meaning} Invalid literal for boolean(): {text}")
        return text in ("true", "1", "on")

    def choice(self, name: str, choices: Sequence[str], meaning: str) -> str:
        """Return a query parameter, the first choice if missing; raise `HTTPError` 400 if it is another text."""
        text = self.query.get(name, choices[0])
        if text not in choices:
            raise _invalid_parameter(name, f"{meaning} The value '{text}' is not a valid choice for '{name}'.")
        return text


@dataclass(frozen=True)
class Response:
    """One HTTP response."""

    status: int
    body: bytes = b""
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()
    stream: Iterator[bytes] | None = None
    """Chunks to send instead of ``body``; a worker thread produces one at a time."""
    length: int | None = None
    """Length of the stream in bytes. None means unknown: the stream is sent with chunked encoding."""


class HTTPError(Exception):
    """An error response in the form of the service: a JSON object with a ``message`` and other keys."""

    def __init__(self, status: int, message: str, **keys: Any) -> None:
        super().__init__(status, message)
        self.response: Response = json_response({**keys, "message": message}, status)


def _invalid_parameter(name: str, problem: str) -> HTTPError:
    return HTTPError(400, "Input payload validation failed", errors={name: problem})


class InternalServerError(HTTPError):
    """The response of the service to an exception that it does not handle."""

    def __init__(self) -> None:
        super().__init__(500, "Internal Server Error")


def json_response(value: Any, status: int = 200) -> Response:
    """Return a JSON response in the format of the service: with a line feed at the end, and with bare ``NaN``."""
    return Response(status, (json.dumps(value) + "\n").encode())


def file_response(stream: Iterator[bytes], name: str, kind: str, length: int | None = None) -> Response:
    """Return a response with a file to download. Quotes in its name are not escaped, as in the services."""
    disposition = re.sub(r"[\r\n]", "", f"attachment; filename={name}")  # line feeds would break HTTP
    return Response(200, b"", kind, (("content-disposition", disposition),), stream, length)


def html_response(status: int, text: str, content_type: str = HTML, *headers: tuple[str, str]) -> Response:
    """Return an HTML response."""
    return Response(status, text.encode(), content_type, headers)


def not_found_page() -> Response:
    """Return the page for an unknown route."""
    return html_response(404, _NOT_FOUND)


def sign_in_page() -> Response:
    """Return the page for requests without valid credentials. The response deletes the cookie."""
    return html_response(403, _SIGN_IN, "text/html", ("set-cookie", _FORGET_COOKIE))


def proxy_page(status: int, title: str, *headers: tuple[str, str]) -> Response:
    """Return a page of the proxy in front of the services, such as ``413 Request Entity Too Large``."""
    heading = f"{status} {title}"
    text = (
        f"<html>\r\n<head><title>{heading}</title></head>\r\n<body>\r\n<center><h1>{heading}</h1></center>\r\n"
        "<hr><center>nginx/1.22.1</center>\r\n</body>\r\n</html>\r\n"
    )
    return html_response(status, text, "text/html", *headers)


def _redirect(request: Request, path: str) -> Response:
    """
    Return a redirection to another path of this server.

    The URL always has plain http, because the services are behind a proxy that terminates TLS.
    """
    host = request.origin.partition("://")[2]
    if request.plain_port is not None:
        host = f"{host.partition(':')[0]}:{request.plain_port}"
    query = f"?{request.raw_query}" if request.raw_query else ""
    url = f"http://{host}{quote(request.prefix + path, safe=_SAFE_IN_PATH)}{query}"
    link = escape(url)
    text = (
        "<!doctype html>\n<html lang=en>\n<title>Redirecting...</title>\n<h1>Redirecting...</h1>\n"
        f'<p>You should be redirected automatically to the target URL: <a href="{link}">{link}</a>. '
        "If not, click the link.\n"
    )
    return html_response(308, text, HTML, ("location", url))


class TrailingSlash(Enum):
    """Whether the path of a route ends with a slash."""

    REQUIRED = "required"
    """A collection: the path without a slash is redirected."""
    OPTIONAL = "optional"
    """An item: both forms are served."""
    FORBIDDEN = "forbidden"
    """An action: the path with a slash is 404."""


@cache  # the same for all servers of a process
def _compiled(pattern: str, slash: TrailingSlash) -> tuple[str, re.Pattern[str]]:
    """Return the kind of a route, with asterisks for ids, and the regular expression of its paths."""
    kind = re.sub(r"\{\w*\}", "*", pattern) + ("/" if slash is TrailingSlash.REQUIRED else "")
    segments = re.escape(pattern).replace(r"\{\}", "([^/]+)").replace(r"\{path\}", "([^/].*?)")
    return kind, re.compile(segments + ("/?" if slash is TrailingSlash.OPTIONAL else ""), re.DOTALL)


class Route:
    """A path pattern and its handlers by method. ``{}`` matches one segment, ``{path}`` any number of segments."""

    def __init__(self, pattern: str, slash: TrailingSlash, **handlers: Handler) -> None:
        self.slash = slash
        self.handlers = handlers
        self.kind, self._regex = _compiled(pattern, slash)

    def match(self, path: str) -> tuple[str, ...] | None:
        """Return the variable parts of a path; None if this route neither serves nor redirects the path."""
        if self.slash is TrailingSlash.REQUIRED:
            path = path.removesuffix("/")
        found = self._regex.fullmatch(path)
        return found.groups() if found else None

    def allowed(self) -> str:
        """Return the value of an ``Allow`` header."""
        extra = ["OPTIONS", *(["HEAD"] if "GET" in self.handlers else [])]
        return ", ".join([*self.handlers, *extra])


class Router:
    """Finds the route of a request and calls its handler."""

    def __init__(self, routes: Sequence[Route]) -> None:
        self._routes = routes

    def kind(self, path: str) -> str:
        """Return the pattern of the path's route, with asterisks for ids; ``*`` if the path has no route."""
        found = self._find(path)
        return found[0].kind if found else "*"

    def handle(self, request: Request) -> Response:
        """Return the response to a request; errors are responses too."""
        found = self._find(request.path)
        if found:
            return self._serve(found[0], request, found[1])
        merged = _SLASHES.sub("/", request.path)
        if merged != request.path and self._find(merged):
            return _redirect(request, merged)
        return not_found_page()

    def _find(self, path: str) -> tuple[Route, tuple[str, ...]] | None:
        for route in self._routes:
            parts = route.match(path)
            if parts is not None:
                return route, parts
        return None

    def _serve(self, route: Route, request: Request, parts: tuple[str, ...]) -> Response:
        if route.slash is TrailingSlash.REQUIRED and not request.path.endswith("/"):
            return _redirect(request, f"{request.path}/")
        if request.method == "OPTIONS":
            return html_response(200, "", HTML, ("allow", route.allowed()))
        handler = route.handlers.get("GET" if request.method == "HEAD" else request.method)
        if handler is None:
            error = json_response({"message": METHOD_NOT_ALLOWED}, 405)
            return Response(405, error.body, headers=(("allow", route.allowed()),))
        try:
            return handler(request, *parts)
        except HTTPError as error:
            return error.response
