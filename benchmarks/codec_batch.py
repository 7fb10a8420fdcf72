"""Would batching the codec's flow over several guided songs save time?

    python -m benchmarks.codec_batch [--preset mid] [--n 5] [--quick]

It needs an exported repository (first `heartvoice export --preset mid --random-weights 0`) and uses onnxruntime on the
CPU. It alternates one call for 1, 2 and 4 songs with one call per song, for the smallest and the largest window. Run it
with OMP_WAIT_POLICY=PASSIVE on a shared machine.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from heartvoice.arrays import Array
from heartvoice.contracts.constants import CODES_PER_UNIT, LATENTS_PER_FRAME
from heartvoice.contracts.models import HEARTCODEC_FLOW
from heartvoice.contracts.network_names import NETWORKS
from heartvoice.keyed_random import normal
from heartvoice.loadtest.harness import RESULTS, Run, Timing, alternate
from heartvoice.runtime.engines import default_threads
from heartvoice.runtime.networks import LocalNetworks
from heartvoice.runtime.repository import Repository

SONGS = (1, 2, 4)
ROWS_PER_SONG = 2


def flow_inputs(repository: Repository, window: int, rows: int) -> dict[str, Array]:
    """Make noise for `rows` rows of a window of codes."""
    sizes, n_frames = repository.preset.codec, LATENTS_PER_FRAME * window
    widths = {"x": sizes.out_channels, "context": sizes.out_channels, "mu": sizes.dim}
    arrays: dict[str, Array] = {name: normal(0, name, 0, (rows, n_frames, width)) for name, width in widths.items()}
    return arrays | {"t": np.full((rows, 1), 0.5, np.float32)}


def measure(run: Run, repository: Repository, window: int, *, n: int) -> None:
    """Measure one window; adds a row per number of songs, with separate calls as baseline."""
    networks = LocalNetworks(repository, threads=run.threads)
    call = partial(networks.run, HEARTCODEC_FLOW.name)
    inputs = {count: flow_inputs(repository, window, ROWS_PER_SONG * count) for count in SONGS}
    together: dict[str, Callable[[], object]] = {f"{count} songs": partial(call, inputs[count]) for count in SONGS}
    timings = alternate(together, n=n, warmup=1)
    alone = timings["1 songs"]
    for count in SONGS:
        apart = Timing(tuple(count * seconds for seconds in alone.seconds))
        run.add(f"window {window}", f"{count} songs in one call", timings[f"{count} songs"], baseline=apart)
    run.save()


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(prog="benchmarks.codec_batch", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--preset", default="mid", help="preset of build/repository")
    parser.add_argument("--repository", type=Path, help="repository to use instead of build/repository/PRESET")
    parser.add_argument("--n", type=int, default=5, help="rounds")
    parser.add_argument("--quick", action="store_true", help="one round of the smallest window")
    parser.add_argument("--threads", type=int, default=default_threads())
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the result")
    args = parser.parse_args(arguments)
    repository = Repository(args.repository or Path("build/repository") / args.preset)
    run = Run("codec-batch", repository.preset.name, str(repository.index["precision"]), args.threads,
              results=args.results, about=repository.about(*NETWORKS))  # fmt: skip
    for window in (CODES_PER_UNIT,) if args.quick else (CODES_PER_UNIT, 4 * CODES_PER_UNIT):
        measure(run, repository, window, n=1 if args.quick else args.n)
    run.finish()


if __name__ == "__main__":
    main()
