"""The blocking client has all methods of the asynchronous one, with the same signatures and docstrings."""

from __future__ import annotations

import inspect
import pydoc
import re
from typing import Any

import pytest

import st4sd_async
from st4sd_async import Config
from st4sd_async import sync as blocking
from st4sd_async._api.group import Group
from st4sd_async._sync.facade import ASYNC_ONLY, Blocking

ASYNC = st4sd_async.Client("http://127.0.0.1:1", config=Config(validate=False))
PAIRS: list[tuple[type, type]] = [
    (st4sd_async.Client, blocking.Client),
    (st4sd_async.Run, blocking.Run),
    (st4sd_async.Batch, blocking.Batch),
    *(
        (type(getattr(ASYNC, name)), type(group))
        for name, group in vars(blocking.Client("http://127.0.0.1:1")).items()
        if isinstance(group, Blocking)
    ),
]
"""Each asynchronous class with the blocking one."""


def public(cls: type) -> dict[str, Any]:
    """Return the public members of a class, without those of its instances."""
    return {name: inspect.getattr_static(cls, name) for name in dir(cls) if not name.startswith("_")}


def signature_of(member: Any) -> tuple[list[inspect.Parameter], Any]:
    """Return the parameters of a function, with names, kinds, defaults and types, and its return annotation."""
    signature = inspect.signature(getattr(member, "__func__", member))
    return list(signature.parameters.values()), signature.return_annotation


@pytest.mark.parametrize(("awaiting", "blocked"), PAIRS, ids=lambda cls: cls.__name__)
def test_every_method_has_the_signature_and_docstring_of_the_asynchronous_one(awaiting: type, blocked: type) -> None:
    """Names, parameters, kinds, defaults and annotations are the same; asynchronous generators become plain ones."""
    for name, member in public(awaiting).items():
        if name in ASYNC_ONLY:
            continue
        counterpart = public(blocked)[name]
        if inspect.isfunction(member) or isinstance(member, classmethod):
            parameters, result = signature_of(member)
            assert signature_of(counterpart) == (parameters, result.replace("AsyncGenerator", "Generator"))
            function = getattr(counterpart, "__func__", counterpart)
            assert function.__annotations__["return"] == signature_of(counterpart)[1]
            assert (function.__name__, function.__qualname__) == (name, f"{blocked.__name__}.{name}")
            assert inspect.getdoc(counterpart)
        assert type(counterpart) is type(member)


@pytest.mark.parametrize(("awaiting", "blocked"), PAIRS, ids=lambda cls: cls.__name__)
def test_no_method_or_example_awaits(awaiting: type, blocked: type) -> None:
    """There is no coroutine function, and no keyword of one in a docstring."""
    more = {"close"} if awaiting is st4sd_async.Client else {"id", "url"} if awaiting is st4sd_async.Run else set()

    assert set(public(blocked)) == (set(public(awaiting)) | more) - ASYNC_ONLY
    for member in public(blocked).values():
        assert not inspect.iscoroutinefunction(member)
        assert not inspect.isasyncgenfunction(member)
        for word in ("async with", "async for", "await "):
            assert word not in (inspect.getdoc(member) or "")
            assert word not in (inspect.getdoc(blocked) or "")


@pytest.mark.parametrize("client", [ASYNC, blocking.Client("http://127.0.0.1:1")], ids=["async", "blocking"])
def test_the_repr_of_a_group_names_its_verbs(client: Any) -> None:
    """So that typing the name of a group shows what it can do."""
    groups = [value for value in vars(ASYNC).values() if isinstance(value, Group)]

    for group in groups:
        name = next(name for name, value in vars(ASYNC).items() if value is group)
        verbs = [verb for verb in dir(type(group)) if not verb.startswith("_")]
        assert repr(getattr(client, name)) == f"<{type(group).__name__}: {', '.join(verbs)}>"


def test_every_group_has_a_blocking_one() -> None:
    """Both clients have the same groups of endpoints."""
    groups = {name for name, value in vars(ASYNC).items() if not name.startswith("_") and isinstance(value, Group)}

    assert {name for name in vars(blocking.Client("http://127.0.0.1:1")) if not name.startswith("_")} == groups
    assert len(PAIRS) == 3 + len(groups)


def test_help_shows_the_arguments_and_the_public_module() -> None:
    """Those of the asynchronous client, and the module to import from."""
    assert inspect.signature(blocking.Client) == inspect.signature(st4sd_async.Client)
    page = pydoc.plain(pydoc.render_doc(blocking.Client))
    words = re.sub(r"[\s|]+", "", page)  # newer versions of Python break the line of a long signature
    assert "class Client in module st4sd_async.sync" in page
    assert "watch(self,run:'RunLike',*,timeout:'floatNone'=None" in words
