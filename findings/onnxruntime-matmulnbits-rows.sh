#!/usr/bin/env bash
# MatMulNBits with 4-bit weights: a row's product has other bits alone than among other rows.
#
# Expected: the same bits, since rows of a matrix product do not depend on one another; 8-bit weights do behave so.
# Seen with onnxruntime 1.31.1, accuracy level 4, on x86-64 (AVX2): one row alone differs by about 5e-7.
# Whoever batches requests and promises repeatable results must compute a single row twice, or use 8 bits.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check numpy==1.26.4 onnx==1.23.2 onnxruntime==1.31.1
cd "$folder"
venv/bin/python - <<'PY'
import sys

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

WIDTH, OUT, BLOCK = 512, 1536, 128


def session(bits):
    rng = np.random.default_rng(0)
    weights = rng.integers(0, 256, (OUT, WIDTH // BLOCK, BLOCK * bits // 8), dtype=np.uint8)
    scales = (0.01 * rng.random(OUT * WIDTH // BLOCK) + 0.001).astype(np.float32)
    node = helper.make_node(
        "MatMulNBits", ["x", "w", "s"], ["y"], domain="com.microsoft", K=WIDTH, N=OUT, bits=bits, block_size=BLOCK,
        accuracy_level=4,
    )
    graph = helper.make_graph(
        [node], "product", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", WIDTH])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", OUT])],
        [onnx.numpy_helper.from_array(weights, "w"), onnx.numpy_helper.from_array(scales, "s")],
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


print("onnxruntime", onnxruntime.__version__)
x = np.random.default_rng(1).standard_normal((8, WIDTH)).astype(np.float32)
differs = {}
for bits in (4, 8):
    product = session(bits)
    together, alone = product.run(None, {"x": x})[0][:1], product.run(None, {"x": x[:1]})[0]
    differs[bits] = not np.array_equal(together, alone)
    print(f"{bits} bits: row 0 alone and among 8 rows: {'differ by %.1e' % np.abs(together - alone).max() if differs[bits] else 'equal bits'}")
sys.exit(not differs[4])
PY
