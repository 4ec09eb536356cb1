"""
The definition of a lambda experiment: read, and checked with the orchestrator's own libraries if they are there.

The check runs in a process of its own: see `_lambda_check`.
"""

from __future__ import annotations

import importlib
import json
import logging
import sys
from collections.abc import Mapping
from functools import partial
from importlib import metadata
from pathlib import Path
from subprocess import DEVNULL
from typing import Any

import anyio
from anyio.lowlevel import RunVar

from .._errors import ConfigError, InvalidFlowIR, Problem
from .._http.call import json_body
from .._util.did_you_mean import DID_YOU_MEAN, closest_match
from .._util.printable import shorten
from .._util.threads import in_thread
from ..models import LambdaPayload
from .prepare import Prepared, prepare
from .validation import validate_payload

CHECKS_AT_ONCE = 2
"""Processes that check definitions at the same time; each takes half a second of a processor and 50 MB."""
PATIENCE = 60.0
"""Seconds after which a check is given up."""
LIBRARIES = "st4sd-runtime-core"
"""The distribution that has the orchestrator's libraries."""
DEFINITION = "lambdaFlowIR"
"""The field of a payload that holds the definition."""
COMPONENTS = "components"
"""The field that every definition has."""
DSL_FIELDS = ("entrypoint", "workflows")
"""Fields that only a definition in DSL 2.0 has."""
DSL_ADVICE = (
    'the service takes FlowIR here, and this is DSL 2.0: install "st4sd_async[engine]", with which it becomes FlowIR, '
    "or store it with client.internal_experiments.push()"
)

log = logging.getLogger("st4sd_async")
_limiter: RunVar[anyio.CapacityLimiter] = RunVar("checks of lambda experiments")


async def prepare_lambda(
    definition: Mapping[str, Any] | str | Path | LambdaPayload,
    payload: Mapping[str, Any] | None,
    *,
    validate: bool | None,
) -> tuple[Prepared, bool]:
    """
    The body of the start of a lambda experiment, and whether its definition is still in DSL.

    Args:
        definition: FlowIR or DSL 2.0 as a mapping, as YAML or in a file; or a payload that holds it.
        payload: The rest of the start, if the first is not all of it.
        validate: Whether the definition is checked here; None: if the libraries are there.

    Raises:
        InvalidPayload: Something is wrong with it; `InvalidFlowIR` if that is the definition.
        ConfigError: It is to be checked, and cannot be.
        ImportError: It is YAML, and PyYAML is not installed.
    """
    given = validate_payload(_whole(definition, payload), LambdaPayload)
    written = await _read(given.lambdaFlowIR)
    prepared = await prepare(given.model_copy(update={DEFINITION: written}), LambdaPayload)
    if validate is False:
        return prepared, is_dsl(written)
    flowir = await _checked(written, given.variables or {}, is_needed=validate is True)
    if flowir is not written:
        prepared = await prepare(given.model_copy(update={DEFINITION: flowir}), LambdaPayload)
    return prepared, is_dsl(flowir)


def is_dsl(definition: Mapping[str, Any]) -> bool:
    """Whether a definition is written in DSL 2.0 and not in FlowIR."""
    return any(field in definition for field in DSL_FIELDS)


def _whole(definition: object, payload: Mapping[str, Any] | None) -> Any:
    """The payload of a definition and the rest."""
    is_payload = isinstance(definition, LambdaPayload)
    if isinstance(definition, Mapping):
        is_payload = not is_dsl(definition) and COMPONENTS not in definition
        if is_payload and DEFINITION not in definition:
            _check_fields(definition)
    elif not isinstance(definition, str | Path | LambdaPayload):
        kinds = "a mapping, YAML, a Path or a LambdaPayload"
        raise TypeError(f"the definition of a lambda experiment is {kinds}, not {type(definition).__name__}")
    if is_payload and payload is None:
        return definition
    if is_payload or DEFINITION in (payload or {}):
        raise ValueError(f"there are two payloads: give the definition alone, without {DEFINITION!r}, or one payload")
    return {**(payload or {}), DEFINITION: definition}


