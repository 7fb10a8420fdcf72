"""The command that trains the separator."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from heartvoice.config.presets import DEMO_SEPARATOR
from train.demo.codec_commands import N_HELD_OUT, add_songs, held_out_codes, training_codes
from train.demo.renderer import Renderer
from train.demo.separator import SeparatorTask
from train.demo.world import identity
from train.frame.command import Command, add_training

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]

STEPS = 2000


def add(commands: Subparsers) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "separator", help="train htdemucs on songs of the world",
        description="Trains on stems that are rendered while it learns, with gains of their own. Published separators "
        "take the world's steady voices for instruments.",
    )  # fmt: skip
    add_training(parser, Command(separator_task, STEPS))
    add_songs(parser)


def separator_task(args: argparse.Namespace) -> SeparatorTask:
    """Build the separator's task."""
    return SeparatorTask(DEMO_SEPARATOR, Renderer(), training_codes(args.songs), held_out_codes(N_HELD_OUT), identity())
