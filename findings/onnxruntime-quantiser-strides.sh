#!/usr/bin/env bash
# onnxruntime 1.31.1: the block quantiser of MatMulNBits reads memory in order, whatever the array's strides are.
#
# Expected: equal arrays give equal codes, or an array that is not C-contiguous is refused.
# Seen: a Fortran-ordered copy of a weight gives other codes, without a word; what they stand for is another matrix.
# The module also imports onnx_ir, which onnxruntime's metadata does not name.
# Exits with 0 while that is so, with 1 when it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet numpy==1.26.4 onnx==1.23.2 onnxruntime==1.31.1 onnx-ir==1.1.0
"$folder/venv/bin/python" - <<'PYTHON'
import sys
from importlib.metadata import requires

import numpy as np
import onnxruntime
from onnxruntime.quantization.matmul_nbits_quantizer import DefaultWeightOnlyQuantConfig, DefaultWeightOnlyQuantizer

print("onnxruntime", onnxruntime.__version__, "numpy", np.__version__, "python", sys.version.split()[0])
weight = np.random.default_rng(0).standard_normal((64, 32)).astype(np.float32)
quantizer = DefaultWeightOnlyQuantizer(DefaultWeightOnlyQuantConfig(block_size=32, is_symmetric=True, bits=8))


def error(array):
    """Root mean square error of the weight that the codes stand for, relative to the weight."""
    codes, scales, _ = quantizer.qbits_block_quant(array)
    kept = ((codes.astype(np.float32) - 128) * scales[..., None]).reshape(32, 64).T
    return float(np.sqrt(np.square(kept - weight).mean() / np.square(weight).mean()))


in_order, strided = error(weight), error(np.asfortranarray(weight))
declared = any(line.startswith("onnx-ir") for line in requires("onnxruntime"))
print(f"relative error: C order {in_order:.4f}, Fortran order {strided:.4f}; onnx-ir declared: {declared}")
sys.exit(0 if in_order < 0.01 and strided > 0.5 and not declared else 1)
PYTHON
