"""What notebooks and terminals show of objects: the most important first, and no text of the service as markup."""

from __future__ import annotations

import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from IPython.lib import pretty as printers

from st4sd_async import (
    Client,
    Download,
    DownloadError,
    DownloadFailed,
    Experiment,
    Item,
    KeyOutput,
    Launch,
    Properties,
    Run,
    Status,
    UnknownExperiment,
)
from st4sd_async._render.cards import COLOURS, Bar, Card, CardTable, Summary, Tone, format_size, summary_table
from st4sd_async._render.displayable import Displayable
from st4sd_async._render.html import to_html
from st4sd_async._render.text import line_of, to_text
from st4sd_async.models.runs import status_summary

HOSTILE = "</div></pre><script>alert(1)</script><img src=x onerror='alert(1)'>\"&lt; \x1b[31m\x00\u202e${x}"
TAGS = {"div", "b", "span", "br", "details", "summary", "pre", "table", "thead", "tbody", "tr", "th", "td"}
CLIENT = Client("https://st4sd.example")
BOOM = "1 jobs failed unexpectedly.\\nJob: stage0.Boom. Returncode 3. Reason KnownIssue"


def html(displayed: Displayable) -> str:
    """Return an object as a notebook shows it."""
    return displayed._repr_html_()


def pretty(value: Any) -> str:
    """Return a value as IPython prints it."""
    return str(printers.pretty(value))  # type: ignore[no-untyped-call]  # as in IPython


