"""Songs of the voice bank for tests: made once, then from the cache; without a network, the test is skipped."""

from __future__ import annotations

import pytest

from heartvoice.errors import ExportError
from tests.support import voice_bank


def bank_song(name: str, seconds: float = voice_bank.SONG_S) -> voice_bank.BankSong:
    """Return a song of the voice bank; skip the test if its packages cannot be fetched."""
    try:
        return voice_bank.song(name, seconds)
    except ExportError as error:
        pytest.skip(f"needs Kokoro's voices and FluidR3's instruments: {error}")
