"""Length regulator: maps content and pitch to mel frames, as the condition of the flow.

The host computes nearest indices and pitch bins (`heartvoice.stages.svc.windows` and `heartvoice.stages.svc.pitch`).
Names are those of the official checkpoint. Source: seed_vc spec, section 6.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from heartvoice.config.svc import RegulatorConfig

KERNEL = 3
NORM_EPS = 1e-5
LAYERS_PER_STAGE = 3
"""Convolution, norm, activation: the step between the names `model.0`, `model.3`, ..."""


class Regulator(nn.Module):
    """Content and pitch bins to the condition."""

    def __init__(self, sizes: RegulatorConfig) -> None:
        super().__init__()
        self.sizes = sizes
        width = sizes.channels
        stages: list[nn.Module] = []
        for _ in range(sizes.n_stages):
            stages += [nn.Conv1d(width, width, KERNEL, padding=1), nn.GroupNorm(1, width, NORM_EPS), nn.Mish()]
        self.model = nn.Sequential(*stages, nn.Conv1d(width, width, 1))
        self.content_in_proj = nn.Linear(sizes.in_channels, width)
        self.f0_embedding = nn.Embedding(sizes.n_f0_bins, width)
        self.f0_mask = nn.Parameter(torch.zeros(1, width))

    def forward(self, content: Tensor, content_index: Tensor, f0_bins: Tensor | None) -> Tensor:
        """Regulate one sequence, or several of equal length.

        Args:
            content: float32 [B, S, C].
            content_index: int64 [T], the content frame of each mel frame.
            f0_bins: int64 [B, T], the pitch bin of each mel frame; None uses the embedding of an absent contour.

        Returns:
            float32 [B, T, D]. Every frame depends on all others, because each norm covers the whole sequence.
        """
        x = self.content_in_proj(content)[:, content_index]
        x = x + (self.f0_mask if f0_bins is None else self.f0_embedding(f0_bins))
        condition: Tensor = self.model(x.transpose(1, 2)).transpose(1, 2)
        return condition

    @staticmethod
    def never_read(name: str) -> bool:
        """Return True for tensors used in training only: discrete content's table and the content mask."""
        return name in ("embedding.weight", "mask_token")
