"""Gateways, which hold the files of runs, and the registry of their addresses."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import anyio

from .._errors import APIError, DecodeError, NotFound, TransportError, Unauthorized
from .._http.call import Call, Response, json_body, segment
from .._http.credentials import parse_http_url
from .._util.redact import raise_unchained
from .datastore import hello_call
from .group import Group

if TYPE_CHECKING:
    from .._http.session import ClientSession
    from ..models import Document

GATEWAY_REGISTRY = "cdb-gateway-registry"
"""Name of the registry among the services of the deployment."""
CACHE_SECONDS = 600.0
"""How long the address of a gateway is used before it is requested again."""
ASK_OPERATOR = "ask the operators of the deployment"
MOST_BYTES = 32 << 20
"""Most bytes, of all files together, that a gateway sends in one response."""
MOST_FILES = 1000
"""Most files that a gateway sends in one response."""
SCHEME = "file://"


@dataclass(frozen=True)
class Location:
    """The location of the directory of an instance."""

    gateway: str
    """Id of its gateway."""
    path: str
    """Absolute path there, without a slash at its end."""

    def __str__(self) -> str:
        return f"{SCHEME}{self.gateway}{self.path}"

    def absolute(self, path: str | os.PathLike[str]) -> str:
        """Return the absolute path of a file, given absolute or relative; raise ValueError if it is outside."""
        path = os.fspath(path)
        inside = path.removeprefix(f"{self.path}/") if path.startswith("/") else path
        if any(part in ("", ".", "..") for part in inside.split("/")):
            raise ValueError(
                f"the path of a file must be relative to the instance, or begin with {self.path!r}, not {path!r}"
            )
        return f"{self.path}/{inside}"


def directory(stage: int, component: str) -> str:
    """Return the path of a component's working directory in its instance; raise ValueError if it is invalid."""
    if not isinstance(stage, int) or stage < 0:
        raise ValueError(f"stage must be a whole number from 0, not {stage!r}")
    segment(component, "the name of a component")
    return f"stages/stage{stage}/{component}"


def location(uri: str) -> Location:
    """Return the location that a uri names; raise ValueError if it is invalid."""
    gateway, slash, path = uri.removeprefix(SCHEME).partition("/")
    if not uri.startswith(SCHEME) or not gateway or not path.strip("/"):
        raise ValueError(f"the uri of an instance must be file://<id of a gateway>/<path>, not {uri!r}")
    return Location(gateway, f"{slash}{path}".rstrip("/"))


def location_in(document: Document) -> Location:
    """Return the location of the run of a document; raise `DecodeError` if the document has none."""
    try:
        return location(document.instance)
    except ValueError as error:
        where = "documents/api/v1.0/query"
        raise_unchained(DecodeError("POST", where, str(error), path="instance", body=document.instance))


def registry_url(services: Mapping[str, str]) -> str:
    """Return the root of the registry of gateways; raise `NotFound` if the deployment has none."""
    if GATEWAY_REGISTRY not in services:
        missing = f"its url-map/ has {sorted(services)}, but not {GATEWAY_REGISTRY!r}"
        raise NotFound(f"this deployment has no gateways: {missing}")
    return services[GATEWAY_REGISTRY]


def resolve_call(base: str, ids: Iterable[str]) -> Call[dict[str, str]]:
    """Return the request for the addresses of gateways, by id. Unknown ones are left out."""
    return Call("POST", "gateways/api/v1.0/unique_ids", _hosts, content=json_body(list(ids)), base_url=base)


def exists_call(base: str, instance: Location, stage: int, component: str) -> Call[bool]:
    """Return the request that checks whether a component has a working directory."""
    return Call("GET", "experiment/", _flag, params=_component(instance, stage, component), base_url=base)


def component_call(base: str, instance: Location, stage: int, component: str) -> Call[Any]:
    """Return the request for the archive of a component's working directory, to be streamed."""
    what = f"component stage{stage}.{component} of {instance}"

    def decode(response: Response) -> None:
        problem = response.json()
        if problem is False:
            raise NotFound(f"the gateway {instance.gateway!r} does not know the instance {instance}")
        if problem == "":
            raise NotFound(f"there is no directory of {what}")
        raise ValueError("not an archive")

    params = _component(instance, stage, component)
    return Call("GET", "experiment/download", decode, expected="an archive", params=params, is_slow=True, base_url=base)


def files_call(base: str, instance: Location, paths: Iterable[str]) -> Call[Any]:
    """Return the request for an archive of files, with absolute paths as names. Files may be missing in it."""
    content = json_body({str(instance): list(paths)})
    return Call(
        "POST", "files/api/v1.1", _no_archive, expected="an archive", content=content, is_slow=True, base_url=base
    )


