"""What the quality report says of quantised weights, and what the gate refuses."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import pytest

from heartvoice.errors import ExportError
from heartvoice.export.heartmula_ort import build_heartmula_ort
from heartvoice.export.quantize import Quantization
from heartvoice.export.quantize_quality import (
    MAX_KL_NATS,
    BookQuality,
    Songs,
    check_quality,
    compare_logits,
    fixed_prompts,
    lyric_error_rates,
    measure_quality,
    summary,
)
from heartvoice.keyed_random import normal
from heartvoice.models.load import random_checkpoint
from heartvoice.runtime.engines import OnnxEngine
from tests.support.graphs import TINY, engine_of

EngineOf = Callable[[str], OnnxEngine]
GOOD = BookQuality(snr_db=30.0, kl_nats=0.001, agreement=0.98)


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> EngineOf:
    @lru_cache
    def engine(quantize: str) -> OnnxEngine:
        graph = build_heartmula_ort(TINY, random_checkpoint(TINY.lm, 3), Quantization.parse(quantize), taught=True)
        return engine_of(graph, tmp_path_factory.mktemp("taught"))

    return engine


def test_a_graph_is_as_good_as_itself(taught: EngineOf) -> None:
    for book in measure_quality(taught("none"), taught("none"), TINY, 3):
        assert (book.snr_db, book.agreement) == (math.inf, 1.0)
        assert book.kl_nats == 0


def test_eight_bits_pass_and_four_bits_of_random_weights_do_not(taught: EngineOf) -> None:
    eight, four = (measure_quality(taught("none"), taught(bits), TINY, 4) for bits in ("int8", "int4"))
    check_quality(eight, "int8")
    assert min(book.snr_db for book in eight) > 20
    assert min(book.agreement for book in eight) > 0.8
    assert max(book.snr_db for book in four) < min(book.snr_db for book in eight)
    with pytest.raises(ExportError, match=r"int4 weights change what is drawn by more than 0\.05 nats: codebook 0 0\."):
        check_quality(four, "int4")


def test_quantising_the_depth_decoder_leaves_the_first_codebook_as_it_is(taught: EngineOf) -> None:
    first, *others = measure_quality(taught("none"), taught("depth-int8"), TINY, 3)
    assert first.snr_db == math.inf
    assert all(20 < book.snr_db < 60 for book in others)


def test_numbers_are_those_of_their_definitions() -> None:
    wanted = np.log(np.array([[0.5, 0.25, 0.25], [0.2, 0.2, 0.6]]))
    got = np.log(np.array([[0.25, 0.5, 0.25], [0.2, 0.2, 0.6]])) + 3.0  # a shift of all changes nothing
    book = compare_logits(wanted, got)
    assert book.kl_nats == pytest.approx(0.5 * (0.25 * math.log(2)))
    assert book.agreement == 0.5
    centred = wanted - wanted.mean(axis=1, keepdims=True)
    error = (math.log(2) ** 2) * 2
    assert book.snr_db == pytest.approx(10 * math.log10((centred**2).sum() / error))


@pytest.mark.parametrize("kl_nats", [MAX_KL_NATS * 1.01, math.nan])
def test_one_bad_codebook_is_refused_by_number(kl_nats: float) -> None:
    check_quality((replace(GOOD, kl_nats=MAX_KL_NATS),) * 8, "int4")
    with pytest.raises(ExportError, match=r"codebook 5 (0\.05|nan); choose more bits or fewer parts"):
        check_quality((GOOD,) * 5 + (replace(GOOD, kl_nats=kl_nats),) + (GOOD,) * 2, "int4")


def test_summary_is_rounded() -> None:
    book = BookQuality(snr_db=31.4159, kl_nats=0.00123456, agreement=0.98765)
    (entry,) = summary((book,))["codebooks"]
    assert entry == {"snr_db": 31, "kl_nats": 0.0012, "agreement": 0.99}
    assert summary((replace(book, snr_db=math.inf),))["codebooks"][0]["snr_db"] == 999


def test_lyrics_are_scored_by_whoever_can_hear(taught: EngineOf) -> None:
    heard: list[tuple[tuple[int, ...], str]] = []

    def scorer(codes: npt.NDArray[np.int32], lyrics: str) -> float:
        heard.append((codes.shape, lyrics))
        assert codes.dtype == np.int32
        assert codes.max() < TINY.ids.audio_eos_id
        return len(heard) / 10

    songs = list(zip(fixed_prompts(TINY)[:2], ("la la", "oh"), strict=True))
    engines = {"float32": taught("none"), "int8": taught("int8")}
    rates = lyric_error_rates(engines, TINY, songs, scorer, n_frames=5)
    assert rates == {"float32": pytest.approx(0.15), "int8": pytest.approx(0.35)}
    assert [lyrics for _, lyrics in heard] == ["la la", "oh"] * 2
    assert all(shape[0] == 8 and shape[1] <= 5 for shape, _ in heard)


def test_a_song_that_ends_is_scored_up_to_its_end(taught: EngineOf, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = iter([3, 4, TINY.ids.audio_eos_id, 5])

    def next_frame(self: Songs) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        return np.full((1, 8), next(frames)), normal(0, "unused", 0, (1,))

    monkeypatch.setattr(Songs, "next_frame", next_frame)
    scored: list[npt.NDArray[np.int32]] = []
    songs = [(fixed_prompts(TINY)[0], "la")]

    def scorer(codes: npt.NDArray[np.int32], lyrics: str) -> float:
        scored.append(codes)
        return 0.0

    lyric_error_rates({"one": taught("none")}, TINY, songs, scorer, n_frames=4)
    assert scored[0].tolist() == [[3, 4]] * 8
