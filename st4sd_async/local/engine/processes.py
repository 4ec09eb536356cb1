"""
Short-lived helper processes that can all be killed at once, and the ``git`` command run as one of them.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from st4sd_async.local.engine.forks import IS_AVAILABLE, ForkedProcess, fork_server
from st4sd_async.local.engine.guard import Guard

COMMIT_ENVIRONMENT = {
    "GIT_AUTHOR_NAME": "example",
    "GIT_AUTHOR_EMAIL": "example@example.com",
    "GIT_AUTHOR_DATE": "2024-01-01T00:00:00+0000",
    "GIT_COMMITTER_NAME": "example",
    "GIT_COMMITTER_EMAIL": "example@example.com",
    "GIT_COMMITTER_DATE": "2024-01-01T00:00:00+0000",
}
"""Environment variables that fix everything that git hashes into a commit besides the files."""

REPOSITORY_VARIABLES = (
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_INDEX",
    "GIT_OBJECT",
    "GIT_ALTERNATE",
    "GIT_COMMON",
    "GIT_PREFIX",
)
"""Prefixes of the variables that make git use another repository."""


Process: TypeAlias = subprocess.Popen[bytes] | ForkedProcess
"""A helper process."""


class ChildProcesses:
    """
    Runs helper processes, each in its own process group; safe to share between threads.

    After ``close()`` no process is running and none can be started.
    """

    def __init__(self, guard: Guard | None = None) -> None:
        """
        Args:
            guard: Kills the helpers if this process is killed. None means that they would continue.
        """
        self._guard = guard
        self._running: set[Process] = set()
        self._closed = False
        self._lock = threading.Lock()

    def run(
        self,
        command: Sequence[str],
        *,
        timeout: float,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        modules: Sequence[str] = (),
    ) -> subprocess.CompletedProcess[bytes]:
        """
        Run a command to its end and return the process with its output.

        Args:
            command: Program and arguments.
            timeout: Seconds until the process is killed.
            cwd: The working directory.
            env: The environment of the process. None means the environment of this process.
            modules: If the command is a Python script that needs these modules, they are imported only once.

        Raises:
            OSError: The process cannot be started, for example after `close`.
            subprocess.TimeoutExpired: The process took too long. It was killed with its whole process group.
        """
        self._raise_if_closed(command)
        with _start(command, cwd, env, modules) as process:
            try:
                with self._lock:
                    self._raise_if_closed(command)
                    self._running.add(process)
                if self._guard is not None:
                    self._guard.add_group(process.pid)
                if isinstance(process, ForkedProcess):
                    process.begin()
                stdout, stderr = process.communicate(timeout=timeout)
            finally:
                _kill(process)
                if self._guard is not None:
                    self._guard.remove_group(process.pid)
                with self._lock:
                    self._running.discard(process)
        return subprocess.CompletedProcess(command, process.wait(), stdout, stderr)

    def _raise_if_closed(self, command: Sequence[str]) -> None:
        if self._closed:
            raise InterruptedError(f"closed, cannot start {command[0]!r}")

    def close(self) -> None:
        """Kill all running processes; their callers get the return code -9. Idempotent."""
        with self._lock:
            self._closed = True
            for process in self._running:
                _kill(process)


def _start(command: Sequence[str], cwd: Path | None, env: Mapping[str, str] | None, modules: Sequence[str]) -> Process:
    if modules and IS_AVAILABLE:
        return fork_server(command[0]).start(command[1:], modules=modules, folder=cwd, environment=env)
    return subprocess.Popen(
        command,
        cwd=cwd,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def _kill(process: Process) -> None:
    """Kill the process group of a process, including the process."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


class GitFailed(Exception):
    """A git command failed."""

    def __init__(self, text: str, *, exit_code: int, stdout: str = "", stderr: str = "") -> None:
        super().__init__(text)
        self.exit_code = exit_code
        self.stdout = stdout
        self.stderr = stderr


def git(
    *arguments: str, processes: ChildProcesses, timeout: float, folder: Path | None = None, users_config: bool = False
) -> str:
    """
    Run git without prompts and return its standard output.

    Args:
        arguments: The arguments after ``git``.
        processes: Runs the process.
        timeout: Seconds until git is killed.
        folder: The working directory.
        users_config: Whether to read the configuration of the user and of the machine. Remote repositories may need
            its proxy or credentials.

    Raises:
        GitFailed: git is not installed, took too long, or exited with a code other than 0.
    """
    try:
        done = processes.run(["git", *arguments], cwd=folder, env=_git_environment(users_config), timeout=timeout)
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


def _git_environment(users_config: bool) -> dict[str, str]:
    # Such variables are set inside git hooks, for example if tests run in a hook.
    dropped = ("GIT_",) if not users_config else REPOSITORY_VARIABLES
    environment = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    environment |= {"GIT_TERMINAL_PROMPT": "0", "GIT_ASKPASS": "true", "LC_ALL": "C"}
    environment.setdefault("GIT_SSH_COMMAND", "ssh -o BatchMode=yes")
    if not users_config:
        no_config = {"GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull, "XDG_CONFIG_HOME": os.devnull}
        environment |= COMMIT_ENVIRONMENT | no_config
    return environment
