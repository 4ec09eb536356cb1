"""What the simulator reads from packages, compared with what the orchestrator's libraries read."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from st4sd_async.local.engine.flowir import expanded
from st4sd_async.local.engine.orchestrator import Orchestrator
from st4sd_async.local.engine.processes import ChildProcesses
from st4sd_async.local.examples.examples import load_examples
from st4sd_async.local.simulator.reader import UnsupportedPackage, read_content, read_package

from ..helpers import package_files

pytestmark = pytest.mark.slow

PACKAGES = {
    **{name: load_examples()[name].package for name in ("demo", "fail")},
    **{name: Path(__file__).parents[1] / "packages" / name for name in ("replicas", "steps", "interpreted")},
}
BROKEN = (
    "components:\n- {name: A, command: {executable: echo, arguments: 'stage0.B:ref'}, references: ['stage0.B:ref']}\n"
)


def read_by_libraries(package: Path, manifest: Path | None = None) -> dict[str, Any]:
    """Return what the orchestrator's libraries read."""
    orchestrator = Orchestrator(sys.executable, "")
    return orchestrator.read_package(package, manifest, folder=Path.cwd(), processes=ChildProcesses())


def read(package: Path, manifest: Path | None = None) -> Any:
    """Return what the simulator reads, as JSON has it."""
    return json.loads(json.dumps(read_package(package, manifest)))


def write(folder: Path, files: Mapping[str, str]) -> Path:
    """Write the files of a package."""
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    return folder


@pytest.mark.skipif(importlib.util.find_spec("experiment") is None, reason="st4sd-runtime-core is not installed")
@pytest.mark.parametrize("name", PACKAGES)
def test_simulator_reads_the_same_as_the_libraries(name: str) -> None:
    """Inputs, variables, platforms, data, key-outputs, images, interface, and the whole definition are equal."""
    assert read(PACKAGES[name]) == read_by_libraries(PACKAGES[name])


EXPANDED = """
import contextlib, json, sys
from experiment.model.storage import ExperimentPackage
found = []
with contextlib.redirect_stdout(sys.stderr):
    for package in sys.argv[1:]:
        platforms = ExperimentPackage.packageFromLocation(package, validate=False).configuration
        for platform in platforms.get_flowir_concrete().platforms:
            read = ExperimentPackage.packageFromLocation(
                package, platform=platform, primitive=False, variable_substitute=True, updateInstanceFiles=False
            )
            concrete = read.configuration.get_flowir_concrete()
            found += [
                [package, platform, concrete.get_component_configuration(name, include_default=True)]
                for name in sorted(concrete.get_component_identifiers(True))
            ]
print(json.dumps(found))
"""


@pytest.mark.skipif(importlib.util.find_spec("experiment") is None, reason="st4sd-runtime-core is not installed")
def test_components_of_runs_are_those_of_the_libraries(tmp_path: Path) -> None:
    """On each platform they have the same names, inherit the same, and refer to the same replicas."""
    program = tmp_path / "program.py"
    program.write_text(EXPANDED)
    command = [sys.executable, str(program), *map(str, PACKAGES.values())]
    done = ChildProcesses().run(command, cwd=tmp_path, timeout=50, modules=["experiment.model.storage"])
    libraries = [
        (package, platform, {name: value for name, value in component.items() if name != "override"})
        for package, platform, component in json.loads(done.stdout)
    ]

    found = [
        (str(package), platform, component)
        for package in PACKAGES.values()
        for content in [read_content(package)]
        for platform in content.flowir["platforms"]
        for component in sorted(
            expanded(content.flowir, platform, content.folders), key=lambda one: (one["stage"], one["name"])
        )
    ]

    assert found == libraries


