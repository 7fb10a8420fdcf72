"""Spleeter's U-nets as PyTorch modules, channels first.

Source: Hennequin, Khlif, Voituret and Moussallam, "Spleeter: a fast and efficient music source separation tool with
pre-trained models", 2020; spleeter 2.4.2 (MIT).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from heartvoice.checkpoints.spleeter_names import KERNEL, LAST_KERNEL, up_input_width, up_widths
from heartvoice.config.presets import SpleeterConfig
from heartvoice.errors import CheckpointError

NORM_EPS = 1e-3
LEAK = 0.2


def check_sizes(sizes: SpleeterConfig) -> None:
    """Check that networks of these sizes can be built.

    Raises:
        CheckpointError: the message gives field, limit and value.
    """
    grid = 2 ** len(sizes.filters)
    for field, value in (("frames", sizes.frames), ("bins", sizes.bins)):
        if value < grid or value % grid:
            raise CheckpointError(f"separator: {field}: expected a multiple of {grid}, got {value}")
    if sizes.bins > sizes.n_fft // 2 + 1:
        raise CheckpointError(f"separator: bins: expected at most {sizes.n_fft // 2 + 1}, got {sizes.bins}")
    if sizes.mask_above not in ("zeros", "average"):
        raise CheckpointError(f"separator: mask_above: expected zeros or average, got {sizes.mask_above}")


class UNet(nn.Module):
    """One source's network without its last activation; its skips are convolutions before norm and activation."""

    def __init__(self, sizes: SpleeterConfig) -> None:
        """Build it on torch's default device."""
        super().__init__()
        down, up = sizes.filters, up_widths(sizes)
        levels = range(len(down))
        self.down = nn.ModuleList([nn.Conv2d((2, *down)[i], down[i], KERNEL, stride=2) for i in levels])
        self.down_norm = nn.ModuleList([nn.BatchNorm2d(width, NORM_EPS) for width in down[:-1]])
        self.up = nn.ModuleList(
            [nn.ConvTranspose2d(up_input_width(sizes, i), up[i], KERNEL, stride=2, padding=1) for i in levels]
        )
        self.up_norm = nn.ModuleList([nn.BatchNorm2d(width, NORM_EPS) for width in up])
        self.last = nn.Conv2d(1, 2, LAST_KERNEL, dilation=2, padding=3)
        self._down_activation = nn.ELU() if sizes.elu else nn.LeakyReLU(LEAK)
        self._up_activation = nn.ELU() if sizes.elu else nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Map magnitudes [B, 2, T, F] to logits of the same shape; T and F are multiples of 64."""
        skips: list[Tensor] = []
        for level, convolution in enumerate(self.down):
            if level:
                x = self._down_activation(self.down_norm[level - 1](skips[-1]))
            skips.append(convolution(nn.functional.pad(x, (1, 2, 1, 2))))  # one before, two after: TensorFlow's "same"
        x = skips.pop()
        for level, (convolution, norm) in enumerate(zip(self.up, self.up_norm, strict=True)):
            if level:
                x = torch.cat([skips.pop(), x], dim=1)
            x = norm(self._up_activation(convolution(x)[..., :-1, :-1]))  # cropped by one before and two after
        logits: Tensor = self.last(x)
        return logits


class Spleeter(nn.Module):
    """The networks of all sources."""

    def __init__(self, sizes: SpleeterConfig) -> None:
        """Build them on torch's default device.

        Raises:
            CheckpointError: the sizes do not fit together.
        """
        super().__init__()
        check_sizes(sizes)
        self.sizes = sizes
        self.networks = nn.ModuleList([UNet(sizes) for _ in sizes.sources])

    def never_read(self, name: str) -> bool:
        """Return True for the norms' counters, which inference does not use."""
        return name.endswith(".num_batches_tracked")

    @torch.inference_mode()
    def forward(self, magnitudes: Tensor) -> Tensor:
        """Map magnitudes [B, 2, T, F] to estimates [B, S, 2, T, F] in the order of the sources."""
        logits = torch.stack([network(magnitudes) for network in self.networks], dim=1)
        share = logits.softmax(dim=1) if self.sizes.softmax else logits.sigmoid()
        return share * magnitudes[:, None]
