"""Whatever goes wrong, and however the service quotes what it was sent: no secret in any log, repr or exception."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from st4sd_async import BadRequest, Client, DecodeError, RetryPolicy
from tests.tries import combinations, sample

from .clients import settings
from .marks import KEY, MARKS, PAYLOAD, TOKEN, all_texts, changed, leaks, logged, outcome, payload
from .quotings import QUOTINGS, echo, sent
from .raw import Answer, Exchange, RawServer, close, cut, head, never, raw, reply, reset

pytestmark = [pytest.mark.anyio, pytest.mark.slow]


"""How services quote what they were sent."""


def _in_headers(status: int, text: Callable[[str], str] = str) -> Answer:
    """Answer with the credential in Location, Set-Cookie, Retry-After and a header of its own."""

    async def answer(exchange: Exchange) -> None:
        own = exchange.seen.headers.get("authorization") or exchange.seen.headers.get("cookie", "")
        secret = text(own.removeprefix("Bearer ").removeprefix("oauth-proxy="))
        lead = {
            "Location": f"https://login.example/?token={secret}",
            "Set-Cookie": f"echo {secret}={secret}; Path=/",
            "Retry-After": secret,
            "X-Echo": secret,
            "Content-Type": f"text/plain; charset={secret.replace(';', '')}",
            "Content-Disposition": f'attachment; filename="{secret}"',
            "Content-Length": "2",
        }
        await exchange.send(head(status, lead) + b"no")

    return answer


def _instead_of(part: str) -> Answer:
    """Answer with something that is no HTTP, because the request is quoted where ``part`` is due."""

    async def answer(exchange: Exchange) -> None:
        whole = f"{exchange.seen.headers} {exchange.seen.body!r}".encode()[:7000]
        data = {
            "status": whole + b"\r\n\r\n",
            "reason": b"HTTP/1.1 4x0 " + whole + b"\r\n\r\n",
            "header": b"HTTP/1.1 200 OK\r\nBad Header " + whole + b": x\r\n\r\n",
            "length": b"HTTP/1.1 200 OK\r\nContent-Length: " + whole + b"\r\n\r\n",
            "chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + whole + b"\r\n",
            "coding": b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nbody",
        }[part]
        await exchange.send(data)
        exchange.close()

    return answer


STATUSES = ("200", "400", "403", "500")
ROUNDS: dict[str, Answer | None] = {
    **{f"{status} {name}": echo(int(status), QUOTINGS[name]) for status, name in combinations(STATUSES, QUOTINGS)},
    **{f"{status} raw as a page": echo(int(status), QUOTINGS["raw"], "text/html") for status in sample(STATUSES, 2)},
    **{f"{status} repeated": echo(status, QUOTINGS["json in a text"], retry_after="1") for status in (429, 503)},
    **{f"{status} in headers": _in_headers(status) for status in sample((200, 302, 308, 400, 403, 429, 500), 4)},
    "302 in headers, quoted for a url": _in_headers(302, lambda text: quote(text, safe="")),
    **{f"not HTTP: {part}": _instead_of(part) for part in ("status", "reason", "header", "length", "chunk", "coding")},
    "success": reply(200, "demo-c52cd4-00000001"),
    "404": reply(404, {"message": "no"}),
    "closed": close(),
    "reset": reset(),
    "never answered": never(),
    "body cut short": cut(),
    "redirect to nonsense": raw(head(302, {"Location": "http://[::1", "Content-Length": "0"})),
    "refused": None,
}
"""What the service does, None: it does not listen. A sample has each quoting with one status."""
CREDENTIALS = {"key": {"api_key": KEY}, "token": {"auth_token": TOKEN}}


@pytest.mark.parametrize(("given", "service"), combinations(CREDENTIALS, ROUNDS))
async def test_no_secret_in_any_message(given: str, service: str, watched: pytest.LogCaptureFixture) -> None:
    """A start, a push, a read, a delete: logs, reprs and exceptions to their last attribute are clean."""
    answer = ROUNDS[service]
    package = {"metadata": {"package": {"name": "demo"}}}
    async with RawServer([answer or close()], listening=answer is not None) as server:
        config = settings(timeout=0.1, retry=RetryPolicy(attempts=2))
        client = Client(server.url, config=config, **CREDENTIALS[given])
        async with client:
            operations: list[Callable[[], Awaitable[Any]]] = [
                lambda: client.start("demo", payload()),
                lambda: client.push(package),
                lambda: client.status("demo-c52cd4-00000001"),
                lambda: client.outputs("demo-c52cd4-00000001"),
                lambda: client.output("demo-c52cd4-00000001", "Energies"),
                lambda: client.delete("demo-c52cd4-00000001"),
            ]
            errors = [await outcome(operation) for operation in operations]
            assert leaks(f"{client!r} {client} {config!r} {client.run('demo-1')!r}") == set()

    assert leaks(logged(watched)) == set()
    for error in errors:
        assert leaks(all_texts(error)) == set(), re.sub(r"(Q[A-Z]{4}).*", r"\1...", f"{error}")


NOISY: dict[str, Answer | None] = {
    "200 raw": echo(200, QUOTINGS["raw"]),
    "400 as it is": echo(400, QUOTINGS["as it is"]),
    "403 raw as a page": echo(403, QUOTINGS["raw"], "text/html"),
    "302 in headers": _in_headers(302),
    **{
        name: ROUNDS[name]
        for name in ("not HTTP: header", "not HTTP: chunk", "reset", "never answered", "body cut short", "refused")
    },
}


@pytest.mark.parametrize(
    ("form", "service"),
    [
        *((form, "success") for form in ("text", "provider", "coroutine", "file", "input")),
        *combinations(("text", "token"), NOISY),
    ],
)
async def test_no_secret_in_the_notes_of_a_slow_event_loop(
    form: str, service: str, tmp_path: Path, watched: pytest.LogCaptureFixture
) -> None:
    """asyncio's debug mode logs each callback that is slow, arguments included: here all are."""

    async def coroutine() -> str:
        return KEY

    file = tmp_path / "secret"
    file.write_text(KEY)
    source: Any = {"provider": lambda: KEY, "coroutine": coroutine, "file": file, "token": None}.get(form, KEY)
    token = TOKEN if form == "token" else None
    given = changed(inputs=[{"filename": "a", "content": file}]) if form == "input" else payload()
    loop = asyncio.get_running_loop()
    loop.set_debug(True)
    loop.slow_callback_duration = 0
    answer = {**ROUNDS, **NOISY}[service]
    async with (
        RawServer([answer or close()], listening=answer is not None) as server,
        Client(server.url, api_key=source, auth_token=token, config=settings(timeout=0.1)) as client,
    ):
        error = await outcome(lambda: client.start("demo", given))
    loop.slow_callback_duration = 10

    assert (error is None) is (service == "success")
    assert "took" in watched.text
    assert leaks(logged(watched)) == set()


