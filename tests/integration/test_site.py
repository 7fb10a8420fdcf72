"""The documentation site builds without a warning, and asks no other host for anything."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from heartvoice.contracts.constants import SAMPLE_RATE_HZ

ROOT = Path(__file__).parents[2]
AUDIBLE = 0.1
"""Peak that any song has."""
FETCHED = re.compile(r"""<(?:script|img|link|iframe)\b[^>]*?\b(?:src|href)=["']?(https?:[^"'> ]+)""")


@pytest.mark.timeout(600)
def test_the_site_builds_strictly_and_asks_no_other_host(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")],
        capture_output=True, text=True, cwd=ROOT, timeout=560,
        env={**os.environ, "PYTHONPATH": str(ROOT), "NO_MKDOCS_2_WARNING": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    pages = {path.relative_to(tmp_path / "site").as_posix(): path.read_text() for path in tmp_path.rglob("*.html")}
    assert {name: FETCHED.findall(page) for name, page in pages.items() if FETCHED.search(page)} == {}
    assert "--codec-window" in pages["reference/cli.html"]
    assert "stream_cover" in pages["reference/python.html"]
    sources = set(re.findall(r'<(?:audio|img)[^>]*? src="?([^" >]+)', pages["explanation/demo-world.html"]))
    missing = {source for source in sources if not (tmp_path / "site/explanation" / source).is_file()}
    assert missing == set()
    for name in ("song", "song-rendered", "voice", "voice-rendered"):
        assert f"../sounds/{name}.mp3" in sources
        audio, _ = soundfile.read(tmp_path / f"site/sounds/{name}.mp3")
        assert len(audio) > 10 * SAMPLE_RATE_HZ
        assert np.abs(audio).max() > AUDIBLE
