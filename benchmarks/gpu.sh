#!/usr/bin/env bash
# The GPU benchmark in a bare environment: torch, numpy and this checkout. Without a GPU it is a dry run on the CPU.
set -euo pipefail
cd "$(dirname "$0")/.."
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
nvidia-smi || echo "no nvidia-smi"
exec timeout --signal=INT "${LIMIT_S:-590}" "${PYTHON:-python3}" -m benchmarks.gpu "$@"
