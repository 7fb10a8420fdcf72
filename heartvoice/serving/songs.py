"""What the song models share: stages by BLS, pieces into responses, codes into a stream."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heartvoice.audio_files import AudioWriter, passthrough_provenance, provenance
from heartvoice.contracts import AUDIO_FORMATS, MAX_FILE_BYTES
from heartvoice.engines import Array
from heartvoice.errors import InvalidRequestError
from heartvoice.pipeline import AudioPiece, Codes, CodesPiece, Finished, Message, Progress, SongPipeline, SongRequest
from heartvoice.repository import Repository
from heartvoice.serving.bls import Caller
from heartvoice.serving.jobs import Job, Metrics
from heartvoice.stages.codec import CodecRequest
from heartvoice.stages.inputs import read_text
from heartvoice.stages.lm import LmRequest, LmStage

FLUSH_S = 0.1
"""Frames are sent on after this long: a response costs about 0.3 ms, a frame on a fast engine less."""


class ServedStages:
    """The stages of a song as BLS calls; a `pipeline.SongStages`."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    def write_codes(self, request: LmRequest) -> Iterator[Codes]:
        """Codes from the model `heartmula`."""
        inputs: dict[str, Array] = {
            "lyrics": np.array([request.lyrics.encode()], np.object_),
            "tags": np.array([request.tags.encode()], np.object_),
        }
        for name in ("duration_s", "min_duration_s", "seed", "temperature", "top_k", "cfg_scale"):
            inputs[name] = np.array([getattr(request, name)])
        if request.style is not None:
            inputs["style"] = request.style
        for response in self._caller.stream("heartmula", inputs):
            if "CODES" in response:
                yield response["CODES"].astype(np.int32)

    def decode_window(self, request: CodecRequest) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """One window from the model `heartcodec`."""
        inputs: dict[str, Array] = {
            "codes": request.codes,
            "window_index": np.array([request.window_index]),
            "seed": np.array([request.seed]),
            "codec_steps": np.array([request.steps]),
            "codec_guidance": np.array([request.guidance]),
        }
        if len(request.context):
            inputs["context_latents"] = request.context
        if len(request.history):
            inputs["history_latents"] = request.history
        result = self._caller.run("heartcodec", inputs)
        return result["AUDIO"].astype(np.float32), result["LATENTS"].astype(np.float32)


def run_song(job: Job, repository: Repository) -> Iterator[Message]:
    """Check a job's inputs and make its song through BLS."""
    request = SongRequest.from_inputs(job.inputs, repository.preset)
    caller = Caller(job.check)
    try:
        yield from SongPipeline(request, ServedStages(caller), repository.preset, repository.about).run(job.check)
    finally:
        caller.close()


def stream_song(job: Job, repository: Repository) -> None:
    """The model `song`."""
    send_messages(job, run_song(job, repository))


def send_messages(job: Job, messages: Iterable[Message]) -> None:
    """Each message of a pipeline as one response."""
    for message in messages:
        match message:
            case AudioPiece(audio, start):
                job.send({"AUDIO": audio, "START": np.array([start])})
            case CodesPiece(codes, start):
                job.send({"CODES": codes, "START": np.array([start])})
            case Progress():
                job.send_event(asdict(message))
            case Finished(report):
                job.send({"REPORT": json.dumps(report)})


def render(job: Job, messages: Iterable[Message]) -> None:
    """The model `render`: the whole song or cover, encoded."""
    file_format = read_text(job.inputs, "format") or AUDIO_FORMATS[0]
    if file_format not in AUDIO_FORMATS:
        raise InvalidRequestError(f"format: expected one of {', '.join(AUDIO_FORMATS)}, got {file_format!r}")
    with tempfile.TemporaryDirectory(prefix="heartvoice-render-") as folder:
        with AudioWriter(Path(folder) / f"song.{file_format}") as writer:
            for message in messages:
                if isinstance(message, AudioPiece):
                    writer.write(message.audio)
                elif isinstance(message, Finished):
                    report = message.report
            comment = _comment(report)
            written = writer.commit(comment)
        size = written.path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise InvalidRequestError(
                f"format: the song takes {size} bytes as {file_format}, the limit is {MAX_FILE_BYTES}; "
                "choose flac, mp3 or ogg, or stream it from the model song"
            )
        report |= {"format": file_format, "gain_db": round(written.gain_db, 2)}
        job.answer({"FILE": written.path.read_bytes(), "REPORT": json.dumps(report)})


def _comment(report: dict[str, Any]) -> str:
    """The tag of a file: a recording that was passed through is not AI-generated."""
    if report.get("converted") is False:
        return passthrough_provenance()
    return provenance(report["seed"], random_weights=report["random_weights"], voice_sha256=report.get("voice_sha256"))


def stream_codes(job: Job, stage: LmStage, repository: Repository, metrics: Metrics) -> None:
    """The model `heartmula`: frames, sent on every `FLUSH_S`."""
    request = LmRequest.from_inputs(job.inputs, repository.preset)
    began = flushed = time.monotonic()
    pending: list[NDArray[np.int32]] = []
    n_sent = 0

    def flush() -> None:
        nonlocal n_sent, flushed
        if pending:
            job.send({"CODES": np.stack(pending, axis=1), "START": np.array([n_sent])})
            n_sent += len(pending)
            metrics.frames_made(len(pending))
            pending.clear()
        flushed = time.monotonic()
        job.send_event(asdict(Progress("lm", n_sent, request.n_frames, flushed - began)))

    try:
        for codes in stage.frames(request, job.cancelled):
            pending.append(codes)
            if time.monotonic() - flushed >= FLUSH_S:
                flush()
        flush()
    finally:
        metrics.frames_made(len(pending))  # those of a cancelled job were made, too
    seconds = time.monotonic() - began
    report = repository.about | {
        "seed": request.seed,
        "frames": n_sent,
        "ended_by": "eos" if n_sent < request.n_frames else "length",
        "timings": {"lm_s": round(seconds, 4)},
    }
    job.send({"REPORT": json.dumps(report)})
