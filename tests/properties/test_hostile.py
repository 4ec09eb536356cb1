"""
Arbitrary texts in every field of every reply.

Everything that is printed, logged, raised, rendered and written is checked: there are only errors of this package, no
control characters, and no files outside the target of a download.
"""

from __future__ import annotations

import io
import json
import logging
import traceback
import types
import typing
import zipfile
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from datetime import datetime
from itertools import cycle
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unicodedata import category

import anyio
import pydantic
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from st4sd_async import (
    APIError,
    Client,
    Download,
    DownloadFailed,
    Item,
    Output,
    ProgressUpdate,
    Properties,
    Requirement,
    RetryPolicy,
    St4sdError,
    Status,
    StatusReport,
    _errors,
    models,
)
from st4sd_async._display.live_display import LiveDisplay
from st4sd_async._display.progress_bars import task_row
from st4sd_async._display.surfaces import Log
from st4sd_async._render.displayable import Displayable
from st4sd_async._render.html import to_html
from st4sd_async._render.text import to_text
from st4sd_async._util.printable import printable
from st4sd_async.models._base import Reply
from st4sd_async.models.failures import last_lines
from st4sd_async.models.hints import explain
from tests.faults.clients import settings as quick
from tests.faults.raw import Exchange, RawServer, reply
from tests.tries import tries

RUN = "demo-abcdef-01234567"
EVERY_CATEGORY = "".join({category(chr(code)): chr(code) for code in (*range(0x20000), 0xE0001, 0x10FFFD)}.values())
FIXED = [
    "", " ", "\0", "\n", "\x1b[2J", "\x1b]52;c;aGk=\x07", "\x9b31m", "\x7f", "a\r\nb", "\u202egpj.exe", "\u2028",
    "\ud800",
    "../../.ssh/authorized_keys", "/etc/passwd", "..", ".", "a/b", "a\\b", "C:\\x", "-rf", "--help", "$(reboot)", "~",
    "file://gw/../../x", "file://gw/a", "http://user:pass-word@x", ".st4sd-downloads.jsonl", "nul", "[red]x[/red]",
    "<img src=x onerror=alert(1)>", "{}", "%s%n", "{0}", "=1+1", "x" * 5000, "\u5206" * 300, "\U0001f9ea", "1e400",
    "9" * 5000, EVERY_CATEGORY,
]  # fmt: skip
TEXTS = st.sampled_from(FIXED) | st.text(st.characters(exclude_categories=()), max_size=30)
SOURCES = st.lists(TEXTS, min_size=1, max_size=12)

for _name in models.__all__:
    getattr(models, _name)  # a class is a subclass only once it is imported


def classes(root: type[Any]) -> list[type[Any]]:
    """Return a class and all its subclasses."""
    return [root, *(one for child in root.__subclasses__() for one in classes(child))]


REPLIES = sorted(classes(Reply), key=lambda cls: f"{cls.__module__}{cls.__qualname__}")


def filled(cls: type[pydantic.BaseModel], source: Iterator[str]) -> dict[str, Any]:
    """Return a reply for a model: with a text from the source in every place, and an unknown field."""
    found: dict[str, Any] = {next(source): next(source)}
    for name, field in cls.model_fields.items():
        alias = field.validation_alias or field.alias or name
        key = alias if isinstance(alias, str) else str(typing.cast("pydantic.AliasChoices", alias).choices[0])
        found[key] = RUN if (cls.__name__, name) == ("Instance", "id") else value_for(field.annotation, source)
    return found


def value_for(kind: Any, source: Iterator[str]) -> Any:
    """Return a value for the type of a field, made of texts."""
    origin, inside = typing.get_origin(kind), [one for one in typing.get_args(kind) if one is not type(None)]
    if origin in (typing.Union, types.UnionType, typing.Annotated):
        return value_for(inside[0], source)
    if origin in (list, tuple):
        return [value_for(inside[0] if inside else str, source) for _ in range(2)]
    if origin is dict or kind is dict:
        return {next(source): value_for(inside[1] if inside else str, source) for _ in range(2)}
    if isinstance(kind, type) and issubclass(kind, pydantic.BaseModel):
        return filled(kind, source)
    if isinstance(kind, type) and issubclass(kind, int | float | bool | datetime) and next(source) < "m":
        return 1
    return next(source) if isinstance(kind, type) else {next(source): [next(source)]}


def is_harmless(text: str) -> bool:
    """Return whether a text has no control characters."""
    return printable(text, "\n\t") == text


