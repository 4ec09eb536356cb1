"""`Batch.report`: the page, read with an HTML parser."""

from __future__ import annotations

import logging
import re
from base64 import b64encode
from hashlib import sha256
from pathlib import Path

import anyio
import pytest

from st4sd_async import Client, Config, InvalidPayload, Item, Launch, Properties, RetryPolicy, UnknownProperty
from st4sd_async._batch.report_page import MAX_LANES, MAX_ROWS, Report, to_page
from st4sd_async._batch.state import StateChange
from st4sd_async._batch.table import LaunchFacts, PayloadFacts, join
from st4sd_async.local import LocalServer, Reply
from tests.conftest import FakeClock

from .batches import launch, launches, run_all
from .html_page import facts_of, parse, read, table_of

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

COLUMNS = ["key", "variable scale", "state", "input-id", "smiles", "energy", "weight"]
LAST_COLUMNS = ["UTC start", "seconds duration", "run", "why"]


async def test_the_page_shows_the_table_and_the_failures(server: LocalServer, client: Client, tmp_path: Path) -> None:
    """It has the rows of `Batch.table`, the last lines of the failed component, and works without the service."""
    server.outcome("demo", "component-failure", times=1)
    path, offline = tmp_path / "page.html", tmp_path / "offline.html"
    async with client.batch(tmp_path / "water.db") as batch:
        await batch.add([launch(0, variables={"scale": 3})])
        await run_all(batch)
        await batch.add([launch(1, variables={"scale": 2}), Launch("mol 2", "demo", {"metadata": {"number": 2}})])
        await run_all(batch)
        await batch.report(path)
        await batch.report(offline, title="Of the journal", offline=True)
        table = await batch.table()

    page = read(path)
    rows = table_of(page)
    assert page.one("html").attributes["lang"] == "en"
    assert (page.one("head").one("title").text, page.one("h1").text) == ("water", "water")
    assert page.one("ul", class_="counts").text == "1 succeeded 1 failed 1 refused"
    assert facts_of(page)["Deployment"] == client.url
    assert facts_of(page)["experiment"] == "demo"
    assert [(row["key"], row["state"], row["variable scale"], row["input-id"]) for row in rows] == [
        ("mol 0", "failed", "3", ""),
        ("mol 1", "succeeded", "2", "CO"),
        ("mol 2", "refused", "", ""),
    ]
    assert [float(row["energy"] or "nan") for row in rows] == pytest.approx(
        [float("nan"), table["energy"][1], float("nan")], nan_ok=True
    )
    assert [row["run"] for row in rows] == [str(run or "") for run in table["rest-uid"]]
    assert rows[1]["UTC start"] == f"{table['start'][1]:%Y-%m-%d %H:%M:%S}"
    assert rows[2]["why"] == "Invalid experiment start payload. Missing inputs: ['molecules.csv']"
    assert [name for name in rows[0] if name in COLUMNS] == COLUMNS
    assert list(rows[0])[-4:] == LAST_COLUMNS
    failed, refused = page.all("article")
    assert failed.one("h3").text.startswith("failed stage0.Compute: RuntimeError")
    assert failed.one("pre").text.endswith("RuntimeError: the failure of stage0.Compute is simulated")
    assert failed.all("p")[0].text == "1 launch: mol 0"
    assert refused.one("h3").text == f"refused {rows[2]['why']}"
    assert [lane.text for lane in page.one("div", class_="lanes").all("span")] == ["mol 0", "mol 1", "mol 2", ""]

    alone = read(offline)
    assert alone.one("head").one("title").text == "Of the journal"
    assert "made from the journal alone" in alone.one("div", class_="note tone-waiting").text
    assert [row["state"] for row in table_of(alone)] == ["failed", "succeeded", "refused"]
    assert "energy" not in table_of(alone)[0]
    assert {one.name async for one in anyio.Path(tmp_path).iterdir()} == {"offline.html", "page.html", "water.db"}


