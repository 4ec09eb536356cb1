"""``st4sd-async push``, ``list`` and ``show``."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from st4sd_async.local import Html, Reply

from .conftest import MOLECULES, Command, Shell, environment_of
from .terminal import Terminal


def test_a_package_is_pushed_from_a_file_or_a_pipe(shell: Shell) -> None:
    """Standard output has name@digest or, with --json, the registry's entry."""
    definition = json.dumps(shell.server.example("demo"))
    Path("package.json").write_text(definition)

    from_file, from_pipe = shell("push", "package.json"), shell("push", "-", "--json", stdin=definition)

    assert (from_file.status, from_pipe.status) == (0, 0)
    assert from_file.out.strip() == f"demo@{from_pipe.document['metadata']['registry']['digest']}"
    assert "st4sd-async show demo" in from_file.err


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "'package.json' is invalid: it cannot be read: No such file"),
        ("{", "'package.json' is invalid: it is not JSON: "),
        ("[]", "'package.json' is invalid: it contains a list, but a definition is a mapping"),
        ('{"base": {}, "name": "x"}', "fields ['name']"),
    ],
    ids=["no file", "no JSON", "no object", "no package"],
)
def test_an_invalid_package_is_wrong_usage(shell: Shell, content: str | None, message: str) -> None:
    """The message is one line, and nothing is sent."""
    if content is not None:
        Path("package.json").write_text(content)

    done = shell("push", "package.json")

    assert (done.status, done.out) == (2, "")
    assert message in done.err
    assert done.err.count("\n") == 1


def test_a_package_that_the_service_refuses_is_an_error_of_the_service(shell: Shell) -> None:
    """The message has the service's text."""
    done = shell("push", "-", stdin='{"base": {"packages": []}, "metadata": {"package": {"name": "x"}}}')

    assert (done.status, done.out) == (3, "")
    assert "refused with 400" in done.err


def test_experiments_with_tags_are_listed(shell: Shell) -> None:
    """--all lists the others too, --json has whole entries."""
    found, whole = shell("list"), shell("list", "--json", "--all")

    tags = {row["experiment"]: row["tags"] for row in found.table}
    assert {name: tags[name] for name in ("demo", "fail")} == {"demo": "latest", "fail": "latest"}
    assert {one["metadata"]["package"]["name"] for one in whole.document} >= {"demo", "fail"}


def test_runs_are_listed_for_pipes(shell: Shell) -> None:
    """Other commands read the list from standard input."""
    run, other = shell.started(), shell.started("fail")

    listed = shell("list", "runs")
    message = shell("status", "-", stdin=listed.out)

    assert {row["rest-uid"]: row["experiment"] for row in listed.table}.items() >= {run: "demo", other: "fail"}.items()
    assert [row["rest-uid"] for row in message.table] == [row["rest-uid"] for row in listed.table]
    as_json = shell("list", "runs", "--json").document
    assert {one["rest-uid"]: one["is-success"] for one in as_json}.items() >= {run: True, other: False}.items()


@pytest.mark.slow
def test_runs_are_listed_by_state_and_experiment(shell: Shell) -> None:
    """With the words of `Status.state`, in any case; also as JSON. One version is named by its digest."""
    run, failed = shell.started(), shell.started("fail")
    digest = next(one["labels"]["st4sd-package-digest"] for one in listed(shell) if one["rest-uid"] == run)

    assert {one["state"] for one in listed(shell, "--state", "Failed", "--state", "stopped")} == {"failed"}
    assert {one["rest-uid"] for one in listed(shell, "--state", "failed")} >= {failed}
    assert {one["labels"]["st4sd-package-name"] for one in listed(shell, "--experiment", "demo")} == {"demo"}
    assert run in [one["rest-uid"] for one in listed(shell, "--experiment", f"demo@{digest}", "--state", "succeeded")]
    assert listed(shell, "--experiment", "demo@other") == listed(shell, "--experiment", "ghost") == []
    rows = shell("list", "runs", "--state", "succeeded", "--experiment", "demo").table
    assert (run in [row["rest-uid"] for row in rows], {row["state"] for row in rows}) == (True, {"succeeded"})