def check_shown(thing: Any) -> None:
    """Check every text and HTML of an object."""
    texts = [repr(thing), str([thing]), f"{thing!r}"]
    if not isinstance(thing, pydantic.BaseModel) or not isinstance(thing, str):
        texts += [str(thing), f"{thing}"]
    if isinstance(thing, Displayable):
        pretty = Printer()
        thing._repr_pretty_(pretty, cycle=False)
        html = thing._repr_html_()
        texts += [html, *pretty.texts]
        assert "<img" not in html
        assert "<script" not in html
    assert [text for text in texts if not is_harmless(text)] == []


class Printer:
    """A printer of IPython."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.stack: list[Any] = []

    def text(self, text: str) -> None:
        self.texts.append(text)


@pytest.mark.parametrize("index", range(len(REPLIES)), ids=[cls.__name__ for cls in REPLIES])
@settings(max_examples=tries(25, 2))
@example(texts=FIXED)
@given(texts=SOURCES)
def test_every_field_of_every_reply_is_shown_without_control_characters(index: int, texts: list[str]) -> None:
    """In its text, its `repr` and its HTML; a reply that cannot be read raises only ValidationError."""
    cls = REPLIES[index]  # Hypothesis shows explicit examples as IPython does, but cannot show such a class
    try:
        thing = cls.model_validate(filled(cls, cycle(texts)))
    except pydantic.ValidationError:
        return

    check_shown(thing)
    for name in cls.model_fields:
        repr(getattr(thing, name))
    if isinstance(thing, Status):
        for shown in (thing, thing.concluded(deleted=True)):
            check_shown(shown)
            assert is_harmless(f"{shown.hint}")


@pytest.mark.slow
@settings(max_examples=tries(60, 20))
@given(texts=SOURCES)
def test_objects_made_of_replies_are_shown_without_control_characters(texts: list[str]) -> None:
    """Tables, files, requirements, launches, reports, hints, progress."""
    source = cycle(texts)
    error = St4sdError(next(source))
    status = Status.model_construct(error_description=next(source))
    column = [next(source), 1.5, None, [next(source)]]
    one = Properties.of_run({next(source): column})
    many = Properties.of_runs({RUN: one}, {RUN: error}, [next(source)])
    path = Path(next(source).replace("\0", "") or "x")
    cells = "; ".join(["rowid", "reference", next(source)]) + "\n" + "; ".join(["0", next(source), next(source)])
    report = json.dumps({"0": {"engine": {"componentStates": cells, "engineStates": ""}}})
    item = Item(next(source), next(source), "failed", 1, None, status, error, (path,))

    for thing in (
        one, many, item, replace(item, status=None),
        Download(path, 1, next(source), next(source)), DownloadFailed(path, next(source), error),
        Output(next(source), next(source), b"", next(source)),
        Requirement("dataset", next(source), (next(source),), next(source)),
        explain(next(source), next(source), next(source), next(source)),
    ):  # fmt: skip
        check_shown(thing)
    parsed = StatusReport.parse(report)
    assert is_harmless(str(parsed))
    assert is_harmless(repr(parsed))
    display = LiveDisplay("task", ("task", "state", "progress", "done", "received"), None)
    display.update(task_row(ProgressUpdate(next(source), 1, 2, next(source), 3, False)))
    card = replace(display.summary(), table=display.overview())
    assert is_harmless(to_text(card) + to_html(card))


def errors_of(source: Iterator[str]) -> Iterator[BaseException]:
    """Yield an error of each class, made of texts."""
    for cls in classes(St4sdError):
        if issubclass(cls, APIError):
            detail = {
                key: next(source) for key in ("message", "problem", "flowirErrors", "unknownRestUID", "graphName")
            }
            error = cls(next(source), status=400, method="GET", url=f"http://x/{next(source)}", detail=detail)
            error.advice = next(source)
            yield error
    yield from (cls("GET", next(source), next(source)) for cls in classes(_errors.TransportError))
    yield _errors.DecodeError("GET", next(source), next(source), path=next(source), body=next(source))
    yield from (
        cls(next(source), next(source)) for cls in classes(_errors.DownloadError) + classes(_errors.OutcomeUnknown)
    )
    yield _errors.S3Error(next(source), next(source), next(source))
    status = Status.model_construct(current_stage=next(source), error_description=next(source))
    yield from (
        _errors.RunFailed({RUN: status}),
        _errors.RunFailed({RUN: status}, {RUN: failure_of(status, source)}),
        _errors.RunDeleted(RUN, status),
        _errors.WaitTimeout(1, {RUN: status}),
    )
    yield _errors.JournalError(next(source))


def failure_of(status: Status, source: Iterator[str]) -> models.Failure:
    """Return a failure made of texts, which its component wrote."""
    texts = [last_lines(next(source)) for _ in range(3)]
    component = models.ComponentFailure(next(source), next(source), 1, *texts[:2])
    return models.Failure(RUN, status, (component,), texts[2])


@settings(max_examples=tries(40, 20))
@given(texts=SOURCES)
def test_no_failure_has_control_characters(texts: list[str]) -> None:
    """Neither as text nor on its card."""
    source = cycle(texts)
    failure = failure_of(
        Status(experiment_state="finished", exit_status="Failed", error_description=next(source)), source
    )

    for text in (str(failure), failure.excerpt(), to_text(failure._card())):
        assert printable(text, "\n\t") == text
    assert failure.gist.isprintable() or printable(failure.gist) == failure.gist


@settings(max_examples=tries(40, 12))
@given(texts=SOURCES)
def test_no_error_has_control_characters(texts: list[str]) -> None:
    """Its text is one line; its `repr` and a traceback are harmless too."""
    for error in errors_of(cycle(texts)):
        assert str(error).isprintable() or printable(str(error)) == str(error)
        assert is_harmless(repr(error))
        assert is_harmless("".join(traceback.format_exception(error)))


def zipped(source: Iterator[str]) -> bytes:
    """Return an archive whose names are texts."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name in dict.fromkeys(next(source).encode("utf-8", "replace").decode() for _ in range(4)):
            archive.writestr(zipfile.ZipInfo(name or "x"), b"content")
    return content.getvalue()


