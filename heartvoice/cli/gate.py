"""The command `heartvoice evaluate gate`: has the sound become worse?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from heartvoice.cli.evaluate import progress_bar
from heartvoice.cli.gate_world import BASELINE, checkout, open_world
from heartvoice.cli.options import JsonOption, ServerChoice
from heartvoice.errors import HeartvoiceError, InvalidRequestError, ModelUnavailableError
from heartvoice.optional_dependencies import require

if TYPE_CHECKING:
    from heartvoice.evaluation.gate.baseline import Move
    from heartvoice.evaluation.gate.measures import Values
    from heartvoice.evaluation.gate.world import GateCover, GateSong, World
    from heartvoice.evaluation.judges import Judges
    from heartvoice.runtime.repository import Repository

OUTPUT = Path("build/gate")
RESULT, PICTURE = "gate.json", "gate.png"
N_SEEDS = 8


@dataclass(frozen=True)
class Listed:
    """What of the list is measured."""

    songs: Sequence[GateSong]
    covers: Sequence[GateCover]


def gate(
    serve: Annotated[
        Path, typer.Option(metavar="REPOSITORY", help="Start a server over this exported repository, and measure it.")
    ],
    baseline: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help=f"The numbers to compare with. Default: the checkout's {BASELINE}."),
    ] = None,
    songs: Annotated[int | None, typer.Option(min=0, help="Only the first songs of the list.")] = None,
    covers: Annotated[int | None, typer.Option(min=0, help="Only the first covers of the list.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of all songs and covers.")] = 0,
    write: Annotated[
        bool, typer.Option("--write", help="Make FILE anew, of the whole list with several seeds; compare nothing.")
    ] = False,
    seeds: Annotated[int, typer.Option(min=3, help="With --write: how many seeds, from --seed on.")] = N_SEEDS,
    other_weights: Annotated[
        bool,
        typer.Option("--other-weights", help="Compare with numbers of other weights: are these ones better?"),
    ] = False,
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="DIR", help=f"Where {RESULT} and {PICTURE} go.")
    ] = OUTPUT,
    as_json: JsonOption = False,
) -> None:
    """Make a fixed list of songs and covers, measure their sound, and exit 1 if any number became worse.

    The list and its true sound are in a checkout's train/demo: twenty songs and twenty covers of the preset `demo`.

    For example:

        heartvoice evaluate gate --serve build/repository/demo

        heartvoice evaluate gate --serve build/repository/demo --songs 5 --covers 5

    A number is worse if it moved by more than its tolerance, which FILE has from several seeds. FILE holds for the
    weights and the list with which it was made; with others the command ends with 1 and says so, but for other weights
    with --other-weights: new ones replace old ones only if nothing became worse.

    It prints a table of what moved, and writes the numbers and a picture.

    What each number means: docs/how-to/evaluate.md.
    """
    require(
        "evaluate", "torch", "onnx", "onnxruntime", "soxr", "scipy", "matplotlib", "ctranslate2", "tokenizers",
        "rapidfuzz", "num2words", "py3langid",
    )  # fmt: skip
    from heartvoice.audio.encode import replacing
    from heartvoice.evaluation.gate import baseline as numbers
    from heartvoice.evaluation.gate import report
    from heartvoice.runtime.repository import Repository

    if write and (songs, covers) != (None, None):
        raise InvalidRequestError("--write, --songs, --covers: expected the whole list, got a part of it")
    file = baseline or checkout() / BASELINE
    world, repository = open_world(), Repository(serve)
    listed, left_out = _listed(world, repository, songs, covers)
    listed_as = {"list": world.identity}
    identity = {**listed_as, "weights": repository.index["sources"]}
    compared = None if write else numbers.load(file, listed_as if other_weights else identity)
    console = Console(stderr=as_json)
    if left_out:
        console.print(left_out, markup=False, highlight=False, soft_wrap=True)
    runs = _runs(world, serve, listed, range(seed, seed + (seeds if write else 1)))
    if compared is None:
        text = numbers.dumps(numbers.collect(identity, runs))
        with replacing(file) as made:
            made.write(text.encode())
        console.print(f"{file}: of {len(runs)} seeds", markup=False, highlight=False, soft_wrap=True)
        return
    values = runs[seed]
    moves = numbers.compare(compared, values)
    text = report.dumps(moves, values, identity, seed)
    output.mkdir(parents=True, exist_ok=True)
    with replacing(output / RESULT) as made:
        made.write(text.encode())
    report.draw(moves, output / PICTURE)
    if as_json:
        print(text, end="")
    report.show(moves, console)
    console.print(f"{output / RESULT} and {PICTURE}", markup=False, highlight=False, soft_wrap=True)
    _fail(moves)


def _listed(world: World, repository: Repository, songs: int | None, covers: int | None) -> tuple[Listed, str]:
    """Choose what is measured, and say what the repository cannot be measured by.

    Raises:
        InvalidRequestError: songs of this repository are noise, or nothing is left to measure.
    """
    from heartvoice.contracts.network_names import CONVERTER_NETWORKS, TITLES

    noise = [TITLES[name] for name in ("lm", "codec") if repository.is_random(name)]
    if noise:
        raise InvalidRequestError(
            f"--serve: expected trained weights, got random ones of {' and '.join(noise)}: their songs are noise"
        )
    left_out = ""
    if any(repository.is_random(name) for name in CONVERTER_NETWORKS):
        if covers:
            raise InvalidRequestError("--covers: expected 0, as the converter's weights are random: they are noise")
        covers, left_out = 0, "not measured: covers: the converter's weights are random"
    listed = Listed(world.songs()[:songs], world.covers()[:covers])
    if not (listed.songs or listed.covers):
        raise InvalidRequestError("--songs, --covers: expected something to measure, got nothing")
    return listed, left_out


def _runs(world: World, serve: Path, listed: Listed, seeds: range) -> dict[int, Mapping[str, Values]]:
    """Measure the list with each seed, on one server."""
    from heartvoice.cli.gate_maker import ServedMaker
    from heartvoice.evaluation.gate.run import run

    runs: dict[int, Mapping[str, Values]] = {}
    with progress_bar(1 + len(seeds) * (len(listed.songs) + len(listed.covers))) as progress:
        task = progress.task_ids[0]
        progress.update(task, description="opening the judges")
        judges = _judges()
        with ServerChoice(serve=serve).client("nothing was compared") as client:
            for seed in seeds:

                def step(doing: str, seed: int = seed) -> None:
                    progress.update(task, advance=1, description=f"seed {seed}: {doing}")

                runs[seed] = run(world, ServedMaker(client), judges, seed, listed.songs, listed.covers, step)
    return runs


def _judges() -> Judges:
    """Open all judges that the measures need.

    Raises:
        ModelUnavailableError: one cannot be had; without it numbers would be missing.
    """
    from heartvoice.evaluation.judges import DNSMOS, RESEMBLYZER, SWIFT_F0
    from heartvoice.judges.opening import LyricOptions, open_judges

    judges = open_judges(lyrics=LyricOptions(language="en", optional=False))
    needed = (RESEMBLYZER, SWIFT_F0, DNSMOS)
    missing = [judges.unavailable[name] for name in needed if name in judges.unavailable]
    if missing:
        raise ModelUnavailableError("; ".join(missing))
    return judges


def _fail(moves: Sequence[Move]) -> None:
    """End with 1 if something is worse.

    Raises:
        HeartvoiceError: names the measures.
    """
    worse = [move.measure.key for move in moves if move.is_worse]
    if worse:
        raise HeartvoiceError(f"gate: worse than the baseline: {', '.join(worse)}")
