"""`heartvoice bench` against a real server: a little of everything, and Ctrl-C."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

from heartvoice.server.server import EmbeddedServer

BENCH = [sys.executable, "-m", "heartvoice.cli.main", "bench", "--quick"]


def test_a_running_server_is_measured(server: EmbeddedServer, tmp_path: Path) -> None:
    command = [*BENCH, "--url", server.url, "--metrics-url", server.metrics_url, "--results", str(tmp_path)]
    command += ["--only", "stages", "--model", "vocoder"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=110)
    assert done.returncode == 0, done.stderr[-2000:]
    (path,) = tmp_path.glob("load-quick-tiny-*.json")
    found = json.loads(path.read_text())
    assert found["complete"]
    rows = found["rows"]
    assert not [row for row in rows if "failed" in row]
    by_question = {row["question"]: row for row in rows}
    assert by_question["stages"]["p50_ms"] > 0
    assert by_question["stages"]["queue_ms"] > 0
    assert {row["variant"] for row in rows if row["question"] == "memory"} >= {"server", "song", "vocoder", "all"}


def test_an_interruption_keeps_what_was_measured(server: EmbeddedServer, tmp_path: Path) -> None:
    command = [*BENCH, "--url", server.url, "--results", str(tmp_path), "--only", "streams"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if "window 372, 2 at once" in line:
            process.send_signal(signal.SIGINT)
            break
    errors = process.communicate(timeout=60)[1]
    assert process.returncode == 130, errors
    assert "interrupted: what was measured is in" in errors
    (path,) = tmp_path.glob("load-quick-tiny-*.json")
    found = json.loads(path.read_text())
    assert not found["complete"]
    assert "stream: song, window 93" in {row["case"] for row in found["rows"]}
