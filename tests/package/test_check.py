"""`check` names the file, the line and the entry of each mistake in a package."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import anyio
import pytest

from st4sd_async import ConfigError, InvalidPackage, PackageProblem, check
from st4sd_async._package.check import _environment, _find, _locate
from st4sd_async._package.definition import is_huge, read_mapping
from st4sd_async._package.inspection import in_plain_words, with_reason
from st4sd_async.local.engine.forks import IS_AVAILABLE, ForkServer
from tests.tries import sample

pytestmark = [pytest.mark.anyio, pytest.mark.slow]
COMPONENTS = "conf/flowir_package.yaml"
PROGRAM = """
import os, sys
from st4sd_async._package.inspection import main
main(*sys.argv[1:])
sys.stdout.flush()
os._exit(0)  # to free the memory that a fork shares would copy it
"""
MODULES = ["experiment.model.storage", "experiment.model.hooks.interface", "st4sd_async._package.inspection"]
TIMEOUT = 50.0
Check = Callable[[Path], list[PackageProblem]]


@pytest.fixture(scope="module")
def server() -> Iterator[ForkServer]:
    """Return what imports the libraries once."""
    server = ForkServer(sys.executable)
    yield server
    server.close()


@pytest.fixture
def check_in_fork(server: ForkServer, tmp_path: Path) -> Check:
    """Return what `check` does, except that it does not import the libraries again, which takes 2 s."""

    def check_in_fork(path: Path) -> list[PackageProblem]:
        if not IS_AVAILABLE:
            return anyio.run(check, path)
        folder, package, manifest, file = _find(path)
        program = tmp_path / "program.py"
        program.write_text(PROGRAM)
        arguments = [str(program), str(package), *([] if manifest is None else [str(manifest)])]
        with server.start(arguments, modules=MODULES, folder=None, environment=_environment()) as process:
            process.begin()
            stdout, _ = process.communicate(TIMEOUT)
        return _locate(json.loads(stdout), folder, package, file, {} if file is None else read_mapping(file))

    return check_in_fork


def line_of(file: Path, text: str) -> int:
    """Return the number of the only line with a text."""
    (number,) = (number for number, line in enumerate(file.read_text().splitlines(), 1) if text in line)
    return number


def replace(file: Path, old: str, new: str) -> None:
    assert file.read_text().count(old) == 1
    file.write_text(file.read_text().replace(old, new))


MISTAKES = [
    # text, text with a mistake, end of the entry, part of the problem
    ("%(scale)s\n  # All", "%(scael)s\n  # All", "stage0.Measure.command.arguments", "no variable 'scael': did"),
    ("data-in: stage1.Summarise", "data-in: stage1.Sumarise", "output.Summary.data-in", "did you mean 'stage1.Sum"),
    (
        "keyOutput: Energies",
        "keyOutput: Energy",
        "csvDataFrame.source.keyOutput",
        "no key-output 'Energy': did you mean 'Energies'?",
    ),
    ("  - bin/summarise.py:ref\n", "  - bin/sumarise.py:ref\n", "Summarise.references[0]", "'summarise.py'?"),
    (
        "python3\n    # bin/measure.py:ref becomes the path of the file.\n    arguments: bin/measure.py:ref",
        "bin/measure.py\n    arguments:",
        "stage0.Measure.command.executable",
        "bin/measure.py is not executable: chmod +x bin/measure.py",
    ),
]
OTHERS = [
    (
        "  - stage0.Measure/energies.csv:ref\n",
        "  - stage0.Measured/energies.csv:ref\n",
        "stage1.Summarise.references",
        "Unknown reference(s) ['stage0.Measured']",
    ),
    (
        "    arguments: bin/measure.py:ref",
        "    arguments: bin/mesure.py:ref",
        "stage0.Measure.command.arguments",
        "the references of the component do not contain 'bin/mesure.py:ref': did you mean 'bin/measure.py:ref'?",
    ),
]
CYCLE = [
    (
        "  - input/molecules.csv:copy",
        "  - input/molecules.csv:copy\n  - stage1.Summarise:ref",
        "stage0.Measure.references",
        "the components wait for each other",
    ),
]
UNUSED = [
    (
        "  - bin/summarise.py:ref\n",
        "  - bin/summarise.py:ref\n  - bin/measure.py:ref\n",
        "stage1.Summarise.references[1]",
        "the arguments do not use 'bin/measure.py:ref': remove it",
    ),
    (
        "  - input/molecules.csv:copy",
        "  - bin/summarise.py:output\n  - input/molecules.csv:copy",
        "stage0.Measure.references[1]",
        "the arguments do not use 'bin/summarise.py:output'",
    ),
]
MISSING = [
    (
        "data-in: stage0.Measure/energies.csv:copy",
        "data-in: stage0.Measure/energies.csv",
        "output.Energies.data-in",
        "the reference 'stage0.Measure/energies.csv' has no method: write 'stage0.Measure/energies.csv:copy'",
    ),
    (
        "  Summary:\n    data-in: stage1.Summarise/summary.txt:copy",
        "  Summary:\n    stages: [1]",
        "output.Summary.data-in",
        "data-in is missing",
    ),
    (
        "  - input/molecules.csv:copy",
        "  - inputs/molecules.csv:copy",
        "interface.inputSpec.inputExtractionMethod.hookGetInputIds.source.path",
        "no component refers to 'input/molecules.csv'",
    ),
]


@pytest.mark.parametrize(
    "mistakes",
    sample([MISTAKES, OTHERS, CYCLE, UNUSED, MISSING], 3),
    ids=sample(["many", "reference", "cycle", "unused", "missing"], 3),
)
def test_each_mistake_has_its_file_line_and_entry(
    folder: Path, mistakes: list[tuple[str, str, str, str]], check_in_fork: Check
) -> None:
    """All are found at once. The line is that of the entry, or of the innermost part of it that exists."""
    for old, new, _, _ in mistakes:
        replace(folder / COMPONENTS, old, new)

    problems = check_in_fork(folder)

    lines = (folder / COMPONENTS).read_text().splitlines()
    for _, new, where, what in mistakes:
        (problem,) = (problem for problem in problems if problem.where.endswith(where))
        assert problem.file == COMPONENTS
        assert what in problem.what
        assert problem.line is not None
        field = where.rpartition(".")[2].partition("[")[0]
        assert field in lines[problem.line - 1] or lines[problem.line - 1] in new.splitlines()
        assert str(problem).startswith(f"{COMPONENTS}:{problem.line}: {problem.where}: ")
    assert [problem.line or 0 for problem in problems] == sorted(problem.line or 0 for problem in problems)


@pytest.mark.parametrize(
    ("what", "plain"),
    [
        (
            "Attempted to resolve \"ghost\" for \"components.stage0.A.command.arguments\". Context: ['scale', 'n']",
            "there is no variable 'ghost', only ['n', 'scale']",
        ),
        ('Attempted to resolve "ghost". Context: []', "there is no variable 'ghost'"),
        (
            'Unknown reference to x:ref in the command-line arguments of "stage0.A". Component references [], all ...',
            "the references of the component do not contain 'x:ref'",
        ),
        (
            "Invalid value FlowIR.interface.x.keyOutput=E, did you mean F? - valid choices are ['F']",
            "there is no key-output 'E': did you mean 'F'?",
        ),
        (
            "Invalid value FlowIR.interface.x.keyOutput=E - valid choices are None",
            "there is no key-output 'E'",
        ),
        ("anything else", "anything else"),
    ],
)
def test_messages_of_the_libraries_become_short(what: str, plain: str) -> None:
    """They list all that is known, which is a screen of text in a large package."""
    assert in_plain_words(("stage0.A", what)) == ("stage0.A", plain)


def test_a_reference_may_come_from_a_variable_or_omit_its_stage(folder: Path, check_in_fork: Check) -> None:
    """The orchestrator replaces both."""
    replace(folder / COMPONENTS, "- stage: 1\n", "- stage: 0\n")
    replace(folder / COMPONENTS, "stage1.Summarise/", "stage0.Summarise/")
    replace(folder / COMPONENTS, "bin/summarise.py:ref stage0.Measure/", "-u %(script)s Measure/")
    replace(
        folder / COMPONENTS, "name: Summarise\n", "name: Summarise\n  variables: {script: 'bin/summarise.py:ref'}\n"
    )

    assert check_in_fork(folder) == []


def test_options_and_hooks_are_checked_too(folder: Path, check_in_fork: Check) -> None:
    """All are reported at once, in the order of files and lines."""
    definition = folder / "definition.yaml"
    replace(definition, "- name: scale", "- name: scael\n    platform: [huge]\n    data:\n    - name: weights.csv")
    replace(folder / "hooks" / "interface.py", "get_input_ids(input_id_file, variables)", "get_input_ids(file)")

    components, *options = check_in_fork(folder)

    assert (components.file, components.where) == (COMPONENTS, "interface.inputSpec.inputExtractionMethod")
    assert "get_input_ids(file)" in components.what
    assert [(option.file, option.line, option.where.rpartition("executionOptions.")[2]) for option in options] == [
        ("definition.yaml", line_of(definition, "scael"), "variables[0].name"),
        ("definition.yaml", line_of(definition, "platform"), "platform"),
        ("definition.yaml", line_of(definition, "weights.csv"), "data[0].name"),
    ]
    assert options[0].what == "the package has no variable 'scael': did you mean 'scale'?"


FIELD = (
    "executionOptions:",
    "executionOption:",
    "parameterisation.executionOption",
    "the service knows no such field: did you mean 'executionOptions'?",
)
CHOICES = (
    "- name: scale",
    '- name: scale\n      value: ["1", "2"]',
    "parameterisation.executionOptions.variables[0].value",
    "it should be a valid string: list the values that a start may choose as valueFrom",
)
MISPLACED = (
    "metadata:",
    "name: energies\nmetadata:",
    "name",
    "the service knows no such field, only ['base', 'metadata', 'parameterisation']",
)
NAME = (
    "name: energies",
    "name: Energies",
    "metadata.package.name",
    "a name has lower-case letters, digits and dashes, such as 'energies'",
)
LIST = ("presets: {}", "presets: [1]", "parameterisation.presets", "it should be a mapping")
NUMBER = ("metadata:", "base: 3\nmetadata:", "base", "it should be a mapping")
MAPPING = ("metadata:", "base: {packages: {a: 1}}\nmetadata:", "base.packages", "it should be a valid list")
TEXT = ("metadata:", "base: {packages: [{config: x}]}\nmetadata:", "base.packages[0].config", "it should be")


@pytest.mark.parametrize(
    "mistakes",
    [[FIELD, LIST, NUMBER], [CHOICES, MAPPING, MISPLACED], [TEXT, NAME]],
    ids=["field", "choices", "text"],
)
def test_a_definition_that_the_service_would_refuse_is_a_problem(
    folder: Path, mistakes: list[tuple[str, str, str, str]], check_in_fork: Check
) -> None:
    """A field is misspelt, or has the wrong type; a push would fail with the answer of the service. Nothing else is."""
    for old, new, _, _ in mistakes:
        replace(folder / "definition.yaml", old, new)

    problems = {problem.where: problem for problem in check_in_fork(folder)}

    assert problems.keys() == {where for _, _, where, _ in mistakes}
    for _, _, where, what in mistakes:
        assert problems[where].file == "definition.yaml"
        assert problems[where].what.startswith(what)
        assert problems[where].line is not None


def test_a_reference_without_a_method_is_named_by_its_line(folder: Path, check_in_fork: Check) -> None:
    """The libraries cannot load such a package."""
    replace(folder / COMPONENTS, "  - bin/summarise.py:ref\n", "  - bin/summarise.py\n")

    (problem,) = check_in_fork(folder)

    assert (problem.file, problem.line) == (COMPONENTS, line_of(folder / COMPONENTS, "  - bin/summarise.py"))
    assert problem.what == "the reference 'bin/summarise.py' has no method: write 'bin/summarise.py:ref' or ':copy'"


@pytest.mark.parametrize(
    ("old", "new", "line", "what"),
    [
        (
            "      scale: 1",
            "       scale: 1\n      n: 1",
            "      n: 1",
            "expected <block end>, but found '<block mapping start>': indent the line like the lines above (",
        ),
        ("one row for each", "one: for each", "one: for each", "mapping values are not allowed here: quote"),
        (
            "the lowest energy",
            "'the lowest",
            "'the lowest",
            "found unexpected end of stream (while scanning a quoted scalar, from line ",
        ),
    ],
    ids=["indentation", "colon", "quote"],
)
def test_a_syntax_error_has_the_line_of_the_mistake(
    folder: Path, old: str, new: str, line: str, what: str, check_in_fork: Check
) -> None:
    """It may be far below the begin of the block that contains it."""
    replace(folder / COMPONENTS, old, new)

    (problem,) = check_in_fork(folder)

    assert problem.line == line_of(folder / COMPONENTS, line)
    assert problem.what.startswith(what)


async def test_broken_yaml_is_named_by_its_line(folder: Path) -> None:
    replace(folder / COMPONENTS, "components:\n", "components: [\n")

    (problem,) = await check(folder)

    assert (problem.file, problem.where) == (COMPONENTS, "")
    assert problem.line == line_of(folder / COMPONENTS, "- stage: 0")
    assert "\n" not in problem.what


@pytest.mark.parametrize(
    ("content", "reason"),
    sample(
        [
            pytest.param(b"", "Expected workflow in", id="empty"),
            pytest.param(b"components: 3", "'int' object is not iterable", id="no list"),
            pytest.param(b"\x87\xff\x00", "can't decode byte 0x87", id="binary"),
            pytest.param(b"components: [Measure]", 'missing "name"', id="no mapping"),
        ],
        2,
    ),
)
def test_a_file_without_components_is_a_problem(
    folder: Path, content: bytes, reason: str, check_in_fork: Check
) -> None:
    """The reason is that of the libraries, in one line."""
    (folder / COMPONENTS).write_bytes(content)

    (problem,) = check_in_fork(folder)

    assert (problem.file, problem.where) == (COMPONENTS, "")
    assert reason in problem.what
    assert "\n" not in problem.what
    assert "Found 1 errors" not in problem.what


def test_a_file_and_a_definition_can_be_checked_alone(folder: Path, check_in_fork: Check) -> None:
    """The first without a definition, the second with the package beside it."""
    assert check_in_fork(folder / COMPONENTS) == []
    assert check_in_fork(folder / "definition.yaml") == []


def test_dsl_is_checked(tmp_path: Path, check_in_fork: Check) -> None:
    """Its problems have the location in the file."""
    component = {"signature": {"name": "hello"}, "command": {"executable": "echo", "arguments": "%(nobody)s"}}
    dsl = {
        "entrypoint": {"entry-instance": "hello", "execute": [{"target": "<entry-instance>"}]},
        "components": [component],
    }
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "dsl.yaml").write_text(json.dumps(dsl, indent=1))

    problems = check_in_fork(tmp_path)

    assert {problem.file for problem in problems} == {"conf/dsl.yaml"}
    assert any("nobody" in problem.what for problem in problems)


@pytest.mark.parametrize("state", ["nothing there", "no package"])
async def test_a_path_without_a_package_is_an_error(tmp_path: Path, state: str) -> None:
    path = tmp_path / "nothing" if state == "nothing there" else tmp_path

    with pytest.raises(InvalidPackage, match=r"there is no file or folder|is not a package: it has no conf/"):
        await check(path)


async def test_without_the_libraries_nothing_is_claimed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty list would say that the package is right."""
    monkeypatch.setattr("sys.executable", "")

    with pytest.raises(ConfigError, match=r'was not checked: .* pip install "st4sd_async\[engine\]"'):
        await check(folder)


