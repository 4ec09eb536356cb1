"""A payload full of secrets that can be told in any text, and where to look for them."""

from __future__ import annotations

import json
import logging
import pickle
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from .tools import reachable

# Each secret is made of its mark, which is all letters, and of what quoting changes. A message that
# holds a mark, whole or the first five letters of it, has quoted the secret.
MARKS = ("QKEYXA", "QTOKXB", "QIDSXC", "QSECXD", "QUPIXE", "QUPSXF", "QENVXG", "QINPXH", "QDATXJ")
KEY = "QKEYXA+/=%QKEYXA\"'QKEYXA=="
TOKEN = "QTOKXB|QTOKXB+/=&<QTOKXB"
INPUT = "".join(f"{n},QINPXH,\"q\",'s',\\n,25 \u00b0C,\u00c5\tQINPXH\n" for n in range(150))
DATA = 'QDATXJ: "\u00fc"\nQDATXJ'
PAYLOAD: dict[str, Any] = {
    "inputs": [{"filename": "molecules.csv", "content": INPUT}],
    "data": [{"filename": "settings.yaml", "content": DATA}],
    "variables": {"scale": 2},
    "environmentVariables": {"PASSWORD": "QENVXG'\"\\\n\u00e9QENVXG"},
    "s3": {
        "accessKeyID": "QIDSXC/+QIDSXC",
        "secretAccessKey": 'QSECXD/+="QSECXD',
        "bucket": "b",
        "endpoint": "http://s3",
    },
    "s3Store": {
        "credentials": {
            "accessKeyID": "QUPIXE/+QUPIXE",
            "secretAccessKey": "QUPSXF\\QUPSXF",
            "bucket": "u",
            "endpoint": "http://s3",
        }
    },
}


def payload() -> dict[str, Any]:
    """A payload that is full of secrets."""
    return json.loads(json.dumps(PAYLOAD))  # type: ignore[no-any-return] # what was put in comes out


def leaks(text: str) -> set[str]:
    """The marks that a text holds, whole or cut."""
    return {mark for mark in MARKS if mark[:5] in text}


def told(root: object) -> str:
    """All that printing an object, and everything that hangs on it, can show; bytes and pickled errors in letters."""
    pickled = pickle.dumps(root) if isinstance(root, BaseException) else b""
    return "\n".join(
        value.decode("latin-1") if isinstance(value, bytes) else f"{value!s}\n{value!r}"
        for value in (*reachable(root), pickled)
    )


def logged(caplog: pytest.LogCaptureFixture) -> str:
    """All that any handler can make of what was logged."""
    formatter = logging.Formatter("%(name)s %(message)s")
    return "\n".join(
        f"{formatter.format(record)} {record.args!r} {record.exc_info!r} {record.stack_info!r}"
        for record in caplog.records
    )


def changed(**parts: Any) -> dict[str, Any]:
    """The payload with other parts."""
    return {**payload(), **parts}


async def outcome(operation: Callable[[], Awaitable[Any]]) -> BaseException | None:
    """How it ended; what it gave is the caller's and no message."""
    try:
        await operation()
    except Exception as error:
        return error
    return None
