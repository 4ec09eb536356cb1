"""Responses that quote what a client sent, in every way that a service might."""

from __future__ import annotations

import html
import json
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from .marks import leaks
from .raw import Answer, Exchange, reply

Quoting = Callable[[Exchange], Any]


def echo(status: int, quoting: Quoting, media: str = "application/json", **headers: str) -> Answer:
    """Answer with what a service might make of the request that it refuses."""

    async def answer(exchange: Exchange) -> None:
        await reply(status, quoting(exchange), media=media, **headers)(exchange)

    return answer


def sent(exchange: Exchange) -> dict[str, Any]:
    """The payload, or what a request without one has to echo."""
    body = json.loads(exchange.seen.body) if exchange.seen.body else {}
    return {**body, "headers": exchange.seen.headers}


def _values(value: Any) -> list[str]:
    """All texts in a JSON value."""
    if isinstance(value, dict):
        return [text for item in value.values() for text in _values(item)]
    if isinstance(value, list):
        return [text for item in value for text in _values(item)]
    return [value] if isinstance(value, str) else []


def _cut_repr(text: str) -> str:
    """A value as pydantic quotes it: its beginning and its end."""
    shown = repr(text)
    return shown if len(shown) <= 50 else f"{shown[:25]}...{shown[-24:]}"


QUOTINGS: dict[str, Quoting] = {
    "as it is": sent,
    "deep inside": lambda exchange: {"message": "no", "errors": [{"loc": ["inputs", 0], "value": sent(exchange)}]},
    "as keys": lambda exchange: {**dict.fromkeys(filter(leaks, _values(sent(exchange))), 1), "message": "no"},
    "json in a text": lambda exchange: {"message": f"cannot read {json.dumps(sent(exchange))}"},
    "json in utf-8": lambda exchange: {"message": json.dumps(sent(exchange), ensure_ascii=False)},
    "json with slashes quoted": lambda exchange: {"message": json.dumps(sent(exchange)).replace("/", "\\/")},
    "json in json in a text": lambda exchange: {"message": json.dumps(json.dumps(sent(exchange)))},
    "repr": lambda exchange: {"message": f"got {sent(exchange)!r}"},
    "repr of bytes": lambda exchange: {"message": f"{exchange.seen.body!r} {exchange.seen.headers}"},
    "repr of json": lambda exchange: {"message": repr(json.dumps(sent(exchange)))},
    "repr of repr": lambda exchange: {"message": repr(repr(sent(exchange)))},
    "html in a text": lambda exchange: {"message": html.escape(json.dumps(sent(exchange)))},
    "quoted for a url": lambda exchange: {"message": quote(" ".join(_values(sent(exchange))), safe="")},
    "input_value": lambda exchange: {
        "message": "\n".join(
            f"a\n  Input should be a number [type=float_parsing, input_value={_cut_repr(text)}, input_type=str]"
            for text in _values(sent(exchange))
        )
    },
    "input_value of all": lambda exchange: {
        "message": f"1 error [type=dict_type, input_value={_cut_repr(repr(sent(exchange)))}, input_type=str]"
    },
    "input_value at the end": lambda exchange: {
        "message": "; ".join(f"bad input_value={_cut_repr(text)}" for text in _values(sent(exchange)))
    },
    "the beginning": lambda exchange: {"message": " ".join(f"{text[:80]}..." for text in _values(sent(exchange)))},
    "the end": lambda exchange: {"message": " ".join(f"...{text[-80:]}" for text in _values(sent(exchange)))},
    "raw": lambda exchange: f"{exchange.seen.headers}".encode() + exchange.seen.body,
    "raw, body first": lambda exchange: exchange.seen.body + f"{exchange.seen.headers}".encode(),
    "a list": lambda exchange: [sent(exchange), exchange.seen.headers],
    "a text": lambda exchange: json.dumps(sent(exchange)),
    "a number of words": lambda exchange: "\n".join(_values(sent(exchange))).encode(),
    "a page": lambda exchange: b"<html>" + html.escape("\n".join(_values(sent(exchange)))).encode(),
    "straddling a cut": lambda exchange: (
        b"x" * 990 + f"{exchange.seen.headers}".encode() + b"x" * 400 + exchange.seen.body
    ),
    "straddling another cut": lambda exchange: b"x" * 1980 + "".join(_values(sent(exchange))).encode(),
}
