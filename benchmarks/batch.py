"""How much does HeartMuLa's throughput grow when it generates eight songs at once?

    python -m benchmarks.batch [--preset mid] [--quantize int8] [--seconds 20] [--tokens 128] [--quick]

Songs are guided and sampled, with random weights, by the portable graph or, with --quantize, by the `ort` dialect. The
script measures one frame of 1, 2, 4 and 8 songs with equal numbers of cached positions. Then it alternates whole songs
through the scheduler, prompts included: eight at once and one alone. It exits with 1 if a song's codes depend on the
other songs. Run it with OMP_WAIT_POLICY=PASSIVE on a shared machine.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from benchmarks.engine_lm import read_bytes
from heartvoice.config.presets import PRESETS, Preset
from heartvoice.contracts.constants import FRAMES_PER_S
from heartvoice.export.heartmula_graph import build_heartmula_step
from heartvoice.export.heartmula_ort import build_heartmula_ort
from heartvoice.export.quantize import Quantization
from heartvoice.export.tokenizer_file import byte_tokenizer
from heartvoice.export.writer import GRAPH_FILE, write_graph
from heartvoice.loadtest.harness import RESULTS, Run, Timing, alternate
from heartvoice.models.load import random_checkpoint
from heartvoice.runtime.engines import Engine, OnnxEngine, default_threads
from heartvoice.stages.lm.engine import GraphEngine, LmEngine
from heartvoice.stages.lm.engine_ort import OrtEngine
from heartvoice.stages.lm.request import LmRequest
from heartvoice.stages.lm.scheduler import LmScheduler
from heartvoice.stages.lm.song_state import SongState

SONGS = (1, 2, 4, 8)
MOST = SONGS[-1]
BUDGET, BUDGET_INT8 = 3.0, 1.8
"""Required ratio of songs per second, eight to one, on a CPU in fp32 and with 8-bit weights (design, section 4)."""
NewEngine = Callable[[int], LmEngine]
"""Makes an engine with the given number of slots."""


class Songs:
    """Guided, sampled songs of one length; the index is the seed."""

    def __init__(self, preset: Preset, *, n_frames: int, tokens: int) -> None:
        """Set the length; `tokens` is the approximate length of each prompt."""
        self._preset, self._tokenizer = preset, Tokenizer.from_str(byte_tokenizer(preset.lm.text_vocab_size))
        self._seconds, self._lyrics = n_frames / FRAMES_PER_S, ("la " * tokens)[:tokens]

    def __getitem__(self, seed: int) -> SongState:
        """Return a song that has not started."""
        request = LmRequest(
            lyrics=self._lyrics, tags="pop", duration_s=self._seconds, min_duration_s=self._seconds, seed=seed,
            temperature=1.0, top_k=50, cfg_scale=1.5,
        )  # fmt: skip
        return SongState(request, self._tokenizer, self._preset)


def measure_steps(
    run: Run, preset: Preset, new_engine: NewEngine, choice: Quantization, *, n: int, positions: int
) -> None:
    """Measure one frame of 1 to 8 songs with about equal numbers of cached positions."""
    songs = Songs(preset, n_frames=n + 2, tokens=positions)

    def begun(count: int) -> Callable[[], object]:
        engine = new_engine(count)
        batch = [songs[seed] for seed in range(count)]
        for slot, song in enumerate(batch):
            engine.prefill(slot, song.prompt, song.next_input())
        return lambda: engine.step({slot: song.next_input() for slot, song in enumerate(batch)})

    timings = alternate({str(count): begun(count) for count in SONGS}, n=n, warmup=2)
    middle = len(songs[0].prompt.text_ids) + 2 + n // 2
    for count in SONGS:
        timing, n_bytes = timings[str(count)], read_bytes(preset.lm, choice, middle, rows=2 * count)
        floor_s = n_bytes / (run.rates["bandwidth_gb_s"] * 1e9)
        run.add(
            "LM frame of all songs", f"{count} songs", timing, baseline=timings["1"], songs=count, positions=middle,
            speedup=count * timings["1"].median / timing.median, rtf=timing.median * FRAMES_PER_S,
            read_mb=n_bytes / 1e6, floor_ms=floor_s * 1e3, share_of_floor=floor_s / timing.median,
        )  # fmt: skip


def measure_songs(run: Run, songs: Songs, new_engine: NewEngine, *, rounds: int, limit_s: float, budget: float) -> bool:
    """Measure whole songs with prompts; return True if no song's codes depend on the others."""
    scheduler = LmScheduler(new_engine(MOST), max_waiting=0)
    made: dict[int, list[NDArray[np.int32]]] = {seed: [] for seed in range(MOST)}
    turns = iter(range(10**9))

    def make(seeds: Sequence[int]) -> None:
        streams = {seed: scheduler.submit(songs[seed]) for seed in seeds}
        for seed, stream in streams.items():
            made[seed].append(np.stack(list(stream)))

    variants = {"one song": lambda: make([next(turns) % MOST]), f"{MOST} songs at once": lambda: make(range(MOST))}
    try:
        timings = alternate(variants, n=rounds, warmup=0, limit_s=limit_s)
    finally:
        scheduler.close()
    one, many = timings.values()
    differ = sum(not np.array_equal(codes[0], other) for codes in made.values() for other in codes[1:])
    _add_songs(run, "one song", one, 1, one)
    row = _add_songs(run, f"{MOST} songs at once", many, MOST, one)
    row |= {"budget": budget, "songs_that_differ": differ}
    return differ == 0


