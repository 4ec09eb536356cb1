"""Definitions of lambda experiments: read in every form, checked before they are sent, DSL converted to FlowIR."""

from __future__ import annotations

import copy
import json
import os
import re
import signal
import sys
from importlib import metadata
from itertools import accumulate
from pathlib import Path
from typing import Any

import anyio
import pytest

from st4sd_async import Client, ConfigError, InvalidFlowIR, InvalidPayload, LambdaPayload, Problem
from st4sd_async._payload.lambdas import prepare_lambda
from st4sd_async.local import LocalServer
from tests.client.definitions import DSL, LAMBDA
from tests.tries import IS_FULL, tries

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

yaml = pytest.importorskip("yaml")
FLOWIR = LAMBDA["lambdaFlowIR"]
DATA = {"data": LAMBDA["data"]}
CIRCLE = copy.deepcopy(FLOWIR)
CIRCLE["components"][0]["references"].append("hi:ref")
WITHOUT_NAME = {"components": [{"command": {"executable": "echo"}}]}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return a file with the definition."""
    made = tmp_path / "hi.yaml"
    made.write_text(yaml.safe_dump(FLOWIR), "utf-8")
    return made


@pytest.mark.parametrize(
    "form", ["mapping", "not ASCII", "YAML", "JSON", "file", "payload", "payload with YAML", "model with file"]
)
async def test_a_definition_may_have_any_form(form: str, path: Path, server: LocalServer, client: Client) -> None:
    """It runs in each. That a check understands it is tried in full only, because each imports the orchestrator."""
    forms: dict[str, tuple[Any, ...]] = {
        "mapping": (FLOWIR, DATA),
        "not ASCII": ({**FLOWIR, "variables": {"default": {"global": {"name": "Å \u2713"}}}}, DATA),
        "YAML": (yaml.safe_dump(FLOWIR), DATA),
        "JSON": (json.dumps(FLOWIR), DATA),
        "file": (path, DATA),
        "payload": (LAMBDA,),
        "payload with YAML": ({**DATA, "lambdaFlowIR": yaml.safe_dump(FLOWIR)},),
        "model with file": (LambdaPayload.model_validate({**DATA, "lambdaFlowIR": path}),),
    }

    run = await client.start_lambda(*forms[form], validate=None if IS_FULL else False)
    await server.advance(100)

    assert (await run.wait()).is_success
    assert list(await run.outputs()) == ["Hi"]


@pytest.mark.parametrize("form", ["YAML", "mapping"][: tries(2, 1)])  # the next test has a mapping
async def test_dsl_is_sent_as_flowir(form: str, server: LocalServer, client: Client) -> None:
    """The service accepts nothing else. Variables of the start, not only ASCII, are arguments of the entrypoint."""
    definition = DSL if form == "mapping" else yaml.safe_dump(DSL)

    payload = {"variables": {"greeting": "god morgon \u00c5 \u2713"}}
    prepared, is_dsl = await prepare_lambda(definition, payload, validate=None)
    run = await client.start_lambda(json.loads(prepared.content), validate=False)
    await server.advance(100)

    assert not is_dsl
    (component,) = json.loads(prepared.content)["lambdaFlowIR"]["components"]
    assert (component["name"], component["command"]["arguments"]) == ("greet", "god morgon \u00c5 \u2713")
    assert (await run.wait()).is_success


@pytest.mark.slow(seconds=7)
@pytest.mark.timeout(120)
async def test_dsl_is_executed_by_the_real_orchestrator() -> None:
    """Its file is in the folder for data, and its output under its name."""
    dsl = copy.deepcopy(DSL)
    dsl["entrypoint"]["output"] = [{"name": "Greeting", "data-in": "<entry-instance/greet>/out.stdout:ref"}]

    async with LocalServer(engine="elaunch") as server, Client(server.url, api_key=server.api_key) as client:
        run = await client.start_lambda(dsl, {"variables": {"greeting": "good morning"}}, validate=True)
        await run.wait(timeout=90, check=True)
        output = await run.output("Greeting")

    assert output.text() == "good morning\n"


async def test_a_problem_is_found_before_anything_is_sent(server: LocalServer, client: Client) -> None:
    """With its place, even if the service would not find it."""
    before = len(server.requests)

    with pytest.raises(InvalidFlowIR) as caught:
        await client.start_lambda(CIRCLE, DATA)

    message = "the components wait for each other: stage0.hi <- stage0.hi"
    assert caught.value.problems == (Problem("stage0.hi.references", message),)
    assert caught.value.errors == f"stage0.hi.references: {message}"
    assert str(caught.value) == f"the start payload was not sent: stage0.hi.references: {message}"
    assert caught.value.status is None
    assert len(server.requests) == before


async def test_a_problem_of_dsl_has_its_place_in_the_dsl(server: LocalServer, client: Client) -> None:
    """Nothing is sent."""
    dsl = copy.deepcopy(DSL)
    dsl["workflows"][0]["steps"]["greet"] = "ghost"
    before = len(server.requests)

    with pytest.raises(InvalidFlowIR, match=r"workflows\[0\]\.execute\[0\]: Node .* has no matching template"):
        await client.start_lambda(dsl, validate=True)

    assert len(server.requests) == before


async def test_without_a_check_the_service_decides(server: LocalServer, client: Client) -> None:
    """The error has its words. A definition in which it finds nothing is started."""
    with pytest.raises(InvalidFlowIR, match="Component does not have a valid ID") as caught:
        await client.start_lambda(WITHOUT_NAME, validate=False)
    assert (caught.value.status, caught.value.problems) == (400, ())
    assert str(caught.value).startswith("Invalid lambda FlowIR: Inconsistent FlowIR: Found 1 errors")
    assert str(caught.value).endswith("was refused with 400)")
    assert not hasattr(caught.value, "__notes__")

    assert await client.start_lambda(CIRCLE, DATA, validate=False)
    assert len(await client.instances.list()) == 1


async def test_the_refusal_of_unchecked_dsl_has_advice(server: LocalServer, client: Client) -> None:
    """The words of the service are about FlowIR and do not help."""
    with pytest.raises(InvalidFlowIR, match="valid ID") as caught:
        await client.start_lambda(DSL, validate=False)

    (note,) = caught.value.__notes__
    assert "this is DSL 2.0" in note
    assert "internal_experiments.push" in note


async def test_without_the_libraries_nothing_is_checked(
    server: LocalServer, client: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """That is an error only if ``validate`` is True."""

    def not_there(name: str) -> metadata.Distribution:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", not_there)

    assert await client.start_lambda(CIRCLE, DATA)
    assert not [record for record in caplog.records if record.name == "st4sd_async"]
    with pytest.raises(ConfigError, match=r'was not checked here: .*install "st4sd_async\[engine\]"'):
        await client.start_lambda(CIRCLE, DATA, validate=True)


@pytest.mark.parametrize("way", ["exit", "import", "executable"])
async def test_broken_libraries_do_not_prevent_a_start(
    way: str,
    server: LocalServer,
    client: Client,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A warning is logged, and the service checks the definition. It is an error if ``validate`` is True."""
    if way == "import":
        (tmp_path / "experiment.py").write_text("raise RuntimeError('broken')\n", "utf-8")
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    else:
        broken = tmp_path / "python"
        if way == "exit":
            broken.write_text("#!/bin/sh\nexit 3\n", "utf-8")
            broken.chmod(0o700)
        monkeypatch.setattr(sys, "executable", str(broken))

    assert await client.start_lambda(FLOWIR, DATA)

    (record,) = [record for record in caplog.records if record.name == "st4sd_async" and record.levelname == "WARNING"]
    assert "the definition was not checked here" in record.getMessage()
    with pytest.raises(ConfigError):
        await client.start_lambda(FLOWIR, DATA, validate=True)


