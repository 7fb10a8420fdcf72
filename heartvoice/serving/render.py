"""The model `render`: a whole song or cover as one encoded file."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from heartvoice.audio.encode import AudioWriter, source_tags
from heartvoice.contracts.claims import NO_SOURCE, ClaimSigner, Source, song_claim
from heartvoice.contracts.constants import AUDIO_FORMATS, MAX_FILE_BYTES
from heartvoice.contracts.field_checks import read_word
from heartvoice.contracts.messages import AudioChunk, Message, Report
from heartvoice.contracts.models import RENDER
from heartvoice.errors import EngineError, InvalidRequestError
from heartvoice.pipeline.admission import SongAdmission
from heartvoice.serving import process_registry
from heartvoice.serving.cover import run_cover_job
from heartvoice.serving.jobs import Job
from heartvoice.serving.signing import open_signer, sign_file
from heartvoice.serving.song import run_song_job
from heartvoice.serving.stage_model import Context, StageModel
from heartvoice.serving.watermark import open_watermark


def render(job: Job, messages: Iterable[Message], source: Source, signer: ClaimSigner | None) -> None:
    """Answer a job of the model `render` with the file of a song or cover.

    Args:
        job: names the format.
        messages: of the song's or cover's pipeline.
        source: a cover's recording.
        signer: what signs the file; None leaves it unsigned.
    """
    file_format = read_word(job.inputs, "format", AUDIO_FORMATS) or AUDIO_FORMATS[0]
    with process_registry.scratch(RENDER.name) as folder:
        report: Report | None = None
        with AudioWriter(Path(folder) / f"song.{file_format}") as writer:
            for message in messages:
                if isinstance(message, AudioChunk):
                    writer.write(message.audio)
                elif isinstance(message, Report):
                    report = message
            if report is None:
                raise EngineError("render: the pipeline ended without a report")
            written = writer.commit(report.tags(source.tags))
        path, signature = sign_file(written.path, file_format, song_claim(report, source), signer)
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise InvalidRequestError(
                f"format: the song takes {size} bytes as {file_format}, the limit is {MAX_FILE_BYTES}; "
                "choose flac, mp3 or ogg, or stream it from the model song"
            )
        facts = {**report.raw, "format": file_format, "gain_db": round(written.gain_db, 2), **signature}
        job.answer({"FILE": path.read_bytes(), "REPORT": json.dumps(facts)})


def _is_cover(job: Job) -> bool:
    return bool({"file", "audio"} & set(job.inputs))


class RenderModel(StageModel):
    """Triton adapter of `render`. A request with a recording is a cover, any other a song."""

    spec = RENDER

    def build(self, context: Context) -> None:
        """Keep the repository, and open the keys that sign and mark."""
        self.repository, self.signer = context.repository, open_signer()
        self.watermark = open_watermark(context.repository)
        self.admission = SongAdmission(context.repository.preset, context.repository.tokenizer)

    def admit(self, job: Job) -> None:
        """Refuse a song that cannot be made."""
        super().admit(job)
        if not _is_cover(job):
            self.admission.check(job.inputs)

    def work(self, job: Job) -> None:
        """Make the song or cover, and answer with the file."""
        if _is_cover(job):
            source = self._source(job)
            render(job, run_cover_job(job, self.repository, self.watermark), source, self.signer)
        else:
            messages = run_song_job(job, self.repository, self.admission.vocabulary, self.watermark)
            render(job, messages, NO_SOURCE, self.signer)

    def _source(self, job: Job) -> Source:
        """Read what a cover's file keeps of its recording: that is kept to the end only if its manifest is needed."""
        if "file" not in job.inputs:
            return NO_SOURCE
        file: bytes = job.inputs["file"][0]
        return Source(None if self.signer is None else file, source_tags(file))
