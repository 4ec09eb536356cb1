"""The form of a rest-uid."""

from __future__ import annotations

import pytest

from st4sd_async.models.runs import check_rest_uid, is_of_package, is_rest_uid, version_of


@pytest.mark.parametrize("good", ["demo-abcdef-01234567", "a", "A.b_c-1", "x" * 253, "toxicity.v2-0a1b2c-zzzzzzzz"])
def test_ids_of_the_service_are_valid(good: str) -> None:
    """All observed forms are accepted."""
    assert is_rest_uid(good)
    assert check_rest_uid(good) == good


BAD = ["", ".", "..", "../../.ssh", "a/b", "a\\b", "-rf", ".ssh", "_a", "a b", "a\n", "a\0", "é", "a%2fb", "x" * 254]


@pytest.mark.parametrize("bad", [*BAD, None, 7, b"a", ["a"]], ids=ascii)
def test_values_unsafe_in_paths_and_commands_are_invalid(bad: object) -> None:
    """The error shows them escaped."""
    assert not is_rest_uid(bad)
    with pytest.raises(ValueError, match="not a rest-uid") as caught:
        check_rest_uid(bad)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("rest_uid", "package", "expected"),
    [
        ("demo-abcdef-01234567", "demo", True),
        ("my-own-demo-abcdef-01234567", "my_own demo", True),
        ("demo-abcdef-0123456", "demo", False),
        ("demo-abcdef-01234567", "demo-abcdef", False),
        ("demo2-abcdef-01234567", "demo", False),
        ("demo-two-abcdef-01234567", "demo", False),
        ("demo-abcdef-0123456Z", "demo", False),
    ],
)
def test_an_id_contains_the_name_of_its_package(rest_uid: str, package: str, expected: bool) -> None:
    """Name, six characters of the digest, eight random ones."""
    assert is_of_package(rest_uid, package) is expected


@pytest.mark.parametrize(
    ("rest_uid", "expected"),
    [
        ("demo-abcdef-01234567", "abcdef"),
        ("my-demo-012345-abcdefgh-abcdef-01234567", "abcdef"),
        ("demo-1", None),
        ("demo-abcdef-01234567\n", None),
    ],
)
def test_an_id_contains_the_version_of_its_package(rest_uid: str, expected: str | None) -> None:
    """The first six characters of the digest; None for an id of another form."""
    assert version_of(rest_uid) == expected
