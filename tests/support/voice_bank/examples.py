"""Makes the example voice and the example recording that the package carries, out of the voice bank.

    python -m tests.support.voice_bank.examples --write

Without --write, says whether this machine makes the same bytes. Kokoro's arithmetic is of 8 bits and rounds otherwise
on CPUs of other kinds: there the files differ, and are no better or worse.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

import heartvoice
from tests.support.music import Samples
from tests.support.voice_bank import band
from tests.support.voice_bank.songs import PEAK_DBTP, RATE_HZ, SONGS, song, spoken
from train.voices import kokoro

FOLDER = Path(heartvoice.__file__).parent / "examples"
VOICE, RECORDING, NOTICE = (FOLDER / name for name in ("voice.flac", "recording.flac", "NOTICE"))
SPEAKER = "am_michael"
SONG, SONG_S = "harbour", 16.5
RECORDING_DBTP = -6.0
_PAUSE_S = 0.3
_VOICE_PEAK = 0.5
HEADER = """\
The example voice and the example recording of heartvoice

No person was recorded: all voices are synthetic. Made by tests/support/voice_bank/examples.py; sha256:

"""


def make_voice() -> bytes:
    """Return a reference of about 15 s as FLAC: one voice speaks three sentences, 24 kHz."""
    pause = np.zeros(round(_PAUSE_S * kokoro.RATE_HZ), np.float32)
    audio = np.concatenate([part for index in range(3) for part in (spoken("reference", index, SPEAKER), pause)])
    return _flac(audio * (_VOICE_PEAK / np.abs(audio).max()), kokoro.RATE_HZ)


def make_recording() -> bytes:
    """Return a song of another voice as FLAC: 16.5 s, 44.1 kHz, stereo, true peak -6 dBTP."""
    return _flac(song(SONG, SONG_S).mix.T * 10 ** ((RECORDING_DBTP - PEAK_DBTP) / 20), RATE_HZ)


def stems() -> tuple[Samples, Samples]:
    """Return the recording's vocals and instrumental, float32 [2, N] each at 44.1 kHz.

    The band is played again: it has no 8-bit arithmetic and is the same on every machine. Its level is that of the
    recording's beginning, where nobody sings.

    Raises:
        ExportError: the sound font cannot be fetched.
    """
    recording = soundfile.read(RECORDING, dtype="float32", always_2d=True)[0].T
    played = band.play(SONGS[SONG].style, SONG_S)
    intro = slice(0, round(3 * SONGS[SONG].style.eighth_s * RATE_HZ))
    instrumental = played * np.float32(
        _dot(recording[:, intro], played[:, intro]) / _dot(played[:, intro], played[:, intro])
    )
    return recording - instrumental, instrumental


def _dot(one: Samples, other: Samples) -> float:
    return float(np.vdot(one.astype(np.float64), other.astype(np.float64)))


def _flac(audio: NDArray[np.floating], rate_hz: int) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, audio, rate_hz, format="FLAC", subtype="PCM_16", compression_level=1.0)
    return file.getvalue()


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the files, or compare them with what this machine makes; return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args(arguments)
    made = {VOICE: make_voice(), RECORDING: make_recording()}
    if options.write:
        for path, content in made.items():
            path.write_bytes(content)
        hashes = "".join(f"{sha256(content).hexdigest()}  {path.name}\n" for path, content in made.items())
        NOTICE.write_text(HEADER + hashes + "\n" + NOTICE.read_text().split("\n\n", 3)[3])
    for path, content in made.items():
        print(
            f"{path.name}: {len(content):,} bytes, {'as committed' if path.read_bytes() == content else 'OTHER BYTES'}"
        )
    return int(any(path.read_bytes() != content for path, content in made.items()))


if __name__ == "__main__":
    sys.exit(main())
