"""Builds the ONNX graph of the converter's style encoder, CAMPPlus.

Contract: `contracts.SVC_STYLE`. Nodes and tensor names are those of the speaker encoder's graph. A repository has both
graphs if its speaker encoder is another network. Source: seed_vc spec, section 8.
"""

from __future__ import annotations

from dataclasses import replace

from heartvoice.config.presets import CampplusConfig
from heartvoice.contracts.graphs import SVC_STYLE, style_axes
from heartvoice.export.graph_builder import Graph, pinned, value_info
from heartvoice.export.layout import BATCH, Precision
from heartvoice.export.speaker_graph import build_speaker_network
from heartvoice.models.load import TensorSource


def build_svc_style(sizes: CampplusConfig, source: TensorSource, precision: Precision = "fp32") -> Graph:
    """Build the graph of `contracts.SVC_STYLE`: filter bank [B, T, bands] without its mean over time to style.

    Args:
        sizes: they determine the network.
        source: the weights.
        precision: of convolutions.
    """
    axes = style_axes(sizes)
    graph = build_speaker_network(sizes, source, precision)
    return replace(
        graph,
        name=SVC_STYLE.name,
        inputs=[value_info(pinned(tensor, axes), BATCH) for tensor in SVC_STYLE.inputs],
        outputs=[value_info(pinned(tensor, axes), BATCH) for tensor in SVC_STYLE.outputs],
    )
