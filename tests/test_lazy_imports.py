"""Lazy imports of the package."""

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
from st4sd_async._util.lazy import lazy_attributes

pytestmark = pytest.mark.slow

LAZY_MODULES = [
    *(
        f"_batch.{name}"
        for name in ("batch", "item", "journal", "launch", "reconcile_rules", "runner", "sender", "state")
    ),
    *("_http.contexts", "_http.engine", "_payload.draft", "_payload.lambdas"),
    *(
        f"_results.{name}"
        for name in ("archive", "buckets", "downloads", "failure", "properties", "result_tree", "staging", "tables")
    ),
    *("models.datastore", "models.registry", "models.relationships", "models.reports"),
]
"""Modules that most scripts do not need, or not at once."""
LAZY_DEPENDENCIES = ["csv", "difflib", "email.utils", "importlib.metadata", "pickle", "sqlite3", "ssl", "subprocess"]
LAZY_DEPENDENCIES += ["tempfile", "tenacity", "zipfile"]
"""Modules of other packages that only those need."""
FACADES = [st4sd_async, models]


LAUNCH = pickle.dumps(st4sd_async.Launch("one", "demo"))
FACTS = {
    "unwanted": f"[name for name in {[f'st4sd_async.{name}' for name in LAZY_MODULES] + LAZY_DEPENDENCIES} "
    "if name in sys.modules]",
    "built": "[one.__pydantic_complete__ for one in st4sd_async.models.Reply.__subclasses__()]",
    "shown": "[dir(st4sd_async), dir(st4sd_async.models)]",
    "unpickled": "(lambda one: [one.key, isinstance(one, st4sd_async.Launch)])"
    f"(__import__('pickle').loads({LAUNCH!r}))",
    # Last, because it imports all models and builds them.
    "read": "[getattr(st4sd_async.models, name) for name in st4sd_async.models.__all__] and "
    "(lambda Reply, Payload: [cls.model_rebuild() for base in (Reply, Payload) for cls in base.__subclasses__()] and "
    "[file for file in __import__('linecache').cache if 'st4sd_async' in file]"
    ")(st4sd_async.models.Reply, st4sd_async.models.Payload)",
}
"""Name -> an expression."""


@pytest.fixture(scope="module")
def fresh() -> dict[str, Any]:
    """What is so in a new process that has imported the client, one expression after the other."""
    each = ", ".join(f"{name!r}: {code}" for name, code in FACTS.items())
    text = f"import json, sys, st4sd_async; from st4sd_async import Client; print(json.dumps({{{each}}}))"
    done = subprocess.run([sys.executable, "-c", text], check=True, capture_output=True, text=True)
    facts: dict[str, Any] = json.loads(done.stdout)
    return facts


def imports_for_types(facade: Any) -> Iterator[tuple[str, str]]:
    """Yield the module and the name of each import under ``TYPE_CHECKING``."""
    (block,) = (node for node in ast.parse(Path(facade.__file__).read_text("utf-8")).body if isinstance(node, ast.If))
    for node in block.body:
        assert isinstance(node, ast.ImportFrom)
        yield from ((f"{'.' * node.level}{node.module}", alias.name) for alias in node.names)


def test_importing_the_package_imports_nothing_else() -> None:
    """Each name of the facade is imported on first use; `st4sd_async.models` needs no import of its own."""
    code = "import sys; before = {*sys.modules}; import st4sd_async; print(sorted({*sys.modules} - before)); "
    code += "print(st4sd_async.models.Status is st4sd_async.Status)"

    done = subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, capture_output=True, text=True)

    imported, is_same = done.stdout.splitlines()
    names = ast.literal_eval(imported)
    assert [one for one in names if one.partition(".")[0] not in sys.stdlib_module_names] == [
        "st4sd_async",
        "st4sd_async._util",
        "st4sd_async._util.lazy",
    ]
    assert not {"asyncio", "dataclasses", "inspect"} & {*names}
    assert is_same == "True"


def test_importing_the_client_does_not_import_what_most_scripts_do_not_use(fresh: dict[str, Any]) -> None:
    """A script that pushes, starts and watches needs no batches and no relationships."""
    assert fresh["unwanted"] == []


def test_importing_the_client_builds_no_models(fresh: dict[str, Any]) -> None:
    """Building all of them would take longer than the rest of the import."""
    assert len(fresh["built"]) > 5
    assert not any(fresh["built"])


