"""A supervisor with gRPC calls under way starts processes, and they start."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_no_child_of_a_supervisor_with_calls_under_way_is_lost() -> None:
    """With gRPC's own fork handlers one in a hundred aborts, or all stand still."""
    environment = {name: value for name, value in os.environ.items() if name != "GRPC_ENABLE_FORK_SUPPORT"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.fork_often"], env=environment, cwd=Path(__file__).parents[3],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.stdout.split() == ["0"], done.stderr[-2000:]


def test_the_command_settles_that_before_grpc_is_imported() -> None:
    code = "import sys, os, heartvoice.cli.main; print('grpc' in sys.modules, os.environ['GRPC_ENABLE_FORK_SUPPORT'])"
    environment = {name: value for name, value in os.environ.items() if name != "GRPC_ENABLE_FORK_SUPPORT"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "0"]
