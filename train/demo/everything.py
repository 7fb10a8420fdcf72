"""The command `all`: trains language model and codec side by side, writes their weights and measures them."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from train.demo.flow import CODEC_FOLDER
from train.frame.chains import Step, python, run_chains
from train.frame.command import PAUSED, positive, write_record
from train.frame.log import say
from train.frame.weights import hashes, json_text, write

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]

FOLDER = Path("build/demo")
LIMIT_BYTES = 24_000_000
"""Of all files of codec and language model together, as they are kept in the repository."""
TRAININGS = ("lm", "decoder", "flow")
MADE = "made.json"
MISSED = 1
"""Exit code when a bar or the limit is missed."""
_MODULE = "train.demo"
_EPILOG = """\
FOLDER/lm, FOLDER/decoder and FOLDER/flow hold the trainings' states, FOLDER/weights what `heartvoice export --preset
demo --weights` reads, with the log, recipe and seed of each training, both evaluations and made.json: sizes, hashes and
measured means. Ctrl-C, SIGTERM and --minutes save every state; the same command goes on, at whatever step.
"""


def add(commands: Subparsers) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "all", help="train everything, write the weights and measure them; goes on where it was interrupted",
        description="Trains the language model beside decoder and flow, one process of one thread each, then writes "
        f"and measures the weights. Exit code 0: every bar is met, and the files have at most {LIMIT_BYTES / 1e6:g} "
        f"MB; {MISSED}: not; 2: an error; {PAUSED}: steps are left.",
        epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    option = parser.add_argument
    option("--folder", type=Path, default=FOLDER, metavar="DIR", help="of states and weights (%(default)s)")
    option("--minutes", type=float, help="end each training's sitting after so many minutes")
    option("--steps", type=positive, help="of every training, to try the chain; default: each one's recipe")
    option("--songs", type=positive, help="that decoder and flow train on, likewise")
    option("--seed", type=int, default=0, help="of initial weights and batches (%(default)s)")
    option("--device", default="cpu", help="cpu, cuda or cuda:N (%(default)s)")
    option("--bf16", action="store_true", help="compute losses in bfloat16 (autocast)")
    option("--no-evaluation", action="store_true", help="measure nothing")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    folder: Path = args.folder
    weights = folder / "weights"
    code, _ = run_chains(trainings(args))
    if code:
        if code == PAUSED:
            say("Not all is trained: run the same command again to go on.")
        return code
    codec = sorted((weights / CODEC_FOLDER).iterdir())
    write_record("decoder", folder / "decoder", weights, codec)  # the flow has written its weights
    for old in (*weights.glob("evaluation-*.json"), weights / MADE):  # of other weights
        old.unlink(missing_ok=True)
    if not args.no_evaluation:
        code, _ = run_chains(evaluations(folder))
        if code:
            return code
    about = made(weights)
    write(weights / MADE, json_text(about).encode())
    print(json_text(about), end="")
    return MISSED if about["missed"] else 0


def trainings(args: argparse.Namespace) -> Sequence[Sequence[Step]]:
    """Return both chains: the language model, and decoder before flow."""
    folder: Path = args.folder
    output = ("--output", str(folder / "weights"))

    def training(name: str, *more: str) -> Step:
        options = ["--state", str(folder / name), "--seed", str(args.seed), "--device", args.device]
        for option, value in (("--minutes", args.minutes), ("--steps", args.steps)):
            if value is not None:
                options += [option, str(value)]
        return Step(name, python(_MODULE, name, *options, *(["--bf16"] if args.bf16 else []), *more))

    songs = () if args.songs is None else ("--songs", str(args.songs))
    decoder = ("--decoder", str(folder / "decoder"))
    return ((training("lm", *output),), (training("decoder", *songs), training("flow", *songs, *decoder, *output)))


def evaluations(folder: Path) -> Sequence[Sequence[Step]]:
    """Return both evaluations; each prints JSON, and ends with 1 if a bar is missed."""
    weights = ("--weights", str(folder / "weights"))

    def evaluation(name: str, *more: str) -> Step:
        command = python(_MODULE, f"evaluate-{name}", *weights, *more)
        return Step(f"evaluate-{name}", command, folder / "weights" / f"evaluation-{name}.json", (0, MISSED))

    return ((evaluation("lm"),), (evaluation("codec", "--decoder", str(folder / "decoder")),))


def made(weights: Path) -> dict[str, Any]:
    """Return what the weights are: sizes and hashes of the files, how long each training took, and what is missed."""
    files = sorted(path for path in weights.rglob("*") if path.is_file() and path.name != MADE)
    size = sum(path.stat().st_size for path in files)
    measured = {name: _read(weights / f"evaluation-{name}.json") for name in ("lm", "codec")}
    missed = [f"{name}: {bar}" for name, report in measured.items() for bar in _missed(report)]
    if size > LIMIT_BYTES:
        missed.append(f"size: {size} bytes, the limit is {LIMIT_BYTES}")
    about = {name: _read(weights / f"training-{name}.json") for name in TRAININGS}
    return {
        "bytes": size, "limit_bytes": LIMIT_BYTES, "missed": missed, "sha256": hashes(weights, files),
        "trainings": {
            name: {
                "steps": told.get("step"), "of": told.get("total"), "seconds": told.get("seconds"),
                "seed": told.get("recipe", {}).get("seed"), "torch": told.get("torch"),
            }
            for name, told in about.items() if told
        },
        "measured": {name: _means(report) for name, report in measured.items() if report},
    }  # fmt: skip


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _missed(report: Mapping[str, Any]) -> list[str]:
    """Return the names of missed bars; the two evaluations say them in their own ways."""
    return [*report.get("missed", []), *(name for name, met in report.get("met", {}).items() if not met)]


def _means(report: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: value
        for name, value in report.get("mean", report).items()
        if isinstance(value, (int, float)) and not isinstance(value, bool)
    }
