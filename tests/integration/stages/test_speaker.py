"""The speaker stage: its front ends against the published package's, and what it makes of real speech."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from heartvoice.arrays import Array
from heartvoice.audio.dsp import kaldi_fbank
from heartvoice.config.presets import SPEAKERS, AnySpeaker, CampplusConfig, EcapaConfig, SpeakerConfig
from heartvoice.contracts.graphs import SVC_STYLE, SVC_STYLE_FRAME
from heartvoice.errors import EngineError, InvalidRequestError, RequestCancelledError
from heartvoice.evaluation.similarity import verdict
from heartvoice.export.speaker_graph import build_speaker_network
from heartvoice.models.load import random_checkpoint
from heartvoice.models.speaker import open_campplus, open_resemblyzer
from heartvoice.runtime.engines import OnnxEngine
from heartvoice.stages import speaker
from heartvoice.stages.speaker import (
    BATCH,
    HOP,
    MIN_SAMPLES,
    PARTIAL_FRAMES,
    PIECE_FRAMES,
    SpeakerStage,
    campplus_features,
    mel_power,
    partial_batches,
    partial_starts,
    speaker_batches,
    trim_pauses,
)
from tests.support import weights_files
from tests.support.cancelling import networks_until
from tests.support.graphs import engine_of
from tests.support.releases import WAVLM
from tests.support.speech import say
from tests.support.synthetic_voice import synthetic_voice

REFERENCE: dict[str, Any] = json.loads((Path(__file__).parents[2] / "assets/resemblyzer_reference.json").read_text())
CASES = REFERENCE["cases"]
FIRST = "The kettle hums and the rain keeps time on the window, while the city sleeps."
SECOND = "Seven wide rivers run down to the harbour, and every boat there has a name."
RESEMBLYZER, CAMPPLUS, ECAPA = SpeakerConfig(), CampplusConfig(), EcapaConfig()


class OneNetwork:
    """An engine as `Networks`; keeps the shapes it was given."""

    def __init__(self, engine: OnnxEngine) -> None:
        self._engine = engine
        self.shapes: list[tuple[int, ...]] = []

    def run(self, name: str, inputs: Mapping[str, Array], outputs: Sequence[str] | None = None) -> dict[str, Array]:
        assert name == "speaker_network"
        self.shapes.append(inputs["features"].shape)
        return self._engine.run(inputs, outputs)


class FakeNetwork:
    """Each row's embedding is a fixed projection of its mean frame."""

    def __init__(self, sizes: AnySpeaker, scale: float = 1.0) -> None:
        self._matrix = np.random.default_rng(0).random((sizes.n_bands, sizes.embedding)).astype(np.float32) * scale
        self.shapes: list[tuple[int, ...]] = []

    def run(self, name: str, inputs: Mapping[str, Array], outputs: Sequence[str] | None = None) -> dict[str, Array]:
        features = inputs["features"]
        self.shapes.append(features.shape)
        assert features.dtype == np.float32
        return {"embedding": np.abs(features).mean(axis=1) @ self._matrix}


@pytest.fixture(scope="module")
def resemblyzer(tmp_path_factory: pytest.TempPathFactory) -> OneNetwork:
    source = open_resemblyzer(weights_files.resemblyzer())
    folder = tmp_path_factory.mktemp("resemblyzer")
    return OneNetwork(engine_of(build_speaker_network(RESEMBLYZER, source), folder))


@pytest.fixture(scope="module")
def campplus(tmp_path_factory: pytest.TempPathFactory) -> OneNetwork:
    source = open_campplus(weights_files.campplus())
    return OneNetwork(engine_of(build_speaker_network(CAMPPLUS, source), tmp_path_factory.mktemp("campplus")))


@pytest.fixture(scope="module")
def ecapa(tmp_path_factory: pytest.TempPathFactory) -> OneNetwork:
    """ECAPA, small and with random weights."""
    sizes = replace(ECAPA, channels=(16, 16, 16, 16, 24), attention_channels=8, res2net_scale=4, se_channels=8)
    graph = build_speaker_network(sizes, random_checkpoint(sizes, 0))
    return OneNetwork(engine_of(graph, tmp_path_factory.mktemp("ecapa")))


@pytest.fixture(scope="module")
def wavlm(tmp_path_factory: pytest.TempPathFactory) -> OneNetwork:
    """WavLM, small and with random weights."""
    graph = build_speaker_network(WAVLM, random_checkpoint(WAVLM, 0))
    return OneNetwork(engine_of(graph, tmp_path_factory.mktemp("wavlm")))


