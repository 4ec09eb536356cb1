"""Why runs failed, where people look: ``status --why``, ``logs``, the end of ``watch``, ``start`` and ``batch run``."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

import st4sd_async
from st4sd_async.local import Html, LocalServer
from st4sd_async.models.failures import MAX_LINES
from tests.tries import IS_FULL

from .conftest import MOLECULES, Command, Shell, environment_of
from .terminal import CONTROL, Terminal

pytestmark = [pytest.mark.timeout(60), pytest.mark.slow]  # some processes import all of it anew, on a busy machine

BOOM = "boom: this component always fails"
FAILED = "stage0.Boom failed (return code 3, KnownIssue)"
GIST = f"stage0.Boom: {BOOM} (return code 3, KnownIssue)"
NOT_SERVED = "no log is served, because the run failed before it was registered in the datastore"


@pytest.fixture
def connected(command: Command, deployment: LocalServer) -> Command:
    """The command in its own process, connected to the deployment."""
    command.settings.update(environment_of(deployment))
    return command


def shown(terminal: Terminal, deadline: float) -> tuple[int, str]:
    """Return the exit status, and what is shown in the end, without styles."""
    status = terminal.end(deadline)
    return status, CONTROL.sub("", terminal.shown).replace("\r\n", "\n")


def set_up_failure(shell: Shell) -> str:
    """Start a run that fails at set-up, wait for its end, and return its rest-uid."""
    Path("molecules.csv").write_text(MOLECULES)
    shell.server.outcome("demo", "setup-failure", times=1)
    return shell("start", "demo", "-i", "molecules.csv", "--watch", "--interval", "0.02").out.strip()


def test_a_terminal_shows_why_a_run_failed(connected: Command, shell: Shell, deadline: float) -> None:
    """`start --wait` ends with the failed component, its last lines, and the commands for more."""
    status, text = shown(Terminal(connected, "start", "fail", "--wait", "--interval", "0.05"), deadline)

    run = text.split()[0]
    assert status == 1
    assert text.endswith(
        f"\n{run}: component failed\n  {FAILED}\n    {BOOM}\n\n"
        f"more lines: st4sd-async status {run} --why\nall lines:  st4sd-async logs {run} --failed\n"
    )


def test_the_end_of_watch_shows_why_runs_failed(connected: Command, shell: Shell, deadline: float) -> None:
    """In a terminal below the display; a set-up failure has its description, and says that no log is served."""
    runs = [shell.started("fail"), set_up_failure(shell), shell.started("demo")]

    status, text = shown(Terminal(connected, "watch", *runs, "--interval", "0.05"), deadline)

    end = text.partition(f"\n\n{runs[0]}: component failed\n")[2]
    assert status == 1
    assert end.splitlines() == [
        f"  {FAILED}",
        f"    {BOOM}",
        "",
        f"{runs[1]}: setup failed",
        "  During argument parsing of sys-args, ran into BadOptionError no such option: --no-such-option",
        f"  {NOT_SERVED}",
        "",
        "more lines: st4sd-async status RUN --why",
        "all lines:  st4sd-async logs RUN --failed",
    ]


def test_no_command_is_advised_that_shows_no_more(shell: Shell) -> None:
    """As for a run without a log."""
    run = set_up_failure(shell)

    assert shell("watch", run, "--interval", "0.02").err.endswith(f"\n  {NOT_SERVED}\n")


def test_a_pipe_gets_the_reason_beside_the_status(shell: Shell) -> None:
    """Standard output has one line for the run, standard error the last lines."""
    run = shell.started("fail")

    done = shell("watch", run, "--interval", "0.02")

    assert done.table[0]["why"] == GIST
    assert f"\n{run}: component failed\n  {FAILED}\n    {BOOM}\n" in done.err


def test_only_the_first_failures_are_explained(shell: Shell) -> None:
    """Others are explained by `status --why`, however many they are."""
    runs = [shell.started("fail") for _ in range(7)]

    done, every = shell("watch", *runs, "--interval", "0.02"), shell("status", *runs, "--why")

    assert done.err.count(BOOM) == 5
    assert every.out.count(f"      {BOOM}") == 7


def test_status_why_shows_what_failed_components_wrote(connected: Command, shell: Shell, deadline: float) -> None:
    """Both streams, below the table."""
    run = shell.started("fail")

    status, text = shown(Terminal(connected, "status", run, "--why"), deadline)

    assert status == 1
    assert text.endswith(
        f"\n\n{run}: component failed\n  {FAILED}\n"
        f"    standard error:\n      {BOOM}\n    standard output:\n      about to fail\n"
    )


def test_status_why_is_json_for_programs(shell: Shell) -> None:
    """Only a run that failed has a failure; without --why, nothing is fetched."""
    failed, good, setup = shell.started("fail"), shell.started("demo"), set_up_failure(shell)

    first, second, third = shell("status", failed, good, setup, "--why", "--json").document

    component = {
        "reference": "stage0.Boom",
        "reason": "KnownIssue",
        "return-code": 3,
        "stderr": BOOM,
        "stdout": "about to fail",
    }
    assert first["failure"] == {"components": [component], "log": "", "note": ""}
    assert "failure" not in second
    assert third["failure"] == {"components": [], "log": "", "note": NOT_SERVED}
    assert "failure" not in shell("status", failed, "--json").document[0]


def test_a_status_leads_to_the_reason(shell: Shell) -> None:
    """By a command to type."""
    run = shell.started("fail")

    assert f"`st4sd-async status {run} --why`" in shell("status", run).table[0]["why"]
    assert not any("await " in shell(*words).out for words in (("list", "runs"), ("status", run, "--json")))


def test_logs_has_the_standard_error_of_components(shell: Shell) -> None:
    """Of those that are selected, or of all; and what failed components wrote, complete."""
    run = shell.started("fail")
    directory = shell.server.directory(run)
    assert directory is not None
    lines = "".join(f"line {number}\n" for number in range(MAX_LINES * 2))
    (directory / "stages" / "stage0" / "Boom" / "out.stderr").write_text(lines)

    assert shell("logs", run, "--stderr").out == lines
    assert shell("logs", run, "--stderr", "--component", "Boom", "--json").document == {"stage0.Boom": lines}
    assert shell("logs", run, "--failed").out == (
        f"==> stage0.Boom, standard error <==\n{lines}==> stage0.Boom, standard output <==\nabout to fail\n"
    )
    assert shell("logs", run, "--failed", "--json").document == {
        "stage0.Boom": {"stderr": lines, "stdout": "about to fail\n"}
    }


def test_logs_of_a_run_without_failed_components_say_so(shell: Shell) -> None:
    """A run that did not fail, one that failed at set-up, and options that contradict each other."""
    good, setup = shell.started("demo"), set_up_failure(shell)

    nothing, described = shell("logs", good, "--failed"), shell("logs", setup, "--failed")
    wrong = shell("logs", good, "--failed", "--stderr")

    assert (nothing.status, nothing.out, nothing.err) == (0, "", f"{good} has not failed\n")
    assert described.out.endswith(f"no such option: --no-such-option\n  {NOT_SERVED}\n")
    assert (wrong.status, "leave out" in wrong.err) == (2, True)


def test_a_run_without_results_says_why(connected: Command, shell: Shell, deadline: float) -> None:
    """That failed, is not over, or has no such files; in a terminal without an empty table."""
    setup, good = set_up_failure(shell), shell.started("demo")
    shell.server.outcome("demo", [(0.0, {"experiment-state": "unscheduled", "exit-status": ""})], times=1)
    waiting = shell("start", "demo", "-i", "molecules.csv").out.strip()

    listed, downloaded = shell("outputs", setup), shell("download", setup, waiting)
    files = shell("download", good, "--files", "nothing")
    status, text = shown(Terminal(connected, "outputs", setup, width=300), deadline)

    failed = f"{setup} has no key-outputs: setup failed: During argument parsing"
    more = f"no such option: --no-such-option; see more with: st4sd-async status {setup} --why\n"
    assert (listed.status, status) == (0, 0)
    assert listed.err.startswith(failed)
    assert listed.err.endswith(more)
    assert text == listed.err
    warned, _, _ = downloaded.err.partition(setup)
    assert warned.startswith(f"st4sd-async: run '{waiting}' is not over (unscheduled): it has [] so far")
    assert downloaded.err == f"{warned}{listed.err}"
    assert downloaded.out == ""
    follow = f"it is not over yet (unscheduled); follow it with: st4sd-async watch {waiting}\n"
    assert shell("outputs", waiting).err == f"{waiting} has no key-outputs: {follow}"
    assert files.err == f"{good} has no such files: it succeeded without any\n"


def test_a_batch_ends_with_why_its_runs_failed(connected: Command, shell: Shell, deadline: float) -> None:
    """By key, in a terminal below the display."""
    (connected.folder / "launches.jsonl").write_text('{"key": "mine", "experiment": "fail"}\n')

    status, text = shown(Terminal(connected, "batch", "run", "launches.jsonl"), deadline)

    assert status == 1
    assert "\nmine, fail-" in text
    assert f": component failed\n  {FAILED}\n    {BOOM}\n\nmore lines: st4sd-async status fail-" in text
    assert text.endswith(
        "1 launch: 1 failed\n"
        "table:   st4sd-async batch properties launches.jsonl\n"
        "retry:   st4sd-async batch retry launches.jsonl\n"
    )


def test_a_batch_in_a_pipe_has_the_reason_in_its_table(shell: Shell) -> None:
    """And in its JSON lines."""
    Path("launches.jsonl").write_text('{"key": "mine", "experiment": "fail"}\n')

    done, again = shell("batch", "run", "launches.jsonl"), shell("batch", "run", "launches.jsonl")

    assert done.table[0]["error"] == again.table[0]["error"] == GIST


def test_a_service_that_serves_no_file_costs_the_last_lines_only(shell: Shell) -> None:
    """The description is left, and the reason why there is no more."""
    run = shell.started("fail")
    shell.server.faults.add("POST /ds-gateway/files/api/v1.1", Html(404), times=None)

    done = shell("status", run, "--why")

    assert done.status == 1
    assert "\n  stage0.Boom failed (return code 1, KnownIssue)\n  no log could be fetched: " in done.out


def test_hostile_texts_of_components_are_printable(connected: Command, shell: Shell, deadline: float) -> None:
    """A component may write commands for a terminal."""
    run = shell.started("fail")
    directory = shell.server.directory(run)
    assert directory is not None
    (directory / "stages" / "stage0" / "Boom" / "out.stderr").write_text("\x1b[2J\x1b]0;owned\x07\u202eexe\n" * 1000)

    status, text = shown(Terminal(connected, "status", run, "--why"), deadline)
    as_json = json.loads(shell("status", run, "--why", "--json").out)[0]["failure"]["components"][0]

    assert status == 1
    assert text.count(r"\x1b]0;owned\x07\u202eexe") >= MAX_LINES
    assert "\x07" not in text
    assert as_json["stderr"].count("\n") == MAX_LINES - 1


@pytest.mark.slow(seconds=11)
@pytest.mark.timeout(180)  # the orchestrator watches a failure for half a minute
def test_the_page_shows_a_real_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As docs/experiments.md has it; only identifiers, digests and folders differ."""
    monkeypatch.chdir(tmp_path)
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{role}_NAME", "someone")
        monkeypatch.setenv(f"GIT_{role}_EMAIL", "someone@example.com")
    with LocalServer(engine="elaunch") as server:
        shell = Shell(server)
        assert shell("init", "energies").status == 0
        if not IS_FULL:
            do_not_restart(Path("energies/conf/flowir_package.yaml"))
        subprocess.run(["git", "-C", "energies", "add", "-A"], check=True)
        subprocess.run(["git", "-C", "energies", "commit", "-qm", "Add the experiment"], check=True)
        assert shell("push", "energies").status == 0
        Path("formulas.csv").write_text("formula,name\nH2O,water\n")

        done = shell("start", "energies", "-i", "molecules.csv=formulas.csv", "-v", "scale=2", "--wait")

    page = (Path(st4sd_async.__file__).parent / "docs" / "experiments.md").read_text("utf-8")
    shown = page.partition("=formulas.csv -v scale=2 --wait\n")[2].partition("```")[0]
    run = done.out.strip()
    assert done.status == 1
    assert same(done.err[done.err.index(f"{run}: component failed") :]) == same(shown)


