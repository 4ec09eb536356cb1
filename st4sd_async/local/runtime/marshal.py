"""
Items of the list of instances, marshalled: exactly these fields, null where there is no value.

Source:
    st4sd-runtime-service, ``apis/models/models.py`` (``experiment_instance``); only the list is marshalled.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

_LEAF: Any = None
"""A value as it is, or null."""


class _Raw:
    """A value as it is, or an empty dictionary."""


_NAMED = [{"name": _LEAF}]
_RUNTIME = {"resources": {"cpu": _LEAF, "memory": _LEAF}, "args": [_LEAF]}
_GIT = {
    "security": {"oauth": {"value": _LEAF, "valueFrom": {"secretKeyRef": _LEAF}}},
    "location": {"branch": _LEAF, "tag": _LEAF, "commit": _LEAF, "url": _LEAF},
    "version": _LEAF,
}
_DATASET = {"location": {"dataset": _LEAF}, "version": _LEAF, "security": {"dataset": _LEAF}}
_PACKAGE = {
    "name": _LEAF,
    "source": {"git": _GIT, "dataset": _DATASET},
    "config": {"path": _LEAF, "manifestPath": _LEAF},
}
_PRESETS = {
    "variables": [{"name": _LEAF, "value": _LEAF}],
    "runtime": _RUNTIME,
    "data": _NAMED,
    "environmentVariables": [{"name": _LEAF, "value": _LEAF}],
    "platform": _LEAF,
}
_EXECUTION_OPTIONS = {
    "variables": [{"name": _LEAF, "value": _LEAF, "valueFrom": (None, [{"value": _LEAF}])}],
    "data": _NAMED,
    "platform": [_LEAF],
}
_METADATA = {
    "package": {
        "name": _LEAF,
        "tags": [_LEAF],
        "keywords": [_LEAF],
        "license": _LEAF,
        "maintainer": _LEAF,
        "description": _LEAF,
    },
    "registry": {
        "createdOn": _LEAF,
        "digest": _LEAF,
        "tags": [_LEAF],
        "timesExecuted": (0, _LEAF),
        "interface": _Raw,
        "inputs": _NAMED,
        "data": _NAMED,
        "containerImages": _NAMED,
        "executionOptionsDefaults": {
            "variables": [{"name": _LEAF, "valueFrom": [{"value": _LEAF, "platform": _LEAF}]}]
        },
    },
}
_EXPERIMENT = {
    "base": {"packages": [_PACKAGE]},
    "parameterisation": {"presets": _PRESETS, "executionOptions": _EXECUTION_OPTIONS},
    "metadata": _METADATA,
}
_STATUS = {
    "experiment-state": _LEAF,
    "stage-state": _LEAF,
    "stages": (None, [_LEAF]),
    "current-stage": _LEAF,
    "meta": _LEAF,
    "exit-status": _LEAF,
    "total-progress": _LEAF,
    "stage-progress": _LEAF,
    "error-description": _LEAF,
}


def experiment(definition: Mapping[str, Any] | None) -> bytes:
    """A definition as items of the list show it, in JSON."""
    return json.dumps(_marshal(_EXPERIMENT, definition)).encode()


def halves(
    rest_uid: str, status: Mapping[str, Any] | None, labels: Mapping[str, str], outputs: Mapping[str, Any]
) -> tuple[bytes, bytes]:
    """One item of the list in JSON, without the experiment that stands in its middle; it has no ``name``."""
    end = {"status": _marshal(_STATUS, status), "k8s-labels": labels, "outputs": outputs}
    return f'{{"id": {json.dumps(rest_uid)}, "experiment": '.encode(), f", {json.dumps(end)[1:]}".encode()


def _marshal(template: Any, value: Any) -> Any:
    """The value in the shape of a template; a pair is a default and the template of a value that is there."""
    if template is None:
        return value
    if template is _Raw:
        return value or {}
    if isinstance(template, tuple):
        return template[0] if value is None else _marshal(template[1], value)
    if isinstance(template, list):
        return [_marshal(template[0], one) for one in value or []]
    known = value if isinstance(value, Mapping) else {}
    return {name: _marshal(inner, known.get(name)) for name, inner in template.items()}
