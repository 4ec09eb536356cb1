"""What the shell proposes after Tab, by the protocols of bash, zsh and fish, and in a real bash."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest

from st4sd_async.cli import completion
from st4sd_async.local import Delay, LocalServer, Reply

from .conftest import Command, Shell, environment_of
from .test_batch import leave_in_doubt

pytestmark = [pytest.mark.timeout(60), pytest.mark.slow]  # some processes import all of it anew, on a busy machine

JSON = {"Content-Type": "application/json"}


@pytest.fixture
def patient(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> Shell:
    """A shell in this process, which the time limit would end if the machine is busy."""
    monkeypatch.setattr(completion, "TIME_LIMIT", 60.0)
    return shell


def proposed(shell: Shell, line: str, **environment: str) -> list[str]:
    """Return what bash gets for the last word of a line."""
    count = str(len(line.split(" ")) - 1)
    done = shell(_ST4SD_ASYNC_COMPLETE="complete_bash", COMP_WORDS=line, COMP_CWORD=count, **environment)
    assert (done.status, done.err) == (0, "")
    return done.out.split()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("show ", ["demo", "fail"]),
        ("start de", ["demo"]),
        ("start demo:", ["demo:latest"]),
        ("batch run launches.csv f", ["fail"]),
        ("start demo --platform ", ["default"]),
        ("start demo -i molecules.csv -p ", ["default"]),
        ("batch run launches.csv demo -o ", ["Energies", "Folder"]),
        ("batch run launches.csv demo --output En", ["Energies"]),
        ("batch run launches.csv -o ", []),
        ("batch run ", []),
        ("list runs --experiment d", ["demo"]),
        ("list runs --state s", ["suspended", "succeeded", "stopped"]),
    ],
)
def test_names_of_experiments_are_proposed(patient: Shell, line: str, expected: list[str]) -> None:
    """With what belongs to them, wherever a command takes it."""
    assert proposed(patient, f"st4sd-async {line}") == expected


def test_runs_and_their_outputs_are_proposed(patient: Shell) -> None:
    """Each command that takes them; in zsh and fish with the state of a run."""
    run = patient.started()
    begin = run[: len("demo-") + 6]
    words = {"_TYPER_COMPLETE_ARGS": f"st4sd-async watch {run}"}

    for line in ("status ", f"download {run} ", "logs ", "batch adopt launches.csv key "):
        assert run in proposed(patient, f"st4sd-async {line}{begin}")
    assert proposed(patient, f"st4sd-async outputs {run} ") == ["Energies", "Folder"]
    assert proposed(patient, f"st4sd-async download {run} --name F") == ["Folder"]
    assert proposed(patient, "st4sd-async outputs demo-000000-00000000 ") == []
    zsh = patient(_ST4SD_ASYNC_COMPLETE="complete_zsh", **words)
    fish = patient(_ST4SD_ASYNC_COMPLETE="complete_fish", _TYPER_COMPLETE_FISH_ACTION="get-args", **words)
    assert zsh.out == f'_arguments \'*: :(("{run}":"succeeded"))\'\n'
    assert fish.out == f"{run}\tsucceeded\n"


def test_options_of_the_connection_are_used(patient: Shell) -> None:
    """Before and after the name of a command. A key is never asked for."""
    server = patient.server
    Path("key").write_text(server.api_key)
    nothing = {"ST4SD_URL": "", "ST4SD_API_KEY": ""}
    options = f"--url {server.url} --api-key-file"

    assert proposed(patient, f"st4sd-async {options} key show d", **nothing) == ["demo"]
    assert proposed(patient, f"st4sd-async show {options} key d", **nothing) == ["demo"]
    assert proposed(patient, f"st4sd-async show {options} - d", **nothing) == []


def test_keys_of_launches_in_doubt_are_proposed(patient: Shell) -> None:
    """From the journal, without a deployment."""
    asyncio.run(leave_in_doubt(patient.server))
    nothing = {"ST4SD_URL": "", "ST4SD_API_KEY": ""}

    for table in ("x.jsonl", "x.jsonl.journal"):
        assert proposed(patient, f"st4sd-async batch forget {table} ", **nothing) == ["it"]
    assert proposed(patient, "st4sd-async batch adopt y.jsonl ", **nothing) == []


def test_what_a_shell_would_execute_is_not_proposed(patient: Shell) -> None:
    """The scripts of zsh evaluate proposals, and a server may be malicious."""
    names = ["demo", "$(touch x)", "a;b", "*", "-rf", "it's", "a\nb"]
    entries = [
        {"metadata": {"package": {"name": name}, "registry": {"tags": ["latest"], "digest": "sha256x0"}}}
        for name in names
    ]
    patient.server.faults.add(
        "GET /experiments/", Reply(200, JSON, json.dumps({"entries": entries, "problems": []}).encode())
    )

    assert proposed(patient, "st4sd-async show ") == ["demo"]


@pytest.mark.parametrize("trouble", ["no deployment", "refused", "silent", "wrong key"])
def test_without_a_service_nothing_is_shown(command: Command, deployment: LocalServer, trouble: str) -> None:
    """Nothing on standard error, exit status 0, and soon."""
    key = "secret-and-wrong"
    settings: dict[str, dict[str, str]] = {
        "no deployment": {},
        "refused": {"ST4SD_URL": "http://127.0.0.1:9", "ST4SD_API_KEY": key},
        "silent": environment_of(deployment),
        "wrong key": {**environment_of(deployment), "ST4SD_API_KEY": key},
    }
    if trouble == "silent":
        deployment.faults.add("GET /experiments/", Delay(50))
    words = {"COMP_WORDS": "st4sd-async show d", "COMP_CWORD": "2", "_ST4SD_ASYNC_COMPLETE": "complete_bash"}

    command.settings |= settings[trouble] | words
    done = command()
    deployment.faults.clear()

    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "", "")


def test_bash_completes_a_word(command: Command, deployment: LocalServer, deadline: float) -> None:
    """With the script that --show-completion prints, in a terminal."""
    environment = command.environment(**environment_of(deployment), TERM="dumb", INPUTRC="/dev/null", PS1="> ")
    program = command.folder / "st4sd-async"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m st4sd_async "$@"\n')
    program.chmod(0o755)
    environment["PATH"] = f"{command.folder}:{environment['PATH']}"
    script = (
        "_complete() { local IFS=$'\\n'; COMPREPLY=( $( env COMP_WORDS=\"${COMP_WORDS[*]}\" COMP_CWORD=$COMP_CWORD "
        "_ST4SD_ASYNC_COMPLETE=complete_bash $1 ) ); }; complete -o default -F _complete st4sd-async; echo ready\n"
    )
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        ["bash", "--norc", "--noprofile", "-i"], cwd=command.folder, env=environment, stdin=theirs, stdout=theirs,
        stderr=theirs, start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    try:
        os.write(ours, script.encode())
        shown = read_until(ours, "\nready", deadline)
        os.write(ours, b"st4sd-async show de\t")
        shown = read_until(ours, "show demo ", deadline)
    finally:
        process.kill()
        process.wait()
        os.close(ours)

    assert "Traceback" not in shown


def read_until(terminal: int, text: str, deadline: float) -> str:
    """Return what a terminal shows once it contains a text."""
    shown = ""
    while text not in shown.replace("\r", ""):
        assert time.monotonic() < deadline, shown
        if select.select([terminal], [], [], 0.05)[0]:
            shown += os.read(terminal, 65536).decode()
    return shown
