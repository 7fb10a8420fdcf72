"""Starting many processes beside gRPC calls."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = next(path for path in Path(__file__).parents if (path / "pyproject.toml").is_file())


def test_no_child_of_a_supervisor_with_calls_under_way_is_lost() -> None:
    """With `preexec_fn` and gRPC's fork handlers one in a hundred aborts, or all hang."""
    environment = {name: value for name, value in os.environ.items() if name != "GRPC_ENABLE_FORK_SUPPORT"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.fork_often"], env=environment, cwd=ROOT,
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.stdout.split() == ["0"], done.stderr[-2000:]
