"""Import experiments from other registries: fetch, check, push."""

from __future__ import annotations

import copy
import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import SplitResult, unquote, urlsplit

from .._errors import (
    APIError,
    BadRequest,
    DecodeError,
    DigestMismatch,
    MissingRequirements,
    NotFound,
    TransportError,
    Unauthorized,
    UnknownExperiment,
)
from .._http.call import Call, Response
from .._http.credentials import is_loopback, origin, parse_http_url
from .._http.session import RUNTIME_PATH
from .._util.redact import raise_unchained
from ..models import Experiment
from ..models.requirements import ImportedExperiment, Requirement, checked, requirements_of
from .experiments import identifier_path, is_tag

if TYPE_CHECKING:
    from .._http.session import ClientSession
    from .datasets import Datasets
    from .experiments import Experiments
    from .image_pull_secrets import ImagePullSecrets

GLOBAL_REGISTRY = "https://registry.st4sd.res.ibm.com"
"""The public registry of the ST4SD project. Source: the help of ``stp package import``."""

BACKEND_PREFIX = "registry-ui/backend/"
"""Path of the API that the web pages of a registry use."""

PAGE_PREFIXES = ("registry-ui", "experiment", "rs")
"""First path segments below the root of a deployment: they are cut off from the address of a page."""

WITH_ALL_FIELDS = {"outputFormat": "json", "hideMetadataRegistry": "n", "hideNone": "y", "hideBeta": "n"}
"""Query parameters for the definition as it was pushed, and the container images."""

BETA_FIELDS = ("connections", "includePaths", "output", "interface")
"""Fields of ``base`` that older services refuse. They are left out if they are empty."""

DIGEST_DIFFERS = "%s was imported from %s, which shows the digest %s: the content differs, as for a branch that moved"

LATEST = "latest"
"""The tag that every push moves."""

EMPTY_MESSAGE = "{}"
"""The message of a registry that hides that of the service."""

CACHED_RESPONSE = "the global registry repeats a response for 10 minutes, errors included: try again later"
"""Advice for an error of a registry."""

log = logging.getLogger("st4sd_async")


def registry_call(root: str, identifier: str) -> Call[Experiment]:
    """Return the request for an experiment of another registry, through the API of its web pages."""
    path = identifier_path(identifier)
    return Call(
        "GET",
        path,
        _entry,
        params=WITH_ALL_FIELDS,
        not_found_error=UnknownExperiment,
        base_url=f"{root}{BACKEND_PREFIX}",
    )


def _entry(response: Response) -> Experiment:
    found = Experiment.model_validate(response.json()["entry"])
    if not found.name:
        raise ValueError("no experiment")
    return found


def _is_definition(raw: Mapping[str, Any]) -> bool:
    """Return whether a response has the shape of a definition, which is pushed unchanged."""
    parts = [raw.get("base"), raw.get("metadata"), raw.get("parameterisation", {})]
    packages = raw["base"].get("packages") if isinstance(parts[0], dict) else None
    return all(isinstance(one, dict) for one in [*parts, *(packages if isinstance(packages, list) else [None])])


def parse_source(source: str, identifier: str | None) -> tuple[str, str]:
    """
    Return the root of a registry, with a slash at its end, and the identifier of an experiment in it.

    Raises:
        ValueError: The source is not an http(s) address or contains credentials, or there is no identifier.
    """
    parts = parse_http_url(source)
    if parts is None:
        raise ValueError(f"the address of a registry looks like {GLOBAL_REGISTRY}, not {source.rpartition('@')[2]!r}")
    if "@" in parts.netloc:
        raise ValueError("the address of a registry must not contain a user or password: pass a Client of it instead")
    root, page = _split_page(parts)
    name = identifier if identifier is not None else page
    if not name:
        raise ValueError(f"identifier is missing: {source!r} is not the page of an experiment")
    return root, name


def _split_page(parts: SplitResult) -> tuple[str, str]:
    """Return the root of the registry of a page, and the identifier of the page's experiment, "" if there is none."""
    segments = [one for one in parts.path.split("/") if one]
    end = next((at for at, one in enumerate(segments) if one in PAGE_PREFIXES), len(segments))
    below = segments[end:]
    page = unquote(below[below.index("experiment") + 1]) if "experiment" in below[:-1] else ""
    path = "".join(f"{one}/" for one in segments[:end])
    return parts._replace(path=f"/{path}", query="", fragment="").geturl(), page


