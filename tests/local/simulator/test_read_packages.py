"""Experiments whose packages the simulator reads: pushes, starts, runs, documents and files."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

import st4sd_async
from st4sd_async.local import LocalServer
from tests.tries import sample

from ..helpers import definition, package_files, repository, start

pytestmark = pytest.mark.slow

TEMPLATE = Path(st4sd_async.__file__).with_name("_package") / "template"


def files_below(folder: Path) -> dict[str, str]:
    """Return the files of a package in a folder: path -> text."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc"]
    return {str(path.relative_to(folder)): path.read_text() for path in files}


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the URL of a repository with the package "replicas"."""
    return repository(tmp_path_factory.mktemp("replicas"), package_files("replicas")).as_uri()


@pytest.fixture(scope="module")
def run(url: str) -> Iterator[tuple[LocalServer, httpx.Client, str]]:
    """Return a server, its client, and a run that is over, for tests that only read."""
    with LocalServer(speed=0) as server, client(server, "/rs") as web:
        yield server, web, finished(server, web, url, variables={"label": "mine"})


@pytest.fixture(scope="module")
def restricted(url: str) -> Iterator[httpx.Client]:
    """Return a client of a server whose experiment allows little, for starts that are refused."""
    with LocalServer(speed=0) as server, client(server, "/rs") as web:
        register(web, url, {"variables": [{"name": "label"}], "platform": ["default"]})
        yield web


def register(web: httpx.Client, url: str, options: dict[str, Any] | None = None) -> Any:
    """Push an experiment and return its registry metadata, or the problem."""
    reply = web.post("/experiments/", json=definition("replicas", options, url=url)).json()
    return reply["problem"] if "problem" in reply else reply["result"]["metadata"]["registry"]


def test_push_reads_a_package_on_this_machine(web: httpx.Client, url: str) -> None:
    """The registry has its inputs, data files, key-outputs, platforms, and the defaults of its variables."""
    registry = register(web, url, {"variables": [{"name": "label"}], "data": [{"name": "table.dat"}]})

    assert [entry["name"] for entry in registry["inputs"]] == ["rows.csv"]
    assert [entry["name"] for entry in registry["data"]] == ["other.txt", "table.dat"]
    assert [entry["name"] for entry in registry["output"]] == ["All", "Many", "Prepared"]
    assert registry["platforms"] == ["big", "default", "openshift"]
    assert registry["executionOptionsDefaults"]["variables"][0] == {
        "name": "label",
        "valueFrom": [
            {"value": "bigger", "platform": "big"},
            {"value": "plain", "platform": "default"},
            {"value": "kube", "platform": "openshift"},
        ],
    }
    images = ["quay.io/example/base:1", "quay.io/example/join:2"]
    assert [entry["name"] for entry in registry["containerImages"]] == images


@pytest.mark.parametrize("form", ["{path}", "file://{path}"])
def test_path_and_url_name_the_same_repository(web: httpx.Client, tmp_path: Path, form: str) -> None:
    """git takes both."""
    path = repository(tmp_path / "replicas", package_files("replicas"))

    assert [entry["name"] for entry in register(web, form.format(path=path))["inputs"]] == ["rows.csv"]


def test_unusable_packages_are_problems(web: httpx.Client, tmp_path: Path) -> None:
    """A repository that does not exist, one without a definition, and an invalid one are rejected as by the service."""
    empty = repository(tmp_path / "empty", {"README.md": "x"}).as_uri()
    flowir = "components:\n- {name: A, command: {executable: echo}, references: ['stage0.B:copy']}\n"
    broken = repository(tmp_path / "broken", {"conf/flowir_package.yaml": flowir}).as_uri()

    assert register(web, (tmp_path / "ghost").as_uri()).startswith("Cannot git-clone with location")
    assert register(web, empty).startswith("There is no valid virtual experiment at base.config={}")
    assert register(web, broken) == (
        "Invalid platform default in base package main. Consider updating the parameterisation configuration to "
        "exclude invalid platforms - Unknown reference(s) ['stage0.B'] by \"stage0.A\". Known components: ['stage0.A']"
    )


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"variables": [{"name": "ghost", "value": "1"}]}, "There is no ghost variable in platform big"),
        (
            {"platform": ["default", "ghost"]},
            (
                "The experiment parameterisation involves platforms ['default', 'ghost'] but the base package(s) "
                "contain only these valid platforms ['default']"
            ),
        ),
    ],
    ids=["variable", "platform"],
)
def test_options_must_exist_in_the_package(web: httpx.Client, url: str, options: dict[str, Any], problem: str) -> None:
    """A push is rejected in the words of the service."""
    assert register(web, url, options) == problem


def test_package_in_another_language_is_made_up(web: httpx.Client, tmp_path: Path) -> None:
    """A push accepts it as if it had not been read."""
    url = repository(tmp_path / "old", {"conf/experiment.conf": "[DEFAULT]\n"}).as_uri()

    assert register(web, url)["platforms"] == ["default"]


def test_packages_elsewhere_are_fetched_only_if_the_server_may(tmp_path: Path) -> None:
    """Without `fetch` nothing is requested, with it git fails for a host that does not exist."""
    url = "https://127.0.0.1:9/x.git"
    with LocalServer(speed=0) as server, client(server) as web:
        assert register(web, url)["inputs"] == []
    with LocalServer(speed=0, fetch=True) as server, client(server) as web:
        assert register(web, url).startswith("Cannot git-clone with location")


def test_engine_knows_the_content_of_packages_that_are_read(server: LocalServer, web: httpx.Client, url: str) -> None:
    """It is the definition with its components; packages that are not read have none."""
    engine = server._engine
    assert engine is not None
    stored = {
        name: web.post("/experiments/", json=pushed).json()["result"]
        for name, pushed in {
            "read": definition("replicas", url=url),
            "example": server.example("demo"),
            "other": definition(),
        }.items()
    }

    read, example = engine.content(stored["read"]), engine.content(stored["example"])

    assert read is not None
    assert example is not None
    assert [component["name"] for component in read.flowir["components"]] == ["Prepare", "Work", "After", "Join"]
    assert read.folders == ("bin", "conf", "data", "hooks")
    assert [component["name"] for component in example.flowir["components"]] == ["Compute", "Report"]
    assert engine.content(stored["other"]) is None


def client(server: LocalServer, path: str = "") -> httpx.Client:
    """Return an authorised client of a server."""
    headers = {"Authorization": f"Bearer {server.api_key}"}
    return httpx.Client(base_url=f"{server.url}{path}", headers=headers, timeout=30, verify=False)


def finished(server: LocalServer, web: httpx.Client, url: str, **payload: Any) -> str:
    """Push and start an experiment on the default platform, finish the run, and return its id."""
    register(web, url, {"variables": [{"name": "label"}, {"name": "count"}], "platform": ["default", "big"]})
    inputs = [{"filename": "rows.csv", "content": "a,b\n1,2\n"}]
    rest_uid = start(web, "replicas", **{"inputs": inputs, **payload})
    server.advance(60)
    return rest_uid


def documents(web: httpx.Client, **query: Any) -> list[dict[str, Any]]:
    """Return the documents about components that match a query."""
    origin = str(web.base_url).removesuffix("/rs/")
    reply = web.post(f"{origin}/ds-mongodb-proxy/documents/api/v1.0/query", json={"type": "component", **query})
    found: list[dict[str, Any]] = reply.json()["document-descriptors"]
    return found


@pytest.mark.parametrize(
    ("changes", "reply"),
    [
        ({"inputs": []}, {"missingInputs": ["rows.csv"]}),
        ({"variables": {"ghost": "1"}}, {"message": "Invalid request. Payload sets variable ghost = 1 for which "}),
        ({"platform": "ghost"}, {"message": "Invalid request. Payload overrides parameterisation.executionOptions.pl"}),
        ({"data": [{"filename": "x", "content": "y"}]}, {"message": "Invalid request. Payload overrides data files "}),
    ],
    ids=["inputs", "variables", "platforms", "data"],
)
def test_starts_are_refused_as_the_package_says(
    restricted: httpx.Client, changes: dict[str, Any], reply: dict[str, Any]
) -> None:
    """Its inputs, and what the definition allows, are checked."""
    inputs = [{"filename": "rows.csv", "content": "a"}]

    refused = restricted.post("/experiments/replicas/start", json={"inputs": inputs, **changes})

    assert refused.status_code == 400
    for key, value in reply.items():
        found = refused.json()[key]
        assert found == value or str(found).startswith(str(value))


def test_runs_have_the_components_of_the_package(run: tuple[LocalServer, httpx.Client, str]) -> None:
    """Replicas, stages, commands, variables and producers are those that the orchestrator would report."""
    _, web, _ = run

    found = {document["component-identifier"]: document for document in documents(web)}

    names = [
        "stage0.Prepare",
        *(f"stage1.{name}{index}" for name in ("Work", "After") for index in (0, 1)),
        "stage2.Join",
    ]
    assert list(found) == names
    work, join = found["stage1.Work1"], found["stage2.Join"]
    assert work["flowir"]["command"]["arguments"].startswith("-c 'echo work 1 7; cat Prepare.txt stage0.Prepare/")
    assert work["flowir"]["variables"] == {
        "count": 2, "delay": "10", "base": 1, "label": "mine", "flag": True, "ratio": 0.5, "depth": 7,
        "extra": "xmine", "replica": 1,
    }  # fmt: skip
    assert work["flowir"]["resourceManager"]["config"] == {"backend": "local", "walltime": 30.0}
    assert [uid.rpartition("&")[2] for uid in work["producers"]] == ["stage0.Prepare"]
    assert join["flowir"]["references"] == ["stage1.Work0/result.txt:ref", "stage1.Work1/result.txt:ref"]
    assert {document["component-state"] for document in found.values()} == {"finished"}


def test_a_platform_and_a_variable_change_the_components(server: LocalServer, web: httpx.Client, url: str) -> None:
    """The number of replicas is a variable that the platform "big" sets to 3, and the start to 4."""
    finished(server, web, url, platform="big")
    finished(server, web, url, platform="big", variables={"count": "4"})

    assert len(documents(web, name={"$regex": "^Work"})) == 3 + 4


def test_runs_have_the_files_of_the_package(run: tuple[LocalServer, httpx.Client, str]) -> None:
    """Component directories contain what others refer to, copies, key-outputs and standard output."""
    server, _, rest_uid = run
    directory = server.directory(rest_uid)
    assert directory is not None

    assert (directory / "input/rows.csv").read_text() == "a,b\n1,2\n"
    assert (directory / "data/table.dat").read_text() == "1 2 3\n"
    assert (directory / "bin/prepare.sh").is_file()
    work = {path.name for path in (directory / "stages/stage1/Work0").iterdir()}
    assert work == {"out.stdout", "out.stderr", "component_performance.csv", "result.txt", "Prepare.txt"}
    prepared = directory / "stages/stage0/Prepare/prepared.txt"
    assert prepared.read_text() == "This is prepared.txt of stage0.Prepare\n"


def test_key_outputs_are_those_of_the_package(run: tuple[LocalServer, httpx.Client, str]) -> None:
    """They have its names and paths, and can be downloaded."""
    _, web, rest_uid = run

    outputs = web.get(f"/instances/{rest_uid}/outputs").json()

    assert {name: entry["filepath"] for name, entry in outputs.items()} == {
        "All": "stages/stage2/Join/all.txt",
        "Many": "stages/stage2/Join/many",
        "Prepared": "stages/stage0/Prepare/prepared.txt",
    }
    reply = web.get(f"/instances/{rest_uid}/outputs/All")
    assert reply.text == "This is all.txt of stage2.Join\n"


def test_status_has_the_stages_and_variables_of_the_package(run: tuple[LocalServer, httpx.Client, str]) -> None:
    """Variables of a stage are those of the package for it, and those of the start, which are always texts."""
    _, web, rest_uid = run

    status = web.get(f"/instances/{rest_uid}/status").json()

    assert (status["stages"], status["current-stage"]) == (["stage0", "stage1", "stage2"], "stage2")
    assert status["meta"]["variables"] == {
        "global": {"count": 2, "delay": "10", "base": 1, "label": "mine", "flag": True, "ratio": 0.5},
        "stage": {"0": {"label": "mine"}, "1": {"depth": 7, "label": "mine"}, "2": {"label": "mine"}},
    }


def test_first_component_fails_in_a_failed_run(server: LocalServer, web: httpx.Client, url: str) -> None:
    """The error names it, and its document says so."""
    server.outcome("replicas", "component-failure")

    rest_uid = finished(server, web, url)

    text = web.get(f"/instances/{rest_uid}/status").json()["error-description"]
    assert "Job: stage0.Prepare. Returncode 1." in text
    states = {document["name"]: document["component-state"] for document in documents(web)}
    assert states.pop("Prepare") == "failed"
    assert set(states.values()) == {"component_shutdown"}


def test_unused_reference_fails_at_set_up(server: LocalServer, web: httpx.Client, tmp_path: Path) -> None:
    """The push accepts it; the orchestrator does not."""
    flowir = (
        "components:\n- {name: A, command: {executable: echo, arguments: hi}}\n"
        "- {stage: 1, name: B, command: {executable: echo, arguments: hi}, references: ['stage0.A:ref']}\n"
    )
    register(web, repository(tmp_path / "unused", {"conf/flowir_package.yaml": flowir}).as_uri())
    rest_uid = start(web, "replicas")
    server.advance(10)

    status = web.get(f"/instances/{rest_uid}/status").json()

    assert (status["experiment-state"], status["exit-status"], status["meta"]) == ("failed", "Failed", None)
    assert status["error-description"] == (
        "UnusedDataReferenceError Reference stage0.A:ref declared by component stage1.B is not used. Reason:\n"
        "All declared references of type 'ref' must be used in component command line("
        'could find neither "stage0.A:ref" nor "A:ref" in "hi"'
    )


def test_unknown_platform_fails_at_set_up(server: LocalServer, web: httpx.Client, url: str) -> None:
    """A definition that allows all platforms does not check that of a start."""
    register(web, url)
    rest_uid = start(web, "replicas", inputs=[{"filename": "rows.csv", "content": "a"}], platform="ghost")
    server.advance(10)

    status = web.get(f"/instances/{rest_uid}/status").json()

    assert (status["experiment-state"], status["exit-status"], status["meta"]) == ("failed", "Failed", None)
    first, *_, last = status["error-description"].splitlines()
    assert first == "ExperimentSetupError Error encountered while setting up experiment."
    assert last.endswith(
        "stage2.Join. Underlying exception: Unknown platform \"ghost\" known platforms ['big', 'default', 'openshift']"
    )


def test_lambda_runs_have_the_components_of_their_definition(server: LocalServer, web: httpx.Client) -> None:
    """It is sent with the start, so that nothing is read."""
    flowir = {
        "components": [{"name": "hi", "command": {"executable": "echo", "arguments": "%(word)s"}}],
        "variables": {"default": {"global": {"word": "hello"}}},
        "output": {"Hi": {"data-in": "stage0.hi:output"}},
    }
    rest_uid = web.post("/experiments/lambda/start", json={"lambdaFlowIR": flowir, "variables": {"word": "you"}}).json()
    server.advance(60)

    assert web.get(f"/instances/{rest_uid}/outputs").json()["Hi"]["filepath"] == "stages/stage0/hi/out.stdout"
    assert [document["flowir"]["command"]["arguments"] for document in documents(web)] == ["you"]


def test_steps_of_a_package_in_dsl_are_components(server: LocalServer, web: httpx.Client, tmp_path: Path) -> None:
    """A variable of the start is an argument of the entrypoint."""
    url = repository(tmp_path / "steps", package_files("steps")).as_uri()
    registry = register(web, url, {"variables": [{"name": "foo"}]})
    inputs = [{"filename": "rows.csv", "content": "a,b\n1,2\n"}]
    rest_uid = start(web, "replicas", inputs=inputs, variables={"foo": "you"})
    server.advance(60)

    commands = {document["name"]: document["flowir"]["command"]["arguments"] for document in documents(web)}

    assert [entry["name"] for entry in registry["output"]] == ["All", "Deep"]
    assert commands == {
        "prepare": "hello you 5 data/table.dat:ref",
        "prepare-I": "hello inner 5 stage0.work:output",
        "work": "stage0.prepare/prepared.txt:ref stage0.prepare:ref",
        "join": "-c 'cat stage0.work/result.txt:ref > all.txt; echo stage0.prepare:output'",
    }
    assert set(web.get(f"/instances/{rest_uid}/outputs").json()) == {"All", "Deep"}


def test_described_contents_are_those_of_the_key_outputs(server: LocalServer, web: httpx.Client, url: str) -> None:
    """A description adds what cannot be read: the content of key-outputs, which may be folders, and properties."""
    table = "input-id;energy\na;1.5\n"
    outputs: dict[str, Any] = {"All": b"all", "Many": {"sub/a.txt": b"a"}, "Ghost": b"not in the package"}
    server.describe("replicas", outputs=outputs, properties=table)
    rest_uid = finished(server, web, url)

    assert set(web.get(f"/instances/{rest_uid}/outputs").json()) == {"All", "Many", "Prepared"}
    assert web.get(f"/instances/{rest_uid}/outputs/All").text == "all"
    assert web.get(f"/instances/{rest_uid}/outputs/Many").headers["content-type"] == "application/zip"
    assert web.get(f"/instances/{rest_uid}/outputs/Many/sub/a.txt").text == "a"
    assert web.get(f"/instances/{rest_uid}/properties").json() == {"input-id": ["a"], "energy": [1.5]}


def test_properties_come_with_the_interface_of_the_run(server: LocalServer, web: httpx.Client, tmp_path: Path) -> None:
    """The registry has none for a package with several platforms; that of a run has its input ids."""
    interface = (
        "\ninterface:\n  description: rows\n  inputSpec:\n    namingScheme: id\n    inputExtractionMethod:\n"
        "      csvColumn: {source: {path: input/rows.csv}, args: {column: a}}\n  propertiesSpec:\n"
        "  - {name: energy, propertyExtractionMethod: {csvDataFrame: {source: {keyOutput: All}}}}\n"
    )
    files = package_files("replicas")
    files["conf/flowir_package.yaml"] += interface
    server.describe("replicas", properties="input-id;energy\n1;1.5\n")
    rest_uid = finished(server, web, repository(tmp_path / "replicas", files).as_uri())

    with_table = web.get(f"/instances/{rest_uid}?includeProperties=energy").json()["experiment"]
    without = web.get(f"/instances/{rest_uid}").json()["experiment"]

    shown = with_table["metadata"]["registry"]["interface"]
    assert shown["propertyTable"] == {"input-id": [1], "energy": [1.5]}
    assert (shown["description"], shown["inputs"], shown["additionalInputData"]) == ("rows", ["1"], {})
    assert shown["outputFiles"] == ["output/input-ids.json"]
    assert without["metadata"]["registry"]["interface"] == {}


def test_described_problem_refuses_a_package_that_could_be_read(
    server: LocalServer, web: httpx.Client, url: str
) -> None:
    """The push has the text that was described."""
    server.describe(url, problem="no space left")

    assert register(web, url) == "no space left"


def test_echo_and_cat_print_what_they_would(server: LocalServer, web: httpx.Client, tmp_path: Path) -> None:
    """Their output is the arguments, the output of others, and the content of files."""
    flowir = """
