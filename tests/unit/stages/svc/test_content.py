"""Content features: resampling, log-mel, windows and stitching."""

from __future__ import annotations

from dataclasses import astuple
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
import soxr

from heartvoice.audio.dsp import resample
from heartvoice.config.svc import WhisperConfig
from heartvoice.errors import EngineError, InvalidRequestError, RequestCancelledError
from heartvoice.keyed_random import normal
from heartvoice.runtime.engines import OnnxEngine
from heartvoice.stages.svc.content import (
    CONTENT_WINDOW,
    content_features,
    content_windows,
    sinc_resample,
    stitch,
    whisper_log_mel,
)
from tests.support.cancelling import networks_until
from tests.support.golden_cases import GoldenFolder, assert_close, folder_params
from tests.support.svc_networks import OneOf, golden_whisper, svc_engine

RESAMPLES, WHISPERS = folder_params("seed_vc/resample"), folder_params("seed_vc/whisper_content")
TINIEST = WhisperConfig(d_model=8, encoder_layers=1, encoder_attention_heads=1, encoder_ffn_dim=8)


@lru_cache(maxsize=1)
def tiniest() -> OnnxEngine:
    return svc_engine(TINIEST)


def voice(n_samples: int, rate_hz: int = 16_000) -> np.ndarray:
    time = np.arange(n_samples) / rate_hz
    tone = np.sin(2 * np.pi * 150 * time + 20 * np.sin(2 * np.pi * 0.3 * time))
    sung: np.ndarray = 0.2 * tone + 0.02 * normal(0, "voice", 0, (n_samples,))
    return sung.astype(np.float32)


# ----------------------------------------------------------------------------------------------------------- resampling


@pytest.mark.parametrize("folder", RESAMPLES)
def test_sinc_resampling_is_the_references(folder: GoldenFolder) -> None:
    io, rates = folder.io, folder.config["sinc"]
    for given, expected in (("sinc.in_44100", "sinc.out_16000"), ("sinc.impulse_in", "sinc.impulse_out")):
        found = sinc_resample(io[given][0], rates["orig"], rates["new"])
        assert_close(found[None], io[expected], 1e-5)


@pytest.mark.parametrize("folder", RESAMPLES)
def test_the_servers_resampler_is_as_good_as_the_references(folder: GoldenFolder) -> None:
    """The reference loads other rates with soxr's HQ; the server's VHQ differs by its steeper edge alone."""
    cases = {name: io for name, io in folder.io.items() if name.startswith("soxr.in_")}
    assert cases
    for name, audio in cases.items():
        rate_hz = int(name.rpartition("_")[2])
        expected = folder.io[f"soxr.{rate_hz}_to_44100"]
        assert_close(soxr.resample(audio, rate_hz, 44_100, "HQ"), expected, 1e-5)
        assert np.linalg.norm(resample(audio, rate_hz, 44_100) - expected) < 2e-3 * np.linalg.norm(expected)