async def test_few_definitions_are_checked_at_once(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many are started together: a check takes half a second of a processor and 50 MB."""
    journal, slow = tmp_path / "journal", tmp_path / "python"
    slow.write_text(f"#!/bin/sh\necho +1 >> {journal}; cat > {tmp_path}/$$; echo -1 >> {journal}; exit 3\n", "utf-8")
    slow.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(slow))

    async with anyio.create_task_group() as group:
        for _ in range(8):
            group.start_soon(client.start_lambda, FLOWIR, DATA)

    steps = [int(line) for line in (await anyio.Path(journal).read_text()).split()]
    assert len(steps) == 16
    assert max(accumulate(steps)) <= 2
    assert len(await client.instances.list()) == 8


async def test_a_cancelled_call_leaves_no_process(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check ends with the call."""
    pid, endless = tmp_path / "pid", tmp_path / "python"
    endless.write_text(f"#!/bin/sh\necho $$ > {pid}.part; mv {pid}.part {pid}; exec sleep 60\n", "utf-8")
    endless.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(endless))

    async with anyio.create_task_group() as group:
        group.start_soon(client.start_lambda, FLOWIR, DATA)
        while not await anyio.Path(pid).exists():  # noqa: ASYNC110 -- another process makes it
            await anyio.sleep(0.01)
        group.cancel_scope.cancel()

    with pytest.raises(ProcessLookupError):
        os.kill(int(await anyio.Path(pid).read_text()), signal.SIGKILL)


