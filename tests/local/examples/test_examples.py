"""The example experiments: their repositories, and runs without an orchestrator."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from st4sd_async.local.engine.elaunch import ElaunchEngine
from st4sd_async.local.engine.interface import AcceptedStart
from st4sd_async.local.engine.processes import ChildProcesses, git
from st4sd_async.local.examples.examples import Examples, git_directory, load_examples

pytestmark = pytest.mark.slow

MOLECULES = "id,smiles\n0,CCO\n1,c1ccccc1\n2,[Xe]\n"


def accepted_start(
    *,
    inputs: dict[str, str] | None = None,
    data: dict[str, str] | None = None,
    variables: dict[str, str] | None = None,
) -> AcceptedStart:
    """Return a start with some files and variables."""
    return AcceptedStart(
        rest_uid="demo-abcdef-12345678",
        identifier="demo@sha256x0",
        package={},
        platform=None,
        inputs=inputs or {},
        data=data or {},
        variables=variables or {},
        metadata={},
        environment={},
        options=(),
    )


@pytest.fixture
def examples(tmp_path: Path) -> Examples:
    """Return examples in a temporary folder."""
    return Examples(tmp_path / "examples")


def test_commit_ids_do_not_depend_on_folder_user_or_git_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commits are the same everywhere, even in a git hook and with a configuration of the user."""
    first = Examples(tmp_path / "here")
    ids = {name: first.facts(name).version for name in load_examples()}
    config = tmp_path / "gitconfig"
    config.write_text("[user]\n\tname = other\n[commit]\n\tgpgSign = true\n[core]\n\tautocrlf = true\n")
    for name, value in {
        "GIT_CONFIG_GLOBAL": str(config),
        "GIT_AUTHOR_NAME": "other",
        "GIT_AUTHOR_DATE": "2001-01-01T00:00:00+0000",
        "GIT_DIR": str(tmp_path / "elsewhere"),
        "HOME": str(tmp_path),
    }.items():
        monkeypatch.setenv(name, value)
    git_directory.cache_clear()

    second = Examples(tmp_path / "there")

    assert {name: second.facts(name).version for name in load_examples()} == ids
    assert len(set(ids.values())) == 2


@pytest.mark.parametrize("name", ["demo", "fail"])
def test_definition_has_the_documented_shape(examples: Examples, name: str) -> None:
    """It names the repository by a file URL and a tag, and allows all variables of the package."""
    definition = examples.definition(name)

    location = definition["base"]["packages"][0]["source"]["git"]["location"]
    assert location["url"].startswith("file:///")
    assert location["tag"] == "1.0.0"
    assert definition["metadata"]["package"]["name"] == name
    assert definition["metadata"]["package"]["tags"] == ["latest"]
    options = definition["parameterisation"]["executionOptions"]
    assert options["variables"] == ([{"name": "scale"}] if name == "demo" else [])
    assert json.loads(json.dumps(definition)) == definition


def test_an_example_is_found_by_the_url_of_its_repository(examples: Examples) -> None:
    """Its repository contains the package; no example is found at other URLs."""
    url = examples.definition("demo")["base"]["packages"][0]["source"]["git"]["location"]["url"]

    example = examples.find(url)

    assert example is not None
    assert example.name == "demo"
    assert (Path(url.removeprefix("file://")) / "conf" / "flowir_package.yaml").is_file()
    assert examples.find("https://github.com/example/demo.git") is None
    assert examples.find(url + "-other") is None


def test_unknown_example_lists_the_known_ones(examples: Examples) -> None:
    """An unknown name is a `KeyError` that lists the names."""
    with pytest.raises(KeyError, match="demo, fail"):
        examples.definition("ghost")


