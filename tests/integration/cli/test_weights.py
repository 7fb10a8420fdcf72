"""The catalogue, `weights list`, `weights verify`, and Ctrl-C in a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from heartvoice.weights.pull import INCOMPLETE
from tests.fakes.hub import serving
from tests.support.published import LM, LM_FILES, SHARD, SHARD_AT, on_disk


def test_command_imports_no_torch() -> None:
    code = "import sys, heartvoice.cli.weights, heartvoice.weights.pull; print('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"


def test_ctrl_c_leaves_what_the_next_run_goes_on_with(weights: Path, tmp_path: Path) -> None:
    content = bytes(range(256)) * (36 * 4096)  # several of the library's 10 MiB blocks
    with serving() as hub:
        hub.publish(LM, {**LM_FILES, SHARD: content})
        hub.bytes_per_s = 20e6
        command = [
            sys.executable, "-m", "heartvoice.cli.main", "weights", "pull", "--dir", str(weights), "--mirror",
            hub.url, "--only", "heartmula",
        ]  # fmt: skip
        environment = {**os.environ, "HF_HOME": str(tmp_path / "home")}
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
        try:
            wait_for_bytes(weights / INCOMPLETE, 10 * 2**20)
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=60)
        finally:
            process.kill()
            process.wait()
        assert process.returncode == 130
        assert "interrupted: what has come is kept" in errors
        assert SHARD_AT not in on_disk(weights)
        hub.bytes_per_s = None
        done = subprocess.run(command, stderr=subprocess.PIPE, text=True, env=environment, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        start = hub.downloads(SHARD)[-1].start
    assert start is not None
    assert start >= 10 * 2**20
    assert (weights / SHARD_AT).read_bytes() == content


def wait_for_bytes(folder: Path, n_bytes: int) -> None:
    end = time.monotonic() + 60
    while sum(path.stat().st_size for path in folder.glob("*.part")) < n_bytes:
        assert time.monotonic() < end, "nothing came"
        time.sleep(0.02)
