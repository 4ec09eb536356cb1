"""What gateways do in place of sending files: they break, or say what no honest one does."""

from __future__ import annotations

from tests.results.archives import Entry, build

from .clients import PATIENCE, SILENCE
from .gateways import archive, zipped
from .raw import Answer, close, cut, head, never, raw, reply, reset, sign_in


def damaged(members: list[tuple[str, bytes]]) -> bytes:
    """An archive in which a byte of a content is wrong."""
    body = bytearray(zipped(members))
    body[60 + len(members[0][0])] ^= 1
    return bytes(body)


def hostile(*entries: Entry) -> Answer:
    """An archive that says what no honest one does, beside what was asked for."""

    def change(members: list[tuple[str, bytes]]) -> bytes:
        return build(*(Entry(name=name, content=content) for name, content in members), *entries)

    return archive(change)


NAMELESS = raw(b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\n\r\nabc")
BROKEN = {
    "refused": None,
    "closed": close(),
    "reset": reset(),
    "silent": never(),
    "cut in the middle of chunks": archive(missing=300),
    "cut inside the last mark": archive(missing=3),
    "cut before the last mark": archive(missing=5),
    "cut in the middle": archive(chunked=False, missing=200),
    "cut before the last byte": archive(chunked=False, missing=1),
    "reset in the middle": archive(missing=300, then=reset()),
    "silent in the middle": archive(missing=300, then=never()),
    **{str(status): reply(status, b"<html>", media="text/html") for status in (500, 502, 503, 504)},
    "500 in JSON": reply(500, {"message": "no"}),
    "the sign-in page": sign_in(),
    "the sign-in page as a success": reply(200, b"<html>Log in</html>", media="text/html; charset=utf-8"),
    "false": reply(200, False),
    "empty text": reply(200, ""),
    "cut JSON": cut(),
    "302": raw(head(302, {"Location": "https://elsewhere.example/", "Content-Length": "0"})),
    "308": raw(head(308, {"Location": "http://127.0.0.1:1/", "Content-Length": "0"})),
    "not HTTP": raw(b"SSH-2.0\r\n"),
    "until the end of the connection": NAMELESS,
    "nothing": archive(lambda _: b""),
    "no archive": archive(lambda _: b"<html>" * 100),
    "a cut tail": archive(lambda members: zipped(members)[:-30]),
    "a cut middle": archive(lambda members: zipped(members)[: len(zipped(members)) // 2]),
    "something after the end": archive(lambda members: zipped(members) + b"x"),
    "a wrong byte": archive(damaged),
    "the empty archive": archive(lambda _: []),
    "a name that leads out": hostile(Entry(name="/../../outside.txt")),
    "an absolute name": hostile(Entry(name="//etc/outside.txt")),
    "a name of Windows": hostile(Entry(name="C:\\outside.txt")),
    "a link": hostile(Entry(name="/link", content=b"/etc", mode=0o120777)),
    "a device": hostile(Entry(name="/device", mode=0o020666)),
    "a name that comes twice": archive(lambda members: [*members, (members[0][0], b"other")]),
    "names that differ in case": archive(lambda members: [*members, (members[0][0].upper(), b"other")]),
    "a file in a file": archive(lambda members: [*members, (f"{members[0][0]}/x", b"other")]),
    "a bomb": hostile(
        *(Entry(name=f"/bomb{n}", local={"size": 0xFFFFFFF0}, central={"size": 0xFFFFFFF0}) for n in range(2))
    ),
}
"""What a gateway does instead of sending files; None: it does not listen."""


def patience(broken: str) -> float:
    """Seconds after which silence is given up: soon only where there is nothing else to come."""
    return 2 * SILENCE if "silent" in broken else PATIENCE


HARMLESS = {"the empty archive": {"component"}}
"""Verbs to which it is an answer like others."""