def test_a_problem_without_a_line_is_one_line_too() -> None:
    assert str(PackageProblem("conf/dsl.yaml", None, "", "it is empty")) == "conf/dsl.yaml: it is empty"


FORGED = """import os, threading
os.write(1, b'{"problems": []}')
%s
def get_input_ids(input_id_file, variables): return []
"""


def test_a_hook_cannot_end_the_check_or_forge_its_result(folder: Path, check_in_fork: Check) -> None:
    """Other problems are still found, and the end of the process is one more."""
    replace(folder / COMPONENTS, "  - bin/summarise.py:ref\n", "  - bin/sumarise.py:ref\n")
    replace(folder / COMPONENTS, "arguments: bin/summarise.py:ref", "arguments: bin/sumarise.py:ref")
    (folder / "hooks" / "interface.py").write_text(FORGED % "os._exit(0)")
    problems = check_in_fork(folder)
    (folder / "hooks" / "interface.py").write_text(FORGED % "")
    others = check_in_fork(folder)

    assert [problem.where for problem in problems] == ["stage1.Summarise.references[0]", "interface"]
    assert problems[1].what == "the hooks end the process that imports them: they must only define functions"
    assert [problem.where for problem in others] == ["stage1.Summarise.references[0]"]


ALIASES = "\n".join(
    ["l0: &l0 [1, 2, 3, 4, 5, 6, 7, 8, 9, 0]", *[f"l{n}: &l{n} [{','.join([f'*l{n - 1}'] * 10)}]" for n in range(1, 9)]]
)


