"""The pytest fixtures, as the tests of an application use them."""

from __future__ import annotations

import importlib.util
import os
import re
import tomllib
from pathlib import Path

import pytest

from st4sd_async import pytest_plugin as plugin
from tests.tries import IS_FULL

pytest_plugins = ["pytester"]

pytestmark = [pytest.mark.timeout(60), pytest.mark.slow]  # processes that import all of it anew, on a busy machine

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "st4sd_async" / "docs" / "testing.md"
PLUGINS = ["-p", "anyio", "-p", "st4sd_async.pytest_plugin", "-p", "no:cacheprovider", "-W", "error"]

SCOPE = "asyncio_default_fixture_loop_scope=function"  # without it, pytest-asyncio warns

BLOCKING = """
def test_without_async(st4sd_server, st4sd_sync_client):
    st4sd_sync_client.push(st4sd_server.example("demo"))
    assert [one.name for one in st4sd_sync_client.experiments.list()] == ["demo"]

def test_each_test_has_a_server_of_its_own(st4sd_server, st4sd_sync_client):
    assert list(st4sd_sync_client.experiments.list()) == []
"""


OF_BOTH_PLUGINS = """
import pytest

@pytest.fixture
def anyio_backend():
    return "asyncio"

@pytest.mark.asyncio
async def test_of_asyncio(st4sd_client):
    assert list(await st4sd_client.experiments.list()) == []

@pytest.mark.anyio
async def test_of_anyio(st4sd_client, anyio_backend):
    assert list(await st4sd_client.experiments.list()) == []
"""


@pytest.fixture
def application(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A project with tests; pytest loads only the plugins that are named."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT), prepend=os.pathsep)
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    return pytester


def test_the_example_runs(application: pytest.Pytester) -> None:
    """The tests on the page pass, together with blocking ones, without a warning."""
    first, *others = re.findall("```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    application.makepyfile("".join([first, *others, BLOCKING]))

    run = application.runpytest_subprocess if IS_FULL else application.runpytest_inprocess
    run(*PLUGINS).assert_outcomes(passed=5)

    assert len([line for line in first.splitlines() if line.strip()]) <= 11


@pytest.mark.skipif(importlib.util.find_spec("pytest_asyncio") is None, reason="pytest-asyncio is not installed")
@pytest.mark.parametrize("mode", ["strict", "auto"])
def test_pytest_asyncio_may_run_the_tests(application: pytest.Pytester, mode: str) -> None:
    """In both of its modes, together with tests of anyio and the tests on the page."""
    page = re.findall("```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    application.makepyfile("".join([*page, OF_BOTH_PLUGINS]))

    done = application.runpytest_subprocess(
        *PLUGINS, "-p", "pytest_asyncio.plugin", "--asyncio-mode", mode, "-o", SCOPE
    )

    done.assert_outcomes(passed=5)


def test_a_missing_extra_or_event_loop_is_reported(application: pytest.Pytester) -> None:
    """A test without the extra, or without an event loop, fails with advice."""
    application.makeconftest("import sys; sys.modules['starlette'] = None")
    application.makepyfile("def test_one(st4sd_server): pass\ndef test_two(st4sd_client): pass")

    done = application.runpytest_subprocess(*PLUGINS)

    done.assert_outcomes(errors=2)
    done.stdout.fnmatch_lines(['*pip install "st4sd_async[[]local]"', "*mark it with pytest.mark.anyio*"])
    done.stdout.no_fnmatch_line("*Traceback*")


def test_the_package_is_not_imported_before_a_fixture_is_used(application: pytest.Pytester) -> None:
    """Other tests are not slowed down: only the plugin itself is imported, and what it names its types by."""
    ours = ["st4sd_async", "st4sd_async._util", "st4sd_async._util.lazy", "st4sd_async.pytest_plugin"]
    application.makepyfile(
        f"import sys\ndef test_it(): assert sorted(one for one in sys.modules if 'st4sd_async' in one) == {ours}"
    )

    application.runpytest_subprocess(*PLUGINS[:4]).assert_outcomes(passed=1)


def test_the_plugin_is_registered() -> None:
    """The entry point names the module."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))

    assert project["project"]["entry-points"]["pytest11"] == {"st4sd_async": plugin.__name__}
