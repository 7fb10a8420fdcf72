"""What is fuzzed: each target takes bytes and fails only by an error that is none of the expected ones.

Imported under atheris' instrumentation, so this module imports what it drives and little else.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
from google.protobuf.message import DecodeError
from tritonclient.grpc import service_pb2

from heartvoice.audio.decode import decode
from heartvoice.audio.encode import source_tags
from heartvoice.audio.recordings import read_recording
from heartvoice.checkpoints.safetensors_reader import Checkpoint
from heartvoice.checkpoints.torch_reader import TorchFile
from heartvoice.client import wire
from heartvoice.client.recordings import Recording
from heartvoice.client.requests import CoverRequest as ClientCover
from heartvoice.client.requests import SongRequest as ClientSong
from heartvoice.config.presets import PRESETS, GenerationIds
from heartvoice.contracts.constants import MAX_CHANNELS, MAX_TEXT_BYTES
from heartvoice.contracts.field_checks import STEMS_LIMITS_S, RecordingInputs, check_inputs, check_text
from heartvoice.contracts.models import MODELS
from heartvoice.contracts.texts import canonical_lyrics, canonical_tags, lyrics_warnings
from heartvoice.contracts.types import NUMPY_DTYPE
from heartvoice.errors import CheckpointError, HeartvoiceError, InvalidRequestError
from heartvoice.gateway import request_parser
from heartvoice.gateway.checks import check_request
from heartvoice.models.prompt import build_prompt, load_tokenizer, refuse_special_tokens
from heartvoice.pipeline.cover_request import CoverRequest
from heartvoice.pipeline.song_request import SongRequest
from heartvoice.stages.codec import CodecRequest
from heartvoice.stages.lm.request import LmRequest
from heartvoice.stages.svc.live import LiveState
from heartvoice.stages.svc.request import ConversionRequest
from tests.support.golden_cases import OWN_ROOT

TINY = PRESETS["tiny"]
MAX_SOUND_S = 3.0
_ELEMENTS = 1_000_000
"""Largest tensor that a request is given; the server's core has compared it with its bytes by then."""


# --------------------------------------------------------------------------------------------------------------- sound


def sound(data: bytes) -> None:
    """A stranger's recording: refused by name, or finite samples within the limits."""
    source_tags(data)
    try:
        found = decode(data, field="file", max_s=MAX_SOUND_S, max_bytes=10**7)
    except InvalidRequestError as error:
        _is_of(error, "file")
        return
    n_channels, n_samples = found.audio.shape
    assert found.audio.dtype == np.float32
    assert np.isfinite(found.audio).all()
    assert 1 <= n_channels <= MAX_CHANNELS
    assert 0 < n_samples <= MAX_SOUND_S * found.sample_rate_hz


# ------------------------------------------------------------------------------------------------------------- messages


def _parsed(kind: Any, data: bytes) -> Any:
    try:
        return kind.FromString(data)
    except DecodeError:
        return None


def request(data: bytes) -> None:
    """A request: what the gateway lets through reaches the stages' checks as Triton would hand it over."""
    try:
        parts = request_parser.split(data)
        spec = check_request(parts, MODELS)
    except HeartvoiceError:
        return
    message = _parsed(service_pb2.ModelInferRequest, data)
    assert message is not None, "the gateway let through what Triton cannot parse"
    inputs = {}
    for tensor, raw in zip(message.inputs, message.raw_input_contents, strict=False):
        shape = tuple(tensor.shape)
        assert all(size >= 0 for size in shape)
        n_elements = int(np.prod(shape, dtype=object))
        if tensor.datatype == "BYTES":
            inputs[tensor.name] = np.array([raw[4:]], object)
        else:
            dtype = np.dtype(NUMPY_DTYPE[tensor.datatype])
            assert n_elements * dtype.itemsize == len(raw), "the gateway let through a wrong size"
            inputs[tensor.name] = np.frombuffer(raw, dtype).reshape(shape)
    read = _READ.get(spec.name)
    if read is None or sum(value.size for value in inputs.values()) > _ELEMENTS:
        return
    try:
        check_inputs(spec, inputs)
        read(inputs)
    except InvalidRequestError as error:
        _names(error, ": ")


_READ: dict[str, Callable[[dict[str, Any]], object]] = {
    "song": lambda inputs: SongRequest.from_inputs(inputs, TINY),
    "heartmula": lambda inputs: LmRequest.from_inputs(inputs, TINY),
    "heartcodec": lambda inputs: CodecRequest.from_inputs(inputs, TINY.codec),
    "cover": CoverRequest.from_inputs,
    "svc": ConversionRequest.from_inputs,
    "speaker_encoder": read_recording,
    "demucs": lambda inputs: read_recording(inputs, RecordingInputs(limits_s=STEMS_LIMITS_S)),
}
_FILE = Recording(file=b"x")
_ASKED = ClientSong(lyrics="la", tags="", settings={"stems": True})
_COVERED = ClientCover(recording=_FILE, voice=_FILE, consent="me", settings={})


