"""Connecting to a deployment, and messages about wrong settings."""

from __future__ import annotations

import logging
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from st4sd_async import Client
from st4sd_async.cli.connect import Connection
from st4sd_async.local import LocalServer

from .conftest import COMMAND, Shell, environment_of


def test_options_replace_the_environment(shell: Shell) -> None:
    """An address and a file with the key are enough; a file takes precedence over the environment."""
    Path("key").write_text(f"{shell.server.api_key}\n")

    done = shell("list", "--url", f"{shell.server.url}/rs/", "--api-key-file", "key", ST4SD_URL="", ST4SD_API_KEY="bad")

    assert (done.status, done.err) == (0, "")


@pytest.mark.parametrize("words", [("list",), ("batch", "find", "nothing")], ids=" ".join)
def test_options_of_the_connection_stand_anywhere(shell: Shell, words: tuple[str, ...]) -> None:
    """Before the command, between its words, or after it."""
    Path("key").write_text(shell.server.api_key or "")
    options = ("--url", shell.server.url, "--api-key-file", "key")
    without = {"ST4SD_URL": "", "ST4SD_API_KEY": "bad"}

    for place in range(len(words) + 1):
        assert shell(*words[:place], *options, *words[place:], **without).status == 0
    assert shell(*options[:2], *words, *options[2:], **without).status == 0


def test_an_option_after_the_command_takes_precedence() -> None:
    """A credential there replaces any other, which may belong to another deployment."""
    outer = Connection(url="https://a.example", api_key_file=Path("a"))

    assert Connection().over(outer) == outer
    assert Connection(url="https://b.example").over(outer) == Connection("https://b.example", api_key_file=Path("a"))
    assert Connection(context="b").over(outer) == Connection("https://a.example", context="b")
    assert Connection(auth_token_file=Path("b")).over(None) == Connection(auth_token_file=Path("b"))


def test_a_credential_can_be_piped_in(shell: Shell) -> None:
    """'-' reads it from standard input, so that it appears on no command line and in no file."""
    key = shell("list", "--api-key-file", "-", stdin=f"{shell.server.api_key}\n", ST4SD_API_KEY="")
    token = shell("list", "--auth-token-file", "-", stdin=shell.server.auth_token, ST4SD_API_KEY="bad")

    assert (key.status, token.status) == (0, 0)


MISTAKES = [
    ((), {"ST4SD_URL": ""}, 2, "ST4SD_URL is not set: export ST4SD_URL=https://"),
    ((), {"ST4SD_URL": ""}, 2, "without a deployment, run st4sd-async serve in another terminal"),
    ((), {"ST4SD_API_KEY": "wrong-key"}, 3, "get a new token at"),
    ((), {"ST4SD_API_KEY": ""}, 3, "the credentials are missing, wrong or expired"),
    (("--url", "st4sd.example"), {}, 2, "must look like https://st4sd.example"),
    (("--url", "http://st4sd.example"), {}, 2, "would send your credentials in clear text"),
    (("--url", "https://me:secret@st4sd.example"), {}, 2, "must not contain a user or password"),
    (("--api-key-file", "-"), {}, 2, "api_key is empty"),
    (("--api-key-file", "nothing"), {}, 2, "the api_key file 'nothing' cannot be read"),
    ((), {"ST4SD_CA_FILE": "nothing.pem", "ST4SD_URL": "https://127.0.0.1:1"}, 2, "the CA file 'nothing.pem'"),
    (("--url", "https://127.0.0.1:1"), {}, 2, "ST4SD_API_KEY is not sent to 'https://127.0.0.1:1', because ST4SD_URL"),
    (("--url", "https://127.0.0.1:1"), {"ST4SD_API_KEY": "", "ST4SD_AUTH_TOKEN": "x"}, 2, "ST4SD_AUTH_TOKEN is not"),
    (("--url", "https://127.0.0.1:1"), {"ST4SD_URL": "me:secret@x"}, 2, "belongs to an invalid address"),
]


@pytest.mark.parametrize(
    ("arguments", "environment", "status", "message"), MISTAKES, ids=[row[-1][:30] for row in MISTAKES]
)
def test_a_wrong_setting_is_one_clear_line(
    shell: Shell, arguments: tuple[str, ...], environment: dict[str, str], status: int, message: str
) -> None:
    """Wrong settings are wrong usage, refused credentials an error of the service. No secret is repeated."""
    done = shell("list", *arguments, **environment)

    assert (done.status, done.out) == (status, "")
    assert message in done.err
    assert done.err.count("\n") == 1
    assert "secret" not in done.err
    assert "wrong-key" not in done.err


