"""
Hook, operator, sensor and trigger for Apache Airflow 3.3 or newer. Needs the extra ``airflow``.

    from st4sd_async.integrations.airflow import St4sdStartOperator

    St4sdStartOperator(task_id="measure", experiment="demo", inputs={"molecules.csv": "{{ params.molecules }}"})

The operator starts an instance once per task instance, even if its worker dies between the send and the response. Then
it is deferred: one trigger per run waits in the triggerer, and all triggers of a deployment share one client, so that
all their runs are watched with one list at a time.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote

from airflow.sdk import NEVER_EXPIRE, BaseHook, BaseOperator, BaseOperatorLink, BaseSensorOperator
from airflow.sdk.exceptions import AirflowException, AirflowFailException
from airflow.sdk.execution_time.xcom import XCom
from airflow.triggers.base import BaseTrigger, TriggerEvent

from .. import (
    Client,
    Config,
    FolderMemory,
    InvalidPayload,
    LaunchConflict,
    Memory,
    Run,
    RunDeleted,
    St4sdError,
    StartOutcomeUnknown,
    Status,
    UnknownExperiment,
    UnknownRun,
)
from .._util.threads import in_thread
from ..sync import Client as BlockingClient

__all__ = [
    "St4sdHook",
    "St4sdRunLink",
    "St4sdRunSensor",
    "St4sdRunTrigger",
    "St4sdStartOperator",
    "TaskStateMemory",
]

DEFAULT_CONNECTION = "st4sd_default"
"""Id of the connection that is used if none is named."""
POLL_INTERVAL = 10.0
"""Seconds between two lists of instances while runs are watched."""
MAX_STORED_NAME_LENGTH = 512
"""Maximum number of characters of a key in Airflow's task state store. Source: airflow/models/task_state_store.py."""
MIN_SECONDS_DEFERRED = 10.0
"""
Minimum number of seconds from the start of a trigger to its event. The scheduler handles the end of the worker that
deferred the task in each of its loops: about once a second, but up to 6 s late on a busy machine. If the task is
resumed and executed again before that, the scheduler takes it as killed. Source: process_executor_events in
airflow/jobs/scheduler_job_runner.py.
"""
URL_KEY = "st4sd_run_url"
"""XCom key of the address of a run in the registry UI."""


class St4sdHook(BaseHook):
    """
    Connects to a deployment, with a connection of the type ``st4sd``.

    | field of the connection | meaning |
    |---|---|
    | host | address of the deployment, such as ``https://st4sd.example``. Without a scheme it is https |
    | password | API key |
    | extra ``auth_token`` | token from ``<url>/authorisation/token``, if there is no API key |
    | extra ``ca_file`` | file with the certificate of a private authority, on each worker and triggerer |

    Args:
        st4sd_conn_id: Id of the connection.
    """

    conn_name_attr = "st4sd_conn_id"
    default_conn_name = DEFAULT_CONNECTION
    conn_type = "st4sd"
    hook_name = "ST4SD"

    def __init__(self, st4sd_conn_id: str = DEFAULT_CONNECTION) -> None:
        super().__init__()
        self.st4sd_conn_id = st4sd_conn_id

    def get_conn(self) -> AbstractAsyncContextManager[Client]:
        """
        Return a context manager for the client of this event loop, which all users of the connection share.

            async with St4sdHook().get_conn() as client:
                status = await client.status(rest_uid)
        """
        return self._connect()

    @asynccontextmanager
    async def _connect(self) -> AsyncGenerator[Client]:
        connection = await self.aget_connection(self.st4sd_conn_id)
        async with Client.shared(**client_options(connection)) as client:
            yield client

    def test_connection(self) -> tuple[bool, str]:
        """Return whether the deployment accepts the connection, and a sentence for the user."""

        async def check() -> str:
            async with self.get_conn() as client:
                return client.url

        try:
            return True, f"{asyncio.run(check())} accepts the credentials"
        except (St4sdError, ValueError, OSError) as error:
            return False, str(error)


