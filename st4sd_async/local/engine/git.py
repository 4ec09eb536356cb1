"""
The ``git`` command, run so that only its arguments decide what it does.

It never prompts, reads no configuration of the user or the machine, and is stopped after a while.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from st4sd_async.local.engine.children import Run

IDENTITY = {
    "GIT_AUTHOR_NAME": "example",
    "GIT_AUTHOR_EMAIL": "example@example.com",
    "GIT_AUTHOR_DATE": "2024-01-01T00:00:00+0000",
    "GIT_COMMITTER_NAME": "example",
    "GIT_COMMITTER_EMAIL": "example@example.com",
    "GIT_COMMITTER_DATE": "2024-01-01T00:00:00+0000",
}
"""All that git hashes into a commit besides the files."""

REPOSITORY = (
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_INDEX",
    "GIT_OBJECT",
    "GIT_ALTERNATE",
    "GIT_COMMON",
    "GIT_PREFIX",
)
"""Beginnings of the variables that point git at a repository other than the one asked for."""


class GitFailed(Exception):
    """A git command that did not succeed."""

    def __init__(self, text: str, *, exit_code: int, stdout: str = "", stderr: str = "") -> None:
        """Keep what git said."""
        super().__init__(text)
        self.exit_code = exit_code
        self.stdout = stdout
        self.stderr = stderr


def git(*arguments: str, run: Run, timeout: float, folder: Path | None = None, users_config: bool = False) -> str:
    """
    What a git command printed.

    Args:
        arguments: Everything after ``git``.
        run: Runs the process.
        timeout: Seconds until it is stopped.
        folder: Where to run it.
        users_config: Read the configuration of user and machine, for repositories elsewhere that may need
            proxies and credentials.

    Raises:
        GitFailed: git is not installed, took too long, or exited with another code than 0.
    """
    try:
        done = run(["git", *arguments], cwd=folder, env=_environment(users_config), timeout=timeout)
    except FileNotFoundError as error:
        raise GitFailed("the git command is needed and is not on PATH: install git", exit_code=127) from error
    except OSError as error:
        raise GitFailed(f"git cannot be started: {error}", exit_code=126) from error
    except subprocess.TimeoutExpired as error:
        raise GitFailed(f"git took longer than {timeout:g} s", exit_code=124) from error
    stdout, stderr = done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
    if done.returncode:
        text = f"git {arguments[0]} failed: {stderr.strip()}"
        raise GitFailed(text, exit_code=done.returncode, stdout=stdout, stderr=stderr)
    return stdout


def _environment(users_config: bool) -> dict[str, str]:
    """The environment of a git command: nothing that points at another repository, nothing that asks."""
    # These are set inside git hooks, for example when tests run in one.
    dropped = ("GIT_",) if not users_config else REPOSITORY
    environment = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    environment |= {"GIT_TERMINAL_PROMPT": "0", "GIT_ASKPASS": "true", "LC_ALL": "C"}
    environment.setdefault("GIT_SSH_COMMAND", "ssh -o BatchMode=yes")
    if not users_config:
        nothing = {"GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull, "XDG_CONFIG_HOME": os.devnull}
        environment |= IDENTITY | nothing
    return environment
