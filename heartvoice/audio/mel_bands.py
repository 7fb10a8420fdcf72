"""Bands of MelBand-RoFormers whose configuration has no table of bands."""

from __future__ import annotations

import numpy as np

from heartvoice.audio.dsp import mel_filter_bank
from heartvoice.config.roformer import Bands


def mel_bands(num_bands: int, sample_rate_hz: int, n_fft: int) -> Bands:
    """Return the first and last bin of each of Slaney's mel filters that is above zero.

    Bin 0 belongs to the first band and the last bin to the last band. In float64: another rounding at a filter's edge
    may change a width, and the shapes of a checkpoint then do not fit.
    """
    bank = mel_filter_bank(sample_rate_hz, n_fft, num_bands, 0.0, sample_rate_hz / 2, scale="slaney", area_norm=False)
    held = bank > 0
    held[0, 0] = held[-1, -1] = True
    bins = [np.flatnonzero(row) for row in held]
    return tuple((int(row[0]), int(row[-1])) for row in bins)
