"""Parsing of successful responses, quoting of paths, and ``Retry-After``."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import httpx
import pytest

from st4sd_async import (
    BadRequest,
    DecodeError,
    Status,
)
from st4sd_async._api import experiments, instances
from st4sd_async._http.call import Response, parse_response, parse_retry_after, segment, subpath

from .made_responses import URL, reply


@pytest.mark.parametrize("body", [b"", b"{", b"null", b"[]", b'{"experiment-state": 5}', b'"text"'])
def test_unexpected_content_is_a_decode_error(body: bytes) -> None:
    """It is not chained to an error of the JSON or model library."""
    with pytest.raises(DecodeError) as caught:
        parse_response(instances.status_call("a-1"), URL, reply(200, body))

    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    assert len(str(caught.value)) < 600


def test_html_instead_of_json_suggests_checking_the_url() -> None:
    """A wrong URL is the most likely mistake."""
    with pytest.raises(DecodeError, match="is this the url of an ST4SD deployment"):
        parse_response(instances.status_call("a-1"), URL, reply(200, b"<html>Swagger</html>", html=True))


def test_a_decode_error_names_the_field() -> None:
    """By the path of the first invalid field."""
    with pytest.raises(DecodeError) as caught:
        parse_response(instances.status_call("a-1"), URL, reply(200, {"experiment-state": 5}))

    assert caught.value.path == "experiment-state"


def test_a_missing_status_is_a_pending_status() -> None:
    """The service responds 400 for a run that has just begun."""
    body = {"message": "Workflow instance a-1 does not have a status yet"}

    status = parse_response(instances.status_call("a-1"), URL, reply(400, body))

    assert isinstance(status, Status)
    assert status.is_pending
    assert status.raw == body


def test_another_400_for_a_status_is_an_error() -> None:
    """Only one message means pending."""
    with pytest.raises(BadRequest):
        parse_response(instances.status_call("a-1"), URL, reply(400, {"message": "something else"}))


def test_properties_keep_nan() -> None:
    """The service writes the bare word NaN, which is not JSON."""
    columns = parse_response(instances.properties_call("a-1"), URL, reply(200, b'{"energy": [-4.5, NaN]}'))

    assert columns["energy"][0] == -4.5
    assert columns["energy"][1] != columns["energy"][1]


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ('attachment; filename="energies.csv"', "energies.csv"),
        ('attachment; filename="café "x".txt"', 'café "x".txt'),
        ("attachment", "Energies"),
        ("", "Energies"),
    ],
)
def test_the_unescaped_name_of_an_output_is_parsed(header: str, name: str) -> None:
    """The service escapes neither quotes nor UTF-8."""
    headers = [(b"content-type", b"application/octet-stream"), (b"content-disposition", header.encode())]
    response = Response(200, httpx.Headers(headers), b"x")

    assert parse_response(instances.output_call("a-1", "Energies", None), URL, response).filename == name


def test_one_unreadable_experiment_does_not_hide_the_others() -> None:
    """The registry returns invalid entries as they are."""
    good = {"metadata": {"package": {"name": "demo"}, "registry": {}}}
    body = {"entries": [good, {"metadata": "broken"}], "problems": [{"identifier": "x"}]}

    found = parse_response(experiments.list_call(), URL, reply(200, body))

    assert [one.name for one in found] == ["demo"]
    assert found.problems[0] == {"identifier": "x"}
    assert found.problems[1]["entry"] == {"metadata": "broken"}
    assert found.raw == body


@pytest.mark.parametrize("body", [5, "", None, {"id": "x"}])
def test_a_start_without_a_rest_uid_is_undecodable(body: Any) -> None:
    """A rest-uid is a text."""
    with pytest.raises(DecodeError):
        parse_response(experiments.start_call("demo", b"{}", ()), URL, reply(200, body))


@pytest.mark.parametrize("text", ["", " ", ".", "..", "a/b", None, 5])
def test_an_unsafe_path_segment_is_refused(text: Any) -> None:
    """An empty id would turn a delete of one instance into a request to all."""
    with pytest.raises(ValueError, match="a rest-uid must be"):
        segment(text, "a rest-uid")


@pytest.mark.parametrize("text", ["", "/etc", "a//b", "../a", "a/./b", "a/"])
def test_an_unsafe_subpath_is_refused(text: str) -> None:
    """A file inside a folder key-output is named by a relative path."""
    with pytest.raises(ValueError, match="the path must be relative"):
        subpath(text)


def test_paths_are_quoted() -> None:
    """Identifiers keep their punctuation, everything else is escaped."""
    assert experiments.identifier_path("demo:latest") == "experiments/demo:latest"
    assert experiments.identifier_path("demo@sha256xab") == "experiments/demo@sha256xab"
    assert segment("a b?c#d", "x") == "a%20b%3Fc%23d"
    assert subpath("sub/b c.bin") == "sub/b%20c.bin"


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("", None),
        ("3", 3.0),
        ("0.5", 0.5),
        ("-1", 0.0),
        ("soon", None),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
        ("Fri, 31 Dec 1999 23:59:59 +99999999999999999999", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(value: str | None, seconds: float | None) -> None:
    """Both forms of the header are parsed, invalid values are ignored."""
    assert parse_retry_after(value) == seconds


def test_retry_after_as_a_date_counts_from_now() -> None:
    """Return the seconds until a date in the future."""
    asked = parse_retry_after(format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True))

    assert asked is not None
    assert 55 < asked <= 60
