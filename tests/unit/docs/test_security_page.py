"""The threat model names tests and fuzz targets that exist."""

from __future__ import annotations

import re
from pathlib import Path

from tests.fuzz.names import NAMES

ROOT = Path(__file__).parents[3]
TEXT = (ROOT / "docs" / "explanation" / "security.md").read_text(encoding="utf-8")


def test_every_test_that_is_named_exists() -> None:
    names = set(re.findall(r"`(test_\w+)`", TEXT))
    text = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    assert len(names) > 12
    assert names - set(re.findall(r"def (test_\w+)", text)) == set()


def test_every_fuzz_target_is_named() -> None:
    assert [name for name in NAMES if f"`{name}`" not in TEXT] == []
