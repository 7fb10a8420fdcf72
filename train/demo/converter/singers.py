"""Singers without end: mixtures of the world's four voices, with other vocal tracts, colours and breath."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from train.demo import layout, tables
from train.demo.harmony import gender
from train.demo.voice import VoiceTables

Values = NDArray[np.float32]

HELD_OUT = 1_000_000
"""Number of the first singer that no training hears."""
HOUSE = 0.35
"""Share of the world's own singers among those that are trained on."""
WARP = 0.13
"""Formants are moved by up to so much, as a logarithm, or about 14 %."""
_TILT, _COLOUR = 1.2, 0.5
"""Deviations of the spectral tilt and of five smooth colours, in the logarithm of power."""
_BREATH = 0.35
_N_COLOURS = 5
_DESCRIBED = 256
"""Random singers whose spread decides what a style describes."""
STYLE_WIDTH = 16
"""Numbers of a style."""


def random_singer(number: int) -> VoiceTables:
    """Return the tables of one singer; those from `HELD_OUT` on are for tests."""
    rng = np.random.default_rng([7, number])
    voices, _ = tables.sounds()
    if number < HELD_OUT and rng.random() < HOUSE:
        return house_singer(int(rng.integers(len(layout.SINGERS))))
    weights = rng.dirichlet(np.full(len(layout.SINGERS), 0.4)).astype(np.float32)
    envelope, noise = (np.tensordot(weights, rows, 1) for rows in (voices.envelope, voices.noise))
    places = np.arange(len(voices.bands_hz))
    warped = np.interp(voices.bands_hz * np.exp(rng.uniform(-WARP, WARP)), voices.bands_hz, places)
    envelope, noise = _sampled(envelope, warped), _sampled(noise, warped)
    share = places / places[-1]
    shape = rng.normal(0, _TILT) * (share - 0.5)
    for order in range(1, _N_COLOURS + 1):
        shape = shape + rng.normal(0, _COLOUR) * np.cos(np.pi * order * share + rng.uniform(0, 2 * np.pi))
    envelope = envelope + shape.astype(np.float32)
    unvoiced = noise[:, :4].mean(axis=1, keepdims=True) > 0.95
    noise = np.where(unvoiced, noise, np.clip(noise * np.exp(rng.normal(0, _BREATH)), 0, 1))
    return VoiceTables(voices.bands_hz, envelope[None], noise[None].astype(np.float32))


def house_singer(singer: int) -> VoiceTables:
    """Return the tables of one of the world's singers, an index into `layout.SINGERS`."""
    voices, _ = tables.sounds()
    rows = slice(singer, singer + 1)
    return VoiceTables(voices.bands_hz, voices.envelope[rows], voices.noise[rows])


def singer_gender(tables_of: VoiceTables) -> str:
    """Return whose pitches suit a singer, by the nearer of the world's voices."""
    voices, _ = tables.sounds()
    spread = [
        float(np.square(_mean(tables_of) - _mean(house_singer(each))).mean()) for each in range(len(voices.envelope))
    ]
    return gender(int(np.argmin(spread)))


def style_of(singer: VoiceTables) -> Values:
    """Describe a singer by the mean envelope of all voiced atoms, float32 [STYLE_WIDTH], each of about unit spread."""
    mean, axes = _described()
    return np.asarray((_mean(singer) - mean) @ axes, np.float32)


@lru_cache(maxsize=1)
def _described() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    found = np.stack([_mean(random_singer(number)) for number in range(_DESCRIBED)])
    mean = found.mean(axis=0)
    _, spread, directions = np.linalg.svd(found - mean, full_matrices=False)
    deviation = spread[:STYLE_WIDTH] / np.sqrt(len(found))
    return mean, directions[:STYLE_WIDTH].T / deviation


def _mean(singer: VoiceTables) -> NDArray[np.float64]:
    voiced = singer.noise[0, :, :4].mean(axis=1) < 0.9
    envelope = singer.envelope[0, voiced].mean(axis=0).astype(np.float64)
    return np.asarray(envelope - envelope.mean())


def _sampled(rows: Values, places: NDArray[np.float64]) -> Values:
    """Return rows [N, D] at fractional columns."""
    low = np.minimum(places.astype(int), rows.shape[1] - 2)
    share = (places - low).astype(np.float32)
    return np.asarray((1 - share) * rows[:, low] + share * rows[:, low + 1], np.float32)
