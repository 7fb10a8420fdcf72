"""What one stage of the codec's training takes from another's state."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from heartvoice.config.presets import HeartCodecConfig
from heartvoice.models.heartcodec.scalar import ScalarModel
from train.demo.codec_network import new_decoder
from train.demo.score_encoder import ScoreEncoder
from train.frame.errors import TrainingError
from train.frame.state import load_state


def trained_decoder(sizes: HeartCodecConfig, folder: Path) -> tuple[ScalarModel, ScoreEncoder]:
    """Load decoder and score encoder from the state of their training.

    Raises:
        TrainingError: there is no state.
    """
    state = load_state(folder)
    if state is None:
        raise TrainingError(f"--decoder: no training state in {folder}; run python -m train.demo decoder first")
    decoder, encoder = new_decoder(sizes), ScoreEncoder()
    decoder.load_state_dict(_below("decoder.", state.network))
    encoder.load_state_dict(_below("encoder.", state.network))
    return decoder.eval(), encoder.eval()


def _below(prefix: str, tensors: Mapping[str, Any]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
