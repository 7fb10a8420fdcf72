"""Sizes of BS-RoFormer and MelBand-RoFormer, and their tables of bands.

Sources: roformer spec, sections 0 to 4; Lu et al., "Music source separation with band-split RoPE transformer", 2023;
Wang et al., "Mel-band RoFormer for music source separation", 2023. Keys are those of the published configurations.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from heartvoice.config.base import FromConfig, from_mapping
from heartvoice.errors import CheckpointError

Bands = tuple[tuple[int, int], ...]
"""First and last bin of each band, both inclusive."""
Kind = Literal["bs", "mel"]
_MEL_RATE, _MEL_FFT = 44_100, 2048
MAX_OVERLAP = 16
"""Most chunks that may cover a sample; published configurations have 2 to 8."""
_RESIDUALS = {"vocals": "instrumental", "instrumental": "vocals"}

# fmt: off
BS_BAND_WIDTHS: tuple[int, ...] = (*[2] * 24, *[4] * 12, *[12] * 8, *[24] * 8, *[48] * 8, 128, 129)
"""Bins of each band of the published BS-RoFormers, 1025 in all."""
MEL_BANDS: Bands = (
    (0, 6), (4, 9), (7, 12), (10, 15), (13, 18), (16, 21), (19, 24), (22, 27), (25, 30), (28, 33), (31, 36), (34, 39),
    (37, 42), (40, 45), (43, 48), (46, 52), (49, 55), (53, 59), (56, 64), (60, 68), (65, 73), (69, 78), (74, 83),
    (79, 89), (84, 96), (90, 102), (97, 109), (103, 117), (110, 125), (118, 134), (126, 144), (135, 154), (145, 164),
    (155, 176), (165, 188), (177, 202), (189, 216), (203, 231), (217, 247), (232, 264), (248, 283), (265, 303),
    (284, 324), (304, 347), (325, 371), (348, 397), (372, 425), (398, 454), (426, 486), (455, 520), (487, 557),
    (521, 596), (558, 637), (597, 682), (638, 730), (683, 781), (731, 835), (782, 894), (836, 957), (895, 1024),
)
"""Bins where the 60 filters of Slaney's mel bank (44.1 kHz, 2048 samples) are above zero.

