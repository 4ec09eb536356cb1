"""The groups of endpoints that no verb is composed of, and the help for filling in payloads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._draft import Draft
from ._resources.datasets import Datasets
from ._resources.deployment import Deployment
from ._resources.library import Library
from ._resources.relationships import Relationships
from ._resources.secrets import ImagePullSecrets
from ._resources.utilities import InternalExperiments, Utilities

if TYPE_CHECKING:
    from ._resources._base import Sender
    from ._resources.experiments import Experiments
    from .models import Experiment


class Groups:
    """What a client has beside its verbs and the groups that they are composed of."""

    experiments: Experiments
    """The registry of experiments."""

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

        Source: ``GET experiments/{identifier}``. It says what the start skeleton says, which may show what
        the service was asked for other experiments before.
        """
        known = await self.experiments.get(experiment) if isinstance(experiment, str) else experiment
        return Draft(known)