def client_options(connection: Any) -> dict[str, Any]:
    """
    Return the arguments of `Client` for an Airflow connection.

    Raises:
        ConfigError: A setting is invalid.
        ValueError: The connection has no host.
    """
    if not connection.host:
        raise ValueError(f"the connection {connection.conn_id!r} has no host: set it to the URL of the deployment")
    url = connection.host
    if "://" not in url:
        url = f"{connection.schema or 'https'}://{url}" + (f":{connection.port}" if connection.port else "")
    extra = connection.extra_dejson
    ca_file = extra.get("ca_file")
    config = Config(poll_interval=POLL_INTERVAL, verify=Path(ca_file) if ca_file else True)
    return {
        "url": url,
        "api_key": connection.password or None,
        "auth_token": extra.get("auth_token"),
        "config": config,
    }


class TaskStateMemory:
    """
    A memory in Airflow's task state store, which keeps what a task instance stores from one attempt to the next.

    The store cannot compare and set in one step. Airflow runs one attempt of a task instance at a time, so that this is
    enough for the keys of one task instance. Use a `FolderMemory` for keys that several tasks share.

    Records are kept as long as the dag run. With the setting ``[state_store] clear_on_success`` they are deleted when
    the task succeeds.

    Args:
        store: ``context["task_state_store"]``.
    """

    def __init__(self, store: Any) -> None:
        self._store = store

    async def get(self, name: str, /) -> str | None:
        """Return the record with this name; None if there is none."""
        found: str | None = await in_thread(self._store.get, _stored_name(name))
        return found

    async def compare_and_set(self, name: str, old: str | None, new: str, /) -> bool:
        """Replace a record if it has not changed. See `Memory.compare_and_set`."""
        if await self.get(name) != old:
            return False
        await in_thread(partial(self._store.set, _stored_name(name), new, retention=NEVER_EXPIRE))
        return True


def _stored_name(name: str) -> str:
    return name if len(name) <= MAX_STORED_NAME_LENGTH else hashlib.sha256(name.encode()).hexdigest()


class St4sdRunLink(BaseOperatorLink):
    """Link from a task to its run in the registry UI."""

    name = "ST4SD run"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        """Return the address; "" before the run was started."""
        return XCom.get_value(key=URL_KEY, ti_key=ti_key) or ""


