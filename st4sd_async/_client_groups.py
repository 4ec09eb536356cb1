"""The groups of endpoints that no verb is composed of, and the help for filling in payloads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ._api.anything import request_call
from ._api.datasets import Datasets
from ._api.deployment import Deployment
from ._api.experiments import get_call
from ._api.library import Library
from ._api.relationships import Relationships
from ._api.secrets import ImagePullSecrets
from ._api.utilities import InternalExperiments, Utilities
from ._errors import DecodeError
from ._http.session import RUNTIME
from .models import Experiment

if TYPE_CHECKING:
    from ._api._base import Sender
    from ._api.experiments import Experiments
    from ._config import Config
    from ._http.session import Session
    from ._payload.draft import Draft


class Groups:
    """What a client has beside its verbs and the groups that they are composed of."""

    experiments: Experiments
    """The registry of experiments."""
    _session: Session
    _config: Config

    def _bind_groups(self, send: Sender) -> None:
        self.relationships = Relationships(send)
        """Which experiment may stand in for a part of another."""
        self.library = Library(send)
        """Graphs to build experiments from."""
        self.internal_experiments = InternalExperiments(send)
        """Experiments whose definition the deployment itself keeps."""
        self.utilities = Utilities(send)
        """Help for those who write experiments as DSL."""
        self.datasets = Datasets(send)
        """S3 buckets that the deployment knows by name."""
        self.image_pull_secrets = ImagePullSecrets(send)
        """Credentials for container registries."""
        self.deployment = Deployment(send)
        """What the deployment consists of, and who is signed in."""

    async def payload(self, experiment: str | Experiment) -> Draft:
        """
        A start payload to fill in, which knows what the experiment allows.

        Args:
            experiment: ``name`` (which means ``name:latest``), ``name:tag``, ``name@digest``, or an `Experiment`, about
                which nobody is asked.

        Raises:
            UnknownExperiment: There is no such experiment.
            DecodeError: The service told nothing of what its registry knows of the experiment.
            InvalidPackage: An `Experiment` that came without what the registry knows of it (``with_registry=False``).

        Source: ``GET experiments/{identifier}``. It says what the start skeleton says, which may show what
        the service was asked for other experiments before.
        """
        from ._payload.draft import Draft

        known = await self.experiments.get(experiment) if isinstance(experiment, str) else experiment
        if not isinstance(known, Experiment):
            raise TypeError(f"an experiment is named by a text or an Experiment, not {type(known).__name__}")
        if isinstance(experiment, str) and not known.metadata.registry.digest:
            problem, path = "an experiment without what its registry knows of it", get_call(experiment).path
            raise DecodeError("GET", f"{self.url}{RUNTIME}{path}", problem, path="metadata.registry")
        return Draft(known)

    @property
    def url(self) -> str:
        """Address of the deployment, without ``rs/`` and with a slash at its end."""
        return self._session.home.geturl()

    async def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        json: Any = None,
        service: str | None = None,
    ) -> Any:
        """
        The JSON that a service answers to a request of yours, for what this library has no method for.

        It has the credentials, limits, errors and retries of all requests: GET, PUT and DELETE may be repeated,
        a POST that may have arrived never is. What the services call a password, a key or an environment is kept
        out of messages; else a refusal may quote what you sent.

        Args:
            method: ``GET``, ``POST``, ``PUT`` or ``DELETE``.
            path: Below the service, with the slash at its end that the route wants: redirects are not followed.
            params: The query, name -> value.
            json: The body; None: none.
            service: Name of a service, as `Deployment.services` has it; None: the runtime service.

        Raises:
            UnknownService: The deployment has no such service.
            OutcomeUnknown: A POST may have been carried out or not.
            DecodeError: The answer is no JSON.
            ValueError: The method or the path will not do; nothing was sent.
        """
        services = {} if service is None else await self._session.services(self._config)
        return await self._session.send(request_call(method, path, params, json, services, service), self._config)
