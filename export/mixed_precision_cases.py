"""Test inputs for half precision (`emulate.py`): noise at each graph's scale, as in the parity tests.

Noise shows the effect of rounding on a network's sums. It does not show the outliers that trained weights make of real
signals; for those, arrays recorded from real songs are read from files (`recorded_inputs`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from heartvoice.arrays import Array
from heartvoice.checkpoints.bigvgan import LOG_MEL_MEAN, LOG_MEL_STD
from heartvoice.checkpoints.random_f0 import LOG_MEL_MEAN as F0_MEL_MEAN
from heartvoice.checkpoints.random_f0 import LOG_MEL_VARIANCE as F0_MEL_VARIANCE
from heartvoice.config.presets import (
    Preset,
    RoformerConfig,
    SeparatorConfig,
    SpeakerConfig,
    SpleeterConfig,
    SwiftF0Config,
    WavlmConfig,
)
from heartvoice.errors import ExportError
from heartvoice.export.layout import GraphModel
from heartvoice.keyed_random import normal, uniform
from heartvoice.stages.separation.transform import SegmentTransform

Arrays = dict[str, Array]
FRAMES = 96
"""Latent, mel or filter bank frames of a case by default."""
HALF_OUTPUTS: Mapping[str, tuple[str, ...]] = {"heartmula_step": ("logits",)}
"""Outputs that are compared; default all. Codes are drawn, and keys and values are inner tensors."""


def half_case(model: GraphModel, preset: Preset, frames: int = FRAMES) -> Arrays:
    """Return the inputs of one graph of a preset.

    Args:
        model: the graph.
        preset: its sizes.
        frames: length, if the graph's length is dynamic.
    """
    return _CASES[model.name](preset, frames)


def recorded_inputs(folder: Path, model: str) -> Arrays | None:
    """Read inputs recorded from a real run, `MODEL.npz`; None if there are none.

    Raises:
        ExportError: the file is damaged.
    """
    path = folder / f"{model}.npz"
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError) as error:
        raise ExportError(f"{path}: not a file of arrays: {error}") from error


def _noise(name: str, *shape: int, scale: float = 1.0, mean: float = 0.0) -> Array:
    values: Array = normal(0, f"half {name}", 0, shape) * np.float32(scale) + np.float32(mean)
    return values


def _condition(preset: Preset, frames: int) -> Arrays:
    shape = (1, preset.codec.num_quantizers, frames)
    return {"codes": (uniform(0, "half codes", 0, shape) * preset.codec.codebook_size).astype(np.int32)}


def _codec_flow(preset: Preset, frames: int) -> Arrays:
    """Make a guided window at half of the flow's time: noise and signal in equal parts."""
    sizes = preset.codec
    context = _noise("context", 2, frames, sizes.out_channels)
    context[:, frames // 3 :] = 0
    mu = _noise("mu", 2, frames, sizes.dim)
    mu[0] = 0  # the unconditional row
    return {
        "x": _noise("x", 2, frames, sizes.out_channels),
        "context": context,
        "mu": mu,
        "t": np.full((2, 1), 0.5, np.float32),
    }


def _decoder(preset: Preset, frames: int) -> Arrays:
    return {"latents": _noise("latents", 2, preset.codec.latent_hidden_dim, frames, scale=0.5)}


def _spleeter(preset: Preset, _frames: int) -> Arrays:
    """Make the magnitudes of one segment of a chord and noise."""
    from heartvoice.export.parity_separator import magnitudes

    assert isinstance(preset.separator, SpleeterConfig)
    return {"magnitudes": magnitudes(preset.separator, 1)}


def _roformer(preset: Preset, _frames: int) -> Arrays:
    """Make the features of one chunk of a chord and noise."""
    from heartvoice.export.parity_separator import features

    assert isinstance(preset.separator, RoformerConfig)
    return {"features": features(preset.separator, 1)}


def _htdemucs(preset: Preset, _frames: int) -> Arrays:
    """Make one segment of a chord and noise at the network's length."""
    from heartvoice.export.parity_separator import music

    assert isinstance(preset.separator, SeparatorConfig)
    mix = music(preset.separator, 1)
    return {"mix": mix, "spectrum": SegmentTransform(preset.separator).forward(mix[0])[None]}


def _speaker(preset: Preset, frames: int) -> Arrays:
    from heartvoice.export.parity_speaker import speaker_noise

    sizes = preset.speaker
    batch, length = (2, 160) if isinstance(sizes, SpeakerConfig) else (1, 2 * frames)
    if isinstance(sizes, WavlmConfig):
        length = 16_000
    return {"features": speaker_noise(sizes, batch, length, 0)}


def _style(preset: Preset, frames: int) -> Arrays:
    return {"features": _noise("bank", 1, 2 * frames, preset.style.n_bands, scale=2)}


def _f0(preset: Preset, frames: int) -> Arrays:
    sizes = preset.f0
    if isinstance(sizes, SwiftF0Config):
        from heartvoice.export.parity_f0 import voices

        return {"features": voices(0, 1, 256 * frames)[:, None]}
    length = -(-frames // 32) * 32
    return {"features": _noise("mel", 1, sizes.n_mels, length, scale=F0_MEL_VARIANCE**0.5, mean=F0_MEL_MEAN)}


def _content(preset: Preset, _frames: int) -> Arrays:
    from heartvoice.export.parity_svc import content_inputs

    return content_inputs(preset.svc.whisper, 1)


def _regulator(preset: Preset, frames: int) -> Arrays:
    from heartvoice.export.parity_svc import regulator_case

    return regulator_case(preset.svc.regulator, -(-frames * 901 // 776), frames)


def _svc_flow(preset: Preset, frames: int) -> Arrays:
    from heartvoice.export.parity_svc import flow_rows

    return flow_rows(preset.svc.dit, 2, frames)


def _vocoder(preset: Preset, frames: int) -> Arrays:
    mel = _noise("mel", 1, preset.svc.vocoder.num_mels, frames // 2, scale=LOG_MEL_STD, mean=LOG_MEL_MEAN)
    return {"mel": mel}


def _lm(preset: Preset, frames: int) -> Arrays:
    """Make a guided song's prompt of `frames` positions."""
    lm, backbone = preset.lm, preset.lm.backbone
    ids = (uniform(0, "half text", 0, (1, frames)) * lm.text_vocab_size).astype(np.int64)
    inputs: Arrays = {
        "text_ids": ids,
        "codes": np.zeros((1, lm.audio_num_codebooks), np.int64),
        "style": _noise("style", 1, lm.muq_dim),
        "style_index": np.array([frames // 2]),
        "n_new": np.array([frames]),
        "position": np.zeros(2, np.int64),
        "row_song": np.zeros(2, np.int64),
        "cond_row": np.array([0]),
        "uncond_row": np.array([1]),
        "temperature": np.ones(1, np.float32),
        "top_k": np.ones(1, np.int64),
        "cfg_scale": np.full(1, 1.5, np.float32),
        "uniform": np.zeros((1, lm.audio_num_codebooks), np.float32),
        "allow_eos": np.ones(1, np.bool_),
    }
    empty = np.zeros((2, backbone.num_kv_heads, 0, backbone.head_dim), np.float32)
    return inputs | {f"{kind}_past_{layer}": empty for layer in range(backbone.num_layers) for kind in "kv"}


_CASES: Mapping[str, Callable[[Preset, int], Arrays]] = {
    "heartcodec_condition": _condition,
    "heartcodec_flow": _codec_flow,
    "heartcodec_decoder": _decoder,
    "htdemucs": _htdemucs,
    "spleeter": _spleeter,
    "roformer": _roformer,
    "speaker_network": _speaker,
    "f0_network": _f0,
    "content_encoder": _content,
    "svc_regulator": _regulator,
    "svc_flow": _svc_flow,
    "svc_style": _style,
    "vocoder": _vocoder,
    "heartmula_step": _lm,
}
