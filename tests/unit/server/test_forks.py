"""Starting processes beside gRPC calls, and their end with the one that started them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.support.waiting import wait_until

ROOT = next(path for path in Path(__file__).parents if (path / "pyproject.toml").is_file())


def test_a_program_dies_with_the_process_that_started_it() -> None:
    code = (
        "import sys; from heartvoice.server.processes import start_with_parent;"
        "print(start_with_parent(['/bin/sleep', '60']).pid, flush=True); sys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=-1, stdout=-1, text=True, cwd=ROOT) as starter:
        assert starter.stdout is not None
        pid = int(starter.stdout.readline())
        command = Path(f"/proc/{pid}/cmdline")
        wait_until(lambda: command.read_bytes() == b"/bin/sleep\00060\0", 60.0, "it did not become the program")
        starter.kill()
    wait_until(lambda: not command.exists() or not command.read_bytes(), 60.0, "it lives on")


def test_importing_the_package_changes_no_environment() -> None:
    code = (
        "import os; before = dict(os.environ); import heartvoice.cli.main, heartvoice.server.server;"
        "print(before == dict(os.environ))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "True"
