"""Initial weights of the language model, with a head start for copying words from the prompt.

What copying needs is there from the first step: one head looks one position back, and a word has the same vector in
the prompt, in the cursor, and in the head that predicts it. From plain random weights, 500 steps taught no copying.
"""

from __future__ import annotations

import math

import torch
from torch import nn

from heartvoice.models.heartmula import HeartMuLa
from heartvoice.models.llama import Layer
from train.demo import words
from train.demo.layout import CLOCK, CLOCKS, Cursor, cursor_id
from train.demo.prompt import N_USES, word_token

_CODE = 0.05
"""Deviation of a code's vector."""
_TEXT_WORD, _CURSOR_WORD, _HEAD_WORD = 0.1, 0.2, 0.06
"""Scales of a word's vector in its three places."""
_USES = 0.5
"""Scale of the vectors of uses that follow, beside a word's."""
_CONSTANT = 1.0
"""Value of channel 0 of every embedding, by which the first head finds the position before."""
_SHARPNESS = 8.0
_PAIRS = 4
"""Fastest rotations, which tell the position before from its neighbours."""


@torch.no_grad()
def initialise(network: HeartMuLa) -> None:
    """Set all weights, drawing from torch's global generator."""
    for name, parameter in network.named_parameters():
        if name.startswith("audio_embeddings"):
            nn.init.normal_(parameter, std=_CODE)
        elif "embedding" in name or name.endswith("bias"):  # text, no prompt, style: as large as a word
            nn.init.normal_(parameter, std=_TEXT_WORD)
        elif parameter.ndim > 1:
            fan_in = parameter.shape[1]
            ends_branch = "output_proj" in name or "w2" in name
            nn.init.normal_(parameter, std=(0.5 if ends_branch else 1.0) / math.sqrt(fan_in))
    _tie_words(network)
    _look_back(network)


def _tie_words(network: HeartMuLa) -> None:
    width = network.sizes.backbone.embed_dim
    parities, far = _USES * torch.randn(2, width), _USES * torch.randn(width)
    for number, word in enumerate(words.phonemes()):
        vector = torch.randn(width)
        for uses in range(N_USES):
            place = word_token(word, uses)
            network.text_embeddings.weight[place] = _TEXT_WORD * (vector + parities[uses % 2] + uses // 2 * far)
        for parity in range(2):
            place = cursor_id(Cursor(number, parity))
            network.audio_embeddings.weight[place] = _CURSOR_WORD * (vector + parities[parity])
            network.codebook0_head.weight[place] = _HEAD_WORD * (vector + parities[parity])
    clock = CLOCK * network.sizes.audio_vocab_size
    network.audio_embeddings.weight[clock + CLOCKS : clock + 2 * CLOCKS] += _CURSOR_WORD * far


def _look_back(network: HeartMuLa) -> None:
    """Have head 0 of layer 0 attend to the position before, by a constant channel and the rotation."""
    layers = [layer for layer in network.backbone.layers if isinstance(layer, Layer)]
    for layer in layers:
        attention, mlp = layer.attn, layer.mlp
        for linear in (attention.q_proj, attention.k_proj, attention.v_proj, mlp.w1, mlp.w3):
            linear.weight[:, 0] = 0
    for text in (network.text_embeddings.weight, network.unconditional_text_embedding.weight, network.muq_linear.bias):
        text *= _TEXT_WORD / text.square().mean(-1, keepdim=True).sqrt()  # equally large, so that the constant is
        text[..., 0] = _CONSTANT
    network.audio_embeddings.weight[:, 0] = _CONSTANT / network.sizes.audio_num_codebooks
    size = float(network.text_embeddings.weight.square().mean(1).sqrt().mean())
    constant = _CONSTANT / size  # after the norm
    first = layers[0].attn
    first.q_proj.weight[: first.head_dim] = 0
    first.k_proj.weight[: first.head_dim] = 0
    angles = torch.from_numpy(network.backbone.rotary.frequencies)[:_PAIRS]
    pairs = torch.arange(_PAIRS) * 2
    first.q_proj.weight[pairs, 0] = _SHARPNESS / constant
    first.k_proj.weight[pairs, 0] = _SHARPNESS / constant * angles.cos()
    first.k_proj.weight[pairs + 1, 0] = _SHARPNESS / constant * angles.sin()
