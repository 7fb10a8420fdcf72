"""The client stays thin."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = (
    "torch",
    "onnx",
    "onnxruntime",
    "tokenizers",
    "jellyfish",
    "openvino",
    "tensorrt",
    "transformers",
    "pytriton",
    "scipy",
    "soxr",
)


@pytest.mark.parametrize(
    "code",
    [
        "from heartvoice.client import *",
        *(
            f"from heartvoice.cli.main import app\ntry: app(['{command}', '--help'])\nexcept SystemExit: pass"
            for command in ("song", "cover", "separate", "similarity")
        ),
    ],
)
def test_the_client_imports_nothing_heavy(code: str) -> None:
    code += f"\nimport sys\nprint([name for name in {HEAVY} if name in sys.modules], file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
