"""Every Python model has an adapter class, and its `1/model.py` is the one line that imports it."""

from __future__ import annotations

import subprocess
import sys

from heartvoice.contracts.adapters import ADAPTERS, adapter_text
from heartvoice.contracts.models import MODELS

_IMPORT_ALL = """
import importlib, sys
from unittest.mock import MagicMock
sys.modules["triton_python_backend_utils"] = MagicMock()
from heartvoice.contracts.adapters import ADAPTERS, adapter_text
from heartvoice.contracts.models import MODELS
from heartvoice.serving.stage_model import StageModel
for model in ADAPTERS:
    names = {}
    exec(adapter_text(model), names)
    adapter = names["TritonPythonModel"]
    assert issubclass(adapter, StageModel) and adapter.spec is MODELS[model], model
    adapter()  # nothing abstract is left
assert "scipy.signal" not in sys.modules  # 1.3 s and 47 MB in each process
print(len(ADAPTERS))
"""


def test_python_models_have_an_adapter_and_native_graphs_none() -> None:
    assert set(ADAPTERS) == {model.name for model in MODELS.values() if model.backend == "python"}


def test_every_adapter_is_one_line_over_a_class_that_serves_its_model() -> None:
    assert all(adapter_text(model).count("\n") == 1 for model in ADAPTERS)
    done = subprocess.run([sys.executable, "-c", _IMPORT_ALL], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(len(ADAPTERS))]