def test_building_the_models_reads_no_source(fresh: dict[str, Any]) -> None:
    """Docstrings are completed from the source when they are read, not when an event loop parses replies."""
    assert fresh["read"] == []


@pytest.mark.parametrize("facade", FACADES, ids=lambda facade: facade.__name__)
def test_every_name_that_type_checkers_see_exists(facade: Any) -> None:
    """Lazy names are the same objects as imported ones."""
    seen = list(imports_for_types(facade))

    assert all(getattr(facade, name) is getattr(import_module(home, facade.__name__), name) for home, name in seen)
    assert {name for _, name in seen} <= set(facade.__all__) <= {name for _, name in seen} | set(vars(facade))


def test_dir_has_lazy_names_before_they_are_used(fresh: dict[str, Any]) -> None:
    """So that editors offer all names."""
    shown = fresh["shown"]

    assert [set(facade.__all__) - set(names) for facade, names in zip(FACADES, shown, strict=True)] == [set(), set()]


@pytest.mark.parametrize("facade", FACADES, ids=lambda facade: facade.__name__)
def test_a_star_import_gives_all_names(facade: Any) -> None:
    """Including lazy ones."""
    names: dict[str, Any] = {}

    exec(f"from {facade.__name__} import *", names)

    assert set(facade.__all__) == set(names) - {"__builtins__"}


def test_a_misspelt_name_is_an_error_with_a_hint() -> None:
    """Python suggests the right name."""
    with pytest.raises(AttributeError, match="module 'st4sd_async' has no attribute 'Bacth'") as caught:
        _ = st4sd_async.Bacth  # type: ignore[attr-defined] # the error is tested; type checkers see it too

    assert (caught.value.name, caught.value.obj) == ("Bacth", st4sd_async)
    with pytest.raises(ImportError, match="cannot import name 'Bacth'"):
        exec("from st4sd_async import Bacth")


def test_a_name_is_resolved_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then it is an ordinary attribute."""
    package = ModuleType("here")
    monkeypatch.setitem(sys.modules, "here", package)
    get, _ = lazy_attributes("here", {"st4sd_async._batch.launch": "Launch"})

    assert "Launch" not in vars(package)
    assert get("Launch") is st4sd_async.Launch is vars(package)["Launch"]


def test_a_module_without_the_name_is_an_error() -> None:
    """A mistake in the table does not recurse."""
    get, names = lazy_attributes("st4sd_async", {"._batch.launch": "Launch Lunch"})

    assert {"Launch", "Lunch"} < set(names())
    with pytest.raises(AttributeError, match="Lunch"):
        get("Lunch")


def test_lazy_classes_can_be_pickled(fresh: dict[str, Any]) -> None:
    """A process that has not used the class yet can unpickle an instance."""
    assert fresh["unpickled"] == ["one", True]


def test_lazy_imports_do_not_block_an_event_loop_with_other_files() -> None:
    """Once a client is open, only modules are read when they are first used; a thread has read the rest."""
    code = """
import anyio, st4sd_async
from st4sd_async import Client, Config
from blockbuster import blockbuster_ctx

async def main():
    with blockbuster_ctx("st4sd_async"):
        async with Client("http://127.0.0.1:1", config=Config(validate=False)) as client:
            print(client.batch())
            try:
                await client.start("demo", {"variable": 1})
            except st4sd_async.InvalidPayload as error:
                print(error.problems[0].where)

anyio.run(main)
"""

    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)

    assert done.stdout.splitlines() == ["Batch(a journal in memory, empty)", "variable"]


class Names(pydoc.TextDoc):
    """Shows classes without their members, of which there are a megabyte."""

    def docclass(self, object: object, name: str | None = None, mod: str | None = None, *ignored: Any) -> str:
        return f"class {name}("


def test_help_shows_lazy_classes() -> None:
    """`help(st4sd_async)` has all classes."""
    text = pydoc.plain(Names().document(st4sd_async))

    assert "class Batch(" in text
    assert "class StatusReport(" in text


def test_importing_the_server_imports_nothing_that_only_a_running_one_needs() -> None:
    """The modules that read packages and simulate runs are imported when a server is entered."""
    code = "import st4sd_async.local, sys; print(*(one for one in sys.modules if one.startswith('st4sd_async.local.')))"

    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)

    prefix = "st4sd_async.local."
    assert {name.removeprefix(prefix) for name in done.stdout.split()} == {
        *("engine", "engine.buckets", "engine.interface", "http", "http.credentials", "http.faults", "http.traffic"),
        *("server", "simulator", "simulator.clock", "state"),
    }
