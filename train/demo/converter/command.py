"""Commands of the converter's training: content, style, conversion, vocoder, evaluate-converter."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from heartvoice.config.presets import DEMO_STYLE, DEMO_SVC
from heartvoice.contracts.settings import SVC_GUIDANCE, SVC_STEPS
from heartvoice.judges.opening import LyricOptions, open_judges
from heartvoice.models.seed_vc.whisper import ContentEncoder
from heartvoice.stages.svc.settings import ConvertSettings
from train.demo.codec_commands import MISSED, N_HELD_OUT, add_songs
from train.demo.converter.content import ContentTask
from train.demo.converter.conversion import ConversionTask
from train.demo.converter.evaluate import (
    LEAST_SHARE,
    MOST_CENTS,
    MOST_WORDS,
    evaluate,
    missed,
    open_networks,
    summary,
)
from train.demo.converter.singing import Line, line_of
from train.demo.converter.style import StyleTask
from train.demo.converter.vocoder import VocoderTask, shifted_lines
from train.demo.songs import held_out_song, training_songs
from train.demo.world import identity
from train.frame.command import Command, add_training, positive
from train.frame.errors import TrainingError
from train.frame.state import load_state

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]

CONTENT_STEPS, STYLE_STEPS, CONVERSION_STEPS, VOCODER_STEPS = 190, 600, 3000, 3000


def add(commands: Subparsers) -> None:
    """Add all of them."""
    content = commands.add_parser(
        "content", help="train the converter's content encoder",
        description="Trains Whisper's encoder to tell what is sung, whoever sings.",
    )  # fmt: skip
    add_training(content, Command(content_task, CONTENT_STEPS))
    style = commands.add_parser(
        "style", help="train the converter's style encoder", description="Trains CAMPPlus to tell singers apart."
    )
    add_training(style, Command(style_task, STYLE_STEPS))
    conversion = commands.add_parser(
        "conversion", help="train the converter's regulator and flow",
        description="Trains on songs by two singers each: from what one sings to the other's mel frames. The "
        "styles are the singers' own; those of the trained style encoder are worse, so conversions are, too.",
    )  # fmt: skip
    add_training(conversion, Command(conversion_task, CONVERSION_STEPS))
    conversion.add_argument(
        "--content", type=Path, required=True, metavar="DIR", help="state of the content encoder's training"
    )
    vocoder = commands.add_parser(
        "vocoder", help="train the converter's vocoder",
        description="Trains BigVGAN on singing by random singers, whose phases its own noise decides.",
    )  # fmt: skip
    add_training(vocoder, Command(vocoder_task, VOCODER_STEPS))
    for parser in (content, style, conversion, vocoder):
        add_songs(parser)

    judge = commands.add_parser(
        "evaluate-converter", help="measure a converter on singers that no training hears",
        description="Converts songs of two lines to random singers, by the product's own conversion. Prints JSON; exit "
        f"code {MISSED} if a bar is missed: share of the ceiling at least {LEAST_SHARE} by two judges, pitch within "
        f"{MOST_CENTS:g} cents, lyric error at most {MOST_WORDS} more than the target's own singing.",
    )  # fmt: skip
    option = judge.add_argument
    option("--weights", type=Path, required=True, metavar="DIR", help="what the four trainings have written")
    option("--covers", type=positive, default=8, help="number of conversions, at most 20 (%(default)s)")
    option("--steps", type=positive, default=SVC_STEPS.default, help="of the flow (%(default)s)")
    option("--guidance", type=float, default=SVC_GUIDANCE.default, help="of the flow (%(default)s)")
    judge.set_defaults(run=_evaluate)


def _evaluate(args: argparse.Namespace) -> int:
    torch.set_num_threads(1)
    sizes, networks = open_networks(args.weights)
    judges = open_judges(lyrics=LyricOptions(language="en", optional=False))
    if judges.f0 is None:
        raise TrainingError(f"swift-f0 cannot be had: {judges.unavailable}")
    settings = ConvertSettings(steps=args.steps, guidance=args.guidance)
    figures = evaluate(sizes, networks, judges.f0, judges, settings, args.covers)
    means = summary(figures)
    short = missed(means)
    about = {
        "settings": {"steps": args.steps, "guidance": args.guidance}, "mean": means, "missed": short,
        "bars": {"share": LEAST_SHARE, "f0_cents": MOST_CENTS, "words_more": MOST_WORDS},
        "unavailable": judges.unavailable, "covers": [asdict(each) for each in figures],
    }  # fmt: skip
    print(json.dumps(about, indent=1))
    return MISSED if short else 0


def content_task(args: argparse.Namespace) -> ContentTask:
    """Build the content encoder's task."""
    return ContentTask(DEMO_SVC.whisper, training_lines(args.songs), held_out_lines(N_HELD_OUT), identity())


def style_task(args: argparse.Namespace) -> StyleTask:
    """Build the style encoder's task."""
    return StyleTask(DEMO_STYLE, training_lines(args.songs), held_out_lines(N_HELD_OUT), identity())


def conversion_task(args: argparse.Namespace) -> ConversionTask:
    """Build the task of regulator and flow, on the content encoder's state."""
    encoder = trained_encoder(args.content)
    return ConversionTask(DEMO_SVC, encoder, training_lines(args.songs), held_out_lines(N_HELD_OUT), identity())


def trained_encoder(state_folder: Path) -> ContentEncoder:
    """Return the content encoder of a saved state.

    Raises:
        TrainingError: there is no such state, or it is another network's.
    """
    state = load_state(state_folder)
    if state is None:
        raise TrainingError(f"--content: no training state in {state_folder}; train the content encoder first")
    encoder = ContentEncoder(DEMO_SVC.whisper)
    prefix = "encoder."
    try:
        encoder.load_state_dict(
            {name.removeprefix(prefix): value for name, value in state.network.items() if name.startswith(prefix)}
        )
    except RuntimeError as error:
        raise TrainingError(f"--content: {state_folder} is another network's state: {error}") from error
    return encoder


def vocoder_task(args: argparse.Namespace) -> VocoderTask:
    """Build the vocoder's task."""
    return VocoderTask(
        DEMO_SVC.vocoder, shifted_lines(training_lines(args.songs)), held_out_lines(N_HELD_OUT), identity()
    )


def training_lines(n_songs: int) -> list[Line]:
    """Compose the first songs for training, and return what is sung in them."""
    return [line_of(score.codes) for score in training_songs(0, n_songs)]


def held_out_lines(n_songs: int) -> list[Line]:
    """Compose the first songs that are kept for tests, and return what is sung in them."""
    return [line_of(held_out_song(number).codes) for number in range(n_songs)]
