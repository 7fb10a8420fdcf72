"""What a song accepts of an engine: codes, and an end where it may end."""

from __future__ import annotations

import numpy as np
import pytest

from heartvoice.errors import EngineError
from tests.support.lm_songs import PRESET, song

EOS, SIZE = PRESET.ids.audio_eos_id, PRESET.lm.codebook_size


def ids(changed: int, book: int = 0) -> np.ndarray:
    made = np.full(8, SIZE - 1)
    made[book] = changed
    return made


@pytest.mark.parametrize("book", [0, 7])
@pytest.mark.parametrize(("changed", "got"), [(-1, "not finite"), (SIZE, f"got {SIZE}"), (2**40, f"got {2**40}")])
def test_what_no_engine_may_draw_is_an_error_with_the_models_name(changed: int, got: str, book: int) -> None:
    wanted = song(3, min_duration_s=0.0)
    with pytest.raises(EngineError, match=f"heartmula: frame 0: .*{got}"):
        wanted.accept(ids(changed, book))
    assert wanted.n_made == 0


def test_a_song_ends_only_where_it_may() -> None:
    whole, free = song(3), song(3, min_duration_s=0.0)
    with pytest.raises(EngineError, match=rf"frame 0: expected codes in \[0, {SIZE}\), got {EOS}"):
        free.accept(ids(EOS))
    for wanted in (whole, free):
        assert wanted.accept(ids(0)) is not None
    assert free.accept(ids(EOS, 3)) is None
    assert free.finished
    with pytest.raises(EngineError, match="frame 1: expected codes"):
        whole.accept(ids(EOS, 3))
