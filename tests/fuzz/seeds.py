"""The seeds that every fuzzer starts from, made here: `python -m tests.fuzz.seeds` writes them anew."""

from __future__ import annotations

import io
import json
import pickle
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from tritonclient.grpc import service_pb2

from heartvoice.stages.svc.live import LiveState
from tests.fakes import server as fake_server
from tests.support import music
from tests.support.raw import request

FOLDER = Path(__file__).parent / "corpus"


def _tone() -> np.ndarray:
    return np.asarray(0.3 * np.sin(np.arange(1600) * 0.2), np.float32)


def _sound() -> Iterator[tuple[str, bytes]]:
    kinds = (
        ("WAV", "PCM_16"), ("WAV", "FLOAT"), ("WAVEX", "PCM_24"), ("FLAC", "PCM_16"), ("OGG", "VORBIS"),
        ("OGG", "OPUS"), ("MP3", "MPEG_LAYER_III"), ("AIFF", "PCM_16"), ("RF64", "PCM_16"),
    )  # fmt: skip
    for container, subtype in kinds:
        yield f"{container}-{subtype}".lower(), music.encode(_tone(), 16_000, container, subtype)
    wav = music.encode(_tone()[:50], 8000, "WAV", "PCM_16")
    yield "wav-endless", wav[:40] + b"\xff\xff\xff\xff" + wav[44:]
    yield "id3", b"ID3\4\0\0\x7f\x7f\x7f\x7f" + music.encode(_tone(), 16_000, "MP3")[:200]


def _request() -> Iterator[tuple[str, bytes]]:
    def word(value: bytes) -> np.ndarray:
        return np.array([value], object)

    short = np.array([1.0], np.float32)
    wav = music.encode(_tone()[:100], 16_000, "WAV", "PCM_16")
    for name, model, inputs in (
        ("song", "song", {"lyrics": word(b"la"), "tags": word(b"pop"), "duration_s": short}),
        ("codes", "song", {"codes": np.zeros((8, 2), np.int32), "stems": np.array([True])}),
        ("lm", "heartmula", {"lyrics": word(b"la"), "seed": np.array([7]), "style": np.zeros(32, np.float32)}),
        (
            "codec",
            "heartcodec",
            {"codes": np.zeros((8, 1), np.int32), "context_latents": np.zeros((1, 16), np.float32)},
        ),
        ("cover", "cover", {"file": word(wav), "voice": word(wav), "voice_consent": word(b"me")}),
        ("embed", "speaker_encoder", {"audio": _tone()[None, :64], "sample_rate": np.array([16_000])}),
        ("stems", "demucs", {"file": word(wav), "sources": word(b"vocals")}),
        ("svc", "svc", {"vocals": _tone()[:64], "voice_key": word(b"0" * 64), "voice_consent": word(b"me")}),
    ):
        made: dict[str, Any] = inputs
        yield name, request(model, made).SerializeToString()
    typed = service_pb2.ModelInferRequest(model_name="song")
    typed.inputs.add(name="lyrics", datatype="BYTES", shape=[1]).contents.bytes_contents.append(b"la")
    yield "typed", typed.SerializeToString()
    above = service_pb2.ModelInferRequest(model_name="heartcodec")
    above.inputs.add(name="codes", datatype="INT32", shape=[8, 3002])
    above.raw_input_contents.append(b"")
    yield "above-the-contract", above.SerializeToString()


def _reply() -> Iterator[tuple[str, bytes]]:
    for name, made in (
        ("audio", fake_server.audio(0, 8)),
        ("codes", fake_server.codes(0, 2)),
        ("event", fake_server.event("lm", 1, 2)),
        ("report", fake_server.report()),
        ("cover-report", fake_server.cover_report()),
        ("stems", fake_server.mix_stems(0, 4)),
        ("error", fake_server.error_response("INVALID_ARG: lyrics: no")),
        ("final", fake_server.final()),
    ):
        yield name, made.SerializeToString()


