"""The platforms of packages."""

from __future__ import annotations

from typing import Any

import pytest

from st4sd_async.local.engine.interface import PackageProblem
from st4sd_async.local.engine.packages import allowed_platforms


def platform(*inputs: str, errors: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return a platform as the inspection script describes it."""
    return {"errors": list(errors), "inputs": list(inputs), "variables": {}}


def test_invalid_platform_matters_only_if_it_is_allowed() -> None:
    """A definition may restrict starts to valid platforms."""
    declared = {"platforms": {"default": platform("a"), "bad": platform(errors=("broken",))}}
    options = {"executionOptions": {"platform": ["default"]}}

    assert allowed_platforms(declared, {"parameterisation": options}, "main") == {"default": platform("a")}
    with pytest.raises(PackageProblem, match=r"Invalid platform bad in base package main\. .* - broken"):
        allowed_platforms(declared, {}, "main")
    with pytest.raises(PackageProblem, match="Invalid platform bad"):
        allowed_platforms(declared, {"parameterisation": {"presets": {"platform": "bad"}}}, "main")


def test_platforms_must_exist_and_agree_on_inputs() -> None:
    """Unknown platforms and platforms with different input files are problems."""
    declared = {"platforms": {"default": platform("a"), "other": platform("b")}}

    with pytest.raises(PackageProblem, match=r"no platforms \['ghost'\]"):
        allowed_platforms(declared, {"parameterisation": {"presets": {"platform": "ghost"}}}, "main")
    with pytest.raises(PackageProblem, match="do not agree"):
        allowed_platforms(declared, {}, "main")
