"""
Read the definition of a lambda experiment, and check it with the orchestrator's libraries if they are installed.

The check runs in its own process: see ``lambda_check.py``.
"""

from __future__ import annotations

import importlib
import json
import logging
import sys
from collections.abc import Mapping, Sequence
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
from .prepare import Prepared, build_body, serialise, validate_payload

MAX_PARALLEL_CHECKS = 2
"""Processes that check definitions at the same time. Each takes half a second of a processor and 50 MB."""
CHECK_TIMEOUT = 60.0
"""Seconds after which a check is abandoned."""
DISTRIBUTION = "st4sd-runtime-core"
"""The distribution with the orchestrator's libraries."""
DEFINITION_FIELD = "lambdaFlowIR"
COMPONENTS_FIELD = "components"
DSL_FIELDS = ("entrypoint", "workflows")
"""Fields that only a definition in DSL 2.0 has."""
DSL_ADVICE = (
    'the service accepts only FlowIR here, and this is DSL 2.0: install "st4sd_async[engine]" to convert it, '
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
    Return the body of the start of a lambda experiment, and whether its definition is still in DSL.

    Args:
        definition: FlowIR or DSL 2.0 as a mapping, as YAML or in a file; or a whole payload.
        payload: The other fields of the payload, unless ``definition`` is a whole payload.
        validate: Whether to check the definition here. None means yes if the libraries are installed.

    Raises:
        InvalidPayload: The payload is invalid; `InvalidFlowIR` if its definition is.
        ConfigError: ``validate`` is True, and the definition cannot be checked.
        ImportError: The definition is YAML, and PyYAML is not installed.
    """
    start = validate_payload(_whole_payload(definition, payload), LambdaPayload)
    original = await _read_definition(start.lambdaFlowIR)
    body = await build_body(start.model_copy(update={DEFINITION_FIELD: original}), LambdaPayload)
    prepared = serialise(body)
    if validate is False:
        return prepared, is_dsl(original)
    flowir = await _check(original, start.variables or {}, is_required=validate is True)
    if flowir is not original:
        prepared = serialise({**body, DEFINITION_FIELD: flowir})
    return prepared, is_dsl(flowir)


def is_dsl(definition: Mapping[str, Any]) -> bool:
    """Return whether a definition is in DSL 2.0 and not in FlowIR."""
    return any(field in definition for field in DSL_FIELDS)


def _whole_payload(definition: object, payload: Mapping[str, Any] | None) -> Any:
    """Return one payload from a definition and the other fields."""
    is_payload = isinstance(definition, LambdaPayload)
    if isinstance(definition, Mapping):
        is_payload = not is_dsl(definition) and COMPONENTS_FIELD not in definition
        if is_payload and DEFINITION_FIELD not in definition:
            _check_spelling(definition)
    elif not isinstance(definition, str | Path | LambdaPayload):
        kinds = "a mapping, YAML, a Path or a LambdaPayload"
        raise TypeError(f"the definition of a lambda experiment must be {kinds}, not {type(definition).__name__}")
    if is_payload and payload is None:
        return definition
    if is_payload or DEFINITION_FIELD in (payload or {}):
        advice = f"pass the definition alone, without {DEFINITION_FIELD!r}, or one payload"
        raise ValueError(f"there are two payloads: {advice}")
    return {**(payload or {}), DEFINITION_FIELD: definition}


def _check_spelling(definition: Mapping[Any, Any]) -> None:
    """Raise an error if a mapping looks like a definition with misspelt fields, not like a payload."""
    matches = {name: closest_match(str(name), (COMPONENTS_FIELD, *DSL_FIELDS)) for name in definition}
    problems = [Problem(str(name), f"{DID_YOU_MEAN} {match!r}?") for name, match in matches.items() if match]
    if problems:
        raise InvalidFlowIR.before_sending(problems)


async def _read_definition(definition: Mapping[str, Any] | str | Path) -> Mapping[str, Any]:
    """Return a definition given in any form as a mapping."""
    if isinstance(definition, Mapping):
        return definition
    content, problem = await in_thread(partial(parse_yaml, definition))
    if not problem and not isinstance(content, dict):
        advice = ": pass a file as a Path" if isinstance(definition, str) and isinstance(content, str) else ""
        problem = f"the YAML contains a {type(content).__name__}, but a definition is a mapping{advice}"
    if problem:
        raise InvalidFlowIR.before_sending([Problem(DEFINITION_FIELD, problem)])
    return dict(content)


def parse_yaml(source: str | Path) -> tuple[Any, str]:
    """Parse YAML, given as text or as a file. Return its contents, and the reason if it cannot be read, else ""."""
    try:
        text = source.read_text("utf-8") if isinstance(source, Path) else source
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        return None, f"the file {str(source)!r} cannot be read: {reason}"
    try:
        yaml = importlib.import_module("yaml")
    except ImportError:
        return _parse_json(text)
    try:
        return yaml.safe_load(text), ""
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        position = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        # The whole error would quote the definition.
        return None, f"invalid YAML: {position}{getattr(error, 'problem', None) or type(error).__name__}"


def _parse_json(text: str) -> tuple[Any, str]:
    try:
        return json.loads(text), ""  # JSON is YAML
    except ValueError:
        raise ImportError('a definition in YAML needs PyYAML: pip install "st4sd_async[engine]"') from None


async def _check(
    definition: Mapping[str, Any], variables: Mapping[str, Any], *, is_required: bool
) -> Mapping[str, Any]:
    """Return the definition in FlowIR, or unchanged if it cannot be checked and ``is_required`` is False."""
    texts = {name: str(value) for name, value in variables.items()}
    program = await in_thread(Path(__file__).with_name("lambda_check.py").read_text, "utf-8")
    request = json_body({"definition": definition, "variables": texts})
    result = await run_libraries(["-c", program], request)
    if result.get("missing") is not None:
        problem = f"the definition was not checked here: {shorten(result['missing'])}"
        if is_required:
            raise ConfigError(f'{problem}; install "st4sd_async[engine]", or omit validate=True')
        if result["missing"]:
            log.warning("%s", problem)
        return definition
    if result["problems"]:
        raise InvalidFlowIR.before_sending([Problem(where, shorten(what)) for where, what in result["problems"]])
    return definition if result["flowir"] is None else dict(result["flowir"])


async def run_libraries(
    arguments: Sequence[str], request: bytes = b"", *, environment: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """
    Return what a program that uses the orchestrator's libraries prints: a JSON object.

    Without one, ``missing`` says why: "" means that the libraries are not installed.

    Args:
        arguments: The arguments of the Python interpreter.
        request: Standard input.
        environment: The environment of the process. None means that of this process.
    """
    if not await in_thread(_is_installed):
        return {"missing": ""}
    # -P: no module of the working directory may hide one of theirs.
    command = [sys.executable, "-P", *arguments]
    async with _check_limiter():
        try:
            with anyio.fail_after(CHECK_TIMEOUT):
                done = await anyio.run_process(command, input=request, stderr=DEVNULL, check=False, env=environment)
        except TimeoutError:
            return {"missing": f"the libraries took longer than {CHECK_TIMEOUT:g} s"}
        # A process that ends before it has read everything breaks the pipe; some event loops of Windows start none.
        except (OSError, NotImplementedError, ExceptionGroup) as error:
            return {"missing": f"their process failed to start: {type(error).__name__}"}
    if done.returncode or not done.stdout.startswith(b"{"):
        return {"missing": f"the libraries failed with exit code {done.returncode}"}
    return dict(json.loads(done.stdout))


def _check_limiter() -> anyio.CapacityLimiter:
    """Return the limiter of this event loop."""
    limiter = _limiter.get(None)
    if limiter is None:
        limiter = anyio.CapacityLimiter(MAX_PARALLEL_CHECKS)
        _limiter.set(limiter)
    return limiter


def _is_installed() -> bool:
    try:
        metadata.distribution(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        return False
    return bool(sys.executable)
