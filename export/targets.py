"""Every graph's builder and comparison. Importing it loads torch and onnx."""

from __future__ import annotations

from heartvoice.export.decoder_graph import build_heartcodec_decoder
from heartvoice.export.f0_graph import build_f0_network
from heartvoice.export.flow_graph import build_heartcodec_condition, build_heartcodec_flow
from heartvoice.export.heartmula_graph import build_heartmula_step
from heartvoice.export.htdemucs_graph import build_htdemucs
from heartvoice.export.parity import Target
from heartvoice.export.parity_codec import compare_condition, compare_decoder, compare_flow
from heartvoice.export.parity_f0 import compare_f0
from heartvoice.export.parity_lm import compare_heartmula
from heartvoice.export.parity_separator import compare_htdemucs
from heartvoice.export.parity_speaker import compare_speaker
from heartvoice.export.speaker_graph import build_speaker_network

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
        lambda preset, source, precision: build_htdemucs(preset.separator, source, precision),
        compare_htdemucs,
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
    "heartmula_step": Target(build_heartmula_step, compare_heartmula, layered=True),
}