def _component(instance: Location, stage: int, component: str) -> dict[str, str]:
    return {"experiment": instance.path, "stage": str(stage), "component": component}


def _hosts(response: Response) -> dict[str, str]:
    found = response.json()
    hosts = {name: str(entry.get("host")) for name, entry in found.items() if isinstance(entry, dict)}
    for name, host in hosts.items():
        if "@" in host:  # not quoted, because it may contain a password
            raise APIError(f"the registry has an address of gateway {name!r} that cannot be used: {ASK_OPERATOR}")
    usable = {name: host for name, host in hosts.items() if parse_http_url(host) is not None}
    if found and not usable:
        raise ValueError("not addresses")
    return usable


def _flag(response: Response) -> bool:
    flag = response.json()
    if flag not in ("True", "False", False, True):
        raise ValueError("neither True nor False")
    return str(flag) == "True"


def _no_archive(response: Response) -> None:
    raise ValueError("not an archive")


class Gateways(Group):
    """
    The services that hold the files of runs. The files of a run are at one gateway, whose id its documents contain.

    All methods raise `NotFound` for a gateway that is not registered, and `TransportError` or another `APIError` if
    the registry or the gateway cannot be reached or refuses the request. A gateway on another host than the
    deployment's receives no credentials, unless ``Config.trusted_hosts`` names it.
    """

    def __init__(self, session: ClientSession) -> None:
        super().__init__(session)
        self._cache = session.shared.gateways
        self._clock = session.config.clock
        self._responses = 0
        """How many times the registry has responded."""
        self._missing_in: dict[str, int] = {}
        """id of an unregistered gateway -> number of the newest response that lacked it."""
        self._lock = anyio.Lock()

    async def _registry(self) -> str:
        return registry_url(await self._session.services())

    async def resolve(self, ids: Iterable[str]) -> dict[str, str]:
        """
        Return the addresses of gateways by their ids, in the given order, each with a slash at its end.

        Addresses are cached for ten minutes. Missing ones are requested together, however many tasks want them.

        Raises:
            NotFound: A gateway is not registered. The message names it.

        Source: ``POST gateways/api/v1.0/unique_ids`` of the registry.
        """
        wanted = dict.fromkeys([ids] if isinstance(ids, str) else ids)
        responses = self._responses
        if self._expired(wanted):
            async with self._lock:
                # Another task may have asked while this one waited for the lock.
                if missing := [name for name in self._expired(wanted) if self._missing_in.get(name, -1) < responses]:
                    await self._fetch(missing)
        if missing := self._expired(wanted):
            raise NotFound(f"the gateways {missing} are not registered, their files cannot be reached: {ASK_OPERATOR}")
        return {name: self._cache[name][0] for name in wanted}

    async def _fetch(self, ids: Iterable[str]) -> None:
        found = await self._session.send(resolve_call(await self._registry(), ids))
        now = self._clock.now()
        self._cache.update({name: (self._session.shared.root(host), now) for name, host in found.items()})
        self._missing_in.update({name: self._responses for name in ids if name not in found})
        self._responses += 1

    def _expired(self, ids: Iterable[str]) -> list[str]:
        """Return the ids whose address is not in the cache, or too old."""
        oldest = self._clock.now() - CACHE_SECONDS
        return [name for name in ids if name not in self._cache or self._cache[name][1] < oldest]

    async def is_healthy(self, gateway: str | None = None) -> bool:
        """
        Return whether a gateway, or the registry, responds. False if it cannot be reached or fails.

        Args:
            gateway: Id of the gateway, as documents have it. None means the registry.

        Raises:
            Unauthorized: The credentials were refused, which says nothing about the gateway.

        Source: ``GET hello/`` of the registry and of each gateway.
        """
        base = await self._registry() if gateway is None else (await self.resolve([gateway]))[gateway]
        try:
            return await self._session.send(hello_call(base))
        except Unauthorized:
            raise
        except (APIError, TransportError, DecodeError):
            return False

    async def has_component(self, instance: str, stage: int, component: str) -> bool:
        """
        Return whether a component has a working directory at its gateway. False also if the gateway lacks the run.

        Args:
            instance: The ``instance`` of a document.
            stage: Index of the stage.
            component: The exact name.

        Source: ``GET experiment/`` of the gateway.
        """
        where = location(instance)
        base = (await self.resolve([where.gateway]))[where.gateway]
        return await self._session.send(exists_call(base, where, stage, component))