@pytest.mark.parametrize(
    ("definition", "message"),
    [
        ("flow.yaml", "a str, but a definition is a mapping: pass a file as a Path"),
        ("[1, 2]", "the YAML contains a list, but a definition is a mapping"),
        ("", "the YAML contains a NoneType"),
        ("components: [", "invalid YAML: line 1, column 14: "),
        ("a: &a [*a", "invalid YAML: "),
        (Path("ghost.yaml"), r"the file 'ghost.yaml' cannot be read: No such file"),
        (Path("latin.yaml"), r"the file 'latin.yaml' cannot be read: it is not UTF-8"),
    ],
    ids=str,
)
async def test_the_error_for_an_unreadable_definition(
    definition: str | Path, message: str, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has the line, and does not quote the definition."""
    (tmp_path / "latin.yaml").write_bytes(b"components: \xe9\n")
    monkeypatch.chdir(tmp_path)

    with pytest.raises(InvalidFlowIR, match=message) as caught:
        await client.start_lambda(definition)

    assert [where for where, _ in caught.value.problems] == ["lambdaFlowIR"]


@pytest.mark.parametrize(
    ("definition", "message"),
    [
        ({"componets": FLOWIR["components"], "variables": {}}, "componets: did you mean 'components'?"),
        ({"entrypont": {}, "worklows": []}, "entrypont: did you mean 'entrypoint'?"),
    ],
    ids=["FlowIR", "DSL"],
)
async def test_a_definition_with_a_misspelt_field_is_not_taken_for_a_payload(
    definition: dict[str, Any], message: str, server: LocalServer, client: Client
) -> None:
    """The error is about the definition."""
    before = len(server.requests)

    with pytest.raises(InvalidFlowIR, match=re.escape(message)):
        await client.start_lambda(definition)

    assert len(server.requests) == before


async def test_a_payload_with_a_misspelt_field_is_taken_for_a_payload(client: Client) -> None:
    """The error suggests the field."""
    with pytest.raises(InvalidPayload, match="did you mean 'lambdaFlowIR'") as caught:
        await client.start_lambda({"lambdaFlowIr": FLOWIR})

    assert not isinstance(caught.value, InvalidFlowIR)


async def test_yaml_needs_pyyaml(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """JSON, which is YAML too, does not."""
    monkeypatch.setitem(sys.modules, "yaml", None)

    assert await client.start_lambda(json.dumps(FLOWIR), DATA, validate=False)
    with pytest.raises(ImportError, match=r'needs PyYAML: pip install "st4sd_async\[engine\]"'):
        await client.start_lambda("components: []", validate=False)


async def test_two_payloads_or_none_are_an_error(client: Client) -> None:
    """A definition and a payload are passed, or one payload."""
    for definition, payload in [(LAMBDA, DATA), (FLOWIR, LAMBDA), (LambdaPayload.model_validate(LAMBDA), DATA)]:
        with pytest.raises(ValueError, match="there are two payloads"):
            await client.start_lambda(definition, payload)
    with pytest.raises(InvalidPayload, match="lambdaFlowIR: Field required"):
        await client.start_lambda({})
