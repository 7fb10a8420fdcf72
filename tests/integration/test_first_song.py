"""`make song` sings: its own commands, with the committed weights, heard by Whisper and swift-f0."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import soundfile

from heartvoice import keyed_random
from heartvoice.audio.dsp import resample
from heartvoice.config.presets import DEMO_CODEC
from heartvoice.contracts.constants import SAMPLE_RATE_HZ, SPEECH_RATE_HZ
from heartvoice.contracts.network_names import SMALL_WORLD
from heartvoice.contracts.settings import CODEC_GUIDANCE, CODEC_STEPS, CODEC_WINDOW
from heartvoice.evaluation.measures import pitch_kept
from heartvoice.judges.opening import open_judges
from heartvoice.models.heartcodec.codec import HeartCodec
from heartvoice.models.load import Checkpoint, load_network
from heartvoice.provenance.key_folder import FOLDER_VARIABLE
from tests.support.weights_files import tiny_en
from train.demo import reading
from train.demo.codec_evaluation import score_pitch
from train.demo.crops import only
from train.demo.flow import CODEC_FOLDER
from train.demo.renderer import Renderer
from train.demo.score import Codes, read_lyrics

ROOT = Path(__file__).parents[2]
LYRICS = (ROOT / "examples/lyrics.txt").read_text(encoding="utf-8")
pytestmark = pytest.mark.timeout(600)  # it exports a preset and starts a server

MOST_LYRIC_ERROR = 0.3
LEAST_WITHIN_50_CENTS = 0.97


@dataclass(frozen=True)
class FirstSong:
    """What the commands have made and said."""

    audio: np.ndarray
    """[2, N] at 48 kHz."""
    codes: Codes
    told: str


@pytest.fixture(scope="module")
def song(tmp_path_factory: pytest.TempPathFactory) -> FirstSong:
    """Run what `make song` would run, in this environment, with keys of its own."""
    folder = tmp_path_factory.mktemp("first")
    where = [f"VENV={sys.prefix}", f"REPOSITORY={folder / 'demo'}", f"SONG={folder / 'song.wav'}"]
    make = ["make", "-n", "-o", f"{sys.prefix}/.ready", "song", "OPTIONS=--return-codes", *where]
    plain = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}  # make itself may run us
    commands = subprocess.run(make, cwd=ROOT, env=plain, capture_output=True, text=True, check=True).stdout
    keys = {FOLDER_VARIABLE: str(folder / "keys")}
    done = subprocess.run(
        ["bash", "-e", "-c", commands],
        cwd=ROOT,
        env={**os.environ, **keys},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    audio, rate_hz = soundfile.read(folder / "song.wav", dtype="float32")
    assert rate_hz == SAMPLE_RATE_HZ
    return FirstSong(audio.T, np.load(folder / "song.codes.npy").astype(np.int64), done.stdout + done.stderr)


def test_it_is_the_lyrics_word_for_word_and_no_noise(song: FirstSong) -> None:
    assert list(reading.read(song.codes).words) == [word for line in read_lyrics(LYRICS) for word in line.words]
    assert SMALL_WORLD in song.told
    assert "RANDOM" not in song.told
    assert "trusted" in song.told


def test_it_is_understood(song: FirstSong) -> None:
    heard = tiny_en().judge(LYRICS, {"song": resample(song.audio.mean(axis=0), SAMPLE_RATE_HZ, SPEECH_RATE_HZ)})
    error = heard.errors["song"].error
    assert error is not None
    assert error <= MOST_LYRIC_ERROR, heard.errors["song"].heard


def test_its_voice_is_in_tune(song: FirstSong) -> None:
    codec = load_network(DEMO_CODEC, Checkpoint.open(ROOT / "train/demo/weights" / CODEC_FOLDER), decode_only=True)
    assert isinstance(codec, HeartCodec)
    f0, voice, window = open_judges().f0, only(song.codes, "voice"), int(CODEC_WINDOW.default)
    assert f0 is not None
    sung = codec.detokenize(
        voice, lambda index: keyed_random.normal(0, "codec", index, (1, 2 * window, DEMO_CODEC.out_channels)),
        window=window, steps=int(CODEC_STEPS.default), guidance=float(CODEC_GUIDANCE.default),
    )  # fmt: skip
    rendered = Renderer().stems(voice)["voice"].astype(np.float32)
    contours = [f0.track(resample(audio.mean(0), SAMPLE_RATE_HZ, SPEECH_RATE_HZ)) for audio in (rendered, sung)]
    within, _ = pitch_kept(score_pitch(song.codes, len(contours[0])), *contours)
    assert within is not None
    assert within >= LEAST_WITHIN_50_CENTS
