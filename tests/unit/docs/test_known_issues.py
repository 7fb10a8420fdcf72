"""The page on Triton's faults names every workaround."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[3]
TEXT = (ROOT / "docs" / "explanation" / "known-issues-triton-2.51.md").read_text(encoding="utf-8")


def test_every_workaround_is_named_and_no_other() -> None:
    modules = {
        f"{room}.workarounds.{path.stem}"
        for room in ("serving", "server")
        for path in (ROOT / "heartvoice" / room / "workarounds").glob("*.py")
        if path.stem != "__init__"
    }
    assert set(re.findall(r"`(\w+\.workarounds\.\w+)`", TEXT)) == modules