@pytest.mark.parametrize("name", [COMPONENTS, "definition.yaml"])
async def test_aliases_that_repeat_without_end_are_reported_at_once(folder: Path, name: str) -> None:
    """The libraries would take hours and all memory."""
    (folder / name).write_text(f"{(folder / name).read_text()}\n{ALIASES}\n")

    if name == COMPONENTS:
        (problem,) = await check(folder)
        assert problem.file == COMPONENTS
        message = str(problem)
    else:
        with pytest.raises(InvalidPackage, match=r"definition.yaml") as refused:
            await check(folder)
        message = str(refused.value)
    assert "its aliases repeat values until there are more than 1,000,000: write them out" in message


@pytest.mark.parametrize(
    ("content", "expected"), [([1, {"a": 2}], False), ([0] * 1_000_001, True)], ids=["small", "long"]
)
def test_huge_content_is_found(content: object, expected: bool) -> None:
    assert is_huge(content) is expected


def test_content_that_contains_itself_is_huge() -> None:
    """YAML permits it: &a [*a]."""
    content: list[object] = []
    content.append(content)

    assert is_huge(content)


async def test_a_file_that_is_neither_components_nor_a_definition_is_named(tmp_path: Path) -> None:
    (tmp_path / "components.yaml").write_text("component: []\n")

    with pytest.raises(InvalidPackage, match=r"components.yaml' has no components, and .* is not a package"):
        await check(tmp_path / "components.yaml")


