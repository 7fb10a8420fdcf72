#!/usr/bin/env bash
# speechmos declares no dependency, and cannot be imported by itself.
#
# Expected: after `pip install speechmos`, `from speechmos import dnsmos` works.
# Seen with speechmos 0.0.1.1: its metadata names no requirement, pip installs it alone, and the import fails for want of librosa.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check speechmos==0.0.1.1
cd "$folder"
venv/bin/python - <<'PY'
import importlib.metadata
import sys

print("speechmos", importlib.metadata.version("speechmos"), "requires", importlib.metadata.requires("speechmos"))
try:
    from speechmos import dnsmos  # noqa: F401
except ModuleNotFoundError as error:
    print("import fails:", error)
    sys.exit(0)
sys.exit("it can be imported now")
PY
