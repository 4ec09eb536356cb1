"""Secrets are redacted however they are quoted."""

from __future__ import annotations

import html
import json
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from st4sd_async._util.redact import Redactor, redact

REDACTED, WITHHELD = "[secret]", "[withheld, because it quotes secrets]"
SECRET = 'S3-sécret/"ab=c\nzz1234567Xy'

QUOTINGS = {
    "plain": SECRET,
    "python": repr(SECRET),
    "json": json.dumps(SECRET),
    "utf-8 json": json.dumps(SECRET, ensure_ascii=False),
    "json in json": json.dumps(json.dumps(SECRET)),
    "bytes": repr(json.dumps(SECRET).encode()),
    "html": html.escape(SECRET),
    "address": quote(SECRET, safe=""),
    "pydantic": f"input_value={SECRET[:12]!r}...{SECRET[-10:]!r}, input_type=str",
    "pydantic, cut": f"input_value={SECRET[:20]!r}",
    "beginning": SECRET[:18],
    "end": SECRET[-16:],
}


@pytest.mark.parametrize("quoting", QUOTINGS.values(), ids=QUOTINGS.keys())
def test_a_secret_is_redacted_however_it_is_quoted(quoting: str) -> None:
    """No usable piece of it remains."""
    result = redact(f"the server said {quoting} to that", [SECRET])

    assert REDACTED in result or result == WITHHELD
    assert not any(SECRET[start : start + 12] in result for start in range(len(SECRET) - 12))


def test_texts_without_a_secret_are_unchanged() -> None:
    """Redaction does not make messages unreadable."""
    text = "Payload sets variable nope = 1 for which there is no rule: input_value=1, input_type=int"

    assert redact(text, []) == text
    assert (
        redact("Missing inputs: ['molecules.csv']", ["smiles\nCO\nCCO\n", "abc"]) == "Missing inputs: ['molecules.csv']"
    )


def test_a_file_is_found_by_long_pieces_only() -> None:
    """A message may contain words of a file, but not whole lines."""
    content = "\n".join(f"molecules.csv row {number} of a long private file" for number in range(200))

    assert redact("Missing inputs: ['molecules.csv']", [content]) == "Missing inputs: ['molecules.csv']"
    assert redact(f"you sent {content[:300]}", [content]) == WITHHELD


def test_nested_json_values_are_redacted() -> None:
    """Including keys and lists; other values are kept."""
    value = {"message": "key abcd1234", "abcd1234": ["abcd1234", {"n": 1}], "ok": None}

    assert Redactor(json.dumps(value), ["abcd1234"]).redact_json(value) == {
        "message": f"key {REDACTED}",
        REDACTED: [REDACTED, {"n": 1}],
        "ok": None,
    }


@pytest.mark.slow
@given(secret=st.text(min_size=16, max_size=60), before=st.text(max_size=20), after=st.text(max_size=20))
def test_no_secret_comes_back_in_json(secret: str, before: str, after: str) -> None:
    """Whatever characters it has, a quotation of it in JSON never shows it."""
    for echo in (before + secret + after, json.dumps({"a": before + secret + after})):
        assert secret not in redact(echo, [secret])
