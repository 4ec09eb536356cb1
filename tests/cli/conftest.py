"""The command as a user runs it: in a process of its own, in an empty folder, with a temporary folder of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

import st4sd_async

SOURCES = Path(st4sd_async.__file__).parents[1]


@dataclass
class Command:
    """Starts ``python -m st4sd_async``."""

    folder: Path
    """Where it runs."""
    temporary: Path
    """Its folder for temporary files, empty at first."""

    def environment(self, **more: str) -> dict[str, str]:
        names = ("PATH", "HOME", "LANG", "SYSTEMROOT")
        kept = {name: os.environ[name] for name in names if name in os.environ}
        return {**kept, "PYTHONPATH": str(SOURCES), "TMPDIR": str(self.temporary), **more}

    def __call__(self, *arguments: str, timeout: float = 18, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "st4sd_async", *arguments],
            cwd=self.folder,
            env=self.environment(**environment),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def left_behind(self) -> list[str]:
        """What is left of its temporary files."""
        return [path.name for path in self.temporary.iterdir()]


@pytest.fixture
def command(tmp_path: Path) -> Command:
    folder, temporary = tmp_path / "work", tmp_path / "temporary"
    folder.mkdir()
    temporary.mkdir()
    return Command(folder, temporary)
