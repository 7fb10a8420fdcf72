"""Commands of the codec's training: decoder, flow, evaluate-codec."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from heartvoice.checkpoints.file_hash import sha256
from heartvoice.config.presets import DEMO_CODEC
from heartvoice.models.heartcodec.codec import HeartCodec
from heartvoice.models.load import Checkpoint, load_network
from train.demo.codec_evaluation import BARS, FlowSettings, Judges, evaluate, missed, summary
from train.demo.codec_states import trained_decoder
from train.demo.decoder import DecoderTask
from train.demo.flow import CODEC_FOLDER, FlowTask
from train.demo.renderer import Renderer
from train.demo.score import Codes
from train.demo.songs import held_out_song, training_songs
from train.demo.world import identity
from train.frame.command import Command, add_training, positive
from train.frame.weights import WEIGHTS

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]

DECODER_STEPS, FLOW_STEPS = 1_400, 5_700
N_SONGS, N_HELD_OUT = 600, 4
_DECODER = "state of the decoder's training"
MISSED = 1
"""Exit code of an evaluation in which a bar is missed."""


def add(commands: Subparsers) -> None:
    """Add all three."""
    decoder = commands.add_parser(
        "decoder", help="train the codec's decoder",
        description="Makes the encoder of scores, and trains the decoder on its latents, with songs that are rendered "
        "meanwhile. As soon as there is a state, `flow` can start.",
    )  # fmt: skip
    add_training(decoder, Command(decoder_task, DECODER_STEPS))
    add_songs(decoder)
    flow = commands.add_parser(
        "flow", help="train the codec's flow from codes to latents, and write the codec's weights",
        description="Trains on the latents of the decoder's state. `--output` writes decoder and flow.",
    )  # fmt: skip
    add_training(flow, Command(flow_task, FLOW_STEPS))
    add_songs(flow)
    flow.add_argument("--decoder", type=Path, required=True, metavar="DIR", help=_DECODER)
    _add_evaluation(commands)


def add_songs(parser: argparse.ArgumentParser) -> None:
    """Add the number of songs."""
    parser.add_argument("--songs", type=positive, default=N_SONGS, help="songs to train on (%(default)s)")


def _add_evaluation(commands: Subparsers) -> None:
    bars = ", ".join(f"{name} at least {bar:g}" for name, bar in BARS.items())
    judge = commands.add_parser(
        "evaluate-codec", help="measure the codec on held-out songs",
        description="Decodes held-out songs from the encoder's latents and through the flow, and compares them with "
        f"the renderer's. Prints JSON; exit code 1 if a bar is missed: {bars}",
    )  # fmt: skip
    add = judge.add_argument
    add("--weights", type=Path, required=True, metavar="DIR", help="what `flow --output` has written")
    add("--decoder", type=Path, required=True, metavar="DIR", help=_DECODER)
    add("--songs", type=int, default=3, help="number of songs (%(default)s)")
    add("--first", type=int, default=0, help="number of the first one (%(default)s)")
    add("--steps", type=int, default=4, help="of the flow (%(default)s)")
    add("--guidance", type=float, default=1.0, help="of the flow; 1 is none (%(default)s)")
    add("--window", type=int, default=93, help="of the flow, in codes, a multiple of 93 (%(default)s)")
    add("--no-judges", action="store_true", help="measure neither pitch nor words, and fetch nothing")
    judge.set_defaults(run=_evaluate)


def decoder_task(args: argparse.Namespace) -> DecoderTask:
    """Build the decoder's task."""
    return DecoderTask(DEMO_CODEC, Renderer(), training_codes(args.songs), held_out_codes(N_HELD_OUT), identity())


def flow_task(args: argparse.Namespace) -> FlowTask:
    """Build the flow's task on the decoder's state."""
    decoder, encoder = trained_decoder(DEMO_CODEC, args.decoder)
    return FlowTask(DEMO_CODEC, decoder, encoder, training_codes(args.songs), held_out_codes(N_HELD_OUT))


def training_codes(n_songs: int) -> list[Codes]:
    """Compose the first songs for training: codes [8, T] each."""
    return [score.codes for score in training_songs(0, n_songs)]


def held_out_codes(n_songs: int) -> list[Codes]:
    """Compose the first songs that are kept for tests: codes [8, T] each."""
    return [held_out_song(number).codes for number in range(n_songs)]


def _evaluate(args: argparse.Namespace) -> int:
    torch.set_num_threads(1)
    codec = load_network(DEMO_CODEC, Checkpoint.open(args.weights / CODEC_FOLDER), decode_only=True)
    if not isinstance(codec, HeartCodec):
        raise TypeError(f"expected a HeartCodec, got {type(codec).__name__}")
    _, encoder = trained_decoder(DEMO_CODEC, args.decoder)
    songs = [(number, held_out_song(number)) for number in range(args.first, args.first + args.songs)]
    settings = FlowSettings(args.steps, args.guidance, args.window)
    figures = evaluate(codec, encoder, Renderer(), songs, settings, Judges() if args.no_judges else _judges())
    means = summary(figures)
    short = missed(means)
    about = {
        "weights": sha256(args.weights / CODEC_FOLDER / WEIGHTS), "settings": asdict(settings), "mean": means,
        "bars": BARS, "missed": short, "songs": [asdict(each) for each in figures],
    }  # fmt: skip
    print(json.dumps(about, indent=1))
    return MISSED if short else 0


def _judges() -> Judges:
    from heartvoice.judges.opening import LyricOptions, open_judges

    opened = open_judges(lyrics=LyricOptions(language="en", optional=False))
    return Judges(opened.f0, opened.lyrics)
