"""The options of a training command, and its run."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from heartvoice.errors import HeartvoiceError
from train.frame.errors import TrainingError
from train.frame.log import say
from train.frame.loop import Options, train
from train.frame.schedule import FALL, WARM_UP
from train.frame.state import LOG, load_state
from train.frame.task import Task
from train.frame.weights import hashes, json_text, write

EPILOG = f"""\
A training is interrupted by Ctrl-C, by SIGTERM or by --minutes, and goes on by the same command, exactly as if it had
not been: seed and step decide everything random. The state is saved every --save-minutes; whoever is killed loses what
came after. `log.jsonl` in the state's folder has a JSON object a line: start, train (means), check (held out), end.
The rate rises for {WARM_UP} steps, stays, and falls over the last {FALL:.0%} of --steps; more --steps before that fall
continue it.
"""
PAUSED = 3
"""Exit code of a training that has steps left."""


@dataclass(frozen=True)
class Command:
    """A task's defaults on the command line."""

    make_task: Callable[[argparse.Namespace], Task]
    """A module's function: other processes call it, too."""
    steps: int
    """Of the recipe."""


def add_training(parser: argparse.ArgumentParser, command: Command) -> None:
    """Add the options that all trainings have; `parser` runs the training."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EPILOG
    add = parser.add_argument
    add(
        "--state",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder of the training's state and log; made if there is none",
    )
    add("--steps", type=positive, default=command.steps, help="steps of the whole training (%(default)s)")
    add("--minutes", type=float, help="end this sitting after so many minutes; without it, go to the end")
    add("--output", type=Path, metavar="DIR", help="write the weights here at the end of the sitting, done or not")
    add("--seed", type=int, default=0, help="of initial weights and batches (%(default)s)")
    add("--processes", type=positive, default=1, help="that average their gradients; each has a batch (%(default)s)")
    add("--workers", type=int, default=0, help="processes that compose batches ahead, for each of these (%(default)s)")
    add("--threads", type=positive, default=1, help="of torch, in each process (%(default)s)")
    add("--device", default="cpu", help="cpu, cuda or cuda:N (%(default)s)")
    add("--bf16", action="store_true", help="compute losses in bfloat16 (autocast)")
    add("--save-minutes", type=float, default=5.0, help="between saved states (%(default)s)")
    add("--check-steps", type=positive, default=500, help="between measurements on held-out examples (%(default)s)")
    parser.set_defaults(run=partial(_run, command))


def _run(command: Command, args: argparse.Namespace) -> int:
    _check_device(args.device)
    options = Options(
        state=args.state, steps=args.steps, minutes=args.minutes, seed=args.seed, processes=args.processes,
        workers=args.workers, device=args.device, bf16=args.bf16, save_minutes=args.save_minutes,
        check_steps=args.check_steps,
    )  # fmt: skip
    done = train(partial(_made, command.make_task, args), options)
    if args.output is not None:
        write_weights(command.make_task(args), args.state, args.output)
    if not done:
        say("The training is not finished: run the same command again to go on.")
    return 0 if done else PAUSED


def write_weights(task: Task, state_folder: Path, output: Path) -> None:
    """Write the weights of a saved state, and how they were made.

    `training-NAME.json` has recipe, steps, time and the files' SHA-256, `training-NAME.jsonl` the log until then.

    Raises:
        TrainingError: there is no state.
    """
    state = load_state(state_folder)
    if state is None:
        raise TrainingError(f"--state: no training state in {state_folder}")
    task.network.load_state_dict(state.network)
    files = list(task.write(output))
    path = write_record(task.name, state_folder, output, files)
    print(json.dumps({"weights": str(output), "about": str(path), "sha256": hashes(output, files)}))


def write_record(name: str, state_folder: Path, output: Path, files: list[Path]) -> Path:
    """Write how a saved state was trained, `training-NAME.json` and `training-NAME.jsonl`; returns the former.

    Args:
        name: of the training.
        state_folder: of its state.
        output: of the weights.
        files: of the weights that come from it.

    Raises:
        TrainingError: there is no state.
    """
    state = load_state(state_folder)
    if state is None:
        raise TrainingError(f"--state: no training state in {state_folder}")
    about = {
        "recipe": dict(state.recipe), "step": state.step, "total": state.total, "seconds": round(state.seconds),
        "torch": str(torch.__version__), "sha256": hashes(output, files),
    }  # fmt: skip
    write(output / f"training-{name}.jsonl", (state_folder / LOG).read_bytes()[: state.log_bytes])
    return write(output / f"training-{name}.json", json_text(about).encode())


def run(parser: argparse.ArgumentParser, arguments: list[str] | None = None) -> int:
    """Parse the arguments and run their command; an error is one line on stderr.

    Returns:
        The exit code: 0 done, 2 wrong arguments or an unusable state, 3 steps are left.
    """
    args = parser.parse_args(arguments)
    try:
        code: int = args.run(args)
    except (TrainingError, HeartvoiceError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return code


def _made(make_task: Callable[[argparse.Namespace], Task], args: argparse.Namespace) -> Task:
    """Build the task in its process; torch's threads are the process's own."""
    torch.set_num_threads(args.threads)
    return make_task(args)


def positive(text: str) -> int:
    """Read an option that is an integer of at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected at least 1, got {value}")
    return value


def _check_device(name: str) -> None:
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise TrainingError(f"--device: expected cpu, cuda or cuda:N, got {name!r}") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise TrainingError("--device: this torch sees no CUDA device; use cpu")
    if device.type not in ("cpu", "cuda"):
        raise TrainingError(f"--device: expected cpu, cuda or cuda:N, got {name!r}")
