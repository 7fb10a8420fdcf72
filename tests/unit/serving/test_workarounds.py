"""Every workaround says which fault it is for, which test shows it, and when it can be deleted."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import heartvoice

ROOT = Path(heartvoice.__file__).parent
MODULES = sorted(
    path for room in ("serving", "server") for path in (ROOT / room / "workarounds").glob("*.py") if path.stem[0] != "_"
)
ENTRIES = re.compile(
    r"[^\n]+\.\n\nFault \(Triton \d+\.\d+\): (.+?)\nDoes: (.+?)\nTest: (.+?)\nDelete when: (.+?)\n?", re.DOTALL
)


@pytest.fixture(scope="module")
def tests() -> set[str]:
    """Names of all tests."""
    files = Path(__file__).parents[2].rglob("test_*.py")
    return {name for file in files for name in re.findall(r"^ *(?:async )?def (test_\w+)", file.read_text(), re.M)}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: f"{path.parents[1].name}-{path.stem}")
def test_a_workaround_states_fault_versions_test_and_end(path: Path, tests: set[str]) -> None:
    found = ENTRIES.fullmatch(ast.get_docstring(ast.parse(path.read_text())) or "")
    assert found is not None, "expected a summary line, then Fault (Triton X.Y), Does, Test, Delete when"
    cited = re.findall(r"`(\w+)`", found[3])
    assert cited
    assert set(cited) <= tests, "a test that does not exist"


def test_the_faults_are_fenced() -> None:
    """Outside of the workarounds nothing depends on a version of Triton."""
    assert len(MODULES) > 20
    for name in ("serving/jobs.py", "serving/bls.py"):
        assert not re.search(r"SIGSEGV|2\.51", (ROOT / name).read_text()), name
