"""One odd field of a reply never hides the rest."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from itertools import product
from typing import Any

import pytest

from st4sd_async import Client, Config, DecodeError, NotFound, models
from st4sd_async._http.call import Response
from st4sd_async.local import LocalServer
from st4sd_async.local import Reply as Answer
from st4sd_async.models import KeyOutput, Status
from st4sd_async.models._base import Reply
from tests.tries import sample

JSON = {"Content-Type": "application/json"}
ODD: list[Any] = [
    None, True, False, 0, -1, 10**30, float("inf"), float("nan"), 1e20, "", "\u00b2", "1e400", "9" * 5000, "\ud800",
    "\x1b[2J", "inf", "nan", "1e20", "-1e20", "None", "{[]: 1}", "[" * 5000, [], [None], [[]], [{}], [5], {},
    {"x": None}, {"x": []}, {"x": {}}, {"\x1b": 5}, [{"name": []}, {"name": "good"}],
    [{"tag": "1.0", "head": "d"}, {"tag": 5}],
]  # fmt: skip
REQUIRED = {"id": "demo-1", "experiment": {}, "pvep": {}, "result": {}, "dsl": {}}


def classes(root: type[Reply] = Reply) -> Iterator[type[Reply]]:
    """All models of replies."""
    for child in root.__subclasses__():
        yield child
        yield from classes(child)


for _name in models.__all__:
    getattr(models, _name)  # a class that is not imported is no subclass yet
CLASSES = sorted(set(classes()), key=lambda cls: cls.__qualname__)


def spelt(cls: type[Reply], name: str) -> str:
    """The service's name of a field."""
    field = cls.model_fields[name]
    alias = field.validation_alias or field.alias or name
    return alias if isinstance(alias, str) else str(alias.choices[0])  # type: ignore[union-attr] # one of several


def smallest(cls: type[Reply]) -> dict[str, Any]:
    """The least that can be read."""
    names = [spelt(cls, name) for name, field in cls.model_fields.items() if field.is_required()]
    return {name: REQUIRED.get(name, "x") for name in names}


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__qualname__)
def test_a_field_that_cannot_be_read_is_as_if_it_were_missing(cls: type[Reply]) -> None:
    """All other fields are parsed, and ``raw`` has the original value."""
    base = {**smallest(cls), "of the user": 1}
    least = cls.model_validate(base)
    optional = [name for name, field in cls.model_fields.items() if not field.is_required()]

    for name in optional:
        key = spelt(cls, name)
        if key in cls._vital:
            continue
        for odd in sample(ODD, 17):
            raw = {**base, key: odd}

            read = cls.model_validate(raw)

            assert read.raw == raw or odd != odd  # NaN
            others = [other for other in cls.model_fields if other != name]
            assert [getattr(read, other) for other in others] == [getattr(least, other) for other in others]


def test_an_item_that_cannot_be_read_does_not_hide_the_other_items() -> None:
    """Of a list inside of a reply."""
    history = models.History.model_validate(
        {"tags": [{"tag": "1.0", "head": "a"}, 5, {"tag": "2.0"}, {"tag": "3.0", "head": "b", "timesExecuted": "odd"}]}
    )
    experiment = models.Experiment.model_validate(
        {"metadata": {"registry": {"inputs": [{"name": "a.csv"}, None, "b.csv"], "tags": ["latest", 5], "digest": "d"}}}
    )

    found = [(one.tag, one.digest, one.times_executed) for one in history.tags]
    assert found == [("1.0", "a", None), ("3.0", "b", None)]
    assert [one.name for one in experiment.metadata.registry.inputs] == ["a.csv"]
    assert (experiment.tags, experiment.digest) == (["latest"], "d")


