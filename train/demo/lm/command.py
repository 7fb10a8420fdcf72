"""The commands `lm` and `evaluate-lm`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from train.demo.lm.evaluate import BARS, Sampling, evaluate, load
from train.demo.lm.task import COPYING, OPENINGS, LmTask
from train.frame.command import Command, add_training

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]

STEPS = 5_400


def add(commands: Subparsers) -> None:
    """Add both commands."""
    lm = commands.add_parser(
        "lm", help="train the language model: tags and lyrics to codes",
        description="Trains HeartMuLa at demo size on songs that are composed while it learns: the first "
        f"{COPYING:.0%} of the steps copy words from the prompt, the rest writes whole songs, and from "
        f"{OPENINGS[0][0]:.0%} on many beginnings of songs.",
    )  # fmt: skip
    add_training(lm, Command(_task, STEPS))
    lm.add_argument("--songs", type=int, default=8, help="in a batch (%(default)s)")
    bars = ", ".join(f"{name} {'at most' if name == 'word_error' else 'at least'} {bar}" for name, bar in BARS.items())
    judge = commands.add_parser(
        "evaluate-lm", help="let the language model write held-out lyrics' songs, and read their codes",
        description="Writes songs for lyrics that training never has and reads their codes back: words in the lyrics' "
        "order, tags, key and chords. Prints JSON; exit code 1 if a bar is missed: "
        + bars,
    )  # fmt: skip
    judge.add_argument("--weights", type=Path, required=True, metavar="DIR", help="what `lm --output` has written")
    judge.add_argument("--songs", type=int, default=50, help="number of lyrics (%(default)s)")
    judge.add_argument("--lines", type=int, default=4, help="of each lyrics (%(default)s)")
    judge.add_argument("--seed", type=int, default=0, help="of the sampling (%(default)s)")
    judge.add_argument("--temperature", type=float, default=0.7, help="(%(default)s)")
    judge.add_argument("--top-k", type=int, default=20, help="(%(default)s)")
    judge.add_argument("--cfg-scale", type=float, default=1.0, help="guidance by the prompt; 1 is none (%(default)s)")
    judge.add_argument("--threads", type=int, default=1, help="of torch (%(default)s)")
    judge.set_defaults(run=_evaluate)


def _task(args: argparse.Namespace) -> LmTask:
    return LmTask(songs=args.songs)


def _evaluate(args: argparse.Namespace) -> int:
    import torch

    torch.set_num_threads(args.threads)
    sampling = Sampling(args.seed, args.temperature, args.top_k, args.cfg_scale)
    report = evaluate(load(args.weights), sampling, songs=args.songs, lines=args.lines)
    print(json.dumps(report, indent=1))
    return 0 if report["passed"] else 1