class Reader(HTMLParser):
    """Read HTML, and fail on everything that could do more than show a text."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in TAGS
        for name, value in attrs:
            assert name == "style"
            assert re.fullmatch(r"[a-z0-9:;%#.,() -]*", value or "")
            assert "url" not in (value or "")
        if tag != "br":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def read(source: str) -> str:
    """Return the text in HTML that is complete and harmless."""
    reader = Reader()
    reader.feed(source)
    reader.close()
    assert reader.open == []
    return "\n".join(reader.texts)


def status(state: str = "running", exit_status: str = "N/A", text: str = "", /, **more: Any) -> Status:
    words = {"experiment-state": state, "exit-status": exit_status, "error-description": text, **more}
    return Status.model_validate(words)


def progressing(share: float) -> Status:
    return status(**{"total-progress": share})


def experiment() -> Experiment:
    return Experiment.model_validate(
        {
            "base": {
                "packages": [{"source": {"git": {"location": {"url": f"https://me:key@st4sd.example/{HOSTILE}"}}}}]
            },
            "metadata": {
                "package": {"name": HOSTILE, "description": HOSTILE, "keywords": [HOSTILE]},
                "registry": {"digest": HOSTILE, "tags": [HOSTILE], "inputs": [{"name": HOSTILE}]},
            },
            "parameterisation": {
                "executionOptions": {"variables": [{"name": HOSTILE, "valueFrom": [{"value": HOSTILE}]}]},
                "presets": {"variables": [{"name": "n", "value": HOSTILE}]},
            },
        }
    )


def item() -> Item:
    return Item(HOSTILE, HOSTILE, "refused", 2, Run(HOSTILE, CLIENT), None, UnknownExperiment(HOSTILE), (Path("a"),))


MAKERS: dict[str, Callable[[], Any]] = {
    "run": lambda: Run(HOSTILE, CLIENT),
    "status": lambda: status(HOSTILE, HOSTILE, HOSTILE, stages=[HOSTILE], **{"current-stage": HOSTILE}),
    "variables": lambda: status(meta={"userVariables": {"global": {HOSTILE: HOSTILE}}, "platform": HOSTILE}),
    "experiment": experiment,
    "key-output": lambda: KeyOutput.model_validate({"filename": HOSTILE, "filepath": HOSTILE, "description": HOSTILE}),
    "properties": lambda: Properties((HOSTILE,), ((HOSTILE,),), {HOSTILE: UnknownExperiment(HOSTILE)}),
    "download": lambda: Download(Path(HOSTILE), 3, "0" * 64, HOSTILE),
    "failed download": lambda: DownloadFailed(Path(HOSTILE), HOSTILE, DownloadError(HOSTILE, HOSTILE)),
    "item": item,
}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_texts_of_the_service_are_never_markup(make: Callable[[], Any]) -> None:
    """There are only our tags, with styles only; all hostile text is text, without control characters."""
    displayed = make()

    assert "<script>alert(1)</script>" in read(html(displayed))
    shown = pretty(displayed)
    assert "<script>alert(1)</script>" in shown
    assert all(char.isprintable() or char == "\n" for char in shown)


async def shown_batch(key: str) -> tuple[str, str]:
    async with CLIENT.batch() as batch:
        await batch.add([Launch(key, "demo"), Launch("b", "demo")])
        return batch._repr_html_(), pretty(batch)


@pytest.mark.anyio
async def test_a_batch_shows_its_keys_as_text() -> None:
    """Keys may come from tables of other people."""
    source, shown = await shown_batch(HOSTILE.replace("\0", ""))

    assert "<script>alert(1)</script>" in read(source)
    assert "2 launches" in read(source)
    assert "2 planned" in shown
    assert "\x1b" not in shown


def test_credentials_in_the_address_of_a_package_are_not_shown() -> None:
    """A git URL may have a user and a password."""
    assert "me:key" not in html(experiment())
    assert "https://st4sd.example/" in read(html(experiment()))


def test_the_failed_component_comes_first() -> None:
    """What failed and why, then what to do, then the rest; the complete text of the service can be unfolded."""
    failed = status("finished", "Failed", BOOM, **{"total-progress": 0.0})

    said = read(html(failed))

    order = [
        "failed",
        "component failed: Job: stage0.Boom. Returncode 3",
        "await run.failure()",
        "1 jobs failed",
        "state",
    ]
    places = [said.index(words) for words in order]
    assert places == sorted(places)
    assert COLOURS[Tone.BAD] in html(failed)
    assert pretty(failed).splitlines()[:2] == [
        "failed",
        "component failed: Job: stage0.Boom. Returncode 3. Reason KnownIssue",
    ]


@pytest.mark.parametrize(
    ("one", "word", "tone", "share"),
    [
        (progressing(0.4), "running", Tone.BUSY, 0.4),
        (progressing(7.0), "running", Tone.BUSY, 1.0),
        (progressing(float("nan")), "running", Tone.BUSY, 0.0),
        (status("finished", "Success"), "succeeded", Tone.GOOD, 1.0),
        (status("running", "Success"), "running", Tone.BUSY, 0.0),
        (status("running", "Failed", BOOM), "failed", Tone.BAD, None),
        (status("failed", "").concluded(), "failed", Tone.BAD, None),
        (status("finished", "Stopped"), "stopped", Tone.QUIET, None),
        (status("finished", "Success").concluded(deleted=True), "deleted", Tone.QUIET, None),
        (status("unscheduled", "", "3 Insufficient cpu"), "unscheduled", Tone.WAITING, None),
        (status("thawing"), "thawing", Tone.WAITING, None),
        (Status.pending(), "no status yet", Tone.WAITING, None),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_summary_has_a_word_a_tone_and_a_bar(one: Status, word: str, tone: Tone, share: float | None) -> None:
    """There is no bar where the progress of 0 means nothing."""
    summary = status_summary(one)

    assert (summary.badge.word, summary.badge.tone) == (word, tone)
    assert (None if summary.bar is None else summary.bar.share) == share
    if share is not None:
        assert f"width:{share:.1%}" in html(one)


@pytest.mark.parametrize("tone", Tone)
def test_colours_are_readable_on_light_and_dark(tone: Tone) -> None:
    """White on them, and they on white and on a dark page: the contrast is at least 3.5 to 1."""

    def luminance(colour: str) -> float:
        parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    ours = luminance(COLOURS[tone])

    assert 1.05 / (ours + 0.05) >= 4.4
    assert (ours + 0.05) / (luminance("#111111") + 0.05) >= 3.5


def test_a_run_shows_what_to_call_next() -> None:
    """It has no status, and showing it sends no request."""
    shown = read(html(Run("demo-1", CLIENT)))

    assert "demo-1" in shown
    assert "run.show()" in shown
    assert "Client('https://st4sd.example/', not open)" in shown
    assert pretty(Run("demo-1", CLIENT)).splitlines()[0] == "demo-1"


def test_each_object_in_a_list_is_one_line() -> None:
    """So are values of a dictionary, as `outputs` returns; `repr` is unchanged."""
    output = KeyOutput.model_validate({"filename": "energies.csv", "final": "yes"})

    assert pretty({"Energies": output}) == "{'Energies': <key-output energies.csv final>}"
    lines = pretty([status("finished", "Failed", BOOM * 5)] * 2).splitlines()
    assert len(lines) == 2
    assert repr(Run("demo-1", CLIENT)) == "Run(id='demo-1')"


def test_a_table_shows_some_rows_with_numbers_to_the_right() -> None:
    """It also says how many rows are left out, and which runs have none."""
    table = Properties(("smiles", "energy"), (("CO", -1.25),) * 100, {"demo-1": DownloadError("a", "is lost")})

    shown = html(table)

    assert shown.count("<tr") == 20 + 1
    assert shown.count("text-align:right") == 20 + 1
    assert "and 80 more rows" in shown
    assert "no properties of 1 run" in shown
    assert "and 80 more rows" in pretty(table)


def test_short_cells_are_on_one_line_beside_a_long_reason() -> None:
    """Keys with blanks or hyphens; a reason is broken."""
    rows = (("alcohol-1 x2", "a short reason - but too long"),)

    shown = to_html(Card("1 launch", table=CardTable(("launch", "why"), rows)))

    assert '<span style="white-space:nowrap">alcohol-1 x2</span>' in shown
    assert ">a short reason - but too long</td>" in shown


@pytest.mark.parametrize(
    ("size", "card"), [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (5_250_000, "5.2 MB"), (10**16, "10000.0 TB")]
)
def test_sizes_have_units(size: int, card: str) -> None:
    """In powers of 1000."""
    assert format_size(size) == card


def test_of_many_runs_those_that_are_alike_share_a_row() -> None:
    """The worst first, with a count and an example; the card stays small."""
    failed, fine = status_summary(status("finished", "Failed", BOOM)), status_summary(status("finished", "Success"))
    summaries = {f"demo-{n}": failed if n % 3 == 1 else fine if n % 3 else Summary() for n in range(9000)}

    table = summary_table("run", summaries)
    card = Card("9,000 runs", table=table)

    assert isinstance(table, CardTable)
    assert [row[0] for row in table.rows] == ["3,000"] * 3
    assert table.rows[0][2:] == ("demo-1", "Job: stage0.Boom. Returncode 3. Reason KnownIssue")
    assert len(to_html(card)) < 6000
    assert len(to_text(card).splitlines()) == 5


def test_of_few_runs_each_has_a_row() -> None:
    """In their order, with a bar if they are running."""
    summaries = {f"demo-{n}": status_summary(progressing(n / 10)) for n in range(12)}

    table = summary_table("run", summaries)

    assert isinstance(table, CardTable)
    assert [row[0] for row in table.rows] == list(summaries)
    assert table.rows[4][2] == Bar(0.4, Tone.BUSY)
    assert summary_table("run", {}) is None


def test_more_groups_than_rows_are_counted() -> None:
    """If there are more reasons than rows."""
    summaries = {
        f"demo-{n}": status_summary(status("finished", "Failed", f"Job: stage0.C{n}. Returncode 1")) for n in range(50)
    }

    table = summary_table("run", summaries)

    assert isinstance(table, CardTable)
    assert (len(table.rows), table.more) == (12, "and 38 more runs")


def test_long_texts_are_cut() -> None:
    """An error of a megabyte does not make a notebook of a megabyte."""
    endless = status("finished", "Failed", "Job: stage0.Boom. " + "very long " * 10_000)

    assert len(html(endless)) < 8000
    assert len(line_of("x" * 5000)) == 600
    assert "x [...] x" in line_of("x" * 5000)


def test_a_refused_launch_shows_the_error() -> None:
    """Its class and its message."""
    refused = Item("C1", "demo", "refused", 1, None, None, UnknownExperiment("there is none"), ())
    failed = Item("C2", "demo", "failed", 1, Run("demo-1", CLIENT), status("finished", "Failed", BOOM), None, ())

    assert "UnknownExperiment" in read(html(refused))
    assert "there is none" in read(html(refused))
    assert "component failed" in read(html(failed))
