"""The comparison with recorded replies finds each kind of difference, and takes placeholders as what they stand for."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from tests.local.recorded.matching import Names, compare, differences

FIRST, SECOND = "demo-abcdef-12345678", "demo-abcdef-87654321"


def fields(recorded: Any, replayed: Any) -> list[str]:
    """Return the fields in which two JSON values differ."""
    return [field for field, _, _ in compare(recorded, replayed, Names({}), "body")]


@pytest.mark.parametrize(
    ("recorded", "replayed", "differing"),
    [
        ({"a": 1}, {"a": 1}, []),
        ({"a": 1}, {"a": 2}, ["body.a"]),
        ({"a": 1}, {"a": 1.0}, ["body.a"]),
        ({"a": True}, {"a": 1}, ["body.a"]),
        ({"a": None}, {}, ["body.a"]),
        ({}, {"a": None}, ["body.a"]),
        ({"a": [1, {"b": "x"}]}, {"a": [1, {"b": "y"}]}, ["body.a[1].b"]),
        ([1, 2], [1], ["body length"]),
        ([1], [1, 2], ["body length"]),
        ({}, [], ["body"]),
        ([float("nan")], [float("nan")], []),
        ({"a": 1, "<<cut>>": None}, {"a": 1, "b": 2}, []),
        ({"a": 1, "<<cut>>": None}, {"b": 2, "a": 1}, ["body.b"]),
        ({"a": 1, "<<cut>>": "<<any order>>"}, {"b": 2, "a": 1}, []),
        ([1, "<<cut>>"], [1, 2], []),
        ([1, 2, "<<cut>>"], [1], ["body length"]),
        ("ab<<cut>>", "abc", []),
        ("ab<<cut>>", "xabc", ["body"]),
        (["<<any order>>", "a", "b"], ["b", "a"], []),
        (["<<any order>>", "a", "b"], ["b", "b"], ["body[0]"]),
        ("<<integer>>", 3, []),
        ("<<integer>>", "3", ["body"]),
        ("<<created>>", "2026-01-02T03:04:05.678901+0000", []),
        ("<<created>>", "2026-01-02 03:04:05.678901", ["body"]),
        (["<<run:a>>", "of <<run:a>>"], [FIRST, f"of {FIRST}"], []),
        (["<<run:a>>", "of <<run:a>>"], [FIRST, f"of {SECOND}"], ["body[1]"]),
        (["<<run:a>>", "<<run:b>>"], [FIRST, SECOND], []),
        (["<<run:a>>"], ["demo"], ["body[0]"]),
    ],
)
def test_json_values_are_compared(recorded: Any, replayed: Any, differing: list[str]) -> None:
    """Keys, items, types and values; numbers of other types differ."""
    assert fields(recorded, replayed) == differing


def response(status: int = 200, body: bytes = b"{}\n", **headers: str) -> httpx.Response:
    """Return a reply with these headers."""
    raw = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.Response(status, headers={"content-type": "application/json", **raw}, stream=httpx.ByteStream(body))


CALL = {
    "call": "01.1",
    "status": 200,
    "headers": {"content-type": "application/json", "content-length": "<<length>>", "allow": "GET, HEAD"},
    "json body": {},
}


def compared(reply: httpx.Response, call: dict[str, Any]) -> list[str]:
    """Return the fields in which a reply differs."""
    reply.read()
    return [difference.field for difference in differences(call, reply, Names({}))]


def test_status_and_headers_are_compared() -> None:
    """Methods may be in any order; a header too many differs too."""
    assert compared(response(content_length="3", allow="HEAD, GET"), CALL) == []
    assert compared(response(404), CALL) == ["status"]
    assert compared(response(allow="HEAD, GET", transfer_encoding="chunked"), CALL) == [
        "header content-length",
        "header transfer-encoding",
    ]
    assert compared(response(content_length="3", allow="GET"), CALL) == ["header allow"]
    assert compared(response(content_length="3", allow="GET, HEAD", content_type="text/html"), CALL) == [
        "header content-type"
    ]


@pytest.mark.parametrize(
    ("expected", "body", "differing"),
    [
        ({"text": "for <<run:a>>"}, f"for {FIRST}".encode(), []),
        ({"text": "for <<run:a>>"}, b"for nothing", ["body"]),
        ({"title": "Page"}, b"<html><title>Page</title></html>", []),
        ({"title": "Page"}, b"<html><title>Other</title></html>", ["body title"]),
        ({"bytes": 4, "starts": "504b0304"}, b"PK\3\4", []),
        ({"bytes": 5, "starts": "504b0304"}, b"PK\3\4", ["body"]),
        ({"bytes": "<<length>>", "starts": "504b0304"}, b"PK\5\6", ["body start"]),
    ],
)
def test_other_bodies_are_compared(expected: dict[str, Any], body: bytes, differing: list[str]) -> None:
    """Texts, the titles of pages, and the length and first bytes of files."""
    call = {"call": "01.2", "status": 200, "headers": {"content-type": "application/json"}, "body": expected}

    assert compared(response(body=body), call) == differing


def test_quoting_and_escaping_are_compared() -> None:
    """What stands between placeholders must be quoted in locations, and escaped in pages, as recorded."""
    call = {
        "call": "01.3",
        "status": 200,
        "headers": {"content-type": "text/html", "location": "http://<<host>>/a%2Fb?c=1&d=2"},
        "body": {"text": "<a href='http://<<host>>/a%2Fb?c=1&amp;d=2'>"},
    }
    location, page = "http://host:1/a%2Fb?c=1&d=2", "<a href='http://host:1/a%2Fb?c=1&amp;d=2'>"

    def fields_of(location: str, page: str) -> list[str]:
        return compared(response(body=page.encode(), content_type="text/html", location=location), call)

    assert fields_of(location, page) == []
    assert fields_of(location.replace("%2F", "/"), page) == ["header location"]
    assert fields_of(location, page.replace("&amp;", "&")) == ["body"]
    assert fields_of(location, page.replace("%2F", "/")) == ["body"]


def test_the_rest_of_a_body_that_was_cut_is_compared() -> None:
    """By its length."""
    call = {**CALL, "headers": {"content-type": "application/json"}, "json body": {"a": 1, "<<cut>>": None}}
    call["rest"] = {"after": '"a": ', "bytes": 10}

    assert compared(response(body=b'{"a": 1, "b": 2}'), call) == []
    assert compared(response(body=b'{"a": 1, "b": 23}'), call) == ["body rest"]
    assert compared(response(body=b'{"a":1,  "b": 2}'), call) == ["body rest"]


def test_a_body_that_is_not_json_differs() -> None:
    """Where JSON was recorded."""
    reply = response(body=b"<html>", content_length="6", allow="GET, HEAD")

    assert compared(reply, CALL) == ["body"]


def test_requests_name_what_was_learned() -> None:
    """Placeholders without a meaning stay, and what stands in a query is quoted."""
    names = Names({"<<workdir>>": "/tmp/x"})
    names.match("<<run:a>>", FIRST)

    filled = names.fill({"<<run:a>>": ["<<run:b>>", 1]})

    assert filled == {FIRST: ["<<run:b>>", 1]}
    assert json.dumps(names.fill("p=<<workdir>>", quoted=True)) == '"p=%2Ftmp%2Fx"'
