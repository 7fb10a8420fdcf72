"""The memory that loading takes."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from heartvoice.config.presets import HeartMuLaConfig, TransformerConfig
from heartvoice.models.load import (
    manifest,
)
from tests.integration.models.test_load import raw

_MEASURE = """
import os
import sys
from heartvoice.models.load import Checkpoint, load_network
from heartvoice.config.presets import HeartMuLaConfig, TransformerConfig
import torch
import heartvoice.models.heartmula

def status(key):
    for line in open("/proc/self/status"):
        if line.startswith(key):
            return int(line.split()[1]) * 1024

small, large = (
    HeartMuLaConfig(**eval(text, {"TransformerConfig": TransformerConfig})) for text in sys.argv[1:3]
)
for folder, dtype in zip(sys.argv[3::2], sys.argv[4::2]):
    child = os.fork()  # each case has a fresh peak
    if child:
        assert os.waitpid(child, 0)[1] == 0
        continue
    # A fork drops mapped files; the code's own pages come back with the first load, as many as the page cache holds.
    load_network(small, Checkpoint.open(folder + "/small"), dtype=getattr(torch, dtype))
    before = status("VmRSS")
    network = load_network(large, Checkpoint.open(folder), dtype=getattr(torch, dtype))
    held = sum(t.numel() * t.element_size() for t in network.state_dict().values())
    print(held, status("VmHWM") - before, flush=True)
    os._exit(0)
"""


_LARGE = {
    "backbone": TransformerConfig(4, 8, 4, 1024, 2560, 64), "decoder": TransformerConfig(1, 8, 4, 1024, 2560, 8),
    "text_vocab_size": 2000, "audio_vocab_size": 261, "muq_dim": 32,
}  # fmt: skip


_SMALL = _LARGE | {"backbone": TransformerConfig(1, 8, 4, 64, 64, 64), "decoder": TransformerConfig(1, 8, 4, 64, 64, 8)}


def sparse_checkpoint(path: Path, sizes: dict[str, Any], dtype: str, itemsize: int) -> None:
    """Write zeros; the file takes no room on disk."""
    header, end = {}, 0
    for name, shape in manifest(HeartMuLaConfig(**sizes)).items():
        start, end = end, end + math.prod(shape) * itemsize
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}
    with path.open("wb") as stream:
        stream.write(raw(header))
        stream.truncate(stream.tell() + end)


STORED = {"F32": (4, "float32"), "F64": (8, "float32"), "BF16": (2, "float32"), "BF16 as it is": (2, "bfloat16")}


"""Types in the file: bytes of a value, and the type that is loaded."""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads peak memory from Linux's /proc")
def test_loading_peaks_at_1_3_times_the_tensors(tmp_path: Path) -> None:
    arguments = []
    for stored, (itemsize, dtype) in STORED.items():
        folder = tmp_path / stored
        (folder / "small").mkdir(parents=True)
        for path, sizes in ((folder, _LARGE), (folder / "small", _SMALL)):
            sparse_checkpoint(path / "model.safetensors", sizes, stored.partition(" ")[0], itemsize)
        arguments += [str(folder), dtype]
    command = [sys.executable, "-c", _MEASURE, repr(_SMALL), repr(_LARGE), *arguments]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=100)
    lines = done.stdout.splitlines()
    assert len(lines) == len(STORED)
    for stored, line in zip(STORED, lines, strict=True):
        held, peak = map(int, line.split())
        assert held > 100_000_000, stored
        assert 0.5 * held < peak <= 1.3 * held, stored
