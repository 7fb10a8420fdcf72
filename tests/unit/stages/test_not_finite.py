"""A network that returns NaN or Inf: every stage names it, and nothing becomes a sound."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pytest

from heartvoice.arrays import Array
from heartvoice.config.presets import PRESETS, htdemucs_of, with_separator
from heartvoice.contracts.models import MODELS
from heartvoice.errors import EngineError
from heartvoice.runtime.networks import Networks
from heartvoice.stages.codec import CodecRequest, CodecStage
from heartvoice.stages.f0 import F0Stage
from heartvoice.stages.separation.request import SeparationRequest
from heartvoice.stages.separation.stage import SeparateStage
from heartvoice.stages.speaker import SpeakerStage
from heartvoice.stages.svc.content import content_features
from heartvoice.stages.svc.flow import network_velocity
from heartvoice.stages.svc.stage import ConvertStage
from heartvoice.stages.svc.vocoder import VocodeStage

TINY = with_separator(PRESETS["tiny"], "htdemucs")
TONE = 0.3 * np.sin(2 * np.pi * 220 * np.arange(16_000) / 16_000).astype(np.float32)
LATENTS = np.zeros((2, TINY.codec.out_channels), np.float32)
ONE = CodecRequest(np.zeros((8, 1), np.int32), LATENTS[:0], LATENTS[:0])


class Broken:
    """Every network returns `value`, but those of `working` their zeros of a shape."""

    def __init__(self, value: float, **working: tuple[int, ...]) -> None:
        self.value, self.working = value, working

    def run(self, name: str, inputs: Mapping[str, Array], outputs: Sequence[str] | None = None) -> dict[str, Array]:
        shape, value = self.working.get(name), self.value
        names = outputs or [output.name for output in MODELS[name].outputs]
        return {
            n: np.full((1, 2, 2), value, np.float32) if shape is None else np.zeros(shape, np.float32) for n in names
        }


def convert(networks: Networks) -> ConvertStage:
    return ConvertStage(networks, TINY.svc, F0Stage(networks, TINY.f0), TINY.style.n_bands)


RUNS: dict[str, Callable[[Networks], object]] = {
    "heartcodec_condition": lambda networks: CodecStage(networks, TINY.codec).decode_window(ONE),
    "heartcodec_flow": lambda networks: CodecStage(networks, TINY.codec).decode_window(ONE),
    "heartcodec_decoder": lambda networks: CodecStage(networks, TINY.codec).decode_latents(LATENTS),
    "htdemucs": lambda networks: list(
        SeparateStage(networks, htdemucs_of("tiny")).separate(SeparationRequest(np.zeros((2, 100), np.float32)))
    ),
    "speaker_network": lambda networks: SpeakerStage(networks, TINY.speaker).embed(TONE),
    "f0_network": lambda networks: F0Stage(networks, TINY.f0).track(TONE),
    "content_encoder": lambda networks: content_features(networks, TONE, TINY.svc.whisper.num_mel_bins),
    "svc_style": lambda networks: convert(networks).style(TONE),
    "svc_flow": lambda networks: network_velocity(networks)(LATENTS[None], LATENTS[None], 0.0, LATENTS, LATENTS[None]),
    "vocoder": lambda networks: VocodeStage(networks, TINY.svc.vocoder).decode(
        np.zeros((TINY.svc.vocoder.num_mels, 2), np.float32)
    ),
}


@pytest.mark.parametrize("value", [np.nan, -np.inf])
@pytest.mark.parametrize("name", RUNS)
def test_results_that_are_not_finite_are_the_networks_error(name: str, value: float) -> None:
    condition = {"heartcodec_condition": (1, 2, 4)} if name == "heartcodec_flow" else {}
    with pytest.raises(EngineError, match=f"^{name}: .*: expected finite values, got NaN or Inf"):
        RUNS[name](Broken(value, **condition))


class Loud:
    """Networks whose results are finite and far too large."""

    def run(self, name: str, inputs: Mapping[str, Array], outputs: Sequence[str] | None = None) -> dict[str, Array]:
        if name == "htdemucs":
            shape = (1, len(htdemucs_of("tiny").sources))
            return {
                "spectra": np.zeros((*shape, *inputs["spectrum"].shape[1:]), np.float32),
                "waves": np.full((*shape, *inputs["mix"].shape[1:]), 1e6, np.float32),
            }
        if name == "heartcodec_condition":
            return {"mu": np.zeros((1, 2, 4), np.float32)}
        return {"velocity": np.full_like(inputs["x"], 1e6)}


@pytest.mark.parametrize("name", ["htdemucs", "heartcodec_flow"])
def test_results_that_the_next_stage_would_blame_on_the_caller_are_the_networks_error(name: str) -> None:
    with pytest.raises(EngineError, match=f"^{name}: expected values within"):
        RUNS[name](Loud())
