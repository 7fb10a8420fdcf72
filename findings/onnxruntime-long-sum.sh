#!/usr/bin/env bash
# ReduceSumSquare over a long float32 axis: onnxruntime's error grows with the length, numpy's does not.
#
# Expected: both within about 1e-6 of the sum in float64, as numpy is (it adds in pairs).
# Seen with onnxruntime 1.31.1 on x86-64 (AVX2): relative error 1.5e-6 at 10,000 values, 5e-4 at a million, 1.4e-2 at ten million.
# Means and norms over whole songs need sums in two stages: blocks first, then the blocks' sums.
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

node = helper.make_node("ReduceSumSquare", ["x", "axes"], ["y"], keepdims=0)
graph = helper.make_graph(
    [node], "sum", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, "n"])],
    [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])], [onnx.numpy_helper.from_array(np.array([1]), "axes")],
)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
print("onnxruntime", onnxruntime.__version__, "numpy", np.__version__)
errors = {}
for n in (10_000, 1_000_000, 10_000_000):
    x = (0.1 * np.random.default_rng(0).standard_normal((1, n)) + 0.1).astype(np.float32)
    exact = float(np.sum(np.square(x, dtype=np.float64)))
    errors[n] = abs(float(session.run(None, {"x": x})[0][0]) / exact - 1), abs(float(np.square(x).sum(1)[0]) / exact - 1)
    print(f"{n:>10,} values: relative error of onnxruntime {errors[n][0]:.1e}, of numpy {errors[n][1]:.1e}")
sys.exit(not (errors[10_000_000][0] > 1e-3 and errors[10_000_000][1] < 1e-5))
PY