class St4sdStartOperator(BaseOperator):
    """
    Start an instance of an experiment once per task instance, and wait for its end.

    The key of the start is made of the ids of the dag, the run and the task, and of the map index. If the worker dies
    at any moment, the next attempt finds the instance. An attempt after a run that failed or was deleted starts another
    one.

    The XCom value is the rest-uid. The task fails if the run does, with the last lines of the failed components. It
    fails without a retry if the payload is invalid, if there is no such experiment, or if it is cleared after its run
    succeeded, and its templates now have other values.

    Args:
        experiment: ``name``, ``name:tag`` or ``name@digest``. Templated.
        inputs: Input files: name -> text, or a `Path` that the worker reads. Templated.
        data: Data files of the package to replace, in the same form. Templated.
        variables: Variables to set: name -> value. Templated.
        platform: Platform to execute on. None means the default. Templated.
        metadata: Metadata to keep with the instance: name -> value. Templated.
        st4sd_conn_id: Id of the connection.
        memory: Folder that all workers share, or a `Memory`, for the record of the start. None means Airflow's task
            state store: see `TaskStateMemory`.
        wait: Whether to wait for the end of the run. If not, the task succeeds once the run is started.
        deferrable: Whether to wait in the triggerer, which occupies no worker.
        restart_cleared: Whether clearing the task starts another instance. If not, the task adopts the one that it
            started before, unless that failed or was deleted. A task that is cleared while it is executed in a worker
            is retried: Airflow does not distinguish the two.
        cancel_on_kill: Whether to delete the run if the task is killed, cleared or marked while it waits. A worker that
            is shut down kills its tasks. If the triggerer is restarted, its runs continue.
    """

    template_fields: Sequence[str] = ("experiment", "inputs", "data", "variables", "platform", "metadata")
    template_fields_renderers: ClassVar[dict[str, str]] = {"inputs": "json", "variables": "json", "metadata": "json"}
    ui_color = "#d0e2ff"
    operator_extra_links = (St4sdRunLink(),)

    def __init__(
        self,
        *,
        experiment: str,
        inputs: Mapping[str, str | Path] | None = None,
        data: Mapping[str, str | Path] | None = None,
        variables: Mapping[str, Any] | None = None,
        platform: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        st4sd_conn_id: str = DEFAULT_CONNECTION,
        memory: str | Path | Memory | None = None,
        wait: bool = True,
        deferrable: bool = True,
        restart_cleared: bool = False,
        cancel_on_kill: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.experiment, self.inputs, self.data, self.variables = experiment, inputs, data, variables
        self.platform, self.metadata = platform, metadata
        self.st4sd_conn_id, self.memory = st4sd_conn_id, memory
        self.wait, self.deferrable = wait, deferrable
        self.restart_cleared, self.cancel_on_kill = restart_cleared, cancel_on_kill
        self._rest_uid: str | None = None
        self._options: dict[str, Any] | None = None

    def render_template(
        self, content: Any, context: Any, jinja_env: Any = None, seen_oids: set[int] | None = None
    ) -> Any:
        """Render templates, but keep the last line break of a text, which belongs to its file."""
        environment = jinja_env or self.get_template_env()
        if not environment.keep_trailing_newline:  # Jinja's default
            environment = environment.overlay(keep_trailing_newline=True)
        return super().render_template(content, context, environment, seen_oids)

    def execute(self, context: Any) -> str:
        """Start the instance, or find the one that an earlier attempt started. Then wait for its end."""
        rest_uid, link, event = asyncio.run(self._start(context))
        context["ti"].xcom_push(key=URL_KEY, value=link)
        self.log.info("the run is %s: %s", rest_uid, link)
        if not self.wait:
            return rest_uid
        if event is not None:
            return self.execute_complete(context, event)
        trigger = St4sdRunTrigger(rest_uid, self.st4sd_conn_id, cancel_on_kill=self.cancel_on_kill)
        if self.deferrable:
            self.defer(trigger=trigger, method_name="execute_complete", timeout=self.execution_timeout)
        return self.execute_complete(context, asyncio.run(trigger.result()))

    def execute_complete(self, context: Any, event: dict[str, Any]) -> str:
        """
        Return the rest-uid after the run has ended.

        Raises:
            AirflowException: It has failed, was deleted, or could not be watched.
        """
        return completed(event)

    def on_kill(self) -> None:
        """Delete the run if the task is killed while it waits in the worker."""
        if self.cancel_on_kill and self._rest_uid and self._options:
            # Airflow calls this in a signal handler, where the event loop may be running.
            with BlockingClient(**self._options) as client:
                client.delete(self._rest_uid)

    def start_key(self, context: Any) -> str:
        """Return the key of the start, which all attempts of a task instance share."""
        ti = context["ti"]
        parts = [ti.dag_id, ti.run_id, ti.task_id, str(ti.map_index)]
        # Clearing sets max_tries to the attempts so far plus the retries. Retries leave it unchanged.
        # Source: clear_task_instances in airflow/models/taskinstance.py.
        cleared = (ti.max_tries or 0) - (self.retries or 0)
        if self.restart_cleared and cleared > 0:
            parts.append(f"cleared {cleared}")
        return "/".join(parts)

    async def _start(self, context: Any) -> tuple[str, str, dict[str, Any] | None]:
        """Return the rest-uid of the run of this task instance, its address in the registry UI, and its event if it
        is already over."""
        hook = St4sdHook(self.st4sd_conn_id)
        self._options = client_options(await hook.aget_connection(self.st4sd_conn_id))
        async with hook.get_conn() as client:
            try:
                self._rest_uid = rest_uid = await self._start_unless_failed(client, context)
            except LaunchConflict as error:
                advice = (
                    "its templates had other values before: set restart_cleared=True and clear the task to start "
                    "another run with the present values, or restore the former ones"
                )
                what = str(error).removesuffix(f"; {error.advice}")
                raise AirflowFailException(f"{what}; {advice}") from error
            except (InvalidPayload, UnknownExperiment) as error:
                raise AirflowFailException(str(error)) from error
            name = quote(self.experiment, safe=":@")
            link = f"{client.url}registry-ui/experiment/{name}/runs/{rest_uid}"
            event = None
            if self.wait:
                with suppress(St4sdError):  # the trigger waits longer, and says why it failed
                    event = await _event_if_final(client, rest_uid)
            return rest_uid, link, event

    async def _start_unless_failed(self, client: Client, context: Any) -> str:
        memory, key = self._memory(context), self.start_key(context)
        last = context["ti"].try_number - 1
        for failures in range(last):
            attempt = f"{key}/{failures}" if failures else key
            # The payload of a failed run may have been corrected, so that `start` would refuse it for this key.
            if not await self._has_failed_run(client, attempt, memory):
                run = await self._start_with(client, attempt, memory)
                if not await _has_failed(client, run.id):
                    return run.id
        return (await self._start_with(client, f"{key}/{last}" if last else key, memory)).id

    async def _has_failed_run(self, client: Client, key: str, memory: Memory) -> bool:
        with suppress(StartOutcomeUnknown):
            run = await client.find(key, memory=memory)
            return run is not None and await _has_failed(client, run.id)
        return False

    async def _start_with(self, client: Client, key: str, memory: Memory) -> Run:
        return await client.start(
            self.experiment,
            inputs=self.inputs,
            data=self.data,
            variables=self.variables,
            platform=self.platform,
            metadata=self.metadata,
            key=key,
            memory=memory,
        )

    def _memory(self, context: Any) -> Memory:
        if isinstance(self.memory, str | Path):
            return FolderMemory(self.memory)
        return self.memory or TaskStateMemory(context["task_state_store"])


class St4sdRunSensor(BaseSensorOperator):
    """
    Wait for the end of a run that something else started.

    The XCom value is the rest-uid. The task fails if the run does, and without a retry if there is no such run.

    Args:
        rest_uid: The run. Templated.
        st4sd_conn_id: Id of the connection.
        deferrable: Whether to wait in the triggerer, which occupies no worker.
    """

    template_fields: Sequence[str] = ("rest_uid",)

    def __init__(
        self, *, rest_uid: str, st4sd_conn_id: str = DEFAULT_CONNECTION, deferrable: bool = True, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.rest_uid, self.st4sd_conn_id, self.deferrable = rest_uid, st4sd_conn_id, deferrable

    def execute(self, context: Any) -> Any:
        """Wait for the end of the run."""
        if not self.deferrable:
            super().execute(context)
            return self.rest_uid
        event = None
        with suppress(St4sdError):  # the trigger waits longer, and says why it failed
            event = asyncio.run(self._event_if_final())
        if event is not None:
            return self.execute_complete(context, event)
        trigger = St4sdRunTrigger(self.rest_uid, self.st4sd_conn_id)
        return self.defer(trigger=trigger, method_name="execute_complete", timeout=timedelta(seconds=self.timeout))

    def execute_complete(self, context: Any, event: dict[str, Any]) -> str:
        """Return the rest-uid after the run has ended. Raises AirflowException if it has failed."""
        return completed(event)

    def poke(self, context: Any) -> bool:
        """Return whether the run has ended. Raises AirflowException if it has failed."""
        event = asyncio.run(self._event_if_final())
        return event is not None and bool(completed(event))

    async def _event_if_final(self) -> dict[str, Any] | None:
        async with St4sdHook(self.st4sd_conn_id).get_conn() as client:
            try:
                return await _event_if_final(client, self.rest_uid)
            except UnknownRun as error:
                if not error.detail:  # the response of a proxy
                    raise
                raise AirflowFailException(f"the run {self.rest_uid} could not be watched: {error}") from error


class St4sdRunTrigger(BaseTrigger):
    """
    Wait for the end of a run in the triggerer.

    All triggers of a connection share one client. The event is a dictionary: ``rest_uid``, ``state`` (``success``,
    ``failed``, ``deleted`` or ``error``) and ``message``.

    Args:
        rest_uid: The run.
        st4sd_conn_id: Id of the connection. The trigger stores no credentials.
        cancel_on_kill: Whether to delete the run if the user kills, clears or marks the task.
    """

    def __init__(self, rest_uid: str, st4sd_conn_id: str = DEFAULT_CONNECTION, *, cancel_on_kill: bool = False) -> None:
        super().__init__()
        self.rest_uid, self.st4sd_conn_id, self.cancel_on_kill = rest_uid, st4sd_conn_id, cancel_on_kill

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments, from which Airflow creates the trigger again."""
        arguments = {
            "rest_uid": self.rest_uid,
            "st4sd_conn_id": self.st4sd_conn_id,
            "cancel_on_kill": self.cancel_on_kill,
        }
        return f"{__name__}.{type(self).__name__}", arguments

    async def run(self) -> AsyncGenerator[TriggerEvent]:
        """Yield one event at the end of the run, but not before `MIN_SECONDS_DEFERRED`."""
        loop = asyncio.get_running_loop()
        earliest = loop.time() + MIN_SECONDS_DEFERRED
        event = await self.result()
        await asyncio.sleep(max(0.0, earliest - loop.time()))
        yield TriggerEvent(event)

    async def result(self) -> dict[str, Any]:
        """Wait for the end of the run, and return the content of the event."""
        try:
            async with St4sdHook(self.st4sd_conn_id).get_conn() as client:
                return await _event_at_end(client, self.rest_uid)
        except (St4sdError, ValueError) as error:
            return {"rest_uid": self.rest_uid, "state": "error", "message": str(error)}

    async def on_kill(self) -> None:
        """Delete the run if `cancel_on_kill` is set, unless it is over: another triggerer may have reported its end."""
        if self.cancel_on_kill:
            async with St4sdHook(self.st4sd_conn_id).get_conn() as client:
                if not (await client.status(self.rest_uid)).is_final:
                    await client.delete(self.rest_uid)


async def _has_failed(client: Client, rest_uid: str) -> bool:
    """Return whether a run has ended without success, or was deleted."""
    try:
        status = await client.status(rest_uid)
    except UnknownRun:
        return True
    return status.is_final and not status.is_success


async def _event_if_final(client: Client, rest_uid: str) -> dict[str, Any] | None:
    """Return the content of the event of a run; None if it has not ended."""
    try:
        status = await client.status(rest_uid)
    except UnknownRun as error:
        if not error.detail:  # the response of a proxy
            raise
        return await _event_at_end(client, rest_uid)  # the datastore may have the end of a deleted run
    return await _event(client, rest_uid, status) if status.is_final else None


async def _event_at_end(client: Client, rest_uid: str) -> dict[str, Any]:
    """Wait for the end of a run, and return the content of its event."""
    try:
        return await _event(client, rest_uid, await client.wait(rest_uid))
    except RunDeleted as error:
        return {"rest_uid": rest_uid, "state": "deleted", "message": str(error)}


async def _event(client: Client, rest_uid: str, status: Status) -> dict[str, Any]:
    if status.is_success:
        return {"rest_uid": rest_uid, "state": "success", "message": ""}
    failure = await client.failure(rest_uid)
    message = str(failure) if failure is not None else str(status)
    return {"rest_uid": rest_uid, "state": "failed", "message": message}


async def delete_run(st4sd_conn_id: str, rest_uid: str) -> None:
    """Stop and delete a run."""
    async with St4sdHook(st4sd_conn_id).get_conn() as client:
        await client.delete(rest_uid)


def completed(event: Mapping[str, Any]) -> str:
    """Return the rest-uid in the event of a trigger. Raises AirflowException if the run did not succeed."""
    rest_uid, state = str(event["rest_uid"]), event["state"]
    if state != "success":
        what = "could not be watched" if state == "error" else f"ended as {state}"
        raise AirflowException(f"the run {rest_uid} {what}: {event['message']}")
    return rest_uid
