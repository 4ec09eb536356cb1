"""``st4sd-async push``, ``list`` and ``show``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from st4sd_async.local import Html, Reply

from .conftest import Shell


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
        (None, "'package.json': No such file"),
        ("{", "is not JSON: "),
        ("[]", "must be a JSON object, not a list"),
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

    assert [row["experiment"] for row in found.table] == ["demo", "fail"]
    assert found.table[0]["tags"] == "latest"
    assert [one["metadata"]["package"]["name"] for one in whole.document] == ["demo", "fail"]


def test_runs_are_listed_for_pipes(shell: Shell) -> None:
    """Other commands read the list from standard input."""
    run, other = shell.started(), shell.started("fail")

    listed = shell("list", "runs")
    message = shell("status", "-", stdin=listed.out)

    assert {row["rest-uid"]: row["experiment"] for row in listed.table}.items() >= {run: "demo", other: "fail"}.items()
    assert [row["rest-uid"] for row in message.table] == [row["rest-uid"] for row in listed.table]
    as_json = shell("list", "runs", "--json").document
    assert {one["rest-uid"]: one["is-success"] for one in as_json}.items() >= {run: True, other: False}.items()


def test_show_has_what_a_start_takes_and_the_command(shell: Shell) -> None:
    """Inputs, variables, data files and key-outputs are named, and a command line can be copied."""
    done = shell("show", "demo")

    facts = {(row["what"], row["name"]) for row in done.table}
    assert facts >= {("input", "molecules.csv"), ("variable", "scale"), ("data", "weights.csv")}
    assert facts >= {("key-output", "Energies"), ("platform", "default")}
    assert done.err == "\nstart it with: st4sd-async start demo --input molecules.csv=FILE --variable scale=VALUE\n"
    assert shell("show", "demo", "--json").document["metadata"]["package"]["name"] == "demo"


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
    assert done.err.endswith("list the experiments with: st4sd-async list\n")
    assert "client." not in done.err


def test_a_broken_gateway_is_an_error_of_the_service(shell: Shell) -> None:
    """The web page of a proxy is reported in one line, with exit status 3."""
    shell.server.faults.add("GET /experiments/", Html(404), times=None)

    done = shell("list")

    assert (done.status, done.out, done.err.count("\n")) == (3, "", 1)
