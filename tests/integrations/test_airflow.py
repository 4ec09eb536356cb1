"""
Airflow's hook, operator, sensor and trigger, with the real Airflow.

Airflow has a virtual environment of its own, made by ``.ci/run --all``; without it these tests are skipped. No database
is needed: a task is executed with a context, and its trigger is serialised and created again, as Airflow does it.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import aclosing
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import pytest

import st4sd_async
from st4sd_async import Client, Config
from st4sd_async.local import Delay, LocalServer

pytest.importorskip("airflow", reason="Airflow is not installed")

from airflow.models import Connection
from airflow.providers_manager import ProvidersManager
from airflow.sdk import DAG
from airflow.sdk.exceptions import AirflowException, AirflowFailException, TaskDeferred
from airflow.sdk.providers_manager_runtime import ProvidersManagerTaskRuntime
from airflow.serialization.serialized_objects import BaseSerialization

from st4sd_async.integrations import airflow as integration
from st4sd_async.integrations.airflow import St4sdHook, St4sdRunSensor, St4sdRunTrigger, St4sdStartOperator

PACKAGE = Path(st4sd_async.__file__).parent
START, LIST = "POST /experiments/*/start", "GET /instances/"
INPUTS = {"molecules.csv": "smiles\nCO\n"}


class Store:
    """A task state store: texts by key, without compare and set."""

    def __init__(self, run_id: str | None = None) -> None:
        self.run_id = run_id or f"manual {uuid.uuid4()}"
        self.values: dict[str, Any] = {}

    def get(self, key: str, default: Any = None) -> Any:
        return self.values.get(key, default)

    def set(self, key: str, value: Any, *, retention: timedelta | None = None) -> None:
        self.values[key] = json.loads(json.dumps(value))


class TaskInstance(SimpleNamespace):
    """The attributes of a task instance that the operator reads."""

    def xcom_push(self, key: str, value: Any) -> None:
        self.xcoms = {**vars(self).get("xcoms", {}), key: value}


def context(store: Store, *, try_number: int = 1, max_tries: int = 0, map_index: int = -1) -> dict[str, Any]:
    ids = {"dag_id": "campaign", "run_id": store.run_id, "task_id": "measure", "map_index": map_index}
    ti = TaskInstance(**ids, try_number=try_number, max_tries=max_tries)
    return {"ti": ti, "task_state_store": store}


def operator(**options: Any) -> St4sdStartOperator:
    return St4sdStartOperator(task_id="measure", **{"experiment": "demo", "inputs": INPUTS, **options})


@pytest.fixture(scope="module")
def running() -> Iterator[LocalServer]:
    with LocalServer(speed=200, slots=1000) as server:
        push(server)
        yield server


def push(server: LocalServer) -> None:
    async def work() -> None:
        async with Client(server.url, api_key=server.api_key) as client:
            await client.push(server.example("demo"))

    anyio.run(work)


@pytest.fixture
def server(running: LocalServer, monkeypatch: pytest.MonkeyPatch) -> LocalServer:
    monkeypatch.setenv("AIRFLOW_CONN_ST4SD_DEFAULT", connection(running))
    monkeypatch.setattr(integration, "POLL_INTERVAL", 0.05)
    monkeypatch.setattr(integration, "MIN_SECONDS_DEFERRED", 0.0)
    return running


@pytest.fixture
def frozen(server: LocalServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalServer]:
    """A server whose runs end when the test advances its clock."""
    with LocalServer(speed=0) as quiet:
        push(quiet)
        monkeypatch.setenv("AIRFLOW_CONN_ST4SD_DEFAULT", connection(quiet))
        yield quiet


def connection(server: LocalServer, **changes: Any) -> str:
    return json.dumps({"conn_type": "st4sd", "host": server.url, "password": server.api_key, **changes})


def deferred(task: St4sdStartOperator, ctx: dict[str, Any]) -> TaskDeferred:
    """Execute a task up to its deferral."""
    with pytest.raises(TaskDeferred) as caught:
        task.execute(ctx)
    return caught.value


def stored(trigger: St4sdRunTrigger) -> tuple[St4sdRunTrigger, str]:
    """Return a trigger as the triggerer gets it, and the text in the database."""
    path, arguments = trigger.serialize()
    text = json.dumps(BaseSerialization.serialize(arguments))
    assert path == "st4sd_async.integrations.airflow.St4sdRunTrigger"
    return St4sdRunTrigger(**BaseSerialization.deserialize(json.loads(text))), text


def event_of(trigger: St4sdRunTrigger) -> dict[str, Any]:
    async def first() -> Any:
        async with aclosing(trigger.run()) as events:
            return (await anext(events)).payload

    found: dict[str, Any] = anyio.run(first)
    return found


def finish(task: St4sdStartOperator, ctx: dict[str, Any]) -> str:
    """Execute a task to its end, with its trigger if it is deferred."""
    try:
        return task.execute(ctx)
    except TaskDeferred as failure:
        trigger, _ = stored(failure.trigger)
        return str(getattr(task, failure.method_name)(ctx, event_of(trigger)))


def test_a_task_starts_its_run_waits_in_the_triggerer_and_returns_the_rest_uid(frozen: LocalServer) -> None:
    """The trigger holds an id of a connection and no credentials; the link leads to the registry UI."""
    task, ctx = operator(), context(Store())

    failure = deferred(task, ctx)
    trigger, text = stored(failure.trigger)
    frozen.advance(60)
    rest_uid = task.execute_complete(ctx, event_of(trigger))

    assert rest_uid == trigger.rest_uid
    assert frozen.api_key not in text
    (link,) = ctx["ti"].xcoms.values()
    assert link == f"{frozen.url}/registry-ui/experiment/demo/runs/{rest_uid}"


def test_a_retried_task_adopts_its_run(frozen: LocalServer) -> None:
    """The worker died after the response, before Airflow knew the rest-uid. The run may be over meanwhile."""
    store, retried = Store(), {"try_number": 2, "max_tries": 1}

    first = deferred(operator(), context(store)).trigger.rest_uid
    second = deferred(operator(), context(store, **retried)).trigger.rest_uid
    frozen.advance(60)
    third = operator().execute(
        context(store, **retried)
    )  # Airflow may take a task whose trigger fires at once as killed

    assert first == second == third
    assert frozen.traffic[START].requests == 1


@pytest.mark.parametrize("outcome", ["success", "component-failure"])
def test_a_sensor_of_a_run_that_is_over_is_not_deferred(frozen: LocalServer, outcome: str) -> None:
    """Airflow may take a task whose trigger fires at once as killed."""
    frozen.outcome("demo", outcome)
    rest_uid = operator(wait=False).execute(context(Store()))
    frozen.advance(60)
    sensor = St4sdRunSensor(task_id="wait", rest_uid=rest_uid)

    if outcome == "success":
        assert sensor.execute({}) == rest_uid
    else:
        with pytest.raises(AirflowException, match="ended as failed"):
            sensor.execute({})


def test_an_event_is_not_yielded_before_airflow_expects_it(
    frozen: LocalServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The scheduler must have seen the end of the worker that deferred the task."""
    rest_uid = operator(wait=False).execute(context(Store()))
    frozen.advance(60)
    monkeypatch.setattr(integration, "MIN_SECONDS_DEFERRED", 0.5)

    began = time.monotonic()
    event = event_of(St4sdRunTrigger(rest_uid))

    assert event["state"] == "success"
    assert time.monotonic() - began >= 0.5


