"""What ended with a process: counted by the supervisor, shown on /metrics by the model `heartvoice`."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

_FILE = "losses.json"


@dataclass
class Losses:
    """Counts of one run, by model; they outlast the processes."""

    restarts: dict[str, int] = field(default_factory=dict)
    """Processes that were started anew."""
    lost: dict[str, int] = field(default_factory=dict)
    """Jobs that ended with their process."""
    server_restarts: int = 0

    def write(self, run: Path) -> None:
        """Replace the run's file; a reader sees the old or the new one."""
        temporary = run / f"{_FILE}.new"
        temporary.write_text(json.dumps(asdict(self)), encoding="utf-8")
        temporary.replace(run / _FILE)


def read_losses(run: Path) -> Losses:
    """Return the counts of a run."""
    try:
        return Losses(**json.loads((run / _FILE).read_text(encoding="utf-8")))
    except FileNotFoundError:
        return Losses()