def definition_of(experiment: Experiment) -> dict[str, Any]:
    """Return the definition to push: an experiment without the metadata that its registry derived."""
    definition = copy.deepcopy(experiment.raw)
    definition.get("metadata", {}).pop("registry", None)
    base = definition.get("base") or {}
    for holder, names in ((base, BETA_FIELDS), *((package, ("graphs",)) for package in base.get("packages") or ())):
        for name in names:
            if not holder.get(name):
                holder.pop(name, None)
    return definition


@dataclass(frozen=True)
class Registry:
    """Another deployment as a source of experiments."""

    url: str
    """Address of the deployment, with a slash at its end."""
    experiments: ExperimentSource
    """Its registry."""


class ExperimentSource(Protocol):
    """The method of `Experiments` that an import needs. A blocking client provides one that runs in its own thread."""

    async def get(self, identifier: str, *, with_beta: bool) -> Experiment: ...


class Importer:
    """Fetches experiments of other registries, checks what they require, and pushes them."""

    def __init__(
        self, session: ClientSession, experiments: Experiments, datasets: Datasets, image_pull_secrets: ImagePullSecrets
    ) -> None:
        self._session = session
        self._experiments = experiments
        self._datasets = datasets
        self._image_pull_secrets = image_pull_secrets

    async def fetch(self, source: str | Registry, identifier: str | None, *, allow_http: bool) -> ImportedExperiment:
        """Fetch an experiment with its requirements; see `Client.fetch_experiment`."""
        root, name = _located(source, identifier)
        if is_unencrypted(root) and not allow_http and origin(urlsplit(root)) != origin(urlsplit(self._session.url)):
            raise ValueError(
                f"the registry {root!r} is on another machine, and others can change what it sends over plain http: "
                "use https://, or pass allow_http=True"
            )
        found = await self._fetched(source, root, name)
        definition = definition_of(found)
        images = [image.name or "" for image in found.metadata.registry.container_images]
        requirements = requirements_of(definition, images)
        return ImportedExperiment(root, found, definition, await self._check_requirements(requirements), name)

    async def _fetched(self, source: str | Registry, root: str, identifier: str) -> Experiment:
        """Fetch an experiment of another registry and check that it is the requested one."""
        if isinstance(source, Registry):
            found = await source.experiments.get(identifier, with_beta=True)
            _check_requested(found, identifier, f"{root}{RUNTIME_PATH}{identifier_path(identifier)}")
            return found
        call = registry_call(root, identifier)
        try:
            found = await self._session.send(call)
        except APIError as error:
            raise_unchained(_with_own_message(error, root, identifier))
        _check_requested(found, identifier, f"{call.base_url}{call.path}")
        return found

    async def import_experiment(
        self, source: str | Registry, identifier: str | None, *, allow_http: bool, allow_missing: bool
    ) -> Experiment:
        """Fetch an experiment and push it; see `Client.import_experiment`."""
        found = await self.fetch(source, identifier, allow_http=allow_http)
        if found.missing and not allow_missing:
            raise MissingRequirements.before_pushing(found.identifier, found.missing)
        for one in found.uncertain:
            if one.kind == "image registry":
                log.warning("%s relies on the %s: if its images are not public, %s", found.identifier, one, one.advice)
            elif one.kind == "credential":
                log.warning(
                    "%s contains the %s, which is imported too: if it should not be, %s",
                    found.identifier,
                    one,
                    one.advice,
                )
        return await self._push(found)

    async def _push(self, found: ImportedExperiment) -> Experiment:
        """Push an experiment without tags, compare its digest, and tag it."""
        name, tag, digest = split_identifier(found.asked)
        history = await self._experiments.history(name)
        before = {one.tag: one.digest for one in history.tags}
        tags = tags_of(found.definition, {*found.experiment.tags, tag})
        found.definition["metadata"]["package"]["tags"] = []
        pushed = await self._experiments.push(found.definition)
        if digest and pushed.digest != digest:
            known = {*before.values(), *(one.digest for one in history.untagged)}
            await self._restore(name, pushed.digest, before, is_known=pushed.digest in known)
            raise DigestMismatch.of(found.asked, pushed.digest)
        if found.experiment.digest not in (None, pushed.digest):
            log.warning(DIGEST_DIFFERS, pushed.identifier, found.source, found.experiment.digest)
        kept = [one for one, digest in before.items() if digest == pushed.digest]
        wanted = list(dict.fromkeys([*kept, *tags, *([tag] if tag else []), LATEST]))
        if wanted == [LATEST]:
            return pushed
        await self._experiments.tag(pushed.identifier, wanted)
        return await self._experiments.get(pushed.identifier)

    async def _restore(self, name: str, digest: str | None, before: Mapping[str, str], *, is_known: bool) -> None:
        """Undo a push: restore the tags of a name, and delete the content unless it was there before."""
        moved = {before[LATEST], digest} if LATEST in before else {digest}
        try:
            for one in sorted(moved - {None}, key=lambda one: one == digest):
                tags = [tag for tag, owner in before.items() if owner == one]
                if tags:
                    await self._experiments.tag(f"{name}@{one}", tags)
            if digest and not is_known:
                await self._experiments.delete(f"{name}@{digest}")
        except (APIError, TransportError, DecodeError) as error:
            log.warning(
                "%s@%s is still the latest version of %s, because undoing the push failed: %s",
                name,
                digest,
                name,
                error,
            )

    async def _check_requirements(self, requirements: list[Requirement]) -> tuple[Requirement, ...]:
        """Return the requirements with ``is_met`` filled in. Only lists that matter are requested."""
        kinds = {one.kind for one in requirements}
        pull_secrets = await self._image_pull_secrets.list() if kinds & {"image registry", "image pull secret"} else {}
        datasets = await self._known_datasets() if "dataset" in kinds else []
        return tuple(checked(one, pull_secrets, datasets) for one in requirements)

    async def _known_datasets(self) -> list[str]:
        try:
            return await self._datasets.list()
        except BadRequest:  # a cluster without Datashim has no datasets
            return []