A table, because one rounding at a filter's edge would change the shape of a weight.
"""
# fmt: on


def consecutive(widths: Iterable[int]) -> Bands:
    """Return bands of the given widths, one after the other from bin 0."""
    bands, start = [], 0
    for width in widths:
        bands.append((start, start + width - 1))
        start += width
    return tuple(bands)


BS_BANDS: Bands = consecutive(BS_BAND_WIDTHS)


@dataclass(frozen=True)
class RoformerConfig(FromConfig):
    """A RoFormer separator; defaults are those of BS-RoFormer viperx 1297."""

    engine: str = "roformer"
    name: str = "bs_roformer"
    """Its name among the separators, and its folder among the weights."""
    kind: Kind = "bs"
    bands: Bands = BS_BANDS
    dim: int = 512
    depth: int = 12
    stereo: bool = True
    stems: tuple[str, ...] = ("vocals",)
    time_transformer_depth: int = 1
    freq_transformer_depth: int = 1
    dim_head: int = 64
    heads: int = 8
    mask_estimator_depth: int = 2
    stft_n_fft: int = 2048
    stft_hop_length: int = 441
    samplerate: int = 44_100
    chunk_size: int = 352_800
    """Samples of a chunk, a multiple of the hop; otherwise a chunk loses its last samples."""
    num_overlap: int = 2
    """Chunks that cover a sample."""

    def __post_init__(self) -> None:
        """Check that bands cover all bins in order, and that chunks overlap and are a multiple of the hop."""
        covered = -1
        for first, last in self.bands:
            if not 0 <= first <= covered + 1 or last < max(first, covered):
                raise ValueError(f"bands: expected a band from bin {covered + 1} or before, got {first} to {last}")
            covered = last
        if covered != self.n_bins - 1:
            raise ValueError(f"bands: expected {self.n_bins} bins, got {covered + 1}")
        if self.chunk_size % self.stft_hop_length:
            raise ValueError(f"chunk_size: expected a multiple of {self.stft_hop_length}, got {self.chunk_size}")
        if self.chunk_size <= self.stft_n_fft // 2:
            raise ValueError(f"chunk_size: expected more than {self.stft_n_fft // 2}, got {self.chunk_size}")
        if not 2 <= self.num_overlap <= MAX_OVERLAP:
            raise ValueError(f"num_overlap: expected 2 to {MAX_OVERLAP}, got {self.num_overlap}")

    @property
    def residual(self) -> str:
        """What a network with one stem leaves of a recording; "" if it has several."""
        return "" if len(self.stems) > 1 else _RESIDUALS.get(self.stems[0], f"no_{self.stems[0]}")

    @property
    def sources(self) -> tuple[str, ...]:
        """Stems, then the residual if there is one."""
        return (*self.stems, self.residual) if self.residual else self.stems

    @property
    def segment_samples(self) -> int:
        """Samples of a chunk."""
        return self.chunk_size

    @property
    def stride_samples(self) -> int:
        """Samples between the starts of neighbouring chunks."""
        return self.chunk_size // self.num_overlap

    @property
    def channels(self) -> int:
        """Channels of the audio."""
        return 2 if self.stereo else 1

    @property
    def n_bins(self) -> int:
        """Bins of the STFT."""
        return self.stft_n_fft // 2 + 1

    @property
    def n_features(self) -> int:
        """Values of one frame: bins, channels, real and imaginary part, in this order."""
        return self.n_bins * self.channels * 2

    @property
    def n_frames(self) -> int:
        """Frames of a chunk."""
        return 1 + self.chunk_size // self.stft_hop_length

    @property
    def band_features(self) -> tuple[tuple[int, int], ...]:
        """Start and end of each band among the values of a frame."""
        per_bin = 2 * self.channels
        return tuple((first * per_bin, (last + 1) * per_bin) for first, last in self.bands)

    @property
    def mask_layers(self) -> int:
        """Linear layers of a mask estimator: the two published packages count them differently."""
        return self.mask_estimator_depth + (self.kind == "mel")

    @classmethod
    def from_published(cls, config: Mapping[str, Any]) -> RoformerConfig:
        """Read the `model` section of a published configuration.

        `freqs_per_bands` marks BS-RoFormer. MelBand-RoFormer has `num_bands`; bands other than the published 60 need
        the table `bands_first_last_bin`.

        Raises:
            CheckpointError: a setting does not fit, or is not supported.
        """
        values = dict(config)
        if values.get("linear_transformer_depth"):
            raise CheckpointError(f"linear_transformer_depth: expected 0, got {values['linear_transformer_depth']}")
        n_fft = values.get("stft_n_fft", _MEL_FFT)
        if values.get("stft_win_length", n_fft) != n_fft:
            raise CheckpointError(f"stft_win_length: expected stft_n_fft, {n_fft}, got {values['stft_win_length']}")
        if "stems" not in values:
            count = values.get("num_stems", 1)
            values["stems"] = ["vocals"] if count == 1 else [f"stem{index}" for index in range(count)]
        if len(values["stems"]) != values.get("num_stems", len(values["stems"])):
            raise CheckpointError(f"stems: expected {values['num_stems']} names, got {len(values['stems'])}")
        hop = values.setdefault("stft_hop_length", 441)
        values.setdefault("chunk_size", 8 * _MEL_RATE // hop * hop)
        values["kind"], values["bands"] = _bands(values)
        try:
            return from_mapping(cls, values)
        except ValueError as error:
            raise CheckpointError(str(error)) from error


def _bands(values: Mapping[str, Any]) -> tuple[Kind, list[list[int]]]:
    """Kind and bands of a configuration."""
    if "num_bands" not in values:
        return "bs", [list(band) for band in consecutive(values.get("freqs_per_bands", BS_BAND_WIDTHS))]
    rate, n_fft = values.get("sample_rate", _MEL_RATE), values.get("stft_n_fft", _MEL_FFT)
    table = values.get("bands_first_last_bin")
    if table is None:
        if (values["num_bands"], rate, n_fft) != (len(MEL_BANDS), _MEL_RATE, _MEL_FFT):
            raise CheckpointError(
                f"num_bands: expected {len(MEL_BANDS)} at {_MEL_RATE} Hz and {_MEL_FFT} samples, "
                f"got {values['num_bands']} at {rate} Hz and {n_fft}; other bands need bands_first_last_bin"
            )
        table = MEL_BANDS
    return "mel", [list(band) for band in table]


ROFORMERS: dict[str, RoformerConfig] = {
    "bs_roformer": RoformerConfig(),
    "bs_roformer_sw": RoformerConfig(
        name="bs_roformer_sw",
        dim=256,
        stems=("bass", "drums", "other", "vocals", "guitar", "piano"),
        stft_hop_length=512,
        chunk_size=588_800,
    ),
    "mel_band_roformer": RoformerConfig(name="mel_band_roformer", kind="mel", bands=MEL_BANDS, dim=384, depth=6),
}
"""The published networks whose tensors are known: BS-RoFormer viperx 1297 and SW, MelBand-RoFormer of Kim."""
