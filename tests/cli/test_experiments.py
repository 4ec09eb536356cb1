"""``st4sd-async push``, ``list`` and ``show``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from st4sd_async.local import Html, Reply

from .conftest import Shell


def test_a_package_is_pushed_from_a_file_or_a_pipe(shell: Shell) -> None:
    """What is pushed is named by its content on standard output; with --json it is the registry's entry."""
    definition = json.dumps(shell.server.example("demo"))
    Path("package.json").write_text(definition)

    from_file, from_pipe = shell("push", "package.json"), shell("push", "-", "--json", stdin=definition)

    assert (from_file.status, from_pipe.status) == (0, 0)
    assert from_file.out.strip() == f"demo@{from_pipe.document['metadata']['registry']['digest']}"
    assert "st4sd-async show demo" in from_file.said


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "'package.json': No such file"),
        ("{", "is not JSON: "),
        ("[]", "must be a JSON object, not a list"),
        ('{"base": {}, "name": "x"}', "fields ['name']"),
    ],
    ids=["no file", "no JSON", "no object", "no package"],
)
def test_a_package_that_will_not_do_is_wrong_usage(shell: Shell, content: str | None, told: str) -> None:
    """The mistake is one line, nothing is sent."""
    if content is not None:
        Path("package.json").write_text(content)

    done = shell("push", "package.json")

    assert (done.status, done.out) == (2, "")
    assert told in done.said
    assert done.said.count("\n") == 1


def test_a_package_that_the_service_refuses_is_its_error(shell: Shell) -> None:
    """The service's own words are shown, and the exit status is that of the service."""
    done = shell("push", "-", stdin='{"base": {"packages": []}, "metadata": {"package": {"name": "x"}}}')

    assert (done.status, done.out) == (3, "")
    assert "refused with 400" in done.said


def test_experiments_are_listed_with_what_tells_them_apart(shell: Shell) -> None:
    """A line for each experiment that has a tag; --all has the others, --json all there is to know."""
    found, whole = shell("list"), shell("list", "--json", "--all")

    assert [row["experiment"] for row in found.table] == ["demo", "fail"]
    assert found.table[0]["tags"] == "latest"
    assert [one["metadata"]["package"]["name"] for one in whole.document] == ["demo", "fail"]


def test_runs_are_listed_for_pipes(shell: Shell) -> None:
    """The list of runs is what other commands read from standard input."""
    run, other = shell.started(), shell.started("fail")

    listed = shell("list", "runs")
    told = shell("status", "-", stdin=listed.out)

    assert {row["rest-uid"]: row["experiment"] for row in listed.table}.items() >= {run: "demo", other: "fail"}.items()
    assert [row["rest-uid"] for row in told.table] == [row["rest-uid"] for row in listed.table]
    as_json = shell("list", "runs", "--json").document
    assert {one["rest-uid"]: one["is-success"] for one in as_json}.items() >= {run: True, other: False}.items()


def test_what_a_start_takes_is_shown_with_the_line_to_type(shell: Shell) -> None:
    """Inputs, variables, data files and key-outputs are named, and a command line is ready to be copied."""
    done = shell("show", "demo")

    facts = {(row["what"], row["name"]) for row in done.table}
    assert facts >= {("input", "molecules.csv"), ("variable", "scale"), ("data", "weights.csv")}
    assert facts >= {("key-output", "Energies"), ("platform", "default")}
    assert done.said == "\nstart it with: st4sd-async start demo --input molecules.csv=FILE --variable scale=VALUE\n"
    assert shell("show", "demo", "--json").document["metadata"]["package"]["name"] == "demo"


def test_an_experiment_without_what_the_registry_knows_is_one_clear_line(shell: Shell) -> None:
    """Nothing can be said of a start then."""
    body = b'{"entry": {"metadata": {"package": {"name": "demo"}}}, "problems": []}'
    shell.server.faults.add("GET /experiments/demo", Reply(200, {"Content-Type": "application/json"}, body))

    done = shell("show", "demo")

    assert (done.status, done.out, done.said.count("\n")) == (2, "", 1)
    assert "'demo' was fetched without the facts of its registry" in done.said


def test_an_unknown_experiment_says_how_to_find_the_others(shell: Shell) -> None:
    """The advice is a command, not a method of Python."""
    done = shell("show", "dmeo")

    assert done.status == 3
    assert done.said.endswith("list the experiments with: st4sd-async list\n")
    assert "client." not in done.said


def test_a_broken_gateway_is_the_services_error(shell: Shell) -> None:
    """A page of the proxy in place of an answer is one line and exit status 3."""
    shell.server.faults.add("GET /experiments/", Html(404), times=None)

    done = shell("list")

    assert (done.status, done.out, done.said.count("\n")) == (3, "", 1)
