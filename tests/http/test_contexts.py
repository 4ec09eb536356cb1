"""The logins of ``stp``: its files, the keyring, and the errors for invalid ones."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keyring.errors
import pytest
import typer

from st4sd_async import Client, Config, ConfigError
from st4sd_async._http.contexts import Login, application_folder, from_context
from tests.keyrings import URL, MemoryKeyring, in_use, write

TOKEN = "fake-token-of-a-context"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return the folder for application data."""
    return tmp_path


@pytest.fixture
def ring(monkeypatch: pytest.MonkeyPatch) -> MemoryKeyring:
    return in_use(monkeypatch)


def files(folder: Path) -> tuple[Path, Path]:
    """Return the paths of the settings and the contexts."""
    return folder / "stp" / "stp_settings.json", folder / "stp" / "stp_contexts.json"


def refused(name: str | None, env: dict[str, str]) -> str:
    """Return the message of the error."""
    with pytest.raises(ConfigError) as caught:
        from_context(name, None, env)
    return str(caught.value)


@pytest.mark.parametrize(
    ("platform", "env", "expected"),
    [
        ("linux", {}, ".config/stp"),
        ("linux", {"XDG_CONFIG_HOME": "/xdg"}, "/xdg/stp"),
        ("freebsd14", {"XDG_CONFIG_HOME": ""}, ".config/stp"),
        ("darwin", {"XDG_CONFIG_HOME": "/xdg"}, "Library/Application Support/stp"),
        ("win32", {"APPDATA": "/roaming"}, "/roaming/stp"),
        ("win32", {}, "stp"),
    ],
)
def test_the_folder_is_that_of_stp(platform: str, env: dict[str, str], expected: str) -> None:
    """Below the home unless the environment says otherwise."""
    assert application_folder(env, platform) == Path.home() / expected


def test_the_folder_is_the_one_that_typer_returns() -> None:
    """On this system and with this environment."""
    assert application_folder(os.environ) == Path(typer.get_app_dir("stp"))


@pytest.mark.parametrize(
    ("name", "default", "active", "expected"),
    [
        ("other", "st4sd", "st4sd", "https://other.example/"),
        ("OTHER", "st4sd", "st4sd", "https://other.example/"),
        (None, "other", "st4sd", "https://other.example/"),
        (None, "", "st4sd", URL),
        (None, None, "other", "https://other.example/"),
    ],
    ids=["named", "in capitals", "by the environment", "blank environment", "active"],
)
def test_a_context_is_named_or_the_default_or_the_active_one(
    name: str | None, default: str | None, active: str, expected: str, folder: Path, ring: MemoryKeyring
) -> None:
    """In this order; the keyring is read only when the token is needed."""
    env = write(folder, active=active)
    if default is not None:
        env["STP_DEFAULT_CONTEXT"] = default

    url, _, settings = from_context(name, None, env)

    assert (url, settings, ring.asked) == (expected, Config(), [])


def test_the_token_is_read_from_the_keyring_each_time(folder: Path, ring: MemoryKeyring) -> None:
    """The service is the url, the user the context; a new login takes effect."""
    _, token, _ = from_context("st4sd", None, write(folder))

    ring.passwords[URL, "st4sd"] = TOKEN
    first = token()
    ring.passwords[URL, "st4sd"] = "renewed"

    assert (first, token()) == (TOKEN, "renewed")
    assert ring.asked == [(URL, "st4sd")] * 2


def test_a_login_of_an_older_stp_is_found(folder: Path, ring: MemoryKeyring) -> None:
    """It wrote no slash at the end of the url, neither in its file nor in the keyring."""
    ring.passwords["https://st4sd.example", "old"] = TOKEN
    env = write(folder, entries={"old": {"name": "old", "url": "https://st4sd.example"}})

    url, token, _ = from_context("old", None, env)

    assert (url, token()) == (URL, TOKEN)


def test_environment_variables_name_other_files(folder: Path, ring: MemoryKeyring) -> None:
    """The same variables that `stp` reads."""
    write(folder, active="other")
    settings, contexts = files(folder)
    env = {"STP_SETTINGS_FILE": str(settings), "STP_CONTEXTS_FILE": str(contexts), "XDG_CONFIG_HOME": "/nowhere"}

    assert from_context(None, None, env)[0] == "https://other.example/"


def test_the_settings_are_those_of_any_client(folder: Path) -> None:
    """The CA file of the environment is used, unless the settings name one."""
    env = {**write(folder), "ST4SD_CA_FILE": "ca.pem"}

    assert from_context(None, None, env)[2] == Config(verify="ca.pem")
    assert from_context(None, Config(verify="mine.pem", timeout=3), env)[2] == Config(verify="mine.pem", timeout=3)


def test_a_missing_context_names_those_there_are(folder: Path) -> None:
    """And the command that creates it."""
    told = refused("Mine", write(folder))

    assert told == (
        "stp has no context 'Mine', only 'other', 'st4sd': create it with 'stp login --context-name Mine <url>'"
    )


def test_a_default_that_is_not_there_is_named_too(folder: Path) -> None:
    """In the environment and in the settings."""
    assert "no context 'gone', only" in refused(None, {**write(folder), "STP_DEFAULT_CONTEXT": "gone"})
    assert "no context 'away', only" in refused(None, write(folder, active="away"))


def test_without_an_active_context_the_error_says_how_to_activate_one(folder: Path) -> None:
    """Whether the settings are empty or missing."""
    env = write(folder, active=None)

    assert refused(None, env).startswith("no context of stp is active: name one, or activate it with 'stp context act")
    files(folder)[0].unlink()
    assert refused(None, env).endswith("there are 'other', 'st4sd'")


