"""Experiments whose payloads are drafted in tests."""

from __future__ import annotations

from typing import Any

from st4sd_async import Experiment


def experiment(**parts: Any) -> Experiment:
    """Return an experiment with one input, one data file, and variables of each kind."""
    variables = [
        {"name": "free"},
        {"name": "usual", "value": "3"},
        {"name": "chosen", "valueFrom": [{"value": "1"}, {"value": "2"}]},
    ]
    options = {"variables": variables, "data": [{"name": "extra.txt"}], "platform": ["gpu", "cpu"]}
    registry = {"digest": "sha256xabc", "inputs": [{"name": "in.csv"}], "platforms": ["default", "cpu", "gpu"]}
    return Experiment.model_validate(
        {
            "metadata": {"package": {"name": "demo"}, "registry": registry},
            "parameterisation": {"executionOptions": {**options, **parts.pop("options", {})}, **parts},
        }
    )
