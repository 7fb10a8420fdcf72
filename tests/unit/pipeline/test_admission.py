"""A song that cannot be made is refused before it waits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from heartvoice.contracts.constants import N_CODEBOOKS
from heartvoice.errors import CheckpointError, InvalidRequestError
from heartvoice.export.tokenizer_file import byte_tokenizer
from heartvoice.pipeline.admission import SongAdmission
from tests.fakes.networks import text, tiny

TINY = tiny()
LONGEST = 3584 - 3000 - 7
"""Bytes of lyrics beside 240 s: seven ids are those of the marks around empty tags and lyrics."""


@pytest.fixture(scope="module")
def admission(tmp_path_factory: pytest.TempPathFactory) -> SongAdmission:
    path = tmp_path_factory.mktemp("model") / "tokenizer.json"
    path.write_text(byte_tokenizer(TINY.lm.text_vocab_size))
    return SongAdmission(TINY, path)


def song(lyrics: str, **more: Any) -> dict[str, np.ndarray]:
    return {"lyrics": text(lyrics), "duration_s": np.array([240.0], np.float32), **more}


def test_prompt_and_song_must_fit_the_positions(admission: SongAdmission) -> None:
    admission.check(song("a" * LONGEST))
    admission.check(song("a" * LONGEST + "\n\n"))  # of the text as the model reads it
    with pytest.raises(InvalidRequestError, match=r"duration_s: prompt \(585 tokens\) .*, the limit is 3584; shorten"):
        admission.check(song("a" * (LONGEST + 1)))


def test_special_tokens_and_wrong_codes_are_refused(admission: SongAdmission) -> None:
    with pytest.raises(InvalidRequestError, match=r"lyrics: .*special tokens"):
        admission.check(song("a" * LONGEST + "</tag>"))
    codes = np.full((N_CODEBOOKS, 3), TINY.codec.codebook_size, np.int32)
    with pytest.raises(InvalidRequestError, match=r"codes: expected values in \[0, 256\), got 256 to 256"):
        admission.check({"codes": codes})
    admission.check({"codes": codes - 1})


def test_short_songs_need_no_tokenizer(tmp_path: Path) -> None:
    admission = SongAdmission(TINY, tmp_path / "none.json")
    admission.check(song("la la"))
    with pytest.raises(CheckpointError, match=r"none\.json"):
        admission.check(song("a" * LONGEST))