@pytest.mark.skipif(importlib.util.find_spec("experiment") is None, reason="st4sd-runtime-core is not installed")
def test_a_definition_in_one_file_has_the_folders_of_its_manifest(tmp_path: Path) -> None:
    """The data files are in the folder that the manifest names, relative to the definition."""
    files = package_files("replicas")
    write(
        tmp_path,
        {"flow.yaml": files["conf/flowir_package.yaml"], "tables/table.dat": "1", "m.yaml": "data: tables:copy"},
    )

    found = read(tmp_path / "flow.yaml", tmp_path / "m.yaml")

    assert found == read_by_libraries(tmp_path / "flow.yaml", tmp_path / "m.yaml")
    assert (found["data"], found["folders"]) == (["table.dat"], ["data"])


def test_platforms_have_their_own_values() -> None:
    """Variables refer to others, images are those of components in containers, and inputs are the same on all."""
    platforms = read(PACKAGES["replicas"])["platforms"]

    assert platforms["default"]["variables"]["delay"] == "10"
    assert platforms["big"]["variables"] == {"count": "3", "label": "bigger"}
    assert platforms["openshift"]["images"] == ["quay.io/example/base:1", "quay.io/example/join:2"]
    assert [platform["inputs"] for platform in platforms.values()] == [["rows.csv"]] * 3


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        ({"README.md": "nothing"}, "FileNotFoundError"),
        ({"conf/flowir_package.yaml": "a: [1"}, "ValueError Configuration contains malformed YAML"),
        ({"conf/flowir_package.yaml": "- a"}, "ValueError flowir_package.yaml must contain a mapping, not list"),
        ({"conf/flowir_package.yaml": "components: 7"}, "TypeError"),
    ],
    ids=["no definition", "no YAML", "a list", "a number"],
)
def test_unreadable_definition_is_a_problem(tmp_path: Path, files: dict[str, str], problem: str) -> None:
    """The text says what is wrong."""
    assert read(write(tmp_path, files))["problem"].startswith(problem)


def test_unknown_reference_is_an_error_of_the_platform(tmp_path: Path) -> None:
    """It has the words of the orchestrator, whether its libraries are installed or not."""
    package = write(tmp_path, {"conf/flowir_package.yaml": BROKEN})

    assert read(package)["platforms"]["default"]["errors"] == [
        "Unknown reference(s) ['stage0.B'] by \"stage0.A\". Known components: ['stage0.A']"
    ]


@pytest.mark.skipif(importlib.util.find_spec("experiment") is None, reason="st4sd-runtime-core is not installed")
def test_invalid_dsl_is_a_problem_in_the_words_of_the_libraries(tmp_path: Path) -> None:
    """Each error has its place."""
    text = package_files("steps")["conf/dsl.yaml"].replace("all.txt:ref", "all.txt:copy", 1)
    package = write(tmp_path, {"conf/dsl.yaml": text})

    problem = read(package)["problem"]

    assert problem == read_by_libraries(package)["problem"]
    assert "DSL Error at entrypoint/output/0/data-in: String should match pattern" in problem


WITHOUT_LIBRARIES = """
import json, sys
sys.modules["experiment"] = None
from pathlib import Path
from st4sd_async.local.simulator.reader import read_package
print(json.dumps([read_package(Path(package)) for package in sys.argv[1:]]))
"""


def test_packages_are_read_without_the_libraries() -> None:
    """What is read is the same; problems are found by the simulator itself."""
    command = [sys.executable, "-c", WITHOUT_LIBRARIES, *map(str, PACKAGES.values())]

    done = subprocess.run(command, capture_output=True, text=True, check=True)

    assert json.loads(done.stdout) == [read(package) for package in PACKAGES.values()]


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"conf/experiment.conf": "[DEFAULT]"}, "it is written in DOSINI"),
        ({"conf/cwl/main.cwl": "x"}, "it is written in CWL"),
        ({"conf/flowir_package.yaml": "components: [{name: A, $import: a.yaml}]"}, "its components import documents"),
    ],
    ids=["DOSINI", "CWL", "import"],
)
def test_other_languages_are_not_read(tmp_path: Path, files: dict[str, str], reason: str) -> None:
    """The text says which."""
    with pytest.raises(UnsupportedPackage, match=reason):
        read(write(tmp_path, files))
