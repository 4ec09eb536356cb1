"""Create a folder with a small experiment to start from."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

TEMPLATE = Path(__file__).with_name("template")
PLACEHOLDER = "EXPERIMENT_NAME"
"""Placeholder for the name of the experiment in the files of the template."""
NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?")
"""Pattern of valid names. A rest-uid begins with the name, and must be a valid name of a Kubernetes object."""


def create_experiment(folder: Path) -> bool:
    """
    Create a folder with a small experiment with comments, which runs unchanged. The folder's name becomes its name.

    Returns:
        Whether a git repository was created. False if the folder is already in a repository, or git is not installed.

    Raises:
        ValueError: The name is invalid, or the folder exists and is not empty.
        OSError: The files cannot be written.
    """
    name = folder.resolve().name
    if not NAME.fullmatch(name):
        raise ValueError(
            f"{name!r} is not a valid name: use up to 40 lower-case letters, digits and dashes, such as "
            f"{re.sub('[^a-z0-9]+', '-', name.lower()).strip('-')[:40].strip('-') or 'energies'!r}"
        )
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"the folder {str(folder)!r} is not empty: choose another name")
    shutil.copytree(TEMPLATE, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    for file in folder.rglob("*"):
        if file.is_file():
            file.write_text(file.read_text("utf-8").replace(PLACEHOLDER, name), "utf-8")
    try:
        inside = subprocess.run(["git", "rev-parse", "--git-dir"], cwd=folder, capture_output=True)
        return bool(inside.returncode) and not subprocess.run(["git", "init", "--quiet"], cwd=folder).returncode
    except FileNotFoundError:  # git is not installed
        return False