def listed(shell: Shell, *options: str) -> list[dict[str, Any]]:
    """Return the runs of a list in JSON."""
    found: list[dict[str, Any]] = shell("list", "runs", "--json", *options).document
    return found


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("runs", "--state", "succeded"), "'succeded' is no state of a run: did you mean 'succeeded'? (states: no st"),
        (("runs", "--experiment", "demo:latest"), "runs have no tags; use name or name@digest in place of 'demo:late"),
        (("--state", "failed"), "--state and --experiment apply to runs: st4sd-async list runs"),
        (("experiments", "--experiment", "demo"), "--state and --experiment apply to runs"),
    ],
)
def test_an_invalid_filter_of_a_list_is_wrong_usage(shell: Shell, arguments: tuple[str, ...], message: str) -> None:
    """A misspelt state must not look like an empty list."""
    done = shell("list", *arguments)

    assert (done.status, done.out) == (2, "")
    assert message in done.err


def test_show_has_what_a_start_takes_and_the_command(shell: Shell) -> None:
    """Inputs, variables, data files and key-outputs are named, and a command line can be copied."""
    done = shell("show", "demo")

    facts = {(row["what"], row["name"]) for row in done.table}
    assert facts >= {("input", "molecules.csv"), ("variable", "scale"), ("data", "weights.csv")}
    assert facts >= {("key-output", "Energies"), ("platform", "default")}
    (scale,) = (row for row in done.table if row["name"] == "scale")
    assert scale["details"] == "default 1"
    described = shell("show", "demo", "--json").document["metadata"]["registry"]["interface"]["propertiesSpec"]
    properties = [(row["name"], row["details"]) for row in done.table if row["what"] == "property"]
    assert properties == [(one["name"], one["description"]) for one in described]
    assert [name for name, description in properties if description] == ["energy", "weight"]
    assert done.err == "\nstart it with: st4sd-async start demo --input molecules.csv --variable scale=1\n"
    assert shell("show", "demo", "--json").document["metadata"]["package"]["name"] == "demo"


@pytest.mark.parametrize("experiment", ["demo", "demo:latest", "fail"])
def test_the_line_of_show_starts_a_run(shell: Shell, experiment: str) -> None:
    """Unchanged, in a folder with the files that it names."""
    Path("molecules.csv").write_text(MOLECULES)

    line = shell("show", experiment).err.partition("start it with: ")[2]
    done = shell(*shlex.split(line)[1:])

    assert done.status == 0
    assert done.out.startswith(f"{experiment.partition(':')[0]}-")


def test_each_experiment_of_the_list_can_be_shown(shell: Shell) -> None:
    """Without a tag it has its whole digest."""
    latest, other = shell.server.example("demo"), shell.server.example("demo")
    other["parameterisation"]["executionOptions"]["variables"] = []
    for definition in (other, latest):
        assert shell("push", "-", stdin=json.dumps(definition)).status == 0

    names = [row["experiment"] for row in shell("list", "--all").table]

    assert {name.partition("@")[1] for name in names} == {"", "@"}
    assert [shell("show", name).status for name in names] == [0] * len(names)


def test_a_terminal_shows_digests_that_can_be_copied(command: Command, shell: Shell, deadline: float) -> None:
    """On a line of their own, which only the terminal wraps."""
    command.settings.update(environment_of(shell.server))
    identifier = shell("show", "demo", "--json").document["metadata"]["registry"]["digest"]

    terminal = Terminal(command, "show", "demo", width=80)
    terminal.end(deadline)

    assert f"demo@{identifier}" in terminal.shown.splitlines()
    assert not any(len(line) > 80 for line in terminal.screen if "@" not in line and "start it" not in line)


def test_an_experiment_without_facts_of_the_registry_is_one_clear_line(shell: Shell) -> None:
    """It is unknown what a start takes."""
    body = b'{"entry": {"metadata": {"package": {"name": "demo"}}}, "problems": []}'
    shell.server.faults.add("GET /experiments/demo", Reply(200, {"Content-Type": "application/json"}, body))

    done = shell("show", "demo")

    assert (done.status, done.out, done.err.count("\n")) == (2, "", 1)
    assert "'demo' was fetched without its registry metadata" in done.err


def test_an_unknown_experiment_says_how_to_list_the_others(shell: Shell) -> None:
    """The advice is a command, not a Python method."""
    done = shell("show", "dmeo")

    assert done.status == 3
    assert "; did you mean 'demo'? list the experiments with: st4sd-async list (GET http" in done.err
    assert "client." not in done.err


def test_a_broken_gateway_is_an_error_of_the_service(shell: Shell) -> None:
    """The web page of a proxy is reported in one line, with exit status 3."""
    shell.server.faults.add("GET /experiments/", Html(404), times=None)

    done = shell("list")

    assert (done.status, done.out, done.err.count("\n")) == (3, "", 1)
