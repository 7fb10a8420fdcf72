"""The README's snippets, run as they stand against the session's server."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile

from heartvoice.server.server import EmbeddedServer

README = Path(__file__).parents[2] / "README.md"


@pytest.mark.parametrize("name", ["client", "raw"])
def test_snippet_runs(server: EmbeddedServer, tmp_path: Path, name: str) -> None:
    match = re.search(rf"<!-- snippet: {name} -->\n```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert match
    code = match[1].replace("127.0.0.1:8001", server.url)
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, timeout=90)
    assert result.returncode == 0, result.stderr
    if name == "client":
        assert "(2, 384000) 48000 True" in result.stdout
        assert "AudioChunk" in result.stdout
        assert soundfile.info(tmp_path / "song.wav").frames == 384_000
