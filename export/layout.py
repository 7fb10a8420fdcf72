"""The graphs of an exported repository: their axes, sizes and manifests. Light to import."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import heartvoice
from heartvoice.config.presets import (
    AnyF0,
    AnySeparator,
    AnySpeaker,
    HeartCodecConfig,
    HeartMuLaConfig,
    Preset,
    RmvpeConfig,
    RoformerConfig,
    SpleeterConfig,
)
from heartvoice.contracts.graphs import (
    CONTENT_ENCODER,
    SVC_FLOW,
    SVC_REGULATOR,
    SVC_STYLE,
    VOCODER,
    content_axes,
    flow_axes,
    heartmula_step,
    heartmula_step_ort,
    regulator_axes,
    style_axes,
    vocoder_axes,
)
from heartvoice.contracts.models import (
    F0_NETWORK,
    HEARTCODEC_CONDITION,
    HEARTCODEC_DECODER,
    HEARTCODEC_FLOW,
    SEPARATOR_GRAPHS,
    SPEAKER_NETWORK,
)
from heartvoice.contracts.network_names import Network
from heartvoice.contracts.types import Axis, ModelSpec
from heartvoice.export.code_hash import code_hash
from heartvoice.runtime.repository import sha256 as sha256  # re-exported for export and tests

if TYPE_CHECKING:
    from heartvoice.models.load import AnyConfig

OPSET, IR_VERSION = 20, 10
"""Newest version that the containers' onnxruntime and TensorRT both load."""
EXTERNAL_BYTES = 256 * 2**20
"""Weights beyond this size are stored in a separate file next to the graph."""
BATCH = "batch"
"""Name of the batch axis that `max_batch_size` adds before a contract's own axes."""
Precision = Literal["fp32", "fp16"]


@dataclass(frozen=True)
class GraphModel:
    """A model with a graph that the export writes."""

    spec: ModelSpec
    network: Network
    axes: dict[str, int]
    """Axes of the contract that the preset fixes."""
    quantize: str | None = None
    """Bits of the weights, as `quantize.Quantization` parses them; for the `ort` dialect only."""

    @property
    def name(self) -> str:
        """The model's name."""
        return self.spec.name

    @property
    def batch(self) -> str:
        """Name of the batch axis; empty if the contract has one."""
        return BATCH if self.spec.max_batch_size else ""


def lm_axes(sizes: HeartMuLaConfig) -> dict[str, int]:
    """Return the contract's axes that HeartMuLa's sizes fix."""
    return {
        "style": sizes.muq_dim,
        "kv_head": sizes.backbone.num_kv_heads,
        "head": sizes.backbone.head_dim,
        "audio_id": sizes.audio_vocab_size,
    }


def codec_axes(sizes: HeartCodecConfig) -> dict[str, int]:
    """Return the contract's axes that HeartCodec's sizes fix."""
    return {"latent": sizes.out_channels, "latent_half": sizes.latent_hidden_dim, "condition": sizes.dim}


