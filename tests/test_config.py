"""Settings, and the errors for invalid ones."""

from __future__ import annotations

import os
import re
import ssl
from pathlib import Path
from typing import Any

import pytest
import trustme

from st4sd_async import Client, Config, ConfigError, RetryPolicy
from st4sd_async._config import from_environment
from st4sd_async._http.credentials import Credentials, parse_deployment_url
from st4sd_async._http.tls import build_tls_context

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
     {"settle": -1}, {"trusted_hosts": "a.example"}, {"timeout": float("nan")}, {"timeout": float("inf")},
     {"timeout": None}, {"timeout": "5"},
     {"poll_interval": float("nan")}, {"grace": float("nan")}, {"grace": True}, {"settle": float("inf")}],
    ids=str,
)  # fmt: skip
def test_an_invalid_setting_is_named(options: dict[str, Any]) -> None:
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
        ("HTTPS://ST4SD.Example:443", "https://st4sd.example/"),
        ("https://st4sd.example:80", "https://st4sd.example:80/"),
        ("http://[::1]:80/RS/rs", "http://[::1]/RS/"),
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
    """Both forms are in use, and the URLs of pages of the service."""
    assert parse_deployment_url(url, KEY).geturl() == home


@pytest.mark.parametrize(
    "url",
    [
        *("", "st4sd.example", "ftp://st4sd.example", "https://", "http://[::1", "https://a:99999"),
        *("https://a..b", "https://.a", "https://a b", "https://a%20b", "https://1.2.3.4.5", "https://[::1%]"),
        *("https://\u2603.net", "https://a\u2603", f"https://{'a' * 70}.example", "https://" + "abc." * 64),
        *("https://xn--.net", "https://XN--a.net"),
    ],
    ids=lambda url: ascii(url)[:30],
)
def test_an_invalid_url_is_refused(url: str) -> None:
    """The message shows an example."""
    with pytest.raises(ConfigError, match=r"must look like https://st4sd\.example"):
        parse_deployment_url(url, NONE)


@pytest.mark.parametrize(
    "host",
    [
        *("a", "a.b.", "a_b.example", "A-b.Example:8443", "10.0.0.1", "[2001:db8::1]:443", "xn--bcher-kva.example"),
        *("b\u00fccher.example", "\u4f8b\u3048.example", f"{'a' * 63}.example"),
    ],
    ids=lambda host: ascii(host)[:30],
)
def test_valid_hosts_are_accepted(host: str) -> None:
    """Numbers, names with and without a final dot, other scripts."""
    home = f"https://{host.lower().removesuffix(':443')}/"
    assert parse_deployment_url(f"https://{host}", KEY).geturl() == home


def test_a_url_without_a_scheme_gets_a_suggestion() -> None:
    """The intention is likely, but not certain."""
    with pytest.raises(ConfigError, match=r"not 'st4sd\.example/rs': did you mean 'https://st4sd\.example/rs'\?"):
        parse_deployment_url("st4sd.example/rs", NONE)
    with pytest.raises(ConfigError, match=r"not 'ftp://st4sd\.example'$"):
        parse_deployment_url("ftp://st4sd.example", NONE)
    for address in ("localhost:8080", "127.0.0.1:8080/rs", "[::1]:8080", "demo.localhost"):
        with pytest.raises(ConfigError, match=rf"did you mean 'http://{re.escape(address)}'\?"):
            parse_deployment_url(address, KEY)
    with pytest.raises(ConfigError, match=r"did you mean 'https://\[::1'\?"):
        parse_deployment_url("[::1", NONE)


def test_a_url_with_a_password_is_refused_without_quoting_it() -> None:
    """A password in the URL would end up in messages."""
    with pytest.raises(ConfigError) as caught:
        Client("https://user:pass-word@st4sd.example")

    assert "pass-word" not in str(caught.value)


def test_credentials_in_clear_text_are_refused() -> None:
    """Plain http is allowed for this machine, or without credentials."""
    with pytest.raises(ConfigError, match="clear text: use https"):
        Client("http://st4sd.example", api_key="key")
    Client("http://st4sd.example")
    Client("http://localhost:5000", auth_token="token")