def do_not_restart(flowir: Path) -> None:
    """Let no component be restarted. Otherwise the orchestrator waits 25 s, and then decides so."""
    lines = "  workflowAttributes:\n    restartHookOn: [KnownIssue]\n    maxRestarts: 0\n"
    flowir.write_text(flowir.read_text().replace("- stage: 0\n", f"- stage: 0\n{lines}"))


def same(text: str) -> str:
    """Return a text without what differs between two runs."""
    without_folder = re.sub(r'"/.*/bin/', '"/bin/', text)
    return re.sub(r"energies-[0-9a-f]{6}-[0-9a-z]{8}", "RUN", without_folder)


def test_secrets_of_the_environment_are_shown_nowhere(shell: Shell) -> None:
    """The description of a failed set-up may have all of it. Another process started the run."""
    environment = {"DB_PASSWORD": "correct-horse", "PATH": "/usr/bin"}
    description = f"Unable to find location of executable x using command environment {environment}"
    words = {"experiment-state": "failed", "exit-status": "Failed", "error-description": description}
    Path("molecules.csv").write_text(MOLECULES)
    shell.server.outcome("demo", [(0.0, words)], times=1)
    run = shell("start", "demo", "-i", "molecules.csv").out.strip()

    shown = [
        shell(*words)
        for words in (
            ("watch", run, "--interval", "0.02"),
            ("status", run, "--why"),
            ("status", run, "--why", "--json"),
        )
    ]

    assert all("'DB_PASSWORD': [secret]" in done.out and "'/usr/bin'" in done.out for done in shown)
    assert not any("correct-horse" in done.out + done.err for done in shown)
    assert "correct-horse" not in shell("list", "runs", "--json").out
