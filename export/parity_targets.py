"""Builder and comparison of every graph. Importing this module loads torch and onnx."""

from __future__ import annotations

from typing import TypeVar

from heartvoice.config.presets import Preset, RoformerConfig, SeparatorConfig, SpleeterConfig
from heartvoice.errors import ExportError
from heartvoice.export.decoder_graph import build_heartcodec_decoder
from heartvoice.export.f0_graph import build_f0_network
from heartvoice.export.flow_graph import build_heartcodec_condition, build_heartcodec_flow
from heartvoice.export.graph_builder import Graph
from heartvoice.export.heartmula_graph import build_heartmula_step
from heartvoice.export.heartmula_ort import build_heartmula_ort
from heartvoice.export.htdemucs_graph import build_htdemucs
from heartvoice.export.layout import GraphModel, Precision
from heartvoice.export.parity import TOLERANCE, Target
from heartvoice.export.parity_codec import compare_condition, compare_decoder, compare_flow
from heartvoice.export.parity_f0 import compare_f0
from heartvoice.export.parity_lm import compare_heartmula, compare_heartmula_ort
from heartvoice.export.parity_separator import TOLERANCE as SEPARATOR_TOLERANCE
from heartvoice.export.parity_separator import compare_htdemucs, compare_roformer, compare_spleeter
from heartvoice.export.parity_speaker import compare_speaker
from heartvoice.export.parity_svc import compare_content, compare_regulator, compare_svc_flow
from heartvoice.export.parity_vocoder import compare_style, compare_vocoder
from heartvoice.export.quantize import NOTHING, Quantization
from heartvoice.export.quantize_quality import report
from heartvoice.export.roformer_graph import build_roformer
from heartvoice.export.speaker_graph import build_speaker_network
from heartvoice.export.spleeter_graph import build_spleeter
from heartvoice.export.style_graph import build_svc_style
from heartvoice.export.svc_flow_graph import build_svc_flow
from heartvoice.export.svc_graphs import build_content_encoder, build_svc_regulator
from heartvoice.export.vocoder_graph import build_vocoder
from heartvoice.models.load import TensorSource

_RIGHT_BUT_ROUNDED: dict[Precision, float] = {"fp32": 0.5}
"""Tolerance of a quantised graph, as a plausibility check; `quantize_quality` measures its quality."""

_Sizes = TypeVar("_Sizes", SeparatorConfig, SpleeterConfig, RoformerConfig)


def _sizes(preset: Preset, engine: type[_Sizes]) -> _Sizes:
    """The separator's sizes, which are those of the graph's engine."""
    assert isinstance(preset.separator, engine)
    return preset.separator


TARGETS: dict[str, Target] = {
    "heartcodec_condition": Target(
        lambda preset, source, precision: build_heartcodec_condition(preset.codec, source, precision),
        compare_condition,
        layered=False,
    ),
    "heartcodec_flow": Target(
        lambda preset, source, precision: build_heartcodec_flow(preset.codec, source, precision),
        compare_flow,
        layered=True,
    ),
    "heartcodec_decoder": Target(
        lambda preset, source, precision: build_heartcodec_decoder(preset.codec, source, precision),
        compare_decoder,
        layered=False,
    ),
    "htdemucs": Target(
        lambda preset, source, precision: build_htdemucs(_sizes(preset, SeparatorConfig), source, precision),
        compare_htdemucs,
        layered=False,
        tolerance=TOLERANCE | {"fp32": SEPARATOR_TOLERANCE},
    ),
    "spleeter": Target(
        lambda preset, source, precision: build_spleeter(_sizes(preset, SpleeterConfig), source, precision),
        compare_spleeter,
        layered=False,
        tolerance=TOLERANCE | {"fp32": SEPARATOR_TOLERANCE},
    ),
    "roformer": Target(
        lambda preset, source, precision: build_roformer(_sizes(preset, RoformerConfig), source, precision),
        compare_roformer,
        layered=False,
    ),
    "speaker_network": Target(
        lambda preset, source, precision: build_speaker_network(preset.speaker, source, precision),
        compare_speaker,
        layered=False,
    ),
    "f0_network": Target(
        lambda preset, source, precision: build_f0_network(preset.f0, source, precision),
        compare_f0,
        layered=False,
    ),
    "content_encoder": Target(
        lambda preset, source, precision: build_content_encoder(preset.svc.whisper, source, precision),
        lambda engine, network, preset, parity: compare_content(engine, network, preset.svc.whisper, parity),
        layered=False,
    ),
    "svc_regulator": Target(
        lambda preset, source, precision: build_svc_regulator(preset.svc.regulator, source, precision),
        lambda engine, network, preset, parity: compare_regulator(engine, network, preset.svc.regulator, parity),
        layered=False,
    ),
    "svc_flow": Target(
        lambda preset, source, precision: build_svc_flow(preset.svc.dit, source, precision),
        lambda engine, network, preset, parity: compare_svc_flow(engine, network, preset.svc.dit, parity),
        layered=False,
    ),
    "svc_style": Target(
        lambda preset, source, precision: build_svc_style(preset.style, source, precision),
        compare_style,
        layered=False,
    ),
    "vocoder": Target(
        lambda preset, source, precision: build_vocoder(preset.svc.vocoder, source, precision),
        compare_vocoder,
        layered=False,
    ),
    "heartmula_step": Target(build_heartmula_step, compare_heartmula, layered=True),
}


def target_of(model: GraphModel) -> Target:
    """Return a graph's target, with its quantisation if it has one."""
    if model.quantize is None:
        return TARGETS[model.name]
    chosen = Quantization.parse(model.quantize)
    exact = chosen == NOTHING

    def build(preset: Preset, source: TensorSource, precision: Precision) -> Graph:
        if precision != "fp32":
            raise ExportError(f"{model.name}: expected precision fp32, got {precision}; for fewer bits use quantize")
        return build_heartmula_ort(preset, source, chosen)

    return Target(
        build,
        compare_heartmula_ort,
        layered=True,
        tolerance=TOLERANCE if exact else _RIGHT_BUT_ROUNDED,
        inspect=None if exact else lambda preset, source, folder: report(preset, source, chosen, folder),
    )