def test_a_missing_login_of_stp_is_one_clear_line(shell: Shell) -> None:
    """--context names the login."""
    done = shell("list", "--context", "no such context")

    assert (done.status, done.out) == (2, "")
    assert hasattr(Client, "from_context") or "give --url and --auth-token-file" in done.err


def test_a_credential_of_the_environment_is_sent_to_its_deployment_only(shell: Shell) -> None:
    """If --url names another deployment than ST4SD_URL, nothing is sent."""
    with LocalServer() as other:
        same = shell("list", "--url", f"{shell.server.url}/rs")
        free = shell("list", "--url", shell.server.url, ST4SD_URL="")
        elsewhere = shell("list", "--url", other.url)
        Path("key").write_text(other.api_key)
        own = shell("list", "--url", other.url, "--api-key-file", "key")
        asked = len(other.requests)

    assert (same.status, free.status, own.status) == (0, 0, 0)
    assert (elsewhere.status, elsewhere.out) == (2, "")
    assert "give --api-key-file FILE" in elsewhere.err
    assert shell.server.api_key not in elsewhere.err
    assert asked == 2  # those of the one with a key of its own


def test_verbose_logs_each_request(shell: Shell) -> None:
    """Without credentials. The next command does not log requests."""
    loud, quiet = shell("--verbose", "list"), shell("list")

    assert "/experiments/: 200" in loud.err
    assert shell.server.api_key not in loud.err
    assert quiet.err == ""
    assert logging.getLogger("st4sd_async").level == logging.INFO


def all_commands(command: Any, *words: str) -> Iterator[tuple[str, ...]]:
    """Yield the words of the command and of all commands below it."""
    yield words
    for name, inner in getattr(command, "commands", {}).items():
        yield from all_commands(inner, *words, name)


@pytest.mark.parametrize("words", list(all_commands(COMMAND)), ids=lambda words: " ".join(words) or "st4sd-async")
def test_each_help_has_an_example_to_copy(shell: Shell, words: tuple[str, ...]) -> None:
    """It is on one line, however long. The exit statuses are in one place. No option takes a secret."""
    shown = shell(*words, "--help").out
    examples = shown.partition("\n  Example")[2].partition("\n\n")[0]

    found = re.findall(r"(?:^s?: +|^ +)(st4sd-async .*)", examples, re.MULTILINE)
    assert found
    assert all(line.startswith(" ".join(("st4sd-async", *words))) for line in found)
    for line in found:
        assert is_command(shlex.split(line)[1:])
    message = " ".join(shown.split())
    assert message.endswith("Exit status: see st4sd-async --help.") is bool(words)
    assert ("0 success; 1 a run failed" in message) is not bool(words)
    assert "--api-key " not in message
    assert "--token " not in message


def is_command(words: Sequence[str]) -> bool:
    """Return whether the command line can be parsed; nothing is executed."""
    command: Any = COMMAND
    while commands := getattr(command, "commands", None):
        name, *words = words
        command = commands[name]
    command.make_context("", [*words])
    return True


def test_the_command_is_complete() -> None:
    """All commands exist."""
    names = {*COMMAND.commands}

    assert names == {
        "batch",
        *("push", "list", "show", "start", "status", "watch", "outputs", "download", "properties", "logs", "delete"),
        *("init", "check", "demo", "serve"),
    }
    assert {*COMMAND.commands["batch"].commands} == {
        *("run", "status", "watch", "retry", "properties", "report", "find", "adopt", "forget"),
    }


@pytest.mark.slow
def test_a_command_does_not_import_the_others() -> None:
    """Each imports its own module when it is looked up, because all take longer than most commands run."""
    code = """
import sys, typer.main
from st4sd_async.cli.app import app
commands = typer.main.get_command(app).commands
assert "serve" in commands and len(commands) == 16
assert commands["list"] is commands["list"]
print(*(name for name in sys.modules if name.startswith("st4sd_async.")))
"""

    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)

    modules = done.stdout.split()
    assert "st4sd_async.cli.experiments" in modules
    assert not {f"st4sd_async.cli.{name}" for name in ("batch", "demo", "packages", "report", "serve")} & {*modules}
    assert not {"st4sd_async.local", "st4sd_async._batch.batch", "st4sd_async._batch.journal"} & {*modules}


def test_completion_works(shell: Shell) -> None:
    """The shell gets the commands that begin with the typed text."""
    done = shell(_ST4SD_ASYNC_COMPLETE="complete_bash", COMP_WORDS="st4sd-async ba", COMP_CWORD="1")

    assert done.out.split() == ["batch"]


def test_the_environment_of_the_test_is_left_alone(shell: Shell) -> None:
    """Settings apply to the shell only."""
    assert not set(environment_of(shell.server)) & set(os.environ)
