"""The examples' synthetic singers: what the files hold, that they are accepted, in tune, and two persons."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import soundfile

from heartvoice.audio.dsp import resample
from heartvoice.audio.recordings import read_recording, read_voice
from heartvoice.config.presets import SpeakerConfig
from heartvoice.contracts.constants import SPEECH_RATE_HZ
from heartvoice.export.speaker_graph import build_speaker_network
from heartvoice.models.speaker import open_resemblyzer
from heartvoice.stages.calibration import CALIBRATIONS
from heartvoice.stages.f0 import F0_HOP, F0Stage
from heartvoice.stages.speaker import SpeakerStage
from tests.support import f0_engines, weights_files
from tests.support.graphs import engine_of

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
SHORT_S, REFERENCE_S, RECORDING_S = 3.0, 12.0, 20.0


def example(name: str) -> ModuleType:
    """A script as a module; they import each other as they do when they are run."""
    if str(EXAMPLES) not in sys.path:
        sys.path.insert(0, str(EXAMPLES))
    return importlib.import_module(name)


singer = example("singer")
make_voice, make_recording = example("make_voice"), example("make_recording")
REFERENCE_SINGER, RECORDED_SINGER = singer.SINGERS[0], make_recording.SINGER


def dbfs(audio: np.ndarray) -> float:
    return float(10 * np.log10(np.mean(np.square(audio, dtype=np.float64))))


def at_16_khz(audio: np.ndarray) -> np.ndarray:
    return resample(audio.astype(np.float32), singer.RATE_HZ, SPEECH_RATE_HZ)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `make song` takes as its voice."""
    path = tmp_path_factory.mktemp("examples") / "voice.wav"
    make_voice.main([str(path)])
    return path


def test_the_reference_is_accepted_without_a_warning(reference: Path) -> None:
    voice = read_voice({"voice": np.array([reference.read_bytes()], np.object_)})
    assert voice.warnings == ()
    assert voice.duration_s == REFERENCE_S
    assert -24 < dbfs(voice.audio44) < -16
    assert np.abs(voice.audio.audio).max() == pytest.approx(singer.PEAK, abs=1e-6)


@pytest.mark.parametrize("who", singer.SINGERS, ids=lambda who: str(who.name))
def test_every_singer_fills_the_band_without_a_click(who: Any) -> None:
    audio = singer.sing(who, singer.VOCALISE, SHORT_S)
    assert len(audio) == SHORT_S * singer.RATE_HZ
    assert np.abs(audio).max() == pytest.approx(singer.PEAK)
    assert dbfs(audio) > -26  # one click that takes the whole peak leaves no level for the voice
    voice = read_voice({"voice_audio": audio[None].astype(np.float32), "voice_sample_rate": np.array([singer.RATE_HZ])})
    assert [warning for warning in voice.warnings if not warning.startswith("short")] == []


def test_a_recording_is_stereo_with_room_to_spare(tmp_path: Path) -> None:
    path = tmp_path / "recording.flac"
    make_recording.main([str(path), "--seconds", str(SHORT_S)])
    recording = read_recording({"file": np.array([path.read_bytes()], np.object_)})
    assert recording.duration_s == SHORT_S
    assert recording.sample_rate_hz == 48_000
    assert recording.warnings == ()
    left, right = recording.audio
    assert 10 ** (-6 / 20) < np.abs(recording.audio).max() < 10 ** (-3 / 20)
    assert dbfs(left - right) > dbfs(left) - 30  # panned, not one channel twice


def test_the_recorded_singer_is_heard_over_the_band() -> None:
    sung = singer.sing(RECORDED_SINGER, make_recording.TUNE, SHORT_S)
    assert -6 < dbfs(make_recording.in_room(sung)) - dbfs(make_recording.band(SHORT_S)) < 6


def test_the_same_call_gives_the_same_samples() -> None:
    once, again = (singer.sing(REFERENCE_SINGER, singer.VOCALISE, 1.0) for _ in range(2))
    assert np.array_equal(once, again)
    assert np.array_equal(make_recording.band(1.0), make_recording.band(1.0))


def test_a_melody_goes_on_for_as_long_as_is_asked() -> None:
    tune = singer.phrase((0, 1), (None, 1), vowels="a")
    score = singer.read_score(tune, 60, 6 * singer.BEAT_S)
    middles = (np.arange(6) + 0.5) * singer.BEAT_S * singer.RATE_HZ
    assert score.sounding[middles.astype(int)] == pytest.approx([1, 0, 1, 0, 1, 0], abs=1e-6)
    assert np.allclose(score.hz(), 261.626, rtol=1e-5)


@pytest.mark.parametrize("script", [make_voice, make_recording])
def test_a_length_that_the_service_refuses_is_refused_here(script: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        script.main([str(tmp_path / "long.wav"), "--seconds", "601"])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("script", ["make_voice.py", "make_recording.py"])
def test_a_script_runs_from_the_root(script: str, tmp_path: Path) -> None:
    output = tmp_path / "out.wav"
    command = [sys.executable, f"examples/{script}", str(output), "--seconds", "3"]
    subprocess.run(command, cwd=EXAMPLES.parent, check=True, capture_output=True, timeout=60)
    assert soundfile.info(output).duration == SHORT_S


@pytest.mark.parametrize(
    ("who", "tune"),
    [*((who, singer.VOCALISE) for who in singer.SINGERS), (RECORDED_SINGER, make_recording.TUNE)],
    ids=lambda value: getattr(value, "name", "tune"),
)
def test_the_melody_is_what_is_heard(who: Any, tune: Any) -> None:
    stage = F0Stage(f0_engines.OneNetwork(f0_engines.swift_engine()), f0_engines.SWIFT)
    score = singer.read_score(tune, who.tonic, REFERENCE_S)
    found = stage.track(at_16_khz(singer.sing(who, tune, REFERENCE_S)))
    grid = np.minimum(np.arange(len(found)) * F0_HOP * (singer.RATE_HZ // SPEECH_RATE_HZ), len(score.age_s) - 1)
    sung, silent = score.sounding[grid] > 0.95, score.sounding[grid] < 0.02
    assert np.mean(found[sung] > 0) > 0.98
    assert np.mean(found[silent] > 0) < 0.05
    both = sung & (found > 0)
    cents = np.abs(1200 * np.log2(found[both] / score.hz()[grid][both]))
    assert np.median(cents) < 30


class Network:
    """An engine under any name."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine

    def run(self, name: str, inputs: Any, outputs: Any = None) -> Any:
        return self._engine.run(inputs, outputs)


def test_reference_and_recording_are_two_persons(tmp_path: Path) -> None:
    source = open_resemblyzer(weights_files.resemblyzer())
    stage = SpeakerStage(Network(engine_of(build_speaker_network(SpeakerConfig(), source), tmp_path)), SpeakerConfig())

    def vector(who: Any, tune: Any) -> np.ndarray:
        return stage.embed(at_16_khz(singer.sing(who, tune, REFERENCE_S)))

    reference, recorded = (
        vector(REFERENCE_SINGER, singer.VOCALISE),
        vector(RECORDED_SINGER, make_recording.TUNE),
    )
    again = vector(RECORDED_SINGER, singer.VOCALISE)
    assert float(reference @ recorded) < CALIBRATIONS["resemblyzer"].same_voice(REFERENCE_S).minimum
    assert float(recorded @ again) > float(reference @ recorded) + 0.1  # another tune is no other person