def long_voice(seconds: int) -> np.ndarray:
    """A synthetic voice, two seconds over and over."""
    audio: np.ndarray = np.resize(synthetic_voice(32_000), seconds * 16_000)
    return audio


def packages_level(audio: np.ndarray) -> np.ndarray:
    """Level of the published package: softer recordings are raised to -30 dBFS."""
    return audio * np.float32(max(1.0, 10 ** (-30 / 20) / np.sqrt(np.mean(np.square(audio)))))


def with_pauses(voice: str = "en", pause_s: float = 3.0, noise_db: float | None = None) -> np.ndarray:
    """Speech between pauses."""
    pause = np.zeros(round(pause_s * 16_000), np.float32)
    audio: np.ndarray = np.concatenate([pause, say(FIRST, voice), pause, say(SECOND, voice), pause])
    if noise_db is not None:
        noise = np.random.default_rng(0).standard_normal(len(audio)) * 10 ** (noise_db / 20)
        audio = audio + noise.astype(np.float32)
    return audio


# ----------------------------------------------------------------------------------- the package's own reference values


def test_mel_frames_are_the_packages() -> None:
    expected = REFERENCE["mel"]
    mel = mel_power(synthetic_voice(expected["n_samples"]), RESEMBLYZER.n_bands)
    assert list(mel.shape) == expected["shape"]
    for index, frame in expected["frames"].items():
        np.testing.assert_allclose(mel[int(index)], frame, rtol=2e-4, atol=1e-7)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['n_samples']} samples")
def test_partials_and_level_are_the_packages(case: dict[str, Any]) -> None:
    audio = synthetic_voice(case["n_samples"], level=case["level"])
    assert partial_starts(len(audio)) == case["partial_starts"]
    assert float(np.sqrt(np.mean(np.square(packages_level(audio))))) == pytest.approx(case["rms"], rel=1e-4)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['n_samples']} samples")
def test_embeddings_are_the_packages(case: dict[str, Any], resemblyzer: OneNetwork) -> None:
    """Untrimmed: of pauses the package judges by another detector."""
    audio = packages_level(synthetic_voice(case["n_samples"], level=case["level"]))
    batches = partial_batches(audio, RESEMBLYZER)
    rows = np.concatenate([resemblyzer.run("speaker_network", {"features": batch})["embedding"] for batch in batches])
    mean = rows.mean(axis=0)
    np.testing.assert_allclose(mean / np.linalg.norm(mean), case["embedding"], atol=2e-5)


# ---------------------------------------------------------------------------------------------------------- real voices


def test_one_voice_is_the_same_and_another_is_not_with_resemblyzer(resemblyzer: OneNetwork) -> None:
    stage = SpeakerStage(resemblyzer, RESEMBLYZER)
    one, again, other = stage.embed(say(FIRST)), stage.embed(say(SECOND)), stage.embed(say(SECOND, "en+f3"))
    assert one.shape == (RESEMBLYZER.embedding,)
    assert one.dtype == np.float32
    assert float(np.linalg.norm(one)) == pytest.approx(1, abs=1e-5)
    assert verdict("resemblyzer", float(one @ again), 4.0) == "same"
    assert one @ other < one @ again - 0.1


def test_one_voice_is_the_same_and_another_is_not_with_campplus(campplus: OneNetwork) -> None:
    stage = SpeakerStage(campplus, CAMPPLUS)
    one, again, other = stage.embed(say(FIRST)), stage.embed(say(SECOND)), stage.embed(say(SECOND, "en+f3"))
    assert verdict("campplus", float(one @ again), 4.0) == "same"
    assert verdict("campplus", float(one @ other), 4.0) == "different"
    raw = stage.embed_raw(say(FIRST))
    np.testing.assert_allclose(raw / np.linalg.norm(raw), one, atol=1e-6)
    assert 5 < np.linalg.norm(raw) < 30


@pytest.mark.parametrize("noise_db", [None, -60.0, -50.0])
def test_pauses_change_little(noise_db: float | None, resemblyzer: OneNetwork) -> None:
    stage = SpeakerStage(resemblyzer, RESEMBLYZER)
    dense = stage.embed(np.concatenate([say(FIRST), say(SECOND)]))
    assert dense @ stage.embed(with_pauses(noise_db=noise_db)) > 0.98


