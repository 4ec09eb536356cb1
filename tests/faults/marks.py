"""A payload full of secrets that can be recognised in any text, and functions to search for them."""

from __future__ import annotations

import json
import logging
import pickle
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from .exceptions import reachable

# Each secret has its mark, which is all letters, and characters that quoting changes. A text that has
# the first five letters of a mark has quoted the secret.
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
    """Return a payload that is full of secrets."""
    return json.loads(json.dumps(PAYLOAD))  # type: ignore[no-any-return] # a copy of the same type


def leaks(text: str) -> set[str]:
    """Return the marks that a text contains, whole or cut."""
    return {mark for mark in MARKS if mark[:5] in text}


def all_texts(root: object) -> str:
    """Return all that printing an object, and everything reachable from it, can show. Bytes are shown as letters."""
    pickled = pickle.dumps(root) if isinstance(root, BaseException) else b""
    return "\n".join(
        value.decode("latin-1") if isinstance(value, bytes) else f"{value!s}\n{value!r}"
        for value in (*reachable(root), pickled)
    )


def logged(caplog: pytest.LogCaptureFixture) -> str:
    """Return all that a handler can show of the log records."""
    formatter = logging.Formatter("%(name)s %(message)s")
    return "\n".join(
        f"{formatter.format(record)} {record.args!r} {record.exc_info!r} {record.stack_info!r}"
        for record in caplog.records
    )


def changed(**parts: Any) -> dict[str, Any]:
    """Return the payload with other parts."""
    return {**payload(), **parts}


async def outcome(operation: Callable[[], Awaitable[Any]]) -> BaseException | None:
    """Return the error of an operation. None means success."""
    try:
        await operation()
    except Exception as error:
        return error
    return None