def _located(source: str | Registry, identifier: str | None) -> tuple[str, str]:
    """Return the root of a registry or deployment, and the identifier of an experiment in it."""
    if isinstance(source, str):
        return parse_source(source, identifier)
    if not isinstance(source, Registry):
        raise TypeError(f"the source is the address of a registry or a Client, not {type(source).__name__}")
    if identifier is None:
        raise ValueError("identifier is missing: a client as the source does not name an experiment")
    return source.url, identifier


def _check_requested(found: Experiment, identifier: str, url: str) -> None:
    """Raise `DecodeError` if an experiment is not the requested one, or not a definition."""
    name, _, digest = split_identifier(identifier)
    if not _is_definition(found.raw):
        raise DecodeError("GET", url, "JSON that is not a definition: a part is missing")
    if found.name != name:
        raise DecodeError("GET", url, f"the experiment {found.name!r} instead of {name!r}")
    if digest and found.digest != digest:
        raise DecodeError("GET", url, f"the digest {found.digest!r} instead of {digest!r}")


def split_identifier(identifier: str) -> tuple[str, str, str]:
    """Return the name, the tag and the digest of an identifier; "" for a missing part."""
    name, _, digest = identifier.partition("@")
    name, _, tag = name.partition(":")
    return name, tag, digest


def tags_of(definition: Mapping[str, Any], known: Collection[str]) -> list[str]:
    """Return the tags of a definition that the other registry knows, without ``latest``, which every push moves."""
    tags = definition["metadata"]["package"].get("tags")
    return [tag for tag in (tags if isinstance(tags, list) else []) if is_tag(tag) and tag in known and tag != LATEST]


def is_unencrypted(root: str) -> bool:
    """Return whether requests to an address travel unencrypted between machines."""
    parts = urlsplit(root)
    return parts.scheme == "http" and not is_loopback(parts.hostname or "")


def _with_own_message(error: APIError, root: str, identifier: str) -> APIError:
    """Return the error of a registry, which hides the message of the service, with a message of our own."""
    if isinstance(error, Unauthorized) and not error.token_page.startswith(root):
        error.token_page, error.advice = "", "this registry is private: open a Client of it and pass that as the source"
    elif error.message == EMPTY_MESSAGE:
        error.message, error.advice = "the registry gives no reason", CACHED_RESPONSE
        if isinstance(error, NotFound):
            message, detail = f"the registry has no experiment {identifier!r}", {"packageNotFound": identifier}
            error = UnknownExperiment(message, status=error.status, method=error.method, url=error.url, detail=detail)
            error.advice = CACHED_RESPONSE
    return error
