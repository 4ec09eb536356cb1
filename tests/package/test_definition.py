"""What `Client.push` sends for a folder or a file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from st4sd_async import Client, InvalidPackage
from st4sd_async._package.definition import read_definition

from .conftest import Git

pytestmark = pytest.mark.anyio
Commit = Callable[[], str]


@pytest.mark.slow
async def test_a_folder_is_pushed_by_its_commit(folder: Path, commit: Commit, client: Client) -> None:
    """To a service on this machine, which clones the folder itself."""
    expected = commit()

    experiment = await client.push(folder)

    source = experiment.raw["base"]["packages"][0]["source"]["git"]["location"]
    assert (source["url"], source["commit"]) == (folder.as_uri(), expected)
    assert experiment.name == "energies"
    assert [one["name"] for one in experiment.raw["parameterisation"]["executionOptions"]["variables"]] == ["scale"]


async def test_without_a_definition_a_start_may_set_everything(folder: Path, commit: Commit) -> None:
    """Variables and platforms are read from the package, data files from its folder."""
    (folder / "definition.yaml").unlink()
    (folder / "data").mkdir()
    (folder / "data" / "weights.csv").write_text("H,1\n")
    flowir = folder / "conf" / "flowir_package.yaml"
    flowir.write_text(
        flowir.read_text().replace("variables:\n", "platforms: [default, big]\nvariables:\n  big: {}\n", 1)
    )
    commit()

    definition = await read_definition(folder, is_local=True)

    assert definition["metadata"]["package"] == {"name": "energies", "tags": ["latest"]}
    assert definition["parameterisation"]["executionOptions"] == {
        "variables": [{"name": "scale"}],
        "data": [{"name": "weights.csv"}],
        "platform": ["default", "big"],
    }


async def test_the_parameters_of_dsl_are_variables(folder: Path, commit: Commit) -> None:
    """Those of the entry workflow, without its input and data files."""
    (folder / "definition.yaml").unlink()
    (folder / "conf" / "flowir_package.yaml").unlink()
    parameters = [{"name": "input.molecules.csv"}, {"name": "scale", "default": 1}, {"name": "data.weights.csv"}]
    entry = {"signature": {"name": "main", "parameters": parameters}}
    other = {"signature": {"name": "other", "parameters": [{"name": "hidden"}]}}
    dsl = {"entrypoint": {"entry-instance": "main"}, "workflows": [other, entry]}
    (folder / "conf" / "dsl.yaml").write_text(json.dumps(dsl))
    commit()

    definition = await read_definition(folder, is_local=True)

    assert definition["parameterisation"]["executionOptions"]["variables"] == [{"name": "scale"}]


async def test_a_package_in_a_part_of_a_repository_has_its_path(folder: Path, git: Git) -> None:
    """The service clones the whole repository."""
    (folder / "packages").mkdir()
    git("clone", "--quiet", "--bare", str(folder), "../empty.git")
    for name in ("bin", "conf", "hooks", "definition.yaml"):
        (folder / name).rename(folder / "packages" / name)
    git("add", "--all")
    git("commit", "--quiet", "--message=Move")

    definition = await read_definition(folder / "packages", is_local=True)

    (package,) = definition["base"]["packages"]
    assert package["config"] == {"path": "/packages"}
    assert package["source"]["git"]["location"]["url"] == folder.as_uri()


@pytest.mark.parametrize(
    ("url", "sent"),
    [
        ("git@example.com:team/energies.git", "https://example.com/team/energies.git"),
        ("ssh://git@example.com/team/energies.git", "https://example.com/team/energies.git"),
        ("https://someone:fake-token@example.com/energies.git", "https://example.com/energies.git"),
        ("https://example.com/energies.git", "https://example.com/energies.git"),
    ],
    ids=["scp", "ssh", "credentials", "https"],
)
async def test_another_machine_clones_from_the_remote(
    folder: Path, git: Git, commit: Commit, url: str, sent: str
) -> None:
    """By https, because the service has no SSH key of yours; credentials in the URL stay here."""
    expected = commit()
    git("remote", "add", "origin", url)
    git("update-ref", "refs/remotes/origin/main", expected)

    definition = await read_definition(folder, is_local=False)

    location = definition["base"]["packages"][0]["source"]["git"]["location"]
    assert location == {"url": sent, "commit": expected}
    assert "fake-token" not in json.dumps(definition)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ("no repository", r"not a git repository.*; make one: git init"),
        ("not committed", r"has uncommitted changes \(\.gitignore, README\.md, .*\): commit them with git add -A"),
        ("changed", r"has uncommitted changes \(bin/measure\.py\)"),
        ("no remote", r"the repository of .* has no remote: add one with git remote add origin URL"),
        ("not pushed", r"the service cannot clone commit \w{10}, because no remote of .* has it: push it"),
        ("no package", r"has no conf/flowir_package\.yaml and no conf/dsl\.yaml"),
    ],
)
async def test_what_the_service_could_not_clone_is_not_pushed(
    folder: Path, git: Git, commit: Commit, state: str, message: str
) -> None:
    """The message says what to do, in git's words where it is git that complains."""
    if state == "no repository":
        (folder / ".git").rename(folder / "nothing")
    elif state != "not committed":
        if state == "no package":
            (folder / "conf" / "flowir_package.yaml").unlink()
            (folder / "definition.yaml").unlink()
        commit()
    if state == "changed":
        (folder / "bin" / "measure.py").write_text("")
    if state == "not pushed":
        git("remote", "add", "origin", "https://example.com/energies.git")

    with pytest.raises(InvalidPackage, match=message) as caught:
        await read_definition(folder, is_local=state == "no package" or state == "changed")

    assert caught.value.status is None
    assert "\n" not in str(caught.value)


