"""The command ``st4sd-async``. It needs the extra ``cli``, but can be imported without it."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path

NEEDED = ("typer", "rich")
"""The packages that the extra ``cli`` installs."""
ADVICE = 'st4sd-async: the command line needs {module}, which is not installed: pip install "st4sd_async[cli]"\n'


def main() -> None:
    """
    Run the command with the arguments of this process, and exit.

    Raises:
        SystemExit: Always. 0 success, 1 a run failed, 2 wrong usage or a missing package, 3 the service failed or
            cannot be reached, 4 a run may or may not have been started, 130 interrupted, 141 the reader of the
            output closed the pipe.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the parent process
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115 -- open as long as the process
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A character that the encoding lacks is escaped; without this the output would end there.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        from .app import app

        app(prog_name="st4sd-async")  # it imports the subcommand
    except ModuleNotFoundError as error:
        module = (error.name or "").partition(".")[0]
        if module not in NEEDED:
            raise
        sys.stderr.write(ADVICE.format(module=module))
        raise SystemExit(2) from None