WORKER = """
import sys
from tests.integrations.test_airflow import Store, context, operator

operator(memory=sys.argv[1]).execute(context(Store(sys.argv[2])))
"""


def test_a_worker_killed_between_send_and_response_starts_nothing_twice(
    server: LocalServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The service handles the start after the worker is dead. The next attempt finds the run."""
    monkeypatch.setattr(integration, "Config", lambda **options: Config(**options, settle=5.0))
    store, started, sent = Store(), len(server.started), server.traffic[START].requests
    server.faults.add(START, Delay(0.5))

    with subprocess.Popen([sys.executable, "-c", WORKER, str(tmp_path), store.run_id]) as child:
        while server.traffic[START].requests == sent and child.poll() is None:
            time.sleep(0.01)
        child.kill()
    assert child.returncode == -signal.SIGKILL
    rest_uid = finish(operator(memory=tmp_path), context(store, try_number=2, max_tries=1))

    assert [start.rest_uid for start in server.started[started:]] == [rest_uid]
    assert server.traffic[START].requests == sent + 1


def test_a_retry_after_a_failed_run_starts_another(server: LocalServer) -> None:
    """The task fails with the reason of the run, and the next attempt may have a corrected payload."""
    store = Store()
    with LocalServer(speed=200) as failing:
        push(failing)
        failing.outcome("demo", "component-failure")
        os.environ["AIRFLOW_CONN_ST4SD_DEFAULT"] = connection(failing)
        with pytest.raises(AirflowException, match=r"ended as failed: (?s:.*)failure of stage0.Compute"):
            finish(operator(), context(store))
        failing.outcome("demo", "success")

        finish(operator(variables={"scale": 3}), context(store, try_number=2, max_tries=1))

        assert len(failing.started) == 2


def test_a_cleared_task_adopts_its_run_unless_the_user_wants_another(server: LocalServer) -> None:
    """Clearing gives a task as many retries as at first, by which it is recognised."""
    store = Store()
    first = finish(operator(retries=1), context(store, max_tries=1))

    adopted = finish(operator(retries=1), context(store, try_number=2, max_tries=2))
    anew = finish(operator(retries=1, restart_cleared=True), context(store, try_number=2, max_tries=2))
    retried = finish(operator(retries=1, restart_cleared=True), context(store, try_number=3, max_tries=2))

    assert adopted == first != anew == retried


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"inputs": {"other.csv": "smiles\n"}}, "molecules.csv"),
        ({"experiment": "nothing"}, "nothing"),
    ],
    ids=["inputs", "experiment"],
)
def test_a_start_that_can_never_succeed_is_not_retried(
    server: LocalServer, options: dict[str, Any], message: str
) -> None:
    """The service would refuse it again."""
    with pytest.raises(AirflowFailException, match=message):
        operator(**options).execute(context(Store()))


@pytest.mark.parametrize("method", ["execute", "poke"])
def test_a_sensor_of_an_unknown_run_is_not_retried(server: LocalServer, method: str) -> None:
    """It says that there is no such run."""
    sensor = St4sdRunSensor(task_id="wait", rest_uid="demo-nothing-abcdef")

    with pytest.raises(AirflowFailException, match=r"^the run demo-nothing-abcdef could not be watched: .*not found"):
        getattr(sensor, method)({})


def test_a_rendered_file_keeps_its_last_line_break() -> None:
    """Jinja drops it by default."""
    with DAG("water"):
        task = operator(inputs={"molecules.csv": "smiles\n{{ params.molecule }}\n"})

    task.render_template_fields({"params": {"molecule": "CO"}})

    assert task.inputs == INPUTS


def test_mapped_tasks_have_keys_of_their_own(server: LocalServer) -> None:
    """Each map index starts a run."""
    store = Store()

    runs = {finish(operator(), context(store, map_index=index)) for index in range(3)}

    assert len(runs) == 3


def test_a_cleared_task_whose_templates_changed_says_what_to_do(server: LocalServer) -> None:
    """Its run, which succeeded, was started with another payload. A retry would fail in the same way."""
    store = Store()
    finish(operator(), context(store))
    cleared = context(store, try_number=2, max_tries=1)

    with pytest.raises(AirflowFailException, match=r"the payload is another one.*restart_cleared=True"):
        operator(variables={"scale": 3}).execute(cleared)

    finish(operator(variables={"scale": 3}, restart_cleared=True), cleared)


def test_200_triggers_cost_one_list_a_tick(server: LocalServer) -> None:
    """Each with a client of its own would cost 200."""
    with LocalServer(speed=0) as quiet:
        push(quiet)
        os.environ["AIRFLOW_CONN_ST4SD_DEFAULT"] = connection(quiet)

        async def wait_for_all() -> tuple[int, int]:
            async with St4sdHook().get_conn() as client:
                files = [{"filename": name, "content": text} for name, text in INPUTS.items()]
                runs = [(await client.start("demo", {"inputs": files})).id for _ in range(200)]
            before = quiet.traffic
            async with anyio.create_task_group() as tasks:
                for rest_uid in runs:
                    tasks.start_soon(St4sdRunTrigger(rest_uid).result)
                while quiet.traffic[LIST].requests < before[LIST].requests + 10:  # noqa: ASYNC110 -- no event
                    await anyio.sleep(0.02)
                after = quiet.traffic
                tasks.cancel_scope.cancel()
            lists = after[LIST].requests - before[LIST].requests
            return lists, after.requests - before.requests - lists

        lists, others = anyio.run(wait_for_all)

    assert lists == 10
    assert others <= 200 + 10 * 5  # the first look at each, and a few single ones a round


def test_a_sensor_waits_for_a_run_of_another_task(frozen: LocalServer) -> None:
    """In the triggerer, or in the worker."""
    rest_uid = operator(wait=False).execute(context(Store()))

    sensor = St4sdRunSensor(task_id="wait", rest_uid=rest_uid)
    with pytest.raises(TaskDeferred) as caught:
        sensor.execute({})
    assert not St4sdRunSensor(task_id="poke", rest_uid=rest_uid, deferrable=False).poke({})
    frozen.advance(60)
    assert sensor.execute_complete({}, event_of(caught.value.trigger)) == rest_uid
    assert St4sdRunSensor(task_id="poke", rest_uid=rest_uid, deferrable=False).poke({})


def test_a_killed_task_deletes_its_run(server: LocalServer) -> None:
    """In the triggerer while it is deferred, and in the worker otherwise; not if the user does not want it."""
    with LocalServer(speed=0) as quiet:
        push(quiet)
        os.environ["AIRFLOW_CONN_ST4SD_DEFAULT"] = connection(quiet)
        first, second, third = (operator(wait=False, cancel_on_kill=number < 2) for number in range(3))
        runs = [task.execute(context(Store())) for task in (first, second, third)]

        anyio.run(St4sdRunTrigger(runs[0], cancel_on_kill=True).on_kill)
        second.on_kill()
        third.on_kill()

        async def left() -> Counter[str]:
            async with St4sdHook().get_conn() as client:
                return Counter(instance.id for instance in await client.instances.list())

        assert anyio.run(left) == Counter({runs[2]: 1})


def test_a_killed_trigger_keeps_a_run_that_is_over(frozen: LocalServer) -> None:
    """Airflow cancels the trigger of a triggerer if another one reported the end of the run."""
    rest_uid = operator(wait=False).execute(context(Store()))
    frozen.advance(60)

    anyio.run(St4sdRunTrigger(rest_uid, cancel_on_kill=True).on_kill)

    assert St4sdRunSensor(task_id="wait", rest_uid=rest_uid).execute({}) == rest_uid


def test_a_deleted_run_fails_the_task(server: LocalServer) -> None:
    """With the reason."""
    rest_uid = operator(wait=False).execute(context(Store()))
    anyio.run(integration.delete_run, "st4sd_default", rest_uid)

    event = event_of(St4sdRunTrigger(rest_uid))

    with pytest.raises(AirflowException, match=rest_uid):
        integration.completed(event)
    with pytest.raises(AirflowException, match=rest_uid):
        St4sdRunSensor(task_id="wait", rest_uid=rest_uid).execute({})


@pytest.mark.filterwarnings("ignore:ProvidersManager.hooks is deprecated")  # by Airflow itself
@pytest.mark.parametrize(
    ("changes", "is_valid", "message"),
    [
        ({}, True, "{url}/ accepts the credentials"),
        ({"password": "wrong-key"}, False, "credentials are missing, wrong or expired"),
        ({"host": None}, False, "has no host: set it to the URL of the deployment"),
        ({"extra": {"ca_file": "missing.pem"}}, False, "missing.pem"),
    ],
    ids=["valid", "wrong key", "no host", "no CA file"],
)
def test_the_button_tests_a_connection(
    server: LocalServer, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], is_valid: bool, message: str
) -> None:
    """As the API server does it. The message says what is wrong, without the key."""
    fields = {**json.loads(connection(server)), **changes}
    entered = Connection(conn_id="entered", **fields)
    monkeypatch.setenv("AIRFLOW_CONN_ENTERED", entered.get_uri())

    accepted, shown = entered.test_connection()

    assert accepted is is_valid
    assert message.format(url=server.url) in shown
    assert "wrong-key" not in shown


def test_airflow_finds_the_provider() -> None:
    """Its entry point names the type of the connection, the fields of its form, and the link."""
    manager = ProvidersManager()
    manager.initialize_providers_hooks()

    assert ProvidersManagerTaskRuntime().hooks["st4sd"].hook_name == "ST4SD"
    assert manager.field_behaviours["st4sd"]["relabeling"]["password"] == "API key"
    assert manager.connection_form_widgets["extra__st4sd__auth_token"].is_sensitive
    assert "st4sd_async.integrations.airflow.St4sdRunLink" in manager.extra_links_class_names


def test_the_dag_of_the_page_has_its_tasks() -> None:
    """It is the third block of the page about orchestrators."""
    page = PACKAGE / "docs" / "orchestrators.md"
    names: dict[str, Any] = {}

    exec(re.findall(r"```python\n(.*?)```", page.read_text("utf-8"), re.DOTALL)[2], names)

    assert set(names["dag"].task_ids) == {"inputs", "measure", "table"}


@pytest.mark.slow
@pytest.mark.timeout(400)  # Airflow starts three times, and migrates a database
def test_the_example_runs_in_airflow(tmp_path: Path) -> None:
    """With Airflow's database, state store, deferral and mapping over three molecules."""
    example = PACKAGE / "examples" / "airflow_molecules.py"
    environment = {
        **os.environ,
        "AIRFLOW_HOME": str(tmp_path),
        "AIRFLOW__CORE__DAGS_FOLDER": str(example.parent),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "PYTHONPATH": str(PACKAGE.parent),
    }

    for command in (["-m", "airflow", "db", "migrate"], ["-m", "airflow", "dags", "reserialize"], [str(example)]):
        done = subprocess.run([sys.executable, *command], env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    assert len(set(re.findall(r"the run is (demo-\w+-\w+)", done.stdout))) == 3
    assert re.findall(r"^demo-\S+,(C+O),\1,-", done.stdout, re.MULTILINE) == ["CO", "CCO", "CCCO"]
