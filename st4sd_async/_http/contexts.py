"""
The logins that the command ``stp`` keeps: where its files are, what they say, and the token in the keyring.

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

M = TypeVar("M", bound=pydantic.BaseModel)

FOLDER, SETTINGS, CONTEXTS = "stp", "stp_settings.json", "stp_contexts.json"
"""The folder of ``stp`` among those of all applications, and its files."""

SETTINGS_FILE, CONTEXTS_FILE = "STP_SETTINGS_FILE", "STP_CONTEXTS_FILE"
"""Environment variables that name other files."""

DEFAULT = "STP_DEFAULT_CONTEXT"
"""Environment variable that names a context; it wins over the active one."""

EXTRA = 'install it with: pip install "st4sd_async[keyring]"'
"""How to get what reads the keyring."""


class _Settings(pydantic.BaseModel):
    """The settings of ``stp``; what else there is in them is none of our business."""

    model_config = pydantic.ConfigDict(defer_build=True, hide_input_in_errors=True)

    default_context: str | None = None


class _Context(pydantic.BaseModel):
    """One login."""

    model_config = pydantic.ConfigDict(defer_build=True, hide_input_in_errors=True)

    url: pydantic.AnyHttpUrl


class _Contexts(pydantic.BaseModel):
    """All logins; each is read when it is wanted, so that a broken one does not spoil the others."""

    model_config = pydantic.ConfigDict(defer_build=True, hide_input_in_errors=True)

    entries: dict[str, dict[str, Any]] = {}


@dataclass(frozen=True)
class Login:
    """
    A context of ``stp``; called, it gives the token that the keyring has by now.

    A keyring may ask the user for a password, and take its time, so it is called in a worker thread.
    """

    name: str
    """The name of the context."""
    url: str
    """Address of the deployment, as ``stp`` writes it; the name of the service in the keyring too."""
    written: str
    """The same as it stands in the file: older versions of ``stp`` write no slash at its end, nor in the keyring."""

    @property
    def command(self) -> str:
        """What makes this login anew."""
        return f"stp login --force --context-name {self.name} {self.url}"

    def __call__(self) -> str:
        """
        The token.

        Raises:
            ConfigError: The keyring has none, or cannot be read.
        """
        try:
            import keyring

            for service in dict.fromkeys((self.url, self.written)):
                token = keyring.get_password(service, self.name)
                if token is not None:
                    return token
            problem = f"has no token for it: log in with '{self.command}'"
        # Keyrings are programs of their own, whose libraries raise whatever they like.
        except Exception as error:
            problem = f"cannot be read ({_words(error)}): unlock it, or give auth_token=... and do without the context"
        # Raised out here, because the errors of a keyring may hold what it said.
        raise ConfigError(f"the context {self.name!r} is of no use: the keyring of this machine {problem}")


def _words(error: Exception) -> str:
    """What went wrong: the words of the keyring package, of others only the kind, since they could quote anything."""
    kind = type(error)
    words = str(error) if kind.__module__ == "keyring.errors" else ""
    return shorten(": ".join(filter(None, (kind.__name__, words))), 200)


def from_context(
    name: str | None, config: Config | None, environ: Mapping[str, str] | None = None
) -> tuple[str, Callable[[], str], Config]:
    """
    Address, provider of the auth-token and settings from a context of ``stp``; reads two small files.

    Raises:
        ConfigError: There is no such context, or what ``stp`` wrote cannot be read, or the extra is not installed.
    """
    env = os.environ if environ is None else environ
    login = _login(name, env)
    if importlib.util.find_spec("keyring") is None:
        raise ConfigError(f"the token of the context {login.name!r} is in the keyring, which takes a package: {EXTRA}")
    return login.url, login, with_ca_file(config or Config(), env)


def application_folder(env: Mapping[str, str], platform: str = sys.platform) -> Path:
    """The folder where ``stp`` keeps its files, on this or another system."""
    if platform.startswith("win"):
        return Path(env.get("APPDATA") or Path.home()) / FOLDER
    if platform == "darwin":
        return Path.home() / "Library" / "Application Support" / FOLDER
    return Path(env.get("XDG_CONFIG_HOME") or Path.home() / ".config") / FOLDER


def _login(name: str | None, env: Mapping[str, str]) -> Login:
    contexts = Path(env.get(CONTEXTS_FILE) or application_folder(env) / CONTEXTS)
    entries = _read(contexts, _Contexts).entries
    if not entries:
        raise ConfigError(f"there is no context of stp in {str(contexts)!r}: make one with 'stp login <url>'")
    wanted = name or env.get(DEFAULT) or _active(env, entries)
    # stp writes all names in lower case, and understands them in any.
    found = next((one for one in (wanted, wanted.lower()) if one in entries), None)
    if found is None:
        login = f"stp login --context-name {wanted} <url>"
        raise ConfigError(f"there is no context {wanted!r} of stp, only {_names(entries)}: make it with '{login}'")
    entry = entries[found]
    url = str(_checked(entry, _Context, f"the context {found!r} in {str(contexts)!r}").url)
    return Login(found, url, str(entry["url"]))


def _active(env: Mapping[str, str], entries: Mapping[str, Any]) -> str:
    """The context that is used where none is named."""
    settings = Path(env.get(SETTINGS_FILE) or application_folder(env) / SETTINGS)
    active = _read(settings, _Settings).default_context
    if not active:
        advice = "name one, or make it so with 'stp context activate <name>'"
        raise ConfigError(f"no context of stp is active: {advice}; there are {_names(entries)}")
    return active


def _names(entries: Mapping[str, Any]) -> str:
    return ", ".join(repr(name) for name in sorted(entries))


def _read(path: Path, model: type[M]) -> M:
    """What a file says; a file that is not there says nothing."""
    try:
        value = pydantic_core.from_json(path.read_bytes())
    except FileNotFoundError:
        return model()
    except OSError as error:
        problem = f"cannot be read: {error.strerror}"
    except ValueError:
        problem = "is not JSON: repair it, or delete it and log in again with 'stp login <url>'"
    else:
        return _checked(value, model, f"the file {str(path)!r}")
    raise ConfigError(f"the file {str(path)!r} of stp {problem}")


def _checked(value: Any, model: type[M], what: str) -> M:
    try:
        return model.model_validate(value)
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    told = f"{where}: {first['msg']}" if where else first["msg"]
    raise ConfigError(f"{what} is not what stp writes ({told}): repair it, or log in again with 'stp login <url>'")
