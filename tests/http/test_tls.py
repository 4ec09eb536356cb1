"""TLS contexts: loaded once for the same certificates, anew when those change, and only where TLS is used."""

from __future__ import annotations

import os
import ssl
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trustme

from st4sd_async import Client, ConfigError, ConnectFailed, RetryPolicy
from st4sd_async._http import tls
from st4sd_async._http.tls import MAX_CONTEXTS, build_tls_context
from tests.faults.clients import settings
from tests.faults.raw import RawServer, reply

STAMP = (1_700_000_000, 1_700_000_000)


@pytest.fixture(autouse=True)
def nothing_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test begins without contexts."""
    monkeypatch.setattr(tls, "_contexts", {})


@pytest.fixture(scope="module")
def authorities() -> tuple[trustme.CA, trustme.CA]:
    """Two authorities whose files have the same length."""
    one, other = trustme.CA(), trustme.CA()
    while len(one.cert_pem.bytes()) != len(other.cert_pem.bytes()):  # signatures differ in length by a byte or two
        other = trustme.CA()
    return one, other


@pytest.fixture
def ca_file(authorities: tuple[trustme.CA, trustme.CA], tmp_path: Path) -> Path:
    """The file of the first authority."""
    file = tmp_path / "ca.pem"
    authorities[0].cert_pem.write_to_path(str(file))
    os.utime(file, STAMP)
    return file


def known(context: ssl.SSLContext) -> list[bytes]:
    """Return the certificates that a context trusts."""
    return context.get_ca_certs(binary_form=True)


def der(authority: trustme.CA) -> list[bytes]:
    """Return what a context that trusts one authority knows."""
    return [ssl.PEM_cert_to_DER_cert(authority.cert_pem.bytes().decode())]


def test_the_same_certificates_are_loaded_once(ca_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The default ones, and those of a file, by whichever name."""
    monkeypatch.chdir(ca_file.parent)

    assert build_tls_context(True) is build_tls_context(True)
    named = build_tls_context(ca_file)
    assert build_tls_context(str(ca_file)) is build_tls_context("ca.pem") is named
    assert named is not build_tls_context(True)


@pytest.mark.parametrize("way", ["written in place", "renamed over"])
def test_a_rotated_file_is_loaded_anew(way: str, authorities: tuple[trustme.CA, trustme.CA], ca_file: Path) -> None:
    """Even if the new file has the length and the times of the old one; and the old one again is the old context."""
    before, content = build_tls_context(ca_file), ca_file.read_bytes()

    target = ca_file if way == "written in place" else ca_file.with_name("new.pem")
    authorities[1].cert_pem.write_to_path(str(target))
    os.utime(target, STAMP)
    target.replace(ca_file)

    after = build_tls_context(ca_file)
    assert known(before) == der(authorities[0])
    assert known(after) == der(authorities[1])
    ca_file.write_bytes(content)
    assert known(build_tls_context(ca_file)) == der(authorities[0])


def test_a_removed_or_broken_file_is_an_error_again(ca_file: Path) -> None:
    """What was loaded before is not used in its place."""
    content = ca_file.read_bytes()
    build_tls_context(ca_file)

    ca_file.unlink()
    with pytest.raises(ConfigError, match=r"ca\.pem.* cannot be used: .*No such file"):
        build_tls_context(ca_file)
    for broken in (b"", b"no certificate"):
        ca_file.write_bytes(broken)
        with pytest.raises(ConfigError, match=r"ca\.pem.* cannot be used: "):
            build_tls_context(ca_file)

    ca_file.write_bytes(content)
    assert len(known(build_tls_context(ca_file))) == 1


