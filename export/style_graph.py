"""The converter's style encoder as a graph: CAMPPlus, under a contract of its own.

Contract: `contracts.SVC_STYLE`. The nodes are those of the speaker encoder's graph, whose tensors have the same
names; a repository holds both where its speaker encoder is another network. Source: seed_vc spec, section 8.
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
    """Build the graph of `contracts.SVC_STYLE`: filter bank [B, T, bands], its mean over time removed, to style.

    Args:
        sizes: decide the network.
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
