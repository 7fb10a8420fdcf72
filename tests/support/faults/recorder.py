"""Records a row per fault: the caller's error, effect on other jobs, recovery time, leaks."""

from __future__ import annotations

import os
import re
import tempfile
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

REPORT = "HEARTVOICE_FAULTS_REPORT"
"""If this variable is set, the session ends with the table and a file `benchmarks/results/faults-*.json`."""

ROOT = next(path for path in Path(__file__).parents if (path / "pyproject.toml").is_file())


def _without_paths(text: str) -> str:
    """Remove this machine's folders: they say nothing to a reader of the table."""
    temporary = rf"{re.escape(tempfile.gettempdir())}/pytest-of-[^/]+/pytest-\d+/"
    return re.sub(temporary, "TMP/", text.replace(f"{ROOT}/", ""))


@dataclass
class Recorder:
    """Collects the rows of a session."""

    rows: list[dict[str, object]] = field(default_factory=list)

    def __call__(
        self,
        fault: str,
        *,
        saw: BaseException | str,
        after_s: float | None = None,
        others: str = "no other job",
        recovery_s: float | None = None,
        left: Sequence[str] = (),
    ) -> None:
        """Add a row.

        Args:
            fault: description of the fault.
            saw: the caller's error, or a description.
            after_s: seconds from the fault to that.
            others: results of unrelated jobs.
            recovery_s: seconds from the fault to the start of a successful job of the same kind.
            left: leaked resources.
        """
        text = _without_paths(saw if isinstance(saw, str) else f"{type(saw).__name__}: {saw}")
        self.rows.append(
            {
                "fault": fault, "caller_saw": text, "after_s": after_s, "others": others, "recovery_s": recovery_s,
                "left_behind": ", ".join(left) or "nothing",
            }
        )  # fmt: skip

    def report(self) -> None:
        """Print the rows and write them with the facts of the machine, if that is asked for."""
        if not self.rows or not os.environ.get(REPORT):
            return
        from heartvoice.loadtest import harness, machine

        run = harness.Run("faults", preset="tiny", precision="fp32", threads=machine.n_cores())
        for row in self.rows:
            run.rows.append({"case": "faults", "variant": row["fault"], **row})
        run.store()
        print(f"\n{run.path}")
        for row in self.rows:
            print(f"\n{row['fault']}")
            for name in ("caller_saw", "after_s", "others", "recovery_s", "left_behind"):
                value = row[name]
                text = f"{value:.2f} s" if isinstance(value, float) else str(value or "-")
                print(textwrap.fill(text, 110, initial_indent=f"    {name + ':':<14}", subsequent_indent=" " * 18))
