"""The platforms of packages, and the commits that runs get."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from st4sd_async.local.engine.interface import PackageProblem
from st4sd_async.local.engine.packages import ClonedPackages, _head, allowed_platforms, clone_problem
from st4sd_async.local.engine.processes import ChildProcesses, GitFailed, git

pytestmark = pytest.mark.slow


def platform(*inputs: str, errors: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return a platform as the inspection script describes it."""
    return {"errors": list(errors), "inputs": list(inputs), "variables": {}}


def test_invalid_platform_matters_only_if_it_is_allowed() -> None:
    """A definition may restrict starts to valid platforms."""
    declared = {"platforms": {"default": platform("a"), "bad": platform(errors=("broken",))}}
    options = {"executionOptions": {"platform": ["default"]}}

    assert allowed_platforms(declared, {"parameterisation": options}, "main") == {"default": platform("a")}
    with pytest.raises(PackageProblem, match=r"Invalid platform bad in base package main\. .* - broken"):
        allowed_platforms(declared, {}, "main")
    with pytest.raises(PackageProblem, match="Invalid platform bad"):
        allowed_platforms(declared, {"parameterisation": {"presets": {"platform": "bad"}}}, "main")


def test_platforms_must_exist_and_agree_on_inputs() -> None:
    """Unknown platforms and platforms with different input files are problems."""
    declared = {"platforms": {"default": platform("a"), "other": platform("b")}}

    with pytest.raises(PackageProblem, match=r"involves platforms \['ghost'\] but the base"):
        allowed_platforms(declared, {"parameterisation": {"presets": {"platform": "ghost"}}}, "main")
    with pytest.raises(PackageProblem, match="do not agree"):
        allowed_platforms(declared, {}, "main")


Commit = Callable[[str], str]


class CountedProcesses(ChildProcesses):
    """Processes that are counted."""

    count = 0

    def run(self, *arguments: Any, **options: Any) -> subprocess.CompletedProcess[bytes]:
        """Count and run a command."""
        self.count += 1
        return super().run(*arguments, **options)


@pytest.fixture
def repository(tmp_path: Path) -> tuple[Path, Commit]:
    """Return a repository with a branch, and a function that adds a commit and returns its id."""
    folder = tmp_path / "repository"
    folder.mkdir()

    def run(*arguments: str) -> str:
        return git(*arguments, processes=ChildProcesses(), timeout=50, folder=folder).strip()

    def commit(text: str) -> str:
        (folder / "file").write_text(text)
        run("add", "--all")
        run("commit", "--quiet", f"--message={text}")
        return run("rev-parse", "HEAD")

    run("init", "--quiet", "--initial-branch=main")
    commit("first")
    run("tag", "--annotate", "--message=tag", "1.0.0")
    return folder, commit


def test_a_run_gets_the_newest_commit_of_a_branch(tmp_path: Path, repository: tuple[Path, Commit]) -> None:
    """A tag and a commit stay what they are; the folder has the name of the repository."""
    folder, commit = repository
    packages = ClonedPackages(tmp_path / "clones", lambda *_: {}, ChildProcesses())
    first = packages.current(_definition(folder))
    second = commit("second")

    current = {
        name: packages.current(_definition(folder, **location))
        for name, location in {
            "default": {},
            "branch": {"branch": "main"},
            "tag": {"tag": "1.0.0"},
            "commit": {"commit": first[1]},
        }.items()
    }

    assert {name: commit for name, (_, commit) in current.items()} == {
        "default": second,
        "branch": second,
        "tag": first[1],
        "commit": first[1],
    }
    assert (current["branch"][0] / "file").read_text() == "second"
    assert (current["tag"][0] / "file").read_text() == "first"
    assert {path.name for path, _ in current.values()} == {"repository"}


