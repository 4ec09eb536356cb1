"""
Requests, responses and routes of the embedded ST4SD, as plain values.

A handler is a function from `Request` to `Response`; the server runs it in a worker thread.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

Handler = Callable[..., "Response"]

BAD_REQUEST = "The browser (or proxy) sent a request that this server could not understand."
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
_FORGET_COOKIE = "oauth-proxy=; Path=/; Expires=Thu, 01 Jan 1970 00:00:00 GMT; HttpOnly; Secure"


@dataclass(frozen=True)
class Request:
    """One HTTP request."""

    method: str
    """The method as sent; it may be HEAD."""
    path: str
    """The decoded path without the prefix."""
    prefix: str = ""
    """``/rs`` if the path had it, else empty: the service is reachable both ways."""
    origin: str = "http://127.0.0.1"
    """Scheme, host and port of this server as the client sees them."""
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
            HTTPError: 415 if the content type is not JSON, 400 if the body is not.
        """
        kind = self.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
            raise HTTPError(415, NOT_JSON)
        return self.parse_json()

    def parse_json(self) -> Any:
        """Return the decoded body whatever its content type; raise `HTTPError` 400 if it is not JSON."""
        try:
            return json.loads(self.body)
        except ValueError as error:
            raise HTTPError(400, BAD_REQUEST) from error

    def boolean(self, name: str) -> bool:
        """Return a boolean query parameter, by default False; raise `HTTPError` 400 if it is not boolean."""
        text = self.query.get(name, "false").lower()
        if text not in ("true", "1", "on", "false", "0", ""):
            errors = {name: f"Invalid literal for boolean(): {text}"}
            raise HTTPError(400, "Input payload validation failed", errors=errors)
        return text in ("true", "1", "on")


@dataclass(frozen=True)
class Response:
    """One HTTP response."""

    status: int
    body: bytes = b""
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()
    stream: Iterator[bytes] | None = None
    """Chunks to send instead of ``body``; a worker thread produces them one by one."""
    length: int | None = None
    """Bytes of the stream. None means unknown: it is sent with chunked encoding."""


class HTTPError(Exception):
    """Ends a handler with an error in the service's form: some keys and a ``message``."""

    def __init__(self, status: int, message: str, **keys: Any) -> None:
        super().__init__(status, message)
        self.response = json_response({**keys, "message": message}, status)


class InternalServerError(HTTPError):
    """The response to an error that the service does not handle."""

    def __init__(self) -> None:
        super().__init__(500, "Internal Server Error")


def json_response(value: Any, status: int = 200) -> Response:
    """Return JSON as the service writes it: with a line feed at the end, and bare ``NaN``."""
    return Response(status, (json.dumps(value) + "\n").encode())


def file_response(stream: Iterator[bytes], name: str, kind: str, length: int | None = None) -> Response:
    """Return a file to download. As in the services, quotes in its name are not escaped."""
    disposition = re.sub(r"[\r\n]", "", f"attachment; filename={name}")  # they would break HTTP
    return Response(200, b"", kind, (("content-disposition", disposition),), stream, length)


def html_response(status: int, text: str, content_type: str = HTML, *headers: tuple[str, str]) -> Response:
    """Return an HTML response."""
    return Response(status, text.encode(), content_type, headers)


def not_found_page() -> Response:
    """Return the page for an unknown route."""
    return html_response(404, _NOT_FOUND)


def sign_in_page() -> Response:
    """Return the page for requests without valid credentials, which also deletes the cookie."""
    return html_response(403, _SIGN_IN, "text/html", ("set-cookie", _FORGET_COOKIE))


def proxy_page(status: int, title: str, *headers: tuple[str, str]) -> Response:
    """Return a page of the proxy in front of the services, such as ``413 Request Entity Too Large``."""
    heading = f"{status} {title}"
    text = (
        f"<html>\r\n<head><title>{heading}</title></head>\r\n<body>\r\n<center><h1>{heading}</h1></center>\r\n"
        "<hr><center>nginx/1.22.1</center>\r\n</body>\r\n</html>\r\n"
    )
    return html_response(status, text, "text/html", *headers)


def _redirect(url: str) -> Response:
    text = (
        "<!doctype html>\n<html lang=en>\n<title>Redirecting...</title>\n<h1>Redirecting...</h1>\n"
        f'<p>You should be redirected automatically to the target URL: <a href="{url}">{url}</a>. '
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


class Route:
    """A path pattern and its handlers by method; ``{}`` matches one segment, ``{path}`` the rest."""

    def __init__(self, pattern: str, slash: TrailingSlash, **handlers: Handler) -> None:
        self.slash = slash
        self.handlers = handlers
        self.kind = re.sub(r"\{\w*\}", "*", pattern) + ("/" if slash is TrailingSlash.REQUIRED else "")
        segments = re.escape(pattern).replace(r"\{\}", "([^/]+)").replace(r"\{path\}", "(.+?)")
        self._regex = re.compile(segments + ("/?" if slash is TrailingSlash.OPTIONAL else ""), re.DOTALL)

    def match(self, path: str) -> tuple[str, ...] | None:
        """Return the variable parts of a path; None if this route neither serves nor redirects it."""
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
        """Return the pattern of a path's route with asterisks for ids, or ``*`` for a path without a route."""
        found = self._find(path)
        return found[0].kind if found else "*"

    def handle(self, request: Request) -> Response:
        """Return the response to a request, errors included."""
        found = self._find(request.path)
        return self._serve(found[0], request, found[1]) if found else not_found_page()

    def _find(self, path: str) -> tuple[Route, tuple[str, ...]] | None:
        for route in self._routes:
            parts = route.match(path)
            if parts is not None:
                return route, parts
        return None

    def _serve(self, route: Route, request: Request, parts: tuple[str, ...]) -> Response:
        if route.slash is TrailingSlash.REQUIRED and not request.path.endswith("/"):
            return _redirect(_with_slash(request))
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


def _with_slash(request: Request) -> str:
    # The service is behind a proxy that terminates TLS, so that its redirects are always to plain http.
    host = request.origin.partition("://")[2]
    query = f"?{request.raw_query}" if request.raw_query else ""
    return f"http://{host}{request.prefix}{request.path}/{query}"