async def test_a_page_is_written_although_the_service_fails(
    server: LocalServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It says what is missing, and so does the log. A misspelt property is an error, and replaces no file."""
    path = tmp_path / "page.html"
    config = Config(poll_interval=0.02, retry=RetryPolicy(total=0))
    async with Client(server.url, api_key=server.api_key, config=config) as client:
        await client.push(server.example("demo"))
        async with client.batch() as batch:
            await batch.add(launches(1))
            await run_all(batch)
            server.faults.add("POST /ds-mongodb-proxy/*", Reply(500))
            server.faults.add("POST /*/query", Reply(500))
            with caplog.at_level(logging.WARNING, "st4sd_async"):
                await batch.report(path)
            server.faults.clear()
            before = path.read_bytes()
            with pytest.raises(UnknownProperty):
                await batch.report(path, ["enrgy"])

    assert "the report lacks the measured properties: " in caplog.text
    assert "did not return the measured properties" in parse(before.decode()).one("header").text
    assert path.read_bytes() == before


@pytest.mark.parametrize("name", ["campaign.db", "launches.csv", "report"])
async def test_a_report_replaces_no_table_or_journal(client: Client, tmp_path: Path, name: str) -> None:
    """A name without the suffix of a page is probably a mistake."""
    async with client.batch(tmp_path / "campaign.db") as batch:
        with pytest.raises(ValueError, match=r"the name of a report must end in \.html or \.htm, not '.*'"):
            await batch.report(tmp_path / name)


async def test_no_part_of_a_page_is_left_behind(client: Client, tmp_path: Path) -> None:
    """If the page cannot be written, the folder is as before."""
    (tmp_path / "page.html").mkdir()
    async with client.batch() as batch:
        with pytest.raises(IsADirectoryError):
            await batch.report(tmp_path / "page.html", offline=True)

    assert [one.name async for one in anyio.Path(tmp_path).iterdir()] == ["page.html"]


async def test_credentials_are_not_shown(clock: FakeClock, tmp_path: Path) -> None:
    """Those of the client and of payloads are masked in all texts; so are values that are named as credentials."""
    client = Client("https://st4sd.example", api_key="client-key-0123456789", config=Config(clock=clock))
    payload = {
        "variables": {"api_key": "named-credential", "repo": "https://me:pass-word@git.example/x", "n_tokens": 7},
        "metadata": {"note": "uses client-key-0123456789 and bucket-key-9876543210"},
        "environmentVariables": {"KEY": "bucket-key-9876543210", "THREADS": "7"},
    }
    async with client.batch(campaign="bucket-key-9876543210") as batch:
        await batch.add([Launch("a", "demo", payload), Launch("b", "demo")])
        await batch.report(tmp_path / "page.html", offline=True)

    text = (tmp_path / "page.html").read_text("utf-8")
    assert not [one for one in ("client-key", "bucket-key", "named-cred", "pass-word") if one in text]
    row = table_of(parse(text))[0]
    assert (row["variable api_key"], row["variable repo"]) == ("[secret]", "https://[secret]@git.example/x")
    assert (row["variable n_tokens"], row["metadata note"]) == ("7", "uses [secret] and [secret]")


async def test_output_that_may_show_credentials_is_not_fetched(
    server: LocalServer, client: Client, tmp_path: Path
) -> None:
    """Only a process that knows the credentials of a payload can mask them. Others show what the journal keeps."""
    server.outcome("demo", "component-failure", times=1)
    failing = launch(environmentVariables={"KEY": "correct-horse-battery"})
    async with client.batch(tmp_path / "a.db") as batch:
        await batch.add([failing])
        await run_all(batch)
        assert await batch.failure("mol 0")
    async with client.batch(tmp_path / "a.db") as batch:
        await batch.report(tmp_path / "without.html")
        await batch.add([failing])
        await batch.report(tmp_path / "with.html")

    without, known = (read(tmp_path / name).one("article") for name in ("without.html", "with.html"))
    assert without.one("pre").text == "RuntimeError: the failure of stage0.Compute is simulated"
    assert without.all("p")[-1].text.startswith("Output is left out, because it may show credentials of the payload")
    assert known.one("pre").text.startswith("Traceback (most recent call last):")
    assert "Output is left out" not in known.text


HOSTILE = "<script>alert(1)</script>\"'&\0\x1b[31m\u202e</td></table>" + "x" * 100_000
BEGIN = 1_800_000_000.0


def facts(number: int, **payload: object) -> LaunchFacts:
    """Return a launch that was started and has succeeded."""
    values = {"variable:n": number, **payload}
    states = ["planned", "started", "running", "succeeded"]
    changes = tuple(StateChange(1, state, BEGIN + number + after) for after, state in enumerate(states))
    item = Item(f"mol {number}", "demo", "succeeded", 1, None, None, None, ())
    return LaunchFacts(item, PayloadFacts(values=values), changes, f"demo-{number}")


def page_of(found: list[LaunchFacts], measured: int = 0) -> str:
    """Return the page of launches with some measurements each."""
    rows = [(one.rest_uid, str(row), row / 3) for one in found for row in range(measured)]
    table = join(found, Properties(("rest-uid", "input-id", "energy"), tuple(rows)))
    return to_page(Report("Title", "https://st4sd.example/", None, found, BEGIN + 10_000, table=table))


def test_no_text_becomes_markup() -> None:
    """Hostile keys, names, values, titles and messages are shown as text, shortened, and the page stays small."""
    error = InvalidPayload(HOSTILE)
    item = Item(HOSTILE, HOSTILE, "refused", 1, None, None, error, ())
    payload = PayloadFacts(HOSTILE, HOSTILE, {f"variable:{HOSTILE}": HOSTILE, f"metadata:{HOSTILE}": HOSTILE})
    launch = LaunchFacts(item, payload, (StateChange(1, "planned", BEGIN), StateChange(1, "refused", BEGIN + 1)))
    table = join([launch], Properties(("rest-uid", HOSTILE), ()))

    text = to_page(Report(HOSTILE, HOSTILE, HOSTILE, [launch], BEGIN, table=table, notes=(HOSTILE,)))

    page = parse(text)
    assert len(page.all("script")) == len(page.all("style")) == len(page.all("table")) == 1
    assert page.one("h1").text.startswith("<script>alert(1)</script>\"'&\\x00\\x1b[31m\\u202e</td></table>xxx")
    assert page.one("head").one("title").text == page.one("h1").text
    assert table_of(page)[0]["key"].startswith("<script>alert(1)")
    assert len(text) < 30_000
    assert all(one.isprintable() or one == "\n" for one in text)


def test_the_page_loads_nothing_and_runs_only_its_own_script() -> None:
    """Its policy names the script and the style by their hashes. No element refers to anything outside."""
    text = page_of([facts(0)])
    page = parse(text)

    policy = page.one("meta", **{"http-equiv": "Content-Security-Policy"}).attributes["content"] or ""
    for name in ("script", "style"):
        (content,) = re.findall(rf"<{name}>(.*?)</{name}>", text, re.DOTALL)
        assert f"{name}-src 'sha256-{b64encode(sha256(content.encode()).digest()).decode()}'" in policy
    assert policy.startswith("default-src 'none'; ")
    assert not re.search(r"\b(?:src|href|style|on\w+|url\()\s*=", text.replace(policy, "").split("<script>")[0])


def test_values_that_all_launches_share_are_shown_once() -> None:
    """They would make the table wide. A value that one launch lacks is not shared."""
    found = [facts(0, **{"variable:same": 1, "variable:some": 2}), facts(1, **{"variable:same": 1})]

    page = parse(page_of(found))

    assert facts_of(page)["variable same"] == "1"
    assert [(row["variable n"], row["variable some"]) for row in table_of(page)] == [("0", "2"), ("1", "")]
    assert "variable same" not in table_of(page)[0]


def test_a_page_of_thousands_of_launches_is_small() -> None:
    """The time line is a chart of counts, and launches have fewer rows."""
    found = [facts(number) for number in range(2000)]

    text = page_of(found, measured=3)

    keys = re.findall(r'<th scope="row" class="nowrap">(.*?)</th>', text)
    assert keys == [f"mol {number}" for number in range(2000) for _ in range(MAX_ROWS // 2000)]
    assert "Of 6,000 rows, this page has 4,000: the first 2 of each launch." in text
    assert "Time line: number of launches in each state, from 2027-01-15 08:00:00 UTC" in text
    assert text.count("<svg") == 1
    assert text.count("<rect") < 1000
    assert len(text) < 1_500_000
    assert page_of(found[:MAX_LANES]).count("<svg") == MAX_LANES + 1


def test_launches_that_failed_for_the_same_reason_are_listed_together() -> None:
    """The first are named, the others counted."""
    found = []
    for number in range(30):
        item = Item(f"mol {number}", "demo", "refused", 1, None, None, InvalidPayload(f"reason {number % 2}"), ())
        found.append(LaunchFacts(item, PayloadFacts(), ()))

    page = parse(page_of(found))

    first, second = page.all("article")
    assert first.text.startswith("refused reason 0 15 launches: mol 0, mol 2,")
    assert first.text.endswith("mol 22 and 3 more")
    assert second.one("h3").text == "refused reason 1"
    assert not page.all("figure")  # the journal has no times
