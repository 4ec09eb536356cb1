"""The grid of a parameter sweep: all combinations of the values of some variables. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from decimal import Context, Decimal, DecimalException, Inexact, InvalidOperation, Overflow
from itertools import product
from typing import Any

MAX_POINTS = 100_000
"""Maximum number of values of a variable, and of combinations."""
_EXACT = Context(prec=100, Emax=999, Emin=-999, traps=[Inexact, InvalidOperation, Overflow])
"""Decimal arithmetic that raises an error where it would round."""


def grid(variables: Mapping[str, str | Iterable[Any]]) -> list[dict[str, Any]]:
    """
    Return all combinations of values, in the order of nested loops: the last variable changes fastest.

    Args:
        variables: Name -> values, as in `Launch.sweep`.

    Raises:
        ValueError: Values are invalid, missing or repeated, or there are too many combinations.
    """
    if not variables:
        raise ValueError("a sweep needs at least one variable with its values, as in {'alpha': '1:3:0.1'}")
    values = {name: _values(name, given) for name, given in variables.items()}
    count = math.prod(map(len, values.values()))
    if count > MAX_POINTS:
        raise ValueError(f"the sweep has {count} combinations, and at most {MAX_POINTS} are possible")
    return [dict(zip(values, point, strict=True)) for point in product(*values.values())]


def point_key(values: Mapping[str, Any]) -> str:
    """Return the key of a combination, which is also the name of its folder if the values are plain: ``alpha_1.1``."""
    return "-".join(f"{name}_{value}" for name, value in values.items())


def _values(name: str, given: str | Iterable[Any]) -> list[Any]:
    if not isinstance(name, str) or not name:
        raise ValueError(f"the name of a variable must be a string that is not empty, not {name!r}")
    if isinstance(given, str):
        found = [value for part in given.split(",") for value in _read_part(name, part.strip())]
    elif isinstance(given, Iterable):
        found = list(given)
    else:
        raise ValueError(f"the values of {name!r} must be a string such as '1:3:0.1' or 'a,b', or a list: [{given!r}]")
    if not found:
        raise ValueError(f"the variable {name!r} has no values")
    texts = [str(value) for value in found]
    if repeated := [text for text, count in Counter(texts).items() if count > 1]:
        raise ValueError(f"the variable {name!r} has the value {repeated[0]!r} twice")
    return found


def _read_part(name: str, text: str) -> list[str]:
    """Return the values of a range, or the text itself."""
    if not text:
        raise ValueError(f"the variable {name!r} has an empty value: values are separated by single commas")
    first, *others = text.split(":")
    if not others or _number(first) is None:
        return [text]
    numbers = [_number(part) for part in (first, *others)]
    if len(numbers) > 3 or None in numbers:
        raise ValueError(f"{text!r} is not a range of {name!r}: write START:STOP or START:STOP:STEP, all numbers")
    start, stop, step = (*(number for number in numbers if number is not None), Decimal(1))[:3]
    return _range(name, text, start, stop, step)


def _range(name: str, text: str, start: Decimal, stop: Decimal, step: Decimal) -> list[str]:
    """Return the numbers from start to stop, which is included if a step meets it."""
    if step == 0 or (stop < start if step > 0 else stop > start):
        direction = "0" if step == 0 else f"{step}, which leads away from {stop}"
        raise ValueError(f"the range {text!r} of {name!r} has the step {direction}")
    try:
        count = int(_EXACT.divide_int(_EXACT.subtract(stop, start), step)) + 1
        if count > MAX_POINTS:
            raise ValueError(
                f"the range {text!r} of {name!r} has {count} values, and at most {MAX_POINTS} are possible"
            )
        exact = [_EXACT.add(start, _EXACT.multiply(step, Decimal(number))) for number in range(count)]
    except DecimalException:
        raise ValueError(f"the numbers of the range {text!r} of {name!r} have too many digits") from None
    return [_plain(number) for number in exact]


def _plain(number: Decimal) -> str:
    """Return a decimal without an exponent and without zeros at its end: ``1``, ``1.1``, ``100``."""
    text = f"{number:f}" if number else "0"  # never "-0"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _number(text: str) -> Decimal | None:
    try:
        number = Decimal(text)
    except InvalidOperation:
        return None
    return number if number.is_finite() else None
