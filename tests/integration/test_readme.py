"""The README's snippet, run as it stands against the session's server."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import soundfile

from heartvoice.server.server import EmbeddedServer

README = Path(__file__).parents[2] / "README.md"


def test_snippet_runs(server: EmbeddedServer, tmp_path: Path) -> None:
    match = re.search(r"<!-- snippet: client -->\n```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert match
    assert len(match[1].splitlines()) == 5
    code = match[1].replace("127.0.0.1:8001", server.url)
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, timeout=90)
    assert result.returncode == 0, result.stderr
    assert soundfile.info(tmp_path / "song.wav").frames == 384_000


def test_the_readme_stays_short() -> None:
    assert len(README.read_text().splitlines()) <= 120
