"""Fixtures: a folder with the experiment of `create_experiment`, and git in it."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from st4sd_async._package.create import create_experiment

Git = Callable[..., str]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a new experiment, in a repository without a commit and without the user's configuration."""
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", "/dev/null")
    made = tmp_path / "energies"
    assert create_experiment(made)
    return made


@pytest.fixture
def git(folder: Path) -> Git:
    """Return a function that runs git in the folder and returns what it prints."""

    def run(*arguments: str, inside: Path = folder) -> str:
        who = ("-c", "user.name=someone", "-c", "user.email=someone@example.com")
        done = subprocess.run(["git", *who, *arguments], cwd=inside, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    return run


@pytest.fixture
def commit(git: Git) -> Callable[[], str]:
    """Return a function that commits everything and returns the commit."""

    def add_and_commit() -> str:
        git("add", "--all")
        git("commit", "--quiet", "--message=Change")
        return git("rev-parse", "HEAD")

    return add_and_commit
