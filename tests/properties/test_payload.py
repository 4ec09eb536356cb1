"""What holds for every payload."""

from __future__ import annotations

import json
from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from st4sd_async._payload.prepare import prepare
from tests.tries import tries

pytestmark = pytest.mark.slow

texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
plain = texts.filter(lambda text: ":" not in text)
scalars = st.one_of(
    st.booleans(), st.integers(-(2**53), 2**53), st.floats(allow_nan=False, allow_infinity=False), texts
)

payloads = st.fixed_dictionaries(
    {},
    optional={
        "inputs": st.lists(st.fixed_dictionaries({"filename": texts, "content": texts}), max_size=3),
        "variables": st.dictionaries(texts, scalars, max_size=4),
        "metadata": st.dictionaries(plain, plain, max_size=4),
        "platform": st.one_of(st.none(), texts),
        "additionalOptions": st.lists(texts, max_size=3),
        "environmentVariables": st.dictionaries(texts, texts, max_size=3),
    },
)


@settings(max_examples=tries(100, 12))
@given(payloads)
def test_what_is_given_is_what_is_sent(payload: dict[str, Any]) -> None:
    """No value is added, dropped or changed on its way into the request."""
    prepared = anyio.run(prepare, payload)

    assert json.loads(prepared.content) == payload
