"""What the song models share: stages by BLS, pieces into responses."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from heartvoice.arrays import Array
from heartvoice.audio.encode import AudioWriter
from heartvoice.contracts.constants import AUDIO_FORMATS, MAX_FILE_BYTES
from heartvoice.contracts.messages import Report
from heartvoice.contracts.models import RENDER, SONG
from heartvoice.contracts.validation import read_text
from heartvoice.errors import InvalidRequestError
from heartvoice.pipeline.messages import AudioPiece, Codes, Finished, Message
from heartvoice.pipeline.song import SongRequest
from heartvoice.pipeline.song_with_voice import run_song
from heartvoice.runtime.repository import Repository
from heartvoice.serving import process_registry
from heartvoice.serving.bls import BlsClient
from heartvoice.serving.cover import ServedVoiceStages
from heartvoice.serving.jobs import Job
from heartvoice.serving.responses import send_messages
from heartvoice.serving.stage_model import Context, StageModel
from heartvoice.stages.codec import CodecRequest
from heartvoice.stages.lm.request import LmRequest


class ServedStages:
    """The stages of a song as BLS calls; a `pipeline.SongStages`."""

    def __init__(self, caller: BlsClient) -> None:
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


def run_song_job(job: Job, repository: Repository) -> Iterator[Message]:
    """Check a job's inputs and make its song through BLS."""
    preset = repository.preset
    request = SongRequest.from_inputs(job.inputs, preset)
    caller = BlsClient(job.check)
    try:
        yield from run_song(
            request,
            ServedStages(caller),
            lambda: ServedVoiceStages(caller, preset),
            preset,
            repository.about,
            detect_vocals=not repository.is_random("separator"),
            check=job.check,
        )
    finally:
        caller.close()


def stream_song(job: Job, repository: Repository) -> None:
    """The model `song`."""
    send_messages(job, run_song_job(job, repository))


def render(job: Job, messages: Iterable[Message]) -> None:
    """The model `render`: the whole song or cover, encoded."""
    file_format = read_text(job.inputs, "format") or AUDIO_FORMATS[0]
    if file_format not in AUDIO_FORMATS:
        raise InvalidRequestError(f"format: expected one of {', '.join(AUDIO_FORMATS)}, got {file_format!r}")
    with process_registry.scratch(RENDER.name) as folder:
        with AudioWriter(Path(folder) / f"song.{file_format}") as writer:
            for message in messages:
                if isinstance(message, AudioPiece):
                    writer.write(message.audio)
                elif isinstance(message, Finished):
                    report = message.report
            recorded = bool({"file", "audio"} & set(job.inputs))
            written = writer.commit(replace(Report.from_raw(report), recorded=recorded).comment)
        size = written.path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise InvalidRequestError(
                f"format: the song takes {size} bytes as {file_format}, the limit is {MAX_FILE_BYTES}; "
                "choose flac, mp3 or ogg, or stream it from the model song"
            )
        report |= {"format": file_format, "gain_db": round(written.gain_db, 2)}
        job.answer({"FILE": written.path.read_bytes(), "REPORT": json.dumps(report)})


class SongModel(StageModel):
    """Triton adapter of `song`. Owns no weights."""

    spec = SONG

    def build(self, context: Context) -> None:
        """Read the preset, so that a broken repository fails the load."""
        self.repository = context.repository
        self.repository.preset  # noqa: B018

    def work(self, job: Job) -> None:
        """Stream one song."""
        stream_song(job, self.repository)
