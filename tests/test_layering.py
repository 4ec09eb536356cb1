"""Imports go downhill only."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import st4sd_async

ROOT = Path(st4sd_async.__file__).parent

LEVELS = {
    "_errors": 0,
    "_journal_errors": 0,
    "_clock": 0,
    "_finality": 0,
    "_formulas": 0,
    "_printable": 0,
    "_problems": 0,
    "_spelling": 0,
    "_refusals": 0,
    "_requirements": 0,
    "_rest_uid": 0,
    "_hints": 0,
    "_later": 0,
    "_masking": 0,
    "_version": 0,
    "models": 0,
    "_archive": 0,
    "_zip": 0,
    "_csv": 0,
    "_directory": 0,
    "_ledger": 0,
    "_names": 0,
    "_progress": 0,
    "_threads": 0,
    "_workspace": 0,
    "_auth": 1,
    "_call": 1,
    "_cancellation": 1,
    "_config": 1,
    "_kinds": 1,
    "_replies": 1,
    "_binding": 1,
    "_outage": 1,
    "_retry": 1,
    "_proxies": 1,
    "_session": 2,
    "_transport": 2,
    "_resources": 3,
    "_contexts": 3,
    "_import": 4,
    "_schedule": 1,
    "_snapshot": 1,
    "_watch": 2,
    "_turns": 3,
    "_looks": 3,
    "_arrival": 1,
    "_component_files": 4,
    "_downloads": 5,
    "_draft": 5,
    "_elsewhere": 1,
    "_explained": 5,
    "_payload": 4,
    "_pile": 0,
    "_poller": 4,
    "_s3": 4,
    "_properties": 4,
    "_tables": 4,
    "_results": 6,
    "_staging": 6,
    "_moves": 0,
    "_pace": 0,
    "_verdict": 0,
    "_lock": 0,
    "_records": 0,
    "_glance": 1,
    "_journal_file": 1,
    "_journal": 3,
    "_book": 4,
    "_launch": 5,
    "_item": 5,
    "_starts": 5,
    "_doubts": 5,
    "_ends": 5,
    "_work": 5,
    "_batch": 5,
    "_settling": 5,
    "_groups": 5,
    "_lambda_check": 0,
    "_lambdas": 5,
    "_run": 6,
    "_client": 6,
    "_waits": 6,
    "_bars": 0,
    "_shown": 0,
    "_cards": 7,
    "_portraits": 7,
    "_repr": 7,
    "_screens": 7,
    "_show": 7,
    "_plot": 7,
    "__init__": 7,
    "__main__": 7,
    "_blocking": 7,
    "_loop": 1,
    "_portal": 1,
    "cli": 7,
    "pytest_plugin": 7,
    "sync": 7,
}
SAME_LEVEL = {0, 1, 2, 5, 6, 7}
"""Levels whose modules may import each other; the groups of one level may not."""
LAZY = {"_repr", "_show", "_plot"}
"""Modules that lower ones import inside functions, because most programs never need them."""
HTTPX = {"_transport", "_session", "_config"}
"""The only modules that import httpx."""


def module_of(path: Path) -> str:
    return path.relative_to(ROOT).with_suffix("").parts[0]


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """Absolute names of what a file imports, and whether only for types, or of a lazy module inside a function."""
    tree = ast.parse(path.read_text("utf-8"))
    package = ["st4sd_async", *path.relative_to(ROOT).parts[:-1]]
    for_types = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for inner in ast.walk(node)
    }
    for_types |= {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for inner in ast.walk(node)
        if isinstance(inner, ast.ImportFrom) and inner.module in LAZY
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, id(node) in for_types
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            name = ".".join(part for part in (base, node.module or "") if part)
            if name == "st4sd_async":
                for alias in node.names:
                    yield f"{name}.{alias.name}", id(node) in for_types
            else:
                yield name, id(node) in for_types


FILES = sorted(path for path in ROOT.rglob("*.py") if "local" not in path.parts)
LOCAL = sorted(path for path in (ROOT / "local").rglob("*.py") if "examples" not in path.parts)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_imports_only_what_is_below_it(path: Path) -> None:
    """The levels of the architecture hold, type-only imports aside."""
    here = module_of(path)

    for name, for_types in imports(path):
        parts = name.split(".")
        if parts[0] == "httpx" and not for_types:
            assert here in HTTPX, f"{here} imports httpx"
        if parts[0] != "st4sd_async" or len(parts) < 2 or for_types or parts[1] == here:
            continue
        if parts[1] == "local":
            assert here in {"cli", "pytest_plugin"}
            continue
        if parts[1] not in LEVELS:  # a public name of the facade
            assert LEVELS[here] == 7
            continue
        assert LEVELS[parts[1]] < LEVELS[here] or (LEVELS[parts[1]] == LEVELS[here] and LEVELS[here] in SAME_LEVEL), (
            f"{here} imports {parts[1]}"
        )


@pytest.mark.parametrize("path", LOCAL, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_embedded_server_knows_nothing_of_the_client(path: Path) -> None:
    """Client and server cannot agree on the same mistake, because they share no code."""
    for name, _ in imports(path):
        assert not name.startswith("st4sd_async") or name.startswith("st4sd_async.local"), name
        assert name.split(".")[0] not in ("httpx", "pydantic", "aiohttp", "experiment"), name


def test_importing_the_package_imports_none_of_the_extras() -> None:
    """The import is quick and small: no pandas, rich, IPython and so on, and no HTTP engine."""
    unwanted = ["pandas", "rich", "typer", "starlette", "uvicorn", "aiohttp", "httpx", "IPython", "matplotlib"]
    unwanted += ["experiment", "keyring", "obstore", "yaml"]
    code = f"import sys, st4sd_async; print([name for name in {unwanted} if name in sys.modules])"

    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)

    assert done.stdout.strip() == "[]"