@pytest.mark.parametrize("prepare", [lambda path: path.unlink(), lambda path: path.write_text("{}")])
def test_without_a_login_the_error_says_how_to_log_in(folder: Path, prepare: Callable[[Path], Any]) -> None:
    """Whether the file is empty or missing."""
    env = write(folder)
    prepare(files(folder)[1])

    told = refused(None, env)

    assert re.fullmatch(r"stp has no context in '.*stp_contexts.json': create one with 'stp login <url>'", told)


@pytest.mark.parametrize(
    ("which", "text", "words"),
    [
        (0, "not json", "stp_settings.json' of stp is not JSON: repair it, or delete it and log in again"),
        (1, "", "stp_contexts.json' of stp is not JSON"),
        (1, "\xff\xfe", "is not JSON"),
        (0, "[]", "is not what stp writes (Input should be"),
        (0, '{"default_context": 5}', "stp_settings.json' is not what stp writes (default_context: Input should be"),
        (1, '{"entries": []}', "stp_contexts.json' is not what stp writes (entries: Input should be"),
        (1, '{"entries": {"st4sd": "https://a"}}', "(entries.st4sd: Input should be"),
        (1, '{"entries": {"st4sd": {}}}', "the context 'st4sd' in '"),
        (1, '{"entries": {"st4sd": {"url": "nowhere"}}}', "(url: Input should be a valid URL"),
        (1, '{"entries": {"st4sd": {"url": null}}}', "or log in again with 'stp login <url>'"),
    ],
)
def test_a_file_that_is_not_what_stp_writes_is_named(which: int, text: str, words: str, folder: Path) -> None:
    """With the problem and how to fix it."""
    env = write(folder)
    files(folder)[which].write_text(text, "latin-1")

    assert words in refused(None, env)


def test_a_file_that_cannot_be_read_is_named(folder: Path) -> None:
    """With the reason."""
    env = write(folder)
    files(folder)[1].unlink()
    files(folder)[1].mkdir()

    assert re.search(r"stp_contexts.json' of stp cannot be read: Is a directory", refused("st4sd", env))


def test_a_broken_context_does_not_spoil_the_others(folder: Path) -> None:
    """Only the requested one is validated."""
    env = write(folder, entries={"st4sd": {"url": URL}, "broken": {"url": 5}})

    assert from_context("st4sd", None, env)[0] == URL


def test_the_extra_is_named_if_it_is_not_installed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At once, and not when the token is needed."""
    monkeypatch.setitem(sys.modules, "keyring", None)

    told = refused("st4sd", write(folder))

    assert 'pip install "st4sd_async[keyring]"' in told


LOGIN = Login("st4sd", URL, URL)


def test_a_keyring_without_the_token_says_how_to_log_in(ring: MemoryKeyring) -> None:
    """The command can be pasted."""
    with pytest.raises(ConfigError, match="has no token for it: log in with 'stp login --force --context-name st4sd"):
        LOGIN()


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (keyring.errors.KeyringLocked("the collection is locked"), "(KeyringLocked: the collection is locked)"),
        (keyring.errors.NoKeyringError("no backend"), "(NoKeyringError: no backend)"),
        (keyring.errors.InitError(), "(InitError)"),
        (OSError(f"the bus said {TOKEN}"), "(OSError)"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_keyring_that_cannot_be_read_is_an_error_of_ours(error: Exception, words: str, ring: MemoryKeyring) -> None:
    """It says what to do, quotes only the keyring package, and is not chained to a foreign exception."""
    ring.error = error

    with pytest.raises(ConfigError) as caught:
        LOGIN()

    assert f"cannot be read {words}: unlock it, or give auth_token" in str(caught.value)
    assert TOKEN not in str(caught.value)
    assert (caught.value.__cause__, caught.value.__context__) == (None, None)


def test_a_context_that_would_send_the_token_in_clear_text_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As for any other URL."""
    env = write(folder, entries={"plain": {"url": "http://st4sd.example/"}})
    for name, value in {**env, "STP_DEFAULT_CONTEXT": "plain"}.items():
        monkeypatch.setenv(name, value)

    with pytest.raises(ConfigError, match="clear text: use https"):
        Client.from_context()


def test_unknown_fields_are_ignored(folder: Path) -> None:
    """A newer `stp` may write more."""
    env = write(folder)
    settings, contexts = files(folder)
    settings.write_text(json.dumps({"default_context": "st4sd", "colour": True}))
    contexts.write_text(json.dumps({"version": 2, "entries": {"st4sd": {"url": URL, "user": None}}}))

    assert from_context(None, None, env)[0] == URL


@pytest.mark.filterwarnings("ignore")  # those of stp and of what it imports
def test_what_stp_itself_writes_is_read(folder: Path, ring: MemoryKeyring, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the first login and after it."""
    from experiment.cli.configuration import Configuration, Context

    env = dict.fromkeys(("XDG_CONFIG_HOME", "APPDATA"), str(folder))
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    configuration = Configuration(None, None, False)
    before = refused(None, env)
    configuration.contexts.entries["mine"] = Context(name="mine", url="https://mine.example/")
    configuration.settings.default_context = "mine"
    configuration.update()
    ring.set_password("https://mine.example/", "mine", TOKEN)

    url, token, _ = from_context(None, None, env)

    assert before.startswith(f"stp has no context in {str(files(folder)[1])!r}")
    assert (url, token()) == ("https://mine.example/", TOKEN)
