"""Secrets are redacted before a text is cut, so that no half of one remains."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from st4sd_async._http.call import Call, Response, error_from_response, nothing
from tests.tries import sample, tries

MAX_REDACTED_BYTES = 1 << 18
"""How much of a body is searched for secrets."""
SECRET = "Zq7XKpW41vTn02bHsd9R"
"""A key; five letters of it are more than chance."""


def refused(body: bytes, *secrets: str) -> str:
    """Return all texts of the error for a response."""
    error = error_from_response(
        Call("POST", "x", nothing), "http://x", Response(400, {"content-type": "application/json"}, body), secrets
    )
    return f"{error}{error.message}{error.detail}"


def leaks(text: str) -> bool:
    return any(SECRET[at : at + 5] in text for at in range(len(SECRET) - 4))


@pytest.mark.parametrize("at", range(500 - len(SECRET), 500))
@pytest.mark.parametrize("filler", [10, 1 << 16])
def test_a_long_text_is_cut_after_redaction(at: int, filler: int) -> None:
    """Wherever the secret is relative to the cut, and however long the rest is."""
    body: dict[str, Any] = {"message": f"{'-' * at}{SECRET}{'-' * 600}", "other": "." * filler}

    assert not leaks(refused(json.dumps(body).encode(), SECRET))


@pytest.mark.parametrize("shown", sample(range(1, len(SECRET)), 5))
@pytest.mark.parametrize("is_json", [True, False])
def test_the_limit_of_the_search_leaves_no_half(shown: int, is_json: bool) -> None:
    """Only the beginning of a long body is searched, even if it ends inside a secret."""
    # A file ten times and some dashes are searched. What is left of it is so short that a message shows all of it.
    prefix = '{"message": "' if is_json else ""
    room = (MAX_REDACTED_BYTES - len(prefix) - shown) // 10 - 5
    content = "\n".join(f"row {number} of a private file" for number in range(972))
    content += " " * (room - len(json.dumps(content)[1:-1]))
    begun = (prefix + json.dumps(content)[1:-1] * 10).encode()
    dashes = MAX_REDACTED_BYTES - len(begun) - shown
    assert 50 <= dashes < 60
    body = begun + b"-" * dashes + SECRET.encode() + b"." * 100
    body += b'"}' if is_json else b""

    text = refused(body, SECRET, content)

    assert not leaks(text)
    assert "private file" not in text


def test_a_text_that_is_too_long_to_be_searched_is_left_out() -> None:
    """Its length is shown, and the other texts are kept."""
    text = refused(json.dumps({"problem": "x" * (MAX_REDACTED_BYTES + 1), "message": f"no {SECRET}"}).encode(), SECRET)

    assert "no [secret]" in text
    assert f"[{MAX_REDACTED_BYTES + 1} characters, too many to be shown]" in text


SIZE = tries(10_000_000, 1_000_000)
HUGE: dict[str, Any] = {
    "words": ["ab" * 25] * 200_000,
    "letters": {"message": "ab" * 5_000_000},
    "backslashes": [["\\" * 50] * (SIZE // 50)],
    "backslashes in a text": {"message": "\\" * SIZE},
    "a key": {"a" * 1_000_000: "%" * 9},
}


@pytest.mark.parametrize("body", HUGE.values(), ids=HUGE)
def test_a_huge_error_response_does_not_block_the_event_loop(body: Any) -> None:
    """Most of 10 MB is never searched for secrets, which would take at least 3 s."""
    data = json.dumps({"message": "no", "more": body}).encode()
    began = time.process_time()

    text = refused(data, SECRET, "abcdefgh")

    assert time.process_time() - began < 2
    assert "[withheld, because it quotes secrets]" not in text
    assert "no" in text