@pytest.mark.parametrize("case", [case for case in CASES if case["rms"] < 0.05], ids=lambda case: f"{case['rms']:.3f}")
def test_a_voice_of_ordinary_level_has_the_packages_vector(case: dict[str, Any], resemblyzer: OneNetwork) -> None:
    audio = synthetic_voice(case["n_samples"], level=case["level"])
    assert SpeakerStage(resemblyzer, RESEMBLYZER).embed(audio) @ np.array(case["embedding"]) > 0.99


@pytest.mark.parametrize("network", ["resemblyzer", "campplus", "ecapa", "wavlm"])
def test_neither_gain_nor_an_offset_moves_a_vector(network: str, request: pytest.FixtureRequest) -> None:
    stage = SpeakerStage(request.getfixturevalue(network), SPEAKERS[network])
    audio = with_pauses(pause_s=0.5, noise_db=-55.0)
    whole = stage.embed(audio)
    for gain_db, offset in ((-20, 0.0), (-48, 0.0), (12, 0.0), (0, 0.1), (-40, 0.01), (-20, -0.5)):
        assert whole @ stage.embed(audio * np.float32(10 ** (gain_db / 20)) + np.float32(offset)) > 0.999


# ------------------------------------------------------------------------------------------------------------ the parts


def test_pauses_are_cut_and_speech_is_kept() -> None:
    audio = with_pauses(pause_s=3.0)
    spoken = len(say(FIRST)) + len(say(SECOND))
    assert 0.9 * spoken < len(trim_pauses(audio)) < spoken + 4 * 480 * 8


def test_speech_without_pauses_is_kept() -> None:
    audio = say(FIRST)
    assert len(trim_pauses(audio)) > 0.95 * len(audio)


def test_steady_noise_is_kept_whole() -> None:
    noise = np.random.default_rng(0).standard_normal(48_000).astype(np.float32) * np.float32(0.1)
    assert len(trim_pauses(noise)) == 48_000


def test_a_blip_is_not_trimmed_to_nothing() -> None:
    audio = np.zeros(48_000, np.float32)
    audio[24_000:24_480] = 0.3
    assert len(trim_pauses(audio)) > 0


def test_partials_cover_a_recording_with_overlap() -> None:
    for n_samples in range(1600, 200_000, 7001):
        starts = partial_starts(n_samples)
        assert starts[0] == 0
        end = (starts[-1] + PARTIAL_FRAMES) * HOP
        assert end >= n_samples - 0.75 * PARTIAL_FRAMES * HOP


def test_mel_in_blocks_is_mel_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    audio = synthetic_voice(50_000)
    whole = mel_power(audio, 40)
    monkeypatch.setattr(speaker, "_MEL_BLOCK", 37)
    np.testing.assert_array_equal(mel_power(audio, 40), whole)


# ----------------------------------------------------------------------------------------------------------- the bounds


def test_long_recordings_go_in_bounded_batches() -> None:
    network = FakeNetwork(RESEMBLYZER)
    SpeakerStage(network, RESEMBLYZER).embed(long_voice(120))
    assert len(network.shapes) > 5
    assert all(shape[0] <= BATCH and shape[1:] == (PARTIAL_FRAMES, RESEMBLYZER.n_bands) for shape in network.shapes)


def test_the_batch_size_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    audio = long_voice(20)
    stage = SpeakerStage(FakeNetwork(RESEMBLYZER), RESEMBLYZER)
    together = stage.embed(audio)
    monkeypatch.setattr(speaker, "BATCH", 3)
    np.testing.assert_allclose(stage.embed(audio), together, atol=1e-6)


def test_campplus_features_have_no_mean_over_time() -> None:
    audio = say(FIRST)
    (features,) = campplus_features(audio, 80)
    np.testing.assert_allclose(features.mean(axis=0), 0, atol=1e-4)
    fbank = kaldi_fbank(audio, 16_000, 80)
    np.testing.assert_allclose(features, fbank - fbank.mean(axis=0), atol=1e-4)


def test_the_style_encoder_hears_up_to_25_s_at_once() -> None:
    class Style(FakeNetwork):
        def run(self, name: str, inputs: Mapping[str, Array], outputs: Sequence[str] | None = None) -> dict[str, Array]:
            assert name == SVC_STYLE.name
            return super().run(name, inputs, outputs)

    network = Style(CAMPPLUS)
    stage = SpeakerStage(network, CAMPPLUS, network=SVC_STYLE.name)
    stage.embed(long_voice(25))
    stage.embed(long_voice(26))
    assert [shape[1] for shape in network.shapes] == [SVC_STYLE_FRAME.max, 1298, 1298]


