"""
The worker that is forked for each program: a script that runs with any Python, and loads few modules to start fast.
"""

from __future__ import annotations

import csv  # noqa: F401 -- programs start faster if their modules are loaded
import json
import math  # noqa: F401
import os
import pathlib  # noqa: F401
import runpy
import select
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

STDOUT, STDERR = "out.stdout", "out.stderr"
"""Files in the working directory that receive the output of a program."""
PARENT_INTERVAL = 1.0
"""Seconds between two checks of a worker whether its parent has ended."""


def main() -> None:
    """Run the programs that are requested, until the owner, whose process id is the argument, ends."""
    owner, replies = int(sys.argv[1]), os.dup(1)
    with os.fdopen(os.dup(0), "rb", buffering=0) as requests:
        while True:
            if not select.select([requests], [], [], PARENT_INTERVAL)[0]:
                if os.getppid() != owner:  # a fork of the owner may keep the pipe open
                    return
                continue
            line = requests.readline()
            if not line:
                return
            program = os.fork()
            if program == 0:
                os.close(replies)
                requests.close()
                _execute(*json.loads(line))
            _, status = os.waitpid(program, 0)
            os.write(replies, b"%d\n" % os.waitstatus_to_exitcode(status))


def _execute(script: str, arguments: list[str], folder: str) -> NoReturn:
    """Turn this process into that of a program."""
    exit_code = 1
    try:
        os.chdir(folder)
        for number, path in enumerate((os.devnull, STDOUT, STDERR)):
            flags = os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT | os.O_TRUNC
            file = os.open(path, flags, 0o666)
            os.dup2(file, number)
            os.close(file)
        sys.argv = [script, *arguments]
        runpy.run_path(script, run_name="__main__")
        exit_code = 0
    except SystemExit as error:
        exit_code = _exit_code(error)
    except BaseException:  # as Python does with a script
        import traceback

        traceback.print_exc()
    finally:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(exit_code & 0xFF)


def _exit_code(error: SystemExit) -> int:
    if error.code is None or isinstance(error.code, int):
        return error.code or 0
    sys.stderr.write(f"{error.code}\n")
    return 1


if __name__ == "__main__":
    main()
