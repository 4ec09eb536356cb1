"""Credentials for container registries: ``image-pull-secrets/`` of the runtime service."""

from __future__ import annotations

import builtins

import pydantic

from .._errors import AlreadyExists, APIError, Conflict, NameTaken, UnknownPullSecret
from .._http.call import Call, Response, json_body, nothing, segment
from .._http.retry import Replay
from .group import DEFER_BUILD, Group

_REGISTRIES: pydantic.TypeAdapter[dict[str, list[str]]] = pydantic.TypeAdapter(dict[str, list[str]], config=DEFER_BUILD)
_NAMES: pydantic.TypeAdapter[list[str]] = pydantic.TypeAdapter(list[str], config=DEFER_BUILD)

Password = str | pydantic.SecretStr
"""A password or a token."""


def secret_path(name: str) -> str:
    """Return the path of one image pull secret."""
    return f"image-pull-secrets/{segment(name, 'the name of an image pull secret')}"


def list_call() -> Call[dict[str, list[str]]]:
    """Return the request for all image pull secrets."""
    return Call("GET", "image-pull-secrets/", lambda response: _REGISTRIES.validate_python(response.json()))


def get_call(name: str) -> Call[list[str]]:
    """Return the request for the registries of a secret. The service responds with 500 for an unknown one."""
    return Call("GET", secret_path(name), _names, not_found_error=UnknownPullSecret, error_from_message=_unknown_secret)


def _body(name: str, server: str, username: str, password: Password) -> tuple[bytes, tuple[str, ...]]:
    """Return the body that creates or replaces a secret, and the texts in it to redact from messages."""
    plain = password.get_secret_value() if isinstance(password, pydantic.SecretStr) else password
    fields = {"server": server, "username": username, "password": plain}
    for what, text in fields.items():
        if not isinstance(text, str) or not text:
            raise ValueError(f"the image pull secret {name!r} needs a {what}: a text that is not empty")
    return json_body(fields), (plain,)


def create_call(name: str, server: str, username: str, password: Password) -> Call[None]:
    """Return the request that creates a secret. It is never repeated."""
    content, secrets = _body(name, server, username, password)
    return Call(
        "POST",
        secret_path(name),
        nothing,
        replay=Replay.ONCE,
        content=content,
        error_from_message=_conflict,
        secrets=secrets,
        effect=f"the image pull secret {name!r} was created",
    )


def update_call(name: str, server: str, username: str, password: Password) -> Call[None]:
    """Return the request that creates or replaces a secret."""
    content, secrets = _body(name, server, username, password)
    path = secret_path(name)
    return Call("PUT", path, nothing, replay=Replay.REPEAT, content=content, secrets=secrets)


class ImagePullSecrets(Group):
    """
    Image pull secrets, which let runs use images of private container registries.

    A new secret is used within two minutes. Passwords cannot be read back. All methods raise `TransportError`,
    `Unauthorized` or another `APIError` if the service cannot be reached or refuses the request. There is no endpoint
    that deletes a secret.
    """

    async def list(self) -> dict[str, builtins.list[str]]:
        """
        Return all image pull secrets: name -> the registries that it is for. {} if there are none.

        Source: ``GET image-pull-secrets/``, which leaves out secrets that it cannot read.
        """
        return await self._session.send(list_call())

    async def get(self, name: str) -> builtins.list[str]:
        """
        Return the registries that an image pull secret is for.

        Raises:
            UnknownPullSecret: There is no secret of this name, or not yet.

        Source: ``GET image-pull-secrets/{name}``.
        """
        return await self._session.send(get_call(name))

    async def create(self, name: str, *, server: str, username: str, password: Password) -> None:
        """
        Create an image pull secret.

        Args:
            name: Lower-case letters, digits and dashes.
            server: The registry, without ``https://``: a host, or a host and a path.
            username: User name for the registry.
            password: Password or token. It never appears in messages.

        Raises:
            AlreadyExists: There already is a secret of this name. Use `update`.
            NameTaken: A Kubernetes Secret of this name exists for another purpose.
            OutcomeUnknown: The connection or the service failed when the secret may have been created.

        Source: ``POST image-pull-secrets/{name}``. The service does not check the credentials.
        """
        try:
            await self._session.send(create_call(name, server, username, password))
        except AlreadyExists as error:
            error.advice = f"replace it with client.image_pull_secrets.update({name!r}, ...)"
            raise

    async def update(self, name: str, *, server: str, username: str, password: Password) -> None:
        """
        Replace an image pull secret, or create it if it does not exist.

        A Kubernetes Secret of this name that exists for another purpose gets these credentials in addition.

        Args:
            name: Lower-case letters, digits and dashes.
            server: The registry. It replaces all registries of the secret.
            username: User name for the registry.
            password: Password or token. It never appears in messages.

        Source: ``PUT image-pull-secrets/{name}``. The service does not check the credentials.
        """
        await self._session.send(update_call(name, server, username, password))


def _unknown_secret(message: str) -> type[APIError] | None:
    return UnknownPullSecret if "404 Not Found" in message else None


def _conflict(message: str) -> type[Conflict] | None:
    if "conflicts with existing Secret" in message:
        return NameTaken
    return AlreadyExists if "already exists" in message else None


def _names(response: Response) -> list[str]:
    return _NAMES.validate_python(response.json())