def body_for(path: str, base: str, source: Iterator[str]) -> Any:
    """Return the body of a hostile reply: in the right shape, made of texts."""
    where = path.partition("?")[0].removeprefix("/rs/").strip("/")
    place = f"/{next(source)}"
    instance = f"file://gw{place}"
    by_beginning: dict[str, Callable[[], Any]] = {
        "url-map": lambda: {
            "cdb-rest": f"{base}/ds",
            "cdb-gateway-registry": f"{base}/reg",
            next(source): next(source),
        },
        "ds/documents": lambda: {
            "document-descriptors": [
                {
                    **filled(kind, source),
                    "type": kind_name,
                    "instance": instance,
                    "files": [f"{instance[9:]}/{next(source)}"],
                }
                for kind, kind_name in (
                    (models.ExperimentDocument, "experiment"),
                    (models.ComponentDocument, "component"),
                    (models.UserMetadata, "user-metadata"),
                )
            ]
        },
        "reg/gateways": lambda: {"gw": {"host": f"{base}/gw"}, next(source): {"host": next(source)}},
        "gw": lambda: zipped(source),
        f"instances/{RUN}/status": lambda: filled(models.Status, source),
        f"instances/{RUN}/outputs/": lambda: zipped(source),
        f"instances/{RUN}/outputs": lambda: {next(source): filled(models.KeyOutput, source) for _ in range(3)},
        f"instances/{RUN}/properties": lambda: {next(source): [next(source)], "input-id": [next(source)]},
        f"instances/{RUN}": lambda: filled(models.Instance, source),
        "instances": lambda: [{**filled(models.Instance, source), "id": one} for one in (next(source), RUN)],
        "experiments/demo/history": lambda: filled(models.History, source),
        "experiments/demo": lambda: {"entry": filled(models.Experiment, source), "problems": [next(source)]},
        "experiments": lambda: {"entries": [filled(models.Experiment, source)], "problems": [next(source)]},
        "relationships": lambda: {"entries": [filled(models.Relationship, source)], "problems": [next(source)]},
        "library": lambda: {"entries": [{"graph": {next(source): next(source)}}], "problems": [next(source)]},
        "datasets": lambda: [next(source)],
        "image-pull-secrets": lambda: {next(source): [next(source)]},
    }
    return next((made() for beginning, made in by_beginning.items() if where.startswith(beginning)), {})


