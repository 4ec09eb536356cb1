"""Services and token of a deployment: ``url-map/`` and ``authorisation/`` of the runtime service."""

from __future__ import annotations

import pydantic

from .._errors import APIError, NoToken, UnknownService
from .._http.call import Call, Response, segment
from .._http.session import has_user
from ..models._base import parse_leniently
from .group import DEFER_BUILD, Group

_URLS: pydantic.TypeAdapter[dict[str, str]] = pydantic.TypeAdapter(dict[str, str], config=DEFER_BUILD)


def services_call() -> Call[dict[str, str]]:
    """Return the request for the addresses of all services."""
    return Call("GET", "url-map/", _services)


def service_call(name: str) -> Call[str]:
    """Return the request for the address of one service."""
    path = f"url-map/{segment(name, 'the name of a service')}"
    return Call("GET", path, _text, not_found_error=UnknownService)


def token_call() -> Call[pydantic.SecretStr]:
    """Return the request for the token of the caller."""
    return Call("GET", "authorisation/token", _token, error_from_message=_no_token)


class Deployment(Group):
    """
    The deployment itself: its services, and the token of this client.

    All methods raise `TransportError`, `Unauthorized` or another `APIError` if the service cannot be reached or refuses
    the request.
    """

    async def services(self) -> dict[str, str]:
        """
        Return the addresses of the services: name -> address without a slash at its end.

        An address that contains a user or a password is left out, with a WARNING in the log.

        Raises:
            LocalDeployment: The service runs without a cluster, so that there are no other services.

        Source: ``GET url-map/``.
        """
        return await self._session.send(services_call())

    async def service(self, name: str) -> str:
        """
        Return the address of one service.

        Args:
            name: ``consumable-computing`` for the runtime service, ``cdb-rest`` for the datastore, or
                ``cdb-gateway-registry`` for the registry of its gateways.

        Raises:
            UnknownService: There is no service of this name.
            LocalDeployment: The service runs without a cluster, so that there are no other services.

        Source: ``GET url-map/{name}``.
        """
        return await self._session.send(service_call(name))

    async def token(self) -> pydantic.SecretStr:
        """
        Return the token of this client's login, as the service sees it.

        Raises:
            NoToken: This client uses an API key.

        Source: ``GET authorisation/token``.
        """
        return await self._session.send(token_call())


def _no_token(message: str) -> type[APIError] | None:
    return NoToken if message == "Exception while retrieving token" else None


def _services(response: Response) -> dict[str, str]:
    found = parse_leniently(_URLS.validate_python, response.json())
    return {name: url for name, url in found.items() if not has_user(name, url)}


def _text(response: Response) -> str:
    found = response.json()
    if not isinstance(found, str):
        raise ValueError("not a string")
    return found


def _token(response: Response) -> pydantic.SecretStr:
    return pydantic.SecretStr(_text(response))
