"""The longest cover that is allowed, from its file to the finished one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from heartvoice.cli.main import app
from heartvoice.contracts.constants import SAMPLE_RATE_HZ
from heartvoice.contracts.field_checks import COVER_LIMITS_S
from heartvoice.server.server import EmbeddedServer

SECONDS = round(COVER_LIMITS_S[1])
EXAMPLES = Path(__file__).parents[3] / "heartvoice" / "examples"


@pytest.mark.timeout(3600)
def test_the_longest_cover_is_made_with_default_options(server: EmbeddedServer, tmp_path: Path) -> None:
    """24 bits at 48 kHz, which are more bytes than a request may have."""
    audio = soundfile.read(EXAMPLES / "recording.flac", dtype="float32", always_2d=True)[0]
    n = SECONDS * SAMPLE_RATE_HZ
    recording, song = tmp_path / "recording.wav", tmp_path / "song.flac"
    soundfile.write(recording, np.tile(audio, (-(-n // len(audio)), 1))[:n], SAMPLE_RATE_HZ, subtype="PCM_24")
    command = ["cover", str(recording), "--voice", str(EXAMPLES / "voice.flac"), "--consent", "synthetic"]
    result = CliRunner().invoke(app, [*command, "--url", server.url, "-o", str(song)])
    assert result.exit_code == 0, result.output
    assert soundfile.info(song).frames == n
    assert server.live_jobs() == 0
