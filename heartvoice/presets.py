"""Sizes and rates of every network, by preset. No size is written anywhere else.

Names and values of the `oss-3b` preset are those of the official `config.json` files, so that a checkpoint's
configuration maps onto these classes field by field.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from fractions import Fraction
from typing import Any, TypeVar

from heartvoice.errors import CheckpointError

_T = TypeVar("_T")


def _from_mapping(cls: type[_T], values: Mapping[str, Any]) -> _T:
    """Fill a dataclass from a mapping, ignoring keys that it does not have (training-only settings)."""
    known = {f.name for f in fields(cls)}  # type: ignore[arg-type]
    return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items() if k in known})


@dataclass(frozen=True)
class TransformerSizes:
    """A Llama-shaped decoder: grouped-query attention, gated MLP, interleaved RoPE with Llama-3 scaling."""

    num_layers: int
    num_heads: int
    num_kv_heads: int
    embed_dim: int
    intermediate_dim: int
    max_seq_len: int
    norm_eps: float = 1e-5
    rope_base: float = 500_000
    rope_scale_factor: float = 32

    def __post_init__(self) -> None:
        if self.embed_dim % self.num_heads or self.num_heads % self.num_kv_heads:
            raise ValueError(f"heads do not divide: {self}")

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.embed_dim // self.num_heads


FLAVOURS: dict[str, TransformerSizes] = {
    "llama-3B": TransformerSizes(28, 24, 8, 3072, 8192, 8192),
    "llama-300M": TransformerSizes(3, 8, 4, 3072, 8192, 2048),
    "llama-7B": TransformerSizes(32, 32, 8, 4096, 14336, 8192),
    "llama-400M": TransformerSizes(4, 8, 4, 3072, 8192, 2048),
}


@dataclass(frozen=True)
class GenerationIds:
    """Ids of `gen_config.json`: text BOS and EOS, first id that ends a song, text id beside audio frames."""

    text_bos_id: int = 128_000
    text_eos_id: int = 128_001
    audio_eos_id: int = 8193
    empty_id: int = 0

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> GenerationIds:
        """Read `gen_config.json`; every field may be missing."""
        return _from_mapping(cls, config)


@dataclass(frozen=True)
class HeartMuLaSizes:
    """HeartMuLa: a backbone that runs once per frame and a depth decoder that runs inside it."""

    backbone: TransformerSizes = FLAVOURS["llama-3B"]
    decoder: TransformerSizes = FLAVOURS["llama-300M"]
    text_vocab_size: int = 128_256
    audio_vocab_size: int = 8197
    audio_num_codebooks: int = 8
    muq_dim: int = 512
    num_special: int = 5
    """Ids at the end of the audio vocabulary that are not codes (heartmula spec, section 2)."""

    @property
    def codebook_size(self) -> int:
        """Number of ids that are codes; the ids above are special."""
        return self.audio_vocab_size - self.num_special

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> HeartMuLaSizes:
        """Read an official `config.json` (flavour names) or one with explicit `backbone` and `decoder` sizes."""
        values: dict[str, Any] = {}
        for name, flavour_key, default in (
            ("backbone", "backbone_flavor", "llama-3B"),
            ("decoder", "decoder_flavor", "llama-300M"),
        ):
            if name in config:
                values[name] = _from_mapping(TransformerSizes, config[name])
                continue
            flavour = config.get(flavour_key, default)
            if flavour not in FLAVOURS:
                raise CheckpointError(f"config.json: {flavour_key} is {flavour!r}, known: {', '.join(FLAVOURS)}")
            values[name] = FLAVOURS[flavour]
        rest = {k: v for k, v in config.items() if k not in values}
        return replace(_from_mapping(cls, rest), **values)


@dataclass(frozen=True)
class HeartCodecSizes:
    """HeartCodec: RVQ lookup, a flow-matching transformer in two stacks, and a scalar codec for the waveform."""

    dim: int = 512
    codebook_size: int = 8192
    codebook_dim: int = 32
    num_quantizers: int = 8
    attention_head_dim: int = 64
    num_attention_heads: int = 24
    num_layers: int = 24
    num_layers_2: int = 6
    in_channels: int = 1024
    out_channels: int = 256
    norm_type: str = "ada_norm_single"
    num_bands: int = 1
    sample_rate: int = 48_000
    causal: bool = True
    num_samples: int = 2
    downsample_factors: tuple[int, ...] = (3, 4, 4, 4, 5)
    downsample_kernel_sizes: tuple[int, ...] = (6, 8, 8, 8, 10)
    upsample_factors: tuple[int, ...] = (5, 4, 4, 4, 3)
    upsample_kernel_sizes: tuple[int, ...] = (10, 8, 8, 8, 6)
    latent_hidden_dim: int = 128
    default_kernel_size: int = 7
    delay_kernel_size: int = 5
    init_channel: int = 64
    res_kernel_size: int = 7

    def __post_init__(self) -> None:
        if self.in_channels != 2 * self.out_channels + self.dim:
            raise ValueError(f"in_channels must be 2 * out_channels + dim: {self}")
        if self.out_channels != 2 * self.latent_hidden_dim:
            raise ValueError(f"out_channels must be 2 * latent_hidden_dim: {self}")

    @property
    def latent_hop(self) -> int:
        """Samples per latent frame: the product of the decoder's upsampling factors."""
        hop = self.num_samples
        for factor in self.upsample_factors:
            hop *= factor
        return hop

    @property
    def frame_hop(self) -> int:
        """Samples per code frame; a code frame is two latent frames."""
        return 2 * self.latent_hop

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> HeartCodecSizes:
        """Read an official `config.json`."""
        return _from_mapping(cls, config)


