#!/usr/bin/env bash
# An embedding on torch's meta device imports torch's compiler and sympy; a linear layer there imports nothing.
#
# Expected: modules on the meta device have shapes and no values, so building them is the cheapest way to learn a
# network's tensors, and costs no more than the module itself.
# Seen with torch 2.13.0 on a CPU: `nn.Linear` is as expected. `nn.Embedding` draws its initial values by `normal_`,
# which the meta device computes by a reference in Python, and that one's import brings in torch._dynamo, sympy and 800
# other modules: seconds for the first embedding of each process. The same embedding on the CPU imports none of them.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python=${PYTHON:-python3}
"$python" -m venv environment
environment/bin/pip install --quiet --disable-pip-version-check torch==2.13.0 numpy==1.26.4
environment/bin/python - <<'PY'
import sys
import time

import torch
from torch import nn

HEAVY = ("sympy", "torch._dynamo")


def building(kind: str, device: str) -> tuple[int, list[str]]:
    """Build a module; return how many modules that imported, and which of the heavy ones are there now."""
    before, began = len(sys.modules), time.perf_counter()
    with torch.device(device):
        getattr(nn, kind)(4, 4)
    imported, found = len(sys.modules) - before, [name for name in HEAVY if name in sys.modules]
    print(f"nn.{kind} on {device}: {time.perf_counter() - began:.2f} s, {imported} modules imported, of them {found}")
    return imported, found


print(f"torch {torch.__version__}")
assert building("Embedding", "cpu")[1] == []
assert building("Linear", "meta")[1] == []
imported, found = building("Embedding", "meta")
assert found == list(HEAVY) and imported > 500, (imported, found)
PY
