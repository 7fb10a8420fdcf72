"""Whisper's encoder; its last hidden state is the content, the phonemes that are sung.

Log-mel frames, windows and stitching need no torch; they are in `heartvoice.stages.svc.content`. Names are those of
`transformers`. Source: seed_vc spec, section 3; A. Radford, J. W. Kim, T. Xu, G. Brockman, C. McLeavey, I. Sutskever,
"Robust Speech Recognition via Large-Scale Weak Supervision", 2022, section 2.2.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import gelu, scaled_dot_product_attention

from heartvoice.config.svc import WhisperConfig

NORM_EPS = 1e-5
KERNEL = 3
STRIDE = 2
"""Log-mel frames per content frame."""


class Attention(nn.Module):
    """Bidirectional multi-head attention; keys have no bias."""

    def __init__(self, width: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.k_proj = nn.Linear(width, width, bias=False)
        self.v_proj = nn.Linear(width, width)
        self.q_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, D] to the same."""
        query, key, value = (
            layer(x).reshape(*x.shape[:2], self.n_heads, -1).transpose(1, 2)
            for layer in (self.q_proj, self.k_proj, self.v_proj)
        )
        mixed = scaled_dot_product_attention(query, key, value)
        out: Tensor = self.out_proj(mixed.transpose(1, 2).flatten(2))
        return out


class Layer(nn.Module):
    """Attention and MLP, each after a layer norm."""

    def __init__(self, sizes: WhisperConfig) -> None:
        super().__init__()
        self.self_attn = Attention(sizes.d_model, sizes.encoder_attention_heads)
        self.self_attn_layer_norm = nn.LayerNorm(sizes.d_model, NORM_EPS)
        self.fc1 = nn.Linear(sizes.d_model, sizes.encoder_ffn_dim)
        self.fc2 = nn.Linear(sizes.encoder_ffn_dim, sizes.d_model)
        self.final_layer_norm = nn.LayerNorm(sizes.d_model, NORM_EPS)

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, D] to the same."""
        x = x + self.self_attn(self.self_attn_layer_norm(x))
        refined: Tensor = self.fc2(gelu(self.fc1(self.final_layer_norm(x))))
        return x + refined


class Encoder(nn.Module):
    """Two convolutions, a stored position table, the layers and a layer norm."""

    def __init__(self, sizes: WhisperConfig) -> None:
        super().__init__()
        width = sizes.d_model
        self.conv1 = nn.Conv1d(sizes.num_mel_bins, width, KERNEL, padding=1)
        self.conv2 = nn.Conv1d(width, width, KERNEL, STRIDE, padding=1)
        self.embed_positions = nn.Embedding(sizes.max_source_positions, width)
        self.layers = nn.ModuleList(Layer(sizes) for _ in range(sizes.encoder_layers))
        self.layer_norm = nn.LayerNorm(width, NORM_EPS)

    def forward(self, log_mel: Tensor) -> Tensor:
        """See `ContentEncoder`."""
        x = gelu(self.conv2(gelu(self.conv1(log_mel)))).transpose(1, 2)
        x = x + self.embed_positions.weight
        for layer in self.layers:
            x = layer(x)
        out: Tensor = self.layer_norm(x)
        return out


class ContentEncoder(nn.Module):
    """Log-mel frames of one window to content, by the encoder of a Whisper checkpoint."""

    def __init__(self, sizes: WhisperConfig) -> None:
        super().__init__()
        self.sizes = sizes
        self.encoder = Encoder(sizes)

    def forward(self, log_mel: Tensor) -> Tensor:
        """Encode whole windows.

        Args:
            log_mel: float32 [B, bands, 2 S], S the number of stored positions: a full window, padded with silence.

        Returns:
            float32 [B, S, D]. Attention includes the padding.
        """
        content: Tensor = self.encoder(log_mel)
        return content