def test_git_is_asked_again_only_if_a_reference_changed(tmp_path: Path, repository: tuple[Path, Commit]) -> None:
    """Also after references were packed, and for a tag that was moved."""
    folder, commit = repository
    processes = CountedProcesses()
    packages = ClonedPackages(tmp_path / "clones", lambda *_: {}, processes)

    def current(**location: str) -> tuple[str, bool]:
        before = processes.count
        return packages.current(_definition(folder, **location))[1], processes.count > before

    first = current(branch="main")[0]
    assert current(branch="main") == (first, False)
    assert current(tag="1.0.0") == (first, True)
    assert current(tag="1.0.0") == (first, False)
    assert current() == (first, True)
    second = commit("second")
    assert [current(), current(), current(branch="main"), current(tag="1.0.0")] == [
        (second, True),
        (second, False),
        (second, True),
        (first, False),
    ]
    for arguments in (["pack-refs", "--all"], ["tag", "--force", "1.0.0"]):
        git(*arguments, processes=ChildProcesses(), timeout=50, folder=folder)
    assert (current(tag="1.0.0"), current(branch="main")[0]) == ((second, True), second)


@pytest.mark.parametrize("location", [{}, {"branch": "main"}, {"tag": "1.0.0"}])
def test_a_first_push_only_clones(tmp_path: Path, repository: tuple[Path, Commit], location: dict[str, str]) -> None:
    """There is one git process, and the commit is that of the clone."""
    folder, commit = repository
    processes = CountedProcesses()
    newest = commit("second")

    found = ClonedPackages(tmp_path / "clones", lambda *_: {}, processes).current(_definition(folder, **location))

    assert processes.count == 1
    assert (found[1] == newest) is ("tag" not in location)
    assert (found[0] / "file").read_text() == ("first" if "tag" in location else "second")


def test_references_may_be_stored_in_a_table(tmp_path: Path, repository: tuple[Path, Commit]) -> None:
    """Git 2.45 can store them like that, and clones have the format of their user's configuration."""
    folder, commit = repository
    newest = commit("second")
    clone = tmp_path / "clone"
    git("clone", "--", folder.as_uri(), str(clone), processes=ChildProcesses(), timeout=50)

    assert _head(clone) == newest
    (clone / ".git" / "HEAD").write_text("ref: refs/heads/.invalid\n")
    assert _head(clone) is None


def test_a_repository_that_never_existed_is_the_same_error(tmp_path: Path) -> None:
    """As of one that vanished."""
    packages = ClonedPackages(tmp_path / "clones", lambda *_: {}, ChildProcesses())

    with pytest.raises(GitFailed, match=r"git ls-remote failed: fatal: '.*' does not appear to be a git repository"):
        packages.current(_definition(tmp_path / "gone"))


@pytest.mark.parametrize("location", [{}, {"branch": "main"}, {"tag": "1.0.0"}, {"commit": "0" * 40}])
def test_a_repository_that_vanished_is_an_error(
    tmp_path: Path, repository: tuple[Path, Commit], location: dict[str, str]
) -> None:
    """Even if the package was cloned before: a cluster keeps no clones."""
    folder, _ = repository
    packages = ClonedPackages(tmp_path / "clones", lambda *_: {}, ChildProcesses())
    packages.current(_definition(folder))
    folder.rename(tmp_path / "gone")

    with pytest.raises(GitFailed) as caught:
        packages.current(_definition(folder, **location))

    assert clone_problem(caught.value) == (
        f"git-sync-package failed with exit code 128 and message fatal: '{folder}' does not appear to be a git "
        "repository\nfatal: Could not read from remote repository.\n\nPlease make sure you have the correct access "
        "rights\nand the repository exists.\n"
    )


def test_a_branch_that_was_deleted_is_an_error(tmp_path: Path, repository: tuple[Path, Commit]) -> None:
    """The message is that of a clone."""
    folder, _ = repository
    packages = ClonedPackages(tmp_path / "clones", lambda *_: {}, ChildProcesses())

    with pytest.raises(GitFailed, match="Remote branch gone not found"):
        packages.current(_definition(folder, branch="gone"))


def test_a_clone_problem_contains_no_credentials() -> None:
    """Git quotes URLs as they were given."""
    error = GitFailed("x", exit_code=128, stderr="fatal: unable to access 'https://me:not-a-secret@git.example/x/'")

    assert "not-a-secret" not in clone_problem(error)


def _definition(folder: Path, **location: str) -> dict[str, Any]:
    source = {"git": {"location": {"url": folder.as_uri(), **location}}}
    return {"base": {"packages": [{"name": "main", "source": source}]}}
