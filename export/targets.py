"""Every graph's builder and comparison. Importing it loads torch and onnx."""

from __future__ import annotations

from heartvoice.export.decoder_graph import build_heartcodec_decoder
from heartvoice.export.flow_graph import build_heartcodec_condition, build_heartcodec_flow
from heartvoice.export.heartmula_graph import build_heartmula_step
from heartvoice.export.parity import Target
from heartvoice.export.parity_codec import compare_condition, compare_decoder, compare_flow
from heartvoice.export.parity_lm import compare_heartmula

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
    "heartmula_step": Target(build_heartmula_step, compare_heartmula, layered=True),
}
