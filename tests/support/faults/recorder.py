"""One row for each fault: what the caller saw, whether others were hurt, how long recovery took, what was left."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field

REPORT = "HEARTVOICE_FAULTS_REPORT"
"""If this variable is set, the session ends with the table and a file `benchmarks/results/faults-*.json`."""


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
            fault: what was done.
            saw: the error that the caller got, or in words what else.
            after_s: seconds from the fault to that.
            others: what became of jobs that had nothing to do with it.
            recovery_s: seconds from the fault until a job of the same kind began that went well.
            left: what it left behind.
        """
        text = saw if isinstance(saw, str) else f"{type(saw).__name__}: {saw}"
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