def test_a_broken_file_of_a_package_is_named_with_its_line(folder: Path, check_in_fork: Check) -> None:
    replace(folder / COMPONENTS, "components:\n", "components: [\n")

    (problem,) = check_in_fork(folder / COMPONENTS)

    assert (problem.file, problem.line) == (COMPONENTS, line_of(folder / COMPONENTS, "- stage: 0"))


LIMITED = """
import mmap
from st4sd_async._package.inspection import MAX_MEMORY, _limit_memory
_limit_memory()
mmap.mmap(-1, MAX_MEMORY // 2)
bytearray(MAX_MEMORY + MAX_MEMORY // 2)
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="this system does not limit memory")
async def test_the_memory_of_the_libraries_is_limited() -> None:
    """A package of 2 KB may need any amount of memory, by variables that repeat variables."""
    done = await anyio.run_process([sys.executable, "-c", LIMITED], check=False)

    assert done.returncode == 1
    assert "line 6" in done.stderr.decode()
    assert done.stderr.rstrip().endswith(b"MemoryError")


def test_an_error_without_a_reason_may_be_a_lack_of_memory() -> None:
    """The libraries drop the class of an error that they find in a component."""
    assert with_reason(("stage0.a", "")) == (
        "stage0.a",
        "the libraries give no reason; they may need more than 2 GiB of memory",
    )
    assert with_reason(("stage0.a", "b")) == ("stage0.a", "b")
