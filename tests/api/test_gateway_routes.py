"""Locations of runs, and the requests to registries and gateways as data."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from st4sd_async._api.gateways import (
    Location,
    component_call,
    exists_call,
    files_call,
    location,
    registry_url,
    resolve_call,
)
from st4sd_async._errors import DecodeError, NotFound
from st4sd_async._http.call import Call, Response, parse_response

DEMO = Location("cluster", "/workdir/demo.instance")
BASE = "https://st4sd.example/ds-gateway/"
JSON = {"content-type": "application/json"}


def understood(call: Call[Any], body: bytes, status: int = 200) -> Any:
    """What a reply to a call means."""
    return parse_response(call, BASE, Response(status, JSON, body))


@pytest.mark.parametrize(
    ("uri", "gateway", "path"),
    [
        ("file://cluster/workdir/demo.instance", "cluster", "/workdir/demo.instance"),
        ("file://cluster/workdir/demo.instance/", "cluster", "/workdir/demo.instance"),
        ("file://a.b-c_d:8/x", "a.b-c_d:8", "/x"),
        ("file://cluster/with space/ü%20", "cluster", "/with space/ü%20"),
    ],
)
def test_a_uri_names_a_gateway_and_a_path(uri: str, gateway: str, path: str) -> None:
    """Nothing in it is quoted, as in documents; a slash at the end means nothing."""
    assert location(uri) == Location(gateway, path)
    assert str(location(uri)) == uri.rstrip("/")


@pytest.mark.parametrize(
    "uri", ["", "demo-ab12cd", "/workdir/x", "file:///workdir/x", "file://a", "file://a/", "http://a/x"]
)
def test_what_names_no_location_is_refused(uri: str) -> None:
    """The message shows it, and the expected form."""
    with pytest.raises(ValueError, match=re.escape(f"file://<id of a gateway>/<path>, not {uri!r}")):
        location(uri)


@pytest.mark.parametrize(
    "path", ["output/experiment.log", "/workdir/demo.instance/output/experiment.log"], ids=["relative", "absolute"]
)
def test_a_path_is_relative_or_absolute(path: str) -> None:
    """Both mean the same file."""
    assert DEMO.absolute(path) == "/workdir/demo.instance/output/experiment.log"


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        ".",
        "..",
        "../x",
        "a/../../x",
        "a/./b",
        "a//b",
        "a/",
        "/etc/passwd",
        "/workdir/demo.instance",
        "/workdir/demo.instance/",
        "/workdir/demo.instance/../x",
        "/workdir/demo.instance-2/x",
        "/work",
    ],
)
def test_a_path_that_leads_elsewhere_is_refused(path: str) -> None:
    """Also one that would come back."""
    with pytest.raises(ValueError, match=re.escape(f"not {path!r}")):
        DEMO.absolute(path)


@given(st.lists(st.text(min_size=1).filter(lambda part: "/" not in part and part not in (".", "..")), min_size=1))
def test_every_other_path_is_inside(parts: list[str]) -> None:
    """Whatever signs it has; made absolute it stays the same."""
    path = DEMO.absolute("/".join(parts))

    assert path == "/".join([DEMO.path, *parts])
    assert DEMO.absolute(path) == path


def test_a_deployment_may_have_no_registry() -> None:
    """The error names the services that exist."""
    assert registry_url({"cdb-gateway-registry": "https://a/ds-registry/", "cdb-rest": "x"}) == "https://a/ds-registry/"
    with pytest.raises(NotFound, match=r"no gateways.*\['cdb-rest'\], but not 'cdb-gateway-registry'"):
        registry_url({"cdb-rest": "x"})


def test_the_registry_is_asked_for_all_ids_at_once() -> None:
    """Those that it does not know are missing in its answer; other things about them are left out."""
    call = resolve_call(BASE, {"a": None, "b": None})

    assert (call.method, call.path, call.base_url) == ("POST", "gateways/api/v1.0/unique_ids", BASE)
    assert json.loads(call.content or b"") == ["a", "b"]
    assert understood(call, b'{"b": {"unique_id": "b", "host": "https://b/gw", "label": "B"}}') == {"b": "https://b/gw"}
    assert understood(call, b"{}") == {}


@pytest.mark.parametrize("body", [b"[]", b"7", b"null", b'{"a": {}}', b'{"a": "https://a"}', b"", b"<html>"])
def test_a_reply_that_is_not_of_a_registry_is_an_error(body: bytes) -> None:
    """It is our error, not one of Python's."""
    with pytest.raises(DecodeError):
        understood(resolve_call(BASE, ["a"]), body)


@pytest.mark.parametrize("host", ["null", '""', "7", '"/ds-gateway"', '"ftp://a"'])
def test_an_invalid_address_is_an_error(host: str) -> None:
    """A gateway has an http address."""
    with pytest.raises(DecodeError):
        understood(resolve_call(BASE, ["a"]), b'{"a": {"host": %s}}' % host.encode())


@pytest.mark.parametrize(
    ("body", "found"), [(b'"True"\n', True), (b'"False"\n', False), (b"false\n", False), (b"true", True)]
)
def test_flags_are_texts_mostly(body: bytes, found: bool) -> None:
    """FACTS [33]: ``"True"``, ``"False"`` or a bare false."""
    assert understood(exists_call(BASE, DEMO, 0, "A"), body) is found


@pytest.mark.parametrize("body", [b'"Maybe"', b"null", b"{}", b'""'])
def test_other_words_are_no_flags(body: bytes) -> None:
    """They are not taken for either."""
    with pytest.raises(DecodeError):
        understood(exists_call(BASE, DEMO, 0, "A"), body)


def test_a_component_is_named_in_the_query() -> None:
    """With and without its archive, whose transfer may take long."""
    exists, archive = exists_call(BASE, DEMO, 1, "A"), component_call(BASE, DEMO, 1, "A")

    assert exists.params == archive.params == {"experiment": DEMO.path, "stage": "1", "component": "A"}
    assert (exists.method, exists.path) == ("GET", "experiment/")  # [24]: with a slash
    assert (archive.method, archive.path, archive.is_slow) == ("GET", "experiment/download", True)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"false\n", "the gateway 'cluster' does not know the instance file://cluster/workdir/demo.instance"),
        (b'""\n', "there is no directory of component stage1.A of file://cluster/workdir/demo.instance"),
    ],
)
def test_words_in_place_of_an_archive_say_why(body: bytes, words: str) -> None:
    """FACTS [33]: both are 200."""
    with pytest.raises(NotFound, match=words):
        understood(component_call(BASE, DEMO, 1, "A"), body)


@pytest.mark.parametrize("body", [b"true", b"{}", b"null", b"0", b"PK"])
def test_no_other_words_are_understood(body: bytes) -> None:
    """They are not an archive."""
    with pytest.raises(DecodeError):
        understood(component_call(BASE, DEMO, 1, "A"), body)
    with pytest.raises(DecodeError):
        understood(files_call(BASE, DEMO, ["/workdir/demo.instance/a"]), body)


def test_files_are_asked_for_by_absolute_paths() -> None:
    """Of one instance, in their order."""
    call = files_call(BASE, DEMO, (f"{DEMO.path}/{name}" for name in "ba"))

    assert (call.method, call.path, call.is_slow) == ("POST", "files/api/v1.1", True)
    assert json.loads(call.content or b"") == {
        "file://cluster/workdir/demo.instance": ["/workdir/demo.instance/b", "/workdir/demo.instance/a"]
    }
