"""Sizes of the networks that analyse recordings: separator, speaker encoders and F0.

Import them from `heartvoice.config.presets`; the converter's sizes are in `heartvoice.config.svc`.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from heartvoice.config.base import FromConfig
from heartvoice.config.roformer import ROFORMERS, RoformerConfig


@dataclass(frozen=True)
class SeparatorConfig(FromConfig):
    """htdemucs, with the keyword arguments of its checkpoints; defaults are the official `htdemucs`'s."""

    engine: str = "htdemucs"
    sources: tuple[str, ...] = ("drums", "bass", "other", "vocals")
    n_models: int = 1
    """Number of networks in the bag; network i of several gives source i (htdemucs_ft has four)."""
    audio_channels: int = 2
    samplerate: int = 44_100
    segment: str = "39/5"
    """Segment length in seconds, as a fraction."""
    channels: int = 48
    growth: int = 2
    nfft: int = 4096
    depth: int = 4
    kernel_size: int = 8
    stride: int = 4
    freq_emb: float = 0.2
    emb_scale: float = 10.0
    context: int = 1
    context_enc: int = 0
    norm_starts: int = 4
    norm_groups: int = 4
    dconv_mode: int = 3
    dconv_depth: int = 2
    dconv_comp: int = 8
    bottom_channels: int = 512
    t_layers: int = 5
    t_hidden_scale: float = 4.0
    t_heads: int = 8
    t_max_period: float = 10_000.0
    overlap: float = 0.25
    """Share of a segment that overlaps the next one."""

    @property
    def segment_samples(self) -> int:
        """Samples per segment."""
        return int(Fraction(self.segment) * self.samplerate)

    @property
    def stride_samples(self) -> int:
        """Samples between the starts of neighbouring segments."""
        return int((1 - self.overlap) * self.segment_samples)


@dataclass(frozen=True)
class SpleeterConfig(FromConfig):
    """Spleeter; the networks are those of its published two-stem weights, bins and residual this project's choice."""

    engine: str = "spleeter"
    sources: tuple[str, ...] = ("vocals", "instrumental")
    """What the networks find, in the order of the checkpoint."""
    residual: bool = True
    """The last source is what the others leave of the recording, so that all add up to it; else its own mask's."""
    samplerate: int = 44_100
    n_fft: int = 4096
    hop: int = 1024
    frames: int = 512
    """Frames of one segment; networks see nothing of the next one. A multiple of 64."""
    bins: int = 1024
    """Lowest bins of the spectrum, which the networks see. A multiple of 64."""
    mask_above: str = "average"
    """Mask above these bins: "zeros", or "average", the mean of the frame's mask below."""
    filters: tuple[int, ...] = (16, 32, 64, 128, 256, 512)
    elu: bool = False
    """ELU in place of both activations, as with four and five stems."""
    softmax: bool = False
    """Softmax over sources in place of the sigmoid, as with five stems."""

    @property
    def segment_samples(self) -> int:
        """Samples that the frames of one segment cover."""
        return self.hop * (self.frames - 1) + self.n_fft

    @property
    def stride_samples(self) -> int:
        """Samples between the starts of neighbouring segments."""
        return self.hop * self.frames


@dataclass(frozen=True)
class SpeakerConfig(FromConfig):
    """Resemblyzer's speaker encoder; the widths are those of its published weights."""

    engine: str = "resemblyzer"
    n_bands: int = 40
    hidden: int = 256
    num_layers: int = 3
    embedding: int = 256


@dataclass(frozen=True)
class CampplusConfig(FromConfig):
    """CAMPPlus; defaults are the official checkpoint's (seed_vc spec, section 8)."""

    engine: str = "campplus"
    n_bands: int = 80
    embedding: int = 192
    head_channels: int = 32
    init_channels: int = 128
    growth: int = 32
    bottleneck: int = 128
    blocks: tuple[int, ...] = (12, 24, 16)
    dilations: tuple[int, ...] = (1, 2, 2)
    segment_frames: int = 100


