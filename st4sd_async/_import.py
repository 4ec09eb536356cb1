"""Import of experiments from other registries: fetch, check, push."""

from __future__ import annotations

import copy
import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import SplitResult, unquote, urlsplit

from ._api.registry import identifier_path, is_tag
from ._errors import (
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
from ._http.call import Call, Response
from ._http.credentials import is_loopback, origin, parse_http_url
from ._http.session import RUNTIME_PATH
from .models import Experiment
from .models.imports import ImportedExperiment, Requirement
from .models.requirements import judged, requirements_of

if TYPE_CHECKING:
    from ._api.datasets import Datasets
    from ._api.experiments import Experiments
    from ._api.secrets import ImagePullSecrets
    from ._http.session import ClientSession

GLOBAL_REGISTRY = "https://registry.st4sd.res.ibm.com"
"""The public registry of the ST4SD project. Source: the help of ``stp package import``."""

BACKEND = "registry-ui/backend/"
"""Prefix of what the pages of a registry ask."""

PAGES = ("registry-ui", "experiment", "rs")
"""First segments of what is below the root of a deployment, and no part of its address."""

WHOLE = {"outputFormat": "json", "hideMetadataRegistry": "n", "hideNone": "y", "hideBeta": "n"}
"""What is asked for: the definition as it was pushed, and what tells the container images."""

BETA = ("connections", "includePaths", "output", "interface")
"""Fields of ``base`` that a service without them refuses, so that they are left out when they say nothing."""

LATEST = "latest"
"""The tag that every push moves."""

BLANK = "{}"
"""What a registry puts in the place of the service's words."""

STALE = "the global registry repeats an answer for 10 minutes, refusals included: try again later"
"""What may be behind a refusal of a registry."""

log = logging.getLogger("st4sd_async")


def registry_call(root: str, identifier: str) -> Call[Experiment]:
    """One experiment of another registry, as its pages are shown it."""
    path = identifier_path(identifier)
    return Call("GET", path, _entry, params=WHOLE, not_found_error=UnknownExperiment, base_url=f"{root}{BACKEND}")


def _entry(response: Response) -> Experiment:
    found = Experiment.model_validate(response.json()["entry"])
    if not found.name:
        raise ValueError("no experiment")
    return found


def _is_definition(raw: Mapping[str, Any]) -> bool:
    """Return whether what a registry showed has the shape of a definition: it is pushed as it came."""
    parts = [raw.get("base"), raw.get("metadata"), raw.get("parameterisation", {})]
    packages = raw["base"].get("packages") if isinstance(parts[0], dict) else None
    return all(isinstance(one, dict) for one in [*parts, *(packages if isinstance(packages, list) else [None])])


def located(source: str, identifier: str | None) -> tuple[str, str]:
    """
    The root of a registry, with a slash at its end, and the identifier of an experiment in it.

    Raises:
        ValueError: The source is no http(s) address or holds credentials, or nothing names the experiment.
    """
    parts = parse_http_url(source)
    if parts is None:
        raise ValueError(f"the address of a registry looks like {GLOBAL_REGISTRY}, not {source.rpartition('@')[2]!r}")
    if "@" in parts.netloc:
        raise ValueError("the address of a registry must not hold a user or password: give a Client of it instead")
    root, page = _cut(parts)
    name = identifier if identifier is not None else page
    if not name:
        raise ValueError(f"name the experiment: {source!r} is the address of no experiment's page")
    return root, name


def _cut(parts: SplitResult) -> tuple[str, str]:
    """The root of the registry that a page belongs to, and the experiment that the page is about, "" if about none."""
    segments = [one for one in parts.path.split("/") if one]
    end = next((at for at, one in enumerate(segments) if one in PAGES), len(segments))
    below = segments[end:]
    page = unquote(below[below.index("experiment") + 1]) if "experiment" in below[:-1] else ""
    path = "".join(f"{one}/" for one in segments[:end])
    return parts._replace(path=f"/{path}", query="", fragment="").geturl(), page


def definition_of(experiment: Experiment) -> dict[str, Any]:
    """What is to be pushed of an experiment that a registry showed: all but what the registry found out itself."""
    definition = copy.deepcopy(experiment.raw)
    definition.get("metadata", {}).pop("registry", None)
    base = definition.get("base") or {}
    for holder, names in ((base, BETA), *((package, ("graphs",)) for package in base.get("packages") or ())):
        for name in names:
            if not holder.get(name):
                holder.pop(name, None)
    return definition


@dataclass(frozen=True)
class Registry:
    """Another deployment as a source of experiments."""

    url: str
    """Address of the deployment, with a slash at its end."""
    experiments: Source
    """Its registry."""


class Source(Protocol):
    """The method of `Experiments` that an import needs; a blocking client brings one that runs in its own thread."""

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
        if is_plain(root) and not allow_http and origin(urlsplit(root)) != origin(urlsplit(self._session.url)):
            raise ValueError(
                f"the registry {root!r} is on another machine and uses plain http, where others can change the reply: "
                "use https://, or pass allow_http=True"
            )
        found = await self._fetched(source, root, name)
        definition = definition_of(found)
        images = [image.name or "" for image in found.metadata.registry.container_images]
        requirements = requirements_of(definition, images)
        return ImportedExperiment(root, found, definition, await self._judged(requirements), name)

    async def _fetched(self, source: str | Registry, root: str, identifier: str) -> Experiment:
        """Return an experiment of another registry; raise if it is not the one that was requested."""
        if isinstance(source, Registry):
            found = await source.experiments.get(identifier, with_beta=True)
            _check_asked(found, identifier, f"{root}{RUNTIME_PATH}{identifier_path(identifier)}")
            return found
        call = registry_call(root, identifier)
        try:
            found = await self._session.send(call)
        except APIError as error:
            refusal = _explained(error, root, identifier)
        else:
            _check_asked(found, identifier, f"{call.base_url}{call.path}")
            return found
        raise refusal

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
                log.warning("%s brings the %s along: if it should not, %s", found.identifier, one, one.advice)
        return await self._pushed(found)

    async def _pushed(self, found: ImportedExperiment) -> Experiment:
        """Push an experiment without tags, compare its digest, and tag it."""
        name, tag, pin = parts_of(found.asked)
        history = await self._experiments.history(name)
        before = {one.tag: one.digest for one in history.tags}
        tags = tags_of(found.definition, {*found.experiment.tags, tag})
        found.definition["metadata"]["package"]["tags"] = []
        pushed = await self._experiments.push(found.definition)
        if pin and pushed.digest != pin:
            known = {*before.values(), *(one.digest for one in history.untagged)}
            await self._put_back(name, pushed.digest, before, is_known=pushed.digest in known)
            raise DigestMismatch.of(found.asked, pushed.digest)
        if found.experiment.digest not in (None, pushed.digest):
            told = "%s was imported from %s, which shows the digest %s: the content differs, as of a branch that moved"
            log.warning(told, pushed.identifier, found.source, found.experiment.digest)
        kept = [one for one, digest in before.items() if digest == pushed.digest]
        wanted = list(dict.fromkeys([*kept, *tags, *([tag] if tag else []), LATEST]))
        if wanted == [LATEST]:
            return pushed
        await self._experiments.tag(pushed.identifier, wanted)
        return await self._experiments.get(pushed.identifier)

    async def _put_back(self, name: str, digest: str | None, before: Mapping[str, str], *, is_known: bool) -> None:
        """Undo a push: the tags of a name as they were, and the content gone unless it was there before."""
        moved = {before[LATEST], digest} if LATEST in before else {digest}
        try:
            for one in sorted(moved - {None}, key=lambda one: one == digest):
                tags = [tag for tag, owner in before.items() if owner == one]
                if tags:
                    await self._experiments.tag(f"{name}@{one}", tags)
            if digest and not is_known:
                await self._experiments.delete(f"{name}@{digest}")
        except (APIError, TransportError, DecodeError) as error:
            log.warning("%s@%s is still the latest of %s and should not be: %s", name, digest, name, error)

    async def _judged(self, requirements: list[Requirement]) -> tuple[Requirement, ...]:
        """The requirements with their verdicts; the deployment is asked only for lists that matter."""
        kinds = {one.kind for one in requirements}
        pull_secrets = await self._image_pull_secrets.list() if kinds & {"image registry", "image pull secret"} else {}
        datasets = await self._known_datasets() if "dataset" in kinds else []
        return tuple(judged(one, pull_secrets, datasets) for one in requirements)

    async def _known_datasets(self) -> list[str]:
        try:
            return await self._datasets.list()
        except BadRequest:  # a cluster without Datashim, which has no datasets
            return []


def _located(source: str | Registry, identifier: str | None) -> tuple[str, str]:
    """Return the root of a registry or deployment, and the identifier of an experiment in it."""
    if isinstance(source, str):
        return located(source, identifier)
    if not isinstance(source, Registry):
        raise TypeError(f"the source is the address of a registry or a Client, not {type(source).__name__}")
    if identifier is None:
        raise ValueError("name the experiment: a client as the source does not")
    return source.url, identifier


def _check_asked(found: Experiment, identifier: str, url: str) -> None:
    """Raise DecodeError if an experiment is not the one that was asked for, or is no definition."""
    name, _, digest = parts_of(identifier)
    if not _is_definition(found.raw):
        raise DecodeError("GET", url, "something that is not the JSON it should be: a definition without its parts")
    if found.name != name:
        raise DecodeError("GET", url, f"the experiment {found.name!r} in place of {name!r}")
    if digest and found.digest != digest:
        raise DecodeError("GET", url, f"the digest {found.digest!r} in place of {digest!r}")


def parts_of(identifier: str) -> tuple[str, str, str]:
    """Return the name, the tag and the digest of an identifier; "" for what it does not say."""
    name, _, digest = identifier.partition("@")
    name, _, tag = name.partition(":")
    return name, tag, digest


def tags_of(definition: Mapping[str, Any], shown: Collection[str]) -> list[str]:
    """Return the tags that a definition asks for, as far as they were shown; ``latest`` moves by itself."""
    tags = definition["metadata"]["package"].get("tags")
    return [tag for tag in (tags if isinstance(tags, list) else []) if is_tag(tag) and tag in shown and tag != LATEST]


def is_plain(root: str) -> bool:
    """Return whether what is asked at this address passes other machines in clear text."""
    parts = urlsplit(root)
    return parts.scheme == "http" and not is_loopback(parts.hostname or "")


def _explained(error: APIError, root: str, identifier: str) -> APIError:
    """The refusal of a registry, which keeps the service's words to itself, with words of our own."""
    if isinstance(error, Unauthorized) and not error.token_page.startswith(root):
        error.token_page, error.advice = "", "this registry is private: open a Client of it and give that as the source"
    elif error.message == BLANK:
        error.message, error.advice = "the registry does not say why", STALE
        if isinstance(error, NotFound):
            told, detail = f"the registry has no experiment {identifier!r}", {"packageNotFound": identifier}
            error = UnknownExperiment(told, status=error.status, method=error.method, url=error.url, detail=detail)
            error.advice = STALE
    return error
