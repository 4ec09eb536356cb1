"""The command ``st4sd-async``; needs the extra ``cli``, but can be imported without it."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path

NEEDED = ("typer", "rich")
"""The packages that the extra ``cli`` brings."""
ADVICE = 'st4sd-async: the command line needs {module}, which is not installed: pip install "st4sd_async[cli]"\n'


def main() -> None:
    """
    Run the command with the arguments of this process; does not return.

    Raises:
        SystemExit: Always. 0 done, 1 a run failed, 2 wrong usage or something is not installed, 3 the service
            or the way to it failed, 4 a run may or may not have been started, 130 interrupted, 141 whoever read the
            output left.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by whoever began this process
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115 -- as long as the process
    if isinstance(sys.stdout, io.TextIOWrapper):
        # What its encoding cannot say must not cost the rest.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        from ._app import app
    except ModuleNotFoundError as error:
        module = (error.name or "").partition(".")[0]
        if module not in NEEDED:
            raise
        sys.stderr.write(ADVICE.format(module=module))
        raise SystemExit(2) from None
    app(prog_name="st4sd-async")
