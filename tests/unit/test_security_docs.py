"""docs/explanation/security.md says what holds each defence; those tests exist."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
TEXT = (TESTS.parent / "docs" / "explanation" / "security.md").read_text()


def test_every_test_that_is_named_exists() -> None:
    names = set(re.findall(r"\btest_\w+", TEXT)) - {path.stem for path in TESTS.rglob("*.py")}
    defined = {name for path in TESTS.rglob("test_*.py") for name in re.findall(r"def (test_\w+)", path.read_text())}
    assert len(names) > 12
    assert names - defined == set()


def test_every_file_that_is_named_exists() -> None:
    root = TESTS.parent
    paths = set(re.findall(r"`((?:tests|heartvoice|docs|examples)/[\w/.-]+\.(?:py|md))", TEXT))
    assert len(paths) > 6
    assert [path for path in paths if not (root / path).is_file()] == []


def test_every_fuzz_target_is_named() -> None:
    from tests.fuzz.names import NAMES

    assert [name for name in NAMES if f"`{name}`" not in TEXT] == []
