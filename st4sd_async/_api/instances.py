"""Executions of experiments: ``instances/`` of the runtime service."""

from __future__ import annotations

import builtins
import logging
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import pydantic

from .._errors import APIError, UnknownRun
from .._http.call import Call, Response, is_file, model, nothing, parse_json, segment, subpath
from .._http.call import list_call as request_list
from .._http.json_list import MAX_LIST_BYTES
from .._http.retry import Replay
from .._util.printable import shorten
from ..models import Instance, KeyOutput, Output, Status
from ..models._base import parse_leniently
from ..models.outputs import KeyOutputs
from ..models.properties import is_table
from ..models.runs import Instances as InstanceList
from ..models.runs import check_rest_uid, of_run
from .group import DEFER_BUILD, Group, properties_params

log = logging.getLogger("st4sd_async")

LEFT_OUT = "left out %d of %d instances in the list of the service, which cannot be parsed; the first: %s"

_OUTPUTS: pydantic.TypeAdapter[dict[str, KeyOutput]] = pydantic.TypeAdapter(dict[str, KeyOutput], config=DEFER_BUILD)


def instance_path(rest_uid: str) -> str:
    """Return the path of one instance; raise ValueError if the text is not a rest-uid."""
    if not isinstance(rest_uid, str):
        advice = "use the client's method of that name" if hasattr(rest_uid, "id") else "is an 'await' missing?"
        raise TypeError(f"a rest-uid must be a string, not {type(rest_uid).__name__}: pass run.id, or {advice}")
    return f"instances/{check_rest_uid(rest_uid)}"


def list_call(keep: Callable[[Mapping[str, Any]], bool] | None = None) -> Call[list[Instance]]:
    """Return the request for all instances, or for those of which ``keep`` returns True for the raw item."""
    return request_list(
        "instances/", partial(_InstanceReader, keep), max_list_bytes=None if keep is None else MAX_LIST_BYTES
    )


def get_call(rest_uid: str, params: Mapping[str, str] | None = None) -> Call[Instance]:
    """Return the request for everything about one instance."""
    return Call("GET", instance_path(rest_uid), model(Instance), params=params, not_found_error=UnknownRun)


def status_call(rest_uid: str) -> Call[Status]:
    """Return the request for the status of one instance. "No status yet" becomes a pending status."""

    def decode(response: Response) -> Status:
        return of_run(Status.model_validate(response.json()), rest_uid)

    def recover(error: APIError) -> Status | None:
        has_none = error.status == 400 and "does not have a status yet" in error.message
        return of_run(Status.pending(error.detail), rest_uid) if has_none else None

    return Call("GET", f"{instance_path(rest_uid)}/status", decode, not_found_error=UnknownRun, recover=recover)


def outputs_call(rest_uid: str) -> Call[dict[str, KeyOutput]]:
    """Return the request for the key-outputs that exist now."""
    path = f"{instance_path(rest_uid)}/outputs"
    return Call(
        "GET",
        path,
        lambda response: KeyOutputs(parse_leniently(_OUTPUTS.validate_python, response.json())),
        not_found_error=UnknownRun,
    )


def output_call(rest_uid: str, name: str, path: str | None) -> Call[Output]:
    """Return the request for the contents of a key-output, or of a file or folder in it."""
    return Call(
        "GET",
        _output_path(rest_uid, name, path),
        lambda response: _output(name, response),
        expected="a file",
        is_slow=True,
        not_found_error=UnknownRun,
    )


def output_file_call(rest_uid: str, name: str, path: str | None = None) -> Call[Any]:
    """Return the request for the contents of a key-output, or of a path in it, to be streamed."""
    where = _output_path(rest_uid, name, path)
    return Call("GET", where, _no_file, expected="a file", is_slow=True, not_found_error=UnknownRun)


def _output_path(rest_uid: str, name: str, path: str | None) -> str:
    output = f"{instance_path(rest_uid)}/outputs/{segment(name, 'the name of a key-output')}"
    return output if path is None else f"{output}/{subpath(path)}"


def properties_call(rest_uid: str, params: Mapping[str, str] | None = None) -> Call[dict[str, list[Any]]]:
    """Return the request for the measured properties, column by column."""
    path = f"{instance_path(rest_uid)}/properties"
    return Call("GET", path, _columns, params=params, is_slow=True, not_found_error=UnknownRun)


def delete_call(rest_uid: str) -> Call[None]:
    """Return the request that stops and deletes an instance. The service responds with 400 for an unknown one."""
    return Call(
        "DELETE",
        instance_path(rest_uid),
        nothing,
        replay=Replay.DELETE,
        not_found_error=UnknownRun,
        not_found_statuses=(400, 404),
    )


