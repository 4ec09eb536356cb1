"""Exit statuses, and messages about missing packages."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
import typer

from st4sd_async import (
    APIError,
    ConfigError,
    ConnectFailed,
    InvalidPayload,
    JournalCorrupt,
    JournalLocked,
    LaunchConflict,
    MissingCredentials,
    NotFound,
    NotReady,
    RunDeleted,
    RunFailed,
    ServerError,
    St4sdError,
    StartOutcomeUnknown,
    Status,
    UnknownOutput,
    WaitTimeout,
)
from st4sd_async.cli.errors import Exit, UsageError, exit_of, exits_on_errors, message_of
from tests.tries import IS_FULL, sample

from .conftest import Command, Shell

pytestmark = pytest.mark.timeout(60)  # some processes import all of it anew, on a machine that may be busy

WITHOUT = """
import sys

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == {module!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Hidden())
sys.argv = ["st4sd-async", "demo", "--engine", "simulator"]
from st4sd_async.cli import main
main()
"""


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("nonsense",),
        ("demo", "--runs", "0"),
        ("demo", "--runs", "many"),
        ("demo", "--engine", "steam"),
        ("demo", "--to", "file"),
        ("demo", "--to", "file/folder"),
        ("serve", "--slots", "0"),
    ],
    ids=lambda arguments: " ".join(arguments) or "nothing",
)
def test_wrong_usage_ends_with_2_and_no_results(shell: Shell, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """Standard error says what is wrong, and nothing is done."""
    (tmp_path / "file").touch()

    done = shell(*arguments)

    assert done.status == 2
    assert done.out == ""
    assert done.err
    assert "Traceback" not in done.err
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "extra"),
    sample([("typer", "cli"), ("rich", "cli"), ("starlette", "local"), ("uvicorn", "local")], 2),
)
def test_a_missing_package_is_named_with_its_extra(command: Command, module: str, extra: str) -> None:
    """Without an extra, the command says what to install, and exits with 2."""
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT.format(module=module)],
        cwd=command.folder,
        env=command.environment(),
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )

    assert done.returncode == 2
    assert done.stdout == ""
    assert f'{module}, which is not installed: pip install "st4sd_async[{extra}]"' in done.stderr
    assert "Traceback" not in done.stderr


def test_missing_git_is_reported(command: Command, tmp_path: Path) -> None:
    """Without git, which the examples need, the demo says to install it, and exits with 2."""
    done = command("demo", "--engine", "simulator", PATH=str(tmp_path))

    assert done.returncode == 2
    assert done.stderr.endswith("install git\n")
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_missing_orchestrator_is_reported_with_the_alternative(command: Command, tmp_path: Path) -> None:
    """Without st4sd-runtime-core, the demo says what to install or how to do without it, and exits with 2."""
    python = tmp_path / "python"
    python.symlink_to(Path(sys.executable).resolve())
    git = shutil.which("git")
    assert git
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "git").symlink_to(git)
    folders = os.pathsep.join([command.environment()["PYTHONPATH"], sysconfig.get_path("purelib")])

    done = subprocess.run(
        [python, "-m", "st4sd_async", "demo"],
        cwd=command.folder,
        env=command.environment(PATH=str(tmp_path / "bin"), PYTHONPATH=folders),
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )

    assert done.returncode == 2
    assert 'pip install "st4sd_async[engine]"; or simulate the runs' in done.stderr
    assert "Traceback" not in done.stderr


def test_the_version_is_shown(command: Command) -> None:
    """``--version`` prints one line."""
    done = command("--version", is_fresh=IS_FULL)

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("st4sd-async")


ERRORS: list[tuple[BaseException, Exit]] = [
    (StartOutcomeUnknown("the instance was started", "silence"), Exit.UNKNOWN_START),
    (ConnectFailed("GET", "http://127.0.0.1:1", "refused"), Exit.SERVICE),
    (ServerError("out of order", status=500), Exit.SERVICE),
    (RunFailed({"demo-1": Status.pending()}), Exit.RUN_FAILED),
    (RunDeleted("demo-1", None), Exit.RUN_FAILED),
    (WaitTimeout(1.0, {}), Exit.RUN_FAILED),
    (ConfigError("ST4SD_URL is not set"), Exit.USAGE),
    (JournalLocked("it is open"), Exit.USAGE),
    (InvalidPayload.before_sending([]), Exit.USAGE),
    (InvalidPayload("missing inputs", status=400), Exit.SERVICE),
    (NotReady("not over yet"), Exit.SERVICE),
    (PermissionError(13, "Permission denied", "results"), Exit.USAGE),
    (UsageError("install git"), Exit.USAGE),
    (ImportError('pip install "st4sd_async[engine]"'), Exit.USAGE),
    (KeyboardInterrupt(), Exit.INTERRUPTED),
    (typer.Abort(), Exit.INTERRUPTED),
]


@pytest.mark.parametrize(("error", "status"), ERRORS, ids=[type(error).__name__ for error, _ in ERRORS])
def test_an_error_becomes_one_line_and_an_exit_status(
    error: BaseException, status: Exit, capsys: pytest.CaptureFixture[str]
) -> None:
    """Expected errors have no traceback."""
    with pytest.raises(typer.Exit) as ended, exits_on_errors():
        raise error

    assert ended.value.exit_code == status == exit_of(error)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("st4sd-async: ")
    assert err.count("\n") == 1


def classes(root: type[St4sdError] = St4sdError) -> list[type[St4sdError]]:
    return [root, *(one for child in root.__subclasses__() for one in classes(child))]


@pytest.mark.parametrize("cls", [cls for cls in classes() if issubclass(cls, APIError)], ids=lambda cls: cls.__name__)
def test_advice_about_a_refusal_is_a_command(cls: type[APIError]) -> None:
    """Or nothing, if no command does what the library advises. What failed comes first, the request last."""
    message = message_of(cls("it is odd", status=400, method="GET", url="https://x/y"), "demo")

    assert not re.search(r"await |client\.|Client\(|Config\(", message)
    assert message.startswith("it is odd")
    assert message.endswith(" (GET https://x/y was refused with 400)")


@pytest.mark.parametrize(
    "error",
    [
        RunFailed({"demo-1": Status.pending()}),
        WaitTimeout(1.0, {"demo-1": Status.pending()}),
        MissingCredentials("one"),
        StartOutcomeUnknown("it was started", "silence", key="one", candidates=["demo-1"]),
        JournalCorrupt("it is damaged"),
        LaunchConflict("it has this key"),
        NotFound("no such file; run.components() lists the files of the components that are over"),
        UnknownOutput("it exists: output(run, 'Energies') returns all of it"),
        ConnectFailed("GET", "https://x", "no; name the authority with Config(verify='ca.pem') or ST4SD_CA_FILE"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_other_advice_is_a_command(error: Exception) -> None:
    """No call of Python reaches a terminal."""
    assert not re.search(r"await |client\.|run\.|run\(\)|\(run,|batch\.\w|Config\(", message_of(error, "demo"))


def test_an_alternative_is_named_if_a_package_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    """A user who cannot install it can go on."""
    with pytest.raises(typer.Exit), exits_on_errors(install_advice="or do without"):
        raise ImportError('pip install "st4sd_async[engine]"')

    assert capsys.readouterr().err == 'st4sd-async: pip install "st4sd_async[engine]"; or do without\n'


@pytest.mark.parametrize("error", [ImportError("cannot import name 'a' from 'b'"), ValueError("x"), BrokenPipeError()])
def test_defects_are_not_hidden(error: Exception) -> None:
    """They keep their tracebacks; a closed pipe is handled elsewhere."""
    with pytest.raises(type(error)), exits_on_errors():
        raise error


@pytest.mark.parametrize("ignored", [False, True], ids=["", "where Ctrl-C is ignored"])
def test_sigterm_ends_a_command_as_ctrl_c_does(ignored: bool) -> None:
    """It closes what was opened, even in the background of a shell, where Ctrl-C is ignored."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN if ignored else signal.default_int_handler)
    try:
        with pytest.raises(typer.Exit) as ended, exits_on_errors():
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGINT, before)

    assert ended.value.exit_code == Exit.INTERRUPTED
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
