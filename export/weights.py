"""Where an export's weights come from: a folder of official files, or a seed."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from heartvoice.checkpoints import Checkpoint, TensorSource, build_module, listed, random_checkpoint
from heartvoice.errors import CheckpointError
from heartvoice.export.layout import Network
from heartvoice.export.tokenizer_file import byte_tokenizer
from heartvoice.presets import GenerationIds, HeartCodecSizes, HeartMuLaSizes, Preset

OFFICIAL = "official"
TOKENIZER, GENERATION = "tokenizer.json", "gen_config.json"
_LM_FOLDER, _CODEC_FOLDER = "HeartMuLa-oss-*", "HeartCodec-oss"


@dataclass(frozen=True)
class Weights:
    """Everything that an export is made from."""

    preset: Preset
    """The named preset, with the sizes that the files themselves state."""
    origin: str
    """`random seed=N`, or `official`."""
    opened: Mapping[Network, Callable[[], TensorSource]]
    """Opens each network's checkpoint; random ones load torch, which an export that has nothing to do avoids."""
    tokenizer: Callable[[], str]
    """Text of tokenizer.json."""
    gen_config: str
    """Text of gen_config.json."""

    def source(self, network: Network) -> TensorSource:
        """The checkpoint of a network."""
        return self.opened[network]()

    def hashes(self, network: Network) -> dict[str, str]:
        """What identifies a network's weights: sha256 of each file by name (read whole), or the seed."""
        if self.origin != OFFICIAL:
            return {"random": self.origin}
        source = self.source(network)
        assert isinstance(source, Checkpoint)
        return source.sha256()


def random_weights(preset: Preset, seed: int) -> Weights:
    """Random weights of a preset, the same for the same seed; what comes out of them is noise."""
    return Weights(
        preset,
        f"random seed={seed}",
        {
            "lm": cache(lambda: random_checkpoint(preset.lm, seed)),
            "codec": cache(lambda: random_checkpoint(preset.codec, seed)),
        },
        cache(lambda: byte_tokenizer(preset.lm.text_vocab_size)),
        json.dumps(asdict(preset.ids), indent=1, sort_keys=True) + "\n",
    )


def official_weights(folder: Path, preset: Preset) -> Weights:
    """Weights of an official release.

    Args:
        folder: holds `HeartMuLa-oss-3B/` and `HeartCodec-oss/` (each `config.json` and safetensors, one file or
            shards), `tokenizer.json` and `gen_config.json`.
        preset: its name is kept and its number of positions is the most that is; sizes are those of the files.

    Raises:
        CheckpointError: something is missing, damaged, or does not fit its own `config.json`.
    """
    lm, codec = Checkpoint.open(_folder(folder, _LM_FOLDER)), Checkpoint.open(_folder(folder, _CODEC_FOLDER))
    generation, tokenizer = _text(folder / GENERATION), _text(folder / TOKENIZER)
    try:
        lm_sizes, codec_sizes = HeartMuLaSizes.from_config(lm.config), HeartCodecSizes.from_config(codec.config)
        sized = replace(
            preset,
            lm=lm_sizes,
            codec=codec_sizes,
            ids=GenerationIds.from_config(_parsed(folder / GENERATION, generation)),
            max_positions=min(preset.max_positions, lm_sizes.backbone.max_seq_len),
        )
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{folder}: {error}") from error
    verify(lm, lm_sizes)
    verify(codec, codec_sizes)
    return Weights(sized, OFFICIAL, {"lm": lambda: lm, "codec": lambda: codec}, lambda: tokenizer, generation)


def verify(source: TensorSource, sizes: HeartMuLaSizes | HeartCodecSizes) -> None:
    """Check names and shapes of every tensor that decoding reads; no value is read.

    Raises:
        CheckpointError: one is missing or misshapen.
    """
    wanted = build_module(sizes, decode_only=True).state_dict()
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