def _add_songs(run: Run, variant: str, timing: Timing, count: int, one: Timing) -> dict[str, object]:
    row = run.add("whole songs", variant, timing, baseline=one, songs=count, songs_per_s=count / timing.median)
    row["speedup"] = count / row["ratio"]
    return row


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark and return the exit status."""
    args = _parse(arguments)
    preset = PRESETS[args.preset]
    run = Run(
        "batch-quick" if args.quick else "batch", preset.name, args.quantize or "fp32", args.threads,
        results=args.results,
        about={
            "quick": args.quick, "weights": "random seed=0", "seconds": args.seconds, "tokens": args.tokens,
            "dialect": "ort" if args.quantize else "standard",
        },
    )  # fmt: skip
    with TemporaryDirectory() as folder:
        choice = Quantization.parse(args.quantize or "none")
        new_engine = _engines(preset, Path(folder), args.quantize, args.threads)
        for positions in args.positions:
            measure_steps(run, preset, new_engine, choice, n=args.frames, positions=positions)
            run.save()
        songs = Songs(preset, n_frames=round(args.seconds * FRAMES_PER_S), tokens=args.tokens)
        budget = BUDGET_INT8 if args.quantize == "int8" else BUDGET
        same = measure_songs(run, songs, new_engine, rounds=args.rounds, limit_s=args.limit, budget=budget)
    run.finish()
    if not same:
        print("a song's codes depend on the other songs", file=sys.stderr)
    return 0 if same else 1


def _engines(preset: Preset, folder: Path, quantize: str | None, threads: int) -> NewEngine:
    """Return a factory of the portable graph's engine, or of the `ort` dialect's."""
    source, path = random_checkpoint(preset.lm, 0), folder / GRAPH_FILE
    if quantize is not None:
        write_graph(build_heartmula_ort(preset, source, Quantization.parse(quantize)), folder)
        return lambda n_slots: OrtEngine(path, preset, n_slots=n_slots, threads=threads)
    write_graph(build_heartmula_step(preset, source), folder)
    graph: Engine = OnnxEngine(path, threads=threads)
    return lambda n_slots: GraphEngine(graph, preset, n_slots=n_slots)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.batch", description=__doc__.splitlines()[0])
    parser.add_argument("--preset", choices=PRESETS, default="mid")
    parser.add_argument("--quantize", metavar="none|int8|...", help="use the `ort` dialect with these weights")
    parser.add_argument("--quick", action="store_true", help="few frames, songs of one second")
    parser.add_argument("--seconds", type=float, help="length of a song (default 20)")
    parser.add_argument("--tokens", type=int, default=128, help="length of the lyrics in tokens")
    parser.add_argument("--positions", type=int, nargs="+", help="cached positions of the frames (default 256 1024)")
    parser.add_argument("--frames", type=int, help="measured frames of each batch (default 40)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of whole songs")
    parser.add_argument("--limit", type=float, default=400, help="start no round of whole songs after these seconds")
    parser.add_argument("--threads", type=int, default=default_threads())
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the result")
    args = parser.parse_args(arguments)
    args.seconds = args.seconds or (1.0 if args.quick else 20.0)
    args.positions = args.positions or ([64] if args.quick else [256, 1024])
    args.frames = args.frames or (3 if args.quick else 40)
    return args


if __name__ == "__main__":
    sys.exit(main())