def separator_axes(sizes: AnySeparator) -> dict[str, int]:
    """Return the contract's axes that the separator's sizes fix."""
    if isinstance(sizes, SpleeterConfig):
        return {"source": len(sizes.sources), "magnitude_frame": sizes.frames, "magnitude_bin": sizes.bins}
    if isinstance(sizes, RoformerConfig):
        return {"stem": len(sizes.stems), "chunk_frame": sizes.n_frames, "chunk_value": sizes.n_features}
    return {
        "source": len(sizes.sources),
        "segment_sample": sizes.segment_samples,
        "spectrum_bin": sizes.nfft // 2,
        "spectrum_frame": -(-sizes.segment_samples // (sizes.nfft // 4)),
    }


def speaker_axes(sizes: AnySpeaker) -> dict[str, int]:
    """Return the contract's axes that the speaker encoder's sizes fix."""
    return {"speaker_band": sizes.n_bands, "embedding": sizes.embedding}


def f0_axes(sizes: AnyF0) -> dict[str, int]:
    """Return the contract's axes that the F0 engine fixes: samples to Hz and confidence, or mel to salience."""
    if isinstance(sizes, RmvpeConfig):
        return {"f0_feature": sizes.n_mels, "f0_bin": sizes.n_bins}
    return {"f0_feature": 1, "f0_bin": 2}


def graph_models(preset: Preset, quantize: str | None = None) -> dict[str, GraphModel]:
    """Return the graphs of a preset by name, in the order of the export.

    Args:
        preset: the sizes.
        quantize: bits of the LM's weights in the `ort` dialect; None leaves that graph out.
    """
    codec = (HEARTCODEC_CONDITION, HEARTCODEC_FLOW, HEARTCODEC_DECODER)
    models = [GraphModel(spec, "codec", _of(spec, codec_axes(preset.codec))) for spec in codec]
    models.append(GraphModel(SEPARATOR_GRAPHS[preset.separator.engine], "separator", separator_axes(preset.separator)))
    models.append(GraphModel(SPEAKER_NETWORK, "speaker", speaker_axes(preset.speaker)))
    models.append(GraphModel(F0_NETWORK, "f0", f0_axes(preset.f0)))
    svc = preset.svc
    models.append(GraphModel(CONTENT_ENCODER, "svc_content", content_axes(svc.whisper)))
    models.append(GraphModel(SVC_REGULATOR, "svc_regulator", regulator_axes(svc.regulator)))
    models.append(GraphModel(SVC_FLOW, "svc_cfm", flow_axes(svc.dit)))
    models.append(GraphModel(SVC_STYLE, "svc_style", style_axes(preset.style)))
    models.append(GraphModel(VOCODER, "vocoder", vocoder_axes(svc.vocoder)))
    step = heartmula_step(preset.lm.backbone.num_layers)
    models.append(GraphModel(step, "lm", _of(step, lm_axes(preset.lm))))
    if quantize is not None:
        step = heartmula_step_ort(preset.lm.backbone.num_layers)
        models.append(GraphModel(step, "lm", _of(step, lm_axes(preset.lm)), quantize))
    return {model.name: model for model in models}


def _of(spec: ModelSpec, axes: Mapping[str, int]) -> dict[str, int]:
    """Return the axes that occur in a spec."""
    used = {axis.name for tensor in (*spec.inputs, *spec.outputs) for axis in tensor.shape if isinstance(axis, Axis)}
    return {name: size for name, size in axes.items() if name in used}


# ----------------------------------------------------------------------------------------------------------- manifests


def versions() -> dict[str, str | int]:
    """Return the package versions that may change a graph's bytes."""
    return {
        "heartvoice": heartvoice.__version__,
        "onnx": importlib.metadata.version("onnx"),
        "opset": OPSET,
        "ir": IR_VERSION,
    }


def network_sizes(preset: Preset, network: Network) -> AnyConfig:
    """Return the sizes that determine a network."""
    chosen: dict[Network, AnyConfig] = {
        "lm": preset.lm,
        "codec": preset.codec,
        "separator": preset.separator,
        "speaker": preset.speaker,
        "f0": preset.f0,
        "svc_content": preset.svc.whisper,
        "svc_regulator": preset.svc.regulator,
        "svc_cfm": preset.svc.dit,
        "svc_style": preset.style,
        "vocoder": preset.svc.vocoder,
    }
    return chosen[network]


def sizes(preset: Preset, network: Network | None = None) -> dict[str, Any]:
    """Return a preset's sizes for JSON: one network's under its name, or all under the preset's fields."""
    values: dict[str, Any]
    if network is None:
        values = {key: value for key, value in asdict(preset).items() if key != "name"}
    else:
        values = {network: asdict(network_sizes(preset, network))}
        if network == "lm":
            values |= {"ids": asdict(preset.ids), "max_positions": preset.max_positions}
    plain: dict[str, Any] = json.loads(json.dumps(values))
    return plain


def manifest_head(
    model: GraphModel,
    preset: Preset,
    precision: Precision,
    origin: str,
    hashes: Mapping[str, str],
    licence: str | None = None,
) -> dict[str, Any]:
    """Return the manifest entries that identify a graph; equal entries mean an equal graph.

    Args:
        model: the graph.
        preset: the sizes.
        precision: of the graph.
        origin: where the weights come from.
        hashes: hashes or seed of the weights.
        licence: of the weights, as far as it is known.
    """
    quantize = {} if model.quantize is None else {"quantize": model.quantize}
    return quantize | {
        "model": model.name,
        "preset": preset.name,
        "precision": precision,
        "weights": origin,
        "licence": licence,
        "sources": dict(hashes),
        "sizes": sizes(preset, model.network),
        "axes": model.axes,
        "versions": versions(),
        "code": code_hash(),
    }


def to_json(value: Mapping[str, Any]) -> str:
    """Return a manifest as text; equal values give equal text."""
    return json.dumps(value, indent=1, sort_keys=True) + "\n"
