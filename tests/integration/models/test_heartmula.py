"""HeartMuLa's names, batches, padding, and the faults and quirks of its reference."""

from __future__ import annotations

import torch

from heartvoice import keyed_random
from heartvoice.models.heartmula import StepOutputs
from heartvoice.models.llama import KVCache
from tests.unit.models.test_heartmula import BOOKS, TINY, _inference, advance, the_songs, write  # noqa: F401


def test_songs_in_one_batch_at_different_positions_equal_songs_alone() -> None:
    """Song 0 starts, song 1 joins a step later, song 2 two steps later, its prompt beside their frames."""
    alone: list[list[StepOutputs]] = []
    for song in the_songs():
        cache = KVCache(TINY.lm.backbone, len(song.rows), 40)
        alone.append([advance(cache, [song]) for _ in range(6)])
    together = the_songs()
    for song, rows in zip(together, [(0, 1), (2,), (3, 4)], strict=True):
        song.rows = rows
    cache = KVCache(TINY.lm.backbone, 5, 40)
    for step in range(6):
        present = together[: step + 1]
        outputs = advance(cache, present)
        for index in range(len(present)):
            expected = alone[index][step - index]
            torch.testing.assert_close(outputs.codes[index], expected.codes[0], rtol=0, atol=0)
            torch.testing.assert_close(outputs.logits[index], expected.logits[0], rtol=0, atol=1e-4)


def test_same_seed_same_song_and_another_seed_another() -> None:
    def song(seed: int) -> list[list[int]]:
        frames: list[list[int]] = write(
            uniform=lambda frame: keyed_random.uniform(seed, "lm", frame, (BOOKS,))
        ).tolist()
        return frames

    assert song(3) == song(3)
    assert song(3) != song(4)
