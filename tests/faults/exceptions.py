"""Everything that can be reached from an exception, and a check that none of it is of the HTTP engine."""

from __future__ import annotations

from collections.abc import Iterator


def exceptions_in(error: BaseException) -> Iterator[BaseException]:
    """An exception and all others that can be reached from it by cause, context, arguments and attributes."""
    yield from (value for value in reachable(error) if isinstance(value, BaseException))


def reachable(root: object) -> Iterator[object]:
    """Whatever a debugger finds below an object: attributes, arguments, items; not the frames of tracebacks."""
    todo, met = [root], set()
    while todo:
        value = todo.pop()
        if id(value) in met or isinstance(value, type) or callable(value):
            continue
        met.add(id(value))
        yield value
        if isinstance(value, BaseException):
            todo += [value.__cause__, value.__context__, *value.args]
        if isinstance(value, dict):
            todo += [*value.keys(), *value.values()]
        elif isinstance(value, list | tuple | set | frozenset):
            todo += value
        todo += vars(value).values() if hasattr(value, "__dict__") else ()


def assert_ours(error: BaseException) -> None:
    """Fail if an exception is not one of ours, or leads to one of the HTTP engine's."""
    found = {type(one).__module__.split(".")[0] for one in exceptions_in(error)}
    assert found <= {"st4sd_async"}, found