@dataclass(frozen=True)
class SeparatorSizes:
    """htdemucs, by the keyword arguments of its checkpoints; defaults are those of the official `htdemucs`."""

    sources: tuple[str, ...] = ("drums", "bass", "other", "vocals")
    n_models: int = 1
    """A bag: model i of several gives source i (htdemucs_ft has four)."""
    audio_channels: int = 2
    samplerate: int = 44_100
    segment: str = "39/5"
    """Seconds, as a fraction."""
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
    """Share of a segment that the next one begins in."""

    @property
    def segment_samples(self) -> int:
        """Samples of one segment."""
        return int(Fraction(self.segment) * self.samplerate)

    @property
    def stride_samples(self) -> int:
        """Samples between the starts of neighbouring segments."""
        return int((1 - self.overlap) * self.segment_samples)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> SeparatorSizes:
        """Read an index entry or a checkpoint's keyword arguments."""
        return _from_mapping(cls, config)


@dataclass(frozen=True)
class SpeakerSizes:
    """A speaker encoder: which engine, and its widths. Resemblyzer's are fixed by its published weights."""

    engine: str = "resemblyzer"
    n_bands: int = 40
    hidden: int = 256
    num_layers: int = 3
    embedding: int = 256

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> SpeakerSizes:
        """Read an index entry."""
        return _from_mapping(cls, config)


@dataclass(frozen=True)
class CampplusSizes:
    """CAMPPlus; defaults are those of the official checkpoint (seed_vc spec, section 8)."""

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

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> CampplusSizes:
        """Read an index entry."""
        return _from_mapping(cls, config)


@dataclass(frozen=True)
class SwiftF0Sizes:
    """swift-f0: a graph from its PyPI wheel, taken as it is."""

    engine: str = "swift-f0"
    hop: int = 256
    """Samples at 16 kHz between two values."""

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> SwiftF0Sizes:
        """Read an index entry."""
        return _from_mapping(cls, config)


@dataclass(frozen=True)
class RmvpeSizes:
    """RMVPE; defaults are those of the official `rmvpe.pt` (seed_vc spec, section 4)."""

    engine: str = "rmvpe"
    n_blocks: int = 4
    en_de_layers: int = 5
    inter_layers: int = 4
    in_channels: int = 1
    en_out_channels: int = 16
    n_mels: int = 128
    gru_hidden: int = 256
    n_bins: int = 360

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> RmvpeSizes:
        """Read an index entry, or the configuration beside a checkpoint."""
        return _from_mapping(cls, config)


