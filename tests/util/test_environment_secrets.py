"""Secrets in texts of runs, which may quote the environment of a component."""

from __future__ import annotations

import json
from hashlib import sha256

import pytest

from st4sd_async import Status
from st4sd_async._util import redact
from st4sd_async._util.redact import SecretIndex, keep_secrets, mask_environment

# Source: the orchestrator of st4sd-runtime-core, if an executable cannot be found.
DUMP = (
    "ComponentExecutableCannotBeFoundError Check executable found an issue with executable pythonxyz, component: "
    "stage0.Measure, environment id mine, $PATH=/usr/bin:/bin\nUnderlying error:\n(<class 'ValueError'>) Unable to "
    "find location of executable pythonxyz using command environment {}"
)


@pytest.fixture(autouse=True)
def nothing_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """No secret of another test is known."""
    monkeypatch.setattr(redact, "_kept", SecretIndex())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DB_PASSWORD", "correct-horse"),
        ("password", 'it\'s "both" \\ quotes'),
        ("GITHUB_TOKEN", "ghp_1"),
        ("AWS_SECRET_ACCESS_KEY", "a b,c}d"),
        ("accessKeyID", "x" * 300),
        ("KEY", "abc"),
        ("MY_CREDENTIALS", "line\nline"),
        ("apiKey", 12345),
    ],
)
@pytest.mark.parametrize(
    "quoted", [str, lambda text: repr([text]), lambda text: repr([text, "'"])], ids=["", "in a list", "escaped"]
)
def test_values_with_the_name_of_a_secret_are_masked(name: str, value: object, quoted: object) -> None:
    """The rest stays readable."""
    environment = {"FLOW_RUN_ID": "63156ca0", name: value, "PATH": "/usr/bin:/bin"}
    text = DUMP.format(quoted(environment))  # type: ignore[operator]

    masked = mask_environment(text)

    assert str(value)[:4] not in masked.replace("component", "")
    assert "[secret]" in masked
    assert "63156ca0" in masked
    assert masked.endswith(text[text.index("PATH', ") if "PATH', " in text else text.rindex("/usr/bin") :])
    assert masked.startswith(DUMP.partition("{")[0])


@pytest.mark.parametrize(
    "text",
    ["", "no such option: --key", "Job: stage0.Boom. Returncode 3. Reason KnownIssue", "{'key': 'a', 'keyboard': 'b'}"],
)
def test_other_texts_are_unchanged(text: str) -> None:
    """Words are not secrets because they begin as a name does."""
    assert mask_environment(text) == text


def test_assignments_are_masked() -> None:
    """As printed by ``env``."""
    assert mask_environment("HOME=/root\nAPI_TOKEN=abc\nA=1") == "HOME=/root\nAPI_TOKEN=[secret]\nA=1"


def test_secrets_of_payloads_are_masked_whatever_their_names() -> None:
    """A line that shows a piece of one is withheld, the others are not."""
    keep_secrets(["abc-def-123-456-789"])

    masked = mask_environment("LICENCE: abc-def-123-456-789\nabcdef123456, in short\nBoom")

    assert masked.splitlines() == ["LICENCE: [secret]", "[withheld, because it quotes secrets]", "Boom"]


@pytest.mark.parametrize("secret", ["abcd", "s3cr", "größe", "correct-horse-battery", "ab\\cd", 'a"b\nc', "\ud800abc"])
def test_all_secrets_of_a_process_are_remembered(secret: str) -> None:
    """However many others came later: a batch may give each launch its own."""
    keep_secrets([secret, *(f"{number:x}-other" for number in range(1500))])

    for quoted in (secret, repr(secret)[1:-1], json.dumps(secret)[1:-1]):
        assert quoted not in mask_environment(f"Boom\nwith {quoted}, and without")


def test_only_secrets_that_may_be_shown_are_searched_for() -> None:
    """So a status costs the same whatever the number of secrets."""
    secrets = [sha256(bytes(divmod(number, 256))).hexdigest() for number in range(500)]
    index = SecretIndex()
    for secret in secrets:
        index.add(secret)

    assert index.maybe_shown("Job: stage0.Boom. Returncode 3. Reason KnownIssue") == set()
    assert index.maybe_shown(f"Boom with {secrets[7]} and {secrets[499][20:32]}") == {secrets[7], secrets[499]}


@pytest.mark.parametrize(
    "text", ["\\" * 50_000, "'" + "a" * 50_000, "'tokens': '" * 5_000, "TOKEN" * 10_000, "'key': \\'" * 5000]
)
def test_masking_of_odd_texts_ends(text: str) -> None:
    """It takes linear time; a text of this length would otherwise take minutes."""
    assert mask_environment(text)


def test_a_status_never_has_the_secrets() -> None:
    """Neither its fields, nor its raw JSON, nor its texts."""
    words = {"experiment-state": "failed", "exit-status": "Failed"}

    status = Status.model_validate({**words, "error-description": DUMP.format({"DB_PASSWORD": "correct-horse"})})

    shown = [str(status), repr(status), str(status.raw), str(status.error_description), status.model_dump_json()]
    assert not any("correct-horse" in text for text in shown)
    assert "pythonxyz" in str(status.error_description)


@pytest.mark.parametrize(("length", "piece"), [(8, 8), (12, 12), (13, 12), (40, 12), (200, 12), (201, 24), (300, 24)])
def test_each_piece_of_a_kept_secret_is_withheld(length: int, piece: int) -> None:
    """A line is withheld wherever in the secret its piece begins."""
    secret = "".join(sha256(bytes([number])).hexdigest() for number in range(5))[:length]
    keep_secrets([secret, *(f"other-{number}-secret" for number in range(20))])

    for start in range(length - piece + 1):
        shown = secret[start : start + piece]
        quoted = f"{shown[:3]}-{shown[3:]}"
        assert quoted not in mask_environment(f"Boom\nwith {quoted} in it"), start