async def test_a_definition_with_a_source_is_sent_as_it_is(tmp_path: Path) -> None:
    """In JSON or YAML; nothing is added, and no repository is needed."""
    definition: dict[str, Any] = {
        "base": {"packages": [{"source": {"git": {"location": {"url": "https://example.com/x.git", "tag": "1"}}}}]},
        "metadata": {"package": {"name": "x"}},
    }
    (tmp_path / "x.json").write_text(json.dumps(definition))
    (tmp_path / "x.yaml").write_text(
        "base: {packages: [{source: {git: {location: {url: https://example.com/x.git, tag: '1'}}}}]}\n"
        "metadata: {package: {name: x}}\n"
    )

    assert await read_definition(tmp_path / "x.json", is_local=False) == definition
    assert await read_definition(tmp_path / "x.yaml", is_local=False) == definition


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.yaml", "a: [", r"'.*x\.yaml' is invalid: invalid YAML: line 1, column"),
        ("x.yaml", "- a", "is invalid: it contains a list"),
        ("x.json", "{", "is invalid: it is not JSON"),
        ("x.yaml", "components: []", "contains FlowIR, not a definition: push its folder"),
        ("x.yaml", "workflows: []", r"contains DSL 2\.0, not a definition: push its folder"),
        ("x.yaml", None, "cannot be read: No such file"),
        ("x.json", None, "cannot be read: No such file"),
    ],
)
async def test_a_file_that_is_no_definition_is_named(
    tmp_path: Path, name: str, content: str | None, message: str
) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)

    with pytest.raises(InvalidPackage, match=message):
        await read_definition(tmp_path / name, is_local=True)


async def test_a_machine_without_git_says_so(folder: Path, commit: Commit, monkeypatch: pytest.MonkeyPatch) -> None:
    commit()
    monkeypatch.setenv("PATH", "")

    with pytest.raises(InvalidPackage, match="git is not installed"):
        await read_definition(folder, is_local=True)


async def test_components_of_the_wrong_structure_are_not_pushed(folder: Path, commit: Callable[[], str]) -> None:
    """`check` finds the place; the error says so."""
    (folder / "definition.yaml").unlink()
    (folder / "conf" / "flowir_package.yaml").write_text("variables: 3\ncomponents: []\n")
    commit()

    with pytest.raises(InvalidPackage, match=r"the wrong structure; st4sd-async check says where"):
        await read_definition(folder, is_local=True)
