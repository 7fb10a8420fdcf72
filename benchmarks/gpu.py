"""How close do the full-size networks come to this GPU's limits?

    benchmarks/gpu.sh            # any NVIDIA GPU, full size, less than 10 minutes
    benchmarks/gpu.sh --preset tiny --device cpu    # a dry run, which only tests the script

It needs torch, numpy and this checkout. Weights are random and made on the GPU. The result goes to $OUT if that is set,
else to benchmarks/results/. Failures are recorded with their reasons.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks import gpu_codec, gpu_lm
from benchmarks.gpu_device import Bench, calibrate
from heartvoice.config.presets import PRESETS
from heartvoice.loadtest import machine
from heartvoice.loadtest.harness import RESULTS, Run

LIMIT_S = 480
"""Nothing new starts after this, so the script ends within ten minutes."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark and return the exit status."""
    begin = time.perf_counter()
    args = _parse(arguments)
    device = torch.device(args.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    dry_run = device.type != "cuda"
    preset = PRESETS[args.preset or ("tiny" if dry_run else "oss-3b")]
    if dry_run:
        print("DRY RUN on the CPU: it only tests the script; its numbers mean nothing", flush=True)
    name = "dry run" if dry_run else torch.cuda.get_device_name(device)
    run = Run(
        "gpu-dry-run" if dry_run else "gpu",
        preset.name,
        "bf16",
        torch.get_num_threads(),
        results=Path(os.environ.get("OUT") or RESULTS),
        about={"dry_run": dry_run, "device": name, "weights": "random", "gpu_before": machine.gpu_facts()},
        calibration=lambda: calibrate(device),
        key=name,
    )
    bench = Bench(run, device, begin + args.limit_s)
    parts = [("lm", gpu_lm.measure), ("codec", gpu_codec.measure)]
    if not dry_run if args.compile is None else args.compile:
        parts += [("codec", gpu_codec.measure_compiled), ("lm", gpu_lm.measure_compiled)]
    with torch.no_grad():
        for part, measure in parts:
            if args.only in (None, part):
                measure(bench, preset)
                bench.release()
    run.about["gpu_after"] = machine.gpu_facts()
    run.finish(json_line=False)  # a remote runner may return only the end of the output
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks/gpu.sh", description=__doc__.splitlines()[0])
    parser.add_argument("--preset", choices=PRESETS, help="default oss-3b; tiny in a dry run")
    parser.add_argument("--device", choices=("cuda", "cpu"), help="default: the GPU if torch finds one")
    parser.add_argument("--only", choices=("lm", "codec"))
    parser.add_argument("--limit-s", type=float, default=LIMIT_S, help="start nothing new after these seconds")
    parser.add_argument(
        "--compile", action=argparse.BooleanOptionalAction, help="measure torch.compile too (default: on a GPU)"
    )
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