AnySpeaker = SpeakerSizes | CampplusSizes
AnyF0 = SwiftF0Sizes | RmvpeSizes
SEPARATORS: dict[str, SeparatorSizes] = {
    "htdemucs": SeparatorSizes(),
    "htdemucs_ft": SeparatorSizes(n_models=4),
}
SPEAKERS: dict[str, AnySpeaker] = {"resemblyzer": SpeakerSizes(), "campplus": CampplusSizes()}
F0S: dict[str, AnyF0] = {"swift-f0": SwiftF0Sizes(), "rmvpe": RmvpeSizes()}


@dataclass(frozen=True)
class Preset:
    """One bundle of networks that belong together."""

    name: str
    lm: HeartMuLaSizes
    codec: HeartCodecSizes
    ids: GenerationIds = field(default_factory=GenerationIds)
    max_positions: int = 3584
    """Prompt plus song, in LM positions: 240 s of music and 584 prompt tokens."""
    separator: SeparatorSizes = SEPARATORS["htdemucs"]
    speaker: AnySpeaker = SPEAKERS["resemblyzer"]
    f0: AnyF0 = F0S["swift-f0"]

    def __post_init__(self) -> None:
        if self.lm.codebook_size != self.codec.codebook_size:
            raise ValueError(f"{self.name}: LM and codec disagree on the codebook size")
        if self.lm.audio_num_codebooks != self.codec.num_quantizers:
            raise ValueError(f"{self.name}: LM and codec disagree on the number of codebooks")
        if self.max_positions > self.lm.backbone.max_seq_len:
            raise ValueError(f"{self.name}: max_positions exceeds the backbone's {self.lm.backbone.max_seq_len}")


_TINY = Preset(
    name="tiny",
    lm=HeartMuLaSizes(
        backbone=TransformerSizes(3, 4, 2, 64, 128, 8192),
        decoder=TransformerSizes(2, 2, 1, 64, 96, 2048),
        text_vocab_size=320,
        audio_vocab_size=261,
        muq_dim=32,
    ),
    codec=HeartCodecSizes(
        dim=32,
        codebook_size=256,
        codebook_dim=8,
        attention_head_dim=16,
        num_attention_heads=2,
        num_layers=2,
        num_layers_2=2,
        in_channels=64,
        out_channels=16,
        latent_hidden_dim=8,
        init_channel=2,
    ),
    separator=SeparatorSizes(channels=4, bottom_channels=16, t_layers=2, t_heads=2, dconv_comp=2),
    ids=GenerationIds(text_bos_id=300, text_eos_id=301, audio_eos_id=257),
)

_MID = Preset(
    name="mid",
    lm=HeartMuLaSizes(
        backbone=TransformerSizes(8, 8, 2, 512, 1536, 8192),
        decoder=TransformerSizes(3, 8, 2, 512, 1536, 2048),
        text_vocab_size=4096,
        audio_vocab_size=2051,
        muq_dim=512,
    ),
    codec=HeartCodecSizes(
        dim=128,
        codebook_size=2046,
        codebook_dim=32,
        attention_head_dim=64,
        num_attention_heads=6,
        in_channels=256,
        out_channels=64,
        latent_hidden_dim=32,
        init_channel=16,
    ),
    separator=SeparatorSizes(channels=12, bottom_channels=128, t_heads=4),
    ids=GenerationIds(text_bos_id=4000, text_eos_id=4001, audio_eos_id=2047),
)

_OSS_3B = Preset(
    name="oss-3b", lm=HeartMuLaSizes(), codec=HeartCodecSizes(), separator=SEPARATORS["htdemucs_ft"], f0=F0S["rmvpe"]
)

PRESETS: dict[str, Preset] = {preset.name: preset for preset in (_TINY, _MID, _OSS_3B)}
