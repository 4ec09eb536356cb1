"""Executes its argument, as ``python -c`` does, in a process that may be a fork, see `tests.forks`."""

import sys

exec(sys.argv[1])