def _check_fields(definition: Mapping[Any, Any]) -> None:
    """Raise an error if a mapping that passes for a payload looks like a definition whose fields are misspelt."""
    meant = {name: closest_match(str(name), (COMPONENTS, *DSL_FIELDS)) for name in definition}
    problems = [Problem(str(name), f"{DID_YOU_MEAN} {other!r}?") for name, other in meant.items() if other]
    if problems:
        raise InvalidFlowIR.before_sending(problems)


async def _read(definition: Mapping[str, Any] | str | Path) -> Mapping[str, Any]:
    """The definition, whatever it was given as."""
    if isinstance(definition, Mapping):
        return definition
    found, problem = await in_thread(partial(_parsed, definition))
    if not problem and not isinstance(found, dict):
        hint = ": give a file as a Path" if isinstance(definition, str) and isinstance(found, str) else ""
        problem = f"the YAML holds a {type(found).__name__}, and a definition is a mapping{hint}"
    if problem:
        raise InvalidFlowIR.before_sending([Problem(DEFINITION, problem)])
    return dict(found)


def _parsed(source: str | Path) -> tuple[Any, str]:
    """What some YAML or a file of it holds, and why it cannot be told."""
    try:
        text = source.read_text("utf-8") if isinstance(source, Path) else source
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is not UTF-8"
        return None, f"the file {str(source)!r} cannot be read: {why}"
    try:
        yaml = importlib.import_module("yaml")
    except ImportError:
        return _json(text)
    try:
        return yaml.safe_load(text), ""
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        # Not the whole error, which quotes what is written there.
        return None, f"it is no YAML: {where}{getattr(error, 'problem', None) or type(error).__name__}"


def _json(text: str) -> tuple[Any, str]:
    try:
        return json.loads(text), ""  # JSON is YAML
    except ValueError:
        raise ImportError('a definition in YAML needs PyYAML: pip install "st4sd_async[engine]"') from None


async def _checked(
    definition: Mapping[str, Any], variables: Mapping[str, Any], *, is_needed: bool
) -> Mapping[str, Any]:
    """The definition in FlowIR, or as it is if nobody can check it and nobody needs that."""
    strings = {name: str(value) for name, value in variables.items()}
    answer = await _asked(json_body({"definition": definition, "variables": strings}))
    if answer.get("missing") is not None:
        told = f"the definition was not checked here: {shorten(answer['missing'])}"
        if is_needed:
            raise ConfigError(f'{told}; install "st4sd_async[engine]", or leave out validate=True')
        if answer["missing"]:
            log.warning("%s", told)
        return definition
    if answer["problems"]:
        raise InvalidFlowIR.before_sending([Problem(where, shorten(what)) for where, what in answer["problems"]])
    return definition if answer["flowir"] is None else dict(answer["flowir"])


async def _asked(request: bytes) -> dict[str, Any]:
    """What the libraries say; ``missing`` tells why they cannot, in "" that they are not installed."""
    if not await in_thread(_is_installed):
        return {"missing": ""}
    program = await in_thread(Path(__file__).with_name("lambda_check.py").read_text, "utf-8")
    # -P: a file of the name of one of their modules in the working directory is not taken for it.
    command = [sys.executable, "-P", "-c", program]
    async with _checks():
        try:
            with anyio.fail_after(PATIENCE):
                done = await anyio.run_process(command, input=request, stderr=DEVNULL, check=False)
        # A process that ends before it has read all breaks the pipe; some event loops of Windows start none.
        except (OSError, NotImplementedError, ExceptionGroup) as error:
            return {"missing": f"no process for it, or not in time: {type(error).__name__}"}
    if done.returncode or not done.stdout.startswith(b"{"):
        return {"missing": f"the libraries broke down with exit code {done.returncode}"}
    return dict(json.loads(done.stdout))


def _checks() -> anyio.CapacityLimiter:
    """The limiter of this event loop."""
    found = _limiter.get(None)
    if found is None:
        found = anyio.CapacityLimiter(CHECKS_AT_ONCE)
        _limiter.set(found)
    return found


def _is_installed() -> bool:
    try:
        metadata.distribution(LIBRARIES)
    except metadata.PackageNotFoundError:
        return False
    return bool(sys.executable)