@pytest.mark.parametrize(
    ("moment", "version"),
    sample(
        product(
            ["inf", "-inf", "nan", "1e20", "-1e20", "1e400", "9" * 5000, 1e300, float("inf"), [], {}],
            ["\u00b2", "9" * 5000, "1.5", -1, 1e400, [], None],
        ),
        20,
    ),
)
def test_a_key_output_with_an_odd_time_and_version_is_there(moment: Any, version: Any) -> None:
    """None stands for an impossible date and for a value that is not a number."""
    found = KeyOutput.model_validate({"creationtime": moment, "version": version, "filepath": "a/b", "final": "yes"})

    assert (found.created, found.version, found.filepath, found.final) == (None, None, "a/b", True)


@pytest.mark.parametrize("field", ["experiment-state", "exit-status"])
def test_a_status_without_its_two_states_is_an_error(field: str) -> None:
    """It would say that the run is pending, for ever."""
    with pytest.raises(ValueError, match=field):
        Status.model_validate({"experiment-state": "running", "exit-status": "N/A", field: 5})


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": "\\ud800", "b": 1}', {"a": "\ud800", "b": 1}),
        (f'{{"a": {"9" * 5000}, "b": 1}}', {"a": float("inf"), "b": 1}),
        ('{"a": 1e400, "b": NaN}', {"a": float("inf"), "b": pytest.approx(float("nan"), nan_ok=True)}),
    ],
    ids=["half a pair", "5,000 digits", "numbers beyond floats"],
)
def test_json_with_an_odd_value_is_read(text: str, value: Any) -> None:
    """Where the quick reader of JSON gives up on it too."""
    assert Response(200, JSON, text.encode()).json() == value


@pytest.mark.parametrize("opening", ["[", '{"a":', '["\\ud800",['])
def test_json_that_is_nested_too_deeply_is_refused(opening: str) -> None:
    """As a ValueError, which is a DecodeError for the user, and never a RecursionError."""
    with pytest.raises(ValueError, match=r"nested too deeply|recursion limit|expected"):
        Response(200, JSON, (opening * 100_000).encode()).json()
    deep = (
        opening * 300
        + "1"
        + "".join("]" if one == "[" else "}" if one == "{" else "" for one in reversed(opening * 300))
    )
    with pytest.raises(ValueError, match=r"nested too deeply|recursion limit"):
        Response(200, JSON, deep.encode()).json()


@pytest.mark.anyio
async def test_a_service_whose_address_holds_a_password_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    """With a WARNING that does not show the address; the others are returned."""
    secret = "https://user:pass-word@elsewhere.example"
    async with LocalServer() as server, Client(server.url, api_key=server.api_key) as client:
        services = {
            **await client.deployment.services(),
            "cdb-gateway-registry": secret,
            "odd": 5,
            "worse": "http://[::1",
        }
        server.faults.add("GET /rs/url-map/", Answer(200, JSON, json.dumps(services).encode()), None)
        other = Client(server.url, api_key=server.api_key, config=Config())

        with caplog.at_level(logging.DEBUG):
            async with other:
                assert await other.datastore.is_healthy()
                with pytest.raises(NotFound, match="no gateways") as caught:
                    await other.gateways.is_healthy()
                assert set(await other.deployment.services()) == set(services) - {"cdb-gateway-registry", "odd"}

    assert "left out the service 'cdb-gateway-registry'" in caplog.text
    assert "pass-word" not in caplog.text + str(caught.value)


@pytest.mark.anyio
async def test_an_odd_key_output_does_not_hide_the_others() -> None:
    """Neither one whose fields are odd nor one that is no object."""
    async with LocalServer() as server, Client(server.url, api_key=server.api_key) as client:
        body = {"a": {"creationtime": "inf", "version": "\u00b2"}, "b": 5, "c": {"filepath": "c.csv"}}
        server.faults.add("GET /rs/instances/demo-1/outputs", Answer(200, JSON, json.dumps(body).encode()))

        found = await client.outputs("demo-1")

        server.faults.add("GET /rs/instances/demo-2/outputs", Answer(200, JSON, b"5"))
        with pytest.raises(DecodeError):
            await client.outputs("demo-2")

    assert list(found) == ["a", "c"]
    assert found["c"].filepath == "c.csv"
