"""The vocoder's sources of phase: noise through narrow filters, one for each pitch.

A mel spectrum does not tell the phase of a tone, and the world's tones are steady: from equal frames, a network of
convolutions can only make sound that repeats with every frame. So the highest bands, above all sound of the world, are
noise: the flow leaves them as it began. The vocoder's first layers filter one of them around each pitch of the world,
which gives the fundamental a phase that turns at the right speed and wanders slowly. They are computed, not learned.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from heartvoice.config.svc import SVC_HOP
from heartvoice.contracts.constants import STEM_RATE_HZ
from heartvoice.models.bigvgan import Activation, Bigvgan
from train.demo.harmony import MEN, WOMEN
from train.demo.layout import FRAME_HZ

N_NOISE = 10
"""Highest bands that are noise; the world ends at 11.5 kHz, below all of them."""
OCTAVES = (0.5, 1.0, 2.0)
LOWEST_HZ, HIGHEST_HZ = 90.0, 460.0
KERNEL, DILATION = 11, 9
_INNER = (KERNEL - 1) // 2 - 1
"""Taps of the second convolution on each side; with the first one they cover every lag once."""
_NEARLY_LINEAR = -3.0
"""Logarithm of the activations' frequency in these channels."""
_PROBE_FRAMES = 4000
Values = NDArray[np.float64]


def pitches() -> tuple[float, ...]:
    """Return the pitches in Hz: those of the world's singers, and their octaves."""
    units = {unit * octave for unit in (*WOMEN, *MEN) for octave in OCTAVES}
    return tuple(sorted(hz for hz in (FRAME_HZ * unit for unit in units) if LOWEST_HZ <= hz <= HIGHEST_HZ))


class Oscillators(nn.Module):
    """Noise to a phasor for each pitch."""

    def __init__(self) -> None:
        """Compute the filters."""
        super().__init__()
        self.hz = pitches()
        self.width = 2 * len(self.hz)
        self.activation_1, self.activation_2 = Activation(1), Activation(self.width)
        self.conv_1 = nn.Conv1d(1, self.width, KERNEL, dilation=DILATION, padding=DILATION * (KERNEL // 2))
        self.conv_2 = nn.Conv1d(self.width, self.width, KERNEL, padding=KERNEL // 2)
        with torch.no_grad():
            for activation in (self.activation_1, self.activation_2):
                activation.act.alpha.fill_(_NEARLY_LINEAR)
            self._tune()

    def forward(self, noise: Tensor) -> Tensor:
        """[B, 1, T] to [B, 2 * pitches, T], cosine and sine in turns, of about unit variance."""
        found: Tensor = self.conv_2(self.activation_2(self.conv_1(self.activation_1(noise))))
        return found

    def _tune(self) -> None:
        turn = 2 * np.pi * np.array(self.hz) * SVC_HOP / STEM_RATE_HZ
        outer = np.arange(KERNEL) - KERNEL // 2
        inner = np.arange(-_INNER, _INNER + 1)
        slope = np.cos(np.pi * outer / (KERNEL + 1)) ** 2
        phase = turn[:, None] * DILATION * outer
        first = np.stack([slope * np.cos(phase), -slope * np.sin(phase)], axis=1).reshape(self.width, 1, KERNEL)
        second = np.zeros((self.width, self.width, KERNEL))
        taps = slice(KERNEL // 2 - _INNER, KERNEL // 2 + _INNER + 1)
        for number, each in enumerate(turn):
            re, im = 2 * number, 2 * number + 1
            cos, sin = np.cos(each * inner), np.sin(each * inner)
            second[re, re, taps], second[re, im, taps] = cos, sin
            second[im, im, taps], second[im, re, taps] = cos, -sin
        self.conv_1.weight.copy_(torch.from_numpy(first))
        self.conv_2.weight.copy_(torch.from_numpy(second))
        for bias in (self.conv_1.get_parameter("bias"), self.conv_2.get_parameter("bias")):
            bias.zero_()
        probe = np.random.default_rng(0).standard_normal((1, 1, _PROBE_FRAMES))
        level = self(torch.from_numpy(probe).float())[0].square().mean(1).reshape(-1, 2).mean(1).sqrt()
        self.conv_2.weight.div_(level.repeat_interleave(2)[:, None, None])

    @torch.no_grad()
    def wander(self, noise: NDArray[np.float32], n_samples: int) -> dict[float, Values]:
        """Return the phase of each pitch besides that of a steady tone, in turns, for samples [n_samples].

        Args:
            noise: [T], of mel frames.
            n_samples: at 44.1 kHz, from the first frame's beginning on.
        """
        found = self(torch.from_numpy(noise)[None, None])[0].numpy().astype(np.float64)
        middle = SVC_HOP * np.arange(len(noise)) + SVC_HOP / 2
        made = {}
        for number, hz in enumerate(self.hz):
            turns = np.arctan2(found[2 * number + 1], found[2 * number]) / (2 * np.pi)
            slow = np.unwrap(turns - hz * SVC_HOP * np.arange(len(noise)) / STEM_RATE_HZ, period=1.0)
            made[hz] = np.interp(np.arange(n_samples), middle, slow) - hz * SVC_HOP / 2 / STEM_RATE_HZ
        return made


def install(network: Bigvgan, oscillators: Oscillators) -> Mapping[str, Tensor]:
    """Put oscillators into a vocoder's first layers.

    Args:
        network: its first stage has rate 1, and its blocks begin with the oscillators' kernel and dilation.
        oscillators: to be copied.

    Returns:
        For some parameters by name a mask: 0 where they are the oscillators', and shall not be trained.
    """
    width = oscillators.width
    noise, phasors = slice(0, 1), slice(1, width + 1)
    masks = {}
    fixed: dict[str, list[tuple[slice, ...]]] = {
        "conv_pre.weight": [(noise,)], "conv_pre.bias": [(noise,)],
        "ups.0.0.weight": [(slice(None), slice(0, width + 1))], "ups.0.0.bias": [(slice(0, width + 1),)],
        "resblocks.0.activations.0.act.alpha": [(noise,)], "resblocks.0.activations.0.act.beta": [(noise,)],
        "resblocks.0.convs1.0.weight": [(slice(0, width),)], "resblocks.0.convs1.0.bias": [(slice(0, width),)],
        "resblocks.0.activations.1.act.alpha": [(slice(0, width),)],
        "resblocks.0.activations.1.act.beta": [(slice(0, width),)],
        "resblocks.0.convs2.0.weight": [(slice(0, width + 1),)], "resblocks.0.convs2.0.bias": [(slice(0, width + 1),)],
    }  # fmt: skip
    named = dict(network.named_parameters())
    with torch.no_grad():
        for name, places in fixed.items():
            masks[name] = torch.ones_like(named[name])
            for place in places:
                masks[name][place] = 0
            named[name].mul_(masks[name])
        network.conv_pre.weight[0, network.conv_pre.in_channels - N_NOISE, network.conv_pre.kernel_size[0] // 2] = 1
        named["ups.0.0.weight"][0, 0] = 1
        named["resblocks.0.activations.0.act.alpha"][0] = _NEARLY_LINEAR
        named["resblocks.0.activations.1.act.alpha"][:width] = _NEARLY_LINEAR
        named["resblocks.0.convs1.0.weight"][:width, 0] = oscillators.conv_1.weight[:, 0]
        named["resblocks.0.convs2.0.weight"][phasors, :width] = oscillators.conv_2.weight
    return masks