def test_missing_git_is_reported(examples: Examples, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the git command."""
    git_directory.cache_clear()
    monkeypatch.setenv("PATH", "")

    with pytest.raises(RuntimeError, match="git command is needed"):
        examples.definition("demo")


def test_git_is_needed_once_in_a_process(examples: Examples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Further servers copy the repository: it is clean, and has the same commit."""
    first = examples.facts("demo").version
    url = examples.definition("demo")["base"]["packages"][0]["source"]["git"]["location"]["url"]
    with monkeypatch.context() as without_git:
        without_git.setenv("PATH", "")
        again = Examples(tmp_path / "again")
        assert again.facts("demo").version == first
        copied = again.definition("demo")["base"]["packages"][0]["source"]["git"]["location"]["url"]

    assert copied != url
    for folder in (Path(one.removeprefix("file://")) for one in (url, copied)):
        for command, output in {
            ("status", "--porcelain"): "",
            ("rev-parse", "main", "1.0.0"): f"{first}\n{first}\n",
            ("fsck", "--strict"): "",
        }.items():
            assert git(*command, processes=ChildProcesses(), folder=folder, timeout=50) == output


def test_demo_computes_from_inputs_and_scale(examples: Examples, tmp_path: Path) -> None:
    """Energies are -1.5 per atom times scale, weights are those of chemistry; unknown elements result in NaN."""
    start = accepted_start(inputs={"molecules.csv": MOLECULES}, variables={"scale": "2"})

    outputs = load_examples()["demo"].run(start, tmp_path / "run")

    assert (tmp_path / "run/stages/stage0/Compute/energies.csv").read_text() == (
        "input-id,smiles,energy,weight\nCCO,CCO,-9.0,46.069\nc1ccccc1,c1ccccc1,-18.0,78.114\n[Xe],[Xe],nan,nan\n"
    )
    assert (tmp_path / "run/output/properties.csv").read_text() == (
        "input-id;smiles;energy;weight\nCCO;CCO;-9.0;46.069\n[Xe];[Xe];;\nc1ccccc1;c1ccccc1;-18.0;78.114\n"
    )
    assert json.loads((tmp_path / "run/output/input-ids.json").read_text()) == ["CCO", "c1ccccc1", "[Xe]"]
    assert sorted(outputs) == ["Energies", "Folder"]
    creation_time = outputs["Energies"].pop("creationtime")
    assert float(creation_time) > 0
    assert outputs["Energies"] == {
        "description": "",
        "filename": "energies.csv",
        "filepath": "stages/stage0/Compute/energies.csv",
        "final": "yes",
        "production": "yes",
        "type": "",
        "version": "1",
    }
    folder = tmp_path / "run" / outputs["Folder"]["filepath"]
    assert (folder / "sub/b.bin").read_bytes() == bytes(range(256))
    assert json.loads((folder / "summary.json").read_text())["lowest"] == "c1ccccc1"


def test_demo_uses_a_data_file_that_the_start_overrides(examples: Examples, tmp_path: Path) -> None:
    """Weights come from the table of the start if it has one."""
    table = "element,weight\nH,100\nC,1\nO,10\n"

    load_examples()["demo"].run(
        accepted_start(inputs={"molecules.csv": MOLECULES}, data={"weights.csv": table}), tmp_path
    )

    lines = (tmp_path / "stages/stage0/Compute/energies.csv").read_text().splitlines()
    assert lines[1] == "CCO,CCO,-4.5,612.0"


def test_demo_measures_properties_with_one_column(examples: Examples, tmp_path: Path) -> None:
    """SMILES strings are enough for input ids, in the order of the file, and properties, in the order of the ids."""
    load_examples()["demo"].run(accepted_start(inputs={"molecules.csv": "smiles\nCO\n CCO\n"}), tmp_path)

    assert json.loads((tmp_path / "output/input-ids.json").read_text()) == ["CO", "CCO"]
    assert (tmp_path / "output/properties.csv").read_text() == (
        "input-id;smiles;energy;weight\nCCO;CCO;-4.5;46.069\nCO;CO;-3.0;32.042\n"
    )


def test_demo_without_molecules_has_no_properties(examples: Examples, tmp_path: Path) -> None:
    """As with the orchestrator, a table without rows results in outputs and empty input ids, but no properties."""
    outputs = load_examples()["demo"].run(accepted_start(inputs={"molecules.csv": "smiles\n"}), tmp_path)

    assert "Energies" in outputs
    assert json.loads((tmp_path / "output/input-ids.json").read_text()) == []
    assert not (tmp_path / "output/properties.csv").exists()


def test_hooks_are_part_of_the_package_and_of_every_instance(examples: Examples, tmp_path: Path) -> None:
    """The hook that reads input ids is in the repository of the example and in the instance directory."""
    load_examples()["demo"].run(accepted_start(inputs={"molecules.csv": MOLECULES}), tmp_path / "run")
    url = examples.definition("demo")["base"]["packages"][0]["source"]["git"]["location"]["url"]

    tracked = git("ls-files", "hooks", processes=ChildProcesses(), folder=Path(url.removeprefix("file://")), timeout=50)
    assert tracked.split() == ["hooks/__init__.py", "hooks/interface.py"]
    assert (tmp_path / "run/hooks/interface.py").is_file()


def test_fail_leaves_files_but_no_outputs(examples: Examples, tmp_path: Path) -> None:
    """It stops at its first component, and the error output contains the reason."""
    outputs = load_examples()["fail"].run(accepted_start(), tmp_path)

    assert outputs == {}
    assert "always fails" in (tmp_path / "stages/stage0/Boom/out.stderr").read_text()
    assert not (tmp_path / "stages/stage1/After").exists()
    failure = load_examples()["fail"].failure
    assert failure is not None
    assert "stage0.Boom" in failure
    assert load_examples()["demo"].failure is None
    assert [component.reference for component in load_examples()["demo"].components] == [
        "stage0.Compute",
        "stage1.Report",
    ]


@pytest.mark.parametrize("name", ["demo", "fail"])
def test_packages_declare_the_facts_in_examples_json(examples: Examples, tmp_path: Path, name: str) -> None:
    """The orchestrator's libraries read from the packages what the simulator uses."""
    engine = ElaunchEngine(tmp_path / "engine")

    assert engine.inspect(examples.definition(name)) == examples.facts(name)


def test_package_can_be_named_by_its_commit(examples: Examples, tmp_path: Path) -> None:
    """A location with a commit instead of a tag is the same package."""
    definition, facts = examples.definition("fail"), examples.facts("fail")
    location = definition["base"]["packages"][0]["source"]["git"]["location"]
    location["commit"] = facts.version
    del location["tag"]

    assert ElaunchEngine(tmp_path / "engine").inspect(definition) == facts
