"""The time to process a server's text is linear in its length, whatever it contains."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from st4sd_async._errors import parse_problems, parse_refused_entries
from st4sd_async._http.call import payload_problems
from st4sd_async._util.redact import redact
from st4sd_async.models.hints import explain
from tests.tries import combinations, tries

REDACTED, WITHHELD = "[secret]", "[withheld, because it quotes secrets]"
SECRETS = [
    "S3-secret/abczz1234567Xy",
    "abcdefgh",
    "\n".join(f"row {number} of a private file" for number in range(500)),
]

HOSTILE = {
    "backslashes": "\\",
    "percent signs": "%",
    "escaped percent signs": "%25",
    "ampersands": "&",
    "nested entities": "&amp;",
    "a number without end": "1",
    "references": "&#65;",
    "quoted values": "input_value=",
    "quotes": "\"'",
    "half of a secret": "S3-secret/abczz",
    "a secret": "S3-secret/abczz1234567Xy ",
    "letters": "a",
    "escapes": "\\u0041",
}
STARTS = {"alone": "", "reference": "&#", "hexadecimal": "&#x", "percent": "%"}


def seconds(function: Callable[[str], object], text: str) -> float:
    """Return the shorter of two times, since a busy machine may delay one."""
    times = []
    for _ in range(2):
        began = time.process_time()
        function(text)
        times.append(time.process_time() - began)
    return min(times)


def assert_linear(function: Callable[[str], object], make: Callable[[int], str], size: int) -> None:
    """Check that ten times the length takes about ten times as long, not a hundred times."""
    small = max(seconds(function, make(size // 10)), 0.002)
    assert seconds(function, make(size)) / small < 35


@pytest.mark.parametrize(("start", "hostile"), combinations(STARTS, HOSTILE))
def test_redaction_is_linear(start: str, hostile: str) -> None:
    """Even if each character could begin a quotation."""
    piece = HOSTILE[hostile]

    def make(size: int) -> str:
        return STARTS[start] + piece * (size // len(piece))

    assert_linear(lambda text: redact(text, SECRETS), make, tries(300_000, 60_000))


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("piece", ["\\", "%", "&amp;", "input_value=", "\"'"])
def test_redaction_handles_megabytes(piece: str) -> None:
    """
    The secret at the end is found.

    Ten megabytes take 6 s. If the time grew with the square of the length, they would take days, and half a megabyte
    minutes.
    """
    text = piece * (tries(10_000_000, 500_000) // len(piece)) + SECRETS[0]

    result = redact(text, SECRETS)

    assert REDACTED in result or result == WITHHELD
    assert "1234567Xy" not in result


@pytest.mark.parametrize("quoted", ["&#{};", "&#0000000{};", "&#{}"])
def test_numeric_character_references_are_decoded(quoted: str) -> None:
    """Numbers that are too long for Python do not make it fail."""
    text = "&#" + "9" * 5000 + "; " + "".join(quoted.format(ord(char)) for char in SECRETS[0])

    assert redact(text, SECRETS) == WITHHELD


WORDS = {
    "a variable": ("Payload sets variable ", "x = "),
    "variables": ("", "Payload sets variable x = "),
    "a value": ("Payload variable ", "x = "),
    "a workflow": ("", "Payload overrides workflow variables of x: "),
    "files": ("", "Payload overrides data files x. Filenames are ["),
    "a platform": ("", "Payload overrides parameterisation.a"),
    "line ends": ("", "Payload overrides workflow variables of x: \n"),
    "problems": ("1 validation error for x\n", "  a [type="),
    "lines": ("", "\n  "),
    "digits": ("", "1"),
}


@pytest.mark.parametrize(("start", "piece"), WORDS.values(), ids=WORDS.keys())
def test_an_error_message_is_parsed_in_linear_time(start: str, piece: str) -> None:
    """Each pattern examines each character a bounded number of times."""

    def read(text: str) -> None:
        parse_refused_entries(text)
        parse_problems(text)
        payload_problems({"message": text, "reason": f"Input and Data files with conflicting names: {text}"})

    assert_linear(read, lambda size: f"{start}{piece * (size // len(piece))}\n.", tries(200_000, 100_000))


@pytest.mark.parametrize("piece", ["git-sync", "s3-package-", "nodes are available: ", "Job: ", " preemption:"])
def test_a_reason_is_found_in_linear_time(piece: str) -> None:
    """Of a run that failed, and of one that waits."""

    def read(text: str) -> None:
        for state in ("failed", "unscheduled"):
            hint = explain(state, "", "", text)
            assert hint is not None
            str(hint)

    assert_linear(read, lambda size: piece * (size // len(piece)), tries(200_000, 100_000))
