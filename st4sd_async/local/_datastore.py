"""
The routes of the datastore's services: documents about instances that outlive them, and greetings.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from st4sd_async.local._engines import Engine, Registration
from st4sd_async.local._http import UNREADABLE, Abort, Answer, Request, Route, Slash, reply

SERVICES = ("/ds-mongodb-proxy", "/ds-registry", "/ds-gateway")
GATEWAY = "example-cluster"
"""The name under which the files of this server would be found."""
WORKDIR = "/tmp/workdir"
"""Where instance directories are said to be."""
UID_KEYS = ("metadata.userMetadata.rest-uid", "rest-uid")
"""What a query calls the id of an instance, in a document about the experiment and about the metadata."""
_STAMP = "%Y-%m-%dT%H%M%S.%f"
_TIME = "%Y-%m-%dT%H:%M:%S.%f"


class Datastore:
    """The handlers of the datastore's services."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def routes(self) -> list[Route]:
        """The routes."""
        return [
            Route("/ds-mongodb-proxy/documents/api/v1.0/query", Slash.NEVER, POST=self.query),
            *(Route(f"{service}/hello", Slash.NEEDED, GET=hello) for service in SERVICES),
        ]

    def query(self, request: Request) -> Answer:
        """The documents that match: keys of a query lead down with dots, values are equal; there are no operators."""
        wanted = request.json()
        if not isinstance(wanted, Mapping):
            raise Abort(400, UNREADABLE)
        uid = next((wanted[key] for key in UID_KEYS if isinstance(wanted.get(key), str)), None)
        known = [document for one in self._engine.registrations(uid) for document in documents(one)]
        return reply({"document-descriptors": [document for document in known if _matches(document, wanted)]})


def hello(_request: Request) -> Answer:
    """The greeting that clients use to find out whether a service can be reached."""
    return reply("hello")


def documents(known: Registration) -> list[dict[str, Any]]:
    """The documents about one instance: its experiment and its user's metadata."""
    meta, metadata = known.status["meta"], known.launch.package["metadata"]
    path = f"{WORKDIR}/{meta.get('instanceName', known.launch.rest_uid)}"
    instance = f"file://{GATEWAY}{path}"
    experiment = {
        "instance": instance,
        "uid": f"file://{path}",
        "name": metadata["package"]["name"],
        "type": "experiment",
        "metadata": meta,
        "status": _status(known),
        "output": {name: _output(entry) for name, entry in known.outputs.items()},
        "interface": metadata["registry"]["interface"],
    }
    about = {"instance": instance, "type": "user-metadata", "uid": f"{instance}&user-metadata"}
    return [experiment, {**meta.get("userMetadata", {}), **about}]


def _status(known: Registration) -> dict[str, str]:
    """A status as the status file has it: everything is a text, a list too, and an error only if there is one."""
    texts = {key: str(value) for key, value in known.status.items() if key != "meta"}
    if not texts["error-description"]:
        del texts["error-description"]
    times = {name: time.strftime(_TIME) for name, time in known.times.items()}
    updated = {"updated": known.times["updated-on"].strftime(_STAMP)} if "updated-on" in known.times else {}
    return {**texts, **updated, "cost": "0", "completed-on": "N/A", **times}


def _output(entry: Mapping[str, str]) -> dict[str, Any]:
    """A key-output as documents have it, with another notation of the time and the version."""
    created = datetime.fromtimestamp(float(entry["creationtime"]), UTC)
    return {**entry, "creationtime": created.strftime(_STAMP), "version": int(entry["version"])}


def _matches(document: Mapping[str, Any], query: Mapping[str, Any]) -> bool:
    return all(_at(document, key) == value for key, value in query.items())


def _at(document: Any, key: str) -> Any:
    for part in key.split("."):
        document = document.get(part) if isinstance(document, Mapping) else None
    return document