def _safetensors() -> Iterator[tuple[str, bytes]]:
    def file(header: object, data: bytes = b"") -> bytes:
        text = json.dumps(header).encode()
        return struct.pack("<Q", len(text)) + text + data

    for dtype, size in (("F32", 4), ("F16", 2), ("BF16", 2), ("I64", 8)):
        entry = {"dtype": dtype, "shape": [2, 2], "data_offsets": [0, 4 * size]}
        yield dtype.lower(), file({"w": entry, "__metadata__": {"format": "pt"}}, b"\0" * 4 * size)
    yield "empty", file({})
    nested = b"[" * 20_000
    yield "nested", struct.pack("<Q", len(nested)) + nested
    yield "infinite", file({"w": {"dtype": "F32", "shape": [float("inf")], "data_offsets": [0, 4]}}, b"\0" * 4)
    yield "overflow", file({"w": {"dtype": "F32", "shape": [2**20, 4], "data_offsets": [0, 2**24]}})


def _checkpoint_index() -> Iterator[tuple[str, bytes]]:
    yield "shards", json.dumps({"weight_map": {"w": "model-1.safetensors"}}).encode()
    yield "elsewhere", json.dumps({"weight_map": {"w": "../../etc/passwd"}}).encode()
    yield "nul", json.dumps({"weight_map": {"w": "a\0b"}}).encode()
    yield "surrogate", b'{"weight_map": {"w": "\\ud800"}}'
    yield "long", json.dumps({"weight_map": {"w": "x" * 300}}).encode()
    yield "nested", b"[" * 20_000


class _Run:
    """A pickle of this makes a folder when a careless reader opens it."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        import os

        return os.mkdir, ("executed",)


def _pickle() -> Iterator[tuple[str, bytes]]:
    import torch

    for name, kind in (("zip", True), ("legacy", False)):
        file = io.BytesIO()
        torch.save({"w": torch.zeros(2, 2)}, file, _use_new_zipfile_serialization=kind)
        yield name, file.getvalue()
        file = io.BytesIO()
        torch.save({"w": _Run()}, file, _use_new_zipfile_serialization=kind)
        yield f"{name}-code", file.getvalue()
    yield "bare-code", pickle.dumps(_Run())
    yield "text-code", b"cos\nsystem\n(S'mkdir executed'\ntR."


def _prompt() -> Iterator[tuple[str, bytes]]:
    for name, tags, lyrics in (
        ("plain", "pop, piano", "[verse]\nla la"),
        ("marks", "<tag>pop</tag>", "<|end_of_text|>"),
        ("inside", "pop</tag><tag>rock", "<|begin_of_text|>la"),
        ("capitals", "<TAG>POP", "<|END_OF_TEXT|>"),
        ("kelvin", "roc\u212a", "\u0130stanbul"),
        ("empty", "", ""),
    ):
        yield name, tags.encode() + b"\0" + lyrics.encode()


def _live_state() -> Iterator[tuple[str, bytes]]:
    def state(**fields: Any) -> bytes:
        return LiveState(**fields).pack((1, 2, 3, 4))[3 + 4 :].tobytes()

    yield "first", state()
    yield "received", state(n_received=100, audio=np.zeros(100, np.float32))
    yield (
        "pitched",
        state(n_received=4410, audio=np.zeros(4410, np.float32), n_values=2, voiced=np.array([220.0], "f4")),
    )
    yield "minus_zero", np.array([0, 0, -0.0, 0, 0, 0, 0, 0, 0, 0], "f4").tobytes()


SEEDS = {
    "sound": _sound, "request": _request, "reply": _reply, "safetensors": _safetensors,
    "checkpoint_index": _checkpoint_index, "pickle": _pickle, "prompt": _prompt, "live_state": _live_state,
}  # fmt: skip


def main() -> None:
    """Write all of them."""
    for target, make in SEEDS.items():
        folder = FOLDER / target
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in make():
            (folder / name).write_bytes(data)


if __name__ == "__main__":
    main()
