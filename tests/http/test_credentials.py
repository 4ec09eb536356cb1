"""Where credentials come from, and where they may go."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

import anyio
import pytest

from st4sd_async import ConfigError
from st4sd_async._http.credentials import Credential, Credentials, is_loopback, may_carry_credentials


@pytest.mark.anyio
async def test_quotes_and_blanks_around_a_value_are_removed() -> None:
    """Tokens are copied from a page that shows them in quotes."""
    assert await Credential("auth_token", ' "abc-123"\n').value() == "abc-123"


@pytest.mark.anyio
@pytest.mark.parametrize("value", ["", "  ", '""', "a b", "a\nb", "a;b", "é", 5, None])
async def test_a_value_that_no_header_can_carry_is_refused_without_quoting_it(value: object) -> None:
    """The message names the setting and never the value."""
    with pytest.raises(ConfigError, match="api_key is empty or contains invalid characters") as caught:
        await Credential("api_key", lambda: value).value()  # type: ignore[arg-type] # on purpose

    assert not str(value).strip() or str(value) not in str(caught.value)


@pytest.mark.anyio
async def test_a_file_is_read_again_each_time(tmp_path: Path) -> None:
    """Mounted credentials are rotated under a running program."""
    file = tmp_path / "key"
    file.write_text("first\n")
    credential = Credential("api_key", file)

    assert await credential.value() == "first"
    file.write_text("second\n")
    assert await credential.value() == "second"
    assert await credential.renew("first") == "second"
    assert await credential.renew("second") is None
    file.write_text("")
    with pytest.raises(ConfigError, match=r"the api_key file '.*key' is empty"):
        await credential.value()


@pytest.mark.anyio
async def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """The path is not a secret."""
    with pytest.raises(ConfigError, match=r"the api_key file .*missing.* cannot be read: No such file"):
        await Credential("api_key", tmp_path / "missing").value()
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="not a text file"):
        await Credential("api_key", tmp_path / "binary").value()


@pytest.mark.anyio
@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_a_provider_is_called_again_only_after_a_refusal(kind: str) -> None:
    """Once at first and once after a refusal, however many tasks were refused."""
    given = iter(["first", "second", "third"])

    async def coroutine() -> str:
        return next(given)

    credential = Credential("auth_token", coroutine if kind == "async" else lambda: next(given))

    assert [await credential.value() for _ in range(3)] == ["first"] * 3
    renewed: list[str | None] = []

    async def refuse() -> None:
        renewed.append(await credential.renew("first"))

    async with anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(refuse)
    assert renewed == ["second"] * 5
    assert await credential.renew("long ago") == "second"
    assert next(given) == "third"


@pytest.mark.anyio
async def test_a_fixed_value_cannot_be_renewed() -> None:
    """Sending the same credential twice is useless."""
    assert await Credentials("key", None).renew("key") is None
    assert await Credentials(None, None).renew("key") is None


@pytest.mark.anyio
async def test_the_key_wins_over_the_token() -> None:
    """A key is sent as a bearer, a token as a cookie."""
    both, token, none = Credentials("k1", "t1"), Credentials(None, "t1"), Credentials(None, None)

    assert (both.header, both.literal, await both.value()) == ((b"Authorization", "Bearer "), "k1", "k1")
    assert (token.header, token.literal, await token.value()) == ((b"Cookie", "oauth-proxy="), "t1", "t1")
    assert (none.literal, await none.value()) == (None, None)
    assert both.known == ["k1", "t1"]
    assert not none


@pytest.mark.anyio
async def test_a_token_says_nothing_about_the_provider_of_the_key() -> None:
    """A provider that never worked is more likely wrong than unavailable, whatever else the client was given."""
    credentials = Credentials(lambda: "k1", "t1")

    assert credentials.known == ["t1"]
    assert not credentials.has_worked
    await credentials.value()
    assert credentials.has_worked


def test_no_repr_shows_a_credential() -> None:
    """It shows that there is one, but not its value."""
    assert "hidden-key" not in repr(Credentials("hidden-key", None))
    assert "hidden-key" not in repr(Credential("api_key", "hidden-key"))


def test_a_credential_of_the_wrong_kind_is_refused() -> None:
    """The message names the allowed types, and not the value."""
    with pytest.raises(ConfigError, match=r"api_key must be a string, a pathlib\.Path or a callable, not int"):
        Credential("api_key", 5)  # type: ignore[arg-type] # on purpose


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("localhost", True), ("a.localhost", True), ("127.0.0.1", True), ("127.9.9.9", True), ("::1", True),
     ("[::1]", True), ("10.0.0.1", False), ("st4sd.example", False), ("localhost.example", False), ("0.0.0.0", False)],
)  # fmt: skip
def test_loopback_is_this_machine_only(host: str, loopback: bool) -> None:
    """Unencrypted requests are allowed only if they do not leave the machine."""
    assert is_loopback(host) is loopback


HOME = "https://st4sd.example/"


@pytest.mark.parametrize(
    ("url", "home", "trusted", "allowed"),
    [
        ("https://st4sd.example/rs/", HOME, (), True),
        ("https://st4sd.example:443/x", HOME, (), True),
        ("https://ST4SD.example/x", HOME, (), True),
        ("https://st4sd.example:8443/x", HOME, (), False),
        ("http://st4sd.example/x", HOME, (), False),
        ("https://other.example/x", HOME, (), False),
        ("https://st4sd.example.evil.example/x", HOME, (), False),
        ("https://other.example/x", HOME, ("other.example",), True),
        ("https://other.example/x", HOME, ("OTHER.example:443",), True),
        ("https://other.example:8443/x", HOME, ("other.example:443",), False),
        ("https://other.example:8443/x", HOME, ("other.example",), True),
        ("http://other.example/x", HOME, ("other.example",), False),
        ("http://127.0.0.1:5000/x", "http://127.0.0.1:5000/", (), True),
        ("http://127.0.0.1:5001/x", "http://127.0.0.1:5000/", (), False),
        ("http://127.0.0.1:5001/x", "http://127.0.0.1:5000/", ("127.0.0.1:5001",), True),
        ("http://10.0.0.1/x", "http://10.0.0.1/", (), False),
        ("https://[::1]:8443/x", HOME, ("[::1]:8443",), True),
        ("https://[::1]:8444/x", HOME, ("[::1]:8443",), False),
        ("https://[::1]:8443/x", HOME, ("[::1]",), True),
        ("https://[::1]:8443/x", HOME, ("::1",), True),
        ("https://[2001:DB8::1]/x", HOME, ("2001:db8:0::1",), True),
        ("https://[2001:db8::1]/x", HOME, ("[2001:db8::1]:443",), True),
        ("https://[::1]:8443/x", HOME, ("::1:8443",), False),  # an address of its own
        ("https://other.example/x", HOME, ("other.example:odd", "[::1", "", "other.example/x", ":443"), False),
    ],
)
def test_credentials_go_to_the_deployment_only(url: str, home: str, trusted: tuple[str, ...], allowed: bool) -> None:
    """Another host, another port and unencrypted URLs get none, unless the host is trusted."""
    assert may_carry_credentials(urlsplit(url), urlsplit(home), trusted) is allowed