def test_only_the_given_ca_file_is_trusted(tmp_path: Path) -> None:
    """A path, a text and a context are accepted; an invalid file is an error."""
    file = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(str(file))

    assert len(build_tls_context(file).get_ca_certs()) == len(build_tls_context(str(file)).get_ca_certs()) == 1
    context = ssl.create_default_context()
    assert build_tls_context(context) is context
    assert build_tls_context(True).verify_mode == ssl.CERT_REQUIRED
    for bad in (tmp_path / "missing.pem", tmp_path):
        with pytest.raises(ConfigError, match=r"the CA file .* \(Config.verify or ST4SD_CA_FILE\) cannot be used"):
            build_tls_context(bad)


@pytest.mark.parametrize("bad", ["missing", "empty", "folder"])
def test_a_bad_ssl_cert_file_is_named(bad: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable, its value and the reason."""
    (tmp_path / "empty").touch()
    (tmp_path / "folder").mkdir()
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / bad))

    with pytest.raises(ConfigError) as caught:
        build_tls_context(True)

    named = f"the CA file {str(tmp_path / bad)!r} (environment variable SSL_CERT_FILE) cannot be used: "
    assert str(caught.value).startswith(named)
    assert len(str(caught.value)) > len(named)


@pytest.mark.parametrize("bad", ["missing", "file", "missing:file"])
def test_a_bad_ssl_cert_dir_is_named(bad: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenSSL would silently trust nothing; one existing folder of several is enough."""
    (tmp_path / "file").touch()
    given = os.pathsep.join(str(tmp_path / name) for name in bad.split(":"))
    monkeypatch.setenv("SSL_CERT_DIR", given)

    with pytest.raises(ConfigError) as caught:
        build_tls_context(True)
    monkeypatch.setenv("SSL_CERT_DIR", f"{given}{os.pathsep}{tmp_path}")
    build_tls_context(True)

    assert str(caught.value) == f"there is no folder {given!r} (environment variable SSL_CERT_DIR)"


def test_an_invalid_key_log_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the error would point to the certificates."""
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "missing" / "keys"))

    with pytest.raises(ConfigError, match=r"environment variable SSLKEYLOGFILE cannot be used: .* No such file"):
        build_tls_context(True)


@pytest.mark.anyio
async def test_a_client_with_a_bad_ssl_cert_file_is_not_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    """It fails before anything is sent, and can be opened once that is fixed."""
    client = Client("https://127.0.0.1:1", config=Config(validate=False))
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere/ca.pem")

    with pytest.raises(ConfigError, match="SSL_CERT_FILE"):
        await client.open()
    monkeypatch.delenv("SSL_CERT_FILE")

    async with client:
        pass


def test_verification_is_off_only_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    """The warning explains the consequence."""
    context = build_tls_context(False)

    assert context.verify_mode == ssl.CERT_NONE
    assert not context.check_hostname
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_the_environment_names_the_deployment() -> None:
    """Four variables; an explicit CA of the config wins."""
    env = {"ST4SD_URL": "https://a.example", "ST4SD_API_KEY": "k", "ST4SD_AUTH_TOKEN": "", "ST4SD_CA_FILE": "ca.pem"}

    assert from_environment(None, env) == ("https://a.example", "k", None, Config(verify="ca.pem"))
    assert from_environment(Config(timeout=3), env)[3] == Config(timeout=3, verify="ca.pem")
    assert from_environment(Config(verify="mine.pem"), env)[3].verify == "mine.pem"


def test_a_missing_url_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names the variable to set."""
    with pytest.raises(ConfigError, match="ST4SD_URL is not set"):
        Client.from_env()
    monkeypatch.setenv("ST4SD_URL", "https://st4sd.example/rs")
    monkeypatch.setenv("ST4SD_API_KEY", "hidden-key")
    assert repr(Client.from_env()) == "Client('https://st4sd.example/', not open)"
