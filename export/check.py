"""Finds differences between the contracts, the committed configs and an exported repository."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from heartvoice.config.presets import Preset
from heartvoice.contracts.models import HEARTMULA, MODELS, models_with
from heartvoice.contracts.types import ModelSpec
from heartvoice.errors import EngineError, HeartvoiceError
from heartvoice.export import layout
from heartvoice.export.configs import COMMITTED, check_checkout, configs, model_files
from heartvoice.export.layout import GraphModel
from heartvoice.export.repository import quantized_as, read_json
from heartvoice.runtime.repository import GRAPH, INDEX, MANIFEST, Repository
from heartvoice.runtime.tensorrt_plans import REPORT, active_plan, graph_hashes

_ADVICE = "run `heartvoice export` again"


def committed_drift(folder: Path = COMMITTED) -> list[str]:
    """List how a checkout's `model_repository` differs from the contracts; empty if it agrees.

    Raises:
        ExportError: the folder is missing, because this is an installation and not a checkout.
    """
    check_checkout(folder)
    found: list[str] = []
    wanted = {name: text for model in MODELS.values() for name, text in model_files(model).items()}
    for name, text in wanted.items():
        found += _generated(folder, name, text, "run `heartvoice export configs`")
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and "__pycache__" not in path.parts and name not in wanted:
            found.append(f"{name}: no contract has this file")
    return found


def repository_drift(root: Path) -> list[str]:
    """List how an exported repository differs from the contracts; every graph is hashed."""
    repository = Repository(root)
    try:
        index, preset = repository.index, repository.preset
    except (HeartvoiceError, KeyError, TypeError, ValueError) as error:
        return [str(error) if isinstance(error, EngineError) else f"{INDEX}: damaged: {error!r}"]
    graphs = layout.graph_models(preset, quantized_as(root))
    found: list[str] = []
    for model in graphs.values():
        for name, text in configs(model.spec).items():
            found += _generated(root, name, text, _ADVICE)
        found += _graph(root, model, preset, index)
    models = models_with(preset.separator.engine)
    for name, spec in models.items():
        if name not in graphs:
            found += _plain(root, spec)
    known = {*models, *graphs, INDEX, REPORT}
    found += _plans(repository, tuple(graphs))
    found += [f"{path.name}: no contract has this model" for path in sorted(root.iterdir()) if path.name not in known]
    return found


def _plans(repository: Repository, graphs: tuple[str, ...]) -> Iterator[str]:
    """List TensorRT plans whose graph has changed. `doctor` checks the machine that they are made for."""
    for name in graphs:
        try:
            plan = active_plan(repository, name)
            if plan is not None:
                plan.check(plan.made_for, graph_hashes(repository, name))
                plan.content()
        except EngineError as error:
            yield f"{name}: {error}"


def _generated(root: Path, name: str, text: str, advice: str) -> Iterator[str]:
    path = root / name
    if not path.is_file():
        yield f"{name}: missing; {advice}"
    elif path.read_text(encoding="utf-8", errors="replace") != text:
        yield f"{name}: differs from the contracts; {advice}"


def _plain(root: Path, model: ModelSpec) -> Iterator[str]:
    """Check a model without a graph: generated config and adapter, the LM's tokenizer and ids."""
    for name, text in model_files(model).items():
        yield from _generated(root, name, text, _ADVICE)
    if model is HEARTMULA:
        for name in ("1/tokenizer.json", "1/gen_config.json"):
            if not read_json(root / model.name / name):
                yield f"{model.name}/{name}: missing or damaged; {_ADVICE}"


def _graph(root: Path, model: GraphModel, preset: Preset, index: Mapping[str, Any]) -> Iterator[str]:
    manifest = read_json(root / model.name / MANIFEST)
    if not manifest:
        yield f"{model.name}/{MANIFEST}: missing or damaged; {_ADVICE}"
        return
    network_hashes = index.get("sources", {}).get(model.network, {})
    origin = str(index.get("origins", {}).get(model.network))
    licence = index.get("licences", {}).get(model.network)
    head = layout.manifest_head(model, preset, manifest.get("precision", "fp32"), origin, network_hashes, licence)
    for key, value in head.items():
        if manifest.get(key) != value:
            what = "other code" if key == "code" else f"another {key} than {INDEX} and the contracts say"
            yield f"{model.name}/{MANIFEST}: made from {what}; {_ADVICE}"
    files = manifest.get("files", {})
    if Path(GRAPH).name not in files:
        yield f"{model.name}/{MANIFEST}: lists no {Path(GRAPH).name}; {_ADVICE}"
    for name, entry in files.items():
        path = root / model.name / "1" / name
        if not path.is_file():
            yield f"{model.name}/1/{name}: missing; {_ADVICE}"
        elif layout.sha256(path) != entry.get("sha256"):
            yield f"{model.name}/1/{name}: its sha256 is not the manifest's; {_ADVICE}"
    if (root / model.name / GRAPH).is_file():
        yield from _tensors(root / model.name / GRAPH, model)


def _tensors(path: Path, model: GraphModel) -> Iterator[str]:
    """Compare names, dtypes and dims of a graph's inputs and outputs with the contract."""
    import onnx

    from heartvoice.export.graph_builder import pinned, value_info

    try:
        graph = onnx.load(str(path), load_external_data=False).graph
    except Exception as error:  # protobuf raises its own DecodeError
        yield f"{model.name}/{GRAPH}: not an ONNX file: {error}"
        return
    for kind, specs, infos in (
        ("input", model.spec.inputs, graph.input),
        ("output", model.spec.outputs, graph.output),
    ):
        wanted = {spec.name: _described(value_info(pinned(spec, model.axes), model.batch)) for spec in specs}
        there = {info.name: _described(info) for info in infos}
        for name in sorted(wanted.keys() | there.keys()):
            if wanted.get(name) != there.get(name):
                yield (
                    f"{model.name}/{GRAPH}: {kind} {name}: the contract says {wanted.get(name, 'nothing')}, "
                    f"the graph {there.get(name, 'nothing')}"
                )


def _described(info: Any) -> str:
    """`FLOAT [batch, latent_frame, 16]`."""
    import onnx

    tensor = info.type.tensor_type
    dims = ", ".join(dim.dim_param or str(dim.dim_value) for dim in tensor.shape.dim)
    return f"{onnx.TensorProto.DataType.Name(tensor.elem_type)} [{dims}]"