Verb = Callable[[Client, Path], Awaitable[Any]]
VERBS: list[Verb] = [
    lambda client, to: client.status(RUN),
    lambda client, to: client.wait(RUN, timeout=0.05),
    lambda client, to: client.instances.list(),
    lambda client, to: client.instances.get(RUN),
    lambda client, to: client.outputs(RUN),
    lambda client, to: client.output(RUN, "x"),
    lambda client, to: client.properties(RUN),
    lambda client, to: client.properties([RUN]),
    lambda client, to: client.experiments.list(),
    lambda client, to: client.experiments.get("demo"),
    lambda client, to: client.experiments.history("demo"),
    lambda client, to: client.fetch_experiment(client, "demo"),
    lambda client, to: client.draft("demo"),
    lambda client, to: client.relationships.list(),
    lambda client, to: client.library.list(),
    lambda client, to: client.datasets.list(),
    lambda client, to: client.image_pull_secrets.list(),
    lambda client, to: client.deployment.services(),
    lambda client, to: client.datastore.experiments(rest_uid=RUN),
    lambda client, to: client.datastore.document(RUN, timeout=0.05),
    lambda client, to: client.datastore.components(instance="x"),
    lambda client, to: client.read_file(RUN, "x"),
    lambda client, to: client.csv(RUN),
    lambda client, to: client.stdout(RUN),
    lambda client, to: client.status_report(RUN),
    lambda client, to: client.download_outputs(RUN, to),
    lambda client, to: client.download_outputs(RUN, to, unpack=True),
    lambda client, to: client.download_files(RUN, to),
    lambda client, to: client.download_component(RUN, 0, "x", to),
]


async def call_all_verbs(texts: list[str], target: Path, problem: Any) -> list[Any]:
    """Return the results of all verbs, or the errors that they raise."""
    source = cycle(texts)
    server: RawServer

    async def answer(exchange: Exchange) -> None:
        if problem is not None:
            await reply(problem, {"message": next(source), next(source): next(source)})(exchange)
            return
        body = body_for(exchange.seen.path, server.url, source)
        media = "application/zip" if isinstance(body, bytes) else "application/json"
        name = next(source).encode("ascii", "ignore").decode().replace("\r", "").replace("\n", "").replace("\0", "")
        await reply(200, body, media=media, content_disposition=f'attachment; filename="{name}"')(exchange)

    found = []
    async with (
        RawServer([answer]) as server,
        Client(server.url, config=quick(retry=RetryPolicy(attempts=1))) as client,
    ):
        for verb in VERBS:
            try:
                found.append(await verb(client, target))
            except St4sdError as error:
                found.append(error)
    return found


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_hostile_service_causes_only_our_errors_and_writes_nothing_elsewhere(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Over a socket, through every verb that reads, with all logging: it answers, or refuses with a status."""
    caplog.set_level(logging.DEBUG, "st4sd_async")

    @settings(max_examples=tries(48, 4))
    @example(texts=FIXED, problem=None)
    @example(texts=FIXED, problem=400)
    @example(texts=FIXED, problem=404)
    @example(texts=FIXED, problem=500)
    @given(texts=SOURCES, problem=st.sampled_from([None, 400, 404, 500]))
    def attack(texts: list[str], problem: int | None) -> None:
        caplog.clear()
        with TemporaryDirectory() as folder:
            target, aside = Path(folder, "a", "target"), Path(folder, "a", "aside")
            target.mkdir(parents=True)
            aside.write_text("mine")

            found = anyio.run(call_all_verbs, texts, target, problem)

            outside = {path for path in Path(folder).rglob("*") if target not in (path, *path.parents)}
            assert outside == {target.parent, aside}
            assert aside.read_text() == "mine"
            assert not [
                path for path in target.rglob("*") if path.is_symlink() or not (path.is_file() or path.is_dir())
            ]
        for one in found:
            for thing in one if isinstance(one, list) else [one]:
                if isinstance(thing, St4sdError):
                    assert is_harmless(str(thing) + repr(thing) + "".join(traceback.format_exception(thing)))
                elif not isinstance(thing, str):
                    assert is_harmless(repr(thing))
        ours = [record for record in caplog.records if record.name == "st4sd_async"]
        assert all(is_harmless(record.getMessage() + (record.exc_text or "")) for record in ours)

    attack()


def test_progress_on_standard_error_has_no_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    """If standard error is not a terminal."""
    display = LiveDisplay("task", ("task", "state", "progress", "done", "received"), Log(None, 0.0))

    for text in FIXED:
        display.update(task_row(ProgressUpdate(text, 1, 2, text, 3, False)))
        display.draw()

    assert is_harmless(capsys.readouterr().err)
