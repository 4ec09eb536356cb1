"""
Read the logins of the command ``stp``: its files, and the token in the keyring.

Source: st4sd-runtime-core, ``experiment/cli/configuration.py``, ``login.py`` and ``api.py``; for the folder the
documentation of ``typer.get_app_dir``.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pydantic
import pydantic_core

from .._config import Config, with_ca_file
from .._errors import ConfigError
from .._util.printable import shorten
from .._util.redact import raise_unchained

M = TypeVar("M", bound=pydantic.BaseModel)

FOLDER, SETTINGS, CONTEXTS = "stp", "stp_settings.json", "stp_contexts.json"
"""The folder of ``stp`` in the folder for application data, and its files."""

SETTINGS_FILE_VARIABLE, CONTEXTS_FILE_VARIABLE = "STP_SETTINGS_FILE", "STP_CONTEXTS_FILE"
"""Environment variables that name other files."""

DEFAULT_CONTEXT_VARIABLE = "STP_DEFAULT_CONTEXT"
"""Environment variable that names a context; it takes precedence over the active one."""

INSTALL = 'install it with: pip install "st4sd_async[keyring]"'


class _Settings(pydantic.BaseModel):
    """The settings of ``stp`` that are used here."""

    model_config = pydantic.ConfigDict(defer_build=True, hide_input_in_errors=True)

    default_context: str | None = None


class _Context(pydantic.BaseModel):
    """One login."""

    model_config = pydantic.ConfigDict(defer_build=True, hide_input_in_errors=True)

    url: pydantic.AnyHttpUrl


class _Contexts(pydantic.BaseModel):
    """All logins; each is validated when it is used, so that a broken one does not affect the others."""

    model_config = pydantic.ConfigDict(defer_build=True, hide_input_in_errors=True)

    entries: dict[str, dict[str, Any]] = {}


@dataclass(frozen=True)
class Login:
    """
    A context of ``stp``. Call it to read its current token from the keyring.

    A keyring may ask the user for a password, so call it in a worker thread.
    """

    name: str
    """The name of the context."""
    url: str
    """URL of the deployment as ``stp`` writes it, which is also the name of the service in the keyring."""
    url_in_file: str
    """The same URL as written in the file: older versions of ``stp`` omitted the slash at its end."""

    @property
    def command(self) -> str:
        """The command that renews this login."""
        return f"stp login --force --context-name {self.name} {self.url}"

    def __call__(self) -> str:
        """
        Return the token.

        Raises:
            ConfigError: The keyring has no token, or cannot be read.
        """
        prefix = f"the context {self.name!r} cannot be used: the keyring of this machine"
        try:
            import keyring

            for service in dict.fromkeys((self.url, self.url_in_file)):
                token = keyring.get_password(service, self.name)
                if token is not None:
                    return token
        except Exception as error:  # keyring libraries raise errors of any class, and may quote what they read
            advice = "unlock it, or give auth_token=... in place of the context"
            raise_unchained(ConfigError(f"{prefix} cannot be read ({_describe(error)}): {advice}"))
        raise ConfigError(f"{prefix} has no token for it: log in with '{self.command}'")


def _describe(error: Exception) -> str:
    """Return class and message of an error; the message only if the keyring package wrote it."""
    message = str(error) if type(error).__module__ == "keyring.errors" else ""
    return shorten(": ".join(filter(None, (type(error).__name__, message))), 200)


def from_context(
    name: str | None, config: Config | None, environ: Mapping[str, str] | None = None
) -> tuple[str, Callable[[], str], Config]:
    """
    Return URL, provider of the auth-token and settings from a context of ``stp``; reads two small files.

    Raises:
        ConfigError: The context does not exist, its file is invalid, or the extra ``keyring`` is not installed.
    """
    env = os.environ if environ is None else environ
    login = _find_login(name, env)
    if importlib.util.find_spec("keyring") is None:
        raise ConfigError(
            f"the token of the context {login.name!r} is in the keyring, which needs a package: {INSTALL}"
        )
    return login.url, login, with_ca_file(config or Config(), env)


def application_folder(env: Mapping[str, str], platform: str = sys.platform) -> Path:
    """Return the folder in which ``stp`` keeps its files, on this or another system."""
    if platform.startswith("win"):
        return Path(env.get("APPDATA") or Path.home()) / FOLDER
    if platform == "darwin":
        return Path.home() / "Library" / "Application Support" / FOLDER
    return Path(env.get("XDG_CONFIG_HOME") or Path.home() / ".config") / FOLDER


def _find_login(name: str | None, env: Mapping[str, str]) -> Login:
    path = Path(env.get(CONTEXTS_FILE_VARIABLE) or application_folder(env) / CONTEXTS)
    entries = _load(path, _Contexts).entries
    if not entries:
        raise ConfigError(f"stp has no context in {str(path)!r}: create one with 'stp login <url>'")
    wanted = name or env.get(DEFAULT_CONTEXT_VARIABLE) or _active_context(env, entries)
    # stp writes all names in lower case, and accepts them in any.
    found = next((one for one in (wanted, wanted.lower()) if one in entries), None)
    if found is None:
        command = f"stp login --context-name {wanted} <url>"
        raise ConfigError(f"stp has no context {wanted!r}, only {_join(entries)}: create it with '{command}'")
    context = _validate(entries[found], _Context, f"the context {found!r} in {str(path)!r}")
    return Login(found, str(context.url), str(entries[found]["url"]))


def _active_context(env: Mapping[str, str], entries: Mapping[str, Any]) -> str:
    path = Path(env.get(SETTINGS_FILE_VARIABLE) or application_folder(env) / SETTINGS)
    active = _load(path, _Settings).default_context
    if not active:
        advice = "name one, or activate it with 'stp context activate <name>'"
        raise ConfigError(f"no context of stp is active: {advice}; there are {_join(entries)}")
    return active


def _join(entries: Mapping[str, Any]) -> str:
    return ", ".join(repr(name) for name in sorted(entries))


def _load(path: Path, model: type[M]) -> M:
    """Return the validated content of a JSON file, or an empty model if there is no file."""
    try:
        value = pydantic_core.from_json(path.read_bytes())
    except FileNotFoundError:
        return model()
    except OSError as error:
        raise_unchained(ConfigError(f"the file {str(path)!r} of stp cannot be read: {error.strerror}"))
    except ValueError:
        advice = "repair it, or delete it and log in again with 'stp login <url>'"
        raise_unchained(ConfigError(f"the file {str(path)!r} of stp is not JSON: {advice}"))
    return _validate(value, model, f"the file {str(path)!r}")


def _validate(value: Any, model: type[M], what: str) -> M:
    try:
        return model.model_validate(value)
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        problem = ": ".join(filter(None, (".".join(str(part) for part in first["loc"]), first["msg"])))
        advice = "repair it, or log in again with 'stp login <url>'"
        raise_unchained(ConfigError(f"{what} is not what stp writes ({problem}): {advice}"))
