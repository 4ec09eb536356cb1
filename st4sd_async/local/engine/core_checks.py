"""
The checks of definitions by st4sd-runtime-core, which the service makes too: its replies are in their words.

The libraries are imported by the first check, which takes 0.5 s and 40 MB.

Source:
    st4sd-runtime-service, ``apis/kernel/internal_experiments.py`` and ``LambdaExperimentFactory``.
"""

from __future__ import annotations

import copy
import importlib
import json
import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from types import SimpleNamespace
from typing import Any

from pydantic import ValidationError

_LOGGER = "flowir"
"""Name of the logger of the libraries. It reports what the checks return, with whole components."""
_MODULES = r"(.*[/\\])?experiment[./\\]"
"""Modules that may issue any warning: names, and paths in the warnings of the compiler."""
_lock = threading.Lock()
"""Held during a check; the libraries are not made for threads."""


def find_dsl_problems(definition: Any) -> list[dict[str, Any]] | None:
    """
    Return the problems of a definition in DSL 2.0 as replies list them.

    None means that the libraries are not installed, or failed: they raise a `TypeError` for an argument of 1.5.
    """
    with _quiet_libraries() as core:
        if core is None:
            return None
        try:
            namespace = core.dsl.Namespace.model_validate(copy.deepcopy(definition))
            return [{"problem": str(error)} for error in core.dsl.namespace_to_flowir(namespace).validate()]
        except ValidationError as error:
            return [_renamed(problem) for problem in json.loads(error.json(include_url=False, include_context=False))]
        except core.errors.DSLInvalidError as error:
            return [_renamed(problem) for problem in error.errors()]
        except Exception:  # of any class
            return None


def find_flowir_problems(definition: Any) -> list[str] | None:
    """Return the problems of a definition in FlowIR; None if the libraries are not installed."""
    with _quiet_libraries() as core:
        if core is None:
            return None
        try:
            return [str(error) for error in core.flowir.FlowIRConcrete(copy.deepcopy(definition), None, {}).validate()]
        except Exception as error:  # the service reports any exception as a problem
            return [str(error)]


def _renamed(problem: dict[str, Any]) -> dict[str, Any]:
    """Return a problem in the form that replies list."""
    other = {key: value for key, value in problem.items() if key not in ("msg", "loc", "ctx", "url")}
    return {**other, "message": problem["msg"], "location": [*problem["loc"]]}


@contextmanager
def _quiet_libraries() -> Iterator[SimpleNamespace | None]:
    """Hold the lock, suppress what this thread would log or be warned about, and provide the libraries."""
    with _lock:
        thread = threading.get_ident()

        def is_other_thread(_record: logging.LogRecord) -> bool:
            return threading.get_ident() != thread

        # Not catch_warnings: it would restore filters that another thread has replaced.
        warnings.filterwarnings("ignore", module=_MODULES)
        logger = logging.getLogger(_LOGGER)
        logger.addFilter(is_other_thread)
        try:
            yield _import_libraries()
        finally:
            logger.removeFilter(is_other_thread)


@cache
def _import_libraries() -> SimpleNamespace | None:
    try:
        return SimpleNamespace(
            dsl=importlib.import_module("experiment.model.frontends.dsl"),
            flowir=importlib.import_module("experiment.model.frontends.flowir"),
            errors=importlib.import_module("experiment.model.errors"),
        )
    except Exception:  # a broken installation may fail in any way
        return None
