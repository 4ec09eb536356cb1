"""The table of measured properties, and why there is none."""

from __future__ import annotations

import math
import sys
from math import inf, nan
from pathlib import Path
from typing import Any

import pytest
from anyio import to_thread

from st4sd_async import (
    APIError,
    Client,
    DecodeError,
    Instance,
    NoProperties,
    NotFound,
    NotReady,
    Properties,
    RunFailed,
    ServerError,
    Status,
    UnknownProperty,
)
from st4sd_async._api import instances
from st4sd_async._http.call import Response, parse_response
from st4sd_async._package.create import create_experiment
from st4sd_async._results.properties import explain_refusal, interface_failure, no_properties, requested_columns
from st4sd_async.local import LocalServer
from st4sd_async.models.packages import RegistryMetadata
from st4sd_async.models.properties import is_table
from tests.local.helpers import repository

TABLE: dict[str, list[Any]] = {
    "input-id": ["CCCC", "CCO", "NAN"],
    "smiles": ["CCCC", "CCO", "NAN"],
    "energy": [-6.0, -4.5, "NaN"],
}
MEASURING = {"propertiesSpec": [{"name": "energy"}]}
SUCCESS = {"experiment-state": "finished", "exit-status": "Success"}
FAILED = {"experiment-state": "finished", "exit-status": "Failed", "error-description": "stage0.Compute broke"}
RUNNING = {"experiment-state": "running", "exit-status": "N/A"}


def test_a_table_has_rows_and_columns() -> None:
    """Rows are dictionaries in a loop, columns are lists by name in any case."""
    table = Properties.of_run(TABLE)

    assert table.columns == ("input-id", "smiles", "energy")
    assert table.rows == (("CCCC", "CCCC", -6.0), ("CCO", "CCO", -4.5), ("NAN", "NAN", nan))
    assert len(table) == 3
    assert list(table)[1] == {"input-id": "CCO", "smiles": "CCO", "energy": -4.5}
    assert table.column("energy")[:2] == table["Energy"][:2] == [-6.0, -4.5]
    assert table == Properties(table.columns, table.rows, {"a": NotFound("x")})
    with pytest.raises(KeyError, match=r"no column 'gap' among \['input-id', 'smiles', 'energy'\]"):
        table["gap"]


def test_columns_come_in_the_order_asked_for() -> None:
    """A document has them in any order."""
    table = Properties.of_run(TABLE, ["energy", "input-id"])

    assert table.columns == ("energy", "input-id")
    assert table.rows[1] == (-4.5, "CCO")


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        pytest.param([1.5, "NaN", "inf", "-inf"], [1.5, nan, inf, -inf], id="numbers"),
        pytest.param([1.5, nan, inf], [1.5, nan, inf], id="bare words"),
        pytest.param(["NaN", "NaN"], [nan, nan], id="nothing measured"),
        pytest.param(["inf", "NaN"], [inf, nan], id="infinite"),
        pytest.param(["a", "NaN", "inf", "NAN"], ["a", nan, "inf", "NAN"], id="texts"),
        pytest.param([True, "NaN"], [True, nan], id="truths"),
        pytest.param([1, 2], [1, 2], id="whole numbers"),
        pytest.param([], [], id="no rows"),
    ],
)
def test_numbers_that_came_as_texts_are_numbers(said: list[Any], meant: list[Any]) -> None:
    """Missing values always, infinite ones only where there is no other text."""
    column = Properties.of_run({"x": said})["x"]

    assert repr(column) == repr(meant)


def test_tables_of_several_runs_are_united() -> None:
    """In the order given; cells that a run does not have are NaN."""
    problem = NotReady("not yet")

    table = Properties.of_runs(
        {
            "b": Properties.of_run({"input-id": ["CCO"], "energy": [-4.5]}),
            "empty": Properties.of_run({"input-id": [], "energy": []}),
            "a": Properties.of_run({"weight": [36], "input-id": ["CO"]}),
        },
        {"c": problem},
    )

    assert table.columns == ("rest-uid", "input-id", "energy", "weight")
    assert table.rows == (("b", "CCO", -4.5, nan), ("a", "CO", nan, 36))
    assert table.problems == {"c": problem}