variables: {default: {global: {word: hello}}}
components:
- {stage: 1, name: Join, command: {executable: cat, arguments: "stage0.Say/out.stdout:ref rows.csv /etc/hostname"},
   references: ["stage0.Say/out.stdout:ref", "input/rows.csv:copy"]}
- {stage: 1, name: Show, command: {executable: /bin/cat, arguments: "stage0.Say/out.stdout:ref rows.csv"},
   references: ["stage0.Say/out.stdout:ref", "input/rows.csv:copy"]}
- {stage: 2, name: Again, command: {executable: echo, arguments: "'so: ' stage1.Show:output"},
   references: ["stage1.Show:output"]}
- {name: Say, command: {executable: echo, arguments: "%(word)s  world"}}
output: {Again: {data-in: "stage2.Again/out.stdout:copy"}}
"""
    register(web, repository(tmp_path / "echo", {"conf/flowir_package.yaml": flowir}).as_uri())
    rest_uid = start(web, "replicas", inputs=[{"filename": "rows.csv", "content": "a,b\n"}])
    server.advance(60)
    directory = server.directory(rest_uid)
    assert directory is not None

    printed = {path.parent.name: path.read_text() for path in directory.glob("stages/*/*/out.stdout")}

    assert printed == {
        "Say": "hello world\n",
        "Show": "hello world\na,b\n",
        "Again": "so:  hello world a,b\n",
        "Join": "This is stage1.Join\n",  # files elsewhere are not read
    }


@pytest.mark.parametrize(
    "flowir",
    sample(
        [
            "components: []",
            "components: [{name: A, command: {executable: echo}, references: [7]}]",
            "components: [{name: A, command: {executable: echo}, workflowAttributes: 7}]",
            "components: [{name: A, command: {executable: echo}}]\noutput: {A: {}}",
            "components: [{name: A, command: {executable: echo}}]\nvariables: {default: {global: [a]}}",
        ],
        3,
    ),
)
def test_odd_packages_are_never_server_errors(
    server: LocalServer, web: httpx.Client, tmp_path: Path, flowir: str
) -> None:
    """The push is rejected, or a run fails or succeeds."""
    url = repository(tmp_path / "odd", {"conf/flowir_package.yaml": flowir}).as_uri()

    pushed = web.post("/experiments/", json=definition("odd", url=url))
    started = web.post("/experiments/odd/start", json={})
    server.advance(60)

    assert pushed.status_code in (200, 400)
    assert started.status_code == (200 if pushed.status_code == 200 else 404)
    if started.status_code == 200:
        assert web.get(f"/instances/{started.json()}/status").json()["experiment-state"] in ("finished", "failed")
        assert web.get("/instances/").status_code == 200


@pytest.mark.parametrize(
    ("url", "files", "parts"),
    [
        (
            None,
            {},
            ["https://git.example/toy.git: it is on another machine", "(serve --fetch); its runs have two made-up"],
        ),
        ("local", {"conf/experiment.conf": ""}, [": it is written in DOSINI; its runs have two made-up components"]),
        (
            "local",
            files_below(TEMPLATE),
            [
                "executes no programs of ",
                "the content of these key-outputs is made up: Energies, Summary",
                "these properties are not measured: energy",
                "its hooks are not used",
            ],
        ),
        ("local", {"conf/flowir_package.yaml": "components: [{name: a, command: {executable: echo}}]"}, []),
    ],
    ids=["another machine", "another language", "programs", "echo"],
)
def test_push_reports_what_is_not_read(
    web: httpx.Client,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    url: str | None,
    files: dict[str, str],
    parts: list[str],
) -> None:
    """One message in the log, which `serve` shows."""
    caplog.set_level(logging.INFO, "st4sd_async.local")
    where = repository(tmp_path / "package", files).as_uri() if url else None

    web.post("/experiments/", json=definition(url=where)).raise_for_status()

    messages = [record.getMessage() for record in caplog.records if record.name == "st4sd_async.local"]
    assert len(messages) == (1 if parts else 0)
    assert [part for part in parts if part not in messages[0]] == []


def test_a_package_that_is_not_read_accepts_its_own_inputs(web: httpx.Client) -> None:
    """Their names are unknown, so that none is missing and none is extra; a file is in the instance."""
    web.post("/experiments/", json=definition()).raise_for_status()

    assert start(web, "toy", inputs=[{"filename": "any.csv", "content": "x"}])
    assert start(web, "toy")