def reply(data: bytes) -> None:
    """A server's answers: messages of the contract, or one of our errors."""
    streamed = _parsed(service_pb2.ModelStreamInferResponse, data)
    for spec in () if streamed is None else _STREAMS:
        try:
            messages, _ = wire.decode_stream(streamed, spec)
            assert all(message is not None for message in messages)
        except HeartvoiceError:
            continue
    unary = _parsed(service_pb2.ModelInferResponse, data)
    for decoder in (
        () if unary is None else (lambda it: wire.decode_embed(it, 1), lambda it: wire.decode_render(it, 1, _ASKED))
    ):
        with suppress(HeartvoiceError):
            decoder(unary)


_STREAMS: tuple[Any, ...] = (wire.job_stream(_ASKED), wire.job_stream(_COVERED), wire.stems_stream(None))


# ---------------------------------------------------------------------------------------------------------- checkpoints


def safetensors(data: bytes) -> None:
    """A checkpoint: tensors that are there and finite, or an error that names the file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        path.write_bytes(data)
        try:
            checkpoint = Checkpoint.open(path)
            for name in checkpoint.names:
                for piece in checkpoint.pieces(name):
                    assert piece.dtype.kind != "f" or np.isfinite(piece).all()
        except CheckpointError as error:
            _names(error, "model.safetensors")


def checkpoint_index(data: bytes) -> None:
    """An index of shards, and a configuration: never a file outside the folder."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors.index.json"
        path.write_bytes(data)
        (Path(folder) / "config.json").write_bytes(data)
        try:
            Checkpoint.open(path)
        except CheckpointError as error:
            _names(error, folder)


FORBIDDEN = ("os.", "subprocess.", "socket.", "shutil.", "ctypes.", "webbrowser.", "pty.", "sys.addaudithook")
"""Audit events that opening weights must not cause; torch itself reads folders."""
ALLOWED = ("os.listdir", "os.scandir", "os.walk", "os.fwalk", "ctypes.dlopen", "ctypes.dlsym", "os.putenv")
_watching = False


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if _watching and event.startswith(FORBIDDEN) and event not in ALLOWED:
        raise AssertionError(f"weights caused {event} {arguments!r}"[:200])


sys.addaudithook(_audit)


def pickle(data: bytes) -> None:
    """A torch file: tensors, or an error; whatever it holds is never run."""
    global _watching
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights.pth"
        path.write_bytes(data)
        _watching = True
        try:
            TorchFile.open(path)
        except CheckpointError as error:
            _names(error, "weights.pth")
            if "weights caused" in str(error):
                raise AssertionError(str(error)) from error
        finally:
            _watching = False


# ---------------------------------------------------------------------------------------------------------------- texts

TOKENIZERS = [load_tokenizer(file) for file in sorted(OWN_ROOT.rglob("toy_tokenizer_*.json"))]
_IDS = GenerationIds(text_bos_id=290, text_eos_id=291)


def prompt(data: bytes) -> None:
    """Tags and lyrics, split at the first NUL: refused, or a prompt without a special token of the caller's."""
    first, _, second = data.partition(b"\0")
    try:
        tags, lyrics = first.decode("utf-8"), second.decode("utf-8")
        check_text("tags", tags, MAX_TEXT_BYTES)
        check_text("lyrics", lyrics, MAX_TEXT_BYTES)
        tags, lyrics = canonical_tags(tags), canonical_lyrics(lyrics)
        assert (canonical_tags(tags), canonical_lyrics(lyrics)) == (tags, lyrics)
        lyrics_warnings(lyrics)
    except (UnicodeDecodeError, InvalidRequestError):
        return
    for tokenizer in TOKENIZERS:
        try:
            refuse_special_tokens(tags, lyrics, tokenizer)
        except InvalidRequestError as error:
            _names(error, "special tokens")
            continue
        made = build_prompt(tags, lyrics, tokenizer, _IDS)
        special = {number for number, token in tokenizer.get_added_tokens_decoder().items() if token.special}
        ids, at = made.text_ids.tolist(), made.style_index
        of_tags, of_lyrics = ids[:at], ids[at + 1 :]
        assert of_tags[0] == of_lyrics[0] == _IDS.text_bos_id
        assert of_tags[-1] == of_lyrics[-1] == _IDS.text_eos_id
        assert not special & set(of_lyrics[1:-1]), (tags, lyrics)
        assert not special & set(of_tags[2:-2]), (tags, lyrics)


_OWNER = (1, 2, 3, 4)


def live_state(data: bytes) -> None:
    """A state of `svc` with a checksum that fits: refused, or one that packs into itself."""
    body = np.frombuffer(data[: len(data) // 4 * 4], np.float32)
    body = np.concatenate([np.array(_OWNER, np.float32), body])
    packed = np.concatenate([np.array([1, *divmod(crc32(body.tobytes()), 2**16)], np.float32), body])
    try:
        state = LiveState.unpack(packed, _OWNER)
    except InvalidRequestError as error:
        _is_of(error, "state")
        return
    assert np.array_equal(state.pack(_OWNER), packed)


def _is_of(error: InvalidRequestError, field: str) -> None:
    assert str(error).startswith(f"{field}: "), error


def _names(error: Exception, what: str) -> None:
    assert what in str(error), error


TARGETS: dict[str, Callable[[bytes], None]] = {
    "sound": sound,
    "request": request,
    "reply": reply,
    "safetensors": safetensors,
    "checkpoint_index": checkpoint_index,
    "pickle": pickle,
    "prompt": prompt,
    "live_state": live_state,
}
