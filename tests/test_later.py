"""What the import of the package leaves for later, and that nobody notices."""

from __future__ import annotations

import ast
import json
import pickle
import pydoc
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import st4sd_async
from st4sd_async import models
from st4sd_async._util import lazy as _later

LATER = [
    *(
        f"_batch.{name}"
        for name in ("batch", "item", "journal", "launch", "reconcile_rules", "runner", "sender", "state")
    ),
    *("_http.contexts", "_http.engine", "_payload.draft", "_payload.lambdas"),
    *("models.datastore", "models.registry", "models.relationships", "models.reports"),
]
"""Modules that most scripts do without, or not at once."""
ELSEWHERE = ["sqlite3", "subprocess", "tenacity"]
"""What only those need of others."""
FACADES = [st4sd_async, models]


def fresh(code: str) -> Any:
    """What an expression gives in a new process that has imported the package."""
    text = f"import json, sys, st4sd_async; print(json.dumps({code}))"
    return json.loads(subprocess.run([sys.executable, "-c", text], check=True, capture_output=True, text=True).stdout)


def for_types(facade: Any) -> Iterator[tuple[str, str]]:
    """The home and the name of each import under ``TYPE_CHECKING``."""
    (block,) = (node for node in ast.parse(Path(facade.__file__).read_text("utf-8")).body if isinstance(node, ast.If))
    for node in block.body:
        assert isinstance(node, ast.ImportFrom)
        yield from ((f"{'.' * node.level}{node.module}", alias.name) for alias in node.names)


def test_importing_the_package_leaves_for_later_what_most_scripts_do_not_use() -> None:
    """A script that pushes, starts and watches does not wait for batches, relationships and the like."""
    unwanted = [f"st4sd_async.{name}" for name in LATER] + ELSEWHERE

    assert fresh(f"[name for name in {unwanted} if name in sys.modules]") == []


def test_importing_the_package_builds_what_checks_no_model() -> None:
    """To build them all at once takes longer than all the rest."""
    built = fresh("[one.__pydantic_complete__ for one in st4sd_async.models.Reply.__subclasses__()]")

    assert len(built) > 5
    assert not any(built)


def test_building_the_models_reads_no_source() -> None:
    """The docstrings are completed from the source when they are read, and not in an event loop that reads replies."""
    code = "[getattr(st4sd_async.models, name) for name in st4sd_async.models.__all__] and "
    built = "[cls.model_rebuild() for base in (Reply, Payload) for cls in base.__subclasses__()] and "
    read = "[file for file in __import__('linecache').cache if 'st4sd_async' in file]"
    names = "(lambda Reply, Payload: " + built + read + ")(st4sd_async.models.Reply, st4sd_async.models.Payload)"

    assert fresh(code + names) == []


@pytest.mark.parametrize("facade", FACADES, ids=lambda facade: facade.__name__)
def test_every_name_that_type_checkers_see_is_there(facade: Any) -> None:
    """What comes later is what would have come at once."""
    seen = list(for_types(facade))

    assert all(getattr(facade, name) is getattr(import_module(home, facade.__name__), name) for home, name in seen)
    assert {name for _, name in seen} <= set(facade.__all__) <= {name for _, name in seen} | set(vars(facade))


def test_names_are_shown_before_they_are_asked_for() -> None:
    """Editors and `dir` offer all names at once."""
    shown = fresh("[dir(st4sd_async), dir(st4sd_async.models)]")

    assert [set(facade.__all__) - set(names) for facade, names in zip(FACADES, shown, strict=True)] == [set(), set()]


@pytest.mark.parametrize("facade", FACADES, ids=lambda facade: facade.__name__)
def test_a_star_import_gives_all_names(facade: Any) -> None:
    """As if all of them had come at once."""
    names: dict[str, Any] = {}

    exec(f"from {facade.__name__} import *", names)

    assert set(facade.__all__) == set(names) - {"__builtins__"}


def test_a_misspelt_name_is_an_error_with_a_hint() -> None:
    """Python finds out itself what was meant."""
    with pytest.raises(AttributeError, match="module 'st4sd_async' has no attribute 'Bacth'") as caught:
        _ = st4sd_async.Bacth  # type: ignore[attr-defined] # that is the point, and type checkers see it too

    assert (caught.value.name, caught.value.obj) == ("Bacth", st4sd_async)
    with pytest.raises(ImportError, match="cannot import name 'Bacth'"):
        exec("from st4sd_async import Bacth")


def test_a_name_is_looked_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """From then on it is an attribute as any other."""
    package = ModuleType("here")
    monkeypatch.setitem(sys.modules, "here", package)
    get, _ = _later.later("here", {"st4sd_async._batch.launch": "Launch"})

    assert "Launch" not in vars(package)
    assert get("Launch") is st4sd_async.Launch is vars(package)["Launch"]


def test_a_home_without_the_name_is_an_error() -> None:
    """A mistake in the table is no endless search."""
    get, names = _later.later("st4sd_async", {"._batch.launch": "Launch Lunch"})

    assert {"Launch", "Lunch"} < set(names())
    with pytest.raises(AttributeError, match="Lunch"):
        get("Lunch")


def test_what_comes_later_can_be_pickled() -> None:
    """A process that has not asked for the class yet reads it, and knows its class."""
    told = pickle.dumps(st4sd_async.Launch("one", "demo"))

    code = f"(lambda one: [one.key, isinstance(one, st4sd_async.Launch)])(__import__('pickle').loads({told!r}))"

    assert fresh(code) == ["one", True]


def test_what_comes_later_keeps_no_event_loop_waiting_for_files() -> None:
    """Modules are read where they are first needed, which is quick; nothing else is."""
    code = """
import anyio, st4sd_async
from blockbuster import blockbuster_ctx

async def main():
    with blockbuster_ctx("st4sd_async"):
        client = st4sd_async.Client("http://127.0.0.1:1")
        print(client.batch())
        try:
            await client.start("demo", {"variable": 1})
        except st4sd_async.InvalidPayload as error:
            print(error.problems[0].where)

anyio.run(main)
"""

    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)

    assert done.stdout.splitlines() == ["Batch(a journal in memory, empty)", "variable"]


def test_help_tells_of_what_comes_later() -> None:
    """`help(st4sd_async)` has all classes."""
    text = pydoc.plain(pydoc.render_doc(st4sd_async))

    assert "class Batch(" in text
    assert "class StatusReport(" in text
