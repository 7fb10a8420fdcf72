"""`heartvoice export`: checkpoints into a model repository that `heartvoice serve` and Triton load."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from heartvoice.cli.optional_dependencies import require
from heartvoice.config.presets import F0S, PRESETS, SEPARATORS, SPEAKERS, Preset
from heartvoice.errors import InvalidRequestError

if TYPE_CHECKING:
    from heartvoice.export.repository import Exported
    from heartvoice.export.weights import Weights

DEFAULT_ROOT = Path("build/repository")
_NOISE = "random weights: whatever comes out of these graphs is noise"


def export(
    preset: Annotated[str, typer.Option(help=f"Sizes of the networks: {', '.join(PRESETS)}.", metavar="NAME")] = "tiny",
    weights: Annotated[
        Path | None,
        typer.Option(
            help="Folder with HeartMuLa-oss-3B/, HeartCodec-oss/, tokenizer.json, gen_config.json, demucs/, seed-vc/, "
            "whisper-small/, bigvgan/, campplus/, and rmvpe/ where that engine is used. Sizes are read from the files.",
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
        Literal["htdemucs", "htdemucs_ft"] | None,
        typer.Option(help="Another separator than the preset's: htdemucs_ft is a bag of four, four times the work."),
    ] = None,
    speaker: Annotated[
        Literal["resemblyzer", "campplus"] | None,
        typer.Option(help="Another speaker encoder than the preset's; Resemblyzer's weights come from PyPI."),
    ] = None,
    f0: Annotated[
        Literal["swift-f0", "rmvpe"] | None,
        typer.Option(help="Another F0 engine than the preset's; swift-f0's weights come from PyPI."),
    ] = None,
    precision: Annotated[
        Literal["fp32", "fp16", "bf16", "tf32"] | None,
        typer.Option(
            help="Default fp32. fp16: weights and matrix products in half; inputs, outputs and cache stay float32. For "
            "TensorRT also bf16 (its default), fp16 (both with islands in float32) and tf32."
        ),
    ] = None,
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
    target: Annotated[
        Literal["onnx", "typed", "tensorrt"],
        typer.Option(
            help="onnx: graphs out of checkpoints. From the graphs of a repository: typed (strongly typed ONNX in half "
            "precision and the report of its error; runs anywhere), tensorrt (plans for this machine's GPU; never run "
            "on one yet, see docs/how-to/gpu.md).",
        ),
    ] = "onnx",
    repository: Annotated[
        Path | None,
        typer.Option(help="Where to; default build/repository/PRESET.", metavar="DIR", file_okay=False),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(help="Make this graph alone, others stay as they are. May be repeated.", metavar="MODEL"),
    ] = None,
    timing_cache: Annotated[
        Path | None,
        typer.Option(help="TensorRT: file of layer timings; default in the user's cache folder.", metavar="FILE"),
    ] = None,
    workspace_gb: Annotated[
        float, typer.Option(help="TensorRT: scratch memory of one layer while building.", min=0.1)
    ] = 4.0,
    inputs: Annotated[
        Path | None,
        typer.Option(
            help="Half precision: folder of recorded inputs, GRAPH.npz, that its error is measured on; default noise.",
            metavar="DIR",
            exists=True,
            file_okay=False,
        ),
    ] = None,
    report: Annotated[
        bool, typer.Option(help="Half precision: measure its error by emulation on the CPU (precision.json).")
    ] = True,
    lint: Annotated[
        bool,
        typer.Option(
            "--lint",
            help="Change nothing: hold a repository's graphs against TensorRT's operator table; a table on the screen, "
            "JSON on standard output; exit 1 if TensorRT lacks, or the table does not know, what a plan needs.",
        ),
    ] = False,
    check: Annotated[
        bool,
        typer.Option(
            "--check",
            help="Change nothing: list what differs between contracts, configs, graphs and manifests; exit 1 if "
            "anything does. Without --repository only the committed configs are checked.",
        ),
    ] = False,
    write_configs: Annotated[
        bool,
        typer.Option("--write-configs", help="For developers: regenerate the committed config.pbtxt files."),
    ] = False,
) -> None:
    """Turn checkpoints into a model repository: graphs, configs, tokenizer, manifests.

    A first one, with random weights, in under a minute:

        heartvoice export --preset tiny --random-weights 0

    The official weights (25 GB of disk in fp32, twice that to replace others):

        heartvoice export --preset oss-3b --weights ~/weights

    Every graph is compared with its PyTorch module and refused if it differs.

    The repository changes all at once: after an error or Ctrl-C it is as before.

    Graphs that are up to date are left alone. Same weights, same bytes.

    TensorRT plans, on the machine whose GPU will run them, out of a repository that any machine has made:

        heartvoice export --target tensorrt --repository build/repository/oss-3b
    """
    console = Console(stderr=True)
    if write_configs:
        _write_configs(console)
        return
    if check:
        _check(console, repository)
        return
    root = repository or DEFAULT_ROOT / preset
    if lint:
        from heartvoice.cli.export_plans import run_lint

        run_lint(console, root)
        return
    if target != "onnx":
        from heartvoice.cli.export_plans import make_plans, make_typed
        from heartvoice.export.plan_export import PlanJob

        if weights is not None or random_weights is not None:
            raise InvalidRequestError(f"--target {target}: reads the graphs of {root}, so takes no weights")
        job = PlanJob(root, precision or "bf16", tuple(only or ()), report=report, inputs=inputs)
        if target == "typed":
            make_typed(console, job)
        else:
            make_plans(console, job, timing_cache, int(workspace_gb * 2**30))
        return
    if precision not in (None, "fp32", "fp16"):
        raise InvalidRequestError(f"--precision: expected fp32 or fp16 for --target onnx, got {precision}")
    if preset not in PRESETS:
        raise InvalidRequestError(f"--preset: expected one of {', '.join(PRESETS)}, got {preset!r}")
    require("export", "torch", "onnx", "onnxruntime", "tokenizers", "demucs")
    chosen = _weights(_with_engines(PRESETS[preset], separator, speaker, f0), weights, random_weights)
    bits = _quantize(lm_dialect, quantize)
    _export(console, chosen, root, "fp16" if precision == "fp16" else "fp32", only or [], bits)


def _with_engines(preset: Preset, separator: str | None, speaker: str | None, f0: str | None) -> Preset:
    """The preset with the engines that were asked for, at their full size."""
    return replace(
        preset,
        separator=SEPARATORS[separator] if separator else preset.separator,
        speaker=SPEAKERS[speaker] if speaker else preset.speaker,
        f0=F0S[f0] if f0 else preset.f0,
    )


def _quantize(dialect: Literal["standard", "ort"], choice: str | None) -> str | None:
    """How the `ort` dialect is asked for: a checked `--quantize`, which implies it, or float32; None if it is not."""
    from heartvoice.export.quantize import Quantization

    if choice is not None:
        return str(Quantization.parse(choice))
    return "none" if dialect == "ort" else None


def _weights(preset: Preset, folder: Path | None, seed: int | None) -> Weights:
    from heartvoice.export.weights import official_weights, random_weights

    if folder is not None and seed is not None:
        raise InvalidRequestError("--weights and --random-weights: expected one of them, got both")
    if folder is not None:
        return official_weights(folder, preset)
    if seed is not None:
        return random_weights(preset, seed)
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
    from heartvoice.export.repository import export_repository

    noise = weights.origin.startswith("random")
    if noise:
        console.print(f"[yellow]{_NOISE}[/]")
    _tell_licences(console, weights, only)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(binary_units=True), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        results = export_repository(
            weights,
            repository,
            precision=precision,
            only=only,
            quantize=quantize,
            reporter=_Bars(progress, console),
        )
    written = sum(result.written for result in results)
    console.print(
        f"{repository}: preset {weights.preset.name}, {written} graphs written, {len(results) - written} up to date"
    )


def _tell_licences(console: Console, weights: Weights, only: list[str]) -> None:
    """Say under which licences the weights come whose graphs are about to be made."""
    from heartvoice.export.layout import graph_models

    made = {model.network for model in graph_models(weights.preset).values() if not only or model.name in only}
    by_licence: dict[str, list[str]] = {}
    for network, licence in weights.licences.items():
        if network in made:
            by_licence.setdefault(licence, []).append(network)
    for licence, networks in by_licence.items():
        style = "yellow" if licence.startswith("GPL") else None
        console.print(
            f"weights of {', '.join(networks)}: {licence}", style=style, markup=False, highlight=False, soft_wrap=True
        )


def _check(console: Console, repository: Path | None) -> None:
    from heartvoice.export.check import repository_drift, template_drift

    found = template_drift()
    if repository is not None:
        require("export", "onnx")
        found += [f"{repository}: {line}" for line in repository_drift(repository)]
    for line in found:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    if found:
        console.print(f"{len(found)} differences")
        raise typer.Exit(1)
    console.print("contracts, configs" + (", graphs and manifests agree" if repository else " agree"))


def _write_configs(console: Console) -> None:
    from heartvoice.export.layout import write_configs

    changed = write_configs()
    for path in changed:
        console.print(f"wrote {path}", highlight=False, soft_wrap=True)
    if not changed:
        console.print("all configs are up to date")


def _quality_table(quality: Mapping[str, Any]) -> Table:
    """What quantisation changed, codebook by codebook."""
    title = f"against float32, {quality['frames']} frames, limit {quality['max_kl_nats']:g} nats"
    table = Table(title=title, title_justify="left")
    for name in ("codebook", "logits SNR", "KL", "same best code"):
        table.add_column(name, justify="right")
    for index, book in enumerate(quality["codebooks"]):
        cells = f"{book['snr_db']} dB", f"{book['kl_nats']:g} nats", f"{book['agreement']:.0%}"
        table.add_row(str(index), *cells)
    return table


class _Bars:
    """Progress bars and one line for each finished graph."""

    def __init__(self, progress: Progress, console: Console) -> None:
        self._progress, self._console = progress, console
        self._task: TaskID | None = None

    def hashing(self, network: str) -> None:
        """Say what is being read."""
        self._start(f"{network} weights: hashing", None)

    def writing(self, model: str, n_bytes: int) -> None:
        """Start a bar."""
        self._start(f"{model}: writing", n_bytes)

    def advance(self, n_bytes: int) -> None:
        """Move the bar."""
        if self._task is not None:
            self._progress.advance(self._task, n_bytes)

    def comparing(self, model: str) -> None:
        """Say that PyTorch is at work."""
        if self._task is not None:
            self._progress.update(self._task, description=f"{model}: comparing with PyTorch")

    def done(self, exported: Exported) -> None:
        """Replace the bar by a line."""
        self._stop()
        size = f"{exported.n_bytes / 1e6:.1f} MB"
        if not exported.written:
            self._console.print(f"{exported.model}: {size}, up to date", highlight=False)
            return
        errors = exported.parity.get("relative_error", {})
        worst = max(errors.values(), default=0.0)
        compared = exported.parity.get("compared")
        self._console.print(
            f"{exported.model}: {size} in {exported.seconds:.1f} s; differs from PyTorch by {worst:.0e} "
            f"(limit {exported.parity.get('tolerance'):g}; compared: {compared})",
            highlight=False,
            soft_wrap=True,
        )
        if exported.quality:
            self._console.print(_quality_table(exported.quality))

    def _start(self, description: str, total: int | None) -> None:
        self._stop()
        self._task = self._progress.add_task(description, total=total)

    def _stop(self) -> None:
        if self._task is not None:
            self._progress.remove_task(self._task)
            self._task = None
