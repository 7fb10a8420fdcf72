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


def test_processes_of_a_server_import_scipy_with_its_first_use() -> None:
    rooms = ", ".join(f"heartvoice.pipeline.{name}" for name in ("in_process", "song_with_voice", "cover"))
    code = f"import sys, {rooms}; print([name for name in sys.modules if name.startswith('scipy')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
