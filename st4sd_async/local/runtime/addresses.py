"""
The routes of the runtime service that tell where the services are, and who asks.
"""

from __future__ import annotations

from st4sd_async.local.http.access import COOKIE
from st4sd_async.local.http.messages import Abort, Answer, Request, Route, Slash, page, reply

SERVICES = {
    "consumable-computing": "/rs",
    "cdb-rest": "/ds-mongodb-proxy",
    "cdb-gateway-registry": "/ds-registry",
}
"""The names in the url-map, and where this server has them."""


def url_map(request: Request) -> Answer:
    """Where the services are, as seen by this client."""
    return reply({name: request.origin + path for name, path in SERVICES.items()})


def url_of(request: Request, service: str) -> Answer:
    """Where one service is."""
    if service not in SERVICES:
        raise Abort(404, f"Unknown service {service}, valid options {', '.join(SERVICES)}")
    return reply(request.origin + SERVICES[service])


def token(request: Request) -> Answer:
    """The token in the cookie; whoever came with a bearer key has none, which breaks the service."""
    if COOKIE not in request.cookies:
        raise Abort(500, "Exception while retrieving token")
    return reply(request.cookies[COOKIE])


def home(_request: Request) -> Answer:
    """The page at the root of the service, which proves that somebody is signed in."""
    title = "Runtime Service of the Simulation Toolkit for Scientific Discovery (ST4SD)"
    head = f"<head>\n    <title>{title}</title>\n</head>"
    return page(200, f"<!DOCTYPE html>\n<html>\n{head}\n<body></body>\n</html>\n")


ADDRESSES = [
    Route("/", Slash.EITHER, GET=home),
    Route("/url-map", Slash.NEEDED, GET=url_map),
    Route("/url-map/{}", Slash.EITHER, GET=url_of),
    Route("/authorisation/token", Slash.EITHER, GET=token),
]
"""The routes that need no state."""
