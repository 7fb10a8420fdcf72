"""A song that cannot be made is refused before it waits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from heartvoice.config.presets import PRESETS
from heartvoice.contracts.constants import N_CODEBOOKS
from heartvoice.errors import CheckpointError, InvalidRequestError
from heartvoice.export.tokenizer_file import byte_tokenizer
from heartvoice.pipeline.admission import SongAdmission
from heartvoice.pipeline.song_request import SongRequest
from tests.fakes.networks import text, tiny
from train.demo import words
from train.demo.prompt import generation_ids, tokenizer_json

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


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> SongAdmission:
    path = tmp_path_factory.mktemp("demo") / "tokenizer.json"
    path.write_text(tokenizer_json())
    return SongAdmission(replace(PRESETS["demo"], ids=generation_ids()), path)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"lyrics": "the river of Jane", "unknown_words": "refuse"}, r"got Jane; replace them, or choose"),
        ({"lyrics": "Jane", "unknown_words": "skip"}, "got none that can be sung: Jane"),
        ({"lyrics": "川"}, "got none that can be sung: 川"),
    ],
)
def test_a_closed_vocabulary_refuses_what_it_cannot_sing(
    demo: SongAdmission, inputs: dict[str, str], message: str
) -> None:
    with pytest.raises(InvalidRequestError, match=f"^lyrics: .*{message}"):
        demo.check({name: text(value) for name, value in inputs.items()})


def test_a_song_tells_what_it_sings_instead(demo: SongAdmission) -> None:
    inputs = {"lyrics": text("[Verse 2]\nThe rivers of Jane"), "tags": text("pop")}
    demo.check(inputs)
    song = SongRequest.from_inputs(inputs, TINY, demo.vocabulary)
    assert song.lm is not None
    assert song.lm.lyrics == "[verse]\nthe river of dance"
    assert song.replaced == {"rivers": "river", "Jane": "dance"}
    assert [warning.split(":")[1] for warning in song.warnings] == [
        " not among the section marks that the model's publisher recommends",
        f" not in the model's vocabulary of {len(words.phonemes())} words",
    ]
    again = SongRequest.from_inputs(song.to_inputs(), TINY, demo.vocabulary)
    assert again.lm is not None
    assert (again.lm.lyrics, again.replaced, again.warnings) == (song.lm.lyrics, {}, ())


@pytest.mark.parametrize("inputs", [{"tags": "pop"}, {"lyrics": "[intro]"}, {"lyrics": "любовь"}])
def test_songs_without_words_and_open_vocabularies_are_as_they_were(
    demo: SongAdmission, admission: SongAdmission, inputs: dict[str, str]
) -> None:
    tensors = {name: text(value) for name, value in inputs.items()}
    admission.check(tensors)
    assert admission.vocabulary is None
    assert SongRequest.from_inputs(tensors, TINY, None).replaced is None
    if inputs != {"lyrics": "любовь"}:
        demo.check(tensors)
