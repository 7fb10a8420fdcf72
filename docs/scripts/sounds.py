"""Sounds and pictures of the page on the demo world, made when the site is built.

python -m docs.scripts.sounds FOLDER
"""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path

from heartvoice import keyed_random
from heartvoice.audio.dsp import Samples, resample
from heartvoice.audio.encode import write_audio
from heartvoice.config.presets import DEMO_CODEC
from heartvoice.contracts.constants import SAMPLE_RATE_HZ, STEM_RATE_HZ
from heartvoice.evaluation.measures import log_mel_db
from heartvoice.evaluation.plots import mel_spectra, save
from heartvoice.models.heartcodec.codec import HeartCodec
from heartvoice.models.load import Checkpoint, load_network
from train.demo.codec_evaluation import FlowSettings
from train.demo.crops import only
from train.demo.flow import CODEC_FOLDER
from train.demo.lm.evaluate import Sampling, load, write_song
from train.demo.renderer import Renderer
from train.demo.score import Codes

ROOT = Path(__file__).resolve().parents[2]
WEIGHTS = ROOT / "train/demo/weights"
FOLDER = "sounds"
"""Of the site."""
COMMENT = "the demo world, a small procedural one"
_MOST_FRAMES = 750
"""A minute."""


def make(folder: Path) -> None:
    """Write the example's song as the demo weights make it, the same codes rendered, and the voice of both.

    Raises:
        OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lyrics, tags = ((ROOT / "examples" / name).read_text(encoding="utf-8") for name in ("lyrics.txt", "tags.txt"))
    codes = write_song(load(WEIGHTS), tags, lyrics, replace(Sampling(), seed=_seed()), _MOST_FRAMES)
    voice = only(codes, "voice")
    codec, renderer = _codec(), Renderer()
    sounds = {
        "song": decoded(codec, codes), "song-rendered": renderer.mix(codes),
        "voice": decoded(codec, voice), "voice-rendered": renderer.mix(voice),
    }  # fmt: skip
    for name, audio in sounds.items():
        write_audio(folder / f"{name}.mp3", audio, COMMENT)
    mels = {title: log_mel_db(resample(sounds[name].mean(axis=0), SAMPLE_RATE_HZ, STEM_RATE_HZ))
            for title, name in (("by the networks", "song"), ("as it was meant", "song-rendered"))}  # fmt: skip
    save(mel_spectra(mels, "examples/lyrics.txt: mel spectra"), folder / "song.png")


def _seed() -> int:
    """Return the seed of `make song`."""
    found = re.search(r"--seed (\d+)", (ROOT / "Makefile").read_text(encoding="utf-8"))
    if found is None:
        raise ValueError("Makefile: expected --seed in the commands of `make song`")
    return int(found[1])


def decoded(codec: HeartCodec, codes: Codes) -> Samples:
    """Decode codes with the settings with which the codec is measured: float32 [2, N]."""
    flow = FlowSettings()
    shape = (1, 2 * flow.window, codec.sizes.out_channels)
    made: Samples = codec.detokenize(
        codes, lambda index: keyed_random.normal(flow.seed, "codec", index, shape),
        window=flow.window, steps=flow.steps, guidance=flow.guidance,
    )  # fmt: skip
    return made


def _codec() -> HeartCodec:
    codec = load_network(DEMO_CODEC, Checkpoint.open(WEIGHTS / CODEC_FOLDER), decode_only=True)
    if not isinstance(codec, HeartCodec):
        raise TypeError(f"expected a HeartCodec, got {type(codec).__name__}")
    return codec


if __name__ == "__main__":
    make(Path(sys.argv[1]))
