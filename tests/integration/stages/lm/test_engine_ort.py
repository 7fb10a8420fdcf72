"""What the engine over the `ort` dialect alone does: its cache stays where it is. The rest is in test_lm_engines.py."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from heartvoice.errors import EngineError
from heartvoice.stages.lm.engine_ort import OrtEngine, position_bytes
from tests.support.lm_engine_kinds import Player, make
from tests.support.lm_songs import PRESET, REQUESTS, song


def ort(n_slots: int) -> OrtEngine:
    lm = make("ort", n_slots)
    assert isinstance(lm, OrtEngine)
    return lm


def test_cache_is_never_copied() -> None:
    lm = ort(2)
    memory = lm._step._cache["k_past_0"]
    player = Player(lm)
    player.join(0, REQUESTS[0])  # two rows
    length = len(player.songs[0].prompt.text_ids)
    before = memory.copy()
    player.step()
    changed = np.flatnonzero((memory != before).any(axis=(0, 1, 3)))
    assert changed.tolist() == [length]
    assert not memory[2:].any()


def test_memory_is_counted_in_whole_rows() -> None:
    row = PRESET.max_positions * position_bytes(PRESET.lm.backbone)
    lm = ort(3)
    assert lm.kv_limit == 6 * row
    assert lm.kv_bytes([song().prompt, song(cfg_scale=1.0).prompt]) == 3 * row
    assert lm._step._cache["v_past_2"].nbytes * 2 * PRESET.lm.backbone.num_layers == lm.kv_limit + row


def test_a_damaged_graph_is_named(tmp_path: Path) -> None:
    path = tmp_path / "heartmula_step_ort" / "1" / "model.onnx"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"no graph")
    with pytest.raises(EngineError, match=r"heartmula_step_ort: model\.onnx does not load"):
        OrtEngine(path, PRESET)


def test_a_song_of_one_row_has_the_same_keys_with_and_without_a_neighbour() -> None:
    """Not only the same codes, which sampling would forgive: bits, in four of them."""

    def keys(*others: int) -> np.ndarray:
        lm = make("ort-int4", 4)
        assert isinstance(lm, OrtEngine)
        player = Player(lm)
        for slot, index in enumerate((2, *others)):
            player.join(slot, REQUESTS[index])
        for _ in range(2):
            player.step()
        return np.stack([memory[0] for memory in lm._step._cache.values()])

    alone = keys()
    assert alone.any()
    np.testing.assert_array_equal(alone, keys(0))
    np.testing.assert_array_equal(alone, keys(3))
