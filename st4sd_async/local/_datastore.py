"""
The routes of the datastore's services: so far, that they are there.
"""

from __future__ import annotations

from st4sd_async.local._http import Answer, Request, Route, Slash, reply

SERVICES = ("/ds-mongodb-proxy", "/ds-registry", "/ds-gateway")


def hello(_request: Request) -> Answer:
    """The greeting that clients use to find out whether a service can be reached."""
    return reply("hello")


ROUTES = [Route(f"{service}/hello", Slash.NEEDED, GET=hello) for service in SERVICES]
