"""Writes docs/explanation/coverage.md: the lines and branches that `make test` reaches, and what it does not reach.

python -m docs.scripts.coverage build/coverage.json   # what `coverage json` wrote
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from docs.scripts.reference import ROOT, table

PAGE = ROOT / "docs" / "explanation" / "coverage.md"
HEAD = """\
# What the tests reach

`make coverage` runs the tests of `make test` and writes this page. It counts lines and branches in the tests' processes
and in all that these start: commands, servers and their models. A line that is reached is not thereby checked; one that
is not reached certainly is not.
"""
UNREACHED = """\
## Not reached

Functions of which no line ran, by file. Most need what the tests' machine lacks, or belong to `make nightly`: a GPU,
TensorRT, networks at full size, a machine without memory.
"""


@dataclass
class Counts:
    """Sums over files."""

    lines: int = 0
    reached_lines: int = 0
    branches: int = 0
    reached_branches: int = 0
    files: int = 0

    def add(self, summary: Mapping[str, Any]) -> None:
        """Add one file of the report."""
        self.files += 1
        self.lines += summary["num_statements"]
        self.reached_lines += summary["covered_lines"]
        self.branches += summary["num_branches"]
        self.reached_branches += summary["covered_branches"]

    def row(self, name: str) -> list[str]:
        """Return a row of the table."""
        lines = f"{100 * self.reached_lines / max(self.lines, 1):.1f} %"
        branches = f"{100 * self.reached_branches / self.branches:.1f} %" if self.branches else "none"
        return [name, str(self.files), str(self.lines), lines, str(self.branches), branches]


@dataclass
class Page:
    """The page's contents, collected file by file."""

    total: Counts = field(default_factory=Counts)
    rooms: dict[str, Counts] = field(default_factory=dict)
    unreached: dict[str, list[str]] = field(default_factory=dict)

    def add(self, path: str, found: Mapping[str, Any]) -> None:
        """Add one file of the report."""
        parts = Path(path).parts
        room = "/".join(parts[:2]) if len(parts) > 2 else parts[0]
        for counts in (self.total, self.rooms.setdefault(room, Counts())):
            counts.add(found["summary"])
        functions = found["functions"]
        names = [name for name, part in functions.items() if name and not part["executed_lines"]]
        names = [name for name in names if functions[name]["summary"]["num_statements"]]
        if names:
            self.unreached[path] = names

    def text(self) -> str:
        """Return the page."""
        head = ["room", "files", "lines", "reached", "branches", "reached"]
        rows = [self.rooms[room].row(f"`{room}`") for room in sorted(self.rooms)]
        listed = [f"- `{path}`: {', '.join(f'`{n}`' for n in self.unreached[path])}" for path in sorted(self.unreached)]
        return "\n".join([HEAD, table(head, [self.total.row("all"), *rows]), "", UNREACHED, *listed, ""])


def page(report: Mapping[str, Any]) -> str:
    """Make the page of a report in coverage's JSON format."""
    made = Page()
    for path, found in report["files"].items():
        if found["summary"]["num_statements"]:
            made.add(path, found)
    return made.text()


if __name__ == "__main__":
    PAGE.write_text(page(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))), encoding="utf-8")