def test_ecapa_hears_up_to_a_minute_at_once_and_both_ends_of_it() -> None:
    network = FakeNetwork(ECAPA)
    stage = SpeakerStage(network, ECAPA)
    longest = PIECE_FRAMES * HOP - 1
    stage.embed(long_voice(60)[:longest])
    stage.embed(long_voice(60))
    assert [shape[1] for shape in network.shapes] == [PIECE_FRAMES, PIECE_FRAMES // 2 + 1, PIECE_FRAMES // 2 + 1]


@pytest.mark.parametrize("normalise", [False, True])
def test_wavlm_hears_samples_in_equal_parts_of_at_most_ten_seconds(normalise: bool) -> None:
    sizes = replace(WAVLM, do_normalize=normalise)
    audio = long_voice(24)
    parts = list(speaker_batches(audio, audio, sizes))
    assert [part.shape for part in parts] == [(1, 128_000, 1)] * 3
    for part in parts:
        assert abs(float(part.mean())) < (1e-6 if normalise else 0.01)
        assert float(part.std()) == pytest.approx(1.0 if normalise else 0.1, rel=1e-5 if normalise else 0.1)


def test_wavlm_refuses_what_its_pooling_cannot_hear() -> None:
    with pytest.raises(InvalidRequestError, match=r"at least 5200 samples at 16000 Hz, got \[5199\]"):
        SpeakerStage(FakeNetwork(WAVLM), WAVLM).embed(long_voice(1)[:5199])


@pytest.mark.parametrize(
    ("sizes", "n_frames"), [(RESEMBLYZER, PARTIAL_FRAMES), (CAMPPLUS, 8), (ECAPA, 11)], ids=lambda value: str(value)[:9]
)
def test_the_shortest_recording_is_heard(sizes: AnySpeaker, n_frames: int) -> None:
    network = FakeNetwork(sizes)
    embedding = SpeakerStage(network, sizes).embed(synthetic_voice(MIN_SAMPLES, level=0.1))
    assert np.isfinite(embedding).all()
    assert network.shapes[0][1] == n_frames


# ------------------------------------------------------------------------------------------------------------- the ends


@pytest.mark.parametrize(
    ("audio", "complaint"),
    [
        (np.zeros(48_000, np.float32), "silence"),
        (np.full(48_000, 0.25, np.float32), "silence"),
        (np.full(48_000, np.nan, np.float32), "NaN or Inf"),
        (synthetic_voice(MIN_SAMPLES - 1), "at least 1600 samples"),
        (synthetic_voice(32_000).reshape(2, -1), r"got \[2, 16000\]"),
    ],
    ids=["zeros", "a constant", "NaN", "too short", "stereo"],
)
def test_what_holds_no_voice_is_refused_before_the_network(audio: np.ndarray, complaint: str) -> None:
    network = FakeNetwork(RESEMBLYZER)
    with pytest.raises(InvalidRequestError, match=f"audio: .*{complaint}"):
        SpeakerStage(network, RESEMBLYZER).embed(audio)
    assert not network.shapes


def test_a_cancelled_job_stops_before_the_next_call() -> None:
    network = FakeNetwork(RESEMBLYZER)
    stage = SpeakerStage(networks_until(network, lambda: len(network.shapes) == 2), RESEMBLYZER)
    with pytest.raises(RequestCancelledError):
        stage.embed(long_voice(120))
    assert len(network.shapes) == 2


def test_a_vector_without_length_is_the_engines_fault() -> None:
    with pytest.raises(EngineError, match="length 0"):
        SpeakerStage(FakeNetwork(RESEMBLYZER, scale=0.0), RESEMBLYZER).embed(synthetic_voice(16_000))


def test_campplus_hears_up_to_a_minute_at_once_and_equal_parts_of_more() -> None:
    network = FakeNetwork(CAMPPLUS)
    stage = SpeakerStage(network, CAMPPLUS)
    stage.embed(long_voice(PIECE_FRAMES * HOP // 16_000))
    stage.embed(long_voice(150))
    lengths = [shape[1] for shape in network.shapes]
    assert lengths == [PIECE_FRAMES - 2, 4998, 4998, 4998]
    assert max(lengths) <= PIECE_FRAMES
