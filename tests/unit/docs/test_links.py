"""What the documents name exists: files, modules, tests, links."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SHELVES = ("tutorial", "how-to", "reference", "explanation", "decisions")
PAGES = sorted(
    [
        *(path for path in ROOT.glob("*.md")),
        *ROOT.glob("docs/**/*.md"),
        *ROOT.glob("findings/*.md"),
        *ROOT.glob("tests/golden/**/README.md"),
        ROOT / "benchmarks" / "DIARY.md",
    ]
)
LINK = re.compile(r"\]\((?P<target>[^)#\s]+)?(?P<anchor>#[^)\s]+)?\)")
NAMED = re.compile(
    r"`((?:\./)?(?:tests|heartvoice|docs|examples|client|export|benchmarks|deploy|findings|model_repository|\.github)"
    r"/[\w./{},-]*)`"
)
MODULE = re.compile(r"python -m ((?:heartvoice|benchmarks|docs|tests)[\w.]*)")
LONGEST_LINE = 120


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def anchors(text: str) -> set[str]:
    """Anchors of a page's headings, as forges make them."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for link in LINK.finditer(re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)):
        target, anchor = link["target"] or "", link["anchor"]
        if ":" in target:
            continue
        path = (page.parent / target).resolve() if target else page
        if not path.exists() or (
            anchor and path.suffix == ".md" and anchor[1:] not in anchors(path.read_text(encoding="utf-8"))
        ):
            broken.append(link[0])
    assert broken == []


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "CHANGELOG.md"], ids=relative)
def test_files_that_are_named_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    names = {name for name in NAMED.findall(text) if not set("{}*") & set(name)}
    assert [name for name in sorted(names) if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "CHANGELOG.md"], ids=relative)
def test_modules_that_are_to_be_run_exist(page: Path) -> None:
    names = set(MODULE.findall(page.read_text(encoding="utf-8")))
    assert [name for name in sorted(names) if importlib.util.find_spec(name) is None] == []


@pytest.mark.parametrize(
    "page", [page for page in PAGES if not {"golden", "CHANGELOG.md"} & set(page.parts)], ids=relative
)
def test_prose_is_wrapped(page: Path) -> None:
    """So that a change can be reviewed in a diff; tables and blocks of code cannot be wrapped."""
    prose = re.sub(r"```.*?```|`[^`]*`|\]\([^)]*\)", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert [line for line in prose.splitlines() if len(line) > LONGEST_LINE and not line.startswith("|")] == []


def test_every_page_is_in_the_site() -> None:
    site = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    pages = [path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").glob("**/*.md")]
    assert {page.split("/")[0] for page in pages} == {*SHELVES, "index.md"}
    assert [page for page in pages if page not in site] == []