@dataclass(frozen=True)
class EcapaConfig(FromConfig):
    """ECAPA-TDNN; defaults are those of the published VoxCeleb checkpoint (speaker_encoders spec, section 2)."""

    engine: str = "ecapa"
    input_size: int = 80
    """Bands of the filter bank."""
    channels: tuple[int, ...] = (1024, 1024, 1024, 1024, 3072)
    kernel_sizes: tuple[int, ...] = (5, 3, 3, 3, 1)
    dilations: tuple[int, ...] = (1, 2, 3, 4, 1)
    attention_channels: int = 128
    lin_neurons: int = 192
    """Width of the embedding."""
    res2net_scale: int = 8
    se_channels: int = 128

    @property
    def n_bands(self) -> int:
        """Bands of the filter bank, by the other encoders' name."""
        return self.input_size

    @property
    def embedding(self) -> int:
        """Width of the embedding, by the other encoders' name."""
        return self.lin_neurons


@dataclass(frozen=True)
class WavlmConfig(FromConfig):
    """WavLM with its x-vector head; defaults are those of the published base plus SV.

    Source: speaker_encoders spec, section 3. Fields are the keys of `config.json`; the last is of
    `preprocessor_config.json`.
    """

    engine: str = "wavlm"
    conv_dim: tuple[int, ...] = (512,) * 7
    conv_kernel: tuple[int, ...] = (10, 3, 3, 3, 3, 2, 2)
    conv_stride: tuple[int, ...] = (5, 2, 2, 2, 2, 2, 2)
    conv_bias: bool = False
    feat_extract_norm: str = "group"
    """"group": the first convolution has a norm over time; "layer": each has one over channels."""
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    do_stable_layer_norm: bool = False
    """Norms before attention and feed-forward in place of after them."""
    num_conv_pos_embeddings: int = 128
    num_conv_pos_embedding_groups: int = 16
    num_buckets: int = 320
    max_bucket_distance: int = 800
    layer_norm_eps: float = 1e-5
    tdnn_dim: tuple[int, ...] = (512, 512, 512, 512, 1500)
    tdnn_kernel: tuple[int, ...] = (5, 3, 3, 1, 1)
    tdnn_dilation: tuple[int, ...] = (1, 2, 3, 1, 1)
    xvector_output_dim: int = 512
    do_normalize: bool = False
    """Whether the wave is brought to mean 0 and variance 1."""

    @property
    def n_bands(self) -> int:
        """Values of a frame of the network's input, which is samples."""
        return 1

    @property
    def embedding(self) -> int:
        """Width of the embedding, by the other encoders' name."""
        return self.xvector_output_dim

    @property
    def least_samples(self) -> int:
        """Samples of the shortest wave: two frames reach the pooling, which needs a deviation."""
        n = 2 + sum((kernel - 1) * step for kernel, step in zip(self.tdnn_kernel, self.tdnn_dilation, strict=True))
        for kernel, stride in zip(reversed(self.conv_kernel), reversed(self.conv_stride), strict=True):
            n = (n - 1) * stride + kernel
        return n


@dataclass(frozen=True)
class SwiftF0Config(FromConfig):
    """swift-f0: the published graph from its PyPI wheel."""

    engine: str = "swift-f0"
    hop: int = 256
    """Samples at 16 kHz between two F0 values."""


@dataclass(frozen=True)
class RmvpeConfig(FromConfig):
    """RMVPE; defaults are the official `rmvpe.pt`'s (seed_vc spec, section 4)."""

    engine: str = "rmvpe"
    n_blocks: int = 4
    en_de_layers: int = 5
    inter_layers: int = 4
    in_channels: int = 1
    en_out_channels: int = 16
    n_mels: int = 128
    gru_hidden: int = 256
    n_bins: int = 360


AnySpeaker = SpeakerConfig | CampplusConfig | EcapaConfig | WavlmConfig
AnyF0 = SwiftF0Config | RmvpeConfig
AnySeparator = SeparatorConfig | SpleeterConfig | RoformerConfig
SEPARATORS: dict[str, AnySeparator] = {
    "spleeter": SpleeterConfig(),
    "htdemucs": SeparatorConfig(),
    "htdemucs_ft": SeparatorConfig(n_models=4),
    **ROFORMERS,
}
SPEAKERS: dict[str, AnySpeaker] = {
    "resemblyzer": SpeakerConfig(),
    "campplus": CampplusConfig(),
    "ecapa": EcapaConfig(),
    "wavlm": WavlmConfig(),
}
F0S: dict[str, AnyF0] = {"swift-f0": SwiftF0Config(), "rmvpe": RmvpeConfig()}