async def test_secrets_did_reach_the_service() -> None:
    """The rounds above hide nothing that was not there: the payload arrives with all of it, under a credential."""
    async with (
        RawServer([reply(200, "demo-c52cd4-00000001")]) as server,
        Client(server.url, api_key=KEY, config=settings()) as client,
    ):
        await client.start("demo", payload())

    seen = server.requests[0]
    assert json.loads(seen.body) == PAYLOAD
    assert leaks(f"{seen.headers}{seen.body!r}") == set(MARKS) - {"QTOKXB"}


async def test_a_message_keeps_what_is_no_secret() -> None:
    """The rest of the message is what the user needs."""
    answer = echo(400, lambda exchange: {"message": f"variable scale is bad in {json.dumps(sent(exchange))}"})
    async with RawServer([answer]) as server, Client(server.url, api_key=KEY, config=settings()) as client:
        error = await outcome(lambda: client.start("demo", payload()))

    assert "variable scale is bad" in f"{error}"


async def test_a_big_file_is_hidden_and_the_words_about_it_stay() -> None:
    """A refusal of many words for a start with nearly 1 MiB of input keeps them all, before the test's time is over."""
    content = "".join(f"{number},C{number % 17}H{number % 31}O,{number * 1.37:.4f}\n" for number in range(38_000))
    told = [{"loc": ["inputs", number], "msg": "a bad value, explained in a sentence"} for number in range(50)]
    async with (
        RawServer([reply(400, {"message": "no", "errors": told})]) as server,
        Client(server.url, api_key=KEY, config=settings(timeout=10)) as client,
    ):
        error = await outcome(lambda: client.start("demo", {"inputs": [{"filename": "a", "content": content}]}))

    assert isinstance(error, BadRequest)
    assert error.detail["errors"] == told


async def test_a_credential_that_was_replaced_stays_hidden() -> None:
    """A refused credential is still redacted after it was renewed: it may be valid elsewhere."""
    given = iter([KEY, TOKEN])
    first: list[str] = []

    async def answer(exchange: Exchange) -> None:
        first.append(exchange.seen.headers["authorization"])
        text = f"refused {first[0]}, then {first[-1]}"
        await (reply(403, b"") if len(first) == 1 else reply(400, {"message": text}))(exchange)

    async with (
        RawServer([answer]) as server,
        Client(server.url, api_key=lambda: next(given), config=settings()) as client,
    ):
        error = await outcome(client.instances.list)

    assert len(first) == 2
    assert leaks(all_texts(error)) == set()


QUOTED = [f"x {KEY}", f"{'y' * 60} {KEY}"]
"""Texts that are no rest-uid: the second is cut in a message before the key ends."""
LISTED = "demo-c52cd4-00000001"


@pytest.mark.parametrize("text", QUOTED, ids=["whole", "cut"])
async def test_a_warning_about_a_reply_quotes_no_credential(text: str, caplog: pytest.LogCaptureFixture) -> None:
    """A log message about an unreadable response may quote the request."""
    answers = [
        reply(200, [{"id": text, "status": {}}, {"id": LISTED, "status": {}}]),
        reply(200, {text: "https://user:password@x.example/", "good": "https://x.example/"}),
    ]
    async with RawServer(answers) as server, Client(server.url, api_key=KEY, config=settings()) as client:
        assert [one.id for one in await client.instances.list()] == [LISTED]
        assert await client._session.services() == {"good": "https://x.example/"}

    assert [record.getMessage()[:8] for record in caplog.records if record.levelname == "WARNING"] == ["left out"] * 2
    assert not leaks(caplog.text)


@pytest.mark.parametrize("text", QUOTED, ids=["whole", "cut"])
async def test_what_a_model_says_of_a_value_quotes_no_credential(text: str) -> None:
    """A check of a field may show the value that it refuses."""
    async with (
        RawServer([reply(200, {"id": text, "status": {}})]) as server,
        Client(server.url, api_key=KEY, config=settings()) as client,
    ):
        with pytest.raises(DecodeError) as caught:
            await client.instances.get(LISTED)

    assert not leaks(all_texts(caught.value))
