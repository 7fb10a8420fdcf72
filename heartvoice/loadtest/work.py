"""Requests of the load tests; every request to a model is the same.

Audio, voice and seed are constant, songs do not end early, and both flows use few steps. A load test measures the
behaviour of a server, not the speed of a network.
"""

from __future__ import annotations

import base64
import io
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import soundfile
from tritonclient.grpc import service_pb2

from heartvoice import keyed_random
from heartvoice.arrays import Array
from heartvoice.audio.dsp import resample
from heartvoice.client.wire import to_raw
from heartvoice.config.presets import Preset
from heartvoice.contracts.constants import (
    CODES_PER_UNIT,
    FRAMES_PER_S,
    LATENTS_PER_FRAME,
    N_CODEBOOKS,
    SAMPLE_RATE_HZ,
    SPEECH_RATE_HZ,
    STEM_RATE_HZ,
)
from heartvoice.contracts.models import MODELS
from heartvoice.export.layout import graph_models
from heartvoice.loadtest.signals import melody

RECORDING_S, REFERENCE_S = 10.0, 5.0
FLOW_STEPS = 4
"""Flow steps of converter and codec."""
VOCODER_FRAMES = 256
LYRICS, TAGS = "[verse]\nOver the hills and far away\n", "pop, piano"
CONSENT = "nobody: this is noise"


@dataclass(frozen=True)
class Load:
    """One kind of request: model, function that makes its inputs, and its seconds of audio."""

    name: str
    inputs: Callable[[], dict[str, Array]]
    audio_s: float
    model: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "model", self.model or self.name)

    @property
    def streamed(self) -> bool:
        """True if the model streams its responses."""
        return MODELS[self.model].decoupled


def loads(preset: Preset) -> list[Load]:
    """Return the measured loads, cheapest first, jobs last."""
    separator = preset.separator.engine
    segment_s = preset.separator.segment_samples / preset.separator.samplerate
    vocoder_s = VOCODER_FRAMES * preset.svc.vocoder.hop / STEM_RATE_HZ
    window_s = CODES_PER_UNIT / FRAMES_PER_S
    latents = LATENTS_PER_FRAME * CODES_PER_UNIT
    return [
        Load("speaker_encoder", lambda: {"file": text(reference())}, REFERENCE_S),
        Load("vocoder", lambda: graph_inputs(preset, "vocoder", vocoder_frame=VOCODER_FRAMES), vocoder_s),
        Load("heartcodec_decoder", lambda: graph_inputs(preset, "heartcodec_decoder", latent_frame=latents), window_s),
        Load(separator, lambda: graph_inputs(preset, separator), segment_s),
        Load("heartcodec", lambda: {"codes": _codes(), "codec_steps": np.array([FLOW_STEPS])}, window_s),
        Load("heartmula", lambda: _lyrics(RECORDING_S), RECORDING_S),
        Load("demucs", lambda: {"file": text(recording(RECORDING_S))}, RECORDING_S),
        Load("svc", lambda: _vocals() | voice(), RECORDING_S),
        Load("song", lambda: song(RECORDING_S), RECORDING_S),
        Load("song with a voice", lambda: song(RECORDING_S) | voice() | _sung(), RECORDING_S, "song"),
        Load("cover", lambda: {"file": text(recording(RECORDING_S))} | voice() | _sung(), RECORDING_S),
    ]


def text(data: bytes) -> Array:
    """Make a BYTES tensor."""
    return np.array([data], np.object_)


def flac(seconds: float, seed: int) -> bytes:
    """Encode noise as FLAC; speed does not depend on its spectrum."""
    return flac_of(0.1 * keyed_random.normal(seed, "load", 0, (round(seconds * SAMPLE_RATE_HZ), 2)))


def flac_of(audio: Array) -> bytes:
    """Encode samples [N, 2] at 48 kHz as FLAC."""
    file = io.BytesIO()
    soundfile.write(file, np.clip(audio, -1, 1), SAMPLE_RATE_HZ, format="FLAC", subtype="PCM_16")
    return file.getvalue()


@lru_cache(8)
def recording(seconds: float) -> bytes:
    """Recording for covers and separation."""
    return flac(seconds, 1)


@lru_cache(1)
def reference() -> bytes:
    """Recording of the voice reference: a melody, because noise is refused."""
    audio = resample(melody(REFERENCE_S).audio, SPEECH_RATE_HZ, SAMPLE_RATE_HZ)
    return flac_of(np.repeat(audio[:, None], 2, axis=1))


def graph_inputs(preset: Preset, model: str, **lengths: int) -> dict[str, Array]:
    """One request to a native graph, without batch axis; `lengths` override the preset's axes."""
    graph = graph_models(preset)[model]
    inputs: dict[str, Array] = {}
    for spec in graph.spec.inputs:
        shape = tuple(
            axis if isinstance(axis, int) else lengths.get(axis.name, graph.axes.get(axis.name, axis.opt))
            for axis in spec.shape
        )
        inputs[spec.name] = (0.1 * keyed_random.normal(0, f"load {spec.name}", 0, shape)).astype(np.float32)
    return inputs


def voice() -> dict[str, Array]:
    """Voice reference and its other inputs."""
    return {"voice": text(reference()), "voice_consent": text(CONSENT.encode()), "svc_steps": np.array([FLOW_STEPS])}


def song(seconds: float) -> dict[str, Array]:
    """Inputs of a song of exactly this length."""
    return _lyrics(seconds) | {"codec_steps": np.array([FLOW_STEPS])}


def _lyrics(seconds: float) -> dict[str, Array]:
    length = np.array([seconds], np.float32)
    words = {"lyrics": text(LYRICS.encode()), "tags": text(TAGS.encode())}
    return words | {"duration_s": length, "min_duration_s": length}


def _sung() -> dict[str, Array]:
    """Setting that converts everything the separator returns: a recording of noise has no vocals."""
    return {"no_vocals": text(b"convert")}


def _vocals() -> dict[str, Array]:
    return {"vocals": resample(melody(RECORDING_S).audio, SPEECH_RATE_HZ, STEM_RATE_HZ).astype(np.float32)}


def _codes() -> Array:
    return np.random.default_rng(0).integers(0, 256, (N_CODEBOOKS, CODES_PER_UNIT), np.int32)


def message(load: Load) -> Any:
    """Build the request as a `ModelInferRequest`."""
    spec = MODELS[load.model]
    made = service_pb2.ModelInferRequest(model_name=load.model)
    for name, array in load.inputs().items():
        tensor = spec.input(name)
        shape = [1, *array.shape] if spec.max_batch_size else array.shape
        made.inputs.add(name=name, datatype=tensor.dtype, shape=shape)
        made.raw_input_contents.append(to_raw(array, tensor))
    return made


def as_json(inputs: dict[str, Array]) -> dict[str, Any]:
    """Convert inputs to perf_analyzer's JSON."""
    return {name: _encoded(value[0]) if value.dtype == object else _values(value) for name, value in inputs.items()}


def _encoded(data: bytes) -> dict[str, Any]:
    """Encode a BYTES tensor: perf_analyzer sends the decoded data unchanged, so the length prefix is included."""
    return {"b64": base64.b64encode(struct.pack("<I", len(data)) + data).decode(), "shape": [1]}


def _values(array: Array) -> dict[str, Any]:
    """Convert a tensor of numbers; four digits keep the file small."""
    numbers = np.round(array.astype(np.float64), 4) if array.dtype.kind == "f" else array
    return {"content": numbers.ravel().tolist(), "shape": list(array.shape)}