@pytest.mark.parametrize("n_samples", [1, 2, 440, 441, 442, 44_100])
def test_resampling_keeps_the_duration(n_samples: int) -> None:
    assert len(sinc_resample(np.ones(n_samples, np.float32))) == -(-n_samples * 160 // 441)


def test_long_audio_is_resampled_in_blocks_without_seams(monkeypatch: pytest.MonkeyPatch) -> None:
    audio = voice(30_000, 44_100)
    whole = sinc_resample(audio)
    monkeypatch.setattr("heartvoice.stages.svc.content._BLOCK", 7)
    assert np.abs(sinc_resample(audio) - whole).max() < 1e-6


def test_resampling_passes_the_voice_and_stops_what_would_fold() -> None:
    time = np.arange(44_100) / 44_100
    for hz, low, high in ((1000, 0.99, 1.01), (6000, 0.97, 1.01), (10_000, 0.0, 0.02)):
        tone = sinc_resample(np.sin(2 * np.pi * hz * time).astype(np.float32))
        assert low <= np.sqrt(2 * np.square(tone[200:-200]).mean()) <= high


# -------------------------------------------------------------------------------------------------------------- windows


@pytest.mark.parametrize("folder", WHISPERS)
def test_windows_are_the_references(folder: GoldenFolder) -> None:
    for n_samples, table in folder.config["chunk_tables"].items():
        windows = content_windows(int(n_samples))
        assert [[window.start, window.end] for window in windows] == table["chunks_sample_ranges"]
        assert [window.kept for window in windows] == table["frames_kept"]
        assert [window.first for window in windows] == table["first_kept_index"]
        assert sum(window.kept for window in windows) == table["total_frames"]


def test_quirk_11_a_full_last_window_costs_a_frame() -> None:
    assert astuple(content_windows(480_000)[0]) == (0, 480_000, 0, 1500)
    for n_samples in (479_999, 480_000, 480_001, 879_999, 880_000, 880_001, 1_000_000):
        full = (n_samples - 480_000) % 400_000 == 0 and n_samples >= 480_000
        kept = sum(window.kept for window in content_windows(n_samples))
        assert kept == n_samples // 320 + 1 - full


def test_quirk_11_the_floor_follows_the_loudest_moment_of_the_window() -> None:
    quiet = voice(48_000) * np.float32(1e-3)
    loud = quiet.copy()
    loud[40_000:42_000] *= 1e6
    before, after = whisper_log_mel(quiet), whisper_log_mel(loud)
    assert (after[:, :200] - before[:, :200]).max() > 0.5  # 1 s earlier, of the same samples
    assert after.max() - after.min() == pytest.approx(2.0)  # 8 decades, by 4


@pytest.mark.parametrize("folder", WHISPERS)
def test_log_mel_is_the_references(folder: GoldenFolder) -> None:
    sizes, _ = golden_whisper(folder)
    expected = folder.io["short.log_mel_first200"]
    found = whisper_log_mel(folder.io["short.wave_16k"][0], sizes.num_mel_bins)
    assert found.shape == (sizes.num_mel_bins, 3000)
    assert_close(found[:, : expected.shape[1]], expected, 1e-3)


@pytest.mark.parametrize("folder", WHISPERS)
def test_the_stage_s_content_is_the_references(folder: GoldenFolder) -> None:
    sizes, source = golden_whisper(folder)
    networks = OneOf({"content_encoder": svc_engine(sizes, source)})
    content = content_features(networks, folder.io["short.wave_16k"][0], sizes.num_mel_bins)
    assert_close(content[None], folder.io["short.content"], 1e-4)


def test_windows_of_one_call_do_not_meet() -> None:
    audio = voice(2 * CONTENT_WINDOW + 12_345)
    networks = OneOf({"content_encoder": tiniest()})
    one, several = (content_features(networks, audio, batch=batch) for batch in (1, 2))
    assert [len(inputs["log_mel"]) for _, inputs in networks.calls] == [1, 1, 1, 2, 1]
    assert np.array_equal(one, several)
    assert len(one) == len(audio) // 320 + 1


def test_stitched_frames_are_those_of_the_windows() -> None:
    windows = content_windows(976_123)
    outputs = [np.arange(1500, dtype=np.float32)[:, None] + 10_000 * index for index in range(len(windows))]
    joined = stitch(outputs, windows)[:, 0]
    assert joined[[0, 1499, 1500, 2749, 2750, 3050]].tolist() == [0, 1499, 10_250, 11_499, 20_250, 20_550]


def test_bad_audio_and_cancelling_end_the_stage() -> None:
    networks = OneOf({"content_encoder": tiniest()})
    with pytest.raises(InvalidRequestError, match="at least one sample at 16 kHz, got 0"):
        content_features(networks, np.zeros(0, np.float32))
    with pytest.raises(InvalidRequestError, match="at most 480000 samples, got 480001"):
        whisper_log_mel(np.zeros(480_001, np.float32))
    with pytest.raises(RequestCancelledError):
        content_features(networks_until(networks, lambda: True), voice(100))
    assert not networks.calls


def test_a_network_of_another_length_is_an_engine_error() -> None:
    class Short:
        def run(self, inputs: Any, outputs: Any = None) -> Any:
            return {"content": np.zeros((1, 1499, 8), np.float32)}

    with pytest.raises(EngineError, match=r"expected content \[1, 1500, D\], got \[1, 1499, 8\]"):
        content_features(OneOf({"content_encoder": Short()}), voice(100))
