"""Which errors mean that the machine has no room, and what a caller is told then."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from heartvoice import shm_regions
from heartvoice.errors import ModelUnavailableError
from heartvoice.resource_errors import as_resource_error
from heartvoice.serving.workarounds.response_space import check_shared_memory, payload_bytes

REGION = "heartvoice_1_2_x_0f9d1a33"
FULL = (
    f"Failed to increase the shared memory pool size for key '{REGION}' to 1048576 bytes. If you are running Triton "
    "inside docker, use '--shm-size' flag to control the shared memory region size. Error: No space left on device"
)


@pytest.mark.parametrize(
    ("error", "what"),
    [
        (MemoryError(), "memory"),
        ("onnxruntime failed: bad allocation", "memory"),
        ("onnxruntime failed: std::bad_alloc", "memory"),
        (RuntimeError("can't start new thread"), "memory"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "memory"),
        (OSError(errno.ENOSPC, "No space left on device"), "space for temporary files"),
        (OSError(errno.EFBIG, "File too large"), "space for temporary files"),
        (OSError(errno.EDQUOT, "Quota exceeded"), "space for temporary files"),
        (FULL, "shared memory"),
    ],
)
def test_a_shortage_is_told_in_words_and_may_be_tried_again(error: BaseException | str, what: str) -> None:
    found = as_resource_error("svc", error)
    assert found is not None
    assert found.wire() == f"UNAVAILABLE: svc: the server has run out of {what}; try again later"
    assert REGION not in str(found), "a region's name is nobody's business"


@pytest.mark.parametrize("error", [ValueError("x"), OSError(errno.EACCES, "Permission denied"), "shared memory"])
def test_other_failures_are_no_shortage(error: BaseException | str) -> None:
    assert as_resource_error("svc", error) is None


def test_a_payload_without_room_is_refused_before_it_is_sent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(shm_regions, "SHM", tmp_path)
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_bavail=2**10, f_frsize=2**10))
    check_shared_memory("svc", 50_000)
    with pytest.raises(ModelUnavailableError, match="svc: the server has run out of shared memory"):
        check_shared_memory("svc", 500_000)
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_bavail=2**11, f_frsize=2**10))
    check_shared_memory("svc", 500_000)


def test_sizes_of_payloads() -> None:
    assert payload_bytes(np.zeros((2, 3), np.float32)) == 24
    assert payload_bytes("abc") == payload_bytes(b"abc") == 3
