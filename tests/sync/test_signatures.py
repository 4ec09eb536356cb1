"""The blocking client has what the asynchronous one has, and says so."""

from __future__ import annotations

import inspect
import pydoc
import re
from typing import Any

import pytest

import st4sd_async
from st4sd_async import Config
from st4sd_async import sync as blocking
from st4sd_async._api._base import Group
from st4sd_async._sync.facade import Handle

from .stub import STUB, stub

ASYNC = st4sd_async.Client("http://127.0.0.1:1", config=Config(validate=False))
PAIRS: list[tuple[type, type]] = [
    (st4sd_async.Client, blocking.Client),
    (st4sd_async.Run, blocking.Run),
    (st4sd_async.Batch, blocking.Batch),
    *(
        (type(getattr(ASYNC, name)), type(group))
        for name, group in vars(blocking.Client("http://127.0.0.1:1")).items()
        if isinstance(group, Handle)
    ),
]


def public(cls: type) -> dict[str, Any]:
    """The public members of a class, without those of its instances."""
    return {name: inspect.getattr_static(cls, name) for name in dir(cls) if not name.startswith("_")}


def told(member: Any) -> tuple[list[inspect.Parameter], Any]:
    """What is told of a function: parameters with names, kinds, defaults and types, and what it gives."""
    signature = inspect.signature(getattr(member, "__func__", member))
    return list(signature.parameters.values()), signature.return_annotation


@pytest.mark.parametrize(("awaiting", "blocked"), PAIRS, ids=lambda cls: cls.__name__)
def test_every_method_has_the_signature_and_the_words_of_the_asynchronous_one(awaiting: type, blocked: type) -> None:
    """Names, parameters, kinds, defaults, annotations and docstrings are the same; generators are plain ones."""
    for name, member in public(awaiting).items():
        there = public(blocked)[name]
        if inspect.isfunction(member) or isinstance(member, classmethod):
            parameters, gives = told(member)
            assert told(there) == (parameters, gives.replace("AsyncGenerator", "Generator"))
            function = getattr(there, "__func__", there)
            assert function.__annotations__["return"] == told(there)[1]
            assert (function.__name__, function.__qualname__) == (name, f"{blocked.__name__}.{name}")
            assert inspect.getdoc(there)
        assert type(there) is type(member)


@pytest.mark.parametrize(("awaiting", "blocked"), PAIRS, ids=lambda cls: cls.__name__)
def test_nothing_of_it_awaits(awaiting: type, blocked: type) -> None:
    """No coroutine function is left, and no example that awaits."""
    more = {"close"} if awaiting is st4sd_async.Client else {"id", "client"} if awaiting is st4sd_async.Run else set()

    assert set(public(blocked)) == set(public(awaiting)) | more
    for member in public(blocked).values():
        assert not inspect.iscoroutinefunction(member)
        assert not inspect.isasyncgenfunction(member)
        for word in ("async with", "async for", "await "):
            assert word not in (inspect.getdoc(member) or "")
            assert word not in (inspect.getdoc(blocked) or "")


def test_every_group_has_its_counterpart() -> None:
    """What a client has beside its methods is the same, by name."""
    groups = {name for name, value in vars(ASYNC).items() if not name.startswith("_") and isinstance(value, Group)}

    assert {name for name in vars(blocking.Client("http://127.0.0.1:1")) if not name.startswith("_")} == groups
    assert len(PAIRS) == 3 + len(groups)


def test_the_client_is_made_as_the_asynchronous_one_is() -> None:
    """`help` shows the arguments of `Client`, and where it is to be had."""
    assert inspect.signature(blocking.Client) == inspect.signature(st4sd_async.Client)
    page = pydoc.plain(pydoc.render_doc(blocking.Client))
    words = re.sub(r"[\s|]+", "", page)  # newer versions of Python break the line of a long signature
    assert "class Client in module st4sd_async.sync" in page
    assert "watch(self,run:'RunLike',*,timeout:'floatNone'=None" in words


def test_type_checkers_are_told_what_is_there() -> None:
    """The stub is what would be written now; if not: python -m tests.sync.stub."""
    assert STUB.read_text("utf-8") == stub()
