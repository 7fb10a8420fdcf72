"""`heartvoice bench` beyond what a server can serve."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from heartvoice.server.server import EmbeddedServer
from tests.integration.test_load import BENCH


def test_who_is_accepted_is_served_and_the_others_are_refused(server: EmbeddedServer, tmp_path: Path) -> None:
    command = [*BENCH, "--url", server.url, "--results", str(tmp_path), "--only", "saturation", "--only", "length"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=110)
    assert done.returncode == 0, done.stderr[-2000:]
    (path,) = tmp_path.glob("load-quick-tiny-*.json")
    rows = json.loads(path.read_text())["rows"]
    over = next(row for row in rows if row["variant"] == "400% offered")
    assert over["late"] == over["broken"] == 0, "who is accepted is served"
    assert over["refused"] == over["refused_by"] > 0
    assert all("jobs running and" in text for text in over["refusals"])
