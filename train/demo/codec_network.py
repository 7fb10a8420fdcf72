"""The networks that the codec's trainings start from: decoder, flow, and the names of their weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

import torch
from torch import Tensor, nn

from heartvoice.config.presets import HeartCodecConfig
from heartvoice.models.heartcodec.flow import Codebook, FlowMatching, Quantizer
from heartvoice.models.heartcodec.scalar import ScalarModel

_GATE = 0.3
"""Of a block's branches at first: open, or nothing would be learned behind them."""
_MODULATION = 0.3


def new_decoder(sizes: HeartCodecConfig) -> ScalarModel:
    """Make the scalar decoder with random weights from torch's global generator."""
    return ScalarModel(sizes, decode_only=True)


def new_flow(sizes: HeartCodecConfig) -> FlowMatching:
    """Make the flow with random weights from torch's global generator; its code vectors become parameters."""
    model = FlowMatching(sizes, decode_only=True)
    estimator = model.estimator
    with torch.no_grad():
        for block in (*estimator.transformer_blocks, *estimator.transformer_blocks_2):
            block.scale_shift_table[[2, 5]] = _GATE
        for modulation in (estimator.adaln_single, estimator.adaln_single_2):
            modulation.linear.weight.mul_(_MODULATION)
            modulation.linear.bias.zero_()
    for codebook in codebooks(model):
        vectors = codebook.embed
        del codebook.embed
        codebook.embed = nn.Parameter(vectors.clone())
    return model


def codebooks(model: FlowMatching) -> list[Codebook]:
    """Return the tables of all books in order."""
    return [layer._codebook for layer in model.vq_embed.layers if isinstance(layer, Quantizer)]


def tensors_of(decoder: ScalarModel, flow: FlowMatching) -> dict[str, Tensor]:
    """Return all weights by the names of the official checkpoint."""
    named: dict[str, Tensor] = {f"scalar_model.{name}": value for name, value in decoder.state_dict().items()}
    named.update({f"flow_matching.{name}": value for name, value in flow.state_dict().items()})
    return named


def config_of(sizes: HeartCodecConfig) -> Mapping[str, object]:
    """Return `config.json` of a codec."""
    return {"model_type": "heartcodec", **asdict(sizes)}
