"""
The datasets and image pull secrets of the cluster, and their routes.

Source:
    st4sd-runtime-service, ``apis/datasets.py`` and ``apis/image_pull_secrets.py``. Some of its messages contain
    the name of a function instead of a secret's name, and an unknown secret is 500.
"""

from __future__ import annotations

import re
import threading
from collections.abc import MutableMapping
from typing import Any

from st4sd_async.local.http.messages import (
    HTTPError,
    InternalServerError,
    Request,
    Response,
    Route,
    TrailingSlash,
    json_response,
)
from st4sd_async.local.state import State

INTERNAL_EXPERIMENTS_SECRET = "st4sd-internal-experiments"
"""Name of the secret for the bucket of internal experiments. No image pull secret can have this name."""
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")
_BUCKET_FIELDS = ("accessKeyID", "secretAccessKey", "bucket", "endpoint")
_NOT_FOUND = (
    "404 Not Found: The requested URL was not found on the server. If you entered the URL manually please check "
    "your spelling and try again."
)


class Cluster:
    """The datasets and image pull secrets of one server. Safe to use from any thread."""

    def __init__(self, state: State) -> None:
        self._lock = threading.Lock()
        self._datasets: MutableMapping[str, dict[str, Any]] = state.table("datasets")
        self._pull_secrets: MutableMapping[str, str] = state.table("pull secrets")

    def routes(self) -> list[Route]:
        """Return the routes."""
        secret = {"GET": self.registries, "POST": self.create_secret, "PUT": self.update_secret}
        return [
            Route("/datasets", TrailingSlash.REQUIRED, GET=self.datasets),
            Route("/datasets/s3/{}", TrailingSlash.FORBIDDEN, POST=self.create_dataset),
            Route("/image-pull-secrets", TrailingSlash.REQUIRED, GET=self.pull_secrets),
            Route("/image-pull-secrets/{}", TrailingSlash.OPTIONAL, **secret),
        ]

    def datasets(self, _request: Request) -> Response:
        """List the names of all datasets."""
        with self._lock:
            return json_response(list(self._datasets))

    def dataset(self, name: str) -> dict[str, Any] | None:
        """Return the bucket of a dataset; None if the dataset is unknown."""
        with self._lock:
            return self._datasets.get(name)

    def create_dataset(self, request: Request, name: str) -> Response:
        """Store a dataset, without connecting to its bucket."""
        value = request.json()
        _check_bucket(value)
        _check_name("Dataset", name)
        with self._lock:
            if name in self._datasets:
                raise HTTPError(409, f'datasets "{name}" already exists')
            self._datasets[name] = dict(value)
        return json_response("OK")

    def pull_secrets(self, _request: Request) -> Response:
        """List the registries of all image pull secrets."""
        with self._lock:
            return json_response({name: [server] for name, server in self._pull_secrets.items()})

    def registries(self, _request: Request, name: str) -> Response:
        """List the registries of one image pull secret."""
        with self._lock:
            if name not in self._pull_secrets:
                raise HTTPError(500, f"Exception when listing imagePullSecret {name} - {_NOT_FOUND}")
            return json_response([self._pull_secrets[name]])

    def create_secret(self, request: Request, name: str) -> Response:
        """Create an image pull secret, without storing its password."""
        server = _server(request)
        with self._lock:
            if name in self._pull_secrets:
                raise HTTPError(409, "imagePullSecret already exists but has not become available yet")
            if name == INTERNAL_EXPERIMENTS_SECRET:
                message = (
                    "imagePullSecret <built-in function id> conflicts with existing Secret object with the same name"
                )
                raise HTTPError(422, message)
            _check_name("Secret", name)
            self._pull_secrets[name] = server
        return json_response("Success")

    def update_secret(self, request: Request, name: str) -> Response:
        """Create or replace an image pull secret."""
        server = _server(request)
        _check_name("Secret", name)
        with self._lock:
            self._pull_secrets[name] = server
        return json_response("Success")


def _check_bucket(value: Any) -> None:
    """Reject missing and unknown fields, which are arguments of a function in the service, with Python's messages."""
    function = "dataset_create()"
    if not isinstance(value, dict):
        kind = type(value).__name__
        raise _not_created(f"apis.datasets.{function} argument after ** must be a mapping, not {kind}")
    for name in value:
        if name not in (*_BUCKET_FIELDS, "region"):
            raise _not_created(f"{function} got an unexpected keyword argument '{name}'")
    missing = [f"'{name}'" for name in _BUCKET_FIELDS if name not in value]
    if missing:
        plural = "s" if len(missing) > 1 else ""
        raise _not_created(
            f"{function} missing {len(missing)} required positional argument{plural}: {_listed(missing)}"
        )


def _listed(names: list[str]) -> str:
    """Join names as in Python's messages."""
    if len(names) < 3:
        return " and ".join(names)
    return f"{', '.join(names[:-1])}, and {names[-1]}"


def _not_created(reason: str) -> HTTPError:
    return HTTPError(400, f"Unable to create dataset because of {reason}")


def _check_name(kind: str, name: str) -> None:
    if not _NAME.fullmatch(name):
        rule = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.'"
        raise HTTPError(422, f'{kind} "{name}" is invalid: metadata.name: Invalid value: "{name}": {rule}')


def _server(request: Request) -> str:
    value = request.json()
    if not isinstance(value, dict) or not all(key in value for key in ("username", "password", "server")):
        raise InternalServerError
    return str(value["server"])
