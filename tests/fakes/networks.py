"""Fakes of engines: PyTorch modules with the engine protocols."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from heartvoice.arrays import Array
from heartvoice.config.presets import PRESETS, Preset, with_separator
from heartvoice.models.heartcodec.codec import HeartCodec
from heartvoice.models.heartmula import HeartMuLa, StepInputs
from heartvoice.models.load import load_network, random_checkpoint


class BytesTokenizer:
    """A tokenizer with one id per byte."""

    class _Encoding:
        def __init__(self, ids: list[int]) -> None:
            self.ids = ids

    def encode(self, sequence: str, /) -> BytesTokenizer._Encoding:
        return self._Encoding(list(sequence.encode()))

    def get_added_tokens_decoder(self) -> dict[int, Any]:
        return {}


class TorchStep:
    """HeartMuLa.step as an engine with the graph's tensor names."""

    def __init__(self, model: HeartMuLa, eos_id: int) -> None:
        self.model, self.eos_id, self.n_calls = model, eos_id, 0

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str] | None = None) -> dict[str, Array]:
        self.n_calls += 1
        tensors = {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in inputs.items()}
        n_layers = self.model.sizes.backbone.num_layers
        used = int(tensors["position"].max())
        past = [(tensors[f"k_past_{n}"][:, :, :used], tensors[f"v_past_{n}"][:, :, :used]) for n in range(n_layers)]
        fields = {name: tensors[name] for name in StepInputs.__dataclass_fields__}
        with torch.inference_mode():
            result = self.model.step(StepInputs(**fields), past, eos_id=self.eos_id)
        arrays = {"next_codes": result.codes.numpy(), "logits": result.logits.numpy()}
        for n, (key, value) in enumerate(result.new):
            arrays |= {f"k_new_{n}": key.numpy(), f"v_new_{n}": value.numpy()}
        return {name: arrays[name] for name in outputs or arrays}


class TorchCodec:
    """HeartCodec's three graphs as `Networks`."""

    def __init__(self, model: HeartCodec) -> None:
        self.model = model
        self.calls: list[str] = []

    def run(self, name: str, inputs: Mapping[str, Array], outputs: Sequence[str] | None = None) -> dict[str, Array]:
        self.calls.append(name)
        tensors = {key: torch.from_numpy(np.array(value)) for key, value in inputs.items()}
        flow = self.model.flow_matching
        with torch.inference_mode():
            if name == "heartcodec_condition":
                return {"mu": flow.condition(tensors["codes"].long()).numpy()}
            if name == "heartcodec_flow":
                joined = torch.cat([tensors["x"], tensors["context"], tensors["mu"]], dim=-1)
                return {"velocity": flow.estimator(joined, tensors["t"][:, 0]).numpy()}
            assert name == "heartcodec_decoder"
            return {"audio": self.model.scalar_model.decode(tensors["latents"]).numpy()}


def tiny() -> Preset:
    return with_separator(PRESETS["tiny"], "htdemucs")


def torch_step(preset: Preset, seed: int = 0) -> TorchStep:
    model = load_network(preset.lm, random_checkpoint(preset.lm, seed))
    assert isinstance(model, HeartMuLa)
    return TorchStep(model, preset.ids.audio_eos_id)


def torch_codec(preset: Preset, seed: int = 0) -> TorchCodec:
    model = load_network(preset.codec, random_checkpoint(preset.codec, seed), decode_only=True)
    assert isinstance(model, HeartCodec)
    return TorchCodec(model)


def text(value: str) -> Array:
    """Make a BYTES [1] tensor."""
    return np.array([value.encode()], np.object_)
