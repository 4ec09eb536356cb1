"""Settings, and the errors for bad ones."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import pytest
import trustme

from st4sd_async import Client, Config, ConfigError, RetryPolicy
from st4sd_async._auth import Credentials
from st4sd_async._config import build_home, build_tls, from_environment

NONE, KEY = Credentials(None, None), Credentials("key", None)


def test_the_defaults_are_those_documented() -> None:
    """8 in flight, 20 s of silence, adaptive polls, 60 s of grace, 180 s to settle, TLS verified."""
    config = Config()

    assert (config.concurrency, config.timeout, config.poll_interval) == (8, 20.0, None)
    assert (config.grace, config.settle, config.verify, config.validate) == (60.0, 180.0, True, True)
    assert (config.trusted_hosts, config.retry) == ((), RetryPolicy())
    assert config == Config()


@pytest.mark.parametrize(
    "options",
    [{"concurrency": 0}, {"concurrency": 1.5}, {"timeout": 0}, {"timeout": -1}, {"poll_interval": 0}, {"grace": -1},
     {"settle": -1}, {"trusted_hosts": "a.example"}, {"timeout": float("nan")}],
    ids=str,
)  # fmt: skip
def test_a_setting_that_makes_no_sense_is_named(options: dict[str, Any]) -> None:
    """The message names the setting and shows the value."""
    with pytest.raises(ConfigError, match=next(iter(options))):
        Config(**options)


def test_a_config_cannot_be_changed() -> None:
    """Clients share it; changes go through `with_options`."""
    with pytest.raises(AttributeError):
        Config().timeout = 5  # type: ignore[misc] # on purpose


@pytest.mark.parametrize(
    ("url", "home"),
    [
        ("https://st4sd.example", "https://st4sd.example/"),
        (" https://st4sd.example/ ", "https://st4sd.example/"),
        ("https://st4sd.example/rs", "https://st4sd.example/"),
        ("https://st4sd.example/rs/", "https://st4sd.example/"),
        ("https://host.example/st4sd/rs/", "https://host.example/st4sd/"),
        ("https://st4sd.example/rs/experiments/", "https://st4sd.example/"),
        ("https://host.example/st4sd/rs/instances/x-1?a=b", "https://host.example/st4sd/"),
        ("https://st4sd.example/rs/#/experiments", "https://st4sd.example/"),
        ("https://host.example/papers", "https://host.example/papers/"),
        ("http://127.0.0.1:5000?x#y", "http://127.0.0.1:5000/"),
        ("http://[::1]:5000", "http://[::1]:5000/"),
    ],
)
def test_the_address_may_end_in_rs_or_not(url: str, home: str) -> None:
    """Both forms are in use, and that of a page of the service."""
    assert build_home(url, KEY).geturl() == home


@pytest.mark.parametrize(
    "url", ["", "st4sd.example", "ftp://st4sd.example", "https://", "http://[::1", "https://a:99999"]
)
def test_what_is_no_address_is_refused(url: str) -> None:
    """The message shows how an address looks."""
    with pytest.raises(ConfigError, match=r"must look like https://st4sd\.example"):
        build_home(url, NONE)


def test_an_address_without_a_scheme_is_asked_back() -> None:
    """What was meant is known, but not that it is."""
    with pytest.raises(ConfigError, match=r"not 'st4sd\.example/rs': did you mean 'https://st4sd\.example/rs'\?"):
        build_home("st4sd.example/rs", NONE)
    with pytest.raises(ConfigError, match=r"not 'ftp://st4sd\.example'$"):
        build_home("ftp://st4sd.example", NONE)


def test_an_address_with_a_password_is_refused_unseen() -> None:
    """A password in the address would end up in messages."""
    with pytest.raises(ConfigError) as caught:
        Client("https://user:pass-word@st4sd.example")

    assert "pass-word" not in str(caught.value)


def test_credentials_in_clear_text_are_refused() -> None:
    """Plain http is for this machine only; without credentials there is nothing to lose."""
    with pytest.raises(ConfigError, match="clear text: use https"):
        Client("http://st4sd.example", api_key="key")
    Client("http://st4sd.example")
    Client("http://localhost:5000", auth_token="token")


def test_a_ca_file_is_trusted_alone(tmp_path: Path) -> None:
    """A file, a path and a ready context are accepted; what is none is told."""
    file = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(str(file))

    assert len(build_tls(file).get_ca_certs()) == len(build_tls(str(file)).get_ca_certs()) == 1
    context = ssl.create_default_context()
    assert build_tls(context) is context
    assert build_tls(True).verify_mode == ssl.CERT_REQUIRED
    for bad in (tmp_path / "missing.pem", tmp_path):
        with pytest.raises(ConfigError, match=r"the CA file .* \(Config.verify or ST4SD_CA_FILE\) cannot be used"):
            build_tls(bad)


def test_verification_is_off_only_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    """Whoever turns it off is told what that means."""
    context = build_tls(False)

    assert context.verify_mode == ssl.CERT_NONE
    assert not context.check_hostname
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_the_environment_names_the_deployment() -> None:
    """Four variables; an explicit CA of the config wins."""
    env = {"ST4SD_URL": "https://a.example", "ST4SD_API_KEY": "k", "ST4SD_AUTH_TOKEN": "", "ST4SD_CA_FILE": "ca.pem"}

    assert from_environment(None, env) == ("https://a.example", "k", None, Config(verify="ca.pem"))
    assert from_environment(Config(timeout=3), env)[3] == Config(timeout=3, verify="ca.pem")
    assert from_environment(Config(verify="mine.pem"), env)[3].verify == "mine.pem"


def test_a_missing_address_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names the variable to set."""
    with pytest.raises(ConfigError, match="ST4SD_URL is not set"):
        Client.from_env()
    monkeypatch.setenv("ST4SD_URL", "https://st4sd.example/rs")
    monkeypatch.setenv("ST4SD_API_KEY", "hidden-key")
    assert repr(Client.from_env()) == "Client('https://st4sd.example/', not open)"