def test_the_variables_of_the_environment_are_read_each_time(
    authorities: tuple[trustme.CA, trustme.CA], ca_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``SSL_CERT_FILE`` set, changed, removed; ``SSL_CERT_DIR``; a named file is not affected."""
    default = build_tls_context(True)
    other = ca_file.with_name("other.pem")
    authorities[1].cert_pem.write_to_path(str(other))

    for file, authority in ((ca_file, authorities[0]), (other, authorities[1])):
        monkeypatch.setenv("SSL_CERT_FILE", str(file))
        assert known(build_tls_context(True)) == der(authority)
        assert known(build_tls_context(ca_file)) == der(authorities[0])
    monkeypatch.delenv("SSL_CERT_FILE")
    assert build_tls_context(True) is default

    monkeypatch.setenv("SSL_CERT_DIR", str(ca_file.parent))
    in_folder = build_tls_context(True)
    assert known(in_folder) == []  # read when a server is verified
    assert in_folder is not build_tls_context(True)  # OpenSSL would keep a certificate that was removed
    monkeypatch.delenv("SSL_CERT_DIR")
    assert build_tls_context(True) is default


def test_contexts_with_settings_of_their_own_are_not_shared(
    ca_file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A context of the user, one that verifies nothing, and one that logs its keys."""
    own = ssl.create_default_context(cafile=str(ca_file))
    assert build_tls_context(own) is own
    assert build_tls_context(ca_file) is not own

    unverified = build_tls_context(False)
    assert unverified is not build_tls_context(False)
    assert build_tls_context(True).verify_mode == build_tls_context(ca_file).verify_mode == ssl.CERT_REQUIRED

    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys"))
    logging = build_tls_context(ca_file)
    assert logging.keylog_filename == str(tmp_path / "keys")
    assert logging is not build_tls_context(ca_file)
    monkeypatch.delenv("SSLKEYLOGFILE")
    assert build_tls_context(ca_file).keylog_filename is None


def test_verification_off_warns_for_each_client(caplog: pytest.LogCaptureFixture) -> None:
    """A second client says so as well."""
    for _ in range(2):
        build_tls_context(False)

    assert len(caplog.records) == 2


def test_a_file_that_can_be_read_only_once_is_read_once(ca_file: Path, tmp_path: Path) -> None:
    """A named pipe, as the shell makes one for ``<(command)``."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(ca_file.read_bytes(),))
    writer.start()

    assert len(known(build_tls_context(pipe))) == 1
    writer.join()


def test_only_the_latest_contexts_are_kept(ca_file: Path) -> None:
    """A process that rotates its authority for months does not grow."""
    contexts = []
    for number in range(MAX_CONTEXTS + 2):
        file = ca_file.with_name(f"{number}.pem")
        file.write_bytes(ca_file.read_bytes() + b"\n" * number)
        contexts.append(build_tls_context(file))
        assert build_tls_context(ca_file.with_name("0.pem")) is contexts[0]  # in use, and so among the latest

    assert len(tls._contexts) == MAX_CONTEXTS
    assert build_tls_context(ca_file.with_name("1.pem")) is not contexts[1]


@asynccontextmanager
async def tls_server(authority: trustme.CA) -> AsyncIterator[RawServer]:
    """A server with a certificate of an authority."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    async with RawServer([reply(200, {}), reply(200, {})], tls=context) as server:
        yield server


@pytest.mark.anyio
async def test_a_client_follows_a_rotated_authority_when_it_is_opened_again(
    authorities: tuple[trustme.CA, trustme.CA], ca_file: Path
) -> None:
    """The server and the file change together; before the file does, the server is refused."""
    async with tls_server(authorities[1]) as server:
        client = Client(server.url, config=settings(verify=ca_file, retry=RetryPolicy(attempts=1)))
        async with client:
            with pytest.raises(ConnectFailed, match="certificate verification failed"):
                await client.request("GET", "/rs/any/")
        authorities[1].cert_pem.write_to_path(str(ca_file))
        async with client:
            assert await client.request("GET", "/rs/any/") == {}


@pytest.mark.anyio
async def test_an_http_address_loads_no_certificates_until_a_service_has_https(
    authorities: tuple[trustme.CA, trustme.CA], ca_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then in a thread, and with the authorities that the environment names."""
    async with (
        tls_server(authorities[0]) as secure,
        RawServer([reply(200, {"other": secure.url})]) as plain,
        Client(plain.url, config=settings()) as client,
    ):
        assert await client.deployment.services() == {"other": secure.url}
        assert tls._contexts == {}
        monkeypatch.setenv("SSL_CERT_FILE", str(ca_file))
        for _ in range(2):
            assert await client.request("GET", "any/", service="other") == {}
            assert len(tls._contexts) == 1
        assert secure.connections == 1  # another context would have another pool


@pytest.mark.anyio
async def test_default_authorities_that_cannot_be_read_are_found_when_they_are_needed(
    ca_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client of an http address works without; a request that needs them was certainly not sent."""
    monkeypatch.setenv("SSL_CERT_FILE", str(ca_file.with_name("missing.pem")))
    async with RawServer([reply(200, {"other": "https://127.0.0.1:9"})]) as plain:
        async with Client(plain.url, config=settings()) as client:
            with pytest.raises(ConnectFailed, match=r"missing\.pem.* \(environment variable SSL_CERT_FILE\)") as caught:
                await client.request("POST", "any/", service="other")

        assert caught.value.sent is False
        assert caught.value.permanent
        with pytest.raises(ConfigError, match=r"Config\.verify"):
            await Client(plain.url, config=settings(verify="/nowhere/ca.pem")).open()
