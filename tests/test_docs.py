"""The documentation site is complete: every page is in its contents, and every public name in its reference."""

from __future__ import annotations

import ast
import re
import tomllib
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest

import st4sd_async
from st4sd_async import local, models
from st4sd_async.cli.errors import Exit

DOCS = Path(st4sd_async.__file__).parent / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
OTHERS = [DOCS.parents[1] / name for name in ("README.md", ".github/CONTRIBUTING.md", ".github/SECURITY.md")]
DOCUMENTED = re.compile(r"^\.\. auto\w+:: (\S+)$", re.MULTILINE)
CONTENTS = re.compile(r"```\{toctree\}\n(.*?)```", re.DOTALL)
EVIDENCE = re.compile(r"`((?:tests|benchmarks)/[\w/.]+)(?:::(\w+))?`")
LINK = re.compile(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)")


def listed(page: Path) -> list[Path]:
    """Return the pages in the tables of contents of a page."""
    lines = [line for contents in CONTENTS.findall(page.read_text("utf-8")) for line in contents.splitlines()]
    return [page.parent / f"{line}.md" for line in lines if line and not line.startswith(":")]


def documented(pattern: str) -> list[str]:
    """Return the names that the pages of the reference document."""
    return [name for page in sorted(DOCS.glob(pattern)) for name in DOCUMENTED.findall(page.read_text("utf-8"))]


def check_documented(page: str, named: list[str], public: Iterable[str]) -> None:
    """Fail if a page of the reference does not document each public name once, and nothing else."""
    found, wanted = Counter(named), Counter(public)
    missing, wrong = sorted(wanted - found), sorted(found - wanted)
    assert missing == [], f"add to docs/reference/{page}"
    assert wrong == [], f"not public, or twice, in docs/reference/{page}"


def test_every_public_name_is_in_the_reference_once() -> None:
    """The names of the groups of endpoints are not public, and on a page of their own."""
    check_documented("*.md", [name for name in documented("reference/*.md") if "." not in name], st4sd_async.__all__)


def test_every_model_is_in_the_reference() -> None:
    """Those that are not imported from the package itself are on a page of their own."""
    others = set(models.__all__) - set(st4sd_async.__all__)

    check_documented("models.md", documented("reference/models.md"), [f"st4sd_async.models.{name}" for name in others])


def test_every_name_of_the_embedded_server_is_in_the_reference() -> None:
    """On its own page."""
    check_documented(
        "local.md", documented("reference/local.md"), [f"st4sd_async.local.{name}" for name in local.__all__]
    )


def test_every_name_of_the_integrations_is_in_the_reference() -> None:
    """On their own page. They are read and not imported, because Airflow and Dask are not installed here."""
    modules = {
        f"st4sd_async.integrations.{file.stem}": names_of(file) for file in DOCS.parent.glob("integrations/[a-z]*.py")
    }
    public = [f"{module}.{name}" for module, names in modules.items() for name in names]

    assert all(modules.values())
    check_documented("integrations.md", documented("reference/integrations.md"), [*modules, *public])


def names_of(module: Path) -> list[str]:
    """Return ``__all__`` of a module without importing it; [] if it has none."""
    for statement in ast.parse(module.read_text("utf-8")).body:
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "__all__":
            return list(ast.literal_eval(statement.value))
    return []


def test_every_page_is_in_the_contents() -> None:
    """Once, on the first page or on that of the reference."""
    pages = [*listed(DOCS / "index.md"), *listed(DOCS / "reference" / "index.md")]

    assert sorted([*pages, DOCS / "index.md"]) == PAGES


def test_every_exit_status_is_in_the_reference() -> None:
    """In the order of its table."""
    page = (DOCS / "reference" / "command.md").read_text("utf-8")

    assert [int(status) for status in re.findall(r"^\| (\d+) \|", page, re.MULTILINE)] == list(Exit)


def test_every_extra_is_in_the_table_of_extras() -> None:
    """Except for those of contributors."""
    project = tomllib.loads((DOCS.parents[1] / "pyproject.toml").read_text("utf-8"))["project"]
    table = (DOCS / "get_started.md").read_text("utf-8").partition("| extra |")[2].partition("\n\n")[0]

    assert sorted(re.findall(r"^\| `(\w+)`", table, re.MULTILINE)) == sorted(
        project["optional-dependencies"].keys() - {"dev", "docs"}
    )


@pytest.mark.parametrize("page", [*PAGES, *OTHERS], ids=lambda page: page.stem)
def test_links_lead_to_files(page: Path) -> None:
    """So that pages can be read without the site."""
    for target in LINK.findall(page.read_text("utf-8")):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_tests_that_pages_name_exist(page: Path) -> None:
    """They are the evidence of what is promised."""
    for file, test in EVIDENCE.findall(page.read_text("utf-8")):
        path = DOCS.parents[1] / file
        assert path.exists(), file
        assert not test or f"def {test}(" in path.read_text("utf-8"), test