class Instances(Group):
    """
    Executions of experiments, by rest-uid.

    All methods raise `UnknownRun` if there is no such instance, and `TransportError`, `Unauthorized` or another
    `APIError` if the service cannot be reached or refuses the request.
    """

    async def list(self) -> builtins.list[Instance]:
        """
        Return all instances, in no particular order. [] if there are none.

        They come in one response, about 2 to 5 KB each. The service leaves out instances that it fails to read, and
        does not look at the cluster: a status in the list never shows waiting or start-up failures. An item that this
        library cannot parse, such as one with an invalid id, is left out too, with one WARNING in the log. If no item
        can be parsed, `DecodeError` is raised. Once an instance runs, ``status.meta.user_metadata`` is the
        ``metadata`` that it was started with.

        Source: ``GET instances/``.
        """
        return await self._session.send(list_call())

    async def get(
        self, rest_uid: str, *, include_properties: Iterable[str] | None = None, stringify_nan: bool = False
    ) -> Instance:
        """
        Return everything that the service stores about an instance: status, key-outputs, labels, the definition.

        Args:
            rest_uid: The instance.
            include_properties: Columns of measured properties, in any case. ``["*"]`` means all, None means none. They
                are in ``property_table``, always with ``input-id``. A column that was not measured is left out.
            stringify_nan: Return missing numbers as the text ``NaN`` and not as floats.

        Raises:
            NotReady: Properties were requested, and the instance is still running.
            NoProperties: Properties were requested, and the experiment measures none.
            ServerError: Properties were requested, and there is no status yet.

        Source: ``GET instances/{id}``.
        """
        params = properties_params(include_properties, stringify_nan=stringify_nan)
        return await self._session.send(get_call(rest_uid, params))

    async def status(self, rest_uid: str) -> Status:
        """
        Return the status of an instance. While the service has none, it is pending, and every field is None.

        Source: ``GET instances/{id}/status``.
        """
        return await self._session.send(status_call(rest_uid))

    async def outputs(self, rest_uid: str) -> dict[str, KeyOutput]:
        """
        Return the key-outputs that exist now, by name. {} if there are none yet.

        Source: ``GET instances/{id}/outputs``.
        """
        return await self._session.send(outputs_call(rest_uid))

    async def output(self, rest_uid: str, name: str, path: str | None = None) -> Output:
        """
        Return the contents of a key-output: a file unchanged, a folder as a zip archive.

        Args:
            rest_uid: The instance.
            name: The key-output.
            path: A file or folder in it, such as ``"sub/b.bin"``. None means all of it.

        Raises:
            UnknownOutput: There is no such key-output, or not yet, or no such file in it.
            NotAFolder: ``path`` is given, and the key-output is a file.
            OutsideOfFolder: ``path`` leads out of the folder.
            DecodeError: The response is not a file, but for example the web page of a proxy.

        Source: ``GET instances/{id}/outputs/{name}``.
        """
        return await self._session.send(output_call(rest_uid, name, path))

    async def properties(
        self, rest_uid: str, *, include_properties: Iterable[str] | None = None, stringify_nan: bool = False
    ) -> dict[str, builtins.list[Any]]:
        """
        Return the properties that an instance measured: column name -> values, in rows sorted by ``input-id``.

        Values that could not be measured are NaN. Column names are lower-case. `Client.properties` returns the same as
        a table.

        Args:
            rest_uid: The instance.
            include_properties: Columns, in any case, in addition to ``input-id``. None means all. A column that was
                not measured is left out.
            stringify_nan: Return missing numbers as the text ``"NaN"`` and not as floats.

        Raises:
            NotReady: The instance is still running, or its status is not complete yet.
            ServerError: There is no status yet.
            NoProperties: The instance is over and measured none.

        Source: ``GET instances/{id}/properties``.
        """
        params = properties_params(include_properties, stringify_nan=stringify_nan)
        return await self._session.send(properties_call(rest_uid, params))

    async def delete(self, rest_uid: str) -> None:
        """
        Stop an instance and delete it. Its files stay. Returns before the instance has stopped.

        Source: ``DELETE instances/{id}``.
        """
        await self._session.send(delete_call(rest_uid))


class _InstanceReader:
    """Keeps the instances of a list that are wanted and can be parsed."""

    def __init__(self, keep: Callable[[Mapping[str, Any]], bool] | None) -> None:
        self._keep = keep
        self._found: list[Instance] = []
        self._unwanted = self._left_out = 0
        self._first_problem = ""

    def add(self, text: bytes, /) -> None:
        """Take the next item."""
        item = parse_json(text)
        if self._keep is not None and isinstance(item, dict) and not self._keep(item):
            self._unwanted += 1
            return
        try:
            self._found.append(Instance.model_validate(item))
        except pydantic.ValidationError as error:
            self._left_out += 1
            if not self._first_problem:
                first = error.errors(include_url=False, include_input=False, include_context=False)[0]
                self._first_problem = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"

    def end(self) -> builtins.list[Instance]:
        """Return the instances; log a warning if some were left out."""
        if self._left_out and not self._found and not self._unwanted:
            raise ValueError("not a list of instances")
        if self._left_out:
            total = self._left_out + len(self._found) + self._unwanted
            log.warning(LEFT_OUT, self._left_out, total, shorten(self._first_problem))
        return InstanceList(self._found)


def _columns(response: Response) -> dict[str, list[Any]]:
    table = response.json()
    if not is_table(table):
        raise ValueError("not a table of properties")
    return table


def _no_file(response: Response) -> None:
    raise ValueError("not a file")


def _output(name: str, response: Response) -> Output:
    if not is_file(response.headers):
        raise ValueError("not a file")
    media_type = response.headers["content-type"].partition(";")[0].strip().lower()
    filename = filename_in(response.headers.get("content-disposition", "")) or name
    return Output(name=name, filename=filename, content=response.body, media_type=media_type)


def filename_in(disposition: str) -> str:
    """Return the name in a Content-Disposition header, in which the service escapes neither quotes nor UTF-8."""
    _, _, name = disposition.partition('filename="')
    return name.rpartition('"')[0]
