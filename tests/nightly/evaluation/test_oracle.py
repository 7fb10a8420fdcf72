"""A cover whose converter cannot be better: it returns the reference's own rendition of the score.

Everything around the converter is the real pipeline, and the judges have their published weights; so this shows that a
perfect converter is seen to be one, end to end, and that others are not.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from heartvoice.audio.dsp import resample
from heartvoice.config.presets import PRESETS, htdemucs_of
from heartvoice.contracts.constants import SAMPLE_RATE_HZ, SPEECH_RATE_HZ, STEM_RATE_HZ
from heartvoice.contracts.messages import AudioChunk, Report, StemsChunk
from heartvoice.evaluation.cases import find_cases
from heartvoice.evaluation.harness import Evaluation, evaluate_case
from heartvoice.evaluation.judges import CAMPPLUS, RESEMBLYZER, Judges
from heartvoice.judges.opening import open_judges
from heartvoice.pipeline.context import JobContext
from heartvoice.pipeline.cover import run_cover
from heartvoice.pipeline.cover_request import CoverRequest
from heartvoice.stages.separation.request import SeparationRequest
from heartvoice.stages.svc.request import ConversionRequest, ConvertedChunk
from tests.fakes.networks import text
from tests.support import music, singers, weights_files

SECONDS = 16.0
IMAGE = np.array([[0.8], [0.6]], np.float32)
"""Of the singer, a little left."""
IN_TUNE_CENTS = 20.0
RISE = 0.2
"""Of Resemblyzer's cosine to the reference; 0.31 was measured."""
SIZES = htdemucs_of("tiny")


def judges() -> Judges:
    weights_files.resemblyzer()  # or the test is skipped: there is no network
    return replace(open_judges(), dnsmos=None)


@dataclass(frozen=True)
class Song:
    """What was mixed, each float32 [2, N] at 44.1 kHz."""

    vocals: np.ndarray
    band: np.ndarray
    target: np.ndarray
    """float32 [N]: the middle of the same vocals by the reference's singer."""


@pytest.fixture(scope="module")
def song() -> Song:
    singer, target = (singers.rendition(voice, SECONDS) for voice in (singers.SINGER, singers.TARGET))
    band = music.band(SECONDS)
    n = min(len(singer), len(target), band.shape[1])
    return Song(singer[None, :n] * IMAGE, band[:, :n], target[:n] * IMAGE.mean())


class Oracle:
    """Stages that know the vocals and what they shall become; a `VoiceStages`."""

    def __init__(self, song: Song, new: np.ndarray, by: Judges) -> None:
        self.song, self.new, self.by = song, new, by
        self.separated = self.converted = 0

    def separate(self, request: SeparationRequest) -> tuple[np.ndarray, np.ndarray | None]:
        start, total = self.separated, self.song.vocals.shape[1]
        self.separated = start + SIZES.stride_samples if request.more else total
        carry = np.zeros((1, 2, 1), np.float32) if request.more else None
        return self.song.vocals[None, :, start : self.separated], carry

    def convert(self, request: ConversionRequest) -> Iterator[ConvertedChunk]:
        start = self.converted
        self.converted += len(request.vocals)
        state = np.zeros(1, np.float32) if request.more else None
        yield ConvertedChunk(self.new[start : self.converted], state, {"engine": "oracle"})

    def embed(self, audio: np.ndarray) -> np.ndarray:
        return self.by.speakers[RESEMBLYZER].embed(resample(audio, STEM_RATE_HZ, SPEECH_RATE_HZ))

    def embed_style(self, audio: np.ndarray) -> np.ndarray:
        raise AssertionError("its weights count as random")

    def track_f0(self, audio: np.ndarray) -> np.ndarray:
        assert self.by.f0 is not None
        return self.by.f0.track(audio)