def test_a_table_of_no_runs_has_the_columns_asked_for() -> None:
    """So that what reads it need not look first."""
    assert Properties.of_runs({}, {}).columns == ("rest-uid",)
    assert Properties.of_runs({}, {}, ["input-id", "energy"])["energy"] == []


def test_a_property_cannot_pass_for_the_id_of_a_run() -> None:
    """The ids of the runs are what they are."""
    table = Properties.of_runs({"a": Properties.of_run({"rest-uid": ["x"], "energy": [1]})}, {})

    assert list(table) == [{"rest-uid": "a", "energy": 1}]


def test_a_dataframe_has_the_types_of_the_columns() -> None:
    """Missing and infinite numbers are numbers."""
    frame = Properties.of_run(
        {**TABLE, "count": [1, 2, 3], "gap": ["NaN", "inf", 1], "ok": [True, False, True]}
    ).dataframe()

    assert list(frame.columns) == ["input-id", "smiles", "energy", "count", "gap", "ok"]
    assert [frame[name].dtype.kind for name in ("energy", "count", "gap", "ok")] == ["f", "i", "f", "b"]
    assert frame["input-id"].tolist() == ["CCCC", "CCO", "NAN"]
    assert math.isnan(frame["energy"][2])
    assert frame["gap"].tolist()[1:] == [inf, 1.0]
    assert list(Properties(("input-id", "energy"), ()).dataframe().columns) == ["input-id", "energy"]


