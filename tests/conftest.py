"""Settings of the whole suite."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# Tiny networks on a busy machine: a second thread costs more than it gives, and spinning starves the other processes.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny preset, exported with random weights. Not to be changed by a test."""
    from heartvoice.export.repository import export_repository
    from heartvoice.export.weights import random_weights
    from heartvoice.presets import PRESETS

    root = tmp_path_factory.mktemp("exported") / "tiny"
    export_repository(random_weights(PRESETS["tiny"], 0), root)
    return root
