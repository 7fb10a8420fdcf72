"""Are the exported graphs faster than their PyTorch modules, and equally accurate?

    python -m benchmarks.engine --preset mid [--only lm|flow|decoder] [--quick]

It compares HeartMuLa's step, the codec's flow and its scalar decoder with PyTorch eager on this CPU. Both have the same
random weights and run alternately in one process. It exits with 1 if the step's codes differ.

Torch's waiting threads spin by default. For the step this is the faster yardstick (PASSIVE made eager 1.2 to 1.8x
slower). On a shared machine long eager calls then stall for seconds, so run `--only flow` and `--only decoder` with
OMP_WAIT_POLICY=PASSIVE there. The result records the setting.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heartvoice.config.presets import PRESETS, Preset
from heartvoice.loadtest.harness import RESULTS, Run
from heartvoice.runtime.engines import default_threads

if TYPE_CHECKING:
    from heartvoice.runtime.repository import Repository

PARTS = ("lm", "flow", "decoder")
CHUNKS = (62, 124, 186, 248, 372)
"""Latent frames per decoder call: divisors of a window, and the stage's own value."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark and return the exit status."""
    args = _parse(arguments)
    preset: Preset = PRESETS[args.preset]
    repository = _repository(preset, args.repository, args.seed, args.only)
    import torch

    torch.set_num_threads(args.threads)
    name = "engine" if len(args.only) == len(PARTS) else "engine-" + "-".join(args.only)
    run = Run(
        name + ("-quick" if args.quick else ""), preset.name, "fp32", args.threads, results=args.results,
        about={"quick": args.quick, "weights": f"random seed={args.seed}"},
    )  # fmt: skip
    same = _measure(run, repository, args)
    run.finish()
    if not same:
        print("the LM graph's codes differ from PyTorch's", file=sys.stderr)
    return 0 if same else 1


def _measure(run: Run, repository: Repository, args: argparse.Namespace) -> bool:
    """Measure the selected parts; return True if the codes are equal."""
    from benchmarks import engine_codec, engine_lm
    from heartvoice.models.load import random_checkpoint

    preset, quick, same = repository.preset, args.quick, True
    if "lm" in args.only:
        source = random_checkpoint(preset.lm, args.seed)
        same = engine_lm.measure(run, repository, source, n=12 if quick else 100)
        run.save()
    if args.only != ["lm"]:
        codec = engine_codec.load_codec(preset.codec, random_checkpoint(preset.codec, args.seed))
        shared: dict[str, Any] = {"n": 3 if quick else 11, "limit_s": 20 if quick else 120}
        if "flow" in args.only:
            frames = 186 if quick else engine_codec.FRAMES
            engine_codec.measure_flow(run, repository, codec, frames=frames, **shared)
            run.save()
        if "decoder" in args.only:
            frames, chunks = (186, (62, 124)) if quick else (engine_codec.FRAMES, CHUNKS)
            engine_codec.measure_decoder(
                run, repository, codec, seed=args.seed, frames=frames, chunks=chunks, memory=not quick, **shared
            )
    return same


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.engine", description=__doc__.splitlines()[0])
    parser.add_argument("--preset", choices=PRESETS, default="mid")
    parser.add_argument("--only", choices=PARTS, action="append", help="measure only this part; may be repeated")
    parser.add_argument("--quick", action="store_true", help="few repetitions, short windows, no memory measurement")
    parser.add_argument("--repository", type=Path, help="default build/repository/PRESET; exported if it is missing")
    parser.add_argument("--seed", type=int, default=0, help="seed of the repository's random weights")
    parser.add_argument("--threads", type=int, default=default_threads())
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the result")
    args = parser.parse_args(arguments)
    args.only = [part for part in PARTS if part in (args.only or PARTS)]
    return args


def _repository(preset: Preset, root: Path | None, seed: int, parts: list[str]) -> Repository:
    """Export the needed graphs if they are missing or were exported by other code."""
    from heartvoice.export.repository import export_repository
    from heartvoice.export.weights import random_weights
    from heartvoice.runtime.repository import Repository

    root = root or Path("build/repository") / preset.name
    only = ["heartmula_step"] if parts == ["lm"] else []
    export_repository(random_weights(preset, seed), root, only=only)  # up-to-date graphs are kept
    return Repository(root)


if __name__ == "__main__":
    sys.exit(main())
