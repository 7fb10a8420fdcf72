#!/usr/bin/env bash
# A valid MP3 of variable bit rate without a Xing header: libsndfile reads only the beginning.
#
# Expected: all samples, as many as the stream's frames hold (players decode it to its end).
# Seen with soundfile 0.14.0 (libsndfile 1.2.2): 609,608 of 2,646,000 samples. It estimates the length from the first frames'
# bit rate, and reading stops at the estimate, without an error. Count the frames yourself if the length matters.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check numpy==1.26.4 soundfile==0.14.0
cd "$folder"
venv/bin/python - <<'PY'
import io
import sys

import numpy as np
import soundfile

RATE = 44_100
KBITS = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)  # MPEG 1, layer III


def frame_bytes(header):
    return 144 * KBITS[header[2] >> 4] * 1000 // (44_100, 48_000, 32_000)[header[2] >> 2 & 3] + (header[2] >> 1 & 1)


time = np.arange(50 * RATE) / RATE
soft, loud = 0.01 * np.sin(2 * np.pi * 200 * time), 0.3 * np.random.default_rng(0).standard_normal(10 * RATE)
file = io.BytesIO()
soundfile.write(file, np.concatenate([soft, loud]), RATE, format="MP3", bitrate_mode="VARIABLE", compression_level=0.5)
whole = file.getvalue()
stream = whole[frame_bytes(whole) :]  # the first frame is the Xing header; streams and cut files have none
frames, at = 0, 0
while at + 4 <= len(stream) and stream[at] == 0xFF:
    frames, at = frames + 1, at + frame_bytes(stream[at:])
read = len(soundfile.read(io.BytesIO(stream))[0])
print("soundfile", soundfile.__version__, "libsndfile", soundfile.__libsndfile_version__)
print(f"with its Xing header: {len(soundfile.read(io.BytesIO(whole))[0]):,} samples read")
print(f"without: the stream's {frames} frames hold {frames * 1152:,} samples, {read:,} are read")
sys.exit(not read < frames * 1152 / 2)
PY
