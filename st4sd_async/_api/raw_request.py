"""Requests to endpoints that no group covers: `Client.request`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

from .._errors import PayloadTooLarge, Problem, UnknownService
from .._http.call import MAX_REQUEST_BYTES, Call, json_body
from .._http.retry import Replay

REPLAYS = {"GET": Replay.READ, "PUT": Replay.REPEAT, "DELETE": Replay.DELETE, "POST": Replay.ONCE}
"""Whether a request may be repeated, by method."""
SECRET_FIELDS = {"accessKeyID", "environmentVariables", "password", "secretAccessKey"}
"""Fields of bodies whose values are redacted from messages."""


def request_call(
    method: str,
    path: str,
    params: Mapping[str, Any] | None,
    json: Any,
    services: Mapping[str, str],
    service: str | None,
) -> Call[Any]:
    """Return a request to a service, whose result is the JSON response. None means the runtime service."""
    verb = method.upper()
    if verb not in REPLAYS:
        raise ValueError(f"method must be one of {sorted(REPLAYS)}, not {method!r}")
    if service is not None and service not in services:
        raise UnknownService(f"this deployment has no service {service!r}, only {sorted(services)}")
    content = None if json is None else json_body(json)
    if content is not None and len(content) > MAX_REQUEST_BYTES:
        problem = f"{len(content)} bytes are more than the {MAX_REQUEST_BYTES} that the proxy accepts"
        raise PayloadTooLarge.before_sending([Problem("json", problem)])
    return Call(
        verb,
        quoted_path(path),
        lambda response: response.json(),
        replay=REPLAYS[verb],
        params={name: str(value) for name, value in (params or {}).items()},
        content=content,
        is_slow=True,
        secrets=tuple(_secrets(json)),
        effect=f"{verb} {path} was carried out",
        base_url=None if service is None else services[service],
    )


def _secrets(value: Any, *, is_secret: bool = False) -> Iterator[str]:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _secrets(inner, is_secret=is_secret or name in SECRET_FIELDS)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _secrets(inner, is_secret=is_secret)
    elif is_secret and value is not None:
        yield str(value)


def quoted_path(path: str) -> str:
    """Return a path below a service, quoted; raise ValueError if it leads out of the service or has a query."""
    below = path.removeprefix("/")
    if not below.strip() or "//" in path or {".", ".."} & set(below.split("/")) or {"?", "#"} & set(below):
        raise ValueError(
            f"path must be relative to the service, such as 'experiments/', with the query in params, not {path!r}"
        )
    return quote(below, safe="/:@%")
