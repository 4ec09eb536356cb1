"""Experiments that are written as DSL 2.0: ``utilities/`` and ``internal-experiments/`` of the runtime service."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .. import models
from .._errors import InvalidDSL
from .._http.call import Call, model, nothing
from .._http.retry import Replay
from ..models import Experiment
from .group import Group, definition_body, mapping, package_of, secrets_of

if TYPE_CHECKING:
    from ..models import GeneratedPackage


def validate_call(dsl: Mapping[str, Any]) -> Call[None]:
    """Return the request that validates a DSL."""
    content = definition_body("DSL", dsl, InvalidDSL)
    return Call("POST", "utilities/dsl/", nothing, content=content, is_slow=True, bad_request_error=InvalidDSL)


def package_call(dsl: Mapping[str, Any], template: Mapping[str, Any] | Experiment | None) -> Call[GeneratedPackage]:
    """Return the request that generates a package for a DSL."""
    known = {} if template is None else {"pvep": package_of(template)}
    content = definition_body("DSL", {"dsl": mapping("DSL", dsl), **known}, InvalidDSL)
    return Call(
        "POST",
        "utilities/pvep/",
        model(models.GeneratedPackage),
        content=content,
        is_slow=True,
        bad_request_error=InvalidDSL,
        secrets=secrets_of(known.get("pvep", {})),
    )


def push_call(dsl: Mapping[str, Any], package: Mapping[str, Any] | Experiment) -> Call[Experiment]:
    """Return the request that stores a DSL and its package. It may be repeated: the digest stays the same."""
    content = {"workflow": {"dsl": mapping("DSL", dsl)}, "pvep": package_of(package)}
    return Call(
        "POST",
        "internal-experiments/",
        model(Experiment, "result"),
        replay=Replay.REPEAT,
        content=definition_body("DSL", content, InvalidDSL),
        is_slow=True,
        bad_request_error=InvalidDSL,
        secrets=secrets_of(package_of(package)),
    )


class Utilities(Group):
    """
    Checks and conversions for authors of DSL 2.0. Nothing is stored.

    All methods raise `TransportError`, `Unauthorized` or another `APIError` if the service cannot be reached or refuses
    the request.
    """

    async def validate_dsl(self, dsl: Mapping[str, Any]) -> None:
        """
        Validate DSL. Returns if it is valid.

        Args:
            dsl: ``entrypoint``, ``workflows`` and ``components``.

        Raises:
            InvalidDSL: The DSL is invalid. ``problems`` has the locations and reasons.

        Source: ``POST utilities/dsl/``.
        """
        await self._session.send(validate_call(dsl))

    async def package_for_dsl(
        self, dsl: Mapping[str, Any], template: Mapping[str, Any] | Experiment | None = None
    ) -> GeneratedPackage:
        """
        Generate the parameterised package for a DSL.

        Args:
            dsl: ``entrypoint``, ``workflows`` and ``components``.
            template: A package whose name, description and parameterisation are kept as far as they fit. None means
                that the package is called ``anonymous`` and has no options.

        Returns:
            The package, with all its inputs, outputs and variables under ``metadata.registry``, and what was taken
            from the template.

        Raises:
            InvalidDSL: The DSL or the template is invalid. ``problems`` has the locations and reasons.

        Source: ``POST utilities/pvep/``.
        """
        return await self._session.send(package_call(dsl, template))


class InternalExperiments(Group):
    """
    Experiments whose definition the deployment itself stores, instead of a repository.

    All methods raise `TransportError`, `Unauthorized` or another `APIError` if the service cannot be reached or refuses
    the request.
    """

    async def push(self, dsl: Mapping[str, Any], package: Mapping[str, Any] | Experiment) -> Experiment:
        """
        Store a DSL, and push a package for it. They replace those of the same name.

        Args:
            dsl: ``entrypoint``, ``workflows`` and ``components``.
            package: The package, with at least ``metadata.package.name``. Its base packages are ignored.
                `Utilities.package_for_dsl` generates one.

        Returns:
            The experiment as the registry stores it, ready to be started.

        Raises:
            InvalidDSL: The DSL or the package is invalid. ``problems`` has the locations and reasons.
            Disabled: The deployment stores no definitions.

        Source: ``POST internal-experiments/``.
        """
        return await self._session.send(push_call(dsl, package))
