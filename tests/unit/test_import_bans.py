"""The linters' fences are up: each finds a violation that is put in front of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = next(path for path in Path(__file__).parents if (path / "pyproject.toml").is_file())


@pytest.mark.parametrize(
    ("code", "rule"),
    [
        ("import client.wire\n", "TID251"),
        ("from client import wire\n", "TID251"),
        ("from export.layout import INDEX\n", "TID251"),
        ("import heartvoice.benchmarks\n", "TID251"),
        ("from . import wire\n", "TID252"),
        ("from heartvoice.errors import *\n", "F403"),
    ],
)
def test_ruff_refuses_imports_by_other_names(code: str, rule: str) -> None:
    command = [sys.executable, "-m", "ruff", "check", "--no-cache", "--output-format", "concise"]
    command += ["--stdin-filename", "heartvoice/serving/seeded.py", "-"]
    done = subprocess.run(command, input=code, capture_output=True, text=True, cwd=ROOT)
    assert f" {rule} " in done.stdout
