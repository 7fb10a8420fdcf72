"""perf_analyzer's requests: what is in them is what the models take, and the same work every time."""

from __future__ import annotations

import base64
import struct
from functools import lru_cache
from typing import Any

import numpy as np
import pytest

from heartvoice.arrays import Array
from heartvoice.audio.recordings import read_recording
from heartvoice.config.presets import PRESETS, with_separator
from heartvoice.contracts.models import DEMUCS, MODELS, SPEAKER_ENCODER
from heartvoice.contracts.types import TensorSpec
from heartvoice.loadtest import work as load_work
from heartvoice.pipeline.cover_request import CoverRequest
from heartvoice.pipeline.song_request import SongRequest
from heartvoice.stages.svc.request import ConversionRequest

TINY = with_separator(PRESETS["tiny"], "htdemucs")
LOADS = {load.name: load for load in load_work.loads(TINY)}
DTYPES: dict[str, Any] = {"FP32": np.float32, "INT64": np.int64, "INT32": np.int32, "BOOL": np.bool_}


@lru_cache
def received(name: str) -> dict[str, Array]:
    """A load's tensors as the server reads them."""
    spec = MODELS[LOADS[name].model]
    known: dict[str, TensorSpec] = {tensor.name: tensor for tensor in spec.inputs}
    dtypes = {setting.name: setting.dtype for setting in spec.settings} | {t.name: t.dtype for t in known.values()}
    arrays: dict[str, Array] = {}
    for key, value in load_work.as_json(LOADS[name].inputs()).items():
        if "b64" in value:
            data = base64.b64decode(value["b64"])
            assert dtypes[key] == "BYTES"
            assert struct.unpack("<I", data[:4]) == (len(data) - 4,)
            arrays[key] = np.array([data[4:]], np.object_)
        else:
            arrays[key] = np.array(value["content"], DTYPES[dtypes[key]]).reshape(value["shape"])
    return arrays


def test_stages_and_jobs_are_loaded() -> None:
    models = {"speaker_encoder", "htdemucs", "vocoder", "demucs", "svc", "cover", "song"}
    assert models | {"heartmula", "heartcodec", "heartcodec_decoder"} == {load.model for load in LOADS.values()}


@pytest.mark.parametrize("model", [SPEAKER_ENCODER.name, DEMUCS.name])
def test_recordings_are_as_long_as_is_said(model: str) -> None:
    assert read_recording(received(model)).duration_s == LOADS[model].audio_s


def test_the_converter_takes_its_request() -> None:
    request = ConversionRequest.from_inputs(received("svc"))
    assert len(request.vocals) / 44_100 == pytest.approx(LOADS["svc"].audio_s)
    assert request.settings.steps == load_work.FLOW_STEPS
    assert request.voice is not None
    assert request.voice.duration_s == load_work.REFERENCE_S


def test_a_cover_converts_whatever_the_separator_finds() -> None:
    request = CoverRequest.from_inputs(received("cover"))
    assert request.voice.no_vocals == "convert"
    assert request.voice.convert.steps == load_work.FLOW_STEPS
    assert request.recording.duration_s == LOADS["cover"].audio_s


def test_a_song_has_a_voice_and_may_not_end_early() -> None:
    assert SongRequest.from_inputs(received("song"), TINY).voice is None
    request = SongRequest.from_inputs(received("song with a voice"), TINY)
    assert request.voice is not None
    assert request.voice.no_vocals == "convert"
    assert request.lm is not None
    assert request.lm.min_frames == request.lm.n_frames == LOADS["song"].audio_s * 12.5


@pytest.mark.parametrize("model", ["htdemucs", "vocoder"])
def test_a_graph_gets_every_input_in_its_contracts_ranks(model: str) -> None:
    arrays = received(model)
    for spec in MODELS[model].inputs:
        shape = arrays[spec.name].shape
        assert len(shape) == len(spec.shape)
        for size, axis in zip(shape, spec.shape, strict=True):
            assert size == axis if isinstance(axis, int) else axis.min <= size <= axis.max
    if model == "vocoder":
        (mel,) = arrays.values()
        assert mel.shape == (TINY.svc.vocoder.num_mels, load_work.VOCODER_FRAMES)
        assert LOADS[model].audio_s * 44_100 == load_work.VOCODER_FRAMES * TINY.svc.vocoder.hop


def test_a_message_holds_what_the_json_says() -> None:
    message = load_work.message(LOADS["vocoder"])
    (mel,) = LOADS["vocoder"].inputs().values()
    assert list(message.inputs[0].shape) == [1, *mel.shape], "a native graph has a batch axis"
    assert message.raw_input_contents[0] == mel.tobytes()
    assert list(load_work.message(LOADS["svc"]).inputs[0].shape) == [len(received("svc")["vocals"])]


def test_the_codecs_window_is_one_window() -> None:
    codes = received("heartcodec")["codes"]
    assert codes.shape == (8, 93)
    assert codes.max() < TINY.codec.codebook_size
    assert LOADS["heartcodec"].audio_s == 93 / 12.5
    assert received("heartcodec_decoder")["latents"].shape[1] == 2 * 93
