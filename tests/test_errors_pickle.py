"""Errors survive pickle, copy and deepcopy, so they can cross process boundaries."""

from __future__ import annotations

import copy
import importlib
import inspect
import pickle
import pkgutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import pytest

import st4sd_async
from st4sd_async import ComponentFailure, Failure, St4sdError, Status
from tests.raising import raise_it

NEEDS_ITS_OWN_PROGRAM = ("__main__", "local.examples", "local.engine.inspection", "pytest_plugin", "integrations.")
"""Modules that are no part of the library when they are imported, or that need what is not installed."""

STATUS = Status(experiment_state="finished", exit_status="Failed")
BY_ANNOTATION: dict[str, Any] = {
    "str": "some text",
    "str | None": "some text",
    "int": 3,
    "int | None": 503,
    "float": 1.5,
    "float | None": 1.5,
    "bool": True,
    "bool | None": False,
    "Iterable[str]": ("one", "two"),
    "Mapping[str, Any] | None": {"message": "no", "problems": ["first", {"message": "second"}]},
    "Mapping[str, Status]": {"demo-abcdef-12345678": STATUS},
    "Mapping[str, Failure] | None": {
        "demo-abcdef-12345678": Failure("demo-abcdef-12345678", STATUS, (ComponentFailure("stage0.A", "Killed", 1),))
    },
    "Status | None": STATUS,
}
"""What the parameters of constructors are given; a new kind of parameter needs a line here."""


def _tree(root: type[St4sdError]) -> Iterator[type[St4sdError]]:
    yield root
    for child in root.__subclasses__():
        yield from _tree(child)


def _classes() -> list[type[St4sdError]]:
    """Return all error classes of the package."""
    for module in pkgutil.walk_packages(st4sd_async.__path__, "st4sd_async."):
        if not any(part in module.name for part in NEEDS_ITS_OWN_PROGRAM):
            importlib.import_module(module.name)
    found = {cls.__qualname__: cls for cls in _tree(St4sdError) if cls.__module__.startswith("st4sd_async")}
    return [found[name] for name in sorted(found)]


def _make(cls: type[St4sdError]) -> St4sdError:
    """Return an instance with all arguments, and with the attributes and notes that are added later."""
    try:
        parameters = inspect.signature(cls).parameters.values()
    except ValueError:  # that of BaseException takes anything
        error = cls("some text")
    else:
        values = {one.name: BY_ANNOTATION[str(one.annotation)] for one in parameters}
        by_place = [values.pop(one.name) for one in parameters if one.kind is one.POSITIONAL_OR_KEYWORD]
        error = cls(*by_place, **values)
    error.attempts = 7  # type: ignore[attr-defined]
    error.advice = "do this"  # type: ignore[attr-defined]
    error.names = ("a", "b")  # type: ignore[attr-defined]
    error.add_note("first note")
    error.add_note("second note")
    return error


def _pickled(error: St4sdError) -> St4sdError:
    returned = pickle.loads(pickle.dumps(error))
    assert isinstance(returned, St4sdError)
    return returned


@pytest.mark.parametrize("cls", _classes(), ids=lambda cls: cls.__name__)
def test_every_error_survives_with_text_notes_and_attributes(cls: type[St4sdError]) -> None:
    """For every class, also if it is pickled or copied twice."""
    error = _make(cls)
    carriers: list[Callable[[St4sdError], St4sdError]] = [_pickled, copy.copy, copy.deepcopy]

    for carry in carriers:
        returned = carry(carry(error))

        assert type(returned) is cls, carry
        assert returned is not error, carry
        assert (str(returned), repr(returned), returned.args) == (str(error), repr(error), error.args), carry
        assert vars(returned) == vars(error), carry
        assert returned.__notes__ == ["first note", "second note"], carry
        assert isinstance(returned, TimeoutError) == isinstance(error, TimeoutError), carry


def test_a_note_on_a_copy_is_not_on_the_original() -> None:
    """A copy has a list of notes of its own."""
    error = _make(St4sdError)

    copy.copy(error).add_note("third note")

    assert error.__notes__ == ["first note", "second note"]


def test_the_cause_is_not_pickled() -> None:
    """Python does not pickle cause, context and traceback."""
    error = _make(St4sdError)
    error.__cause__ = OSError("reset")

    assert _pickled(error).__cause__ is None


def test_an_attribute_that_cannot_be_pickled_arrives_as_its_repr() -> None:
    """An attribute that a program adds, such as a lock, never makes pickling fail; a copy keeps it."""
    error = _make(St4sdError)
    lock = error.lock = threading.Lock()  # type: ignore[attr-defined]

    arrived = _pickled(error)

    assert vars(arrived) == {**vars(error), "lock": repr(lock)}
    assert vars(copy.copy(error))["lock"] is lock
    assert vars(copy.deepcopy(error))["lock"] == repr(lock)


@pytest.mark.parametrize(
    "name", ["ConnectFailed", "InvalidPayload", "JournalLocked", "RunFailed", "StartOutcomeUnknown", "WaitTimeout"]
)
def test_an_error_raised_in_a_worker_process_arrives(name: str, workers: ProcessPoolExecutor) -> None:
    """The caller gets it as it was raised, and the pool still works."""
    error = _make(next(cls for cls in _classes() if cls.__name__ == name))

    with pytest.raises(type(error)) as caught:
        workers.submit(raise_it, error).result()

    assert str(caught.value) == str(error)
    assert caught.value.__notes__ == error.__notes__
    assert workers.submit(abs, -1).result() == 1


@pytest.fixture(scope="module")
def workers() -> Iterator[ProcessPoolExecutor]:
    """A pool of one process."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        yield pool
