"""The voice's benchmark: what a recorder keeps and gives back, and a quick run over an exported repository."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from benchmarks import song_with_voice as benchmark
from benchmarks.song_with_voice import StageRecorder, StageReplay
from heartvoice.audio.recordings import read_voice
from heartvoice.config.presets import PRESETS
from heartvoice.contracts.messages import Codes
from heartvoice.stages.codec import CodecRequest
from heartvoice.stages.lm.request import LmRequest
from heartvoice.stages.svc.request import ConversionRequest
from tests.fakes.networks import text
from tests.support.voice_stages import Oracle, voice_inputs


class Lm:
    """Sends as many frames as it has sent requests, and counts them."""

    def __init__(self) -> None:
        self.n_sent = 0

    def write_codes(self, request: LmRequest) -> Iterator[Codes]:
        for _ in range(3):
            self.n_sent += 1
            yield np.full((8, 1), self.n_sent, np.int32)

    def decode_window(self, request: CodecRequest) -> tuple[np.ndarray, np.ndarray]:
        raise AssertionError("nobody asked for a window")


@pytest.fixture
def conversion() -> ConversionRequest:
    voice = read_voice(voice_inputs())
    return ConversionRequest(np.arange(8, dtype=np.float32), voice, voice.sha256, "me, here")


def test_answers_are_what_the_tape_heard(conversion: ConversionRequest) -> None:
    lm, oracle = Lm(), Oracle(np.zeros((2, 0), np.float32))
    recorder = StageRecorder(lm, oracle)
    request = LmRequest.from_inputs({"lyrics": text("la")}, PRESETS["tiny"])
    first = [int(codes[0, 0]) for codes in recorder.write_codes(request)]
    second = [int(codes[0, 0]) for codes in recorder.write_codes(request)]
    sung = [piece.vocals for piece in recorder.convert(conversion)]
    answers = StageReplay(recorder)
    assert [[int(codes[0, 0]) for codes in answers.write_codes(request)] for _ in range(2)] == [first, second]
    assert np.array_equal(np.concatenate([p.vocals for p in answers.convert(conversion)]), np.concatenate(sung))
    assert (lm.n_sent, oracle.n_converted) == (6, 1)
    with pytest.raises(IndexError):
        answers.write_codes(request)


def test_a_stage_alone_works_to_the_end_and_wakes_no_other(conversion: ConversionRequest) -> None:
    lm, oracle = Lm(), Oracle(np.zeros((2, 0), np.float32))
    recorder = StageRecorder(lm, oracle)
    request = LmRequest.from_inputs({"lyrics": text("la")}, PRESETS["tiny"])
    recorder.write_codes(request)
    recorder.write_codes(request)
    list(recorder.convert(conversion))
    recorder.alone("lm")
    assert (lm.n_sent, oracle.n_converted) == (12, 1)


def test_a_wave_is_not_apart_from_itself() -> None:
    wave = benchmark.vocals(2.0)
    found = benchmark.apart(wave, wave, Oracle(np.zeros((2, 0), np.float32)))
    assert (found["mel_db"], found["f0_cents"], found["both_voiced"]) == (0.0, 0.0, 1.0)
    assert found["similarity"] == pytest.approx(1.0)
    assert benchmark.apart(wave * 0.5, wave, Oracle(wave[None]))["mel_db"] > 3