def covered(song: Song, new: np.ndarray, by: Judges, folder: Path, *, live: bool) -> tuple[Evaluation, dict[str, Any]]:
    """Run the cover, write all of it as a case, and evaluate that."""
    voice, mix = singers.speech(singers.TARGET), song.vocals + song.band
    request = CoverRequest.from_inputs(
        {
            "audio": mix,
            "sample_rate": np.array([STEM_RATE_HZ]),
            "voice_audio": voice[None],
            "voice_sample_rate": np.array([STEM_RATE_HZ]),
            "voice_consent": text("a synthetic voice"),
            "live": np.array([live]),
            "stems": np.array([True]),
        }
    )
    about = {"preset": "tiny", "random_weights": False, "speaker_encoder": RESEMBLYZER}
    pieces, stems, report = [], [], {}
    stages, context = Oracle(song, new, by), JobContext(about)
    for message in run_cover(request, stages, PRESETS["tiny"], context, random_networks=("svc_style",)):
        if isinstance(message, AudioChunk):
            pieces.append(message.audio)
        elif isinstance(message, StemsChunk):
            stems.append(message.stems)
        elif isinstance(message, Report):
            report = dict(message.raw)
    instrumental, vocals = np.concatenate(stems, axis=2)
    sounds = {
        "voice": (voice, STEM_RATE_HZ),
        "source": (mix, STEM_RATE_HZ),
        "result": (np.concatenate(pieces, axis=1), SAMPLE_RATE_HZ),
        "vocals_before": (song.vocals, STEM_RATE_HZ),
        "vocals_after": (vocals, SAMPLE_RATE_HZ),
        "instrumental": (instrumental, SAMPLE_RATE_HZ),
        "true_vocals": (song.vocals, STEM_RATE_HZ),
        "true_instrumental": (song.band, STEM_RATE_HZ),
    }
    for name, (audio, rate_hz) in sounds.items():
        (folder / f"{name}.wav").write_bytes(music.encode(audio, rate_hz, "WAV", "FLOAT"))
    (folder / "report.json").write_text(json.dumps(report))
    (case,) = find_cases(folder)
    return evaluate_case(case, by)[0], report


def rise(made: Evaluation) -> float:
    cosine = made.similarity[RESEMBLYZER]
    assert cosine.before is not None
    assert cosine.after is not None
    return cosine.after - cosine.before


@pytest.mark.parametrize("live", [False, True])
def test_the_references_own_singing_is_nearer_to_it_and_in_tune(song: Song, live: bool, tmp_path: Path) -> None:
    made, report = covered(song, song.target, judges(), tmp_path, live=live)
    assert rise(made) > RISE
    assert made.f0 is not None
    assert abs(100 * made.f0.shift_semitones) < IN_TUNE_CENTS
    assert made.f0.median_cents < IN_TUNE_CENTS
    assert made.f0.p90_cents < IN_TUNE_CENTS
    instrumental_db = made.separation["instrumental"].stem_db
    assert instrumental_db is not None
    assert instrumental_db > 80, "the band is untouched"
    told = report["similarity"]
    assert told["after"] - told["before"] > RISE, "the job's own report says so too"


def test_a_converter_that_changes_nothing_brings_no_likeness(song: Song, tmp_path: Path) -> None:
    made, report = covered(song, song.vocals.mean(axis=0), judges(), tmp_path, live=False)
    assert abs(rise(made)) < 0.02
    assert made.f0 is not None
    assert made.f0.median_cents < 1.0
    assert made.mel_distance_db is not None
    assert made.mel_distance_db < 1.0
    told = report["similarity"]
    assert abs(told["after"] - told["before"]) < 0.02


def test_the_right_voice_on_the_wrong_notes_is_out_of_tune(song: Song, tmp_path: Path) -> None:
    late = np.roll(song.target, STEM_RATE_HZ // 2)  # by one note
    made, _ = covered(song, late, judges(), tmp_path, live=False)
    assert rise(made) > RISE, "the voice is right"
    assert made.f0 is not None
    assert made.f0.median_cents > IN_TUNE_CENTS


def test_the_second_judge_agrees(song: Song) -> None:
    judge = open_judges(weights_files.campplus()).speakers[CAMPPLUS]
    reference, before, after = (
        judge.embed(resample(audio, STEM_RATE_HZ, SPEECH_RATE_HZ))
        for audio in (singers.speech(singers.TARGET), song.vocals.mean(axis=0), song.target)
    )
    assert reference @ after - reference @ before > RISE  # 0.36 was measured
