"""
What the cluster keeps for the service: datasets and image pull secrets, and their routes.

Source:
    st4sd-runtime-service, ``apis/datasets.py`` and ``apis/image_pull_secrets.py``. The service adds the name of a
    function where its messages mean the name of a secret, and answers 500 for a secret that it does not know.
"""

from __future__ import annotations

import re
import threading
from typing import Any

from st4sd_async.local.http.messages import Abort, Answer, Broken, Request, Route, Slash, reply

OTHER_SECRET = "st4sd-internal-experiments"
"""Name of a secret that is no image pull secret: it opens the bucket for internal experiments."""
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")
_NEEDED = ("accessKeyID", "secretAccessKey", "bucket", "endpoint")
_NOT_FOUND = (
    "404 Not Found: The requested URL was not found on the server. If you entered the URL manually please check "
    "your spelling and try again."
)


class Cluster:
    """The datasets and secrets of one server; there are none at first. Safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._datasets: dict[str, dict[str, Any]] = {}
        self._pull_secrets: dict[str, str] = {}

    def routes(self) -> list[Route]:
        """The routes."""
        secret = {"GET": self.registries, "POST": self.create_secret, "PUT": self.update_secret}
        return [
            Route("/datasets", Slash.NEEDED, GET=self.datasets),
            Route("/datasets/s3/{}", Slash.NEVER, POST=self.create_dataset),
            Route("/image-pull-secrets", Slash.NEEDED, GET=self.pull_secrets),
            Route("/image-pull-secrets/{}", Slash.EITHER, **secret),
        ]

    def datasets(self, _request: Request) -> Answer:
        """The names of all datasets."""
        with self._lock:
            return reply(list(self._datasets))

    def dataset(self, name: str) -> dict[str, Any] | None:
        """What a dataset was made of, None if there is none of that name."""
        with self._lock:
            return self._datasets.get(name)

    def create_dataset(self, request: Request, name: str) -> Answer:
        """Keep a dataset; nobody connects to its bucket."""
        value = request.json()
        _check_bucket(value)
        _check_name("Dataset", name)
        with self._lock:
            if name in self._datasets:
                raise Abort(409, f'datasets "{name}" already exists')
            self._datasets[name] = dict(value)
        return reply("OK")

    def pull_secrets(self, _request: Request) -> Answer:
        """The registries of all image pull secrets."""
        with self._lock:
            return reply({name: [server] for name, server in self._pull_secrets.items()})

    def registries(self, _request: Request, name: str) -> Answer:
        """The registries of one image pull secret."""
        with self._lock:
            if name not in self._pull_secrets:
                raise Abort(500, f"Exception when listing imagePullSecret {name} - {_NOT_FOUND}")
            return reply([self._pull_secrets[name]])

    def create_secret(self, request: Request, name: str) -> Answer:
        """Keep an image pull secret, of which the password is forgotten at once."""
        server = _server(request)
        with self._lock:
            if name in self._pull_secrets:
                raise Abort(409, "imagePullSecret already exists but has not become available yet")
            if name == OTHER_SECRET:
                told = "imagePullSecret <built-in function id> conflicts with existing Secret object with the same name"
                raise Abort(422, told)
            _check_name("Secret", name)
            self._pull_secrets[name] = server
        return reply("Success")

    def update_secret(self, request: Request, name: str) -> Answer:
        """Keep an image pull secret, be it there or not."""
        server = _server(request)
        _check_name("Secret", name)
        with self._lock:
            self._pull_secrets[name] = server
        return reply("Success")


def _check_bucket(value: Any) -> None:
    """The service hands the fields of the body to a function as they are."""
    if not isinstance(value, dict):
        raise Broken
    function = "dataset_create()"
    for name in value:
        if name not in (*_NEEDED, "region"):
            raise _not_created(f"{function} got an unexpected keyword argument '{name}'")
    missing = [f"'{name}'" for name in _NEEDED if name not in value]
    if missing:
        plural = "s" if len(missing) > 1 else ""
        told = f"missing {len(missing)} required positional argument{plural}: {_listed(missing)}"
        raise _not_created(f"{function} {told}")


def _listed(names: list[str]) -> str:
    """Names as Python lists them in a message."""
    if len(names) < 3:
        return " and ".join(names)
    return f"{', '.join(names[:-1])}, and {names[-1]}"


def _not_created(why: str) -> Abort:
    return Abort(400, f"Unable to create dataset because of {why}")


def _check_name(kind: str, name: str) -> None:
    if not _NAME.fullmatch(name):
        told = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.'"
        raise Abort(422, f'{kind} "{name}" is invalid: metadata.name: Invalid value: "{name}": {told}')


def _server(request: Request) -> str:
    value = request.json()
    if not isinstance(value, dict) or not all(key in value for key in ("username", "password", "server")):
        raise Broken
    return str(value["server"])