def test_a_dataframe_needs_pandas(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message says how to get it."""
    monkeypatch.setitem(sys.modules, "pandas", None)

    with pytest.raises(
        ImportError, match=r'Properties\.dataframe\(\) needs pandas: pip install "st4sd_async\[pandas\]"'
    ):
        Properties.of_run(TABLE).dataframe()


def test_a_table_shows_itself_in_short() -> None:
    """It shows ten rows, the number of the others, and the problems."""
    short = Properties.of_run(TABLE)
    long = Properties(("input-id",), tuple((str(number),) for number in range(12)), {"a-1": NotReady("not yet")})

    assert (
        str(short) == "input-id  smiles  energy\nCCCC      CCCC    -6.0\nCCO       CCO     -4.5\nNAN       NAN     nan"
    )
    assert str(long).splitlines()[-3:] == ["9", "... and 2 more rows", "a-1: not yet"]
    assert repr(short) == "<Properties: 3 rows of input-id, smiles, energy>"
    assert repr(long) == "<Properties: 12 rows of input-id, 1 without any>"
    assert str(Properties((), ())) == ""


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (TABLE, True),
        ({}, True),
        ({"a": []}, True),
        ({"a": [1], "b": []}, False),
        ({"a": "x"}, False),
        ([], False),
        (None, False),
    ],
)
def test_a_table_is_distinguished_from_other_json(value: Any, expected: bool) -> None:
    """Its columns are lists of one length."""
    assert is_table(value) is expected


def test_a_table_cut_short_is_an_error() -> None:
    """Rows are never made of columns that do not fit."""
    with pytest.raises(DecodeError):
        parse_response(instances.properties_call("a-1"), "https://x/", Response(200, {}, b'{"a": [1], "b": []}'))


@pytest.mark.parametrize(
    ("names", "columns"),
    [
        (None, None),
        (["*"], None),
        ("*", None),
        ("Energy", ("input-id", "energy")),
        (["weight", "Energy", "ENERGY"], ("input-id", "weight", "energy")),
        (["energy", "input-id"], ("input-id", "energy")),
        ([], ("input-id",)),
    ],
)
def test_names_stand_for_columns(names: Any, columns: tuple[str, ...] | None) -> None:
    """In lower case, each once, the id of the input first."""
    assert requested_columns(names) == columns


@pytest.mark.parametrize(("names", "error"), [(["a,b"], ValueError), ([""], ValueError), ([1], TypeError)])
def test_what_cannot_be_a_name_is_refused(names: Any, error: type[Exception]) -> None:
    """Before anything is sent."""
    with pytest.raises(error):
        requested_columns(names)


NOTHING: dict[str, Any] = {"description": "measures nothing"}
Refused = tuple[int, type[APIError], dict[str, Any]]
NONE: Refused = (404, NoProperties, {"unknownProperties": ["*"]})
INCOMPLETE: Refused = (400, NotReady, {})
BROKEN: Refused = (500, ServerError, {})


@pytest.mark.parametrize(
    ("refused", "status", "interface", "error", "words"),
    [
        pytest.param(NONE, SUCCESS, NOTHING, NoProperties, "its experiment measures none", id="measures none"),
        pytest.param(NONE, SUCCESS, {}, NoProperties, "may measure none, or the orchestrator", id="unknown"),
        pytest.param(NONE, FAILED, NOTHING, NoProperties, "did not succeed: failed", id="failed and measures none"),
        pytest.param(NONE, FAILED, MEASURING, NoProperties, "did not succeed: failed: .*broke", id="failed"),
        pytest.param(NONE, SUCCESS, MEASURING, NoProperties, "the orchestrator could not", id="could not measure"),
        pytest.param(NONE, SUCCESS, None, NoProperties, "the orchestrator could not", id="experiment deleted since"),
        pytest.param(
            NONE, {**SUCCESS, "exit-status": "N/A"}, MEASURING, NotReady, "has no properties yet", id="ending"
        ),
        pytest.param(INCOMPLETE, None, MEASURING, NotReady, "yet: no status yet", id="no status"),
        pytest.param(INCOMPLETE, RUNNING, MEASURING, NotReady, "yet: running", id="running"),
        pytest.param(INCOMPLETE, FAILED, MEASURING, NoProperties, "did not succeed", id="failed at set-up"),
        pytest.param(INCOMPLETE, SUCCESS, MEASURING, NotReady, "said the service", id="status not synced"),
        pytest.param(BROKEN, None, MEASURING, NotReady, "yet: no status yet", id="500 without a status"),
        pytest.param(BROKEN, FAILED, MEASURING, NoProperties, "did not succeed", id="500 after a failure"),
        pytest.param(BROKEN, SUCCESS, MEASURING, ServerError, "said the service", id="500 after success"),
    ],
)
def test_a_refusal_and_the_state_of_the_run_say_why_there_is_nothing(
    refused: Refused,
    status: dict[str, Any] | None,
    interface: dict[str, Any] | None,
    error: type[APIError],
    words: str,
) -> None:
    """Not yet, never and a broken service are different errors, which still tell what was asked."""
    code, cls, detail = refused
    refusal = cls("said the service", status=code, method="GET", url="https://x/", detail=detail)
    experiment = {"metadata": {"registry": {"interface": interface}}} if interface is not None else {}
    run = Instance.model_validate({"id": "a-1", "status": status, "experiment": experiment})

    found = explain_refusal(refusal, run)

    assert type(found) is error
    assert (found.status, found.method, found.url, found.detail) == (code, "GET", "https://x/", detail)
    with pytest.raises(error, match=words):
        raise found


def test_why_a_run_measured_nothing_is_said_as_far_as_it_is_known() -> None:
    """A failure is reason enough; else that nothing is measured is said only where it is known."""
    failed, succeeded = map(Status.model_validate, (FAILED, {**FAILED, "exit-status": "Success"}))

    assert all("it did not succeed: failed" in no_properties("a-1", failed, one).message for one in (False, None))
    assert no_properties("a-1", succeeded, False).message == "run 'a-1' has no properties: its experiment measures none"
    assert "it succeeded, but the orchestrator could not measure any" in no_properties("a-1", succeeded, True).message
    assert "it succeeded, but its experiment may measure none, or" in no_properties("a-1", succeeded, None).message


@pytest.mark.parametrize(
    ("registry", "measures"),
    [
        ({"platforms": ["default"], "interface": {}}, False),
        ({"platforms": ["default"], "interface": {"propertyTable": {}}}, False),
        ({"platforms": ["default", "gpu"], "interface": {}}, None),
        ({"platforms": ["default", "gpu"], "interface": {"propertyTable": {}}}, None),
        ({"interface": {}}, None),
        ({}, None),
        ({"platforms": ["default", "gpu"], "interface": {"description": "measures nothing"}}, False),
        ({"platforms": ["default", "gpu"], "interface": {"propertiesSpec": [{"name": "energy"}]}}, True),
    ],
)
def test_a_blank_interface_says_nothing_if_there_are_several_platforms(
    registry: dict[str, Any], measures: bool | None
) -> None:
    """The registry loses it when it merges platforms."""
    assert RegistryMetadata.model_validate(registry).measures is measures


def test_that_a_run_failed_is_the_cause_of_its_measuring_nothing() -> None:
    """The error shows whether to look at the run or at the service."""
    failed, succeeded = map(Status.model_validate, (FAILED, {**FAILED, "exit-status": "Success"}))

    cause = no_properties("a-1", failed, None).__cause__

    assert isinstance(cause, RunFailed)
    assert cause.failures == {"a-1": failed}
    assert no_properties("a-1", succeeded, None).__cause__ is None


def test_an_unknown_property_is_a_kind_of_not_found() -> None:
    """It can be caught as its base class."""
    assert issubclass(UnknownProperty, NotFound)


MISSING = (
    "Hook to extract property energie from property source paths ['stages/stage0/Measure/energies.csv'] returned a "
    "pandas.DataFrame that did not have the required column `energie`"
)
PREFIX = (
    "WARNING   MainThread root : Interface could not extract properties due to FlowIR.interface.propertiesSpec[energie]"
)
LOG = f"""INFO      MainThread root : Processing FlowIR.interface.propertiesSpec
{PREFIX} error: {MISSING}
Underlying error:
 (MissingColumnError) {MISSING} - will ignore error, virtual experiment properties may be corrupted or incomplete.
Level 15  MainThread root : Traceback is ignored: Traceback (most recent call last):
"""
"""Lines of the log of a real run."""
INPUT_ERROR = "FlowIR.interface.inputSpec error: [Errno 2] No such file or directory: "
NO_FILE = f"""Interface could not interpret inputSpec due to {INPUT_ERROR}'/tmp/a-1.instance/input/molecules.csv'
WARNING : Interface could not extract properties due to FlowIR.interface.propertiesSpec[all properties] error: missing \
inputIds - check whether FlowIR.interface.inputSpec is problematic
"""
NUMBERS = """Interface could not extract properties due to FlowIR.interface.propertiesSpec[rate] error: You are trying \
to merge on object and int64 columns for key 'input-id'. If you wish to proceed you should use pd.concat
"""
OTHER_TYPES = "the input ids are object, but the column input-id is int64: if one has numbers, so must the other"


@pytest.mark.parametrize(
    ("log", "reason"),
    [
        (LOG, f"the property 'energie' could not be extracted: {MISSING}"),
        (
            "Interface could not interpret inputSpec due to no smiles\nx",
            "its input ids could not be read: no smiles",
        ),
        (NO_FILE, f"its input ids could not be read: {INPUT_ERROR}'input/molecules.csv'"),
        (NUMBERS, f"the property 'rate' could not be extracted: {OTHER_TYPES}"),
        ("INFO : all is well", ""),
    ],
    ids=["property", "input ids", "no file", "numbers", "nothing"],
)
def test_the_log_says_why_an_interface_failed(log: str, reason: str) -> None:
    assert interface_failure(log) == reason


def append_log(server: LocalServer, rest_uid: str) -> None:
    """Add the lines of the real run to the log of a simulated one."""
    directory = server.directory(rest_uid)
    assert directory
    with (directory / "output" / "experiment.log").open("a") as log:
        log.write(LOG)


def created(folder: Path) -> Path:
    """Create an experiment in a repository, and return its folder."""
    create_experiment(folder / "new" / "energies")
    paths = [path for path in (folder / "new" / "energies").rglob("*") if path.is_file()]
    files = {str(path.relative_to(folder / "new" / "energies")): path.read_text() for path in paths}
    return repository(folder / "energies", files)


@pytest.mark.slow
@pytest.mark.anyio
async def test_a_run_without_properties_names_the_one_that_could_not_be_extracted(tmp_path: Path) -> None:
    """Of one run and of several; the log of the orchestrator has it."""
    package = await to_thread.run_sync(created, tmp_path)
    async with LocalServer(speed=0) as server, Client(server.url, api_key=server.api_key) as client:
        experiment = await client.push(package)
        files = [{"filename": "molecules.csv", "content": "smiles\nCO\n"}]
        runs = [await client.start(experiment, {"inputs": files}) for _ in range(2)]
        await server.advance(60)
        for run in runs:
            await to_thread.run_sync(append_log, server, run.id)

        with pytest.raises(NoProperties, match="could not measure any; the property 'energie' could not be extracted"):
            await runs[0].properties()
        problems = (await client.properties(runs)).problems

    assert ["required column `energie`" in str(problem) for problem in problems.values()] == [True, True]
