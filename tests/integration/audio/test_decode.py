from __future__ import annotations

import numpy as np
import pytest

from tests.support.decoding import peak_memory, refusal
from tests.support.music import encode


@pytest.mark.parametrize("container", ["FLAC", "MP3", "OGG"])
def test_a_small_file_that_unpacks_to_minutes_is_refused_without_the_memory_for_them(container: str) -> None:
    silence = np.zeros((1, 8000 * 400), np.float32)
    data = encode(silence, 8000, container)
    assert len(data) < silence.nbytes / 10
    assert "expected at most 60 s, got 400" in refusal(data, max_s=60.0)
    assert peak_memory(data, max_s=60.0) < 8000 * 60 * 4 * 1.5
